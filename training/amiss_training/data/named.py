"""Public data sets that have a name: which files, where they come from, what is normal in them.

Checksums are those that the publisher, or a library that has long checked them, states: CIFAR's
page, Fashion-MNIST's README, medmnist's info.py, scikit-learn's kddcup99, torchvision for the rest.
"""

from dataclasses import dataclass
from typing import Literal

Layout = Literal[
    "idx",
    "cifar",
    "svhn",
    "stl10",
    "medmnist",
    "dtd",
    "places365",
    "tinyimagenet",
    "imagenet",
    "celeba",
    "table",
]
MEDMNIST_SIDES = (28, 64, 128, 224)
_MNIST = "https://ossci-datasets.s3.amazonaws.com/mnist/"
_FASHION = "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/"
_SVHN = "http://ufldl.stanford.edu/housenumbers/"
_MEDMNIST = "https://zenodo.org/records/10519652/files/"
_PYOD = "https://raw.githubusercontent.com/yzhao062/pyod/34f7996effac700a5166d882d5e94c6e6078fae3/notebooks/data/"


@dataclass(frozen=True)
class RemoteFile:
    """A file to download: its name here, its address, and `md5:...` or `sha256:...` of its bytes.

    Without a known checksum it is never downloaded.
    """

    name: str
    url: str
    checksum: str | None


@dataclass(frozen=True)
class NamedSet:
    """A public data set.

    layout: which parser reads it. channels: 1 grey, 3 colour, None for a table. normal_class: what
    is normal unless asked otherwise. files: what is downloaded. home: where a person gets the
    folders of pictures of a set without such files.
    """

    layout: Layout
    channels: Literal[1, 3] | None
    normal_class: str = "0"
    files: tuple[RemoteFile, ...] = ()
    home: str = ""

    @property
    def holds_images(self) -> bool:
        """Whether its rows are images; otherwise it is a table."""
        return self.channels is not None


def _idx(base: str, *md5: str) -> NamedSet:
    names = [f"{part}-{kind}-ubyte.gz" for part in ("train", "t10k") for kind in _IDX_KINDS]
    files = [RemoteFile(n, base + n, f"md5:{m}") for n, m in zip(names, md5, strict=True)]
    return NamedSet("idx", 1, files=tuple(files))


def _one_file(
    layout: Layout, channels: Literal[3] | None, name: str, *, base: str, checksum: str
) -> NamedSet:
    return NamedSet(layout, channels, files=(RemoteFile(name, base + name, checksum),))


def _medmnist(
    name: str, *, channels: Literal[1, 3], md5: tuple[str, ...], normal: str = "0"
) -> NamedSet:
    stored = [f"{name}.npz", *(f"{name}_{side}.npz" for side in MEDMNIST_SIDES[1:])]
    files = [
        RemoteFile(file, f"{_MEDMNIST}{file}?download=1", f"md5:{checksum}")
        for file, checksum in zip(stored, md5, strict=True)
    ]
    return NamedSet("medmnist", channels, normal, tuple(files))


