"""CelebA: one attribute is the label, the partition file the test."""

from pathlib import Path

import pytest

from amiss_export.errors import BadInput
from amiss_training.data.celeba import read_celeba

ATTRIBUTES = "2\nBald Eyeglasses \n000001.jpg -1  1\n000002.jpg  1 -1\n"


def write_celeba(folder: Path, *, attributes: str = ATTRIBUTES, partition: str = "") -> Path:
    """Two faces, and the lists in the spacing of the published files."""
    (folder / "img_align_celeba").mkdir(parents=True)
    for name in ("000001.jpg", "000002.jpg"):
        (folder / "img_align_celeba" / name).touch()
    (folder / "list_attr_celeba.txt").write_text(attributes)
    if partition:
        (folder / "list_eval_partition.txt").write_text(partition)
    return folder


@pytest.mark.parametrize(
    ("attribute", "label"),
    [("Bald", ["without", "with"]), ("Eyeglasses", ["with", "without"])],
)
def test_attribute_is_the_label(tmp_path: Path, attribute: str, label: list[str]) -> None:
    """1 is with, -1 without, in the column that the second line names."""
    found = read_celeba(write_celeba(tmp_path), attribute)
    assert found.label is not None
    assert found.label.tolist() == label


def test_without_an_attribute_there_are_no_labels(tmp_path: Path) -> None:
    """No attribute, no labels, and the list of them is not needed."""
    folder = write_celeba(tmp_path / "celeba")
    (folder / "list_attr_celeba.txt").unlink()
    found = read_celeba(tmp_path, None)
    assert (len(found.paths), found.label, found.own_test) == (2, None, None)


def test_partition_two_is_the_test(tmp_path: Path) -> None:
    """list_eval_partition.txt marks the test with 2; train and validation are not it."""
    found = read_celeba(write_celeba(tmp_path, partition="000001.jpg 1\n000002.jpg 2\n"), None)
    assert found.own_test is not None
    assert found.own_test.tolist() == [False, True]


@pytest.mark.parametrize(
    ("attributes", "message"),
    [
        (ATTRIBUTES.replace("Bald", "Beard"), "no attribute 'Bald'; there are: Beard, Eyeglasses"),
        ("", "expected the number of faces"),
        ("faces\nBald\n000001.jpg 1\n", "expected the number of faces"),
        (ATTRIBUTES.replace("-1  1", "-1"), "line 3: expected a picture and 2 times 1 or -1"),
        (ATTRIBUTES.replace("1 -1", "x -1"), "line 4: expected a picture and 2 times 1 or -1"),
        ("1\nBald\n000001.jpg 1\n", r"expected a line for 000002\.jpg"),
    ],
)
def test_malformed_list_is_named(tmp_path: Path, attributes: str, message: str) -> None:
    """Other attributes, broken lines and faces that the list lacks are refused."""
    with pytest.raises(BadInput, match=rf"list_attr_celeba\.txt: .*{message}"):
        read_celeba(write_celeba(tmp_path, attributes=attributes), "Bald")


def test_folder_without_faces_is_refused(tmp_path: Path) -> None:
    """An empty img_align_celeba, or none, is refused by name."""
    with pytest.raises(BadInput, match="expected img_align_celeba there, or in celeba below it"):
        read_celeba(tmp_path, None)
    (tmp_path / "img_align_celeba").mkdir()
    with pytest.raises(BadInput, match="img_align_celeba: expected pictures, got none"):
        read_celeba(tmp_path, None)
