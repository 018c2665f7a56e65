"""The generated texture set obeys its own rule, or figures measured on it would mean nothing."""

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from skimage import data

from amiss_training.data.images import list_mvtec
from textures import MEAN_TOLERANCE, crop, cut_paste, scratch, split, write_textures


def read(path: Path) -> NDArray[np.uint8]:
    return np.asarray(Image.open(path))


def places(piece: NDArray[np.uint8], within: NDArray[np.uint8]) -> int:
    """How often the piece occurs in the larger image, pixel by pixel."""
    windows = np.lib.stride_tricks.sliding_window_view(within, piece.shape)
    rows, columns = np.nonzero((windows[:, :, 0] == piece[0]).all(axis=2))
    return int((windows[rows, columns] == piece).all(axis=(1, 2)).sum())


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("textures")
    return write_textures(path, textures=("grass", "brick"), side=64, train=4, test=3)


def test_layout_is_mvtecs(folder: Path) -> None:
    """Good training crops, three kinds of test crops, and a mask for every defective one."""
    listing = list_mvtec(folder)
    assert listing.label is not None
    assert sorted(listing.label[8:].tolist()) == sorted(["good", "cut_paste", "scratch"] * 6)
    assert listing.masks is not None
    assert sum(mask is not None for mask in listing.masks) == 12


def test_sources_are_disjoint(folder: Path) -> None:
    """Training crops occur in the left 60 % of their texture alone, good test crops in the rest."""
    for name in ("grass", "brick"):
        left, right = split(getattr(data, name)())
        assert left.shape[1] == int(0.6 * 512)
        assert left.shape[1] + right.shape[1] == 512
        for path in sorted((folder / "train" / "good").glob(f"{name}*")):
            assert (places(read(path), left), places(read(path), right)) == (1, 0)
        for path in sorted((folder / "test" / "good").glob(f"{name}*")):
            assert (places(read(path), left), places(read(path), right)) == (0, 1)


def test_cut_paste_keeps_its_bounds() -> None:
    """1-5 % of the area, the mean within 10 % of what was there, nothing changed elsewhere."""
    rng = np.random.default_rng(0)
    source = split(data.gravel())[1]
    for _ in range(60):
        image = crop(source, 96, rng)
        spoiled, mask = cut_paste(image, source, rng)
        assert 0.01 <= mask.mean() <= 0.05
        before, after = image[mask].mean(), spoiled[mask].mean()
        assert abs(after - before) <= MEAN_TOLERANCE * before
        assert (spoiled[~mask] == image[~mask]).all()
        assert (spoiled[mask] != image[mask]).mean() > 0.5


def test_scratches_keep_their_bounds() -> None:
    """One grey, away from the mean, as wide as 1-3 px and shorter than the side."""
    rng = np.random.default_rng(0)
    source = split(data.grass())[1]
    for _ in range(60):
        image = crop(source, 96, rng)
        spoiled, mask = scratch(image, source, rng)
        (grey,) = np.unique(spoiled[mask])
        assert abs(float(grey) - image.mean()) >= 1.4 * image.std() or grey in (0, 255)
        assert (spoiled[~mask] == image[~mask]).all()
        rows, columns = np.nonzero(mask)
        extent = max(np.ptp(rows), np.ptp(columns)) + 1
        assert 0.15 * 96 <= extent <= 0.8 * 96
        assert mask.sum() <= 4.5 * np.hypot(np.ptp(rows) + 1, np.ptp(columns) + 1)


def test_equal_seeds_write_equal_pixels(tmp_path: Path) -> None:
    """Two folders of one seed are the same, byte for byte; another seed's is not."""
    folders = [
        write_textures(tmp_path / str(i), textures=("gravel",), side=48, train=2, test=1, seed=seed)
        for i, seed in enumerate((3, 3, 4))
    ]
    names = sorted(path.relative_to(folders[0]) for path in folders[0].rglob("*.png"))
    first, again, other = ([(f / name).read_bytes() for name in names] for f in folders)
    assert first == again
    assert first != other
