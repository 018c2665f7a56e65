"""Everything that decides what a training run makes, in one frozen record."""

from dataclasses import dataclass, field
from typing import Any

from amiss_training.data import DataOptions
from amiss_training.data.augment import AugmentConfig
from amiss_training.detectors import AaeConfig, AladConfig, EnsembleConfig, VaeConfig
from amiss_training.fit import FitConfig


@dataclass(frozen=True)
class TrainConfig:
    """What to learn from, what to learn it with and what to write.

    detector: a name in DETECTORS, or "ensemble". trainer: arguments of Lightning's Trainer.
    alarm_rate, confidence: see `calibrate`.
    """

    name: str
    data: str | None = None
    models: str = "models"
    runs: str = "runs"
    detector: str = "vae"
    recipe: str | None = None
    seed: int = 0
    alarm_rate: float | None = None
    confidence: float | None = None
    resume: bool = False
    options: DataOptions = field(default_factory=DataOptions)
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    vae: VaeConfig = field(default_factory=VaeConfig)
    aae: AaeConfig = field(default_factory=AaeConfig)
    alad: AladConfig = field(default_factory=AladConfig)
    ensemble: EnsembleConfig = field(default_factory=EnsembleConfig)
    fit: FitConfig = field(default_factory=FitConfig)
    trainer: dict[str, Any] = field(default_factory=dict)
