"""Several detectors as one: their scores on a common scale, averaged (`readouts.Average`)."""

from dataclasses import dataclass
from typing import Literal

from amiss_export.errors import BadInput
from amiss_training.checks import check_range


@dataclass(frozen=True)
class EnsembleConfig:
    """Which detectors are averaged (only with --detector ensemble).

    Args:
        members: Detectors to train, each with its own options.
        seeds: Times each is trained, from initial weights of its own.
    """

    members: tuple[Literal["vae", "aae", "alad"], ...] = ("vae", "aae", "alad")
    seeds: int = 1


def check_config(config: EnsembleConfig) -> None:
    """Nothing; raises BadInput naming the option that cannot work, and its value."""
    check_range("ensemble.seeds", config.seeds, 1)
    if not config.members or len(set(config.members)) < len(config.members):
        raise BadInput(
            "config 'ensemble.members' must name detectors, each once, got "
            f"{list(config.members)}; train one several times with ensemble.seeds"
        )
