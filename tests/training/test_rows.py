"""A part of many rows that stands for all of them."""

import numpy as np
import torch

from amiss_training.rows import spread


def test_rows_are_drawn_from_the_whole_file() -> None:
    """Sorted rows, of torch or of numpy, give a part from their first to their last."""
    for rows in (torch.arange(1_000), np.arange(1_000)):
        drawn = spread(rows, 10)
        assert (int(drawn[0]), int(drawn[-1]), len(drawn)) == (0, 999, 10)


def test_few_rows_are_all_taken() -> None:
    """No more than there are, and in their order."""
    assert spread(np.arange(5), 10).tolist() == [0, 1, 2, 3, 4]
