"""The read-outs against formulas of their own: distances, whitening, blends, the correction."""

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from amiss_export.errors import BadInput
from amiss_training.detectors.networks import Autoencoder, Encoder, decoder, leaky
from amiss_training.detectors.readouts import (
    Average,
    Blend,
    ComplexityCorrected,
    Dissimilarity,
    HiddenNeighbours,
    HiddenOutlierFactor,
    Residual,
    WhitenedPath,
    WhitenedResidual,
    corrected,
    total_variation,
)
from amiss_training.detectors.similarity import ssim


class Small(Autoencoder):
    """A network with its initial weights: read-outs need no more."""

    def __init__(self, shape: tuple[int, ...], widths: tuple[int, ...]) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.encoder = Encoder(shape, widths)
        self.head = nn.Linear(widths[-1], 2)
        self.decoder = decoder(shape, widths, 2)
        self.eval().requires_grad_(False)

    def code(self, last: Tensor) -> Tensor:
        code: Tensor = self.head(leaky(last))
        return code

    def decode(self, z: Tensor) -> Tensor:
        output: Tensor = self.decoder(z)
        return output


@pytest.fixture
def dense() -> Small:
    return Small((6,), (16, 8))


@pytest.fixture
def convolutional() -> Small:
    return Small((1, 12, 12), (4, 8))


def rows(n: int, *, seed: int = 0) -> Tensor:
    """Correlated rows (n, 6)."""
    mix = torch.randn(6, 6, generator=torch.Generator().manual_seed(7))
    return torch.randn(n, 6, generator=torch.Generator().manual_seed(seed)) @ mix


def images(n: int, *, seed: int = 0) -> Tensor:
    """Random images of different contrast (n, 1, 12, 12)."""
    generator = torch.Generator().manual_seed(seed)
    contrast = 0.2 + 0.8 * torch.rand(n, 1, 1, 1, generator=generator)
    return contrast * torch.rand(n, 1, 12, 12, generator=generator)


def test_residuals_are_sums_of_differences(dense: Small) -> None:
    """l1 and l2 are numpy's sums of absolute and squared differences."""
    x = rows(20)
    gap = (x - dense.reconstruct(x)).double().numpy()
    for norm, expected in (("l1", np.abs(gap).sum(1)), ("l2", (gap**2).sum(1))):
        value, reconstruction = Residual(dense, norm=norm)(x)  # type: ignore[arg-type]  # a literal in a loop
        assert value.numpy() == pytest.approx(expected, rel=1e-5)
        assert torch.equal(reconstruction, dense.reconstruct(x))


def test_dissimilarity_is_one_minus_ssim(convolutional: Small) -> None:
    """Of the image and its reconstruction brought into 0..1."""
    x = images(5)
    expected = 1 - ssim(x, convolutional.reconstruct(x).clamp(0, 1))
    assert torch.allclose(Dissimilarity(convolutional, multi_scale=False)(x)[0], expected)


def mahalanobis(known: list[np.ndarray], blocks: list[np.ndarray]) -> np.ndarray:
    """Per dimension (n,), each block scaled to a total variance of 1, small variances floored."""
    scale = [1 / np.sqrt(block.var(0).sum()) for block in known]
    train, x = (
        np.hstack([f * block for f, block in zip(scale, parts, strict=True)])
        for parts in (known, blocks)
    )
    variance, basis = np.linalg.eigh(np.cov(train.T, bias=True))
    along = (x - train.mean(0)) @ basis
    return (along**2 / np.maximum(variance, 1e-3 * variance[-1])).mean(1)


def test_the_whitened_residual_is_a_mahalanobis_distance(dense: Small) -> None:
    """With rows to spare it is numpy's, on residual and code scaled to equal total variance."""
    train, x = rows(500), rows(30, seed=1)

    def blocks(x: Tensor) -> list[np.ndarray]:
        return [(x - dense.reconstruct(x)).double().numpy(), dense.encode(x).double().numpy()]

    found = WhitenedResidual(dense, train)(x)[0].numpy()
    assert found == pytest.approx(mahalanobis(blocks(train), blocks(x)), rel=1e-3)


