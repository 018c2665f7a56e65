"""`amiss torchserve`: the bundles of a folder in TorchServe, fenced and supervised."""

import dataclasses
import shlex
from pathlib import Path
from typing import Any

from amiss_cli.examples import EXAMPLES
from amiss_cli.options import OptionParser
from amiss_export.bundle import TableInput, read_bundle, split_reference
from amiss_serving.torchserve.serve import Listening, run
from amiss_serving.torchserve.settings import TorchServeSettings

_READ_KEY = 'import json, sys; print(json.load(open(sys.argv[1]))["inference"]["key"])'


def main(argv: list[str]) -> int:
    """Serves until SIGTERM or SIGINT."""
    settings = to_settings(_parser().parse(argv))
    models = Path(settings.models)
    return run(settings, on_ready=lambda at: print(how_to_ask(models, at), flush=True))


def to_settings(values: dict[str, Any]) -> TorchServeSettings:
    """The settings that the options describe."""
    known = {field.name for field in dataclasses.fields(TorchServeSettings)}
    return TorchServeSettings(**{key: value for key, value in values.items() if key in known})


def how_to_ask(models: Path, at: Listening) -> str:
    """Where it all answers, and lines for the shell that ask each detector."""
    key = f"python3 -c {shlex.quote(_READ_KEY)} {shlex.quote(at.key_file)}"
    return "\n".join(
        [
            f"TorchServe answers on http://{at.http} and gRPC {at.grpc}, to this machine alone.",
            f"How its workers fare: http://{at.metrics}/metrics, /healthz and /readyz.",
            f"Its keys, which change: {at.key_file}",
            "",
            f'KEY="$({key})"',
            *(_curl(models, detector, at.http) for detector in at.detectors),
        ]
    )


def _curl(models: Path, detector: str, http: str) -> str:
    name, version = split_reference(detector)
    bundle = read_bundle(models, name, int(version or 0))
    is_table = isinstance(bundle.manifest.input, TableInput)
    file = next(iter(sorted((bundle.path / EXAMPLES).glob("most_anomalous_0.*"))), None)
    body = f"@{file or ('rows.json' if is_table else 'picture.png')}"
    kind = "application/json" if is_table else "application/octet-stream"
    return (
        f'curl -s -H "Authorization: Bearer $KEY" -H "Content-Type: {kind}" '
        f"--data-binary {shlex.quote(body)} http://{http}/predictions/{name}"
    )


def _parser() -> OptionParser:
    parser = OptionParser(
        prog="amiss torchserve",
        description="Run the bundles of a folder in TorchServe: on loopback, with keys, its models "
        "fixed, its dead workers replaced and counted. Every option can also be set as "
        "AMISS_<OPTION> or in a YAML file (--config).",
        env_prefix="AMISS",
        default_env=True,
        allow_abbrev=False,
    )
    parser.add_argument("--config", action="config", help="YAML file of options; flags win")
    parser.add_argument(
        "--onnx",
        action="store_true",
        help="run model.onnx in ONNX Runtime inside TorchServe's workers, not TorchScript",
    )
    parser.add_class_arguments(TorchServeSettings, skip={"onnx"})
    return parser
