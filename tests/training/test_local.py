"""The local read-out: what it computes, where it points, what it exports."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy import ndimage
from torch import Tensor, nn

from amiss_export.errors import BadInput
from amiss_export.graph import ImageFeatures, ScoringGraph
from amiss_export.parity import check_parity
from amiss_export.to_onnx import write_onnx
from amiss_export.to_torchscript import write_torchscript
from amiss_training.detectors.local import BLUR_CELLS, LocalWhitening
from amiss_training.detectors.networks import Autoencoder, Encoder, decoder

SHAPE = (1, 64, 64)


class Small(Autoencoder):
    """An untrained autoencoder of 64x64 images."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.encoder = Encoder(SHAPE, (4, 8, 16))
        self.head = nn.Linear(16, 4)
        self.decoder = decoder(SHAPE, (4, 8, 16), 4)
        self.eval().requires_grad_(False)

    def code(self, last: Tensor) -> Tensor:
        z: Tensor = self.head(last)
        return z

    def decode(self, z: Tensor) -> Tensor:
        return torch.sigmoid(self.decoder(z))


def textures(n: int, *, seed: int) -> NDArray[np.uint8]:
    """Grey images (n, 1, 64, 64) of smoothed noise, finer down than across."""
    noise = np.random.default_rng(seed).normal(size=(n, *SHAPE))
    smooth = ndimage.gaussian_filter(noise, (0, 0, 0.7, 2.0))
    return np.clip(128 + 60 * smooth / smooth.std(), 0, 255).astype(np.uint8)


def features(pixels: NDArray[np.uint8]) -> Tensor:
    return torch.from_numpy(pixels.astype(np.float32) / 255)


@pytest.fixture(scope="module")
def readout() -> LocalWhitening:
    return LocalWhitening(Small(), features(textures(48, seed=0))).eval()


def test_value_is_the_formula(readout: LocalWhitening) -> None:
    """Patches, nine bands, both lengths, closing, blur and the highest cells, all by numpy."""
    network = readout.network
    train, fresh = features(textures(48, seed=0)), features(textures(5, seed=1))
    gaps = [(x - network.reconstruct(x)).numpy()[:, 0].astype(np.float64) for x in (train, fresh)]
    rows, patches = (_patches(gap) for gap in gaps)
    whiten = _whitener(rows)
    energies = [
        (whiten(part) ** 2).reshape(*part.shape[:3], 9, 4).mean(-1) for part in (rows, patches)
    ]
    middle = [part[..., 2:7].mean(axis=-1) for part in energies]
    logs = [np.log(_blur(part, 1.0, radius=3) + 1e-3) for part in energies]
    surprise = [(_whitener(logs[0])(part) ** 2).mean(axis=-1) for part in logs]
    both = [
        m / middle[0].std() + s / surprise[0].std() for m, s in zip(middle, surprise, strict=True)
    ]
    normal, cells = (_blur(_closed(part)[..., None], BLUR_CELLS, radius=5)[..., 0] for part in both)
    cells = cells / normal.mean(axis=0)
    expected = np.sort(cells.reshape(5, -1), axis=1)[:, -51:].mean(axis=1)
    assert readout(fresh)[0].numpy() == pytest.approx(expected, rel=1e-3)


def test_expectation_is_the_networks(readout: LocalWhitening) -> None:
    """The second output is the network's reconstruction of the image."""
    x = features(textures(3, seed=1))
    assert torch.equal(readout(x)[1], readout.network.reconstruct(x))


def test_a_planted_patch_is_where_the_map_peaks(readout: LocalWhitening) -> None:
    """A piece turned by 90 degrees raises the value, and the map is highest within 4 px of it."""
    good = textures(8, seed=2)
    spoiled = good.copy()
    for image, donor in zip(spoiled[:, 0], textures(8, seed=3)[:, 0], strict=True):
        image[20:36, 30:46] = donor[:16, :16].T
    x = features(spoiled)
    assert (readout(x)[0] > readout(features(good))[0]).all()
    maps = readout.pixel_map(x)
    assert maps.shape == (8, 64, 64)
    rows, columns = np.unravel_index(maps.flatten(1).argmax(dim=1).numpy(), (64, 64))
    assert ((rows >= 16) & (rows < 40) & (columns >= 26) & (columns < 50)).all()


