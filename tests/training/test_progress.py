"""The line on the terminal."""

import io
from types import SimpleNamespace
from typing import Any

import torch
from rich.console import Console

from amiss_training.progress import ProgressLine, progress_lines


def test_the_line_has_epoch_steps_and_losses() -> None:
    """After an epoch of 40 steps it shows the epoch, 40/40 and each loss by name."""
    written = io.StringIO()
    line: Any = ProgressLine(Console(file=written, force_terminal=True, width=200))
    trainer = SimpleNamespace(
        num_training_batches=40,
        current_epoch=3,
        callback_metrics={"train_loss": torch.tensor(1.5), "val_loss": torch.tensor(0.25)},
    )
    line.on_train_start(trainer, None)
    line.on_train_epoch_start(trainer, None)
    line.on_train_batch_end(trainer, None, None, None, 0)
    line.on_train_epoch_end(trainer, None)
    line.on_train_end(trainer, None)
    for part in ("epoch 3", "40/40", "val_loss 0.25", "train_loss 1.5"):
        assert part in written.getvalue()


def test_a_line_is_not_redrawn_at_every_step() -> None:
    """A thousand steps that take no time are drawn a few times, not a thousand."""
    written = io.StringIO()
    line: Any = ProgressLine(Console(file=written, force_terminal=True, width=200))
    trainer = SimpleNamespace(num_training_batches=1000, current_epoch=0, callback_metrics={})
    line.on_train_start(trainer, None)
    line.on_train_epoch_start(trainer, None)
    for step in range(1000):
        line.on_train_batch_end(trainer, None, None, None, step)
    line.on_train_end(trainer, None)
    assert written.getvalue().count("epoch 0") < 20


def test_without_a_terminal_there_is_no_line() -> None:
    """In a pipe, or when switched off, nothing is drawn."""
    assert progress_lines(enabled=False) == []
    assert progress_lines(enabled=True) == []
