"""Public data sets that are folders of pictures, in the layouts their archives unpack to.

A reader lists every picture with its class; own_test is True for the part that the publishers test
on, None where that part is not there. No picture is opened: a folder of a million is listed only.
"""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np

from amiss_export.errors import BadInput
from amiss_training.data.files import reading
from amiss_training.data.images import Listing, files_below

Entry = tuple[Path, str, bool]  # a picture, its class, whether it belongs to the official test


def read_dtd(folder: Path) -> Listing:
    """DTD (Cimpoi et al. 2014): images/<class>, the test being its first of ten, test1.txt."""
    root = find_root(folder, "dtd", needs=("images",))
    split = root / "labels" / "test1.txt"
    tested = set(read_lines(split)) if split.is_file() else set()
    entries = [
        (path, label, f"{label}/{path.name}" in tested)
        for path, label, _ in class_folders(root / "images", is_test=False)
    ]
    return listing(root, entries)


def read_imagenet(folder: Path) -> Listing:
    """ImageNet (Russakovsky et al. 2015): train/<wnid> and val/<wnid>, or one; the test is val."""
    root = find_root(folder, "ILSVRC/Data/CLS-LOC", needs=("train", "val"), at_least=1)
    return listing(root, train_and_val(root))


def read_tinyimagenet(folder: Path) -> Listing:
    """Tiny-ImageNet: train/<wnid>/images, and as the test val/images with val_annotations.txt.

    The pictures in its folder test have no published classes and are passed over.
    """
    root = find_root(folder, "tiny-imagenet-200", needs=("train", "val"))
    annotations = root / "val" / "val_annotations.txt"
    wnid_of = pairs(annotations)
    val = [
        (path, known(wnid_of, path.name, annotations), True)
        for path in files_below(root / "val" / "images")
    ]
    return listing(root, [*class_folders(root / "train", is_test=False), *val])


def train_and_val(root: Path) -> list[Entry]:
    """The pictures of train/<class> and of val/<class>, the latter as test."""
    parts = [("train", False), ("val", True)]
    return [
        entry
        for name, is_test in parts
        if (root / name).is_dir()
        for entry in class_folders(root / name, is_test=is_test)
    ]


def class_folders(folder: Path, *, is_test: bool) -> list[Entry]:
    """The pictures in each sub-folder, or deeper in it, under the sub-folder's name."""
    classes = sorted(f for f in folder.iterdir() if f.is_dir())
    entries = [(path, f.name, is_test) for f in classes for path in files_below(f)]
    if not entries:
        raise BadInput(f"{folder}: expected folders of pictures, one for each class")
    return entries


def find_root(
    folder: Path, unpacked: str, *, needs: Sequence[str], at_least: int | None = None
) -> Path:
    """The folder, or the one that the archive unpacks to in it, that holds what is needed.

    at_least: how many of the needed names are enough; all without.
    """
    enough = len(needs) if at_least is None else at_least
    for root in (folder, folder / unpacked):
        if sum((root / name).exists() for name in needs) >= enough:
            return root
    joined = (" and " if enough == len(needs) else " or ").join(needs)
    raise BadInput(f"{folder}: expected {joined} there, or in {unpacked} below it")


def listing(root: Path, entries: Sequence[Entry]) -> Listing:
    """The entries as a listing; own_test None when none of them or all are the test."""
    own_test = np.array([is_test for _, _, is_test in entries])
    is_divided = own_test.any() and not own_test.all()
    return Listing(
        root,
        tuple(path for path, _, _ in entries),
        np.array([label for _, label, _ in entries]),
        own_test if is_divided else None,
    )


def pairs(path: Path) -> dict[str, str]:
    """Second word by first word of each line of a text file; further words are passed over."""
    found = {}
    for number, line in enumerate(read_lines(path), start=1):
        words = line.split()
        if len(words) < 2:
            raise BadInput(f"{path}: line {number}: expected two words or more, got {line!r:.80}")
        found[words[0]] = words[1]
    return found


def read_lines(path: Path) -> list[str]:
    """The lines of a text file that are not empty."""
    with reading(path):
        return [line for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]


def known(values: Mapping[str, str], name: str, where: Path) -> str:
    """The value that the file `where` has for the name; BadInput naming both when there is none."""
    if name not in values:
        raise BadInput(f"{where}: expected a line for {name}, got none")
    return values[name]


def names_hash(paths: Iterable[Path], root: Path) -> str:
    """sha256 of the files' names and sizes, so that a million pictures need not be read."""
    digest = hashlib.sha256()
    for path in paths:
        digest.update(f"{path.relative_to(root).as_posix()}\0{path.stat().st_size}\0".encode())
    return digest.hexdigest()
