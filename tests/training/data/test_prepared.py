"""Prepared: rows drawn, repeats found, complaints named."""

import numpy as np
import pytest

from amiss_export.errors import TooFewRows
from amiss_training.data.prepared import draw, naming, without_repeats


def test_draw_takes_that_many_in_order() -> None:
    """All rows when there are few, else sorted distinct ones that the seed decides."""
    assert draw(5, None, seed=0).tolist() == draw(5, 9, seed=0).tolist() == [0, 1, 2, 3, 4]
    found = draw(1000, 100, seed=0)
    assert len(set(found.tolist())) == 100
    assert (np.diff(found) > 0).all()
    assert found.tolist() != draw(1000, 100, seed=1).tolist()


def test_repeats_are_rows_with_the_same_label() -> None:
    """A row that repeats under another label is none; the first of equal ones is kept."""
    hashes = np.array([7, 8, 7, 7, 8], dtype=np.uint64)
    label = np.array(["a", "a", "a", "b", "a"])
    kept, repeats = without_repeats(hashes, label, remove=True)
    assert (kept.tolist(), repeats) == ([0, 1, 3], 2)
    kept, repeats = without_repeats(hashes, label, remove=False)
    assert (len(kept), repeats) == (5, 2)


def test_naming_puts_the_data_first() -> None:
    """Too few rows are reported as those of the named data."""
    with pytest.raises(TooFewRows, match=r"^t\.csv: need more$"), naming("t.csv"):
        raise TooFewRows("need more")
