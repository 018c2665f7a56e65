"""The averaged weights: what they average, and what they leave alone."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from lightning.pytorch import LightningModule
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

from amiss_training.averaging import Averaging


class Net(LightningModule):
    """Has what an average of parameters alone would lose: power iterations, batch statistics."""

    def __init__(self) -> None:
        super().__init__()
        layer = spectral_norm(nn.Linear(5, 4))
        self.body = nn.Sequential(layer, nn.BatchNorm1d(4), nn.Linear(4, 1))

    def forward(self, x: Tensor) -> Tensor:
        output: Tensor = self.body(x)
        return output


def trained(decay: float, *, steps: int = 5) -> tuple[Averaging, Net, list[dict[str, Tensor]]]:
    """An average over some steps, the network, and its parameters before and after every step."""
    torch.manual_seed(0)
    net, averaging = Net(), Averaging(decay)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.3)
    trainer: Any = SimpleNamespace(global_step=0)
    averaging.on_train_start(trainer, net)
    seen = [snapshot(net)]
    for _ in range(steps):
        optimizer.zero_grad()
        net(torch.randn(32, 5) + 3).square().mean().backward()
        optimizer.step()
        trainer.global_step += 1
        averaging.on_train_batch_end(trainer, net, None, None, 0)
        seen.append(snapshot(net))
    return averaging, net, seen


def snapshot(net: Net) -> dict[str, Tensor]:
    return {name: p.detach().clone() for name, p in net.named_parameters()}


def test_with_decay_0_the_average_is_the_live_network() -> None:
    """In evaluation mode the outputs are equal to the bit, spectral and batch norm included."""
    averaging, net, _ = trained(0.0)
    copy = Net()
    copy.load_state_dict(averaging.averaged_state(net))
    x = torch.randn(8, 5)
    assert torch.equal(copy.eval()(x), net.eval()(x))


def test_the_average_follows_the_formula() -> None:
    """a <- d a + (1 - d) w with d = min(decay, step / (step + 9)), from the initial weights."""
    averaging, _, seen = trained(0.3)
    name = "body.2.weight"
    expected = seen[0][name]
    for step, weights in enumerate(seen[1:], start=1):
        decay = min(0.3, step / (step + 9))
        expected = decay * expected + (1 - decay) * weights[name]
    torch.testing.assert_close(averaging.averages[name], expected)


def test_validation_sees_the_average_and_training_goes_on_from_the_weights() -> None:
    """Between the two hooks the parameters are the averages; after them, to the bit, as before."""
    averaging, net, seen = trained(0.9)
    trainer: Any = None
    averages = {name: a.clone() for name, a in averaging.averages.items()}
    averaging.on_validation_epoch_start(trainer, net)
    assert all(torch.equal(p, averages[name]) for name, p in net.named_parameters())
    averaging.on_validation_epoch_end(trainer, net)
    assert all(torch.equal(p, seen[-1][name]) for name, p in net.named_parameters())
    assert all(torch.equal(a, averages[name]) for name, a in averaging.averages.items())


def test_a_step_that_only_gathers_gradients_is_not_averaged() -> None:
    """A batch after which the optimizer has not stepped leaves the average as it was."""
    averaging, net, _ = trained(0.5)
    before = averaging.averages["body.2.weight"].clone()
    with torch.no_grad():
        net.body[2].weight.add_(1.0)  # type: ignore[union-attr, operator]
    trainer: Any = SimpleNamespace(global_step=averaging.steps)
    averaging.on_train_batch_end(trainer, net, None, None, 0)
    assert torch.equal(averaging.averages["body.2.weight"], before)


@pytest.mark.parametrize("decay", [0.0, 0.99])
def test_an_average_continues_from_a_checkpoint(decay: float) -> None:
    """Loaded into another callback, averages and step count are those that were saved."""
    averaging, net, _ = trained(decay)
    other = Averaging(decay)
    other.load_state_dict(averaging.state_dict())
    trainer: Any = None
    other.on_train_start(trainer, net)
    assert other.steps == averaging.steps
    assert all(torch.equal(other.averages[n], a) for n, a in averaging.averages.items())
