"""A detector learns: Lightning runs the loop, the weights are averaged, the best epoch is kept."""

import dataclasses
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, Trainer, seed_everything
from torch import Tensor

from amiss_export.errors import BadInput
from amiss_training.averaging import Averaging
from amiss_training.batches import TrainingBatches, ValidationBatches
from amiss_training.checkpoints import LAST, History, Keeper, Patience, forget, to_resume
from amiss_training.checks import check_range
from amiss_training.compiling import compiled
from amiss_training.detectors.module import Detector
from amiss_training.logs import (
    GRID_COLUMNS,
    GuardedLogger,
    ImageGrids,
    LogName,
    loggers,
    names_of,
)
from amiss_training.progress import progress_lines
from amiss_training.trainer_options import lightnings_words, trainer_options

__all__ = ["LAST", "FitConfig", "Fitted", "check_config", "fit", "forget"]

VALIDATION_BATCH = 1024
ROWS_ON_DEVICE_BYTES = 2**30


@dataclass(frozen=True)
class FitConfig:
    """How the training loop runs; what Lightning's Trainer decides is under `trainer`.

    Args:
        batch_size: Rows in a training step, in each process.
        min_steps_per_epoch: A small set is gone through several times before it is validated.
        ema_decay: Decay of the averaged weights, which are the ones validated and exported.
        threads: CPU threads of the training process. Networks this small are fastest with one when
            anything else runs; raise it for large images on an idle machine.
        patience: Epochs without a better validation loss after which training stops.
        compile: Run encoder and decoder through torch.compile; needs a C++ compiler. Pays off on
            GPUs and in long runs: compiling takes tens of seconds.
        log: Where losses and image grids go: tensorboard, wandb, mlflow, none, or a list of them.
        image_grid_every_epochs: Epochs between two logged grids of images, reconstructions and
            samples; the last epoch is always logged.
    """

    batch_size: int = 128
    min_steps_per_epoch: int = 50
    ema_decay: float = 0.999
    patience: int = 10
    threads: int = 1
    compile: bool = False
    log: LogName | tuple[LogName, ...] = "tensorboard"
    image_grid_every_epochs: int = 5


@dataclass(frozen=True)
class Fitted:
    """History: one row of losses an epoch. Best: the epoch whose averaged weights were kept.

    limit: what ended training though the loss was still falling, e.g. 'trainer.max_epochs 60'; ''
    when patience ended it. is_main: False in the other processes of a distributed run, whose
    results nobody needs.
    """

    history: list[dict[str, float]]
    best_epoch: int
    resumed: bool
    is_main: bool
    limit: str = ""


def fit(
    detector: Detector,
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

    train, early_stop: features of disjoint normal rows. run_dir: where checkpoints and logs go.
    fingerprint: of settings and rows; `resume` refuses a checkpoint of another one. The same seed
    gives the same weights to the bit on a CPU, in a resumed run too.
    Raises BadInput for settings that cannot work, Lightning's included.
    """
    # 1. Refuse what cannot work before time is spent.
    check_config(config)
    options = trainer_options(trainer, detector)
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)  # hardware chatter and tips
    checkpoint = to_resume(run_dir, fingerprint) if resume else None

    # 2. Train.
    seed_everything(seed, verbose=False)
    history, averaging = History(fingerprint, seed=seed), Averaging(config.ema_decay)
    best = Keeper(run_dir, averaging)
    into = loggers(names_of(config.log), run_dir, resume=checkpoint is not None)
    with lightnings_words(), compiled(detector, enabled=config.compile):
        loop = Trainer(
            **options,
            logger=list(into),
            default_root_dir=run_dir,
            callbacks=[
                history,
                *_pictures(config, early_stop, into=into),
                averaging,
                *progress_lines(enabled=trainer.get("enable_progress_bar", True)),
                Patience(config.patience),
                best,
            ],
        )
        for logger in into:
            logger.log_hyperparams(_settings(detector, config, trainer, seed=seed))
        batches = TrainingBatches(
            _near(train, loop),
            batch_size=config.batch_size,
            min_steps=config.min_steps_per_epoch,
            seed=seed,
            epoch=lambda: loop.current_epoch,
        )
        loop.fit(
            detector,
            batches,
            ValidationBatches(_near(early_stop, loop), batch_size=VALIDATION_BATCH),
            ckpt_path=str(checkpoint) if checkpoint else None,
            weights_only=True,
        )

    # 3. Keep the best epoch.
    resumed = checkpoint is not None
    if not loop.is_global_zero:
        return Fitted(history.rows, best_epoch=-1, resumed=resumed, is_main=False)
    if not best.state:
        raise BadInput(
            "no epoch was trained and validated under these trainer settings; see "
            "trainer.max_epochs, max_steps, limit_val_batches and check_val_every_n_epoch"
        )
    detector.cpu().float().load_state_dict(best.state)  # trainer.precision may have changed it
    waited = len(history.rows) - 1 - best.epoch
    limit = "" if waited >= config.patience else _limit(loop)
    return Fitted(history.rows, best_epoch=best.epoch, resumed=resumed, is_main=True, limit=limit)


def check_config(config: FitConfig) -> None:
    """Nothing; raises BadInput naming the option that cannot work, and its value."""
    check_range("fit.batch_size", config.batch_size, 1)
    check_range("fit.min_steps_per_epoch", config.min_steps_per_epoch, 0)
    check_range("fit.ema_decay", config.ema_decay, 0, 1)
    check_range("fit.patience", config.patience, 0)
    check_range("fit.threads", config.threads, 1)
    check_range("fit.image_grid_every_epochs", config.image_grid_every_epochs, 1)
    names_of(config.log)


def _pictures(config: FitConfig, images: Tensor, *, into: list[GuardedLogger]) -> list[Callback]:
    """The callback that logs image grids, for images and where there is a log."""
    if images.ndim != 4 or not into:
        return []
    every = config.image_grid_every_epochs
    return [ImageGrids(images[:GRID_COLUMNS], every_epochs=every, loggers=into)]


def _settings(
    detector: Detector, config: FitConfig, trainer: dict[str, Any], *, seed: int
) -> dict[str, Any]:
    """What a log shows beside the losses."""
    own: Any = getattr(detector, "config", None)
    return {
        "seed": seed,
        "fit": dataclasses.asdict(config),
        "trainer": trainer,
        type(detector).__name__.lower(): dataclasses.asdict(own) if own else {},
    }


def _limit(loop: Trainer) -> str:
    """The setting that ended training."""
    if loop.max_epochs is not None and 0 <= loop.max_epochs <= loop.current_epoch:
        return f"trainer.max_epochs {loop.max_epochs}"
    if 0 <= loop.max_steps <= loop.global_step:
        return f"trainer.max_steps {loop.max_steps}"
    return "trainer.max_time" if loop.should_stop else ""


def _near(rows: Tensor, loop: Trainer) -> Tensor:
    """The rows on the device that learns from them, where they fit beside the network."""
    if rows.nbytes > ROWS_ON_DEVICE_BYTES:
        return rows
    return rows.to(loop.strategy.root_device)
