"""A detector learns: Lightning runs the loop, the weights are averaged, the best epoch is kept."""

import logging
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import LightningModule, Trainer, seed_everything
from lightning.pytorch.callbacks import (
    Callback,
    EarlyStopping,
    ModelCheckpoint,
    RichProgressBar,
    WeightAveraging,
)
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, RandomSampler

from amiss_export.errors import BadInput
from amiss_training.checks import check_range

LAST = "last.ckpt"
TRAINER_DEFAULTS: dict[str, Any] = {
    "max_epochs": 100,
    "accelerator": "auto",
    "devices": 1,
    "gradient_clip_val": 5.0,
    "logger": False,
    "enable_model_summary": False,
    "num_sanity_val_steps": 0,
}


@dataclass(frozen=True)
class FitConfig:
    """How the training loop runs; what Lightning's Trainer decides is under `trainer`.

    Args:
        batch_size: Rows in a training step.
        min_steps_per_epoch: A small set is gone through several times before it is validated.
        ema_decay: Decay of the averaged weights, which are the ones validated and exported.
        threads: CPU threads of the training process. Networks this small are fastest with one when
            anything else runs; raise it for large images on an idle machine.
        patience: Epochs without a better validation loss after which training stops.
    """

    batch_size: int = 128
    min_steps_per_epoch: int = 50
    ema_decay: float = 0.999
    patience: int = 10
    threads: int = 1


@dataclass(frozen=True)
class Fitted:
    """History: one row of losses an epoch. Best: the epoch whose averaged weights were kept.

    is_main: False in the other processes of a distributed run, whose results nobody needs.
    """

    history: list[dict[str, float]]
    best_epoch: int
    resumed: bool
    is_main: bool


def fit(
    detector: LightningModule,
    *,
    train: Tensor,
    early_stop: Tensor,
    config: FitConfig,
    trainer: dict[str, Any],
    run_dir: Path,
    fingerprint: str,
    seed: int,
    resume: bool = False,
) -> Fitted:
    """What happened; leaves the averaged weights of the best epoch in `detector`.

    train, early_stop: features of disjoint normal rows. run_dir: where checkpoints go.
    fingerprint: of settings and rows; `resume` refuses a checkpoint of another one.
    Raises BadInput for settings that cannot work, Lightning's included.
    """
    check_config(config)
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)  # hardware chatter and tips
    seed_everything(seed, verbose=False)
    checkpoint = _checkpoint_to_resume(run_dir, fingerprint) if resume else None
    best = ModelCheckpoint(
        run_dir, filename="best", monitor="val_loss", save_last=True, enable_version_counter=False
    )
    history = _History(fingerprint)
    with _lightnings_words():
        loop = Trainer(
            **(TRAINER_DEFAULTS | trainer),
            default_root_dir=run_dir,
            callbacks=[
                history,
                EarlyStopping("val_loss", patience=config.patience, strict=False),
                _averaging(config.ema_decay),
                best,
                *([RichProgressBar()] if trainer.get("enable_progress_bar", True) else []),
            ],
        )
        loop.fit(
            detector,
            _training_batches(train, config),
            _batches(early_stop, 1024),
            ckpt_path=str(checkpoint) if checkpoint else None,
            weights_only=True,
        )
    if not loop.is_global_zero:
        return Fitted(history.rows, best_epoch=-1, resumed=checkpoint is not None, is_main=False)
    if not best.best_model_path:
        raise BadInput(
            "no epoch was trained and validated under these trainer settings; see "
            "trainer.max_epochs, max_steps, fast_dev_run, limit_val_batches and "
            "check_val_every_n_epoch"
        )
    kept = torch.load(best.best_model_path, map_location="cpu", weights_only=True)
    detector.cpu().load_state_dict(kept["state_dict"])
    return Fitted(
        history=history.rows,
        best_epoch=int(kept["epoch"]),
        resumed=checkpoint is not None,
        is_main=True,
    )


