"""Prepare images: from an open set to rows in roles, with its own test and its masks."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from amiss_export.bundle import ImageInput
from amiss_export.errors import BadInput
from amiss_training.data import DataOptions, Prepared, prepare
from amiss_training.data.image_sources import Rows, open_images
from amiss_training.data.prepare_images import prepare_images
from amiss_training.data.splits import row_hashes

RNG = np.random.default_rng(5)


def held_apart(prepared: Prepared) -> bool:
    """Whether no row of one role equals a row of another (defect D8)."""
    hashes = row_hashes(prepared.x)
    sets = [set(hashes[index].tolist()) for _, index in prepared.roles.items()]
    return sum(map(len, sets)) == len(set.union(*sets))


def write_mvtec(folder: Path, *, good: int = 20, defects: int = 6) -> Path:
    """train/good, test/good and test/crack with small grey noise in them."""
    for name, count in (("train/good", good), ("test/good", 4), ("test/crack", defects)):
        (folder / name).mkdir(parents=True)
        for i in range(count):
            pixels = RNG.integers(0, 256, (4, 4), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / name / f"{i}.png")
    return folder


def test_images_end_to_end(tmp_path: Path) -> None:
    """A folder of classes becomes uint8 rows of one size, the named class normal."""
    for name in ("cat", "dog"):
        (tmp_path / name).mkdir()
        for i in range(10):
            pixels = RNG.integers(0, 256, (9, 7, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / name / f"{i}.png")
    found = prepare(tmp_path, DataOptions(normal_class="cat", image_size=8, channels=1), seed=0)
    assert found.input == ImageInput(channels=1, height=8, width=8)
    assert found.x.shape == (20, 1, 8, 8)
    assert found.names[0] == "cat/0.png"
    assert found.is_anomaly.tolist() == [False] * 10 + [True] * 10
    assert held_apart(found)
    with pytest.raises(BadInput, match=r"no row has the normal class '0'.*'cat', 'dog'"):
        prepare(tmp_path, DataOptions(), seed=0)


def test_mvtec_keeps_its_own_test(tmp_path: Path) -> None:
    """test/good and test/<defect> are the test; train/good fills the other three roles."""
    found = prepare(write_mvtec(tmp_path), DataOptions(), seed=0)
    assert found.split_rows["test"] == 10
    assert all(found.names[i].startswith("test/") for i in found.roles.test)
    assert found.is_anomaly.sum() == 6
    assert found.masks is None


def test_contamination_reaches_images_that_bring_their_own_test(tmp_path: Path) -> None:
    """Defective images of test/crack are moved to training when asked for (defect D11)."""
    options = DataOptions(contamination=0.2)
    found = prepare(write_mvtec(tmp_path), options, seed=0)
    trained_on = [found.names[i] for i in found.roles.train]
    assert sum(name.startswith("test/crack") for name in trained_on) == 4
    assert found.split_rows["test"] == 6
    assert any("contaminated training: 4 of 18 rows" in note for note in found.notes)
    assert held_apart(found)


def test_masks_follow_the_rows_that_are_kept(tmp_path: Path) -> None:
    """With repeats removed, each image still has its own mask: here, its pixels above 127."""
    x = RNG.integers(0, 256, (40, 5, 5), dtype=np.uint8)
    x[30:] = x[:10]
    np.savez(tmp_path / "i.npz", X=x)
    source = open_images(tmp_path / "i.npz", "npz")

    def masks(rows: Rows, spec: ImageInput) -> np.ndarray:
        return source.pixels(rows, spec)[:, 0] > 127

    options = DataOptions(deduplicate=True, max_rows=35)
    found = prepare_images(replace(source, masks=masks), options, loader="npz", seed=0)
    assert found.masks is not None
    assert len(found.x) < 35
    np.testing.assert_array_equal(found.masks, found.x[:, 0] > 127)


def test_images_of_one_class_are_held_apart(tmp_path: Path) -> None:
    """Test normals were never trained on, though half of the images repeat (defect D8)."""
    x = RNG.integers(0, 256, (60, 4, 4), dtype=np.uint8)
    np.savez(tmp_path / "i.npz", X=np.concatenate([x, x]), y=np.arange(120) % 60 > 50)
    for seed in range(4):
        found = prepare(tmp_path / "i.npz", DataOptions(normal_class="False"), seed=seed)
        assert held_apart(found)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (DataOptions(label_column="y"), "label_column 'y' is for tables"),
        (DataOptions(attack_families=True), "attack_families is for tables"),
    ],
)
def test_what_belongs_to_tables_is_refused(options: DataOptions, message: str) -> None:
    """Options of tables are named when the data are images."""
    with pytest.raises(BadInput, match=message):
        prepare(None, DataOptions(**{**vars(options), "loader": "digits"}), seed=0)


def test_deduplicate_removes_equal_images(tmp_path: Path) -> None:
    """The same pixels under the same label count once."""
    x = RNG.integers(0, 256, (30, 4, 4), dtype=np.uint8)
    np.savez(tmp_path / "i.npz", X=np.concatenate([x, x[:10]]), y=np.zeros(40, dtype=int))
    found = prepare(tmp_path / "i.npz", DataOptions(deduplicate=True), seed=0)
    assert found.duplicate_rows_removed == 10
    np.testing.assert_array_equal(found.x[:, 0], x)


def test_digits_starter() -> None:
    """The image starter takes the digit 0 as normal."""
    found = prepare(None, DataOptions(loader="digits"), seed=0)
    assert (len(found.x), int((~found.is_anomaly).sum())) == (1797, 178)
    again = prepare(None, DataOptions(loader="digits"), seed=0)
    assert (found.data_hash, found.split_hash) == (again.data_hash, again.split_hash)


def test_images_have_no_category_columns(tmp_path: Path) -> None:
    """An option for tables is refused by its name, not passed over."""
    folder = write_mvtec(tmp_path)
    with pytest.raises(BadInput, match="category_columns is for tables"):
        prepare(folder, DataOptions(category_columns=("colour",)), seed=0)
