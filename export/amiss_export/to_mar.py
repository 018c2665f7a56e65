"""The bundle as an archive for TorchServe: one .mar file, the same bytes for the same bundle.

handler.py  model.pt (or model.onnx.pt)  manifest.json  calibration.npy  MAR-INF/MANIFEST.json
"""

import filecmp
import json
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from zipfile import ZipFile, ZipInfo

from amiss_export.bundle import (
    MANIFEST,
    ONNX,
    TORCHSCRIPT,
    Bundle,
    read_calibration,
    read_manifest,
    sha256_of,
)
from amiss_export.errors import BadInput, BundleRefused

HANDLER = "handler.py"
SERIALIZED = {TORCHSCRIPT: "model.pt", ONNX: "model.onnx.pt"}  # the ending that TorchServe knows
_TORCHSERVE_MANIFEST = "MAR-INF/MANIFEST.json"
_ARCHIVER_VERSION = "0.12.0"  # of torch-model-archiver, whose archives these equal
_READABLE = 0o644 << 16


@dataclass(frozen=True)
class Unpacked(Bundle):
    """What an archive holds of a bundle. model: its one model file, 'model.pt' or 'model.onnx'."""

    model: str

    def read(self, file: str) -> bytes:
        """Contents of the model file, checked against its sha256 on the way in."""
        contents = (self.path / SERIALIZED[file]).read_bytes()
        if sha256_of(contents) != self.manifest.files[file].sha256:
            raise BundleRefused(
                f"{self.path}: {SERIALIZED[file]} is not the {file} that was exported (sha256 "
                "differs from the manifest)"
            )
        return contents


def write_mar(bundle: Bundle, path: Path, *, handler: Path, model: str = TORCHSCRIPT) -> None:
    """Nothing; writes the archive to `path`, all of it or nothing.

    handler: the file that TorchServe's workers run. model: TORCHSCRIPT or ONNX, which of the
    bundle's two model files. A file at `path` is left alone: the same archive is as good as
    written, anything else raises BadInput.
    """
    calibration = bundle.manifest.decision.calibration_file
    files = {
        HANDLER: handler.read_bytes(),
        SERIALIZED[model]: bundle.read(model),
        MANIFEST: (bundle.path / MANIFEST).read_bytes(),
        calibration: bundle.read(calibration),
        _TORCHSERVE_MANIFEST: _torchserve_manifest(bundle, SERIALIZED[model]),
    }
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=".writing-") as folder:
        whole = Path(folder) / path.name
        _write_zip(whole, files)
        if not path.exists():
            whole.replace(path)
        elif not filecmp.cmp(whole, path, shallow=False):
            raise BadInput(
                f"{path} exists and is another archive than that of {bundle.name}@{bundle.version}"
                f" with {model}; delete it or name another folder"
            )


def read_unpacked(folder: Path, manifest: Mapping[str, Any]) -> Unpacked:
    """The bundle in an archive that TorchServe has unpacked. manifest: TorchServe's own, of it.

    Raises BundleRefused for an archive that is not ours, damaged, or written by a newer Amiss.
    """
    stored = str(manifest["model"].get("serializedFile"))
    model = next((file for file, name in SERIALIZED.items() if name == stored), None)
    if model is None:
        raise BundleRefused(
            f"{folder}: expected a serialized file {' or '.join(SERIALIZED.values())}, got "
            f"{stored!r}; make the archive with `amiss export`"
        )
    ours = read_manifest(folder)
    version = int(manifest["model"]["modelVersion"])
    return Unpacked(folder, version, ours, read_calibration(folder, ours), model)


def _torchserve_manifest(bundle: Bundle, serialized_file: str) -> bytes:
    """What torch-model-archiver writes, but for the date: that is the bundle's.

    Its packaging would stamp the time of day into the archive, and empty the folder
    <temporary folder>/<name>, whoever's that is.
    """
    manifest = {
        "createdOn": bundle.manifest.provenance.created,
        "runtime": "python",
        "model": {
            "modelName": bundle.name,
            "serializedFile": serialized_file,
            "handler": HANDLER,
            "modelVersion": str(bundle.version),
        },
        "archiverVersion": _ARCHIVER_VERSION,
    }
    return json.dumps(manifest, indent=2).encode()


def _write_zip(path: Path, files: Mapping[str, bytes]) -> None:
    with ZipFile(path, "w") as archive:
        for name, contents in files.items():
            entry = ZipInfo(name)  # dated 1980: the archive depends on nothing but the bundle
            entry.external_attr = _READABLE
            archive.writestr(entry, contents)
