"""The networks that every detector is built of: an encoder whose path can be read, a decoder.

Dense for rows (f,), convolutional for images (c, h, w). LeakyReLU between linear maps and no
normalisation, so that how far two inputs are apart can be followed exactly from layer to layer.
"""

import copy
import math
from collections.abc import Sequence
from itertools import pairwise
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils import parametrize

from amiss_export.errors import BadInput
from amiss_training.checks import check_range

SLOPE = 0.2
DENSE_WIDTHS = (128, 64)


class Encoder(nn.Module):
    """Linear maps with LeakyReLU: (n, *shape) -> (n, widths[-1]).

    widths: of the layers; for images the channels of 4x4 convolutions that halve the side, then
    the width of one dense layer.
    """

    def __init__(self, shape: Sequence[int], widths: Sequence[int]) -> None:
        super().__init__()
        self.width = widths[-1]
        if len(shape) == 1:
            self.layers = nn.ModuleList(nn.Linear(a, b) for a, b in pairwise((*shape, *widths)))
            return
        *channels, dense = widths
        sides = halved_sides(shape, widths)
        stack = (shape[0], *channels)
        self.layers = nn.ModuleList(
            nn.Conv2d(a, b, 4, stride=2, padding=1) for a, b in pairwise(stack)
        )
        self.layers.append(nn.Linear(channels[-1] * sides[-1][0] * sides[-1][1], dense))

    def forward(self, x: Tensor) -> Tensor:
        return leaky(self.path(x)[-1])

    def path(self, x: Tensor) -> list[Tensor]:
        """What the layers make of x, each before its activation."""
        hidden = x
        values = []
        for layer in self.layers:
            values.append(layer(hidden.flatten(1) if isinstance(layer, nn.Linear) else hidden))
            hidden = leaky(values[-1])
        return values

    def path_gaps(self, path: Sequence[Tensor], gap: Tensor) -> list[Tensor]:
        """How far x and x - gap are apart at the input and after each layer's activation.

        path: of x. The gap itself goes through the linear maps: of two nearly equal activations
        subtracted little but rounding would be left, and every runtime rounds in its own way.
        """
        gaps = [gap]
        for layer, value in zip(self.layers, path, strict=True):
            gap = _without_bias(cast("nn.Linear | nn.Conv2d", layer), gap)
            slope, other = _slope(value), _slope(value - gap)
            gap = other * gap + (slope - other) * value  # slope * value - other * (value - gap)
            gaps.append(gap)
        return gaps


def decoder(
    shape: Sequence[int], widths: Sequence[int], latent_dim: int, *, outputs: int = 1
) -> nn.Sequential:
    """The encoder's mirror image: (n, latent_dim) -> (n, outputs * shape[0], *shape[1:]).

    outputs: values for each feature, e.g. 2 for a mean and a log-variance.
    """
    if len(shape) == 1:
        down = (latent_dim, *reversed(widths))
        layers = [_layer(nn.Linear(a, b)) for a, b in pairwise(down)]
        return nn.Sequential(*layers, nn.Linear(widths[0], outputs * shape[0]))
    *channels, dense = widths
    sides = halved_sides(shape, widths)
    stack = (outputs * shape[0], *channels)
    layers = [
        _layer(nn.Linear(latent_dim, dense)),
        _layer(nn.Linear(dense, channels[-1] * sides[-1][0] * sides[-1][1])),
    ]
    unflatten = nn.Unflatten(1, (channels[-1], *sides[-1]))
    ups: list[nn.Module] = []
    for i in range(len(channels), 0, -1):
        odd = (sides[i - 1][0] - 2 * sides[i][0], sides[i - 1][1] - 2 * sides[i][1])
        up = nn.ConvTranspose2d(stack[i], stack[i - 1], 4, stride=2, padding=1, output_padding=odd)
        ups.append(_layer(up) if i > 1 else up)
    return nn.Sequential(*layers, unflatten, *ups)