def check_config(config: FitConfig) -> None:
    """Nothing; raises BadInput naming the option that cannot work, and its value."""
    check_range("fit.batch_size", config.batch_size, 1)
    check_range("fit.min_steps_per_epoch", config.min_steps_per_epoch, 0)
    check_range("fit.ema_decay", config.ema_decay, 0, 1)
    check_range("fit.patience", config.patience, 0)
    check_range("fit.threads", config.threads, 1)


def forget(run_dir: Path) -> None:
    """Nothing; removes the checkpoints of a run that ended well."""
    for name in ("best.ckpt", LAST):
        (run_dir / name).unlink(missing_ok=True)


@contextmanager
def _lightnings_words() -> Iterator[None]:
    """Leaves out the advice that does not apply, and makes a wrong setting one line."""
    with warnings.catch_warnings():
        for message in _LIGHTNING_ADVICE:
            warnings.filterwarnings("ignore", message)
        try:
            yield
        except MisconfigurationException as error:
            raise BadInput(f"trainer: {' '.join(str(error).split())}") from error


class _History(Callback):
    """Collects the losses of every epoch and carries them through a checkpoint."""

    def __init__(self, fingerprint: str) -> None:
        self.fingerprint = fingerprint
        self.rows: list[dict[str, float]] = []

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        losses = {name: float(value) for name, value in trainer.callback_metrics.items()}
        self.rows.append({"epoch": float(trainer.current_epoch), **losses})

    def state_dict(self) -> dict[str, Any]:
        return {"rows": self.rows, "fingerprint": self.fingerprint}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.rows = state_dict["rows"]


class _Rows(Dataset[Tensor]):
    """Rows of one tensor, gathered a batch at a time."""

    def __init__(self, rows: Tensor) -> None:
        self.rows = rows

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> Tensor:
        return self.rows[index]

    def __getitems__(self, indices: Sequence[int]) -> Tensor:
        return self.rows[torch.as_tensor(indices)]


def _training_batches(rows: Tensor, config: FitConfig) -> DataLoader[Tensor]:
    drawn = max(len(rows), config.min_steps_per_epoch * config.batch_size)
    return _batches(rows, config.batch_size, sampler=RandomSampler(rows, num_samples=drawn))


def _batches(
    rows: Tensor, batch_size: int, *, sampler: RandomSampler | None = None
) -> DataLoader[Tensor]:
    return DataLoader(_Rows(rows), batch_size, sampler=sampler, collate_fn=_as_gathered)


def _as_gathered(batch: Any) -> Any:
    """The batch itself: `__getitems__` has gathered it already."""
    return batch


def _averaging(decay: float) -> WeightAveraging:
    """Exponential moving average whose memory grows with the number of steps, up to `decay`."""

    def average(averaged: Tensor, current: Tensor, steps: Tensor | int) -> Tensor:
        return averaged.lerp(
            current, 1.0 - min(decay, (1.0 + float(steps)) / (10.0 + float(steps)))
        )

    return WeightAveraging(use_buffers=False, avg_fn=average)


def _checkpoint_to_resume(run_dir: Path, fingerprint: str) -> Path | None:
    path = run_dir / LAST
    if not path.exists():
        logging.getLogger(__name__).info("nothing to resume in %s: starting anew", run_dir)
        return None
    try:
        saved = torch.load(path, map_location="cpu", weights_only=True)
        found = saved["callbacks"]["_History"]["fingerprint"]
    except Exception as error:  # torch raises a dozen kinds for a torn or foreign file
        raise BadInput(
            f"{path} is no checkpoint of ours: {error}; delete it or train without --resume"
        ) from error
    if found != fingerprint:
        raise BadInput(
            f"{path} was written with other settings or other data; repeat those, "
            "or train without --resume"
        )
    return path


# Lightning's hints that do not apply to batches gathered from memory.
_LIGHTNING_ADVICE = (
    r".*does not have many workers.*",
    r".*number of training batches .* is smaller than the logging interval.*",
    r".*Checkpoint directory .* exists and is not empty.*",
    r".*`max_epochs` was not set.*",
    r".*GPU available but not used.*",
    r".*isinstance\(treespec, LeafSpec\).*",
)
