"""The detectors, one file each, and what they have in common."""

from collections.abc import Callable
from typing import Any

from amiss_training.detectors.ensemble import EnsembleConfig
from amiss_training.detectors.module import Detector
from amiss_training.detectors.vae import Vae, VaeConfig

DETECTORS: dict[str, Callable[..., Detector]] = {"vae": Vae}
# group of options -> the record it fills; a field of TrainConfig by the same name
CONFIGS: dict[str, Callable[..., Any]] = {"vae": VaeConfig, "ensemble": EnsembleConfig}

__all__ = ["CONFIGS", "DETECTORS", "Detector", "EnsembleConfig", "Vae", "VaeConfig"]
