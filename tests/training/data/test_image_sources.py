"""Image sources: folders, IDX and NPZ look alike; scoring reads what training read."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from amiss_export.bundle import ImageInput
from amiss_export.errors import BadInput
from amiss_training.data.files import sha256_of
from amiss_training.data.image_sources import iter_images, open_images

RNG = np.random.default_rng(0)
PIXELS = RNG.integers(0, 256, (5, 6, 4), dtype=np.uint8)
SPEC = ImageInput(channels=1, height=6, width=4)


def write_folder(folder: Path, names: list[str]) -> None:
    for name, pixels in zip(names, PIXELS, strict=False):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(folder / name)


def write_idx(folder: Path) -> Path:
    path = folder / "a-images-idx3-ubyte"
    sizes = b"".join(size.to_bytes(4, "big") for size in PIXELS.shape)
    path.write_bytes(b"\x00\x00\x08\x03" + sizes + PIXELS.tobytes())
    labels = b"\x00\x00\x08\x01" + (5).to_bytes(4, "big") + bytes([7, 7, 1, 1, 1])
    (folder / "a-labels-idx1-ubyte").write_bytes(labels)
    return path


def test_every_source_gives_the_same_pixels(tmp_path: Path) -> None:
    """The same images as PNG files, IDX and NPZ are the same rows."""
    (tmp_path / "i").mkdir()
    write_folder(tmp_path / "f", [f"{i}.png" for i in range(5)])
    np.savez(tmp_path / "n.npz", X=PIXELS)
    write_idx(tmp_path / "i")
    rows = np.array([4, 0])
    for loader, path in (("image-folder", "f"), ("npz", "n.npz"), ("idx", "i")):
        source = open_images(tmp_path / path, loader)
        assert source.infer(None, None) == SPEC
        np.testing.assert_array_equal(source.pixels(rows, SPEC), PIXELS[rows][:, None])


def test_idx_labels_and_hash_cover_both_files(tmp_path: Path) -> None:
    """Labels come from the file beside, and the data hash covers images and labels."""
    path = write_idx(tmp_path)
    source = open_images(path, "idx")
    assert source.label is not None
    assert source.label.tolist() == ["7", "7", "1", "1", "1"]
    assert source.data_hash() == sha256_of([path, tmp_path / "a-labels-idx1-ubyte"])


def test_scoring_streams_folders_with_their_names(tmp_path: Path) -> None:
    """Images come in chunks with their paths below the folder, sub-folders included."""
    write_folder(tmp_path, ["a/0.png", "a/1.png", "b/0.png"])
    chunks = list(iter_images(tmp_path, SPEC, 2))
    assert [names for names, _ in chunks] == [["a/0.png", "a/1.png"], ["b/0.png"]]
    np.testing.assert_array_equal(np.concatenate([x for _, x in chunks]), PIXELS[:3, None])


@pytest.mark.parametrize("kind", ["idx", "idx folder", "npz"])
def test_scoring_streams_arrays_with_row_numbers(tmp_path: Path, kind: str) -> None:
    """IDX and NPZ images are named by their row, counted across chunks."""
    path = write_idx(tmp_path)
    if kind == "npz":
        path = tmp_path / "n.npz"
        np.savez(path, images=PIXELS)
    chunks = list(iter_images(tmp_path if kind == "idx folder" else path, SPEC, 3))
    assert [names for names, _ in chunks] == [["0", "1", "2"], ["3", "4"]]
    np.testing.assert_array_equal(np.concatenate([x for _, x in chunks]), PIXELS[:, None])


def test_scoring_one_image(tmp_path: Path) -> None:
    """One image file is one row under its own name."""
    write_folder(tmp_path, ["0.png"])
    ((names, x),) = iter_images(tmp_path / "0.png", SPEC, 8)
    assert names == ["0.png"]
    np.testing.assert_array_equal(x, PIXELS[:1, None])


def test_scoring_mvtec_reads_the_test_images(tmp_path: Path) -> None:
    """Of MVTec's layout neither masks nor training images are scored."""
    write_folder(tmp_path, ["train/good/0.png", "test/crack/0.png", "ground_truth/crack/0.png"])
    assert [names for names, _ in iter_images(tmp_path, SPEC, 8)] == [["test/crack/0.png"]]


def test_what_holds_no_images_is_refused(tmp_path: Path) -> None:
    """A table, an empty folder and a folder without IDX files are refused by name."""
    (tmp_path / "t.csv").write_text("a\n1\n")
    (tmp_path / "empty").mkdir()
    with pytest.raises(BadInput, match=r"t\.csv: expected images"):
        list(iter_images(tmp_path / "t.csv", SPEC, 8))
    with pytest.raises(BadInput, match="empty: no images"):
        list(iter_images(tmp_path / "empty", SPEC, 8))
    with pytest.raises(BadInput, match="empty: no IDX images"):
        open_images(tmp_path / "empty", "idx")
