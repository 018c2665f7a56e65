"""Loaders: auto finds the right one; a wrong one is refused in one line."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy.io import savemat

from amiss_export.errors import BadInput
from amiss_training.data.loaders import open_table_source, resolve_loader
from amiss_training.data.options import Loader


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A folder with one of each sort of data."""
    (tmp_path / "t.csv").write_text("a,b\n1,2\n")
    (tmp_path / "kdd").write_text(",".join(["0"] * 41 + ["normal."]) + "\n")
    np.savez(tmp_path / "t.npz", X=np.zeros((2, 2)))
    np.savez(tmp_path / "i.npz", X=np.zeros((2, 3, 3)))
    savemat(tmp_path / "t.mat", {"X": np.zeros((2, 2))})
    (tmp_path / "idx").mkdir()
    (tmp_path / "idx" / "x-images-idx3-ubyte").write_bytes(
        b"\x00\x00\x08\x03" + b"\x00\x00\x00\x01" * 3 + b"\x07"
    )
    for name in ("f/0.png", "m/train/good/0.png", "m/test/good/0.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("L", (3, 3)).save(tmp_path / name)
    return tmp_path


@pytest.mark.parametrize(
    ("name", "loader"),
    [
        ("t.csv", "table"),
        ("t.npz", "table"),
        ("t.mat", "table"),
        ("kdd", "kdd99"),
        ("i.npz", "npz"),
        ("idx", "idx"),
        ("idx/x-images-idx3-ubyte", "idx"),
        ("f", "image-folder"),
        ("m", "mvtec"),
    ],
)
def test_auto_looks_at_what_is_there(data: Path, name: str, loader: str) -> None:
    """Without a loader the data tell which one reads them."""
    assert resolve_loader(data / name, "auto") == loader


@pytest.mark.parametrize(
    ("name", "loader", "message"),
    [
        (None, "auto", "expected a path to data"),
        ("t.csv", "digits", "brings its own data"),
        ("absent", "auto", "no such file or folder"),
        ("f", "table", "reads a file, got a folder"),
        ("t.csv", "mvtec", "expected a folder of images, got a file"),
        ("t.csv", "idx", "expected an idx file, got a text file"),
        ("f/0.png", "auto", "this is one image; give the folder"),
    ],
)
def test_wrong_loader_is_refused(
    data: Path, name: str | None, loader: Loader, message: str
) -> None:
    """A loader that cannot read the path says so."""
    with pytest.raises(BadInput, match=message):
        resolve_loader(None if name is None else data / name, loader)


def test_kdd99_asked_of_another_table_is_refused(data: Path) -> None:
    """A CSV with two fields is not KDD99, whatever is asked."""
    loader = resolve_loader(data / "t.csv", "kdd99")
    with pytest.raises(BadInput, match="expected KDD99 lines of 42 fields"):
        open_table_source(data / "t.csv", loader)


def test_starter_needs_no_path() -> None:
    """A starter is a table without a file, with its own label."""
    source = open_table_source(None, resolve_loader(None, "breast-cancer"))
    assert source.label_column == "label"
    assert len(source.read()) == 569
