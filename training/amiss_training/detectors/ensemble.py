"""Several detectors as one: their scores on a common scale, averaged."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from amiss_export.errors import BadInput
from amiss_export.graph import ScoreScale
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


class Average(nn.Module):
    """Mean of the members' scores, each in its own interquartile ranges of early-stop normals.

    The ranges are asinh-compressed (`ScoreScale`), so that one member's wild score cannot outvote
    the others. The expectation is the members' mean.
    """

    def __init__(self, members: Sequence[nn.Module], early_stop: Tensor) -> None:
        super().__init__()
        self.members = nn.ModuleList(members)
        with torch.no_grad():
            values = [
                torch.cat([member(part)[0] for part in torch.split(early_stop, 1_024)]).numpy()
                for member in members
            ]
        self.scales = nn.ModuleList(ScoreScale(value) for value in values)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        results = [member(x) for member in self.members]
        scores = [scale(value) for scale, (value, _) in zip(self.scales, results, strict=True)]
        expected = torch.stack([expectation for _, expectation in results]).mean(dim=0)
        return torch.stack(scores).mean(dim=0), expected
