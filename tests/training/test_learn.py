"""From rows to a scoring graph: members, ensembles, the untrained control."""

from pathlib import Path
from typing import Any

import pytest
import torch

from amiss_export.errors import BadInput
from amiss_training.config import TrainConfig
from amiss_training.data import Prepared
from amiss_training.data.augment import AugmentConfig
from amiss_training.detectors import CONFIGS, DETECTORS, EnsembleConfig
from amiss_training.fit import LAST, FitConfig
from amiss_training.learn import forget_runs, learn, plans, untrained

QUICK: dict[str, Any] = {"max_epochs": 2, "enable_progress_bar": False, "accelerator": "cpu"}
FIT = FitConfig(batch_size=64, min_steps_per_epoch=5, ema_decay=0.9, log="none")


def config(detector: str, **more: Any) -> TrainConfig:
    return TrainConfig(name="quick", detector=detector, fit=FIT, trainer=QUICK, **more)


def test_every_detector_has_options_of_its_name() -> None:
    """Each name in the registry is a group of options and a field of the run's settings."""
    for name in (*DETECTORS, "ensemble"):
        assert isinstance(getattr(TrainConfig(name="x"), name), CONFIGS[name])  # type: ignore[arg-type]  # a class


@pytest.mark.parametrize("detector", sorted(DETECTORS))
def test_a_graph_scores_raw_rows_and_ranks_the_anomalies(
    line_table: Prepared, detector: str, tmp_path: Path
) -> None:
    """Every detector's graph gives (score, reconstruction) of raw rows, anomalies above normals."""
    learned = learn(config(detector), line_table, run_dir=tmp_path)
    with torch.no_grad():
        score, reconstruction = learned.graph(torch.from_numpy(line_table.x))
    assert reconstruction.shape == line_table.x.shape
    assert score.dtype == torch.float32
    assert score[-40:].median() > score[:-40].quantile(0.9)


def test_an_ensemble_trains_every_member_from_weights_of_its_own(
    line_table: Prepared, tmp_path: Path
) -> None:
    """Two seeds of one detector are two members with different weights, averaged in one graph."""
    twice = config("ensemble", ensemble=EnsembleConfig(members=("vae",), seeds=2))
    learned = learn(twice, line_table, run_dir=tmp_path)
    first, second = (member.detector.state_dict() for member in learned.members)
    assert [member.name for member in learned.members] == ["vae-0", "vae-1"]
    assert any(not torch.equal(first[key], second[key]) for key in first)
    with torch.no_grad():
        assert torch.isfinite(learned.graph(torch.from_numpy(line_table.x))[0]).all()


def test_an_ensemble_of_one_is_that_detector(line_table: Prepared, tmp_path: Path) -> None:
    """Its member has the weights that the detector alone has under the same seed."""
    one = config("ensemble", ensemble=EnsembleConfig(members=("vae",)))
    alone = learn(config("vae"), line_table, run_dir=tmp_path / "alone").members[0].detector
    member = learn(one, line_table, run_dir=tmp_path / "member").members[0].detector
    for key, value in alone.state_dict().items():
        assert torch.equal(value, member.state_dict()[key])


def test_the_control_has_learned_nothing(line_table: Prepared, tmp_path: Path) -> None:
    """Its scores are those of the initial weights: training changes them, its length does not."""
    longer = TrainConfig(name="x", fit=FIT, trainer=QUICK | {"max_epochs": 9})
    x = torch.from_numpy(line_table.x)
    with torch.no_grad():
        control = untrained(config("vae"), line_table)(x)[0]
        assert torch.equal(control, untrained(longer, line_table)(x)[0])
        learned = learn(config("vae"), line_table, run_dir=tmp_path)
        assert not torch.allclose(control, learned.graph(x)[0])


def test_threads_that_torch_would_choke_on_are_refused(
    line_table: Prepared, tmp_path: Path
) -> None:
    """No thread at all is refused by the key before torch hears of it."""
    wrong = TrainConfig(name="x", fit=FitConfig(threads=0))
    with pytest.raises(BadInput, match=r"'fit\.threads' must be >= 1, got 0"):
        learn(wrong, line_table, run_dir=tmp_path)


def test_a_run_that_ended_well_leaves_no_checkpoint(line_table: Prepared, tmp_path: Path) -> None:
    """Each member's checkpoint is there after learning and gone once it is forgotten."""
    settings = config("vae")
    learn(settings, line_table, run_dir=tmp_path)
    assert (tmp_path / "vae" / LAST).exists()
    forget_runs(settings, tmp_path)
    assert not list(tmp_path.rglob("*.ckpt"))


def test_an_unknown_detector_is_refused_with_the_names_there_are() -> None:
    """The message lists the registry and the ensemble."""
    with pytest.raises(BadInput, match=r"no detector 'gan'; there are: .*vae.*, ensemble"):
        plans(config("gan"))


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (EnsembleConfig(seeds=0), r"'ensemble\.seeds' must be >= 1, got 0"),
        (EnsembleConfig(members=()), r"'ensemble\.members' must name detectors"),
        (EnsembleConfig(members=("vae", "vae")), r"each once"),
    ],
)
def test_an_ensemble_that_cannot_be_is_refused(wrong: EnsembleConfig, message: str) -> None:
    """No member, a member twice and no seed are refused by the key."""
    with pytest.raises(BadInput, match=message):
        plans(config("ensemble", ensemble=wrong))


def test_rows_are_not_augmented(line_table: Prepared, tmp_path: Path) -> None:
    """Copies of table rows are refused by the key instead of being passed over."""
    with pytest.raises(BadInput, match=r"'augment\.copies' is for images"):
        learn(config("vae", augment=AugmentConfig(copies=1)), line_table, run_dir=tmp_path)
