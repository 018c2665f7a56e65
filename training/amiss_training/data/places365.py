"""Places365 (Zhou et al. 2018), small pictures of 256 px, in either of its two layouts."""

from pathlib import Path

from amiss_training.data.folders import Entry, find_root, known, listing, pairs, train_and_val
from amiss_training.data.images import Listing, files_below

_CATEGORIES, _VAL = "categories_places365.txt", "places365_val.txt"
_TRAIN_FOLDERS = ("data_256_standard", "data_256")


def read_places365(folder: Path) -> Listing:
    """The easy format, train/<class> and val/<class>, or the one with lists; the test is val.

    With lists: data_256_standard/<letter>/<class> or data_256/..., val_256 with
    places365_val.txt (picture, number) and categories_places365.txt (/letter/class, number).
    Either part alone will do.
    """
    names = ("train", "val", *_TRAIN_FOLDERS, "val_256")
    root = find_root(folder, "places365_standard", needs=names, at_least=1)
    if (root / "train").is_dir() or (root / "val").is_dir():
        return listing(root, train_and_val(root))
    return listing(root, [*_train(root), *_val(root)])


def _train(root: Path) -> list[Entry]:
    """A class may have two words in two folders: a/apartment_building/outdoor/00000001.jpg."""
    folder = next((root / name for name in _TRAIN_FOLDERS if (root / name).is_dir()), None)
    if folder is None:
        return []
    return [
        (path, "/".join(path.relative_to(folder).parts[1:-1]), False)
        for path in files_below(folder)
    ]


def _val(root: Path) -> list[Entry]:
    if not (root / "val_256").is_dir():
        return []
    class_of = {n: category.split("/", 2)[-1] for category, n in pairs(root / _CATEGORIES).items()}
    number_of = pairs(root / _VAL)
    return [
        (path, known(class_of, known(number_of, path.name, root / _VAL), root / _CATEGORIES), True)
        for path in files_below(root / "val_256")
    ]
