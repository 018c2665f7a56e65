"""The images of a data set that has a name, whatever format it is published in."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from amiss_export.errors import BadInput
from amiss_training.data import cifar, idx, stl10
from amiss_training.data.archives import files_of, find_place
from amiss_training.data.celeba import read_celeba
from amiss_training.data.download import fetch_files, find_file, folder_of
from amiss_training.data.folders import names_hash, read_dtd, read_imagenet, read_tinyimagenet
from amiss_training.data.image_sources import ImageSource, listing_source, open_images
from amiss_training.data.images import Listing, as_channels_first
from amiss_training.data.medmnist import nearest_file, read_medmnist
from amiss_training.data.named import NAMED, RemoteFile
from amiss_training.data.parts import Part, make_part, pool
from amiss_training.data.places365 import read_places365
from amiss_training.data.svhn import read_svhn

Files = Sequence[RemoteFile]


def open_named_images(
    name: str,
    path: Path | None = None,
    *,
    side: int | None = None,
    attribute: str | None = None,
    official_split: bool = False,
) -> ImageSource:
    """The images of a data set in NAMED, of all its official parts; downloaded where that is known.

    path: where its files lie or shall be put, see folder_of. side: the size they are wanted in,
    which decides where several are stored. attribute: what labels CelebA's. official_split:
    own_test says which are the official test; it is None otherwise. Raises BadInput naming the
    files to put there.
    """
    known, place = NAMED[name], folder_of(name, path)
    if known.files:
        files = [nearest_file(known.files, side)] if known.layout == "medmnist" else known.files
        source = _READERS[known.layout](name, place, files)
    else:
        source = _open_folder(name, place, attribute)
    if official_split and source.own_test is None:
        raise BadInput(f"{source.name}: official_split was asked for, but no test part is there")
    return replace(
        source,
        own_test=source.own_test if official_split else None,
        infer=lambda side, channels: source.infer(side, channels or known.channels),
    )


def _open_idx(name: str, place: Path, files: Files) -> ImageSource:
    """The four files; or the one pair that lies there under other names, as an excerpt does."""
    is_excerpt = place.is_dir() and not any(find_file(place, file) for file in files)
    if place.is_file() or (is_excerpt and idx.find_images(place) is not None):
        return open_images(place, "idx")
    found = fetch_files(name, place, files)
    parts = [_idx_part("train", *found[:2]), _idx_part("test", *found[2:])]
    return pool(str(place), parts, found)


def _idx_part(name: str, images: Path, labels: Path) -> Part:
    pixels = as_channels_first(images, idx.read_images(images))
    return make_part(images, name, pixels, idx.read_labels(labels, rows=len(pixels)))


def _open_cifar(name: str, place: Path, files: Files) -> ImageSource:
    kind = cifar.FORMATS[name]
    found = find_place(place, kind.folder, kind.names) or fetch_files(name, place, files)[0]
    return pool(str(found), cifar.read_cifar(found, kind), files_of(found, kind.names))


def _open_stl10(name: str, place: Path, files: Files) -> ImageSource:
    found = find_place(place, stl10.FOLDER, stl10.NAMES) or fetch_files(name, place, files)[0]
    return pool(str(found), stl10.read_stl10(found), files_of(found, stl10.NAMES))


def _open_svhn(name: str, place: Path, files: Files) -> ImageSource:
    found = fetch_files(name, place, files)
    return pool(str(place), read_svhn(found), found)


def _open_medmnist(name: str, place: Path, files: Files) -> ImageSource:
    if place.is_file():
        return pool(str(place), read_medmnist(place), [place])
    found = fetch_files(name, place, files, siblings=NAMED[name].files)
    return pool(str(found[0]), read_medmnist(found[0]), found)


def _open_folder(name: str, place: Path, attribute: str | None) -> ImageSource:
    if not place.is_dir():
        raise BadInput(
            f"data set {name!r}: no folder {place}; unpack the pictures that "
            f"{NAMED[name].home} publishes, and put the folder here: {place}"
        )
    if NAMED[name].layout == "celeba":
        listing = read_celeba(place, attribute)
    else:
        listing = _FOLDERS[NAMED[name].layout](place)
    return replace(
        listing_source(listing), data_hash=lambda: names_hash(listing.paths, listing.root)
    )


_READERS: dict[str, Callable[[str, Path, Files], ImageSource]] = {
    "idx": _open_idx,
    "cifar": _open_cifar,
    "stl10": _open_stl10,
    "svhn": _open_svhn,
    "medmnist": _open_medmnist,
}
_FOLDERS: dict[str, Callable[[Path], Listing]] = {
    "dtd": read_dtd,
    "places365": read_places365,
    "tinyimagenet": read_tinyimagenet,
    "imagenet": read_imagenet,
}
