"""What is read off a detector besides its score, on a detector whose answers are known."""

import json
from typing import ClassVar

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from amiss_export.bundle import Column, ImageInput, TableInput
from amiss_export.errors import BadInput
from amiss_export.graph import ImageFeatures, TableFeatures
from amiss_training.data import Classes, Prepared, Roles
from amiss_training.detectors.module import Detector
from amiss_training.inspection import Inspection, inspect, readout_values

SIDE = 16


class Sum(nn.Module):
    """The sum of the features, times a sign."""

    def __init__(self, sign: int) -> None:
        super().__init__()
        self.sign = sign

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return self.sign * x.flatten(1).sum(dim=1), torch.zeros_like(x)


class Known(Detector):
    """Its code is the first features, its decoder returns grey, one of three read-outs fails."""

    readout_names: ClassVar[tuple[str, ...]] = ("sum", "minus", "broken")

    def __init__(self, latent_dim: int) -> None:
        super().__init__()
        self.readout, self.latent_dim = "sum", latent_dim
        self.fitted_with: list[int] = []

    def fit_readout(
        self, train: Tensor, early_stop: Tensor, *, name: str | None = None
    ) -> nn.Module:
        self.fitted_with.append(len(train))
        if name == "broken":
            raise BadInput("it needs something else")
        return Sum(-1 if name == "minus" else 1)

    def encode(self, x: Tensor) -> Tensor:
        return x.flatten(1)[:, : self.latent_dim]

    def reconstruct(self, x: Tensor) -> Tensor:
        return x

    def sample(self, z: Tensor) -> Tensor:
        return torch.full((len(z), 1, SIDE, SIDE), 0.5) + 0 * z.sum()

    def active_units(self, x: Tensor) -> int:
        return int((self.encode(x).var(dim=0) > 0.01).sum())


def test_every_readout_is_scored_on_the_test_rows() -> None:
    """Brighter anomalies give the sum AUROC 1, its negative 0, and the broken one its reason."""
    found = _inspect(_images())
    assert found.readouts["sum"]["auroc"] == 1.0
    assert found.readouts["minus"]["auroc"] == 0.0
    assert found.readouts["broken"] == {
        "auroc": None,
        "auprc": None,
        "note": "it needs something else",
    }
    assert found.readout == "sum"


@pytest.mark.parametrize(("latent_dim", "variance"), [(1, 1.0), (2, 1.0), (8, None)])
def test_codes_are_drawn_in_a_plane(latent_dim: int, variance: float | None) -> None:
    """One and two dimensions are shown whole, more by the two leading components of them."""
    found = _inspect(_images(), latent_dim=latent_dim)
    assert found.codes.shape == (len(found.code_rows), 2)
    assert len(found.code_rows) == 60
    if variance is None:
        assert 0.2 < found.codes_variance < 0.95
    else:
        assert found.codes_variance == variance


def test_codes_belong_to_the_rows_they_name() -> None:
    """The code of the i-th point is that of test row code_rows[i]."""
    prepared = _images()
    found = _inspect(prepared, latent_dim=2)
    rows = prepared.roles.test[found.code_rows]
    np.testing.assert_allclose(
        found.codes, prepared.x[rows].reshape(60, -1)[:, :2] / 255, atol=1e-6
    )


def test_samples_and_quality_are_in_the_inputs_unit() -> None:
    """Grey of 0.5 is 127.5 among 0..255; a reconstruction without error has SSIM 1."""
    found = _inspect(_images())
    assert found.samples.shape == (16, 1, SIDE, SIDE)
    assert np.allclose(found.samples, 127.5)
    assert found.quality is not None
    assert found.quality["ssim"] == pytest.approx(1)
    assert found.quality["n"] == 30


def test_masks_give_a_pixel_auroc_and_unmarked_anomalies_are_left_out() -> None:
    """Bright squares under their masks are found; an anomaly without an outline costs nothing."""
    prepared = _images(masked=True)
    found = _inspect(prepared)
    assert found.pixel_auroc is not None
    assert found.pixel_auroc > 0.9


def test_the_same_seed_gives_the_same_inspection() -> None:
    """Two inspections agree in every figure and every point."""
    first, second = (_inspect(_images()) for _ in range(2))
    assert first.as_json() == second.as_json()
    assert np.array_equal(first.code_rows, second.code_rows)


def test_the_figures_are_plain_json() -> None:
    """as_json holds the figures, and no array."""
    figures = json.loads(json.dumps(_inspect(_images()).as_json(), allow_nan=False))
    assert figures["latent_dim"] == 8
    assert "samples" not in figures


def test_readout_values_do_not_mind_features_in_double() -> None:
    """Exporting turns a table's features into double; values come out all the same."""
    rows = np.random.default_rng(0).normal(size=(1_500, 3)).astype(np.float32)
    spec = TableInput(columns=tuple(Column(name=n, kind="number", dtype="float32") for n in "abc"))
    features = TableFeatures(spec, rows)
    before = readout_values(Sum(1), features, rows)
    after = readout_values(Sum(1), features.double(), rows)
    assert before.shape == (1_500,)
    np.testing.assert_allclose(before, after, atol=1e-5)


def _inspect(prepared: Prepared, *, latent_dim: int = 8) -> Inspection:
    features = ImageFeatures()
    train, early_stop = (
        features(torch.from_numpy(prepared.x[rows]))
        for rows in (prepared.roles.train, prepared.roles.early_stop)
    )
    return inspect(
        Known(latent_dim), features, prepared, train=train, early_stop=early_stop, seed=0
    )


def _images(*, masked: bool = False) -> Prepared:
    """60 dark images to learn from, 30 more and 30 with a bright square to test."""
    rng = np.random.default_rng(0)
    x = rng.integers(0, 60, (120, 1, SIDE, SIDE), dtype=np.uint8)
    masks = np.zeros((120, SIDE, SIDE), dtype=bool)
    x[90:, :, 4:12, 4:12] = 250
    masks[90:, 4:12, 4:12] = True
    masks[95] = False
    rows: NDArray[np.int64] = np.arange(120)
    roles = Roles(train=rows[:30], early_stop=rows[30:50], calibration=rows[50:60], test=rows[60:])
    truth = rows >= 90
    return Prepared(
        input=ImageInput(channels=1, height=SIDE, width=SIDE),
        x=x,
        label=np.where(truth, "square", "dark"),
        classes=Classes("dark", None),
        is_anomaly=truth,
        roles=roles,
        names=[str(row) for row in rows],
        data_hash="",
        split_hash={},
        split_rows={},
        duplicate_rows_removed=0,
        notes=[],
        masks=masks if masked else None,
    )
