"""What lies in a model store: archives (.mar), and the name and version inside each."""

import json
import zipfile
from dataclasses import dataclass
from pathlib import Path

from amiss_export.errors import BadInput, BundleRefused

_MANIFEST = "MAR-INF/MANIFEST.json"


@dataclass(frozen=True)
class Archive:
    """One model of the store, as its own manifest names it."""

    name: str
    version: str
    file: str


def read_store(store: Path) -> tuple[Archive, ...]:
    """Every archive of the folder, by name. Raises BadInput when there is none or names repeat."""
    archives = tuple(sorted(map(_read, store.glob("*.mar")), key=lambda archive: archive.name))
    if not archives:
        raise BadInput(
            f"{store} holds no archive (*.mar); write one with amiss export NAME@V --mar"
        )
    names = [archive.name for archive in archives]
    if len(set(names)) < len(names):
        raise BadInput(f"{store} holds two archives of one model ({', '.join(names)}); keep one")
    return archives


def _read(path: Path) -> Archive:
    try:
        with zipfile.ZipFile(path) as file:
            model = json.loads(file.read(_MANIFEST))["model"]
        return Archive(str(model["modelName"]), str(model["modelVersion"]), path.name)
    except (OSError, zipfile.BadZipFile, ValueError, KeyError, TypeError) as error:
        raise BundleRefused(
            f"{path} is no model archive ({_MANIFEST}: {error}); write it again with amiss export"
        ) from error
