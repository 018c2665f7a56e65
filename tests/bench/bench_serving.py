"""The service beside Triton, TorchServe, LitServe, MLServer and bare ONNX Runtime, in one run.

    sudo apt-get install nghttp2-client          # h2load, the load generator
    .venv/bin/python tests/bench/bench_serving.py [--headline | --quick] [--peers amiss,triton]
    .venv/bin/python tests/bench/bench_serving.py --report     # docs/performance.md from the JSON

All run the same ONNX model (a small convolutional VAE, 28x28) on one compute thread, one after the
other, three times; TorchServe once more with the model's TorchScript. Ratios are taken inside a
round. Peers are installed into environments of their own below --cache (3 GB, once). About 25
minutes; --headline takes eight, --quick shows in four that everything works. Leave the machine
alone meanwhile: the load generator shares its cores.
"""

import argparse
import dataclasses
import json
import shutil
from pathlib import Path

from serving.peers import PEERS
from serving.report import write_report
from serving.run import BUSY, Plan, measure_all

ROOT = Path(__file__).parents[2]
HEADLINE_PEERS = ("amiss", "triton", "torchserve", "torchserve-torchscript", "litserve")


def main() -> None:
    options = _options()
    if not options.report:
        if shutil.which("h2load") is None:
            raise SystemExit("h2load is missing; install it with: sudo apt install nghttp2-client")
        results = measure_all(_plan(options), options.cache.resolve())
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(json.dumps(results, indent=1) + "\n")
    page = write_report(json.loads(options.json.read_text()), options.page)
    print(page.read_text())


def _plan(options: argparse.Namespace) -> Plan:
    names = options.peers or (HEADLINE_PEERS if options.headline else tuple(PEERS))
    plan = Plan(peers=tuple(names))
    if options.headline:
        plan = dataclasses.replace(plan, rows=(1,), in_flight=(1, BUSY), loads=(), every_door=False)
    if options.quick:
        plan = dataclasses.replace(plan, seconds=1, warm_up_s=0.3, rounds=1, tune_s=0, heat_s=1)
    return plan


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--peers", type=_names, help=f"some of {','.join(PEERS)}; default all")
    length = parser.add_mutually_exclusive_group()
    length.add_argument(
        "--headline", action="store_true", help="single rows, 1 and 64 callers, first doors"
    )
    length.add_argument("--quick", action="store_true", help="one round of one-second windows")
    length.add_argument("--report", action="store_true", help="only make the page from the JSON")
    parser.add_argument("--cache", type=Path, default=ROOT / ".bench", help="environments, model")
    parser.add_argument("--json", type=Path, default=ROOT / "docs/results/serving.json")
    parser.add_argument("--page", type=Path, default=ROOT / "docs/performance.md")
    return parser.parse_args()


def _names(text: str) -> list[str]:
    names = text.split(",")
    unknown = [name for name in names if name not in PEERS]
    if unknown:
        raise argparse.ArgumentTypeError(f"expected some of {','.join(PEERS)}, got {unknown}")
    return names


if __name__ == "__main__":
    main()
