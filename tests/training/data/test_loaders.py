"""Loaders: auto finds the right one; a wrong one is refused in one line."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy.io import savemat

from amiss_export.errors import BadInput
from amiss_training.data import kdd99
from amiss_training.data.loaders import locate, open_table_source, resolve_loader
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


def test_named_images_are_their_own_loader(tmp_path: Path) -> None:
    """A data set of images keeps its path and is read under its name."""
    assert locate(tmp_path, "auto", data_set="svhn") == (tmp_path, "svhn")
    assert locate(None, "auto", data_set="svhn") == (None, "svhn")


def test_named_table_is_its_file(tmp_path: Path) -> None:
    """kdd99 and arrhythmia are found in their folder, or are the file itself."""
    kdd = tmp_path / "kddcup.data_10_percent"
    kdd.write_text(",".join(["0"] * 41 + ["normal."]) + "\n")
    savemat(tmp_path / "arrhythmia.mat", {"X": np.zeros((2, 2))})
    for path in (tmp_path, kdd):
        assert locate(path, "auto", data_set="kdd99") == (kdd, "kdd99")
    assert locate(tmp_path, "auto", data_set="arrhythmia") == (tmp_path / "arrhythmia.mat", "table")


@pytest.mark.shared
def test_every_row_of_kdd99_has_a_family(shared_data: Path) -> None:
    """All 494,021 rows survive, back's 2,203 among them, in the families' known numbers (D3)."""
    path, loader = locate(shared_data / "kdd99", "auto", data_set="kdd99")
    label = open_table_source(path, loader).read([kdd99.LABEL])[kdd99.LABEL]
    counts = {row["values"]: row["counts"] for row in label.value_counts().to_pylist()}
    families: dict[str, int] = {}
    for name, count in counts.items():
        family = kdd99.FAMILY[name]
        families[family] = families.get(family, 0) + count
    assert counts["back"] == 2_203
    assert families == {"dos": 391_458, "normal": 97_278, "probe": 4_107, "r2l": 1_126, "u2r": 52}


@pytest.mark.shared
def test_arrhythmia_is_the_known_table(shared_data: Path) -> None:
    """452 rows of 274 columns, 66 of them anomalies."""
    path, loader = locate(shared_data / "tabular", "auto", data_set="arrhythmia")
    table = open_table_source(path, loader).read()
    assert table.shape == (452, 275)
    assert sum(float(y) for y in table["y"].to_pylist()) == 66
