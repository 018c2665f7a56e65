"""What the service does at its limits: memory after many requests, and three times too many.

    sudo apt-get install nghttp2-client          # h2load, the load generator
    .venv/bin/python tests/bench/bench_limits.py [soak] [overload] [--requests 200000]

soak: 200,000 requests of all kinds through both doors, some of them bad, late or abandoned. The
process then holds within 5 % of what it held after 20,000, and has counted what was sent.
overload: 32 rows a request at random moments, three times as often as can be answered. Good answers
keep coming at 80 % of the capacity, the rest are told to try again within 50 ms, memory is flat.
Exit code 1 when one of these does not hold. About four minutes; leave the machine alone meanwhile.
"""

import argparse
import shutil
import sys
import tempfile
from collections import Counter
from pathlib import Path

import numpy as np
from serving.doors import Door
from serving.models import Model, digits_model
from serving.overload import TOLD, Overload, Plan, overload
from serving.service import amiss_service, protocol
from serving.soak import ROUND, soak

ROOT = Path(__file__).parents[2]
PARTS = ("soak", "overload")
EARLY = 20_000  # requests after which memory is compared
PRINTED = (EARLY, 50_000, 100_000, 150_000)
MOST_GROWTH = 0.05
# What waits is computed in a fifth of a second here: whoever is let in is answered soon.
BOUNDED = ("--max-queue-rows", 2048, "--max-request-rows", 2048, "--default-timeout-s", 5)
LEAST_GOODPUT = 0.8
MOST_REFUSAL_MS = 50.0
MOST_OVERLOAD_GROWTH = 0.1
LEAST_OFFERED = 0.95  # of what the open loop meant to offer


def main() -> int:
    """1 when a line failed."""
    options = _options()
    if shutil.which("h2load") is None:
        raise SystemExit("h2load is missing; install it with: sudo apt install nghttp2-client")
    model = digits_model(options.cache.resolve())
    held = []
    parts = options.parts or PARTS
    if "soak" in parts:
        held.append(_soak(model, requests=options.requests))
    if "overload" in parts:
        held += [_overload(model, door, Plan(seconds=options.seconds)) for door in options.doors]
    return 0 if all(held) else 1


def _soak(model: Model, *, requests: int) -> bool:
    """Whether memory stayed and the counts agree."""
    print("soak, as it comes")
    with tempfile.TemporaryDirectory() as folder, amiss_service(model, Path(folder), ()) as service:
        for tally in soak(service, requests=requests):
            rss_mb = service.rss_mb()
            if tally.sent == EARLY:
                early_mb = rss_mb
            if tally.sent in PRINTED or tally.sent == requests:
                print(f"  RSS after {tally.sent:9,} requests {rss_mb:9.1f} MB", flush=True)
        differences = tally.differences(service.counts())
    growth = rss_mb / early_mb - 1
    return all(
        [
            _line(abs(growth) <= MOST_GROWTH, "change of RSS", f"{growth:+.1%}", "within 5 %"),
            _line(not tally.unanswered, "requests unanswered", f"{tally.unanswered:,}", "0"),
            _line(not differences, "kinds miscounted", f"{len(differences)}", "0", differences),
        ]
    )


def _overload(model: Model, name: str, plan: Plan) -> bool:
    """Whether the door refused what it could not answer, soon, and answered the rest."""
    print(f"overload over {name}, {' '.join(map(str, BOUNDED))}", flush=True)
    with (
        tempfile.TemporaryDirectory() as folder,
        amiss_service(model, Path(folder), BOUNDED) as service,
    ):
        door = {"HTTP": service.oip_http, "gRPC": service.oip_grpc}[name]
        found = overload(service, door, plan)
    _figures(found, plan)
    return _judged(found, door, plan)


def _figures(found: Overload, plan: Plan) -> None:
    good_ms, cores = np.percentile(found.good_ms, [50, 99]), found.cores
    before, after = found.capacity_per_s
    print(f"  capacity, {plan.rows} rows   {before:7.0f} a second before, {after:.0f} after")
    print(f"  good answers          p50 {good_ms[0]:.0f} ms, p99 {good_ms[1]:.0f} ms")
    print(f"  load generator late   p99 {found.late_p99_ms:.1f} ms")
    print(
        f"  cores                 {cores.server:.2f} service, {cores.generator:.2f} generator, "
        f"{cores.others:.2f} others"
    )


def _judged(found: Overload, door: Door, plan: Plan) -> bool:
    refused = [each for each in found.probes if each.code == TOLD[protocol(door)]]
    told = Counter(each.retry_after for each in refused)
    p50_ms, p99_ms = np.percentile(found.refused_ms, [50, 99])
    offered = found.offered_per_s / found.capacity_per_s[0]
    rss = found.rss
    return all(
        [
            _line(
                offered >= LEAST_OFFERED * plan.times,
                "offered",
                f"{found.offered_per_s:.0f} a second, {offered:.2f} x capacity",
                f">= {LEAST_OFFERED * plan.times:.2f} x",
            ),
            _line(
                found.goodput_share >= LEAST_GOODPUT,
                "good answers",
                f"{found.goodput_per_s:.0f} a second, {found.goodput_share:.0%} of capacity",
                ">= 80 %",
            ),
            _line(
                p99_ms <= MOST_REFUSAL_MS,
                "refusals told",
                f"p50 {p50_ms:.1f} ms, p99 {p99_ms:.1f} ms, of {len(found.refused_ms):,}",
                "p99 <= 50 ms",
            ),
            _line(
                found.unanswered + found.miscounted == 0,
                "unanswered, miscounted",
                f"{found.unanswered}, {found.miscounted}",
                "0, 0",
            ),
            _line(
                bool(refused) and None not in told,
                "retry-after told",
                f"{dict(told)} to {len(found.probes)} ordinary clients",
                f"with each {TOLD[protocol(door)]}",
            ),
            _line(
                rss.growth <= MOST_OVERLOAD_GROWTH,
                "RSS",
                f"{rss.settled:.0f} MB, {rss.last:.0f} at the end ({rss.growth:+.1%}), "
                f"peak {rss.peak:.0f}",
                "<= +10 %",
            ),
        ]
    )


def _line(held: bool, name: str, figure: str, bar: str, reasons: list[str] | None = None) -> bool:
    print(f"  {name:21} {figure}  ({bar}: {'pass' if held else 'FAIL'})")
    for reason in reasons or ():
        print(f"    {reason}")
    return held


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("parts", nargs="*", metavar=f"{{{','.join(PARTS)}}}", type=_part)
    parser.add_argument("--requests", type=_requests, default=200_000, help="of the soak")
    parser.add_argument("--seconds", type=float, default=10.0, help="of the overload, counted")
    parser.add_argument("--doors", nargs="+", choices=("HTTP", "gRPC"), default=("HTTP", "gRPC"))
    parser.add_argument("--cache", type=Path, default=ROOT / ".bench", help="the model")
    return parser.parse_args()


def _part(text: str) -> str:
    """Not `choices`: Python 3.11 holds the empty default against them."""
    if text not in PARTS:
        raise argparse.ArgumentTypeError(f"must be one of {', '.join(PARTS)}, got {text!r}")
    return text


def _requests(text: str) -> int:
    n = int(text)
    if n <= EARLY or n % ROUND:
        raise argparse.ArgumentTypeError(f"must be > {EARLY} and a multiple of {ROUND}, got {n}")
    return n


if __name__ == "__main__":
    sys.exit(main())
