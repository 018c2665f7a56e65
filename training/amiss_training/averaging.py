"""The weights that are validated and exported: a moving average of those being trained."""

from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor


class Averaging(Callback):
    """Exponential moving average of the parameters, in place of them while validating.

    Its memory grows with the number of steps, up to `decay`. Buffers are always the live
    network's, spectral norm's vectors and batch statistics included: averaging would leave them
    behind the weights that they belong to. In a checkpoint the averages are beside the live
    weights.
    """

    def __init__(self, decay: float) -> None:
        self.decay = decay
        self.steps = 0
        self.averages: dict[str, Tensor] = {}
        self._live: list[Tensor] = []

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        live = {name: p.detach() for name, p in pl_module.named_parameters()}
        start = self.averages or live
        self.averages = {name: start[name].to(p.device, copy=True) for name, p in live.items()}
        self._live = list(live.values())

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if trainer.global_step == self.steps:  # gradients are still being gathered
            return
        self.steps = trainer.global_step
        decay = min(self.decay, self.steps / (self.steps + 9.0))
        torch._foreach_lerp_(list(self.averages.values()), self._live, 1.0 - decay)

    def on_validation_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._swap()

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._swap()

    def state_dict(self) -> dict[str, Any]:
        return {"steps": self.steps, "averages": self.averages}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.steps, self.averages = state_dict["steps"], state_dict["averages"]

    def averaged_state(self, pl_module: LightningModule) -> dict[str, Tensor]:
        """The state of the network with its averaged weights; shares their memory."""
        return pl_module.state_dict() | self.averages

    def _swap(self) -> None:
        """Averages become the weights and the weights take their place, or back again."""
        for average, live in zip(self.averages.values(), self._live, strict=False):
            held = live.clone()
            live.copy_(average)
            average.copy_(held)
