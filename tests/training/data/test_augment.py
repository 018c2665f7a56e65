"""Augmentation: what is altered and how far, and what stays as it is."""

import numpy as np
import pytest
from numpy.typing import NDArray

from amiss_export.errors import BadInput
from amiss_training.data.augment import AugmentConfig, augment, border_free_share, kind_of_category

ONE_TURN = AugmentConfig(copies=1, rotation_degrees=20.0)


def disc_with_hand(n: int = 1, *, channels: int = 1) -> NDArray[np.uint8]:
    """Images (n, c, 65, 65) of a line from the centre straight to the right."""
    images = np.zeros((n, channels, 65, 65), dtype=np.uint8)
    images[:, :, 31:34, 32:58] = 255
    return images


def angle_of_hand(image: NDArray[np.uint8]) -> float:
    """Degrees between the line and the horizontal."""
    rows, columns = np.nonzero(image > 127)
    return float(np.degrees(np.arctan2(rows.mean() - 32, columns.mean() - 32)))


def test_the_images_come_first_and_unaltered() -> None:
    """Copies follow the images, which stay as they are; no copies, no change."""
    images = disc_with_hand(3)
    augmented = augment(images, AugmentConfig(copies=2, flips=True), category="pill", seed=0)
    assert augmented.shape == (9, 1, 65, 65)
    np.testing.assert_array_equal(augmented[:3], images)
    assert augment(images, AugmentConfig(), category="pill", seed=0) is images


def test_a_turn_stays_within_its_bound_and_uses_it() -> None:
    """Of 60 turns none is beyond 20 degrees, and some are beyond 10 on either side."""
    augmented = augment(disc_with_hand(60), ONE_TURN, category="hazelnut", seed=0)
    angles = np.array([angle_of_hand(image[0]) for image in augmented[60:]])
    assert np.abs(angles).max() <= 20.5
    assert angles.min() < -10
    assert angles.max() > 10


def test_equal_seeds_give_equal_images() -> None:
    """The seed decides every pixel, and another seed others."""
    images = disc_with_hand(4, channels=3)
    config = AugmentConfig(copies=2, rotation_degrees=90.0, flips=True, patch=30)
    for category in ("hazelnut", "carpet"):
        first, again, other = (
            augment(images, config, category=category, seed=seed) for seed in (1, 1, 2)
        )
        np.testing.assert_array_equal(first, again)
        assert (first != other).any()


def test_objects_repeat_their_edge() -> None:
    """A turn uncovers corners; they take the nearest edge's grey, never black."""
    images = np.full((5, 3, 40, 30), 200, dtype=np.uint8)
    turned = augment(
        images, AugmentConfig(copies=1, rotation_degrees=45.0), category="pill", seed=0
    )
    assert (turned == 200).all()


def test_textures_have_no_border() -> None:
    """What a turn uncovers is cut away: a frame drawn around the image is not in the copies."""
    images = np.full((20, 1, 60, 40), 200, dtype=np.uint8)
    images[:, :, [0, -1], :] = images[:, :, :, [0, -1]] = 0
    config = AugmentConfig(copies=1, kind="texture", rotation_degrees=45.0)
    copies = augment(images, config, category="any", seed=1)[20:]
    assert copies.shape == (20, 1, 60, 40)
    assert (copies[:, :, 8:-8, 8:-8] == 200).all()


def test_the_border_free_rectangle_fits() -> None:
    """Its corners, turned back, lie on or within the image, one of them on an edge."""
    for height, width, degrees in ((60, 40, 30.0), (50, 50, 45.0), (30, 90, 170.0), (40, 50, 0.0)):
        share = border_free_share(height, width, degrees)
        corners = 0.5 * share * np.array([[width, height], [width, -height]])
        cos, sin = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
        turned = np.abs(corners @ np.array([[cos, sin], [-sin, cos]])) / (width / 2, height / 2)
        assert turned.max() == pytest.approx(1.0)
    assert border_free_share(50, 50, 45.0) == pytest.approx(1 / np.sqrt(2))


def test_patches_are_crops_brought_back_to_size() -> None:
    """A patch of half the side shows half the gradient, somewhere different each time."""
    ramp = np.broadcast_to(np.linspace(0, 255, 64).astype(np.uint8), (20, 1, 64, 64)).copy()
    config = AugmentConfig(copies=1, patch=32)
    copies = augment(ramp, config, category="leather", seed=0)[20:].astype(int)
    ranges = copies.max(axis=(1, 2, 3)) - copies.min(axis=(1, 2, 3))
    assert ((ranges > 118) & (ranges < 132)).all()
    assert len(np.unique(copies.min(axis=(1, 2, 3)))) > 5


def test_flips_keep_every_pixel() -> None:
    """Mirroring moves pixels and makes none; all four mirror images occur."""
    image = np.arange(12, dtype=np.uint8).reshape(1, 1, 3, 4)
    copies = augment(image, AugmentConfig(copies=40, flips=True), category="pill", seed=0)[1:]
    assert (np.sort(copies.reshape(40, -1), axis=1) == np.arange(12)).all()
    assert len(np.unique(copies.reshape(40, -1), axis=0)) == 4


def test_the_folder_says_what_it_shows() -> None:
    """MVTec's five textures are known by name, any other folder is an object unless told."""
    assert kind_of_category("carpet", AugmentConfig()) == "texture"
    assert kind_of_category("hazelnut", AugmentConfig()) == "object"
    assert kind_of_category("my-cloth", AugmentConfig()) == "object"
    assert kind_of_category("my-cloth", AugmentConfig(kind="texture")) == "texture"


@pytest.mark.parametrize(
    ("config", "name"),
    [
        (AugmentConfig(copies=-1), "augment.copies"),
        (AugmentConfig(rotation_degrees=181.0), "augment.rotation_degrees"),
        (AugmentConfig(patch=0), "augment.patch"),
    ],
)
def test_impossible_settings_are_named(config: AugmentConfig, name: str) -> None:
    """A setting out of range is refused by its name."""
    with pytest.raises(BadInput, match=name):
        augment(disc_with_hand(), config, category="pill", seed=0)
