"""Folders of pictures in their published layouts: classes, official tests, nothing opened."""

from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from amiss_export.errors import BadInput
from amiss_training.data.folders import (
    names_hash,
    pairs,
    read_dtd,
    read_imagenet,
    read_tinyimagenet,
)
from amiss_training.data.images import Listing


def write(folder: Path, names: Sequence[str], contents: str = "no picture") -> Path:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(contents)
    return folder


def rows(listing: Listing) -> list[tuple[str, str, bool]]:
    """Name, class and test of each picture."""
    assert listing.label is not None
    assert listing.own_test is not None
    return list(
        zip(listing.names(), listing.label.tolist(), listing.own_test.tolist(), strict=True)
    )


def test_dtd_tests_on_its_first_split(tmp_path: Path) -> None:
    """Classes are folders of images/, and labels/test1.txt says which pictures are the test."""
    write(tmp_path / "dtd", ["images/banded/banded_0002.jpg", "images/banded/banded_0004.jpg"])
    write(tmp_path / "dtd", ["images/dotted/dotted_0001.jpg"])
    write(tmp_path / "dtd", ["labels/test1.txt"], "banded/banded_0004.jpg\n")
    write(tmp_path / "dtd", ["labels/test2.txt"], "dotted/dotted_0001.jpg\n")
    assert rows(read_dtd(tmp_path)) == [
        ("images/banded/banded_0002.jpg", "banded", False),
        ("images/banded/banded_0004.jpg", "banded", True),
        ("images/dotted/dotted_0001.jpg", "dotted", False),
    ]


def test_dtd_without_its_lists_has_no_test(tmp_path: Path) -> None:
    """The pictures alone are enough; no part of them is the test then."""
    found = read_dtd(write(tmp_path, ["images/banded/banded_0002.jpg"]))
    assert found.own_test is None


def test_imagenet_tests_on_val(tmp_path: Path) -> None:
    """Classes are the wnids below train and val, also where Kaggle's archive puts them."""
    root = tmp_path / "ILSVRC" / "Data" / "CLS-LOC"
    write(root, ["train/n02/n02_1.JPEG", "train/n01/n01_9.JPEG", "val/n01/ILSVRC2012_val_1.JPEG"])
    expected = [
        ("train/n01/n01_9.JPEG", "n01", False),
        ("train/n02/n02_1.JPEG", "n02", False),
        ("val/n01/ILSVRC2012_val_1.JPEG", "n01", True),
    ]
    assert rows(read_imagenet(tmp_path)) == rows(read_imagenet(root)) == expected


def test_one_part_of_imagenet_is_enough(tmp_path: Path) -> None:
    """val alone is read, as a set that others are compared with; there is no test in it."""
    found = read_imagenet(write(tmp_path, ["val/n01/a.JPEG"]))
    assert found.label is not None
    assert (found.label.tolist(), found.own_test) == (["n01"], None)


def test_tinyimagenet_reads_its_annotations(tmp_path: Path) -> None:
    """Validation pictures take their class from val_annotations.txt; test/ has none and stays."""
    root = tmp_path / "tiny-imagenet-200"
    write(root, ["train/n01/images/n01_0.JPEG", "val/images/val_0.JPEG", "test/images/t_0.JPEG"])
    write(root, ["train/n01/n01_boxes.txt"], "n01_0.JPEG\t0\t0\t62\t62\n")
    write(root, ["val/val_annotations.txt"], "val_0.JPEG\tn03\t0\t32\t44\t62\n")
    assert rows(read_tinyimagenet(tmp_path)) == [
        ("train/n01/images/n01_0.JPEG", "n01", False),
        ("val/images/val_0.JPEG", "n03", True),
    ]


def test_picture_without_annotation_is_named(tmp_path: Path) -> None:
    """A validation picture that the list lacks is refused with both names."""
    write(tmp_path, ["train/n01/images/0.JPEG", "val/images/val_7.JPEG"])
    write(tmp_path, ["val/val_annotations.txt"], "val_0.JPEG\tn03\t0\t0\t1\t1\n")
    with pytest.raises(BadInput, match=r"val_annotations\.txt: expected a line for val_7\.JPEG"):
        read_tinyimagenet(tmp_path)


@pytest.mark.parametrize(
    ("read", "message"),
    [
        (read_dtd, "expected images there, or in dtd below it"),
        (read_imagenet, "expected train or val there, or in ILSVRC/Data/CLS-LOC below it"),
        (read_tinyimagenet, "expected train and val there, or in tiny-imagenet-200"),
    ],
)
def test_another_folder_is_refused(
    tmp_path: Path, read: Callable[[Path], Listing], message: str
) -> None:
    """A folder of another layout is told what it should hold."""
    with pytest.raises(BadInput, match=message):
        read(write(tmp_path, ["a.jpg"]))


def test_folder_without_classes_is_refused(tmp_path: Path) -> None:
    """ImageNet's val as the archive has it, without class folders, is refused."""
    with pytest.raises(BadInput, match="val: expected folders of pictures, one for each class"):
        read_imagenet(write(tmp_path, ["val/ILSVRC2012_val_00000001.JPEG"]))


def test_broken_list_is_named_by_its_line(tmp_path: Path) -> None:
    """A line of one word, and bytes that are no text, are refused."""
    (tmp_path / "l.txt").write_text("a 1\n\nb\n")
    with pytest.raises(BadInput, match=r"l\.txt: line 2: expected two words or more, got 'b'"):
        pairs(tmp_path / "l.txt")
    (tmp_path / "l.txt").write_bytes(b"\xff\xfe")
    with pytest.raises(BadInput, match=r"l\.txt: expected UTF-8 text"):
        pairs(tmp_path / "l.txt")


def test_hash_is_of_names_and_sizes(tmp_path: Path) -> None:
    """A picture renamed or grown changes the hash; where the folder lies does not."""
    one, two = write(tmp_path / "1", ["a.jpg"]), write(tmp_path / "2", ["a.jpg"])
    before = names_hash([one / "a.jpg"], one)
    assert names_hash([two / "a.jpg"], two) == before
    write(two, ["a.jpg"], "another size of picture")
    assert names_hash([two / "a.jpg"], two) != before
    write(two, ["b.jpg"])
    assert names_hash([two / "b.jpg"], two) != before
