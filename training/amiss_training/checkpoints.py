"""What a run keeps while it goes on: the losses, the best weights, a file to go on from."""

import logging
import time
from pathlib import Path
from typing import Any, cast

import torch
from lightning.pytorch import Callback, LightningModule, Trainer, seed_everything
from lightning.pytorch.callbacks import Checkpoint, EarlyStopping
from torch import Tensor

from amiss_export.errors import BadInput
from amiss_training.averaging import Averaging
from amiss_training.batches import derived_seed
from amiss_training.detectors.module import Detector

LAST = "last.ckpt"
SAVE_AT_MOST = 0.05  # share of the time that may go into writing checkpoints


class History(Callback):
    """Collects the mean losses of every epoch, for loggers and checkpoints too.

    Seeds every epoch by its number, so that a resumed run goes on as if it had not stopped, and
    has the epoch that trainer.max_steps cuts short validated.
    """

    def __init__(self, fingerprint: str, *, seed: int) -> None:
        self.fingerprint, self.seed = fingerprint, seed
        self.rows: list[dict[str, float]] = []

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        seed = derived_seed(self.seed, trainer.current_epoch, 1 + trainer.global_rank)
        seed_everything(seed, verbose=False)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if trainer.global_step == trainer.max_steps:
            trainer.should_stop = True  # or Lightning would leave without validating

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        _log_means(pl_module, "val")

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        _log_means(pl_module, "train")
        losses = {name: float(value) for name, value in trainer.callback_metrics.items()}
        self.rows.append({"epoch": float(trainer.current_epoch), **losses})

    def state_dict(self) -> dict[str, Any]:
        return {"rows": self.rows, "fingerprint": self.fingerprint}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.rows = state_dict["rows"]


class Patience(EarlyStopping):
    """Ends training after so many epochs without a better validation loss."""

    state_key = "Patience"  # Lightning's spells out the options, and is asked for at every hook

    def __init__(self, epochs: int) -> None:
        super().__init__("val_loss", patience=epochs, strict=False)


class Keeper(Checkpoint):
    """Keeps the averaged weights of the lowest validation loss, and writes a file to go on from.

    The file is written at the end of epochs, as often as takes a twentieth of the time, and when
    training ends. Lightning calls it after every other callback, so their state is up to date.
    """

    def __init__(self, run_dir: Path, averaging: Averaging) -> None:
        self.path, self.averaging = run_dir / LAST, averaging
        self.epoch, self.loss = -1, float("inf")
        self.state: dict[str, Tensor] = {}
        self._next_save_s = 0.0

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        loss = float(trainer.callback_metrics["val_loss"])
        if trainer.sanity_checking or loss >= self.loss:
            return
        state = self.averaging.averaged_state(pl_module)
        self.state = {name: value.to("cpu", copy=True) for name, value in state.items()}
        self.epoch, self.loss = trainer.current_epoch, loss

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.strategy.broadcast(time.monotonic() >= self._next_save_s):
            self._save(trainer)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._save(trainer)

    def state_dict(self) -> dict[str, Any]:
        return {"epoch": self.epoch, "loss": self.loss, "state": self.state}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.epoch, self.loss = state_dict["epoch"], state_dict["loss"]
        self.state = state_dict["state"]

    def _save(self, trainer: Trainer) -> None:
        started_s = time.monotonic()
        trainer.save_checkpoint(self.path)
        ended_s = time.monotonic()
        self._next_save_s = ended_s + (ended_s - started_s) / SAVE_AT_MOST


def to_resume(run_dir: Path, fingerprint: str) -> Path | None:
    """The checkpoint to go on from; None, said aloud, when there is none.

    Raises BadInput for one that cannot be read or belongs to another fingerprint.
    """
    path = run_dir / LAST
    if not path.exists():
        logging.getLogger(__name__).info("nothing to resume in %s: starting anew", run_dir)
        return None
    try:
        saved = torch.load(path, map_location="cpu", weights_only=True)
        found = saved["callbacks"][History.__name__]["fingerprint"]
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


def forget(run_dir: Path) -> None:
    """Nothing; removes the checkpoint of a run that ended well."""
    (run_dir / LAST).unlink(missing_ok=True)


def _log_means(pl_module: LightningModule, stage: str) -> None:
    pl_module.log_dict(cast("Detector", pl_module).take_means(stage), sync_dist=True)
