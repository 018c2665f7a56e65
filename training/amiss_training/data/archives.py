"""Named files of a published archive, read from its folder or from inside the .tar.gz."""

import tarfile
from collections.abc import Sequence
from pathlib import Path

from amiss_export.errors import BadInput
from amiss_training.data.files import reading


def read_members(place: Path, names: Sequence[str]) -> dict[str, bytes]:
    """Contents by file name, from a folder or from a tar archive; the names as the user sees them.

    An archive is read from front to back until all are found, and never unpacked: no path that it
    names is ever written to. Raises BadInput naming what is missing or cut off.
    """
    found = _from_folder(place, names) if place.is_dir() else _from_archive(place, names)
    absent = [name for name in names if name not in found]
    if absent:
        raise BadInput(f"{place}: expected the file(s) {', '.join(absent)} in there")
    return found


def _from_folder(folder: Path, names: Sequence[str]) -> dict[str, bytes]:
    found = {}
    for name in names:
        if (folder / name).is_file():
            with reading(folder / name):
                found[name] = (folder / name).read_bytes()
    return found


def _from_archive(path: Path, names: Sequence[str]) -> dict[str, bytes]:
    found: dict[str, bytes] = {}
    try:
        with reading(path), tarfile.open(path, "r:*") as archive:
            for member in archive:
                name = Path(member.name).name
                stream = archive.extractfile(member) if member.isfile() and name in names else None
                if stream is not None:
                    found[name] = stream.read()
                if len(found) == len(names):
                    break
    except tarfile.TarError as error:
        raise BadInput(f"{path}: cannot be read as a tar archive: {error}") from error
    return found


def find_place(place: Path, unpacked: str, names: Sequence[str]) -> Path | None:
    """What read_members can read: the path if it is a file, the folder that holds one of the names.

    That folder is the place itself or the one that the archive unpacks to in it; None without.
    """
    if place.is_file():
        return place
    folders = (place, place / unpacked)
    return next((f for f in folders if any((f / name).is_file() for name in names)), None)


def files_of(place: Path, names: Sequence[str]) -> list[Path]:
    """The files that read_members reads."""
    return [place / name for name in names] if place.is_dir() else [place]
