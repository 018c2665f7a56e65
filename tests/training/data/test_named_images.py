"""Images by name: every format through one door, offline, at the size and colour asked for."""

import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy.io import savemat

from amiss_export.errors import BadInput
from amiss_training.data import DataOptions, prepare
from amiss_training.data.named_images import open_named_images

RNG = np.random.default_rng(0)


def idx_bytes(array: np.ndarray) -> bytes:
    return (
        b"\x00\x00\x08"
        + bytes([array.ndim])
        + struct.pack(f">{array.ndim}I", *array.shape)
        + array.tobytes()
    )


def write_mnist(folder: Path, *, rows: int = 3) -> Path:
    """The four files of MNIST, not gzipped, with `rows` images of each part."""
    folder.mkdir(parents=True, exist_ok=True)
    for i, part in enumerate(("train", "t10k")):
        images = RNG.integers(0, 256, (rows, 28, 28), dtype=np.uint8)
        (folder / f"{part}-images-idx3-ubyte").write_bytes(idx_bytes(images))
        labels = ((np.arange(rows) + i) % 10).astype(np.uint8)
        (folder / f"{part}-labels-idx1-ubyte").write_bytes(idx_bytes(labels))
    return folder


def write_cifar10(folder: Path) -> Path:
    folder.mkdir(parents=True)
    for name in (*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"):
        (folder / f"{name}.bin").write_bytes(b"\x01" + RNG.bytes(3072))
    return folder


def write_cifar100(folder: Path) -> Path:
    folder.mkdir(parents=True)
    for name in ("train", "test"):
        (folder / f"{name}.bin").write_bytes(b"\x01\x02" + RNG.bytes(3072))
    return folder


def write_svhn(folder: Path) -> Path:
    folder.mkdir(parents=True)
    for name in ("train", "test"):
        x = RNG.integers(0, 256, (32, 32, 3, 2), dtype=np.uint8)
        savemat(folder / f"{name}_32x32.mat", {"X": x, "y": np.array([[1], [10]], np.uint8)})
    return folder


def write_stl10(folder: Path) -> Path:
    folder.mkdir(parents=True)
    for name in ("train", "test"):
        (folder / f"{name}_X.bin").write_bytes(RNG.bytes(3 * 96 * 96))
        (folder / f"{name}_y.bin").write_bytes(b"\x02")
    return folder


def write_bloodmnist(folder: Path) -> Path:
    folder.mkdir(parents=True)
    arrays = {}
    for part in ("train", "val", "test"):
        arrays[f"{part}_images"] = RNG.integers(0, 256, (1, 28, 28, 3), dtype=np.uint8)
        arrays[f"{part}_labels"] = np.array([[4]], np.uint8)
    np.savez(folder / "bloodmnist.npz", **arrays)
    return folder


def write_imagenet(folder: Path, *, rows: int = 1) -> Path:
    for part in ("train", "val"):
        (folder / part / "n01").mkdir(parents=True)
        for i in range(rows):
            pixels = RNG.integers(0, 256, (40, 50), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / part / "n01" / f"{i}.JPEG")
    return folder


@pytest.mark.parametrize(
    ("name", "write", "rows", "native"),
    [
        ("mnist", write_mnist, (3, 3), (1, 28, 28)),
        ("fashionmnist", write_mnist, (3, 3), (1, 28, 28)),
        ("cifar10", write_cifar10, (5, 1), (3, 32, 32)),
        ("cifar100", write_cifar100, (1, 1), (3, 32, 32)),
        ("svhn", write_svhn, (2, 2), (3, 32, 32)),
        ("stl10", write_stl10, (1, 1), (3, 96, 96)),
        ("bloodmnist", write_bloodmnist, (2, 1), (3, 28, 28)),
        ("imagenet", write_imagenet, (1, 1), (3, 40, 50)),
    ],
)
def test_every_format_opens_at_the_size_asked_for(
    tmp_path: Path,
    name: str,
    write: Callable[[Path], Path],
    rows: tuple[int, int],
    native: tuple[int, int, int],
) -> None:
    """Each set has its own size, its registry's colours, and those asked for when asked."""
    folder = write(tmp_path / "x")
    source = open_named_images(name, folder, side=32, official_split=True)
    assert source.own_test is not None
    assert source.own_test.tolist() == [False] * rows[0] + [True] * rows[1]
    own = source.infer(None, None)
    assert (own.channels, own.height, own.width) == native
    for channels in (1, 3):
        spec = source.infer(16, channels)
        assert source.pixels(np.array([0]), spec).shape == (1, channels, 16, 16)
    assert open_named_images(name, folder).own_test is None


def test_set_in_the_environments_folder_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a path the files below $AMISS_DATA/NAME are read."""
    write_mnist(tmp_path / "mnist")
    monkeypatch.setenv("AMISS_DATA", str(tmp_path))
    assert len(open_named_images("mnist").names) == 6


def test_excerpt_of_a_set_is_read_as_it_is(tmp_path: Path) -> None:
    """One pair of IDX files under other names stands for MNIST, as a folder and as a file."""
    write_mnist(tmp_path)
    for path in sorted(tmp_path.glob("train-*")):
        path.rename(path.with_name(path.name.replace("train", "excerpt")))
    for path in tmp_path.glob("t10k-*"):
        path.unlink()
    for place in (tmp_path, tmp_path / "excerpt-images-idx3-ubyte"):
        source = open_named_images("mnist", place)
        assert source.label is not None
        assert source.label.tolist() == ["0", "1", "2"]
    with pytest.raises(BadInput, match="official_split was asked for, but no test part is there"):
        open_named_images("mnist", tmp_path, official_split=True)


def test_absent_pictures_are_asked_for(tmp_path: Path) -> None:
    """A set that is folders of pictures names its page and the folder to put them in."""
    with pytest.raises(BadInput, match=r"robots\.ox\.ac\.uk.* put the folder here: .*dtd"):
        open_named_images("dtd", tmp_path / "dtd")


def test_official_test_is_never_trained_on(tmp_path: Path) -> None:
    """With official_split the test is the publishers' whole test and anomalies, else a division."""
    folder = write_mnist(tmp_path, rows=80)
    options = {"data_set": "mnist", "anomaly_class": "1"}
    kept = prepare(folder, DataOptions(**options, official_split=True), seed=0)
    seen = {kept.names[i].split("/")[0] for _, rows in kept.roles.items()[:3] for i in rows}
    assert seen == {"train"}
    pooled = prepare(folder, DataOptions(**options), seed=0)
    seen = {pooled.names[i].split("/")[0] for i in pooled.roles.train}
    assert seen == {"train", "test"}


def test_large_folder_is_not_read_whole(tmp_path: Path) -> None:
    """With max_rows only the drawn pictures are opened: broken ones among the others do no harm."""
    write_imagenet(tmp_path, rows=6)
    options = DataOptions(data_set="imagenet", normal_class="n01", image_size=8, max_rows=6)
    drawn = prepare(tmp_path, options, seed=0).names
    for path in tmp_path.rglob("*.JPEG"):
        name = path.relative_to(tmp_path).as_posix()
        if name not in drawn and name != "train/n01/0.JPEG":  # the first one tells the size
            path.write_bytes(b"broken")
    assert prepare(tmp_path, options, seed=0).names == drawn


@pytest.mark.shared
def test_fashion_mnist_is_complete(shared_data: Path) -> None:
    """The published files give 60,000 and 10,000 images, a tenth of each class in both parts."""
    source = open_named_images("fashionmnist", shared_data / "fashion-mnist", official_split=True)
    assert source.own_test is not None
    assert source.label is not None
    assert np.unique(source.label[~source.own_test], return_counts=True)[1].tolist() == [6000] * 10
    assert np.unique(source.label[source.own_test], return_counts=True)[1].tolist() == [1000] * 10
