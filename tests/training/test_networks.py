"""The stacks every detector is built of: sizes, paths, gaps, frozen copies."""

import pytest
import torch
from torch import nn
from torch.nn.functional import leaky_relu
from torch.nn.utils import parametrize
from torch.nn.utils.parametrizations import spectral_norm

from amiss_export.errors import BadInput
from amiss_training.detectors.networks import (
    SLOPE,
    Encoder,
    check_widths,
    decoder,
    default_widths,
    frozen,
    halved_sides,
    leaky,
)


@pytest.mark.parametrize("side", [8, 16, 28, 29, 33, 97])
def test_the_decoder_gives_back_the_images_size(side: int) -> None:
    """Odd and even sides, grey and colour, come back in the shape they had."""
    for channels in (1, 3):
        shape = (channels, side, side + 3)
        widths = default_widths(shape)
        hidden = Encoder(shape, widths)(torch.rand(2, *shape))
        assert hidden.shape == (2, widths[-1])
        assert decoder(shape, widths, 4)(torch.rand(2, 4)).shape == (2, *shape)


def test_default_widths_halve_an_image_to_about_eight_pixels() -> None:
    """28 to 128 pixels end with a side of 7 to 15, whatever the number of channels."""
    for side in (28, 32, 64, 97, 128):
        shape = (3, side, side)
        assert 7 <= halved_sides(shape, default_widths(shape))[-1][0] < 16


def test_a_decoder_of_two_outputs_gives_two_values_for_every_feature() -> None:
    """Twice the columns of a row, twice the channels of an image."""
    assert decoder((5,), (8,), 2, outputs=2)(torch.rand(3, 2)).shape == (3, 10)
    assert decoder((3, 16, 16), (4, 8), 2, outputs=2)(torch.rand(3, 2)).shape == (3, 6, 16, 16)


def test_widths_given_as_a_list_are_left_as_they_were() -> None:
    """Building the mirrored decoder does not turn the caller's list round."""
    widths = [4, 8, 16]
    Encoder((1, 16, 16), widths)
    decoder((1, 16, 16), widths, 2)
    assert widths == [4, 8, 16]


def test_more_convolutions_than_the_image_can_halve_are_refused() -> None:
    """Five halvings of an 8-pixel image are refused by the key, with how many would do."""
    with pytest.raises(BadInput, match=r"'hidden'.*1 to 3 convolution"):
        Encoder((1, 8, 8), (4, 4, 4, 4, 4, 8))


@pytest.mark.parametrize(
    ("widths", "message"),
    [
        ((), r"'vae\.hidden' must be >= 1, got 0"),
        ((4, 0), r"'vae\.hidden' must be >= 1, got 0"),
        ((8,), r"'vae\.hidden' \(8,\) halves a side 0 times"),
        ((4, 4, 4, 4, 8), r"'vae\.hidden'.*1 to 3 convolution"),
    ],
)
def test_widths_of_an_image_are_refused_by_their_option(
    widths: tuple[int, ...], message: str
) -> None:
    """None, an empty one, no convolution and one too many: each names the option as it was set."""
    with pytest.raises(BadInput, match=message):
        check_widths("vae.hidden", widths, (1, 8, 8))


def test_widths_that_can_be_layers_pass() -> None:
    """Unset, one dense layer for rows, one convolution and a dense layer for images."""
    check_widths("vae.hidden", None, (5,))
    check_widths("vae.hidden", (8,), (5,))
    check_widths("vae.hidden", (4, 8), (1, 8, 8))


def test_leaky_is_torchs_leaky_relu() -> None:
    """The two agree on both sides of zero."""
    x = torch.linspace(-3, 3, 31)
    assert torch.allclose(leaky(x), leaky_relu(x, SLOPE))


@pytest.mark.parametrize("shape", [(6,), (3, 17, 20)])
def test_path_gaps_are_the_differences_of_two_paths(shape: tuple[int, ...]) -> None:
    """Each gap is leaky_relu(path of x) minus leaky_relu(path of the other), in double."""
    torch.manual_seed(0)
    encoder = Encoder(shape, default_widths(shape)).double()
    x, other = torch.randn(2, 5, *shape, dtype=torch.float64)
    with torch.no_grad():
        found = encoder.path_gaps(encoder.path(x), x - other)
        pairs = zip(encoder.path(x), encoder.path(other), strict=True)
        expected = [leaky_relu(a, SLOPE) - leaky_relu(b, SLOPE) for a, b in pairs]
    assert torch.allclose(found[0], x - other)
    for gap, wanted in zip(found[1:], expected, strict=True):
        assert torch.allclose(gap, wanted, atol=1e-12)


def test_small_path_gaps_keep_their_digits() -> None:
    """A gap of 1e-4 comes through with 5 digits in float32; subtracted activations keep 3."""
    torch.manual_seed(0)
    encoder = Encoder((6,), (128, 64))
    x, gap = 10 * torch.randn(200, 6), 1e-4 * torch.randn(200, 6)
    with torch.no_grad():
        found = encoder.path_gaps(encoder.path(x), gap)[-1]
        subtracted = leaky(encoder.path(x)[-1]) - leaky(encoder.path(x - gap)[-1])
        encoder.double()
        exact = encoder.path_gaps(encoder.path(x.double()), gap.double())[-1]
    size = exact.abs().max()
    assert (found - exact).abs().median() / size < 1e-6
    assert (subtracted - exact).abs().median() / size > 1e-4


def test_a_frozen_copy_answers_as_the_network_in_evaluation_mode() -> None:
    """Spectral norms are baked into plain weights, batch statistics are kept, nothing can learn."""
    network = nn.Sequential(spectral_norm(nn.Linear(5, 7)), nn.BatchNorm1d(7), nn.Dropout(0.5))
    for _ in range(5):
        network(torch.randn(20, 5))
    copied = frozen(network)
    x = torch.randn(8, 5)
    assert torch.allclose(copied(x), network.eval()(x), atol=1e-6)
    assert not any(parametrize.is_parametrized(module) for module in copied.modules())
    assert not any(p.requires_grad for p in copied.parameters())
    assert parametrize.is_parametrized(network[0])
