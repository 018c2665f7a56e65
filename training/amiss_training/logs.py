"""Where losses and image grids go while a detector learns: TensorBoard, W&B, MLflow."""

import logging
import os
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal, get_args

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.loggers import Logger, MLFlowLogger, TensorBoardLogger, WandbLogger
from lightning.pytorch.utilities import rank_zero_only
from torch import Tensor

from amiss_export.errors import BadInput

LogName = Literal["tensorboard", "wandb", "mlflow", "none"]
PACKAGES = {  # the full mlflow refuses our pyarrow; this much writes to its store
    "tensorboard": "tensorboard",
    "wandb": "wandb",
    "mlflow": "mlflow-skinny sqlalchemy alembic",
}
PROJECT = "amiss"
GRID_COLUMNS = 8


def names_of(
    log: LogName | Sequence[LogName],
    *,
    is_installed: Callable[[str], Any] = find_spec,
) -> tuple[LogName, ...]:
    """The loggers asked for, none left out.

    Raises BadInput for an unknown name, and naming the package for one that is not installed.
    """
    names: tuple[Any, ...] = (log,) if isinstance(log, str) else tuple(log)
    for name in names:
        if name not in get_args(LogName):
            raise BadInput(
                f"config 'fit.log' must be of {', '.join(get_args(LogName))}, got {name}"
            )
        if name != "none" and not is_installed(name):
            raise BadInput(
                f"fit.log {name} needs packages not installed here: pip install {PACKAGES[name]}"
            )
    return tuple(name for name in names if name != "none")


def loggers(names: Sequence[LogName], run_dir: Path, *, resume: bool) -> list["GuardedLogger"]:
    """A guarded logger for each name, all of them writing under run_dir unless told otherwise.

    resume: TensorBoard goes on in the folder of the run before. W&B obeys WANDB_MODE (offline),
    MLflow MLFLOW_TRACKING_URI.
    """
    title = "/".join(run_dir.parts[-2:])
    make: dict[str, Callable[[], Logger]] = {
        "tensorboard": lambda: TensorBoardLogger(
            run_dir, name="", version=_version(run_dir, resume=resume)
        ),
        "wandb": lambda: WandbLogger(name=title, save_dir=run_dir, project=PROJECT),
        "mlflow": lambda: MLFlowLogger(
            experiment_name=PROJECT,
            run_name=title,
            tracking_uri=os.environ.get("MLFLOW_TRACKING_URI", f"sqlite:///{run_dir}/mlflow.db"),
            artifact_location=None if "MLFLOW_TRACKING_URI" in os.environ else str(run_dir),
        ),
    }
    return [GuardedLogger(name, make[name]) for name in names]


class GuardedLogger(Logger):
    """A logger that gives up, said once, where the one it stands for fails: the run goes on."""

    def __init__(self, name: LogName, make: Callable[[], Logger]) -> None:
        super().__init__()
        self._name, self._make = name, make
        self._inner: Logger | None = None
        self.failed = False

    @property
    def name(self) -> str:
        return self._name

    @property
    def version(self) -> str:
        return ""

    @rank_zero_only
    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        self._guard(lambda inner: inner.log_metrics(metrics, step))

    @rank_zero_only
    def log_hyperparams(self, params: Any, *args: Any, **kwargs: Any) -> None:
        self._guard(lambda inner: inner.log_hyperparams(params))

    @rank_zero_only
    def log_image(self, key: str, image: Tensor, *, step: int) -> None:
        """Nothing; image: (c, h, w) in 0..1."""
        self._guard(lambda inner: _log_image(inner, key, image, step=step))

    @rank_zero_only
    def save(self) -> None:
        self._guard(lambda inner: inner.save())

    @rank_zero_only
    def finalize(self, status: str) -> None:
        self._guard(lambda inner: inner.finalize(status))

    def _guard(self, act: Callable[[Logger], object]) -> None:
        if self.failed:
            return
        try:
            self._inner = self._inner or self._make()
            act(self._inner)
        except Exception as error:  # networks, disks and three libraries fail in many ways
            self.failed = True
            logging.getLogger(__name__).warning(
                "logging to %s has stopped, training goes on: %s", self._name, error
            )


class ImageGrids(Callback):
    """Every few epochs, and at the end, a picture: images, their reconstructions, samples.

    Made of the averaged weights, those that are exported. images: (n, c, h, w) in 0..1.
    """

    def __init__(self, images: Tensor, *, every_epochs: int, loggers: list[GuardedLogger]) -> None:
        self.images, self.every_epochs, self.loggers = images, every_epochs, loggers
        self._pending: tuple[Tensor, int] | None = None

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._pending = image_grid(pl_module, self.images), trainer.global_step
        if trainer.current_epoch % self.every_epochs == 0:
            self._log()

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._log()

    def _log(self) -> None:
        if self._pending is None:
            return
        grid, step = self._pending
        for logger in self.loggers:
            logger.log_image("inputs_reconstructions_samples", grid, step=step)
        self._pending = None


def image_grid(detector: Any, images: Tensor) -> Tensor:
    """One image (c, 3 h, n w): rows of images, of their reconstructions, and of samples."""
    x = images.to(detector.device)
    z = torch.randn(len(x), detector.latent_dim, generator=torch.Generator().manual_seed(0))
    rows = torch.stack([x, detector.reconstruct(x), detector.sample(z.to(x.device))])
    _, _, channels, height, width = rows.shape
    grid = rows.permute(2, 0, 3, 1, 4).reshape(channels, 3 * height, len(x) * width)
    return grid.float().clamp(0, 1).cpu()


def _log_image(logger: Logger, key: str, image: Tensor, *, step: int) -> None:
    if isinstance(logger, TensorBoardLogger):
        logger.experiment.add_image(key, image, step)
        return
    pixels = (image * 255).round().byte().permute(1, 2, 0).numpy()
    pixels = pixels.repeat(3, axis=2) if pixels.shape[2] == 1 else pixels
    if isinstance(logger, WandbLogger):
        logger.log_image(key, [pixels], step)
    elif isinstance(logger, MLFlowLogger):
        logger.experiment.log_image(logger.run_id, pixels, f"{key}-{step:06d}.png")


def _version(run_dir: Path, *, resume: bool) -> int:
    """TensorBoard's folder version_N: a new one, or the last one again when resuming."""
    found = [int(path.name.removeprefix("version_")) for path in run_dir.glob("version_[0-9]*")]
    return max(found, default=0) if resume else max(found, default=-1) + 1
