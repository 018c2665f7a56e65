"""`amiss serve`: answer over gRPC and HTTP."""

import dataclasses
import os
from argparse import Action, Namespace
from typing import Any

from amiss_cli.options import OptionParser
from amiss_serving.server import Addresses, run
from amiss_serving.settings import Settings

TOKEN_VARIABLE = "AMISS_TOKEN"  # noqa: S105  the variable's name, not a token


def main(argv: list[str]) -> int:
    """Serves until SIGTERM or SIGINT, then drains."""
    values = _parser().parse(argv)
    show_examples = values.pop("show_examples")
    settings = to_settings(values)
    return run(settings, on_ready=(lambda at: _show(settings, at)) if show_examples else None)


def to_settings(values: dict[str, Any]) -> Settings:
    """The settings that the options describe; the token comes from the environment alone."""
    known = {f.name for f in dataclasses.fields(Settings)}
    token = os.environ.get(TOKEN_VARIABLE)
    values["provider_option"] = tuple(_listed(values["provider_option"]))
    return Settings(**{k: v for k, v in values.items() if k in known}, token=token)


def _parser() -> OptionParser:
    parser = OptionParser(
        prog="amiss serve",
        description="Answer over gRPC and HTTP. Every option can also be set as AMISS_<OPTION> or "
        f"in a YAML file (--config); the bearer token only as {TOKEN_VARIABLE} or in --token-file.",
        env_prefix="AMISS",
        default_env=True,
        allow_abbrev=False,  # --token SECRET must not pass for --token-file
    )
    parser.add_argument("--config", action="config", help="YAML file of options; flags win")
    parser.add_argument(
        "--show_examples",
        action="store_true",
        help="print a curl line and a Python snippet for each detector once ready",
    )
    parser.add_argument(
        "--provider_option",
        action=_Extend,
        nargs="+",
        metavar="KEY=VALUE",
        help="option of ONNX Runtime's CUDA provider; may be given more than once",
    )
    parser.add_class_arguments(Settings, skip={"token", "provider_option"})
    return parser


class _Extend(Action):
    """argparse's own 'extend', which stumbles over one value that a file gives without a list."""

    def __call__(
        self, parser: object, namespace: Namespace, values: Any, option_string: str | None = None
    ) -> None:
        setattr(namespace, self.dest, [*_listed(getattr(namespace, self.dest, None)), *values])


def _listed(values: Any) -> list[str]:
    """Text of what a file or flags gave: nothing, one value or a list of them."""
    if values is None:
        return []
    return [str(value) for value in (values if isinstance(values, list) else [values])]


def _show(settings: Settings, at: Addresses) -> None:
    from amiss_cli.examples import examples

    print(examples(settings, at), flush=True)
