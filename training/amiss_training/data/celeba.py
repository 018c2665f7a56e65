"""CelebA (Liu et al. 2015): aligned faces, and a list of 40 attributes, 1 or -1 for each face."""

from dataclasses import replace
from pathlib import Path

from amiss_export.errors import BadInput
from amiss_training.data.folders import Entry, find_root, known, listing, pairs, read_lines
from amiss_training.data.images import Listing, files_below

WITH, WITHOUT = "with", "without"
_ATTRIBUTES, _PARTITION = "list_attr_celeba.txt", "list_eval_partition.txt"
_TEST = "2"  # in list_eval_partition.txt; 0 is train, 1 validation


def read_celeba(folder: Path, attribute: str | None) -> Listing:
    """The faces of img_align_celeba, labelled "with" or "without" the attribute; None = no labels.

    The test is what list_eval_partition.txt says, where that file is there.
    """
    root = find_root(folder, "celeba", needs=("img_align_celeba",))
    faces = files_below(root / "img_align_celeba")
    if not faces:
        raise BadInput(f"{root / 'img_align_celeba'}: expected pictures, got none")
    partition = pairs(root / _PARTITION) if (root / _PARTITION).is_file() else {}
    labels = {} if attribute is None else _labels(root / _ATTRIBUTES, attribute)
    entries: list[Entry] = [
        (
            face,
            known(labels, face.name, root / _ATTRIBUTES) if labels else "",
            partition.get(face.name) == _TEST,
        )
        for face in faces
    ]
    found = listing(root, entries)
    return found if labels else replace(found, label=None)


def _labels(path: Path, attribute: str) -> dict[str, str]:
    """With or without by picture: how many, the attributes' names, then a line for each face."""
    lines = read_lines(path)
    if len(lines) < 3 or not lines[0].strip().isdigit():
        raise BadInput(f"{path}: expected the number of faces, the attributes, then the faces")
    names = lines[1].split()
    if attribute not in names:
        raise BadInput(f"{path}: no attribute {attribute!r}; there are: {', '.join(names)}")
    column = 1 + names.index(attribute)
    labels = {}
    for number, line in enumerate(lines[2:], start=3):
        words = line.split()
        if len(words) != 1 + len(names) or words[column] not in ("1", "-1"):
            raise BadInput(
                f"{path}: line {number}: expected a picture and {len(names)} times 1 or -1, "
                f"got {line!r:.80}"
            )
        labels[words[0]] = WITH if words[column] == "1" else WITHOUT
    return labels
