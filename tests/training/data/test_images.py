"""Images: folders listed, one way of resizing, unreadable files named."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from amiss_export.bundle import ImageInput
from amiss_export.decode import decode_image
from amiss_export.errors import BadInput
from amiss_training.data.images import (
    as_channels_first,
    decode_files,
    decode_masks,
    fit_arrays,
    infer_spec,
    list_folder,
    list_mvtec,
)

RNG = np.random.default_rng(0)


def write_image(path: Path, size: tuple[int, int] = (6, 4), mode: str = "L") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    shape = (size[1], size[0]) if mode == "L" else (size[1], size[0], 3)
    Image.fromarray(RNG.integers(0, 256, shape, dtype=np.uint8)).save(path)
    return path


def test_sub_folders_are_classes(tmp_path: Path) -> None:
    """Images are listed in order, labelled by their class folder; other files are passed over."""
    for name in ("b/1.png", "a/deep/2.PNG", "a/1.png", "a/.hidden.png"):
        write_image(tmp_path / name)
    (tmp_path / "notes.txt").write_text("x")
    (tmp_path / "empty").mkdir()
    listing = list_folder(tmp_path)
    assert listing.names() == ["a/1.png", "a/deep/2.PNG", "b/1.png"]
    assert listing.label is not None
    assert listing.label.tolist() == ["a", "a", "b"]


def test_flat_folder_has_no_labels(tmp_path: Path) -> None:
    """Without sub-folders there are no classes."""
    write_image(tmp_path / "1.png")
    assert list_folder(tmp_path).label is None


def test_unclear_folders_are_refused(tmp_path: Path) -> None:
    """No images at all, and images beside class folders, are refused."""
    with pytest.raises(BadInput, match="no images"):
        list_folder(tmp_path)
    write_image(tmp_path / "1.png")
    write_image(tmp_path / "a" / "2.png")
    with pytest.raises(BadInput, match=r"1\.png lies beside the class folder 'a'"):
        list_folder(tmp_path)


def write_mask(path: Path, pixels: list[list[int]]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.array(pixels, dtype=np.uint8)).save(path)
    return path


def test_masks_belong_to_their_images(tmp_path: Path) -> None:
    """Each defective image has its own mask's file, good ones have none; no folder, no masks."""
    for name in ("train/good/0.png", "test/good/0.png", "test/crack/0.png", "test/cut/a.b.png"):
        write_image(tmp_path / name)
    assert list_mvtec(tmp_path).masks is None
    crack = write_mask(tmp_path / "ground_truth/crack/0_mask.png", [[255]])
    cut = write_mask(tmp_path / "ground_truth/cut/a.b_mask.png", [[255]])
    listing = list_mvtec(tmp_path)
    assert listing.names() == [
        "train/good/0.png",
        "test/crack/0.png",
        "test/cut/a.b.png",
        "test/good/0.png",
    ]
    assert listing.masks == (None, crack, cut, None)


def test_masks_stay_masks_when_resized(tmp_path: Path) -> None:
    """Nearest pixels, above 0 = defective, nowhere without a file."""
    path = write_mask(tmp_path / "m.png", [[0, 0, 255, 1], [0, 0, 0, 0]])
    spec = ImageInput(channels=3, height=4, width=8)
    first, second = decode_masks([path, None], spec)
    expected = np.zeros((4, 8), dtype=np.bool_)
    expected[:2, 4:] = True
    np.testing.assert_array_equal(first, expected)
    assert not second.any()


def test_a_missing_or_broken_mask_is_named(tmp_path: Path) -> None:
    """A defective image without its mask, and a mask that is no image, are refused by file."""
    spec = ImageInput(channels=1, height=4, width=4)
    with pytest.raises(BadInput, match=r"0_mask\.png: expected the mask"):
        decode_masks([tmp_path / "0_mask.png"], spec)
    (tmp_path / "0_mask.png").write_text("hello")
    with pytest.raises(BadInput, match=r"0_mask\.png: .*cannot"):
        decode_masks([tmp_path / "0_mask.png"], spec)


