"""Logs: TensorBoard's files, the other loggers, and what happens when one of them fails."""

import contextlib
import logging
import re
import sqlite3
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import Tensor

from amiss_export.errors import BadInput
from amiss_training.detectors.vae import Vae, VaeConfig
from amiss_training.fit import FitConfig, Fitted, fit
from amiss_training.logs import GuardedLogger, image_grid, loggers, names_of

GRID = "inputs_reconstructions_samples"


def images(n: int, *, seed: int) -> Tensor:
    return torch.rand(n, 1, 8, 8, generator=torch.Generator().manual_seed(seed))


def small() -> Vae:
    torch.manual_seed(0)
    return Vae(VaeConfig(hidden=(4, 8), latent_dim=2), shape=(1, 8, 8))


def train(folder: Path, *, epochs: int = 3, resume: bool = False, **config: Any) -> Fitted:
    return fit(
        small(),
        train=images(40, seed=1),
        early_stop=images(16, seed=2),
        config=FitConfig(batch_size=20, min_steps_per_epoch=2, **config),
        trainer={"accelerator": "cpu", "enable_progress_bar": False, "max_epochs": epochs},
        run_dir=folder,
        fingerprint="same",
        seed=0,
        resume=resume,
    )


def events(folder: Path) -> EventAccumulator:
    found = EventAccumulator(str(folder), size_guidance={"images": 0, "scalars": 0})
    found.Reload()
    return found


def test_tensorboard_has_the_losses_of_every_epoch(tmp_path: Path) -> None:
    """By default every term of the history is a scalar in version_0, with its value each epoch."""
    fitted = train(tmp_path)
    found = events(tmp_path / "version_0")
    for term in set(fitted.history[0]) - {"epoch"}:
        values = [event.value for event in found.Scalars(term)]
        assert values == pytest.approx([row[term] for row in fitted.history], rel=1e-6)


@pytest.mark.parametrize(("every", "steps"), [(5, [2, 12, 14]), (2, [2, 6, 10, 14]), (99, [2, 14])])
def test_image_grids_come_every_few_epochs_and_last(
    every: int, steps: list[int], tmp_path: Path
) -> None:
    """Seven epochs of two steps: a grid after the first, every few epochs, and after the last."""
    train(tmp_path, epochs=7, image_grid_every_epochs=every)
    assert [event.step for event in events(tmp_path / "version_0").Images(GRID)] == steps


def test_a_resumed_run_goes_on_in_the_same_folder(tmp_path: Path) -> None:
    """Resuming adds to version_0; a run from the start begins version_1."""
    train(tmp_path, epochs=2)
    train(tmp_path, epochs=3, resume=True)
    assert [path.name for path in tmp_path.glob("version_*")] == ["version_0"]
    assert len(events(tmp_path / "version_0").Scalars("val_loss")) == 3
    train(tmp_path, epochs=1)
    assert {path.name for path in tmp_path.glob("version_*")} == {"version_0", "version_1"}


def test_none_logs_nothing(tmp_path: Path) -> None:
    """With log none the run's folder has no event file."""
    train(tmp_path, log="none")
    assert not list(tmp_path.rglob("*tfevents*"))


def test_a_grid_has_inputs_reconstructions_and_samples() -> None:
    """Three rows of images beside each other, cut out again, are x, E[x|z] and decoded draws."""
    vae, x = small(), images(5, seed=3)
    grid = image_grid(vae, x)
    assert grid.shape == (1, 3 * 8, 5 * 8)
    z = torch.randn(5, 2, generator=torch.Generator().manual_seed(0))
    for row, expected in enumerate((x, vae.reconstruct(x), vae.sample(z))):
        for column in range(5):
            part = grid[:, 8 * row : 8 * row + 8, 8 * column : 8 * column + 8]
            torch.testing.assert_close(part, expected[column].clamp(0, 1))


def test_a_failing_logger_is_given_up_once(caplog: pytest.LogCaptureFixture) -> None:
    """The first failure is one warning with its reason; later calls do nothing."""
    calls: list[int] = []

    def make() -> Any:
        calls.append(1)
        raise OSError("disk full")

    logger = GuardedLogger("tensorboard", make)
    with caplog.at_level(logging.WARNING, logger="amiss_training.logs"):
        for _ in range(3):
            logger.log_metrics({"loss": 1.0}, step=0)
    assert calls == [1]
    assert [record.getMessage() for record in caplog.records] == [
        "logging to tensorboard has stopped, training goes on: disk full"
    ]


def test_a_folder_that_cannot_be_written_is_given_up(tmp_path: Path) -> None:
    """Where TensorBoard's folder leads to itself, its logger has failed and nothing is raised."""
    (tmp_path / "version_0").symlink_to("version_0")
    (logger,) = loggers(["tensorboard"], tmp_path, resume=True)
    logger.log_hyperparams({"seed": 0})
    assert logger.failed


@pytest.mark.parametrize(
    ("log", "message"),
    [
        ("paper", r"'fit\.log' must be of tensorboard, wandb, mlflow, none, got paper"),
        (("tensorboard", "paper"), r"got paper"),
    ],
)
def test_an_unknown_log_is_refused(log: Any, message: str) -> None:
    """The message lists those there are."""
    with pytest.raises(BadInput, match=message):
        names_of(log)


@pytest.mark.parametrize("package", ["wandb", "mlflow"])
def test_a_missing_package_is_named(package: Any) -> None:
    """Without the package the message is how to install it."""
    with pytest.raises(BadInput, match=f"pip install {package}"):
        names_of(package, is_installed=lambda _: False)


def test_several_logs_are_a_list() -> None:
    """A name, a list of names and none are all understood."""
    assert names_of("tensorboard") == ("tensorboard",)
    assert names_of(["tensorboard", "none"]) == ("tensorboard",)
    assert names_of("none") == ()


def test_wandb_works_offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With WANDB_MODE=offline the run is written under the run's folder and nothing is sent."""
    pytest.importorskip("wandb", reason="W&B is not installed")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    train(tmp_path, log="wandb")
    assert list(tmp_path.rglob("offline-run-*/*.wandb"))
    assert len(list(tmp_path.rglob(f"{GRID}*.png"))) == 2


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # MLflow's use of SQLAlchemy
def test_mlflow_has_losses_and_grids(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a tracking server the run is written under the run's folder."""
    pytest.importorskip("mlflow", reason="MLflow is not installed")
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    fitted = train(tmp_path, log="mlflow")
    with contextlib.closing(sqlite3.connect(tmp_path / "mlflow.db")) as database:
        select = "select value from metrics where key = 'val_loss' order by step"
        values = [value for (value,) in database.execute(select)]
    assert values == pytest.approx([row["val_loss"] for row in fitted.history], rel=1e-6)
    grids = [path.name for path in tmp_path.rglob(f"{GRID}*.png")]
    assert sorted(re.findall(r"-(\d+)\.png", " ".join(grids))) == ["000002", "000006"]


def test_a_grid_is_clamped() -> None:
    """Whatever the network says, pixels of a grid are within 0..1."""
    grid = image_grid(small(), images(3, seed=4) * 4 - 2)
    assert np.all((grid.numpy() >= 0) & (grid.numpy() <= 1))
