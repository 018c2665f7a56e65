"""In against out: two sets of images become one, whatever their sizes and colours."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from amiss_export.bundle import ImageInput
from amiss_export.errors import BadInput
from amiss_training.data import DataOptions, prepare
from amiss_training.data.splits import row_hashes

RNG = np.random.default_rng(6)


def write_images(path: Path, *shape: int) -> Path:
    """An NPZ of random images with labels, the last two axes swapped in for colours."""
    x = RNG.integers(0, 256, shape, dtype=np.uint8)
    np.savez(path, X=x, y=np.arange(len(x)) % 3)
    return path


@pytest.mark.parametrize(
    ("inside", "outside", "channels"),
    [
        ((40, 8, 8), (30, 12, 12, 3), 1),
        ((40, 8, 8, 3), (30, 5, 9), 3),
        ((40, 8, 8), (30, 8, 8), 1),
    ],
)
def test_grey_and_colour_meet(
    tmp_path: Path, inside: tuple[int, ...], outside: tuple[int, ...], channels: int
) -> None:
    """The out-set takes the in-set's size and colours, grey to RGB and back (defect D18)."""
    out = write_images(tmp_path / "out.npz", *outside)
    options = DataOptions(out_data=str(out))
    found = prepare(write_images(tmp_path / "in.npz", *inside), options, seed=0)
    assert found.input == ImageInput(channels=channels, height=8, width=8)
    assert found.x.shape == (70, channels, 8, 8)
    assert found.is_anomaly.tolist() == [False] * 40 + [True] * 30
    assert found.x[40:].std() > 10


def test_every_in_row_is_normal_and_every_out_row_test(tmp_path: Path) -> None:
    """Labels that the sets bring decide nothing; no out-image is trained on."""
    out = write_images(tmp_path / "out.npz", 30, 8, 8)
    found = prepare(
        write_images(tmp_path / "in.npz", 60, 8, 8), DataOptions(out_data=str(out)), seed=0
    )
    assert set(found.roles.test) >= set(range(60, 90))
    assert found.classes.anomaly == "out"
    assert found.label[0] == "in"
    assert found.names[60] == "out/0"
    hashes = row_hashes(found.x)
    assert not set(hashes[found.roles.train]) & set(hashes[found.roles.test])


def test_pixels_are_those_of_each_set_in_any_order(tmp_path: Path) -> None:
    """With rows drawn at random each name still stands beside its own picture."""
    inside, outside = write_images(tmp_path / "i.npz", 50, 6, 6), tmp_path / "out"
    outside.mkdir()
    for i in range(20):
        Image.fromarray(np.full((6, 6), i, dtype=np.uint8)).save(outside / f"{i:02}.png")
    options = DataOptions(out_data=str(outside), max_rows=40)
    found = prepare(inside, options, seed=1)
    stored = np.load(inside)["X"]
    for name, pixels in zip(found.names, found.x[:, 0], strict=True):
        is_out = name.startswith("out/")
        expected = np.full((6, 6), int(name[4:6])) if is_out else stored[int(name)]
        np.testing.assert_array_equal(pixels, expected)


def test_hash_knows_both_sets(tmp_path: Path) -> None:
    """Another out-set under the same name changes the data hash, not the training rows."""
    inside, outside = write_images(tmp_path / "i.npz", 50, 6, 6), tmp_path / "o.npz"
    options = DataOptions(out_data=str(outside))
    write_images(outside, 20, 6, 6)
    before = prepare(inside, options, seed=0)
    write_images(outside, 25, 6, 6)
    after = prepare(inside, options, seed=0)
    assert before.data_hash != after.data_hash
    assert before.split_hash["train"] == after.split_hash["train"]


def test_tables_have_no_out_data(tmp_path: Path) -> None:
    """A table on either side is refused by name."""
    images = write_images(tmp_path / "i.npz", 9, 4, 4)
    table = tmp_path / "t.csv"
    table.write_text("a,b\n1,2\n3,4\n")
    with pytest.raises(BadInput, match=r"t\.csv: out_data is for images, got a table"):
        prepare(table, DataOptions(out_data=str(images)), seed=0)
    with pytest.raises(BadInput, match=r"t\.csv: out_data must be images, got a table"):
        prepare(images, DataOptions(out_data=str(table)), seed=0)