def test_mvtec_ignores_ground_truth(tmp_path: Path) -> None:
    """train/good and test are listed with their role; masks are not images to learn."""
    for name in ("train/good/0.png", "test/good/0.png", "test/crack/0.png"):
        write_image(tmp_path / name)
    write_image(tmp_path / "ground_truth/crack/0_mask.png")
    listing = list_mvtec(tmp_path)
    assert listing.names() == ["train/good/0.png", "test/crack/0.png", "test/good/0.png"]
    assert listing.label is not None
    assert listing.label.tolist() == ["good", "crack", "good"]
    assert listing.own_test is not None
    assert listing.own_test.tolist() == [False, True, True]
    assert len(list_mvtec(tmp_path, only_test=True).paths) == 2
    with pytest.raises(BadInput, match="train/good and test"):
        list_mvtec(tmp_path / "train")


def test_spec_is_the_first_image_unless_asked(tmp_path: Path) -> None:
    """Size and colours are the first image's, turned upright, unless options say otherwise."""
    grey = write_image(tmp_path / "g.png", (6, 4))
    colour = write_image(tmp_path / "c.png", (6, 4), "RGB")
    assert infer_spec(grey, side=None, channels=None) == ImageInput(channels=1, height=4, width=6)
    assert infer_spec(colour, side=8, channels=None) == ImageInput(channels=3, height=8, width=8)
    assert infer_spec(colour, side=None, channels=1).channels == 1
    turned = tmp_path / "t.jpg"
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (6, 4)).save(turned, exif=exif)
    found = infer_spec(turned, side=None, channels=None)
    assert (found.height, found.width) == (6, 4)


def test_files_are_decoded_as_the_service_decodes(tmp_path: Path) -> None:
    """The pixels trained on are those the service computes from the same bytes."""
    spec = ImageInput(channels=1, height=5, width=5)
    path = write_image(tmp_path / "c.png", (9, 7), "RGB")
    np.testing.assert_array_equal(
        decode_files([path], spec)[0], decode_image(path.read_bytes(), spec)
    )


def test_text_named_png_is_named(tmp_path: Path) -> None:
    """A text file named .png is refused by its name in one line, first or later in the folder."""
    path = tmp_path / "fake.png"
    path.write_text("hello")
    for read in (
        lambda: infer_spec(path, side=None, channels=None),
        lambda: decode_files([path], ImageInput(channels=1, height=4, width=4)),
    ):
        with pytest.raises(BadInput, match=r"fake\.png: expected an image") as refusal:
            read()
        assert "\n" not in str(refusal.value)


def test_arrays_are_resized_as_files_are(tmp_path: Path) -> None:
    """The same picture as an array and as a PNG gives the same pixels."""
    path = write_image(tmp_path / "c.png", (9, 7), "RGB")
    array = np.asarray(Image.open(path))[None].transpose(0, 3, 1, 2)
    for spec in (
        ImageInput(channels=3, height=5, width=4),
        ImageInput(channels=1, height=7, width=9),
        ImageInput(channels=3, height=7, width=9),
    ):
        np.testing.assert_array_equal(fit_arrays(array, spec), decode_files([path], spec))


def test_array_layouts() -> None:
    """(n, h, w), channels last and channels first all become (n, c, h, w)."""
    path = Path("a.npz")
    grey = RNG.integers(0, 256, (2, 5, 4), dtype=np.uint8)
    colour = RNG.integers(0, 256, (2, 5, 4, 3), dtype=np.uint8)
    np.testing.assert_array_equal(as_channels_first(path, grey), grey[:, None])
    first = as_channels_first(path, colour)
    np.testing.assert_array_equal(first, colour.transpose(0, 3, 1, 2))
    np.testing.assert_array_equal(as_channels_first(path, first), first)


def test_fractions_fill_the_byte() -> None:
    """Floats from 0 to 1 become 0..255, whole numbers stay; anything else is refused."""
    path = Path("a.npz")
    assert as_channels_first(path, np.array([[[0, 0.5, 1]]])).ravel().tolist() == [0, 128, 255]
    assert as_channels_first(path, np.array([[[0, 7, 255]]])).ravel().tolist() == [0, 7, 255]
    for wrong in (np.array([[[-0.5, 1]]]), np.array([[[0, 256]]]), np.array([[[np.nan, 1]]])):
        with pytest.raises(BadInput, match=r"a\.npz: expected pixels"):
            as_channels_first(path, wrong)
    with pytest.raises(BadInput, match="1 or 3 channels"):
        as_channels_first(path, np.zeros((2, 4, 4, 2), dtype=np.uint8))
