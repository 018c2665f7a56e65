"""argparse with our kind of error: one line, exit code 2, and no guessing at half-typed options.

The last matters: --token SECRET must not pass for --token-file.
"""

import argparse
from typing import Any, NoReturn

from amiss_export.errors import BadInput


class UsageParser(argparse.ArgumentParser):
    """For commands whose --help must answer at once; the others use options.OptionParser."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**{"allow_abbrev": False, **settings})

    def error(self, message: str) -> NoReturn:
        raise BadInput(f"{message}; see {self.prog} --help")