def test_borders_are_like_any_other_place(readout: LocalWhitening) -> None:
    """Over normal images the map's average at the border is within 10 % of that in the middle."""
    average = readout.pixel_map(features(textures(64, seed=4))).mean(dim=0)
    border = torch.cat([average[:4].flatten(), average[:, :4].flatten()]).mean()
    assert float(border) == pytest.approx(float(average[20:44, 20:44].mean()), rel=0.1)


def test_equal_images_get_equal_values(readout: LocalWhitening) -> None:
    """Fitting twice on the same images gives bitwise the same read-out, alone or in a batch."""
    again = LocalWhitening(Small(), features(textures(48, seed=0)))
    x = features(textures(4, seed=5))
    assert torch.equal(again(x)[0], readout(x)[0])
    assert torch.allclose(readout(x[:1])[0], readout(x)[0][:1], rtol=1e-6)


@pytest.mark.parametrize("shape", [(1, 28, 28), (3, 40, 70)])
def test_any_size_and_colour(shape: tuple[int, int, int]) -> None:
    """Sides that no cell divides, and colour, give a map of the image's size."""

    class Blank(Autoencoder):
        def reconstruct(self, x: Tensor) -> Tensor:
            return torch.full_like(x, 0.5)

    x = torch.rand(20, *shape, generator=torch.Generator().manual_seed(0))
    fitted = LocalWhitening(Blank(), x)
    assert fitted.pixel_map(x[:2]).shape == (2, *shape[1:])
    assert torch.isfinite(fitted(x)[0]).all()


def test_rows_are_refused() -> None:
    """Tables have no places to look at; the message names a read-out that fits."""
    with pytest.raises(BadInput, match="take whitened_path"):
        LocalWhitening(Small(), torch.zeros(5, 3))


def test_exports_agree(readout: LocalWhitening, tmp_path: Path) -> None:
    """ONNX Runtime and TorchScript stay within 1e-5 of the scores' interquartile range."""
    normals = torch.from_numpy(textures(200, seed=6))
    graph = ScoringGraph(ImageFeatures(), readout, normals)
    onnx, script = tmp_path / "model.onnx", tmp_path / "model.pt"
    write_onnx(graph, normals[:2], onnx)
    write_torchscript(graph, normals[:2], script)
    scores = graph(normals)[0].numpy()
    scale = float(np.subtract(*np.quantile(scores, [0.75, 0.25])))
    parity = check_parity(graph, onnx=onnx, torchscript=script, x=normals.numpy(), scale=scale)
    assert max(parity.onnx, parity.torchscript) <= parity.tolerance


def _patches(gap: NDArray[np.float64]) -> NDArray[np.float64]:
    """6x6 patches around each 2x2 cell, (n, 32, 32, 36)."""
    padded = np.pad(gap, ((0, 0), (2, 2), (2, 2)), mode="reflect")
    windows = np.lib.stride_tricks.sliding_window_view(padded, (6, 6), axis=(1, 2))[:, ::2, ::2]
    return windows.reshape(*windows.shape[:3], 36)


def _whitener(
    rows: NDArray[np.float64],
) -> Callable[[NDArray[np.float64]], NDArray[np.float64]]:
    """Whitening with the mean and covariance of rows (..., d), from least variance to most."""
    flat = rows.reshape(-1, rows.shape[-1])
    variance, directions = np.linalg.eigh(np.cov(flat.T, bias=True))
    basis = directions / np.sqrt(np.maximum(variance, 1e-6 * variance[-1]))
    return lambda part: (part - flat.mean(axis=0)) @ basis


def _closed(cells: NDArray[np.float64]) -> NDArray[np.float64]:
    """scipy's closing with a flat 5x5 window that nothing beyond the border takes part in."""
    grown = ndimage.maximum_filter(cells, (1, 5, 5), mode="constant", cval=-np.inf)
    return ndimage.minimum_filter(grown, (1, 5, 5), mode="constant", cval=np.inf)


def _blur(maps: NDArray[np.float64], std: float, *, radius: int) -> NDArray[np.float64]:
    """scipy's Gaussian over the rows and columns of maps (n, rows, columns, d)."""
    return ndimage.gaussian_filter(
        maps, (0, std, std, 0), mode="nearest", radius=(0, radius, radius, 0)
    )
