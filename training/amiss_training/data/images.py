"""Images in folders and arrays: found, labelled by their folders, made one size.

Pixels pass through amiss_export.decode, so that training and serving see the same ones.
"""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from amiss_export.bundle import ImageInput
from amiss_export.decode import IMAGE_FORMATS, decode_image, fit_image
from amiss_export.errors import BadInput
from amiss_training.data.files import reading

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp", ".gif", ".ppm", ".pgm")
GOOD = "good"  # MVTec's folder of images without a defect
_GREY_MODES = ("1", "L", "LA", "I", "I;16", "I;16B", "I;16L", "F")

Pixels = NDArray[np.uint8]


@dataclass(frozen=True)
class Listing:
    """Image files in order; label by folder, None without sub-folders; own_test (n,) of MVTec.

    masks: of each image the file that shows where it is defective, None for one without a defect.
    """

    root: Path
    paths: tuple[Path, ...]
    label: NDArray[np.str_] | None
    own_test: NDArray[np.bool_] | None = None
    masks: tuple[Path | None, ...] | None = None

    def names(self) -> list[str]:
        """Each file's path below the root, with forward slashes."""
        return [path.relative_to(self.root).as_posix() for path in self.paths]


def is_mvtec(folder: Path) -> bool:
    """Whether the folder is laid out as MVTec's: train/good and test."""
    return (folder / "train" / GOOD).is_dir() and (folder / "test").is_dir()


def list_folder(folder: Path) -> Listing:
    """The images below a folder. Sub-folders that hold images are classes.

    Raises BadInput when there are none, or some lie beside the sub-folders.
    """
    beside = sorted(path for path in folder.iterdir() if _is_image(path, folder))
    classes = [f for f in _folders_in(folder) if files_below(f)]
    if beside and classes:
        raise BadInput(
            f"{folder}: {beside[0].name} lies beside the class folder {classes[0].name!r}; "
            "put every image into a class folder, or none"
        )
    if not beside and not classes:
        raise BadInput(f"{folder}: no images ({', '.join(SUFFIXES)}) there")
    if beside:
        return Listing(folder, tuple(beside), None)
    paths = [(path, f.name) for f in classes for path in files_below(f)]
    return Listing(folder, tuple(path for path, _ in paths), np.array([name for _, name in paths]))


def list_mvtec(folder: Path, *, only_test: bool = False) -> Listing:
    """The images of train/good and test/<defect>, or of test alone, with the masks of ground_truth.

    Raises BadInput for another layout.
    """
    if not is_mvtec(folder):
        raise BadInput(f"{folder}: expected the folders train/good and test, as MVTec has them")
    train = [] if only_test else files_below(folder / "train" / GOOD)
    test = list_folder(folder / "test")
    if test.label is None:
        raise BadInput(f"{folder / 'test'}: expected a folder for good and for each defect")
    labelled = zip(test.paths, test.label.tolist(), strict=True)
    masks = (*[None] * len(train), *(_mask_of(folder, path, label) for path, label in labelled))
    return Listing(
        folder,
        (*train, *test.paths),
        np.array([GOOD] * len(train) + test.label.tolist()),
        np.array([False] * len(train) + [True] * len(test.paths)),
        masks if (folder / "ground_truth").is_dir() else None,
    )


def infer_spec(
    first: Path | NDArray[Any], *, side: int | None, channels: Literal[1, 3] | None
) -> ImageInput:
    """What images become: the size and colours of the first one, unless asked otherwise."""
    height, width, found = _probe(first) if isinstance(first, Path) else _measure(first)
    return ImageInput(channels=channels or found, height=side or height, width=side or width)


def decode_files(paths: Sequence[Path], spec: ImageInput) -> Pixels:
    """Images as the graph takes them, (n, channels, height, width); BadInput naming the file."""
    pixels = np.empty((len(paths), spec.channels, spec.height, spec.width), dtype=np.uint8)
    for i, path in enumerate(paths):
        with reading(path):
            data = path.read_bytes()
        try:
            pixels[i] = decode_image(data, spec)
        except BadInput as error:
            raise BadInput(f"{path}: {error}") from error
    return pixels


