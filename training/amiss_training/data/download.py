"""Files of public data sets: found where they lie, downloaded when absent, never unchecked."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import pooch

from amiss_export.errors import BadInput
from amiss_training.data.named import RemoteFile

_TIMEOUT_S = 30


def folder_of(name: str, path: Path | None, environ: Mapping[str, str] = os.environ) -> Path:
    """Where the data set lies or shall be put: the path, else $AMISS_DATA/NAME or data/NAME."""
    return path or Path(environ.get("AMISS_DATA") or "data") / name


def fetch_files(
    name: str, folder: Path, files: Sequence[RemoteFile], *, siblings: Sequence[RemoteFile] = ()
) -> list[Path]:
    """Where each file lies in the folder, gzipped or not; what is absent is downloaded first.

    A download goes to a temporary name and takes its own only when its checksum is right. Raises
    BadInput that names every file to put there when one cannot be had. Nothing is downloaded into
    a folder that holds other things and neither these files nor siblings, others of the same set.
    """
    if folder.is_file():
        raise BadInput(f"data set {name!r}: expected the folder of its files, got a file: {folder}")
    if any(folder.name in (file.name, file.name.removesuffix(".gz")) for file in files):
        raise BadInput(f"data set {name!r}: there is no file {folder}; name it, or its folder")
    found = {file: find_file(folder, file) for file in files}
    absent = [file for file, path in found.items() if path is None]
    is_ours = any(find_file(folder, file) for file in (*files, *siblings))
    if absent and not is_ours and folder.is_dir() and any(folder.iterdir()):
        raise _put_here(name, folder, absent, reason=f"none of its files lies in {folder}")
    for file in absent:
        reason = _download(folder, file)
        if reason is not None:
            raise _put_here(name, folder, absent, reason=reason)
    return [found[file] or folder / file.name for file in files]


def find_file(folder: Path, file: RemoteFile) -> Path | None:
    """The file in the folder under its own name, or gzipped or not where it is a .gz; else None."""
    names = (file.name, file.name.removesuffix(".gz"))
    return next((folder / name for name in names if (folder / name).is_file()), None)


def _download(folder: Path, file: RemoteFile) -> str | None:
    """None once the file is there, else the reason why it cannot be had."""
    if file.checksum is None:
        return f"{file.name} has no published checksum and is not downloaded without one"
    try:
        pooch.retrieve(
            file.url,
            known_hash=file.checksum,
            fname=file.name,
            path=folder,
            downloader=pooch.HTTPDownloader(timeout=_TIMEOUT_S),
        )
    except ValueError:  # pooch has deleted what came
        return f"what came from {file.url} is not {file.name}: its checksum is another"
    except OSError as error:  # of the network (requests' errors are among them) or of the folder
        return f"{file.name} could not be downloaded ({type(error).__name__})"
    return None


def _put_here(name: str, folder: Path, files: Sequence[RemoteFile], *, reason: str) -> BadInput:
    wanted = ", ".join(f"{folder / file.name}{_or_plain(file)} (from {file.url})" for file in files)
    return BadInput(f"data set {name!r}: {reason}; put the file here: {wanted}")


def _or_plain(file: RemoteFile) -> str:
    return f" or {file.name.removesuffix('.gz')}" if file.name.endswith(".gz") else ""
