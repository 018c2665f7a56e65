"""Parts: pooled in order, named, the test known."""

from pathlib import Path

import numpy as np
import pytest

from amiss_export.errors import BadInput
from amiss_training.data.files import sha256_of
from amiss_training.data.parts import make_part, pool

IMAGES = np.random.default_rng(0).integers(0, 256, (5, 1, 4, 4), dtype=np.uint8)


def test_parts_are_one_source(tmp_path: Path) -> None:
    """Rows follow each other, each named by its part, and only those of test are the test."""
    (tmp_path / "f").write_bytes(b"x")
    parts = [
        make_part(tmp_path, "train", IMAGES[:2], np.array([1, 2])),
        make_part(tmp_path, "val", IMAGES[2:3], np.array([3])),
        make_part(tmp_path, "test", IMAGES[3:], np.array([4, 5])),
    ]
    source = pool("set", parts, [tmp_path / "f"])
    assert source.names == ["train/0", "train/1", "val/0", "test/0", "test/1"]
    assert source.label is not None
    assert source.label.tolist() == ["1", "2", "3", "4", "5"]
    assert source.own_test is not None
    assert source.own_test.tolist() == [False, False, False, True, True]
    assert source.data_hash() == sha256_of([tmp_path / "f"])
    rows = np.array([4, 0])
    np.testing.assert_array_equal(source.pixels(rows, source.infer(None, None)), IMAGES[rows])


@pytest.mark.parametrize(("rows", "labels"), [(2, 1), (0, 0), (1, 2)])
def test_labels_must_fit(rows: int, labels: int) -> None:
    """A part without images, or with more or fewer labels, is refused."""
    with pytest.raises(BadInput, match="one label for each train image, at least one"):
        make_part(Path("f"), "train", IMAGES[:rows], np.zeros(labels, dtype=np.uint8))
