"""One cell of a sweep: data prepared once, peers once, then every detector on the same rows."""

import dataclasses
import hashlib
import json
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from amiss_export.bundle import ImageInput
from amiss_export.decision import DecisionRule, calibrate
from amiss_export.errors import AmissError
from amiss_export.graph import ScoringGraph
from amiss_training.assess import peer_features
from amiss_training.config import TrainConfig
from amiss_training.data import Prepared, prepare
from amiss_training.evaluate import evaluate, oracle_top_share, ranking_metrics
from amiss_training.learn import Learned, Member, Plan, learn, plans, untrained
from amiss_training.peers import peer_scores
from amiss_training.results import Kind, Over, Result

BATCH_ROWS = 512
RANKING = ("auroc", "auprc", "fpr_at_95_tpr")
AT_THRESHOLD = ("precision", "recall", "f1", "flagged_share", "false_alarm_share")

Figures = dict[str, float | None]


@dataclass(frozen=True)
class Job:
    """What is to be done for one data set, class and seed, all set in `config`.

    data: what rows call the data. hashes: of the settings, for each detector and for the "peers".
    control, all_readouts: as in SweepConfig. Checkpoints stay under config.runs.
    """

    config: TrainConfig
    data: str
    over: Over
    class_: str
    detectors: tuple[str, ...]
    with_peers: bool
    all_readouts: bool
    control: bool | None
    hashes: Mapping[str, str]
    commit: str

    @property
    def cell(self) -> str:
        """The job in a few words."""
        class_ = f"class {self.class_}" if self.class_ else ""
        return ", ".join(filter(None, [self.data, class_, f"seed {self.config.seed}"]))

    def is_single(self, detector: str) -> bool:
        """Whether it is one network, with read-outs of its own: an ensemble of several is none."""
        return len(plans(dataclasses.replace(self.config, detector=detector))) == 1


@dataclass(frozen=True)
class _Trained:
    """A member that an ensemble of the same job need not train again."""

    member: Member
    seconds: float


def run_job(job: Job) -> Iterator[list[Result]]:
    """The rows of each method as they are ready: the peers', then those of every detector.

    Raises what `prepare` and `learn` raise, and TooFewRows before any time is spent when the
    calibration rows cannot support the alarm rate.
    """
    config = job.config
    prepared = prepare(Path(config.data) if config.data else None, config.options, seed=config.seed)
    calibration = np.arange(len(prepared.roles.calibration))
    calibrate(calibration, alarm_rate=config.alarm_rate, confidence=config.confidence)
    if job.with_peers:
        yield _peers(job, prepared)
    trained: dict[Plan, _Trained] = {}
    for detector in sorted(job.detectors, key=lambda name: name == "ensemble"):
        yield _detector(detector, job, prepared, trained)


def _peers(job: Job, prepared: Prepared) -> list[Result]:
    """A row for each peer, fitted on every normal row that ours saw."""
    roles = prepared.roles
    features = peer_features(prepared.input, prepared.x, train=roles.train)
    seen = np.concatenate([roles.train, roles.early_stop, roles.calibration])
    peers = peer_scores(features[seen], features[roles.test], seed=job.config.seed)
    return [
        _result(
            job,
            prepared,
            method=name,
            kind="peer",
            config_hash=job.hashes["peers"],
            figures={} if peer.scores is None else _peer_figures(peer.scores, job, prepared),
        )
        for name, peer in peers.items()
    ]


def _detector(
    name: str, job: Job, prepared: Prepared, trained: dict[Plan, _Trained]
) -> list[Result]:
    """Our row, then those of the other read-outs and of the control where they are wanted."""
    config = dataclasses.replace(job.config, detector=name)
    reused = [trained[plan] for plan in plans(config) if plan in trained]
    started = time.monotonic()
    learned = learn(
        config,
        prepared,
        run_dir=Path(tempfile.mkdtemp(dir=config.runs)),
        trained={plan: known.member for plan, known in trained.items()},
    )
    figures = _figures(learned.graph, config, prepared)
    seconds = time.monotonic() - started
    if job.is_single(name):
        trained[plans(config)[0]] = _Trained(learned.members[0], seconds)
    common: dict[str, Any] = {"config_hash": job.hashes[name], "readout": learned.readout}
    rows = [
        _result(
            job,
            prepared,
            method=name,
            kind="ours",
            figures=figures,
            seconds=seconds + sum(known.seconds for known in reused),
            **common,
        )
    ]
    if job.all_readouts and job.is_single(name):
        rows += _other_readouts(name, job, learned, prepared)
    if isinstance(prepared.input, ImageInput) if job.control is None else job.control:
        control = _figures(untrained(config, prepared), config, prepared)
        method = f"{name}/untrained"
        rows.append(
            _result(job, prepared, method=method, kind="control", figures=control, **common)
        )
    return rows


