"""A virtual environment for each peer, made once: their requirements do not fit beside ours."""

import hashlib
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

CONSTRAINTS = Path(__file__).parents[3] / "constraints.txt"


def environment(
    cache: Path, name: str, requirements: Sequence[str], *, constrained: bool = False
) -> Path:
    """Folder of an environment that holds the requirements; made when it is not there.

    constrained: keep to constraints.txt, for a peer that shares torch with us.
    """
    key = hashlib.sha256("\n".join([sys.version, *requirements]).encode()).hexdigest()[:8]
    folder = cache / f"{name}-{key}"
    done = folder / ".complete"
    if done.exists():
        return folder
    print(f"installing {name} into {folder} (once)", flush=True)
    subprocess.run([sys.executable, "-m", "venv", "--clear", folder], check=True)
    pip = [folder / "bin/python", "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    limits = ["-c", CONSTRAINTS] if constrained else []
    subprocess.run(list(map(str, [*pip, *limits, *requirements])), check=True)
    done.touch()
    return folder


def site_packages(folder: Path) -> Path:
    """Where the environment keeps its packages."""
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    return folder / "lib" / version / "site-packages"
