"""A small table and a small read-out to build graphs from in tests."""

import math

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from amiss_export.bundle import Column, TableInput

TABLE = TableInput(
    columns=(
        Column(name="a", kind="number", dtype="float64"),
        Column(name="colour", kind="category", dtype="str", categories=("blue", "red")),
        Column(name="b", kind="number", dtype="float64"),
    )
)


def rows(n: int = 400, *, gaps: bool = True) -> NDArray[np.float32]:
    """(n, 3) float32 rows of TABLE: a normal number with gaps, a category, nine decades."""
    rng = np.random.default_rng(0)
    a = rng.normal(5, 2, n)
    b = np.exp(rng.normal(0, 3, n))  # nine decades
    if gaps:
        a[::10] = math.nan
    return np.stack([a, rng.integers(2, 4, n), b], axis=1).astype(np.float32)


class Distance(nn.Module):
    """Squared length of the features; expects the mean row."""

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return x.square().sum(dim=1), torch.zeros_like(x)