def _other_readouts(name: str, job: Job, learned: Learned, prepared: Prepared) -> list[Result]:
    """A row for each read-out that the trained detector offers beside the one in use.

    Read-outs that these data do not bear are left out.
    """
    detector = learned.members[0].detector
    early_stop = torch.from_numpy(prepared.x[prepared.roles.early_stop])
    rows = []
    for readout in detector.readout_names:
        if readout == detector.readout:
            continue
        try:
            fitted = detector.fit_readout(learned.train, learned.early_stop, name=readout)
            graph = ScoringGraph(learned.features, fitted, early_stop)
            figures = _figures(graph, job.config, prepared)
        except (AmissError, ValueError):
            continue
        rows.append(
            _result(
                job,
                prepared,
                method=f"{name}/{readout}",
                kind="readout",
                readout=readout,
                config_hash=job.hashes[name],
                figures=figures,
            )
        )
    return rows


def _result(
    job: Job,
    prepared: Prepared,
    *,
    method: str,
    kind: Kind,
    figures: Figures,
    config_hash: str,
    readout: str = "",
    seconds: float | None = None,
) -> Result:
    roles = prepared.roles
    hashes = json.dumps(prepared.split_hash, sort_keys=True)
    return Result(
        recipe=job.config.recipe or "",
        data=job.data,
        over=job.over,
        class_=job.class_,
        seed=job.config.seed,
        method=method,
        kind=kind,
        readout=readout,
        **{name: figures.get(name) for name in (*RANKING, *AT_THRESHOLD, "oracle_f1")},
        n_train=len(roles.train),
        n_seen=len(roles.train) + len(roles.early_stop) + len(roles.calibration),
        n_test=len(roles.test),
        prevalence=float(prepared.is_anomaly[roles.test].mean()),
        split_hash=hashlib.sha256(hashes.encode()).hexdigest()[:12],
        seconds=seconds,
        config_hash=config_hash,
        commit=job.commit,
    )


def _figures(graph: ScoringGraph, config: TrainConfig, prepared: Prepared) -> Figures:
    """What `train` would report: its threshold from the calibration rows, its test rows."""
    roles = prepared.roles
    decision, calibration = calibrate(
        _scores(graph, prepared.x[roles.calibration]),
        alarm_rate=config.alarm_rate,
        confidence=config.confidence,
    )
    metrics = evaluate(
        verdicts=DecisionRule(decision, calibration)(_scores(graph, prepared.x[roles.test])),
        is_anomaly=prepared.is_anomaly[roles.test],
        label=prepared.label[roles.test],
        decision=decision,
        oracle_flag_share=config.options.oracle_flag_share,
    )
    figures: Figures = {name: metrics[name] for name in (*RANKING, *AT_THRESHOLD)}
    return figures | _oracle(metrics["oracle_top_share"])


def _peer_figures(scores: NDArray[Any], job: Job, prepared: Prepared) -> Figures:
    is_anomaly = prepared.is_anomaly[prepared.roles.test]
    share = job.config.options.oracle_flag_share
    return {
        **ranking_metrics(scores, is_anomaly),
        **_oracle(oracle_top_share(scores, is_anomaly, share=share)),
    }


def _oracle(top_share: Mapping[str, Any] | None) -> Figures:
    return {"oracle_f1": None if top_share is None else top_share["f1"]}


def _scores(graph: ScoringGraph, x: NDArray[Any]) -> NDArray[np.float32]:
    """Scores (n,) of raw rows, in torch: nothing is exported."""
    with torch.inference_mode():
        parts = [graph(part)[0] for part in torch.split(torch.from_numpy(x), BATCH_ROWS)]
    return torch.cat(parts).numpy()
