"""The parts every exported graph is made of: features in front, a whitened read-out at the end.

Fitted on training rows with numpy, then frozen into buffers, so that the graph is the whole model.
"""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from amiss_export.bundle import TableInput
from amiss_export.decode import FIRST_CATEGORY, MISSING

CLIP = 10.0  # standard deviations; a feature further out says no more than "far out"
Array = NDArray[np.float32]


class ImageFeatures(nn.Module):
    """Pixels 0..1 of uint8 images (n, c, h, w)."""

    def forward(self, x: Tensor) -> Tensor:
        return x.to(torch.float32) / 255.0

    def restore(self, features: Tensor) -> Tensor:
        """Pixel values 0..255, the unit of the input."""
        return features.clamp(0.0, 1.0) * 255.0


class TableFeatures(nn.Module):
    """Standardised features (n, f) of raw rows (n, d), fitted on training normals.

    A number: median for a missing cell, log scale when its tail reaches beyond the clip, z-score,
    clip. A column that had gaps in training also gives a "was missing" column. A category: one
    column for each known value, and one for missing where training had gaps. Last comes one column
    that counts the cells in a state training never showed: an unseen category, a new gap.
    """

    numbers: Tensor
    median: Tensor
    unit: Tensor
    is_log: Tensor
    gaps: Tensor
    new_gaps: Tensor
    categories: Tensor
    order: Tensor
    code_of: Tensor
    column_of: Tensor
    first_of: Tensor
    mean: Tensor
    std: Tensor

    def __init__(self, spec: TableInput, rows: Array) -> None:
        super().__init__()
        is_number = np.array([c.kind == "number" for c in spec.columns])
        numbers, categories = np.flatnonzero(is_number), np.flatnonzero(~is_number)
        missing = np.isnan(rows[:, numbers])
        median = _nan_median(rows[:, numbers])
        filled = np.where(missing, median, rows[:, numbers]).astype(np.float64)
        magnitude = np.abs(filled)
        unit = np.array([np.median(m[m > 0]) if (m > 0).any() else 1.0 for m in magnitude.T])
        reach = np.abs(filled - filled.mean(axis=0)).max(axis=0, initial=0)
        is_log = reach > CLIP * filled.std(axis=0)
        codes = _codes(spec, rows, categories)
        self.width_of = [int((codes[:, 0] == j).sum()) for j in range(len(categories))]
        for name, value, dtype in (
            ("numbers", numbers, torch.int64),
            ("median", median, torch.float32),
            ("unit", np.where(is_log, unit, 1.0), torch.float32),
            ("is_log", is_log, torch.bool),
            ("gaps", np.flatnonzero(missing.any(axis=0)), torch.int64),
            ("new_gaps", np.flatnonzero(~missing.any(axis=0)), torch.int64),
            ("categories", categories, torch.int64),
            ("order", np.argsort(np.concatenate([numbers, categories])), torch.int64),
            ("column_of", codes[:, 0], torch.int64),
            ("code_of", codes[:, 1], torch.float32),
        ):
            self.register_buffer(name, torch.as_tensor(np.asarray(value)).to(dtype))
        with torch.no_grad():
            raw = self._unscaled(torch.from_numpy(rows)).double()
        mean, std = raw.mean(dim=0), raw.std(dim=0, unbiased=False)
        size = torch.where(mean == 0, 1.0, mean.abs())  # of what a constant feature departs from
        self.register_buffer("mean", mean.float())
        self.register_buffer("std", torch.where(std > 1e-8 * mean.abs(), std, size / CLIP).float())

    @property
    def width(self) -> int:
        """Number of features f."""
        return len(self.mean)

    def forward(self, x: Tensor) -> Tensor:
        return ((self._unscaled(x) - self.mean) / self.std).clamp(-CLIP, CLIP)

    def restore(self, features: Tensor) -> Tensor:
        """Raw rows (n, d) that features stand for: column units, the likeliest category's code."""
        raw = features * self.std + self.mean
        n_numbers = self.numbers.shape[0]
        value = raw[:, :n_numbers]
        magnitude = torch.exp(value.abs().clamp(max=30.0)) - 1.0
        value = torch.where(self.is_log, torch.sign(value) * magnitude * self.unit, value)
        columns = [value]
        start = n_numbers + self.gaps.shape[0]
        for width in self.width_of:
            best = raw[:, start : start + width].argmax(dim=1)
            codes = self.code_of[start - n_numbers - self.gaps.shape[0] :][:width]
            columns.append(codes[best].unsqueeze(1))
            start += width
        return torch.cat(columns, dim=1)[:, self.order].to(torch.float32)

    def _unscaled(self, x: Tensor) -> Tensor:
        x = x.to(self.median.dtype)
        raw = x[:, self.numbers]
        is_missing = torch.isnan(raw)
        value = torch.where(is_missing, self.median, raw)
        logs = torch.sign(value) * torch.log(1.0 + value.abs() / self.unit)
        value = torch.where(self.is_log, logs, value)
        missing = is_missing.to(x.dtype)
        one_hot = (x[:, self.categories][:, self.column_of] == self.code_of).to(x.dtype)
        known = one_hot.sum(dim=1, keepdim=True)
        new_gap = missing[:, self.new_gaps].sum(dim=1, keepdim=True)
        surprise = (self.categories.shape[0] - known) + new_gap
        return torch.cat([value, missing[:, self.gaps], one_hot, surprise], dim=1)


