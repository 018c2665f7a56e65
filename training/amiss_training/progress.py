"""One line on the terminal while a detector learns."""

import time
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

REDRAW_EVERY_S = 0.25


class ProgressLine(Callback):
    """The epoch, its steps and the last epoch's losses.

    Redrawn by the clock and not by the step: drawing takes longer than a step on a small table.
    """

    def __init__(self, console: Console) -> None:
        self._drawn_s = 0.0
        self.line = Progress(
            TextColumn("epoch {task.fields[epoch]}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("{task.fields[losses]}"),
            console=console,
            auto_refresh=False,
        )
        self._task = self.line.add_task("", epoch=0, losses="")

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.line.start()

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        total, epoch = int(trainer.num_training_batches), trainer.current_epoch
        self.line.update(self._task, completed=0, total=total, epoch=epoch)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if time.monotonic() - self._drawn_s < REDRAW_EVERY_S:
            return
        self._drawn_s = time.monotonic()
        self.line.update(self._task, completed=batch_idx + 1, refresh=True)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        losses = sorted(trainer.callback_metrics.items(), key=lambda item: item[0], reverse=True)
        shown = "  ".join(f"{name} {float(value):.4g}" for name, value in losses)
        self.line.update(self._task, losses=shown)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.line.update(self._task, completed=self.line.tasks[0].total, refresh=True)
        self.line.stop()

    def on_exception(
        self, trainer: Trainer, pl_module: LightningModule, exception: BaseException
    ) -> None:
        self.line.stop()


def progress_lines(*, enabled: bool) -> list[Callback]:
    """One line on standard error where that is a terminal, none elsewhere."""
    console = Console(stderr=True)
    return [ProgressLine(console)] if enabled and console.is_terminal else []
