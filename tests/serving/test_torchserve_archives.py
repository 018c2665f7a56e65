"""What is read of a folder of archives."""

import zipfile
from pathlib import Path

import pytest

from amiss_export.errors import BadInput, BundleRefused
from amiss_serving.torchserve.archives import Archive, read_store

from .torchserve_seams import write_archive


def test_archives_are_known_by_what_is_in_them(tmp_path: Path) -> None:
    """Name and version come from each manifest, whatever the file is called; in order of names."""
    write_archive(tmp_path, "b", version="7").rename(tmp_path / "x.mar")
    write_archive(tmp_path, "a.1-x", version="2")
    (tmp_path / "notes.txt").write_text("no archive")
    assert read_store(tmp_path) == (Archive("a.1-x", "2", "a.1-x.mar"), Archive("b", "7", "x.mar"))


def test_an_empty_folder_is_refused(tmp_path: Path) -> None:
    """TorchServe without a model would serve nothing, and say it is healthy."""
    with pytest.raises(BadInput, match="holds no archive"):
        read_store(tmp_path)


def test_two_archives_of_one_model_are_refused(tmp_path: Path) -> None:
    """TorchServe would load both and count their workers as one model's."""
    write_archive(tmp_path, "a", version="1").rename(tmp_path / "old.mar")
    write_archive(tmp_path, "a", version="2")
    with pytest.raises(BadInput, match=r"two archives of one model \(a, a\)"):
        read_store(tmp_path)


@pytest.mark.parametrize("manifest", [None, "[]", '{"model": {}}', "{"])
def test_a_file_that_is_no_archive_is_refused_by_name(manifest: str | None, tmp_path: Path) -> None:
    """Neither a file that is no zip, nor a zip without a whole manifest, reaches TorchServe."""
    path = tmp_path / "a.mar"
    path.write_bytes(b"no zip")
    if manifest is not None:
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("MAR-INF/MANIFEST.json", manifest)
    with pytest.raises(BundleRefused, match=r"a\.mar is no model archive"):
        read_store(tmp_path)