def decode_masks(paths: Sequence[Path | None], spec: ImageInput) -> NDArray[np.bool_]:
    """Where images are defective, (n, height, width): the pixels above 0, nowhere without a file.

    Resized by taking the nearest pixel, so that a mask stays one. BadInput naming the file.
    """
    masks = np.zeros((len(paths), spec.height, spec.width), dtype=np.bool_)
    for i, path in enumerate(paths):
        if path is None:
            continue
        if not path.is_file():
            raise BadInput(
                f"{path}: expected the mask of a defective image, there is none; add it, or take "
                "the folder ground_truth away to do without masks"
            )
        try:
            with reading(path), Image.open(path, formats=IMAGE_FORMATS) as image:
                grey = image.convert("L").resize(
                    (spec.width, spec.height), Image.Resampling.NEAREST
                )
        except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
            raise BadInput(f"{path}: the mask cannot be decoded: {error}") from error
        masks[i] = np.asarray(grey) > 0
    return masks


def fit_arrays(images: Pixels, spec: ImageInput) -> Pixels:
    """Images (n, channels, h, w) made the detector's size and colours."""
    if images.shape[1:] == (spec.channels, spec.height, spec.width):
        return images  # fit_image would return each as it is
    flat = images[:, 0] if images.shape[1] == 1 else images.transpose(0, 2, 3, 1)
    return np.stack([fit_image(Image.fromarray(np.ascontiguousarray(i)), spec) for i in flat])


def as_channels_first(path: Path, images: NDArray[Any]) -> Pixels:
    """Images of an array file as uint8 (n, channels, h, w).

    Taken: (n, h, w), (n, h, w, c) and (n, c, h, w) with 1 or 3 channels; uint8, truth values,
    whole numbers 0..255, or fractions 0..1.
    """
    if images.ndim == 3:
        images = images[:, None]
    elif images.ndim == 4 and images.shape[-1] in (1, 3):
        images = images.transpose(0, 3, 1, 2)
    if images.ndim != 4 or images.shape[1] not in (1, 3) or 0 in images.shape:
        raise BadInput(
            f"{path}: expected images (n, h, w), (n, h, w, c) or (n, c, h, w) with 1 or 3 "
            f"channels, got shape {images.shape}"
        )
    return _as_bytes(path, images)


def files_below(folder: Path) -> list[Path]:
    """Every image file below the folder, sorted; hidden files and folders are passed over."""
    return sorted(path for path in folder.rglob("*") if _is_image(path, folder))


def _mask_of(folder: Path, path: Path, label: str) -> Path | None:
    """Of a test image ground_truth/<defect>/<stem>_mask.png, None for a good one."""
    if label == GOOD:
        return None
    within = path.relative_to(folder / "test")
    return folder / "ground_truth" / within.with_name(f"{path.stem}_mask.png")


def _is_image(path: Path, folder: Path) -> bool:
    hidden = any(part.startswith(".") for part in path.relative_to(folder).parts)
    return path.suffix.lower() in SUFFIXES and not hidden and path.is_file()


def _folders_in(folder: Path) -> list[Path]:
    return sorted(f for f in folder.iterdir() if f.is_dir() and not f.name.startswith("."))


def _probe(path: Path) -> tuple[int, int, Literal[1, 3]]:
    """Height, width and channels of an image file, upright."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow's own size warning: decode sets the bound
            with Image.open(path, formats=IMAGE_FORMATS) as image:
                width, height = ImageOps.exif_transpose(image).size
                return height, width, 1 if image.mode in _GREY_MODES else 3
    except UnidentifiedImageError as error:
        raise BadInput(
            f"{path}: expected an image ({', '.join(IMAGE_FORMATS)}), got bytes that are none"
        ) from error
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise BadInput(f"{path}: the image cannot be decoded: {error}") from error


def _measure(images: NDArray[Any]) -> tuple[int, int, Literal[1, 3]]:
    _, channels, height, width = images.shape
    return height, width, 1 if channels == 1 else 3


def _as_bytes(path: Path, images: NDArray[Any]) -> Pixels:
    if images.dtype == np.uint8:
        return np.ascontiguousarray(images)
    low, high = images.min(), images.max()
    if images.dtype.kind in "fb" and low >= 0 and high <= 1:
        return np.ascontiguousarray(np.rint(images.astype(np.float32) * 255).astype(np.uint8))
    if images.dtype.kind in "iu" and low >= 0 and high <= 255:
        return np.ascontiguousarray(images.astype(np.uint8))
    raise BadInput(
        f"{path}: expected pixels as uint8, or as fractions 0..1, "
        f"got {images.dtype} from {low} to {high}"
    )
