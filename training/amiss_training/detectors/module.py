"""What the training loop, the read-out and the report ask of every detector."""

import math
from abc import abstractmethod
from typing import Any, ClassVar

import torch
from lightning.pytorch import LightningModule
from torch import Tensor, nn

from amiss_export.errors import BadInput
from amiss_training.detectors.networks import Autoencoder
from amiss_training.detectors.readouts import Complexity, corrected
from amiss_training.errors import TrainingDiverged

ACTIVE = 0.01  # nats, or variance of the code: below it a latent dimension carries nothing
NAN_CHECK_EVERY_STEPS = 20  # reading the loss waits for the device
FOLD_EVERY = 256


class Detector(LightningModule):
    """A detector over features: rows (n, f) or images 0..1 (n, c, h, w).

    network: encoder and decoder, with whatever else is scored. readout: how the score is read off
    the network, one of readout_names.
    """

    network: Autoencoder
    readout: str
    readout_names: ClassVar[tuple[str, ...]]
    complexity: Complexity
    latent_dim: int

    def __init__(self) -> None:
        super().__init__()
        self._means: dict[str, RunningMean] = {}

    def fit_readout(
        self, train: Tensor, early_stop: Tensor, *, name: str | None = None
    ) -> nn.Module:
        """A frozen module of its own, features -> (value (n,), expected features).

        Higher = more anomalous. train, early_stop: features of disjoint normal rows; name: of
        another read-out than the configured one, which alone is corrected for complexity.
        """
        readout = self.named_readout(name or self.readout, train, early_stop)
        if name not in (None, self.readout):
            return readout
        return corrected(readout, early_stop, complexity=self.complexity)

    @abstractmethod
    def named_readout(self, name: str, train: Tensor, early_stop: Tensor) -> nn.Module:
        """The read-out of that name over frozen copies of the networks; not corrected."""

    @torch.no_grad()
    def encode(self, x: Tensor) -> Tensor:
        """The deterministic code (n, latent_dim)."""
        return self.network.encode(x)

    @torch.no_grad()
    def reconstruct(self, x: Tensor) -> Tensor:
        """Expected features at the deterministic code."""
        return self.network.reconstruct(x)

    @torch.no_grad()
    def sample(self, z: Tensor) -> Tensor:
        """Expected features of draws (n, latent_dim) from the prior N(0, 1)."""
        return self.network.decode(z)

    @torch.no_grad()
    def active_units(self, x: Tensor) -> int:
        """Latent dimensions whose code varies over the rows x."""
        return int((self.network.encode(x).var(dim=0) > ACTIVE).sum())

    def log_losses(self, stage: str, *, rows: int, **terms: Tensor) -> None:
        """Nothing; adds the batch means `terms` to the epoch's means {stage}_{term}."""
        for name, value in terms.items():
            self._means.setdefault(f"{stage}_{name}", RunningMean()).add(value, rows=rows)

    def take_means(self, stage: str) -> dict[str, Tensor]:
        """The means of a stage since the last call, by {stage}_{term}."""
        keys = [key for key in self._means if key.startswith(f"{stage}_")]
        return {key: self._means.pop(key).value() for key in keys}

    def planned_steps(self) -> int:
        """Steps that training takes at the most: what step sizes decay over.

        Raises BadInput where trainer settings set no end.
        """
        steps = self.trainer.estimated_stepping_batches
        if steps == math.inf:
            raise BadInput(
                "trainer.max_epochs and trainer.max_steps set no end, and the learning rate decays "
                "towards it; set one of them"
            )
        return int(steps)

    def check_finite(self, loss: Tensor, *, advice: str) -> None:
        """Nothing; raises TrainingDiverged with the advice when the loss is no number."""
        if not torch.isfinite(loss):
            raise TrainingDiverged(
                f"the loss became {loss.item()} at step {self.global_step}; {advice}"
            )

    def configure_gradient_clipping(
        self,
        optimizer: torch.optim.Optimizer,
        gradient_clip_val: float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        """Lightning's own refuses fused optimizers under mixed precision, scaled losses or not."""
        scaler = getattr(self.trainer.precision_plugin, "scaler", None)
        if scaler is not None:
            scaler.unscale_(optimizer)
        gradients = [p.grad for p in self.trainer.precision_plugin.main_params(optimizer)]
        clip = clip_value if gradient_clip_algorithm == "value" else clip_norm
        clip([g for g in gradients if g is not None], gradient_clip_val or math.inf)

    def optimizer_zero_grad(
        self, epoch: int, batch_idx: int, optimizer: torch.optim.Optimizer
    ) -> None:
        """What `optimizer.zero_grad()` does, without a profiler's record of it."""
        for group in optimizer.param_groups:
            for parameter in group["params"]:
                parameter.grad = None

    def __setattr__(self, name: str, value: Any) -> None:
        # Lightning notes on the module which hook runs, fifty times a step; nn.Module would look
        # for the name among parameters, buffers and sub-modules each time.
        if name == "_current_fx_name":
            object.__setattr__(self, name, value)
        else:
            super().__setattr__(name, value)


def clip_norm(gradients: list[Tensor], most: float) -> None:
    """Nothing; scales the gradients, in place, to a joint Euclidean norm of at most `most`."""
    norm = torch.stack(torch._foreach_norm(gradients)).norm()
    if norm.is_cpu and norm <= most:  # elsewhere looking would wait for the device
        return
    torch._foreach_mul_(gradients, (most / (norm + 1e-6)).clamp(max=1.0))


def clip_value(gradients: list[Tensor], most: float) -> None:
    """Nothing; clamps every gradient in place to -most..most."""
    torch._foreach_clamp_min_(gradients, -most)
    torch._foreach_clamp_max_(gradients, most)


class RunningMean:
    """A mean over rows of many batch means, still on the device: reading each would wait for it.

    A step only notes the value; every FOLD_EVERY of them are added up in one go.
    """

    def __init__(self) -> None:
        self._values: list[Tensor] = []
        self._rows: list[int] = []

    def add(self, value: Tensor, *, rows: int) -> None:
        """Nothing; value: the mean over that many rows, a scalar."""
        self._values.append(value.detach())
        self._rows.append(rows)
        if len(self._values) == FOLD_EVERY:
            self._values, self._rows = [self.value()], [sum(self._rows)]

    def value(self) -> Tensor:
        """The mean over all rows so far."""
        values = torch.stack(self._values).float()
        weights = torch.tensor(self._rows, dtype=torch.float64)
        return values @ (weights / weights.sum()).to(values)


def shift(images: Tensor, pixels: int) -> Tensor:
    """The batch moved by one random offset of up to `pixels` in each direction."""
    if pixels == 0:
        return images
    down, right = torch.randint(-pixels, pixels + 1, (2,)).tolist()
    return torch.roll(images, (down, right), dims=(2, 3))
