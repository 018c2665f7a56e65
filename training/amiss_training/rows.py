"""A part of many rows that stands for all of them."""

from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

Rows = TypeVar("Rows", Tensor, NDArray[Any])


def spread(rows: Rows, count: int) -> Rows:
    """At most `count` of the rows, spread over all of them: files are often sorted."""
    if len(rows) <= count:
        return rows
    return rows[np.linspace(0, len(rows) - 1, count).astype(np.int64)]
