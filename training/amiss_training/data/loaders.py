"""Which loader reads a path: asked for by name, or told by what is there."""

from pathlib import Path

from amiss_export.bundle import TableInput
from amiss_export.errors import BadInput
from amiss_training.data import idx, kdd99, starters
from amiss_training.data.arrays import read_arrays
from amiss_training.data.download import fetch_files, folder_of
from amiss_training.data.files import check_exists, kind_of
from amiss_training.data.image_sources import ImageSource, open_images
from amiss_training.data.images import is_mvtec
from amiss_training.data.named import NAMED
from amiss_training.data.named_images import open_named_images
from amiss_training.data.options import Loader
from amiss_training.data.sources import TableSource, table_source
from amiss_training.data.tables import open_table

STARTERS = ("digits", "breast-cancer")
IMAGE_LOADERS = (
    *("idx", "npz", "image-folder", "mvtec", "digits"),
    *(name for name, known in NAMED.items() if known.holds_images),
)


def locate(
    path: Path | None, loader: Loader, *, data_set: str | None = None
) -> tuple[Path | None, str]:
    """The path, and what reads it: a resolved loader, or the name of a named set of images.

    A named table is its own file, below the path or at it, downloaded when it is absent.
    """
    if data_set is None:
        return path, resolve_loader(path, loader)
    if NAMED[data_set].holds_images:
        return path, data_set
    place = folder_of(data_set, path)
    file = place if place.is_file() else fetch_files(data_set, place, NAMED[data_set].files)[0]
    return file, resolve_loader(file, "kdd99" if data_set == "kdd99" else "table")


def resolve_loader(path: Path | None, loader: Loader) -> Loader:
    """The loader that reads the path: never auto or mat; npz only when it holds images."""
    if loader in STARTERS:
        if path is not None:
            raise BadInput(
                f"loader {loader!r} brings its own data, got the path {path}; leave one out"
            )
        return loader
    if path is None:
        raise BadInput(
            "expected a path to data (a table file, an IDX or NPZ file, or a folder of images), "
            "got none"
        )
    if check_exists(path).is_dir():
        return _resolve_folder(path, loader)
    if loader in ("image-folder", "mvtec"):
        raise BadInput(f"{path}: expected a folder of images, got a file")
    return _resolve_file(path, loader)


def open_image_source(
    path: Path | None,
    loader: str,
    *,
    side: int | None = None,
    attribute: str | None = None,
    official_split: bool = False,
) -> ImageSource:
    """The images that `locate` found; the keywords are for sets by name, see open_named_images."""
    if loader not in NAMED:
        return open_images(path, loader)
    return open_named_images(
        loader, path, side=side, attribute=attribute, official_split=official_split
    )


def open_table_source(
    path: Path | None, loader: str, known: TableInput | None = None
) -> TableSource:
    """The table that a resolved loader finds at the path."""
    if path is None:
        table = starters.breast_cancer()
        return table_source(
            loader,
            table,
            label_column=starters.BREAST_CANCER_LABEL,
            data_hash=lambda: starters.hash_arrays(*(c.to_numpy() for c in table.columns)),
        )
    source = open_table(path, known)
    if loader == "kdd99" and not source.is_kdd99:
        raise BadInput(
            f"{path}: expected KDD99 lines of {len(kdd99.COLUMNS)} fields, the last ending in a "
            f"dot, got {len(source.columns)} fields"
        )
    return source


def _resolve_folder(path: Path, loader: Loader) -> Loader:
    if loader not in ("auto", "idx", "image-folder", "mvtec"):
        raise BadInput(f"{path}: loader {loader!r} reads a file, got a folder")
    if loader != "auto":
        return loader
    if is_mvtec(path):
        return "mvtec"
    return "image-folder" if idx.find_images(path) is None else "idx"


def _resolve_file(path: Path, loader: Loader) -> Loader:
    kind = kind_of(path)
    if kind == "image":
        raise BadInput(f"{path}: this is one image; give the folder it lies in")
    if loader in ("idx", "npz", "mat") and kind != loader:
        raise BadInput(f"{path}: expected an {loader} file, got a {kind} file")
    if kind == "idx":
        return "idx"
    if kind == "npz" and loader != "table" and read_arrays(path)[0].ndim > 2:
        return "npz"
    if loader == "kdd99" or (loader == "auto" and kind == "text" and open_table(path).is_kdd99):
        return "kdd99"
    return "table"