_IDX_KINDS = ("images-idx3", "labels-idx1")
NAMED: dict[str, NamedSet] = {
    "mnist": _idx(
        _MNIST,
        "f68b3c2dcbeaaa9fbdd348bbdeb94873",
        "d53e105ee54ea40749a09fcbcd1e9432",
        "9fb629c4189551a2d022fa330f9573f3",
        "ec29112dd5afa0611ce80d1b7f02629c",
    ),
    "fashionmnist": _idx(
        _FASHION,
        "8d4fb7e6c68d591d4c3dfef9ec88bf0d",
        "25c81989df183df01b3e8a0aad5dffbe",
        "bef4ecab320f06d8554ea6380940ec79",
        "bb300cfdad3c16e7a12a480ee83cd310",
    ),
    "cifar10": _one_file(
        "cifar",
        3,
        "cifar-10-binary.tar.gz",
        base="https://www.cs.toronto.edu/~kriz/",
        checksum="md5:c32a1d4ab5d03f1284b67883e8d87530",
    ),
    "cifar100": _one_file(
        "cifar",
        3,
        "cifar-100-binary.tar.gz",
        base="https://www.cs.toronto.edu/~kriz/",
        checksum="md5:03b5dce01913d631647c71ecec9e9cb8",
    ),
    "svhn": NamedSet(
        "svhn",
        3,
        files=(
            RemoteFile(
                "train_32x32.mat",
                f"{_SVHN}train_32x32.mat",
                "md5:e26dedcc434d2e4c54c9b2d4a06d8373",
            ),
            RemoteFile(
                "test_32x32.mat",
                f"{_SVHN}test_32x32.mat",
                "md5:eb5a983be6a315427106f1b164d9cef3",
            ),
        ),
    ),
    "stl10": _one_file(
        "stl10",
        3,
        "stl10_binary.tar.gz",
        base="http://ai.stanford.edu/~acoates/stl10/",
        checksum="md5:91f7769df0f17e558f3565bffb0c7dfb",
    ),
    "pathmnist": _medmnist(
        "pathmnist",
        channels=3,
        normal="6",
        md5=(
            "a8b06965200029087d5bd730944a56c1",
            "55aa9c1e0525abe5a6b9d8343a507616",
            "ac42d08fb904d92c244187169d1fd1d9",
            "2c51a510bcdc9cf8ddb2af93af1eadec",
        ),
    ),
    "chestmnist": _medmnist(
        "chestmnist",
        channels=1,
        normal="no finding",
        md5=(
            "02c8a6516a18b556561a56cbdd36c4a8",
            "9de6cd0b934ebb5b7426cfba5efbae16",
            "db107e5590b27930b62dbaf558aebee3",
            "45bd33e6f06c3e8cdb481c74a89152aa",
        ),
    ),
    "dermamnist": _medmnist(
        "dermamnist",
        channels=3,
        normal="5",
        md5=(
            "0744692d530f8e62ec473284d019b0c7",
            "b70a2f5635c6199aeaa28c31d7202e1f",
            "2defd784463fa5243564e855ed717de1",
            "8974907d8e169bef5f5b96bc506ae45d",
        ),
    ),
    "octmnist": _medmnist(
        "octmnist",
        channels=1,
        normal="3",
        md5=(
            "c68d92d5b585d8d81f7112f81e2d0842",
            "e229e9440236b774d9f0dfef9d07bdaf",
            "0a97e76651ace45c5d943ee3f65b63ae",
            "abc493b6d529d5de7569faaef2773ba3",
        ),
    ),
    "pneumoniamnist": _medmnist(
        "pneumoniamnist",
        channels=1,
        md5=(
            "28209eda62fecd6e6a2d98b1501bb15f",
            "8f4eceb4ccffa70c672198ea285246c6",
            "05b46931834c231683c68f40c47b2971",
            "d6a3c71de1b945ea11211b03746c1fe1",
        ),
    ),
    "retinamnist": _medmnist(
        "retinamnist",
        channels=3,
        md5=(
            "bd4c0672f1bba3e3a89f0e4e876791e4",
            "afda852cc34dcda56f86ad2b2457dbcc",
            "e48e916a24454daf90583d4e6efb1a18",
            "eae7e3b6f3fcbda4ae613ebdcbe35348",
        ),
    ),
    "breastmnist": _medmnist(
        "breastmnist",
        channels=1,
        normal="1",
        md5=(
            "750601b1f35ba3300ea97c75c52ff8f6",
            "742edef2a1fd1524b2efff4bd7ba9364",
            "363e4b3f8d712e9b5de15470a2aaadf1",
            "b56378a6eefa9fed602bb16d192d4c8b",
        ),
    ),
    "bloodmnist": _medmnist(
        "bloodmnist",
        channels=3,
        md5=(
            "7053d0359d879ad8a5505303e11de1dc",
            "2b94928a2ae4916078ca51e05b6b800b",
            "adace1e0ed228fccda1f39692059dd4c",
            "b718ff6835fcbdb22ba9eacccd7b2601",
        ),
    ),
    "tissuemnist": _medmnist(
        "tissuemnist",
        channels=1,
        md5=(
            "ebe78ee8b05294063de985d821c1c34b",
            "123ece2eba09d0aa5d698fda57103344",
            "61b955355d7425a89687b06cca3ce0c2",
            "b077128c4a949f0a4eb01517f9037b9c",
        ),
    ),
    "organamnist": _medmnist(
        "organamnist",
        channels=1,
        md5=(
            "68e3f8846a6bd62f0c9bf841c0d9eacc",
            "2dcccc29b88e6da5a01161ef20cda288",
            "eeae80d0a227a8d099027e1b3cfd3b60",
            "50747347e05c87dd3aaf92c49f9f3170",
        ),
    ),
    "organcmnist": _medmnist(
        "organcmnist",
        channels=1,
        md5=(
            "b9ceb9546e10131b32923c5bbeaea2b1",
            "3ce34a8724ea6f548e6db4744d03b6a9",
            "773c1f009daa3fe5d9a2a201b2a7ed94",
            "050f5e875dc056f6768abf94ec9995d1",
        ),
    ),
    "organsmnist": _medmnist(
        "organsmnist",
        channels=1,
        md5=(
            "9ab87b696fb54e2a387ebe992d6ed5f1",
            "53a6d115339d874c25e309a994ff46d3",
            "ded0c5fa01a95dc4978b956f613e9b8e",
            "b354719e553fbbb2513d5533f52a4cb1",
        ),
    ),
    "dtd": NamedSet("dtd", 3, "banded", home="https://www.robots.ox.ac.uk/~vgg/data/dtd/"),
    "places365": NamedSet("places365", 3, "airfield", home="http://places2.csail.mit.edu/"),
    "tinyimagenet": NamedSet(
        "tinyimagenet", 3, "n01443537", home="http://cs231n.stanford.edu/tiny-imagenet-200.zip"
    ),
    "imagenet": NamedSet("imagenet", 3, "n01440764", home="https://www.image-net.org/download"),
    "celeba": NamedSet(
        "celeba", 3, "without", home="https://mmlab.ie.cuhk.edu.hk/projects/CelebA.html"
    ),
    "kdd99": NamedSet(
        "table",
        None,
        "normal",
        (
            RemoteFile(
                "kddcup.data_10_percent.gz",
                "https://ndownloader.figshare.com/files/5976042",
                "sha256:8045aca0d84e70e622d1148d7df782496f6333bf6eb979a1b0837c42a9fd9561",
            ),
        ),
    ),
    "arrhythmia": _one_file(
        "table",
        None,
        "arrhythmia.mat",
        base=_PYOD,
        checksum="sha256:e4d47e499591ae31e5d7f0cd983367092353eac240f48e14c9b36457edb3460d",
    ),
}
