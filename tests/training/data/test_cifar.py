"""CIFAR: binary records, in a folder or inside the published archive; pickles are not read."""

import io
import tarfile
from pathlib import Path

import numpy as np
import pytest

from amiss_export.errors import BadInput
from amiss_training.data.cifar import FORMATS, read_cifar

RNG = np.random.default_rng(0)
IMAGES = RNG.integers(0, 256, (6, 3, 32, 32), dtype=np.uint8)
LABELS = (3, 8, 8, 0, 6, 9)


def cifar10_files() -> dict[str, bytes]:
    """A record in each file: the label byte, then red, green and blue, row by row (cifar.html)."""
    names = [*(f"data_batch_{i}.bin" for i in range(1, 6)), "test_batch.bin"]
    return {
        name: bytes([label]) + image.tobytes()
        for name, label, image in zip(names, LABELS, IMAGES, strict=True)
    }


def cifar100_files() -> dict[str, bytes]:
    """Two label bytes, coarse and fine, before each image."""
    return {
        "train.bin": b"".join(bytes([1, 40 + i]) + IMAGES[i].tobytes() for i in range(4)),
        "test.bin": b"".join(bytes([2, 90 + i]) + IMAGES[4 + i].tobytes() for i in range(2)),
    }


def write_folder(folder: Path, files: dict[str, bytes]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, contents in files.items():
        (folder / name).write_bytes(contents)
    return folder


def write_archive(path: Path, folder: str, files: dict[str, bytes], *, mode: str = "w:gz") -> Path:
    with tarfile.open(path, mode) as archive:  # type: ignore[call-overload]
        for name, contents in files.items():
            member = tarfile.TarInfo(f"{folder}/{name}")
            member.size = len(contents)
            archive.addfile(member, io.BytesIO(contents))
    return path


@pytest.mark.parametrize("form", ["folder", "archive"])
def test_cifar10_is_read(tmp_path: Path, form: str) -> None:
    """Five training batches and a test batch give their images bit for bit, in order."""
    place = (
        write_folder(tmp_path, cifar10_files())
        if form == "folder"
        else write_archive(tmp_path / "c.tar.gz", "cifar-10-batches-bin", cifar10_files())
    )
    train, test = read_cifar(place, FORMATS["cifar10"])
    np.testing.assert_array_equal(np.concatenate([train.images, test.images]), IMAGES)
    assert train.label.tolist() == ["3", "8", "8", "0", "6"]
    assert (test.label.tolist(), test.row_names()) == (["9"], ["test/0"])


def test_cifar100_counts_the_fine_label(tmp_path: Path) -> None:
    """Of the two label bytes the second, fine one is the label."""
    train, test = read_cifar(write_folder(tmp_path, cifar100_files()), FORMATS["cifar100"])
    assert train.label.tolist() == ["40", "41", "42", "43"]
    assert test.label.tolist() == ["90", "91"]
    np.testing.assert_array_equal(test.images, IMAGES[4:])


@pytest.mark.parametrize(
    ("contents", "message"),
    [
        (b"", "whole number of records of 3073 bytes, got 0"),
        (b"\x01" + IMAGES[0].tobytes()[:-1], "got 3072 bytes; the file is cut off"),
        (b"\x80\x02}q\x00" * 700, "got 3500 bytes; the file is cut off or of another format"),
        (b"\x0a" + IMAGES[0].tobytes(), "labels below 10, got 10"),
    ],
)
def test_malformed_batches_are_named(tmp_path: Path, contents: bytes, message: str) -> None:
    """A batch that is empty, cut off, a pickle or labelled beyond the classes is refused."""
    files = cifar10_files() | {"data_batch_2.bin": contents}
    with pytest.raises(BadInput, match=message) as refusal:
        read_cifar(write_folder(tmp_path, files), FORMATS["cifar10"])
    assert "data_batch_2.bin" in str(refusal.value)


def test_the_python_version_is_refused(tmp_path: Path) -> None:
    """An archive of the pickled version lacks the .bin files, and says so."""
    files = {"data_batch_1": b"\x80\x02}", "test_batch": b"\x80\x02}"}
    place = write_archive(tmp_path / "cifar-10-python.tar.gz", "cifar-10-batches-py", files)
    with pytest.raises(BadInput, match=r"expected the file\(s\) data_batch_1\.bin"):
        read_cifar(place, FORMATS["cifar10"])
