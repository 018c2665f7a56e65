"""Critics: networks that tell real codes or images from made ones, and what they make others learn.

Binary cross-entropy (Goodfellow et al. 2014) with spectral norm (Miyato et al. 2018), or the
Wasserstein distance with a gradient penalty (Gulrajani et al. 2017) and layer norm: batch norm
would tie the gradients of a batch's rows together, and the penalty is on each row's own.
"""

from collections.abc import Sequence
from itertools import pairwise
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

from amiss_training.detectors.networks import Autoencoder, Leaky, halved_sides

CriticKind = Literal["bce", "wgan_gp"]


class Critic(nn.Module):
    """One number for each code or image: (n, *shape) -> (n, 1), higher = taken for real.

    widths: of the layers; for images the channels of 4x4 convolutions that halve the side, then
    the width of one dense layer. kind decides the normalisation. penalty_weight: of the gradient
    penalty (wgan_gp only).
    """

    def __init__(
        self,
        shape: Sequence[int],
        widths: Sequence[int],
        *,
        kind: CriticKind,
        penalty_weight: float = 10.0,
    ) -> None:
        super().__init__()
        self.kind, self.penalty_weight = kind, penalty_weight
        *channels, dense = widths
        layers: list[nn.Module]
        if len(shape) == 1:
            layers = [self._dense(a, b) for a, b in pairwise((*shape, *widths))]
        else:
            height, width = halved_sides(shape, widths)[-1]
            layers = [self._convolution(a, b) for a, b in pairwise((shape[0], *channels))]
            layers += [nn.Flatten(), self._dense(channels[-1] * height * width, dense)]
        self.body = nn.Sequential(*layers)
        self.head = self._normed(nn.Linear(dense, 1))

    def forward(self, x: Tensor) -> Tensor:
        value: Tensor = self.head(self.features(x))
        return value

    def features(self, x: Tensor) -> Tensor:
        """The last hidden layer (n, widths[-1])."""
        hidden: Tensor = self.body(x)
        return hidden

    def loss(self, real: Tensor, made: Tensor) -> Tensor:
        """What the critic minimises to tell the real (n, *shape) from the made, a scalar."""
        on_real: Tensor = self(real)
        on_made: Tensor = self(made)
        if self.kind == "bce":
            return softplus(-on_real).mean() + softplus(on_made).mean()
        penalty = gradient_penalty(self, real, made)
        return on_made.mean() - on_real.mean() + self.penalty_weight * penalty

    def suspicion(self, made: Tensor) -> Tensor:
        """What the maker minimises to be taken for real (n,): -log D for bce, else -D."""
        value = self(made).squeeze(1)
        suspicion: Tensor = softplus(-value) if self.kind == "bce" else -value
        return suspicion

    def _dense(self, inputs: int, outputs: int) -> nn.Sequential:
        layer = self._normed(nn.Linear(inputs, outputs))
        norm = [nn.LayerNorm(outputs)] if self.kind == "wgan_gp" else []
        return nn.Sequential(layer, *norm, Leaky())

    def _convolution(self, inputs: int, outputs: int) -> nn.Sequential:
        layer = self._normed(nn.Conv2d(inputs, outputs, 4, stride=2, padding=1))
        # One group is layer norm over (c, h, w), with a gain and an offset for each channel.
        norm = [nn.GroupNorm(1, outputs)] if self.kind == "wgan_gp" else []
        return nn.Sequential(layer, *norm, Leaky())

    def _normed(self, layer: nn.Module) -> nn.Module:
        """The layer, its gain held to 1 where no penalty does that."""
        return spectral_norm(layer) if self.kind == "bce" else layer


def softplus(x: Tensor) -> Tensor:
    """log(1 + exp x), out of operators that ONNX Runtime also has in double."""
    return x.clamp(min=0.0) + torch.log(1.0 + torch.exp(-x.abs()))


def gradient_penalty(critic: nn.Module, real: Tensor, made: Tensor) -> Tensor:
    """Mean of (|gradient of the critic| - 1)^2 between real and made (n, ...); equation 3.

    Each row mixes with a uniform coefficient of its own, and its norm runs over all its values.
    """
    share = torch.rand(real.shape[0], *[1] * (real.ndim - 1), device=real.device)
    mixed = (share * real + (1 - share) * made).detach().requires_grad_()
    (gradient,) = torch.autograd.grad(critic(mixed).sum(), mixed, create_graph=True)
    norm = (gradient.flatten(1).square().sum(dim=1) + 1e-12).sqrt()  # its own slope at 0 is none
    return (norm - 1).square().mean()


class CriticFeatures(nn.Module):
    """Mean squared difference in the image critic's last hidden layer between x and its
    reconstruction; the feature term of f-AnoGAN (Schlegl et al. 2019).
    """

    def __init__(self, network: Autoencoder, critic: Critic) -> None:
        super().__init__()
        self.network, self.critic = network, critic

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        expected = self.network.reconstruct(x)
        gap = self.critic.features(x) - self.critic.features(expected)
        return gap.double().square().mean(dim=1), expected


class LatentCritic(nn.Module):
    """How little the latent critic takes the code for a draw of the prior: -log D(E(x)), or -D."""

    def __init__(self, network: Autoencoder, critic: Critic) -> None:
        super().__init__()
        self.network, self.critic = network, critic.double()

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        code = self.network.encode(x)
        return self.critic.suspicion(code.double()), self.network.decode(code)
