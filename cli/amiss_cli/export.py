"""`amiss export`: a bundle in the form that another server takes."""

import argparse
from pathlib import Path

from amiss_cli.usage import UsageParser


def main(argv: list[str]) -> int:
    """Writes the archive and says where it is."""
    chosen = _parser().parse_args(argv)
    from amiss_export.bundle import ONNX, TORCHSCRIPT, read_bundle, resolve_version, split_reference
    from amiss_export.to_mar import write_mar
    from amiss_serving.torchserve import HANDLER

    name, wanted = split_reference(chosen.reference)
    bundle = read_bundle(chosen.models, name, resolve_version(chosen.models, name, wanted))
    chosen.output.mkdir(parents=True, exist_ok=True)
    path = chosen.output / f"{name}.mar"
    model = ONNX if chosen.onnx else TORCHSCRIPT
    write_mar(bundle, path, handler=HANDLER, model=model)
    print(f"{name}@{bundle.version} with {model} in {path}")
    return 0


def _parser() -> UsageParser:
    parser = UsageParser(
        prog="amiss export",
        description="Write a bundle as NAME.mar, an archive for TorchServe, whose workers need "
        "Amiss installed: pip install 'amiss[torchserve]'. The same bundle gives the same bytes. "
        "An archive that is already there is left alone when it is the same, and else an error.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("reference", metavar="NAME[@VERSION|@LABEL]", help="the bundle")
    parser.add_argument(
        "--mar", action="store_true", required=True, help="for TorchServe, the one form there is"
    )
    parser.add_argument(
        "--onnx", action="store_true", help="run model.onnx in ONNX Runtime, not TorchScript"
    )
    parser.add_argument(
        "--output", type=Path, required=True, metavar="DIR", help="folder for the archive"
    )
    parser.add_argument("--models", type=Path, default=Path("models"), help="folder of bundles")
    return parser
