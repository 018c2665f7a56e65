"""What every detector's training is made of: clipping, means over batches, moved images."""

import math
from typing import Any

import pytest
import torch
from lightning.pytorch import Trainer
from torch import Tensor, nn
from torch.utils.data import DataLoader

from amiss_training.detectors.module import FOLD_EVERY, RunningMean, clip_norm, clip_value, shift
from amiss_training.detectors.vae import Vae, VaeConfig


def gradients(scale: float) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [scale * torch.randn(shape, generator=generator) for shape in ((4, 3), (7,))]


@pytest.mark.parametrize("scale", [0.01, 1.0, 1e6])
def test_clipping_a_norm_is_torchs(scale: float) -> None:
    """Gradients within the norm stay as they are, longer ones come out as clip_grad_norm_'s."""
    ours = gradients(scale)
    weights = [nn.Parameter(torch.zeros_like(gradient)) for gradient in ours]
    for weight, gradient in zip(weights, ours, strict=True):
        weight.grad = gradient.clone()
    nn.utils.clip_grad_norm_(weights, 2.0)
    clip_norm(ours, 2.0)
    for weight, gradient in zip(weights, ours, strict=True):
        assert weight.grad is not None
        assert torch.allclose(gradient, weight.grad, rtol=1e-5)


def test_clipping_values_is_torchs_clamp() -> None:
    """Every gradient ends within -0.5..0.5, each value by itself."""
    ours, plain = gradients(1.0), gradients(1.0)
    clip_value(ours, 0.5)
    assert all(torch.equal(a, b.clamp(-0.5, 0.5)) for a, b in zip(ours, plain, strict=True))


@pytest.mark.filterwarnings("ignore:.*does not have many workers.*")
@pytest.mark.filterwarnings("ignore:.*LeafSpec.*")
@pytest.mark.filterwarnings("ignore:.*smaller than the logging interval.*")
@pytest.mark.filterwarnings("ignore:.*does not have a `val_dataloader`.*")
@pytest.mark.filterwarnings("ignore:.*You defined a `validation_step`.*")
@pytest.mark.parametrize(
    ("clip", "algorithm", "order"), [(1e-3, "norm", 2.0), (1e-3, "value", math.inf)]
)
def test_what_lightning_is_told_to_clip_is_clipped(
    clip: float, algorithm: str, order: float
) -> None:
    """After a step of the VAE the gradients have at most the norm, or the value, asked for."""
    found: list[float] = []

    class Watched(Vae):
        def on_train_batch_end(self, *_: Any) -> None:
            every = torch.cat([p.grad.flatten() for p in self.parameters() if p.grad is not None])
            found.append(float(torch.linalg.vector_norm(every, ord=order)))

    torch.manual_seed(0)
    trainer = Trainer(
        accelerator="cpu",
        max_steps=2,
        gradient_clip_val=clip,
        gradient_clip_algorithm=algorithm,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    rows = 5 * torch.randn(64, 4)
    trainer.fit(Watched(VaeConfig(hidden=(8,)), shape=(4,), columns=4), DataLoader(rows, 32))  # type: ignore[arg-type]  # a tensor will do
    assert len(found) == 2
    assert all(0 < value <= clip * 1.001 for value in found)


def test_a_running_mean_weighs_batches_by_their_rows() -> None:
    """Over more batches than are folded at once it is the mean over all rows."""
    values, rows = torch.randn(FOLD_EVERY * 2 + 3), torch.randint(1, 9, (FOLD_EVERY * 2 + 3,))
    mean = RunningMean()
    for value, n in zip(values, rows.tolist(), strict=True):
        mean.add(value, rows=n)
    expected = (values.double() @ rows.double()) / rows.sum()
    assert float(mean.value()) == pytest.approx(float(expected), abs=1e-5)


def test_a_batch_moves_as_one_by_at_most_so_many_pixels() -> None:
    """All images take the same offset, every offset within the reach occurs, and none beyond."""
    x = torch.zeros(3, 1, 9, 9)
    x[:, :, 4, 4] = 1.0
    seen = set()
    for _ in range(200):
        places = shift(x, 1)[:, 0].flatten(1).argmax(dim=1)
        assert len(places.unique()) == 1
        seen.add(divmod(int(places[0]), 9))
    assert seen == {(row, column) for row in (3, 4, 5) for column in (3, 4, 5)}
    assert shift(x, 0) is x
