"""The registry: every set is complete, every checksum has the form of one."""

import re

import pytest

from amiss_training.data.named import NAMED

PROMISED = (
    *("mnist", "fashionmnist", "cifar10", "cifar100", "svhn", "stl10", "pathmnist", "chestmnist"),
    *("dermamnist", "octmnist", "pneumoniamnist", "retinamnist", "breastmnist", "bloodmnist"),
    *("tissuemnist", "organamnist", "organcmnist", "organsmnist", "dtd", "places365"),
    *("tinyimagenet", "imagenet", "celeba", "kdd99", "arrhythmia"),
)


def test_every_promised_set_is_there() -> None:
    """The names are those of the README's table and no others."""
    assert sorted(NAMED) == sorted(PROMISED)


@pytest.mark.parametrize("name", PROMISED)
def test_set_says_where_it_comes_from(name: str) -> None:
    """Each set has files with addresses and well-formed checksums, or a page to go to."""
    known = NAMED[name]
    assert bool(known.files) != bool(known.home)
    for file in known.files:
        assert file.url.startswith(("https://", "http://"))
        assert "/" not in file.name
        assert re.fullmatch(r"md5:[0-9a-f]{32}|sha256:[0-9a-f]{64}", file.checksum or "")


def test_no_checksum_stands_there_twice() -> None:
    """Two files with one checksum would be a slip of the pen."""
    checksums = [file.checksum for known in NAMED.values() for file in known.files]
    assert len(checksums) == len(set(checksums)) == 4 + 4 + 1 + 1 + 2 + 1 + 12 * 4 + 2


def test_only_the_two_tables_hold_no_images() -> None:
    """kdd99 and arrhythmia are tables, everything else images of 1 or 3 channels."""
    assert {n for n, known in NAMED.items() if not known.holds_images} == {"kdd99", "arrhythmia"}
    assert {known.channels for known in NAMED.values()} == {1, 3, None}