def test_the_whitened_path_is_a_mahalanobis_distance_of_two_paths(dense: Small) -> None:
    """Input, both layers' activations and the code, of x minus those of its reconstruction."""
    train, x = rows(500), rows(30, seed=1)

    def blocks(x: Tensor) -> list[np.ndarray]:
        again = dense.reconstruct(x)
        pairs = zip(dense.encoder.path(x), dense.encoder.path(again), strict=True)
        gaps = [x - again, *(leaky(a) - leaky(b) for a, b in pairs), dense.encode(x)]
        return [gap.double().numpy() for gap in gaps]

    found = WhitenedPath(dense, train)(x)[0].numpy()
    assert found == pytest.approx(mahalanobis(blocks(train), blocks(x)), rel=1e-3)


def test_hidden_neighbours_are_numpys_nearest_rows(dense: Small) -> None:
    """With as many directions as the layer is wide, it is the mean distance to the nearest five."""
    train, x = rows(300), rows(20, seed=1)

    def hidden(x: Tensor) -> np.ndarray:
        value = dense.encoder.path(x)[0].double().numpy()
        return np.maximum(value, 0.2 * value)

    distances = np.linalg.norm(hidden(x)[:, None] - hidden(train)[None], axis=2)
    expected = np.sort(distances, axis=1)[:, :5].mean(1)
    assert HiddenNeighbours(dense, train)(x)[0].numpy() == pytest.approx(expected, rel=1e-3)


def test_the_outlier_factor_weighs_distance_against_density(dense: Small) -> None:
    """It is numpy's nearest distance over the 0.4th power of the neighbours' own, weighted."""
    train, x = rows(300), rows(20, seed=1)

    def distances(x: Tensor) -> np.ndarray:
        a, b = (np.float64(leaky(dense.encoder.path(r)[0]).numpy()) for r in (x, train))
        return np.linalg.norm(a[:, None] - b[None], axis=2)

    own = np.sort(distances(train), axis=1)[:, 1:6].mean(1)
    expected = []
    for row in distances(x):
        order = np.argsort(row)
        weights = row[order[10]] - row[order[:10]]
        density = np.average(np.log(own[order[:10]]), weights=weights)
        expected.append(row[order[:5]].mean() / np.exp(0.4 * density))
    assert HiddenOutlierFactor(dense, train)(x)[0].numpy() == pytest.approx(expected, rel=1e-3)


def test_the_outlier_factor_has_no_steps(dense: Small) -> None:
    """Along a line through the rows, ever finer steps of x make ever finer steps of the value."""
    factor = HiddenOutlierFactor(dense, rows(60))
    start, end = rows(2, seed=3).double()

    def largest_step(count: int) -> float:
        share = torch.linspace(0, 1, count, dtype=torch.float64).unsqueeze(1)
        value = factor((start + share * (end - start)).float())[0]
        return float(value.diff().abs().max())

    assert largest_step(20_001) < largest_step(201) / 50


def test_hidden_neighbours_are_found_the_same_way_every_time(convolutional: Small) -> None:
    """The randomised directions do not depend on the generator's state, nor move it."""
    train = images(200)
    torch.manual_seed(1)
    first = HiddenNeighbours(convolutional, train).basis
    state = torch.random.get_rng_state()
    torch.manual_seed(2)
    assert torch.equal(first, HiddenNeighbours(convolutional, train).basis)
    torch.manual_seed(1)
    assert torch.equal(state, torch.random.get_rng_state())


