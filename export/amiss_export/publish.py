"""A bundle written in one piece: filled aside, hashed, synced, renamed."""

import fcntl
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from amiss_export.bundle import (
    MANIFEST,
    FileEntry,
    Manifest,
    check_name,
    list_versions,
    sha256_of,
)

_TEMPORARY_PREFIX = ".writing-"
_STALE_AFTER_S = 60.0


@contextmanager
def writing_bundle(models: Path, name: str) -> Iterator[Path]:
    """A temporary folder beside the versions; removed on the way out unless it was published.

    Fill it, then call `publish`. A process killed in between leaves only a hidden folder that no
    reader looks at and the next writer removes.
    """
    parent = models / check_name(name)
    parent.mkdir(parents=True, exist_ok=True)
    _remove_stale(parent)
    folder = Path(tempfile.mkdtemp(prefix=_TEMPORARY_PREFIX, dir=parent))
    lock = os.open(folder, os.O_RDONLY)
    fcntl.flock(lock, fcntl.LOCK_EX)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        os.close(lock)


def publish(folder: Path, manifest: Manifest) -> int:
    """The version number under which the filled folder now stands, whole.

    Hashes every file into the manifest, syncs, and renames: a reader sees all of it or nothing.
    """
    files = {
        str(p.relative_to(folder)): _entry(p)
        for p in sorted(folder.rglob("*"))
        if p.is_file() and p.name != MANIFEST
    }
    complete = manifest.model_copy(update={"files": files})
    (folder / MANIFEST).write_text(complete.model_dump_json(indent=2))
    folder.chmod(0o755)
    for path in (*folder.rglob("*"), folder):
        _sync(path)
    parent = folder.parent
    version = max([0, *list_versions(parent.parent).get(manifest.name, [])]) + 1
    while True:
        try:
            folder.rename(parent / str(version))
        except OSError:  # another writer took this number first
            if not (parent / str(version)).exists():
                raise
            version += 1
            continue
        _sync(parent)
        return version


def _entry(path: Path) -> FileEntry:
    contents = path.read_bytes()
    return FileEntry(sha256=sha256_of(contents), bytes=len(contents))


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _remove_stale(parent: Path) -> None:
    """Remove what killed writers left: old temporary folders that nobody holds the lock of."""
    for folder in parent.glob(f"{_TEMPORARY_PREFIX}*"):
        if time.time() - folder.stat().st_mtime < _STALE_AFTER_S:
            continue
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(folder, ignore_errors=True)
        except BlockingIOError:
            continue
        finally:
            os.close(descriptor)
