"""What Lightning's Trainer is given."""

from typing import Any

import pytest
from lightning.fabric.utilities.exceptions import MisconfigurationException

from amiss_export.errors import BadInput
from amiss_training.detectors.alad import Alad, AladConfig
from amiss_training.detectors.vae import Vae, VaeConfig
from amiss_training.trainer_options import GRADIENT_CLIP, lightnings_words, trainer_options

VAE = Vae(VaeConfig(hidden=(4,), latent_dim=2), shape=(3,), columns=3)
ALAD = Alad(AladConfig(hidden=(4,), latent_dim=2), shape=(3,), columns=3)


@pytest.mark.parametrize(
    ("asked", "max_epochs"),
    [
        ({}, 100),
        ({"max_epochs": 7}, 7),
        ({"max_steps": 50}, -1),
        ({"max_steps": -1}, 100),
        ({"max_steps": 50, "max_epochs": 3}, 3),
    ],
)
def test_a_number_of_steps_is_a_limit_of_its_own(asked: dict[str, Any], max_epochs: int) -> None:
    """A hundred epochs unless epochs or steps are asked for."""
    assert trainer_options(asked, VAE)["max_epochs"] == max_epochs


def test_lightning_clips_only_where_it_steps() -> None:
    """A detector that steps its optimizers by itself gets no gradient_clip_val."""
    assert trainer_options({}, VAE)["gradient_clip_val"] == GRADIENT_CLIP
    assert trainer_options({"gradient_clip_val": 1.0}, VAE)["gradient_clip_val"] == 1.0
    assert "gradient_clip_val" not in trainer_options({}, ALAD)


def test_lightnings_refusal_is_one_line() -> None:
    """Its message becomes a BadInput that begins with 'trainer:' and has no line break."""
    with pytest.raises(BadInput, match=r"^trainer: two lines$"), lightnings_words():
        raise MisconfigurationException("two\nlines")
