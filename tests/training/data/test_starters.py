"""Starters: scikit-learn's own data in our formats."""

import numpy as np
from sklearn.datasets import load_digits

from amiss_training.data.starters import breast_cancer, digits, hash_arrays


def test_digits_use_the_whole_byte() -> None:
    """16 sixteenths of ink become 255, none becomes 0, 8 become 128."""
    pixels, label = digits()
    source = load_digits()
    assert pixels.shape == (1797, 1, 8, 8)
    assert pixels.dtype == np.uint8
    for ink, byte in ((0, 0), (8, 128), (16, 255)):
        assert set(pixels[:, 0][source.images == ink].tolist()) == {byte}
    assert label.tolist() == [str(digit) for digit in source.target]


def test_breast_cancer_has_357_benign_rows() -> None:
    """30 named columns and the label, with the published class counts."""
    table = breast_cancer()
    label = table["label"].to_pylist()
    assert len(table.column_names) == 31
    assert (label.count("benign"), label.count("malignant")) == (357, 212)
    assert table["mean radius"][0].as_py() == 17.99


def test_hash_sees_values_shapes_and_types() -> None:
    """Arrays hash apart when a value, the shape or the type differs."""
    a = np.arange(4, dtype=np.int64)
    hashes = {hash_arrays(x) for x in (a, a + 1, a.reshape(2, 2), a.astype(np.uint64))}
    assert len(hashes) == 4
