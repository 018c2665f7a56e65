"""From rows to a scoring graph: features, one fit for each member, read-outs, one graph."""

import dataclasses
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from amiss_export.bundle import ImageInput
from amiss_export.errors import BadInput
from amiss_export.graph import ImageFeatures, ScoringGraph, TableFeatures
from amiss_training.config import TrainConfig
from amiss_training.data import Prepared
from amiss_training.data.augment import augment
from amiss_training.detectors import DETECTORS, Detector, ensemble
from amiss_training.detectors.readouts import Average
from amiss_training.fit import Fitted, check_config, fit, forget


@dataclass(frozen=True)
class Plan:
    """A member to be trained: its name in reports, what it is, and the seed of its weights."""

    name: str
    detector: str
    seed: int


@dataclass(frozen=True)
class Member:
    """A trained detector and how its training went."""

    name: str
    detector: Detector
    fitted: Fitted


@dataclass(frozen=True)
class Learned:
    """Trained members and the graph made of them: raw rows -> (score, reconstruction).

    train, early_stop: features of those rows, which every read-out is fitted on.
    """

    members: list[Member]
    features: ImageFeatures | TableFeatures
    train: Tensor
    early_stop: Tensor
    graph: ScoringGraph
    readout: str

    @property
    def is_main(self) -> bool:
        """False in the other processes of a distributed run, whose results nobody needs."""
        return all(member.fitted.is_main for member in self.members)


def learn(
    config: TrainConfig,
    prepared: Prepared,
    *,
    run_dir: Path,
    trained: Mapping[Plan, Member] | None = None,
) -> Learned:
    """What the training rows taught; deterministic in config.seed on a CPU.

    run_dir: where each member's checkpoints go; `forget_runs` removes them.
    trained: members there are already, taken as they are: an ensemble's that also stand alone.
    Raises BadInput for settings that cannot work, TrainingDiverged.
    """
    check_config(config.fit)
    torch.set_num_threads(config.fit.threads)
    features, train, early_stop = _features(config, prepared)
    members = [
        (trained or {}).get(plan)
        or _train(plan, config, prepared, train=train, early_stop=early_stop, run_dir=run_dir)
        for plan in plans(config)
    ]
    detectors = [member.detector for member in members]
    return Learned(
        members=members,
        features=features,
        train=train,
        early_stop=early_stop,
        graph=_graph(detectors, prepared, features, train=train, early_stop=early_stop),
        readout="+".join(dict.fromkeys(detector.readout for detector in detectors)),
    )


def untrained(config: TrainConfig, prepared: Prepared) -> ScoringGraph:
    """The control: the same networks with their initial weights, under the same read-outs.

    What it scores, whitening and correction have found without any learning.
    """
    features, train, early_stop = _features(config, prepared)
    detectors = [_initial(plan, config, train, prepared) for plan in plans(config)]
    return _graph(detectors, prepared, features, train=train, early_stop=early_stop)


def plans(config: TrainConfig) -> list[Plan]:
    """The members that config.detector stands for: itself, or those of the ensemble.

    Raises BadInput, listing the detectors, for a name there is none of.
    """
    if config.detector in DETECTORS:
        return [Plan(config.detector, config.detector, config.seed)]
    if config.detector != "ensemble":
        raise BadInput(
            f"no detector {config.detector!r}; there are: {', '.join(DETECTORS)}, ensemble"
        )
    ensemble.check_config(config.ensemble)
    return [
        Plan(f"{name}-{i}" if config.ensemble.seeds > 1 else name, name, config.seed + i)
        for name in config.ensemble.members
        for i in range(config.ensemble.seeds)
    ]


def forget_runs(config: TrainConfig, run_dir: Path) -> None:
    """Nothing; removes the checkpoints of a run that ended well."""
    for plan in plans(config):
        forget(run_dir / plan.name)


def settings(config: TrainConfig) -> dict[str, Any]:
    """The settings as plain JSON values."""
    values: dict[str, Any] = json.loads(json.dumps(dataclasses.asdict(config), default=str))
    return values


def _features(
    config: TrainConfig, prepared: Prepared
) -> tuple[ImageFeatures | TableFeatures, Tensor, Tensor]:
    """The features module, fitted on training rows, and those of training and early-stop rows.

    Training images are augmented first; rows of every other role stay as they are.
    """
    roles, spec = prepared.roles, prepared.input
    rows = prepared.x[roles.train]
    features: ImageFeatures | TableFeatures
    if isinstance(spec, ImageInput):
        features, category = ImageFeatures(), Path(config.data or "").name
        rows = augment(rows, config.augment, category=category, seed=config.seed)
    else:
        if config.augment.copies:
            raise BadInput("config 'augment.copies' is for images; rows are learned as they are")
        features = TableFeatures(spec, rows)
    train = features(torch.from_numpy(rows))
    return features, train, features(torch.from_numpy(prepared.x[roles.early_stop]))


def _initial(plan: Plan, config: TrainConfig, train: Tensor, prepared: Prepared) -> Detector:
    torch.manual_seed(plan.seed)  # the initial weights are part of what the seed decides
    spec = prepared.input
    return DETECTORS[plan.detector](
        getattr(config, plan.detector),
        shape=tuple(train.shape[1:]),
        columns=0 if isinstance(spec, ImageInput) else len(spec.columns),
    )


def _train(
    plan: Plan,
    config: TrainConfig,
    prepared: Prepared,
    *,
    train: Tensor,
    early_stop: Tensor,
    run_dir: Path,
) -> Member:
    detector = _initial(plan, config, train, prepared)
    fitted = fit(
        detector,
        train=train,
        early_stop=early_stop,
        config=config.fit,
        trainer=config.trainer,
        run_dir=run_dir / plan.name,
        fingerprint=_fingerprint(plan, config, prepared),
        seed=plan.seed,
        resume=config.resume,
    )
    return Member(plan.name, detector, fitted)


def _graph(
    detectors: Sequence[Detector],
    prepared: Prepared,
    features: ImageFeatures | TableFeatures,
    *,
    train: Tensor,
    early_stop: Tensor,
) -> ScoringGraph:
    readouts = [detector.fit_readout(train, early_stop) for detector in detectors]
    readout: nn.Module = readouts[0] if len(readouts) == 1 else Average(readouts, early_stop)
    return ScoringGraph(features, readout, torch.from_numpy(prepared.x[prepared.roles.early_stop]))


def _fingerprint(plan: Plan, config: TrainConfig, prepared: Prepared) -> str:
    """Of everything that decides the weights: `--resume` refuses a checkpoint of another one."""
    values = settings(config)
    watching = ("log", "image_grid_every_epochs")
    kept = {
        "augment": values["augment"],
        "fit": {k: v for k, v in values["fit"].items() if k not in watching},
        "trainer": values["trainer"],
        "network": values[plan.detector],
    }
    text = json.dumps(
        [dataclasses.asdict(plan), kept, prepared.data_hash, prepared.split_hash], sort_keys=True
    )
    return hashlib.sha256(text.encode()).hexdigest()