def test_a_blend_gives_every_part_the_same_say(dense: Small) -> None:
    """Its logarithm is the mean of the parts' standardised logarithms, whatever their units."""
    early_stop, x = rows(100), rows(20, seed=1)
    parts = [Residual(dense, norm="l1"), WhitenedResidual(dense, rows(300, seed=2))]
    levels = []
    for part in parts:
        known = np.log(part(early_stop)[0].double().numpy())
        levels.append((np.log(part(x)[0].double().numpy()) - known.mean()) / known.std(ddof=1))
    found = Blend(parts, early_stop)(x)[0].log().numpy()
    assert found == pytest.approx(np.mean(levels, axis=0), rel=1e-4, abs=1e-4)


def test_an_average_puts_its_parts_on_a_common_scale(dense: Small) -> None:
    """The mean of asinh of interquartile ranges above the median early-stop row."""
    early_stop, x = rows(100), rows(20, seed=1)
    parts = [Residual(dense, norm="l1"), HiddenNeighbours(dense, rows(300, seed=2))]
    scores = []
    for part in parts:
        low, median, high = np.quantile(part(early_stop)[0].double().numpy(), [0.25, 0.5, 0.75])
        scores.append(np.arcsinh((part(x)[0].double().numpy() - median) / (high - low)))
    found, expected = Average(parts, early_stop)(x)
    assert found.numpy() == pytest.approx(np.mean(scores, axis=0), abs=1e-5)
    assert torch.allclose(expected, dense.reconstruct(x), atol=1e-6)


def test_total_variation_is_numpys_sum_of_differences() -> None:
    """Down and right, over all channels."""
    x = torch.rand(4, 3, 5, 6)
    arrays = x.double().numpy()
    down, right = np.abs(np.diff(arrays, axis=2)), np.abs(np.diff(arrays, axis=3))
    expected = down.sum((1, 2, 3)) + right.sum((1, 2, 3))
    assert total_variation(x).numpy() == pytest.approx(expected, rel=1e-5)


def test_the_correction_takes_out_what_complexity_explains(convolutional: Small) -> None:
    """Among normals the corrected value no longer goes along with log total variation."""
    early_stop, fresh = images(300), images(300, seed=1)
    read = Residual(convolutional, norm="l2")
    variation = total_variation(fresh).log().numpy()
    before = np.corrcoef(read(fresh)[0].log().numpy(), variation)[0, 1]
    value = ComplexityCorrected(read, early_stop, complexity="variation")(fresh)[0].numpy()
    assert abs(before) > 0.8
    assert abs(np.corrcoef(value, variation)[0, 1]) < 0.4
    assert value.std() == pytest.approx(1.0, abs=0.25)


def test_the_correction_is_a_least_squares_fit_of_the_early_stop_rows(convolutional: Small) -> None:
    """numpy's regression of the log value on the covariates leaves the same residuals."""
    early_stop = images(120)
    read = Residual(convolutional, norm="l2")
    level = read(early_stop)[0].log().numpy()
    columns = [total_variation(early_stop).log(), early_stop.double().square().sum((1, 2, 3))]
    design = np.stack([c.numpy() for c in columns], axis=1)
    design = np.clip((design - design.mean(0)) / design.std(0, ddof=1), -3, 3)
    design = np.hstack([design, np.ones((120, 1))])
    residual = level - design @ np.linalg.lstsq(design, level, rcond=None)[0]
    found = ComplexityCorrected(read, early_stop, complexity="variation_ink")(early_stop)[0]
    assert found.numpy() == pytest.approx(residual / residual.std(ddof=1), abs=1e-6)


def test_a_value_that_has_no_logarithm_is_refused(convolutional: Small) -> None:
    """The correction says which read-outs it cannot take."""

    class Negative(nn.Module):
        def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
            return -x.flatten(1).sum(dim=1), x

    with pytest.raises(BadInput, match="takes the logarithm"):
        corrected(Negative(), images(10), complexity="variation")


def test_rows_have_no_complexity_to_correct(dense: Small) -> None:
    """The correction is refused for tables; none leaves the read-out as it is."""
    read = Residual(dense, norm="l2")
    assert corrected(read, rows(10), complexity="none") is read
    with pytest.raises(BadInput, match="for images"):
        corrected(read, rows(10), complexity="variation")
