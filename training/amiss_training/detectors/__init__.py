"""The detectors, one file each, and what they have in common."""

from collections.abc import Callable
from typing import Any

from amiss_training.detectors.aae import Aae, AaeConfig
from amiss_training.detectors.alad import Alad, AladConfig
from amiss_training.detectors.ensemble import EnsembleConfig
from amiss_training.detectors.module import Detector
from amiss_training.detectors.vae import Vae, VaeConfig

DETECTORS: dict[str, Callable[..., Detector]] = {"vae": Vae, "aae": Aae, "alad": Alad}
# group of options -> the record it fills; a field of TrainConfig by the same name
CONFIGS: dict[str, Callable[..., Any]] = {
    "vae": VaeConfig,
    "aae": AaeConfig,
    "alad": AladConfig,
    "ensemble": EnsembleConfig,
}

__all__ = [
    "CONFIGS",
    "DETECTORS",
    "Aae",
    "AaeConfig",
    "Alad",
    "AladConfig",
    "Detector",
    "EnsembleConfig",
    "Vae",
    "VaeConfig",
]
