"""Whether a CUDA device serves as the CPU does, and how much faster: `make gpu-check`.

    .venv/bin/python tests/bench/bench_gpu.py [--parts tests parity speed memory] [--device cuda:0]

tests: every test marked gpu passes. parity: a small convolutional VAE and one of a table, in ONNX
Runtime and in TorchScript, score on the device what the CPU scores, to 1e-5 of the calibration
scale. speed: rows a second through the engine, device and CPU; the device must not be slower with
convolutions in batches of 256. memory: what `amiss serve` takes of the device while 32 callers ask
for batches of all sizes, and that it does not grow.
Exit code 0 when every line with a bar passed, 1 when one did not, 2 without a CUDA device. About
four minutes, and two more the first time, for the models; leave device and machine alone meanwhile.
"""

import argparse
import sys
from collections.abc import Callable, Iterable
from pathlib import Path

from serving.device_memory import device_memory
from serving.gpu_checks import KINDS, Line, memory_lines, parity, speed
from serving.gpu_machine import device_lines, gpu_test_lines, version_lines
from serving.mixed_sizes import memory_while_asked
from serving.models import Model, digits_model, table_model

from amiss_export.errors import BadInput
from amiss_serving.devices import driver_device_count
from amiss_serving.runtimes import choose_device

ROOT = Path(__file__).parents[2]
PARTS = ("tests", "parity", "speed", "memory")
REQUESTS = (1_000, 1_000, 1_000)  # of the memory part; the tests make 10,000
HELD, FAILED, NO_DEVICE = 0, 1, 2


def main() -> int:
    """0 when all held, 1 when something did not, 2 without a device."""
    options = _options()
    if driver_device_count() == 0:
        return _refuse("the driver shows no CUDA device, so that nothing was checked")
    try:
        lines = checked(options)
    except BadInput as error:
        return _refuse(str(error))
    failed = sum(line.held is False for line in lines)
    judged = sum(line.held is not None for line in lines)
    print(f"{judged - failed} of {judged} bars held")
    return FAILED if failed else HELD


def checked(options: argparse.Namespace) -> list[Line]:
    """The lines of all parts, printed as they come. Raises BadInput when a runtime cannot use the
    device."""
    for kind in KINDS:
        choose_device(options.device, kind)
    lines = [*report("devices", device_lines()), *report("versions", version_lines())]
    if "tests" in options.parts:
        lines += report("tests marked gpu", gpu_test_lines(ROOT / "tests"))
    if set(options.parts) - {"tests"}:
        lines += measured(options)
    return lines


def measured(options: argparse.Namespace) -> list[Line]:
    """The lines of parity, speed and memory, printed as they come."""
    device, cache = options.device, options.cache.resolve()
    models = digits_model(cache), table_model(cache)
    lines = []
    if "memory" in options.parts:  # first: what this process takes later is no part of it
        with device_memory(device) as taken:
            title = f"memory of `amiss serve` with {models[0].name} on {device}"
            lines += report(title, memory(models[0], taken, device=device))
    if "parity" in options.parts:
        lines += report(
            f"parity of {device} with the CPU", each(models, lambda m: parity(m, device=device))
        )
    if "speed" in options.parts:
        lines += report(
            f"speed of {device} and of all cores, {options.seconds:g} s each",
            each(models, lambda m: speed(m, device=device, seconds=options.seconds)),
        )
    return lines


def memory(model: Model, taken: Callable[[], int], *, device: str) -> Iterable[Line]:
    """The lines of a service that runs the model on the device."""
    options = ("--device", device)
    taken_mb = memory_while_asked([model], taken, options=options, counts=REQUESTS)
    return memory_lines(REQUESTS, taken_mb)


def each(models: Iterable[Model], check: Callable[[Model], Iterable[Line]]) -> Iterable[Line]:
    """The lines of every model in turn."""
    return (line for model in models for line in check(model))


def report(title: str, lines: Iterable[Line]) -> list[Line]:
    """The lines, each printed under the title as soon as it is there."""
    print(title, flush=True)
    printed = []
    for line in lines:
        print(line, flush=True)
        printed.append(line)
    return printed


def _refuse(reason: str) -> int:
    print(f"gpu-check: {reason}", file=sys.stderr)
    return NO_DEVICE


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS)
    parser.add_argument("--device", type=_cuda, default="cuda:0")
    parser.add_argument("--seconds", type=float, default=0.7, help="of a measurement of speed")
    parser.add_argument("--cache", type=Path, default=ROOT / ".bench", help="where models are kept")
    return parser.parse_args()


def _cuda(text: str) -> str:
    if not text.startswith("cuda:"):
        raise argparse.ArgumentTypeError(f"must be cuda:0 or another CUDA device, got {text!r}")
    return text


if __name__ == "__main__":
    sys.exit(main())
