"""`amiss sample`: what a bundle believes normal looks like."""

import argparse
from pathlib import Path

from amiss_cli.usage import UsageParser
from amiss_export.bundle import read_bundle, resolve_version, split_reference


def main(argv: list[str]) -> int:
    """Writes the samples and says of which members they are."""
    from amiss_training.sample import sample, write_samples

    chosen = _parser().parse_args(argv)
    name, wanted = split_reference(chosen.reference)
    bundle = read_bundle(chosen.models, name, resolve_version(chosen.models, name, wanted))
    samples = sample(bundle, count=chosen.count, seed=chosen.seed)
    write_samples(samples, chosen.output)
    each = f"of each of {', '.join(samples.rows)}" if len(samples.rows) > 1 else "sample(s)"
    print(f"{chosen.count} {each} from {name}@{bundle.version} in {chosen.output}")
    return 0


def _parser() -> UsageParser:
    parser = UsageParser(
        prog="amiss sample",
        description="Draw rows from a detector's prior, decoded into the units of its input: a "
        "PNG grid of images, or a CSV file of table rows. An ensemble's members decode the same "
        "draws.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("reference", metavar="NAME[@VERSION|@LABEL]", help="the bundle")
    parser.add_argument(
        "--output", type=Path, required=True, help="file to write, .png for images or .csv for rows"
    )
    parser.add_argument("--count", type=int, default=16, help="samples of each member")
    parser.add_argument("--seed", type=int, default=0, help="decides the draws")
    parser.add_argument("--models", type=Path, default=Path("models"), help="folder of bundles")
    return parser
