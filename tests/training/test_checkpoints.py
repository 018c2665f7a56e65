"""The file to go on from: how often it is written, and what is kept as the best."""

import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from torch import nn

from amiss_training.averaging import Averaging
from amiss_training.checkpoints import Keeper


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(2))


def trainer(**more: Any) -> Any:
    strategy = SimpleNamespace(broadcast=lambda due: due)
    return SimpleNamespace(strategy=strategy, sanity_checking=False, current_epoch=0, **more)


def test_checkpoints_take_a_twentieth_of_the_time(tmp_path: Path) -> None:
    """Of epochs ending all the time, each written file is followed by 20 times its duration."""
    written: list[float] = []

    def slowly(_: Path) -> None:
        written.append(time.monotonic())
        time.sleep(0.01)

    keeper: Any = Keeper(tmp_path, Averaging(0.9))
    started = time.monotonic()
    while time.monotonic() - started < 0.7:
        keeper.on_train_epoch_end(trainer(save_checkpoint=slowly), None)
    assert 2 <= len(written) <= 4


def test_the_last_epoch_is_always_written(tmp_path: Path) -> None:
    """However recent the last file, the end of training writes another."""
    written: list[Path] = []
    keeper: Any = Keeper(tmp_path, Averaging(0.9))
    keeper.on_train_epoch_end(trainer(save_checkpoint=written.append), None)
    keeper.on_train_end(trainer(save_checkpoint=written.append), None)
    assert written == [tmp_path / "last.ckpt"] * 2


def test_the_best_is_a_copy_of_the_lowest_loss(tmp_path: Path) -> None:
    """Of losses 3, 1, 2 the weights of the second are kept, whatever becomes of the network."""
    net: Any = Net()
    averaging: Any = Averaging(0.0)
    keeper: Any = Keeper(tmp_path, averaging)
    averaging.on_train_start(trainer(), net)
    for epoch, loss in enumerate((3.0, 1.0, 2.0)):
        averaging.averages["weight"].fill_(epoch)
        now = trainer(callback_metrics={"val_loss": torch.tensor(loss)})
        now.current_epoch = epoch
        keeper.on_validation_end(now, net)
    assert (keeper.epoch, keeper.loss) == (1, 1.0)
    assert keeper.state["weight"].tolist() == [1.0, 1.0]
