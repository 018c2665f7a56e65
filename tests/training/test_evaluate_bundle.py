"""A bundle on data it has never seen: what is normal there, and what cannot be told."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from amiss_export.errors import BadInput
from amiss_training.evaluate_bundle import evaluate_bundle
from bundle_factory import write_image_bundle


def write_mvtec(folder: Path) -> Path:
    """train/good, and ten grey images in test/good, five black ones in test/crack."""
    for name, count, grey in (("train/good", 3, 127), ("test/good", 10, 127), ("test/crack", 5, 0)):
        (folder / name).mkdir(parents=True)
        for i in range(count):
            pixels = np.full((8, 8), grey + i % 2, dtype=np.uint8)
            Image.fromarray(pixels).save(folder / name / f"{i}.png")
    return folder


def test_new_data_have_the_usual_normal_class_of_their_layout(tmp_path: Path) -> None:
    """In a folder laid out as MVTec's good is normal, as it is in training, though nobody said."""
    version = write_image_bundle(tmp_path / "models")
    data = write_mvtec(tmp_path / "part")
    found = evaluate_bundle(tmp_path / "models", "image", version, data=data, overrides={})
    assert (found.metrics["n_test"], found.metrics["n_anomalies"]) == (15, 5)
    assert found.metrics["auroc"] == 1.0
    assert found.peers == {}


def test_a_class_that_is_not_there_is_named(tmp_path: Path) -> None:
    """A class that no image has is refused with those that are there."""
    version = write_image_bundle(tmp_path / "models")
    data, overrides = write_mvtec(tmp_path / "part"), {"anomaly_class": "hole"}
    with pytest.raises(BadInput, match=r"anomaly class 'hole'; classes there: 'crack', 'good'"):
        evaluate_bundle(tmp_path / "models", "image", version, data=data, overrides=overrides)
