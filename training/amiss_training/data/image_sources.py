"""Where images come from: folders, MVTec's layout, IDX, NPZ and the digits starter, all alike."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from amiss_export.bundle import ImageInput
from amiss_export.errors import BadInput
from amiss_training.data import idx, starters
from amiss_training.data.arrays import read_arrays
from amiss_training.data.files import check_exists, kind_of, sha256_of
from amiss_training.data.images import (
    SUFFIXES,
    Listing,
    Pixels,
    as_channels_first,
    decode_files,
    decode_masks,
    files_below,
    fit_arrays,
    infer_spec,
    is_mvtec,
    list_folder,
    list_mvtec,
)

Rows = NDArray[np.int64]
Strings = NDArray[np.str_]


@dataclass(frozen=True)
class ImageSource:
    """Images that can be read: their names and labels now, their pixels when asked for.

    label is None when there are none; own_test, (n,), is True where the data fix the test.
    infer(side, channels) tells what they become; pixels(rows, spec) reads the given ones, and
    masks(rows, spec), (n, h, w), where they are defective; None where nobody drew that.
    """

    name: str
    names: list[str]
    label: Strings | None
    own_test: NDArray[np.bool_] | None
    infer: Callable[[int | None, Literal[1, 3] | None], ImageInput]
    pixels: Callable[[Rows, ImageInput], Pixels]
    data_hash: Callable[[], str]
    masks: Callable[[Rows, ImageInput], NDArray[np.bool_]] | None = None


def open_images(path: Path | None, loader: str) -> ImageSource:
    """The images that a resolved loader finds at the path; BadInput naming what is wrong."""
    if path is None:
        pixels, label = starters.digits()
        return array_source(loader, pixels, label, lambda: starters.hash_arrays(pixels, label))
    if loader == "idx":
        return _open_idx(path)
    if loader == "npz":
        data, found = read_arrays(path)
        label_text = None if found is None else found.astype(np.str_)
        images = as_channels_first(path, data)
        return array_source(str(path), images, label_text, lambda: sha256_of([path]))
    return listing_source(list_mvtec(path) if loader == "mvtec" else list_folder(path))


def iter_images(
    path: Path, spec: ImageInput, chunk_rows: int
) -> Iterator[tuple[list[str], Pixels]]:
    """Names and images, (up to chunk_rows, channels, height, width), in a fixed order.

    A folder (every image below it; of MVTec's layout the test images), one image file, or an IDX
    or NPZ file. Names are paths below the folder, or row numbers. Raises BadInput naming the file.
    """
    if check_exists(path).is_dir():
        images = idx.find_images(path)
        if images is None:
            yield from _iter_files(_listing_to_score(path), spec, chunk_rows)
            return
        path = images
    kind = "image" if path.suffix.lower() in SUFFIXES else kind_of(path)
    if kind == "image":
        yield [path.name], decode_files([path], spec)
        return
    start = 0
    for chunk in _iter_arrays(path, kind, chunk_rows):
        yield [str(row) for row in range(start, start + len(chunk))], fit_arrays(chunk, spec)
        start += len(chunk)


def _open_idx(path: Path) -> ImageSource:
    images_path = idx.find_images(path) if path.is_dir() else path
    if images_path is None:
        raise BadInput(f"{path}: no IDX images (*-ubyte, *-ubyte.gz, *.idx) there")
    images = as_channels_first(images_path, idx.read_images(images_path))
    labels_path = idx.find_labels(images_path)
    if labels_path is None:
        return array_source(str(images_path), images, None, lambda: sha256_of([images_path]))
    return array_source(
        str(images_path),
        images,
        idx.read_labels(labels_path, rows=len(images)),
        lambda: sha256_of([images_path, labels_path]),
    )


def array_source(
    name: str, images: Pixels, label: Strings | None, data_hash: Callable[[], str]
) -> ImageSource:
    return ImageSource(
        name=name,
        names=[str(row) for row in range(len(images))],
        label=label,
        own_test=None,
        infer=lambda side, channels: infer_spec(images, side=side, channels=channels),
        pixels=lambda rows, spec: fit_arrays(images[rows], spec),
        data_hash=data_hash,
    )


def listing_source(listing: Listing) -> ImageSource:
    paths, masks = listing.paths, listing.masks
    return ImageSource(
        name=str(listing.root),
        names=listing.names(),
        label=listing.label,
        own_test=listing.own_test,
        infer=lambda side, channels: infer_spec(paths[0], side=side, channels=channels),
        pixels=lambda rows, spec: decode_files([paths[row] for row in rows], spec),
        data_hash=lambda: sha256_of(paths, root=listing.root),
        masks=None
        if masks is None
        else lambda rows, spec: decode_masks([masks[row] for row in rows], spec),
    )


def _iter_arrays(path: Path, kind: str, chunk_rows: int) -> Iterator[Pixels]:
    if kind == "idx":
        for chunk in idx.iter_images(path, chunk_rows):
            yield as_channels_first(path, chunk)
    elif kind == "npz":
        images: NDArray[Any] = as_channels_first(path, read_arrays(path)[0])
        yield from (images[i : i + chunk_rows] for i in range(0, len(images), chunk_rows))
    else:
        raise BadInput(f"{path}: expected images (a folder, IDX or NPZ), got a {kind} file")


def _iter_files(
    listing: Listing, spec: ImageInput, chunk_rows: int
) -> Iterator[tuple[list[str], Pixels]]:
    names = listing.names()
    for start in range(0, len(names), chunk_rows):
        part = slice(start, start + chunk_rows)
        yield names[part], decode_files(listing.paths[part], spec)


def _listing_to_score(folder: Path) -> Listing:
    if is_mvtec(folder):
        return list_mvtec(folder, only_test=True)
    paths = files_below(folder)
    if not paths:
        raise BadInput(f"{folder}: no images ({', '.join(SUFFIXES)}) there")
    return Listing(folder, tuple(paths), None)