class Whitener(nn.Module):
    """Squared Mahalanobis length per dimension (n,) of vectors (n, d); covariance of training rows.

    Probabilistic PCA (Tipping & Bishop 1999): the leading directions with their own variance,
    never below `floor` times the largest, and one common variance for all the rest.
    blocks: widths that add up to d; each block is first scaled to the same total variance, so that
    no layer drowns the others (RaPP, Kim et al. 2020).
    """

    mean: Tensor
    scale: Tensor
    basis: Tensor
    whiten: Tensor
    rest: Tensor

    def __init__(
        self, rows: Array, *, blocks: list[int], components: int = 256, floor: float = 1e-4
    ) -> None:
        super().__init__()
        n, d = rows.shape
        centred = rows.astype(np.float64) - rows.mean(axis=0, dtype=np.float64)
        scale = _block_scale(centred, blocks)
        variance, basis = _principal(centred * scale)
        k = d if d <= components and n > d else min(components, max(1, n // 2), len(variance))
        lowest = floor * variance[0]
        rest = max(float(variance[k:].sum()) / max(d - k, 1), float(lowest))
        self.has_rest = k < d
        for name, value in (
            ("mean", rows.mean(axis=0, dtype=np.float64)),
            ("scale", scale),
            ("basis", basis[:, :k]),
            ("whiten", 1.0 / np.sqrt(np.maximum(variance[:k], lowest))),
            ("rest", np.array(1.0 / np.sqrt(rest))),
        ):
            self.register_buffer(name, torch.from_numpy(np.ascontiguousarray(value)).float())

    def forward(self, rows: Tensor) -> Tensor:
        centred = (rows - self.mean) * self.scale
        along = centred @ self.basis
        length = _sum_of_squares(along * self.whiten)
        if self.has_rest:
            across = (centred - along @ self.basis.T) * self.rest
            length = length + _sum_of_squares(across)
        return length / self.mean.shape[0]


class ScoreScale(nn.Module):
    """Score (n,) of a read-out (n,): asinh of its interquartile ranges above the median normal.

    Monotone, so it changes no ranking. Linear near normal rows, logarithmic far out, so that
    float32 runtimes agree on the absolute score of even the wildest row.
    """

    median: Tensor
    spread: Tensor

    def __init__(self, readout: Array) -> None:
        super().__init__()
        low, median, high = np.quantile(readout.astype(np.float64), [0.25, 0.5, 0.75])
        self.register_buffer("median", torch.tensor(median, dtype=torch.float64))
        self.register_buffer(
            "spread", torch.tensor((high - low) or abs(median) or 1.0, dtype=torch.float64)
        )

    def forward(self, readout: Tensor) -> Tensor:
        return torch.asinh(((readout - self.median) / self.spread).to(torch.float32))


class ScoringGraph(nn.Module):
    """The whole model: raw values in, (score (n,), reconstruction in the input's unit) out."""

    def __init__(
        self, features: ImageFeatures | TableFeatures, readout: nn.Module, normals: Tensor
    ) -> None:
        """readout: features -> (value (n,), expected features). normals: raw rows that set the
        scale, early-stop rows because the read-out knows the training rows too well.
        """
        super().__init__()
        self.features, self.readout = features, readout
        self.eval().requires_grad_(False)
        if isinstance(features, TableFeatures):
            # Correlated columns leave whitened directions of little variance, where float32's
            # rounding, different in every runtime, reached 4e-5 of the scale. Tables are small.
            self.double()
        with torch.no_grad():
            values = [readout(features(part))[0] for part in torch.split(normals, 1024)]
        self.scale = ScoreScale(torch.cat(values).numpy())

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        value, expected = self.readout(self.features(x))
        return self.scale(value), self.features.restore(expected)


def _sum_of_squares(rows: Tensor) -> Tensor:
    """Per row, (n,), in double: runtimes add thousands of terms in orders of their own."""
    return rows.double().square().sum(dim=1)


def _block_scale(centred: NDArray[np.float64], blocks: list[int]) -> NDArray[np.float64]:
    """One factor per dimension (d,) that gives each block a total variance of 1."""
    total = [b.var(axis=0).sum() for b in np.split(centred, np.cumsum(blocks)[:-1], axis=1)]
    return np.repeat(1.0 / np.sqrt(np.maximum(total, 1e-12)), blocks)


def _principal(centred: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Variances, descending, and orthonormal directions (d, r) of centred rows (n, d)."""
    n, d = centred.shape
    if n > d:
        variance, directions = np.linalg.eigh(centred.T @ centred / n)
        return np.maximum(variance[::-1], 0.0), directions[:, ::-1]
    variance, left = np.linalg.eigh(centred @ centred.T / n)
    keep = variance[::-1] > variance[-1] * 1e-10
    variance, left = variance[::-1][keep], left[:, ::-1][:, keep]
    return variance, centred.T @ left / np.sqrt(variance * n)


def _nan_median(rows: Array) -> NDArray[np.float32]:
    """Median of each column's present cells; 0 for a column without any."""
    empty = np.isnan(rows).all(axis=0)
    return np.where(empty, 0.0, np.nanmedian(np.where(empty, 0.0, rows), axis=0)).astype(np.float32)


def _codes(spec: TableInput, rows: Array, categories: NDArray[np.int64]) -> NDArray[np.float64]:
    """(position among the categories, code) for every one-hot column, (m, 2)."""
    codes: list[tuple[int, float]] = []
    for position, j in enumerate(categories):
        known = FIRST_CATEGORY + np.arange(len(spec.columns[j].categories))
        had_gaps = (rows[:, j] == MISSING).any()
        codes += [(position, float(c)) for c in ([MISSING] if had_gaps else []) + known.tolist()]
    return np.array(codes, dtype=np.float64).reshape(-1, 2)
