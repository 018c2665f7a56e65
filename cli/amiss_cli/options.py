"""One way to read options: flags over a YAML file over the environment, from typed definitions."""

import re
from argparse import HelpFormatter
from collections.abc import Sequence
from typing import Any, NoReturn

from jsonargparse import ArgumentParser

from amiss_export.errors import BadInput

_LONG_OPTION = re.compile(r"--[A-Za-z][\w.]*")


class OptionParser(ArgumentParser):
    """jsonargparse with dashes in option names and one clear line for a wrong option."""

    def format_help(self, formatter: HelpFormatter | None = None) -> str:
        text = super().format_help(formatter)
        return _LONG_OPTION.sub(lambda m: m.group().replace("_", "-"), text)

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        lines = [line.strip() for line in str(message).splitlines() if line.strip()]
        raise BadInput(f"{' '.join(lines)}; see {self.prog} --help") from ex

    def parse(self, argv: Sequence[str]) -> dict[str, Any]:
        """Values by option name, nested where the option is (e.g. vae.hidden)."""
        try:
            values: dict[str, Any] = self.parse_args([_underscored(a) for a in argv]).as_dict()
        except UnicodeDecodeError as error:
            raise BadInput(f"--config must be UTF-8 text: {error}") from error
        return values


def _underscored(argument: str) -> str:
    """'--label_column=a-b' of '--label-column=a-b'."""
    if not argument.startswith("--") or argument == "--":
        return argument
    name, equals, value = argument[2:].partition("=")
    return f"--{name.replace('-', '_')}{equals}{value}"
