"""A folder in MVTec's layout with known defects, cut from scikit-image's photographs of textures.

    python tests/textures.py FOLDER [--textures brick grass gravel] [--side 128] [--seed 0] ...

Training crops come from the left 60 % of each texture, test crops from the right 40 %. Defects: a
piece of the same texture, rotated and of nearly the same mean; a scratch 1-3 px wide.
"""

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from scipy import ndimage
from skimage import data

TEXTURES = ("brick", "grass", "gravel")
TRAIN_SHARE = 0.6  # of a texture's width
AREA = (0.01, 0.05)  # of a crop, what a cut-paste covers
ANGLE_DEGREES = (30.0, 330.0)
MEAN_TOLERANCE = 0.1  # between what is pasted and what it covers
SCRATCH_PX = (1, 3)
CONTRAST = (1.5, 3.0)  # of a scratch: standard deviations of its crop away from the mean

Grey = NDArray[np.uint8]
Mask = NDArray[np.bool_]
Rng = np.random.Generator
Spoil = Callable[[Grey, Grey, Rng], tuple[Grey, Mask]]


def write_textures(
    folder: Path,
    *,
    textures: Sequence[str] = TEXTURES,
    side: int = 128,
    train: int = 200,
    test: int = 40,
    seed: int = 0,
) -> Path:
    """The folder, filled: train/good, test/{good,cut_paste,scratch} and ground_truth.

    train: good crops of each texture, test: crops of each texture and kind. Equal seeds write equal
    pixels. Source of the textures: CC0 photographs that scikit-image carries.
    """
    for number, texture in enumerate(textures):
        rng = np.random.default_rng([seed, number])
        left, right = split(getattr(data, texture)())
        write_set(folder, texture, left, right, side=side, counts=(train, test), rng=rng)
    return folder


def split(texture: Grey) -> tuple[Grey, Grey]:
    """The left 60 % of the columns, for training and calibration, and the rest, for the test."""
    edge = int(TRAIN_SHARE * texture.shape[1])
    return texture[:, :edge], texture[:, edge:]


def write_set(
    folder: Path,
    prefix: str,
    train_source: Grey,
    test_source: Grey,
    *,
    side: int,
    counts: tuple[int, int],
    rng: Rng,
) -> None:
    """Nothing; writes counts[0] training crops and counts[1] test crops of each kind."""
    for i in range(counts[0]):
        _save(folder / "train" / "good" / f"{prefix}_{i:03}.png", crop(train_source, side, rng))
    for i in range(counts[1]):
        name = f"{prefix}_{i:03}"
        _save(folder / "test" / "good" / f"{name}.png", crop(test_source, side, rng))
        for kind, spoil in DEFECTS.items():
            image, mask = spoil(crop(test_source, side, rng), test_source, rng)
            _save(folder / "test" / kind / f"{name}.png", image)
            _save(folder / "ground_truth" / kind / f"{name}_mask.png", mask)


def crop(source: Grey, side: int, rng: Rng) -> Grey:
    """A square of the source, somewhere."""
    top, left = (int(rng.integers(0, n - side + 1)) for n in source.shape)
    return source[top : top + side, left : left + side]


def cut_paste(image: Grey, source: Grey, rng: Rng) -> tuple[Grey, Mask]:
    """The crop with a rotated piece of the source on 1-5 % of it, and where the piece lies.

    Drawn again until the mean of the piece is within 10 % of the mean of what it covers.
    """
    while True:
        height, width = _piece_size(image.size, rng)
        piece = _rotated(source, height, width, angle=rng.uniform(*ANGLE_DEGREES), rng=rng)
        top = int(rng.integers(0, image.shape[0] - height + 1))
        left = int(rng.integers(0, image.shape[1] - width + 1))
        place = (slice(top, top + height), slice(left, left + width))
        covered = float(image[place].mean())
        if abs(float(piece.mean()) - covered) <= MEAN_TOLERANCE * covered:
            break
    spoiled, mask = image.copy(), np.zeros(image.shape, dtype=np.bool_)
    spoiled[place], mask[place] = piece, True
    return spoiled, mask


def scratch(image: Grey, source: Grey, rng: Rng) -> tuple[Grey, Mask]:
    """The crop with a bent line of one grey, 1-3 px wide and a quarter to three quarters long."""
    height, width = image.shape
    length, angle = rng.uniform(0.25, 0.75) * min(height, width), rng.uniform(0, np.pi)
    along = 0.5 * length * np.array([np.cos(angle), np.sin(angle)])
    middle = rng.uniform(np.abs(along), np.array([width, height]) - np.abs(along))
    bend = middle + rng.uniform(-0.1, 0.1) * length * np.array([-np.sin(angle), np.cos(angle)])
    drawing = Image.new("1", (width, height))
    points = [tuple(p) for p in (middle - along, bend, middle + along)]
    thickness = int(rng.integers(SCRATCH_PX[0], SCRATCH_PX[1] + 1))
    ImageDraw.Draw(drawing).line(points, fill=1, width=thickness)
    mask = np.asarray(drawing, dtype=np.bool_)
    grey = image.mean() + rng.choice([-1, 1]) * rng.uniform(*CONTRAST) * image.std()
    return np.where(mask, np.uint8(np.clip(grey, 0, 255)), image), mask


DEFECTS: dict[str, Spoil] = {"cut_paste": cut_paste, "scratch": scratch}


def _piece_size(area: int, rng: Rng) -> tuple[int, int]:
    """Height and width of a rectangle that covers AREA of `area` pixels, up to twice as long."""
    while True:
        covered, aspect = rng.uniform(*AREA) * area, np.exp(rng.uniform(-np.log(2), np.log(2)))
        height, width = round(np.sqrt(covered * aspect)), round(np.sqrt(covered / aspect))
        if AREA[0] * area <= height * width <= AREA[1] * area:
            return height, width


def _rotated(source: Grey, height: int, width: int, *, angle: float, rng: Rng) -> Grey:
    """A rectangle out of the source turned by `angle` degrees, without a border in it."""
    square = crop(source, int(np.hypot(height, width)) + 2, rng)
    # Splines keep the piece as sharp as what lies around it: blur alone would give it away.
    turned = ndimage.rotate(square.astype(np.float64), angle, reshape=False, mode="nearest")
    top, left = (square.shape[0] - height) // 2, (square.shape[1] - width) // 2
    piece = turned[top : top + height, left : left + width]
    return np.rint(piece).clip(0, 255).astype(np.uint8)


def _save(path: Path, pixels: Grey | Mask) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels.astype(np.uint8) * (255 if pixels.dtype == np.bool_ else 1)).save(path)


def main() -> None:
    """Writes one folder of textures as the command line says."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--textures", nargs="+", choices=TEXTURES, default=TEXTURES)
    parser.add_argument("--side", type=int, default=128, help="pixels (default %(default)s)")
    parser.add_argument("--train", type=int, default=200, help="of each (default %(default)s)")
    parser.add_argument("--test", type=int, default=40, help="of each kind (default %(default)s)")
    parser.add_argument("--seed", type=int, default=0)
    print(write_textures(**vars(parser.parse_args())))


if __name__ == "__main__":
    main()