class Autoencoder(nn.Module):
    """What the read-outs need of a detector's network: path, code and expectation.

    encoder: reads features. code: (n, latent_dim) from the end of the path, deterministic.
    decode: expected features of a code. A sub-class gives `code` and `decode`.
    """

    encoder: Encoder

    def code(self, last: Tensor) -> Tensor:
        """The deterministic code (n, latent_dim) from the end of the encoder's path."""
        raise NotImplementedError

    def decode(self, z: Tensor) -> Tensor:
        """Expected features of codes (n, latent_dim)."""
        raise NotImplementedError

    def encode(self, x: Tensor) -> Tensor:
        """The deterministic code (n, latent_dim) of features."""
        return self.code(self.encoder.path(x)[-1])

    def reconstruct(self, x: Tensor) -> Tensor:
        """Expected features at the deterministic code: equal inputs give equal outputs."""
        return self.decode(self.encode(x))


def default_widths(shape: Sequence[int]) -> tuple[int, ...]:
    """Widths that suit a row, or an image of that size: halved until its side is about 8."""
    if len(shape) == 1:
        return DENSE_WIDTHS
    halvings = max(2, int(math.log2(min(shape[1:]) / 7)))
    channels = [min(16 * 2**i, 64) for i in range(halvings)]
    return (*channels, 64 if min(shape[1:]) <= 32 else 128)


def latent_of(columns: int) -> int:
    """Latent dimensions that suit a table of so many columns: half of them, within 2..16."""
    return max(2, min(16, columns // 2))


def check_widths(name: str, widths: Sequence[int] | None, shape: Sequence[int]) -> None:
    """Nothing; raises BadInput naming the option when its widths, if set, cannot be layers."""
    if widths is None:
        return
    for width in widths or (0,):
        check_range(name, width, 1)
    if len(shape) > 1:
        halved_sides(shape, widths, name=name)


def halved_sides(
    shape: Sequence[int], widths: Sequence[int], *, name: str = "hidden"
) -> list[tuple[int, int]]:
    """(height, width) of an image (c, h, w) before and after each convolution.

    Raises BadInput, naming the option of the widths, when they leave no convolution or halve a side
    below one pixel.
    """
    _, height, width = shape
    sides = [(height, width)]
    for _ in widths[:-1]:
        sides.append((sides[-1][0] // 2, sides[-1][1] // 2))
    if len(widths) < 2 or min(sides[-1]) < 1:
        raise BadInput(
            f"config {name!r} {tuple(widths)} halves a side {len(widths) - 1} times, but the "
            f"image is {height}x{width}; give 1 to {int(math.log2(min(height, width)))} "
            "convolution widths and one dense width"
        )
    return sides


def frozen(network: nn.Module) -> nn.Module:
    """A copy for scoring: evaluation mode, no gradients, spectral norms baked into the weights."""
    copied = copy.deepcopy(network).cpu().eval().requires_grad_(False)
    for module in list(copied.modules()):
        if parametrize.is_parametrized(module):
            shared = type(module)  # with the original, which removing would break
            module.__class__ = type(shared.__name__, shared.__bases__, dict(vars(shared)))
            for name in list(cast("nn.ModuleDict", module.parametrizations)):
                parametrize.remove_parametrizations(module, name, leave_parametrized=True)
    return copied.requires_grad_(False)


class Leaky(nn.Module):
    """LeakyReLU out of operators that ONNX Runtime also has in double."""

    def forward(self, x: Tensor) -> Tensor:
        return leaky(x)


def leaky(x: Tensor) -> Tensor:
    """x where positive, SLOPE * x elsewhere."""
    if x.requires_grad:  # the same values; one kernel, and one more for the gradient
        return functional.leaky_relu(x, SLOPE)
    return torch.maximum(x, SLOPE * x)


def _layer(linear: nn.Module) -> nn.Module:
    return nn.Sequential(linear, Leaky())


def _slope(value: Tensor) -> Tensor:
    """LeakyReLU's slope at each value."""
    return torch.where(value > 0, torch.ones_like(value), torch.full_like(value, SLOPE))


def _without_bias(layer: nn.Linear | nn.Conv2d, x: Tensor) -> Tensor:
    """The layer's linear map of x alone."""
    if isinstance(layer, nn.Linear):
        return functional.linear(x.flatten(1), layer.weight)
    return functional.conv2d(x, layer.weight, stride=layer.stride, padding=layer.padding)
