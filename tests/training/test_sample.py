"""Samples: as many as asked for, the same for a seed, in input units, as a picture or a table."""

import csv
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from amiss_export.bundle import DECODER, read_bundle
from amiss_export.errors import BadInput, BundleRefused
from amiss_training.sample import GAP, SIDE, Samples, grid, sample, write_samples
from bundle_factory import write_table_bundle
from decoder_bundles import images_with_decoder, table_with_decoder


@pytest.mark.parametrize("count", [1, 16, 17])
def test_the_count_is_honoured(tmp_path: Path, count: int) -> None:
    """--count N decodes exactly N rows of each member, however N fills a grid."""
    samples = sample(images_with_decoder(tmp_path, ("vae", "aae")), count=count, seed=0)
    assert [len(rows) for rows in samples.rows.values()] == [count, count]


def test_the_seed_decides_the_draws(tmp_path: Path) -> None:
    """One seed gives one set of draws, normal and not uniform (D20), another seed another."""
    bundle = table_with_decoder(tmp_path)
    first, again, other = (sample(bundle, count=500, seed=s).rows["vae"][:, 0] for s in (0, 0, 1))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)
    assert abs(first.mean()) < 0.2
    assert first.std() == pytest.approx(1, abs=0.1)


def test_members_decode_the_same_draws(tmp_path: Path) -> None:
    """An ensemble's members, which here differ by 10, are given one z."""
    rows = sample(table_with_decoder(tmp_path, ("vae", "aae")), count=5, seed=0).rows
    np.testing.assert_allclose(rows["aae"][:, 0] - rows["vae"][:, 0], 10, atol=1e-5)


def test_a_bundle_without_a_decoder_is_refused(tmp_path: Path) -> None:
    """An older bundle says that it has no decoder.onnx and what to do."""
    bundle = read_bundle(tmp_path, "table", write_table_bundle(tmp_path))
    with pytest.raises(BadInput, match=r"table@1 has no decoder.onnx: .* train it again"):
        sample(bundle, count=1, seed=0)


def test_an_altered_decoder_is_refused(tmp_path: Path) -> None:
    """The decoder is checked against the manifest like every other file."""
    bundle = images_with_decoder(tmp_path)
    (bundle.path / DECODER).write_bytes(b"another")
    with pytest.raises(BundleRefused, match=r"decoder\.onnx"):
        sample(bundle, count=1, seed=0)
    with pytest.raises(BundleRefused, match=r"decoder\.onnx"):
        read_bundle(tmp_path, "image", bundle.version)


@pytest.mark.parametrize(("count", "seed", "message"), [(0, 0, "'count'"), (1, -1, "'seed'")])
def test_wrong_numbers_are_refused_by_name(
    tmp_path: Path, count: int, seed: int, message: str
) -> None:
    """No sample, or a seed below 0, raises BadInput naming the option."""
    with pytest.raises(BadInput, match=message):
        sample(images_with_decoder(tmp_path), count=count, seed=seed)


def test_a_grid_shows_every_image_once_and_the_rest_white() -> None:
    """Five images stand in two rows of three, pixels repeated; the sixth place stays empty."""
    images = np.arange(10, 60, 10, dtype=np.uint8)[:, None, None, None] * np.ones(
        (1, 1, 8, 8), dtype=np.uint8
    )
    (pixels,) = grid(images)
    assert pixels.shape == (GAP + 2 * (SIDE + GAP), GAP + 3 * (SIDE + GAP))
    counts = dict(zip(*np.unique(pixels, return_counts=True), strict=True))
    assert {value: counts[value] for value in (10, 20, 30, 40, 50)} == dict.fromkeys(
        (10, 20, 30, 40, 50), SIDE**2
    )
    assert (pixels[-SIDE:, -SIDE:] == 255).all()


@pytest.mark.parametrize("channels", [1, 3])
def test_images_become_one_picture(tmp_path: Path, channels: int) -> None:
    """The PNG holds each member's grid below the one before it, grey or in colour, unchanged."""
    samples = sample(
        images_with_decoder(tmp_path, ("vae", "aae"), channels=channels), count=4, seed=0
    )
    write_samples(samples, tmp_path / "new" / "grid.png")
    with Image.open(tmp_path / "new" / "grid.png") as picture:
        pixels = np.asarray(picture).reshape(picture.height, picture.width, channels)
    blocks = [grid(np.rint(rows).astype(np.uint8)) for rows in samples.rows.values()]
    assert np.array_equal(pixels.transpose(2, 0, 1), np.concatenate(blocks, axis=1))


def test_rows_become_a_table_in_input_units(tmp_path: Path) -> None:
    """The CSV has the detector's columns, categories as text, and no column more."""
    samples = sample(table_with_decoder(tmp_path), count=3, seed=0)
    write_samples(samples, tmp_path / "rows.csv")
    with (tmp_path / "rows.csv").open(newline="") as file:
        lines = list(csv.DictReader(file))
    assert [list(line) for line in lines] == [["x0", "colour"]] * 3
    assert {line["colour"] for line in lines} == {"red"}
    found = np.array([line["x0"] for line in lines], dtype=np.float32)
    assert np.array_equal(found, samples.rows["vae"][:, 0])


def test_an_ensembles_rows_name_their_member(tmp_path: Path) -> None:
    """With two members the first column says whose row it is."""
    samples = sample(table_with_decoder(tmp_path, ("vae", "aae")), count=2, seed=0)
    write_samples(samples, tmp_path / "rows.csv")
    with (tmp_path / "rows.csv").open(newline="") as file:
        lines = list(csv.DictReader(file))
    assert [(line["member"], line["colour"]) for line in lines] == [
        *[("vae", "red")] * 2,
        *[("aae", "green")] * 2,
    ]


@pytest.mark.parametrize(("kind", "wrong"), [("image", "grid.csv"), ("table", "rows.png")])
def test_a_file_of_the_wrong_kind_is_refused(tmp_path: Path, kind: str, wrong: str) -> None:
    """A table is no picture: the message names the ending it wants, and nothing is written."""
    bundle = {"image": images_with_decoder, "table": table_with_decoder}[kind](tmp_path)
    samples: Samples = sample(bundle, count=1, seed=0)
    with pytest.raises(BadInput, match="must end in"):
        write_samples(samples, tmp_path / wrong)
    assert not (tmp_path / wrong).exists()
