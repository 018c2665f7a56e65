"""Archives for TorchServe: what is in them, and that nobody finds half of one."""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path
from zipfile import ZipFile

import pytest

from amiss_export.bundle import MANIFEST, ONNX, TORCHSCRIPT, Bundle, read_bundle
from amiss_export.errors import BadInput, BundleRefused
from amiss_export.to_mar import SERIALIZED, read_unpacked, write_mar
from bundle_factory import write_table_bundle

TORCHSERVE_MANIFEST = "MAR-INF/MANIFEST.json"
BOTH = pytest.mark.parametrize("model", [TORCHSCRIPT, ONNX])


@pytest.fixture
def archiver() -> list[str]:
    """The command of torch-model-archiver, of the extra 'torchserve'."""
    if importlib.util.find_spec("model_archiver"):
        return [sys.executable, "-m", "model_archiver.model_packaging"]
    if os.environ.get("CI"):
        pytest.fail("CI must have the extra 'torchserve' installed")
    pytest.skip("torch-model-archiver (extra 'torchserve') is not installed")


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    return read_bundle(tmp_path / "models", "table", write_table_bundle(tmp_path / "models"))


@pytest.fixture
def handler(tmp_path: Path) -> Path:
    path = tmp_path / "handler.py"
    path.write_text("class Handler: ...\n")
    return path


def contents(path: Path) -> dict[str, bytes]:
    with ZipFile(path) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def unpacked(path: Path, folder: Path) -> Path:
    with ZipFile(path) as archive:
        archive.extractall(folder)
    return folder


@BOTH
def test_an_archive_holds_the_bundles_own_files(
    model: str, bundle: Bundle, handler: Path, tmp_path: Path
) -> None:
    """Handler, one model file, manifest and calibration are there byte for byte, and no more."""
    write_mar(bundle, tmp_path / "a.mar", handler=handler, model=model)
    files = contents(tmp_path / "a.mar")
    manifest = json.loads(files.pop(TORCHSERVE_MANIFEST))
    assert files == {
        "handler.py": handler.read_bytes(),
        SERIALIZED[model]: (bundle.path / model).read_bytes(),
        MANIFEST: (bundle.path / MANIFEST).read_bytes(),
        "calibration.npy": (bundle.path / "calibration.npy").read_bytes(),
    }
    assert manifest["model"] == {
        "modelName": "table",
        "modelVersion": "1",
        "handler": "handler.py",
        "serializedFile": SERIALIZED[model],
    }
    assert SERIALIZED[model].endswith(".pt")


def test_torch_model_archiver_makes_the_same_but_for_its_date(
    archiver: list[str], bundle: Bundle, handler: Path, tmp_path: Path
) -> None:
    """The archiver's own command makes an archive of the same files and the same manifest."""
    (tmp_path / "theirs").mkdir()
    subprocess.run(
        [
            *archiver,
            *("--model-name", "table", "--version", "1", "--handler", str(handler)),
            *("--serialized-file", str(bundle.path / TORCHSCRIPT)),
            *("--extra-files", f"{bundle.path / MANIFEST},{bundle.path / 'calibration.npy'}"),
            *("--export-path", str(tmp_path / "theirs")),
        ],
        check=True,
        env={**os.environ, "TMPDIR": str(tmp_path / "theirs")},
    )
    write_mar(bundle, tmp_path / "ours.mar", handler=handler)
    theirs, ours = contents(tmp_path / "theirs" / "table.mar"), contents(tmp_path / "ours.mar")
    their_manifest = json.loads(theirs.pop(TORCHSERVE_MANIFEST))
    our_manifest = json.loads(ours.pop(TORCHSERVE_MANIFEST))
    assert ours == theirs
    created = bundle.manifest.provenance.created
    assert our_manifest == {**their_manifest, "createdOn": created}


def test_the_same_bundle_gives_the_same_bytes(
    bundle: Bundle, handler: Path, tmp_path: Path
) -> None:
    """No clock goes into an archive: two are equal, and every file in them is of 1980."""
    for name in ("a.mar", "b.mar"):
        write_mar(bundle, tmp_path / name, handler=handler)
    assert (tmp_path / "a.mar").read_bytes() == (tmp_path / "b.mar").read_bytes()
    with ZipFile(tmp_path / "a.mar") as archive:
        assert {entry.date_time[0] for entry in archive.infolist()} == {1980}


def test_an_archive_that_is_there_is_not_replaced(
    bundle: Bundle, handler: Path, tmp_path: Path
) -> None:
    """The same once more is no error; another is one, and the file stays what it was."""
    path = tmp_path / "store" / "table.mar"
    path.parent.mkdir()
    for _ in range(2):
        write_mar(bundle, path, handler=handler)
    before = path.stat()
    with pytest.raises(BadInput, match=r"table\.mar exists and is another archive"):
        write_mar(bundle, path, handler=handler, model=ONNX)
    assert path.stat() == before
    assert [p.name for p in path.parent.iterdir()] == ["table.mar"]


def test_a_bundle_altered_meanwhile_leaves_no_archive(
    bundle: Bundle, handler: Path, tmp_path: Path
) -> None:
    """A model file that is not the manifest's any more is refused, and nothing is written."""
    (bundle.path / TORCHSCRIPT).write_bytes(b"another")
    (tmp_path / "store").mkdir()
    with pytest.raises(BundleRefused, match=r"model\.pt is not the file that was exported"):
        write_mar(bundle, tmp_path / "store" / "table.mar", handler=handler)
    assert not list((tmp_path / "store").iterdir())


@BOTH
def test_an_unpacked_archive_is_the_bundle_again(
    model: str, bundle: Bundle, handler: Path, tmp_path: Path
) -> None:
    """Manifest, calibration, version and model file come back as they were exported."""
    write_mar(bundle, tmp_path / "a.mar", handler=handler, model=model)
    folder = unpacked(tmp_path / "a.mar", tmp_path / "there")
    again = read_unpacked(folder, json.loads((folder / TORCHSERVE_MANIFEST).read_bytes()))
    assert (again.name, again.version, again.model) == ("table", 1, model)
    assert again.manifest == bundle.manifest
    assert again.calibration.tolist() == bundle.calibration.tolist()
    assert again.read(model) == bundle.read(model)


def test_an_unpacked_archive_is_checked_like_a_bundle(
    bundle: Bundle, handler: Path, tmp_path: Path
) -> None:
    """An altered model, an altered calibration and another archive's manifest are refused."""
    write_mar(bundle, tmp_path / "a.mar", handler=handler)
    folder = unpacked(tmp_path / "a.mar", tmp_path / "there")
    manifest = json.loads((folder / TORCHSERVE_MANIFEST).read_bytes())
    (folder / "model.pt").write_bytes(b"another")
    with pytest.raises(BundleRefused, match=r"model\.pt is not the model\.pt that was exported"):
        read_unpacked(folder, manifest).read(TORCHSCRIPT)
    (folder / "calibration.npy").write_bytes(b"another")
    with pytest.raises(BundleRefused, match=r"calibration\.npy is not the file"):
        read_unpacked(folder, manifest)
    with pytest.raises(BundleRefused, match=r"got 'resnet\.pt'"):
        read_unpacked(folder, {"model": {"serializedFile": "resnet.pt", "modelVersion": "1"}})
