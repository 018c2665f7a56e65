"""Places365: both published layouts name the same classes and the same test."""

from collections.abc import Sequence
from pathlib import Path

import pytest

from amiss_export.errors import BadInput
from amiss_training.data.places365 import read_places365


def write(folder: Path, names: Sequence[str]) -> Path:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    return folder


def write_lists(folder: Path, *, val: str = "Places365_val_00000001.jpg 1\n") -> Path:
    """data_256_standard by letter, val_256 with its two lists (the filelist archive)."""
    write(folder, ["data_256_standard/a/airfield/00000001.jpg"])
    write(folder, ["data_256_standard/a/apartment_building/outdoor/00000001.jpg"])
    write(folder, ["val_256/Places365_val_00000001.jpg"])
    (folder / "categories_places365.txt").write_text(
        "/a/airfield 0\n/a/apartment_building/outdoor 1\n"
    )
    (folder / "places365_val.txt").write_text(val)
    return folder


def test_easy_format_is_read(tmp_path: Path) -> None:
    """places365_standard/train and val hold a folder for each class; val is the test."""
    names = ["train/airfield/1.jpg", "val/airfield/2.jpg", "val/alcove/3.jpg"]
    write(tmp_path / "places365_standard", names)
    found = read_places365(tmp_path)
    assert found.names() == names
    assert found.label is not None
    assert found.label.tolist() == ["airfield", "airfield", "alcove"]
    assert found.own_test is not None
    assert found.own_test.tolist() == [False, True, True]


def test_list_format_is_read(tmp_path: Path) -> None:
    """A class of two words is one class in the folders and in the lists."""
    found = read_places365(write_lists(tmp_path))
    assert found.label is not None
    assert found.label.tolist() == [
        "airfield",
        "apartment_building/outdoor",
        "apartment_building/outdoor",
    ]
    assert found.own_test is not None
    assert found.own_test.tolist() == [False, False, True]


def test_train_alone_is_read_under_its_other_name(tmp_path: Path) -> None:
    """data_256, as the archive itself unpacks, needs no lists."""
    found = read_places365(write(tmp_path, ["data_256/b/beach/1.jpg"]))
    assert found.label is not None
    assert (found.label.tolist(), found.own_test) == (["beach"], None)


@pytest.mark.parametrize(
    ("val", "message"),
    [
        ("Places365_val_00000002.jpg 1\n", r"places365_val\.txt: expected a line for Places365"),
        ("Places365_val_00000001.jpg 7\n", r"categories_places365\.txt: expected a line for 7"),
        ("Places365_val_00000001.jpg\n", r"places365_val\.txt: line 1: expected two words"),
    ],
)
def test_lists_that_do_not_fit_are_named(tmp_path: Path, val: str, message: str) -> None:
    """A picture or a number that the lists lack is refused by the list's name."""
    with pytest.raises(BadInput, match=message):
        read_places365(write_lists(tmp_path, val=val))


def test_another_folder_is_refused(tmp_path: Path) -> None:
    """A folder of another layout is told what it should hold."""
    with pytest.raises(BadInput, match="expected train or val or data_256_standard"):
        read_places365(tmp_path)
