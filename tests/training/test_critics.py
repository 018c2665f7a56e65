"""Critics: one number a row, the losses of both kinds, and a penalty on each row's own gradient."""

from typing import cast

import pytest
import torch
from scipy.stats import kstest
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits

from amiss_training.detectors.critics import Critic, CriticKind, gradient_penalty

KINDS: tuple[CriticKind, ...] = ("bce", "wgan_gp")
SHAPES = (((7,), (16, 8)), ((3, 17, 20), (4, 8, 16)))


class Linear(nn.Module):
    """w . x for images: its gradient is w everywhere."""

    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        self.weight = weight

    def forward(self, x: Tensor) -> Tensor:
        return (x * self.weight).flatten(1).sum(dim=1, keepdim=True)


class Bowl(nn.Module):
    """Half the squared length of x, whose gradient is x itself; keeps what it was given."""

    def __init__(self) -> None:
        super().__init__()
        self.given = torch.empty(0)

    def forward(self, x: Tensor) -> Tensor:
        self.given = x.detach()
        return 0.5 * x.flatten(1).square().sum(dim=1, keepdim=True)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("shape", "widths"), SHAPES)
def test_a_critic_gives_one_number_a_row(
    kind: CriticKind, shape: tuple[int, ...], widths: tuple[int, ...]
) -> None:
    """An image or a code gets one output, not a vector of latent size (D16)."""
    critic = Critic(shape, widths, kind=kind)
    assert critic(torch.rand(5, *shape)).shape == (5, 1)
    assert critic.features(torch.rand(5, *shape)).shape == (5, widths[-1])


@pytest.mark.parametrize("kind", KINDS)
def test_a_rows_value_does_not_depend_on_its_neighbours(kind: CriticKind) -> None:
    """Alone or in a batch, a row is judged alike: no batch norm under the penalty (D19)."""
    critic = Critic((3, 16, 16), (4, 8, 16), kind=kind).eval()
    images = torch.rand(6, 3, 16, 16)
    with torch.no_grad():
        alone = torch.cat([critic(image[None]) for image in images])
        assert torch.allclose(critic(images), alone, atol=1e-6)


def test_the_normalisation_follows_the_kind() -> None:
    """Cross-entropy has spectral norms and no layer norm; the Wasserstein critic the reverse."""
    shape, widths = SHAPES[1]
    bce, wgan = (Critic(shape, widths, kind=kind) for kind in KINDS)
    norms = (nn.LayerNorm, nn.GroupNorm)
    assert not any(isinstance(module, norms) for module in bce.modules())
    assert sum(isinstance(module, norms) for module in wgan.modules()) == len(widths)
    assert any("parametrizations" in name for name in bce.state_dict())
    assert not any("parametrizations" in name for name in wgan.state_dict())


def test_spectral_norm_holds_every_gain_to_one() -> None:
    """After its power iterations no layer of a bce critic stretches a vector beyond 1."""
    critic = Critic((7,), (16, 8), kind="bce")
    for _ in range(50):
        critic(torch.randn(4, 7))
    weights = [module.weight for module in critic.modules() if isinstance(module, nn.Linear)]
    gains = [torch.linalg.matrix_norm(weight.detach(), 2).item() for weight in weights]
    assert gains == pytest.approx([1.0] * 3, abs=0.01)


def test_cross_entropy_is_torchs() -> None:
    """bce: the loss is BCE(D(real), 1) + BCE(D(made), 0); suspicion is BCE(D(made), 1)."""
    critic = Critic((7,), (16, 8), kind="bce").eval()
    real, made = torch.randn(2, 9, 7)
    on_real, on_made = critic(real), critic(made)
    expected = binary_cross_entropy_with_logits(on_real, torch.ones(9, 1))
    expected = expected + binary_cross_entropy_with_logits(on_made, torch.zeros(9, 1))
    assert torch.allclose(critic.loss(real, made), expected)
    suspicion = binary_cross_entropy_with_logits(on_made, torch.ones(9, 1), reduction="none")
    assert torch.allclose(critic.suspicion(made), suspicion.squeeze(1))


def test_the_wasserstein_loss_is_the_difference_and_the_penalty() -> None:
    """wgan_gp: mean D(made) - mean D(real) + weight * penalty; suspicion is -D(made)."""
    critic = Critic((7,), (16, 8), kind="wgan_gp")
    real, made = torch.randn(2, 9, 7)
    torch.manual_seed(3)
    found = critic.loss(real, made)
    torch.manual_seed(3)
    penalty = gradient_penalty(critic, real, made)
    assert torch.allclose(found, critic(made).mean() - critic(real).mean() + 10.0 * penalty)
    assert torch.equal(critic.suspicion(made), -critic(made)[:, 0])


def test_the_penalty_of_a_linear_critic_is_known() -> None:
    """For w . x it is (|w| - 1)^2, the norm taken over the whole image, wherever it is mixed."""
    weight = torch.randn(3, 5, 4)
    found = gradient_penalty(Linear(weight), torch.rand(6, 3, 5, 4), torch.rand(6, 3, 5, 4))
    assert float(found) == pytest.approx((float(weight.norm()) - 1) ** 2, rel=1e-4)


def test_the_penalty_is_on_each_rows_own_gradient() -> None:
    """For |x|^2 / 2 at real = made it is the mean of (|x_i| - 1)^2 over the rows i."""
    x = torch.randn(8, 2, 3, 3)
    expected = (x.flatten(1).norm(dim=1) - 1).square().mean()
    assert torch.allclose(gradient_penalty(Bowl(), x, x), expected, rtol=1e-4)


def test_each_row_is_mixed_with_a_uniform_share_of_its_own() -> None:
    """Between 1 (real) and 0 (made) the mixtures are constant in a row and uniform over rows."""
    torch.manual_seed(0)
    bowl = Bowl()
    gradient_penalty(bowl, torch.ones(4_000, 2, 3), torch.zeros(4_000, 2, 3))
    shares = bowl.given.flatten(1)
    assert torch.equal(shares, shares[:, :1].expand_as(shares))
    assert float(shares.min()) >= 0
    assert float(shares.max()) <= 1
    assert kstest(shares[:, 0].numpy(), "uniform").pvalue > 0.001


def test_the_penalty_teaches_the_critic() -> None:
    """Its gradient reaches the critic's weights, also where the critic is flat."""
    critic = Critic((7,), (16, 8), kind="wgan_gp")
    with torch.no_grad():
        cast("Tensor", critic.head.weight).zero_()
    gradient_penalty(critic, torch.randn(5, 7), torch.randn(5, 7)).backward()  # type: ignore[no-untyped-call]  # torch
    for parameter in critic.parameters():
        assert parameter.grad is None or torch.isfinite(parameter.grad).all()
    assert critic.head.weight.grad is not None
