"""The variational autoencoder's mechanism: its terms, its pull, its read-outs."""

import math
from typing import Any

import numpy as np
import pytest
import torch
from lightning.pytorch import Trainer
from torch import Tensor
from torch.distributions import Bernoulli, Normal, kl_divergence
from torch.nn.functional import leaky_relu
from torch.utils.data import DataLoader

from amiss_export.errors import BadInput
from amiss_training.detectors.vae import (
    SLOPE,
    ReconstructionProbability,
    Vae,
    VaeConfig,
    VaeNetwork,
    kl_to_standard_normal,
)
from amiss_training.errors import TrainingDiverged

READOUTS = ("reconstruction", "elbo", "reconstruction_probability", "whitened_path")


def normals(n: int = 600, d: int = 8, *, seed: int = 0) -> Tensor:
    """(n, d) rows on a plane of three dimensions with a little noise, standardised."""
    generator = torch.Generator().manual_seed(seed)
    plane = torch.randn(3, d, generator=torch.Generator().manual_seed(99))
    x = torch.randn(n, 3, generator=generator) @ plane
    return (x + 0.1 * torch.randn(n, d, generator=generator)) / 1.7


def trained(config: VaeConfig, x: Tensor, *, epochs: int = 8) -> Vae:
    """A detector after a short run."""
    torch.manual_seed(0)
    vae = Vae(config, shape=x.shape[1:], columns=x.shape[1])
    trainer = quiet_trainer(max_epochs=epochs, gradient_clip_val=5.0)
    trainer.fit(vae, DataLoader(x, 64, shuffle=True))  # type: ignore[arg-type]  # a tensor will do
    return vae


def quiet_trainer(**arguments: Any) -> Trainer:
    return Trainer(
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        **arguments,
    )


def test_kl_equals_torch_distributions() -> None:
    """The closed form is kl_divergence(N(mean, std), N(0, 1)) summed over latent dimensions."""
    mean, log_variance = torch.randn(50, 7), torch.randn(50, 7)
    ours = kl_to_standard_normal(mean, log_variance)
    posterior = Normal(mean, torch.exp(0.5 * log_variance))
    theirs = kl_divergence(posterior, Normal(0.0, 1.0)).sum(dim=1)
    assert torch.allclose(ours, theirs, rtol=1e-4, atol=1e-5)


def test_gaussian_likelihood_equals_torch_distributions() -> None:
    """-log p(x|z) is Normal's, with the learned variance, per column when asked for."""
    for variance in ("shared", "column"):
        config = VaeConfig(variance=variance)  # type: ignore[arg-type]  # a literal in a loop
        network = VaeNetwork((5,), config, latent_dim=2, likelihood="gaussian")
        with torch.no_grad():
            network.output_log_variance.copy_(
                torch.linspace(-1, 1, len(network.output_log_variance))
            )
        x, output = torch.randn(9, 5), torch.randn(9, 5)
        std = torch.exp(0.5 * network.output_log_variance)
        theirs = -Normal(output, std).log_prob(x).sum(dim=1)
        assert torch.allclose(network.negative_log_likelihood(x, output), theirs, atol=1e-4)


def test_bernoulli_likelihood_equals_torch_distributions() -> None:
    """-log p(x|z) is Bernoulli's, for pixels between 0 and 1 too."""
    network = VaeNetwork((1, 8, 8), VaeConfig(), latent_dim=2, likelihood="bernoulli")
    x, logits = torch.rand(6, 1, 8, 8), torch.randn(6, 1, 8, 8)
    theirs = -Bernoulli(logits=logits, validate_args=False).log_prob(x).flatten(1).sum(dim=1)
    assert torch.allclose(network.negative_log_likelihood(x, logits), theirs, rtol=1e-4)


def test_the_variance_cannot_fall_below_its_floor() -> None:
    """A log-variance parameter far below the floor acts as the floor."""
    config = VaeConfig(log_variance_min=-5.0)
    network = VaeNetwork((3,), config, latent_dim=2, likelihood="gaussian")
    x = torch.zeros(1, 3)
    with torch.no_grad():
        network.output_log_variance.fill_(-50.0)
    expected = 3 * 0.5 * (-5.0 + math.log(2 * math.pi))
    assert network.negative_log_likelihood(x, x).tolist() == pytest.approx([expected])


@pytest.mark.parametrize("side", [8, 16, 28, 29, 33])
def test_the_decoder_gives_back_the_images_size(side: int) -> None:
    """Odd and even sides, grey and colour, come back in the shape they had."""
    for channels in (1, 3):
        shape = (channels, side, side + 3)
        network = VaeNetwork(shape, VaeConfig(), latent_dim=4, likelihood="bernoulli")
        assert network.reconstruct(torch.rand(2, *shape)).shape == (2, *shape)


def test_more_convolutions_than_the_image_can_halve_are_refused() -> None:
    """Five halvings of an 8-pixel image are refused by the key, with how many would do."""
    config = VaeConfig(hidden=(4, 4, 4, 4, 4, 8))
    with pytest.raises(BadInput, match=r"'vae\.hidden'.*1 to 3 convolution"):
        Vae(config, shape=(1, 8, 8))


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"latent_dim": 0}, r"'vae\.latent_dim' must be >= 1, got 0"),
        ({"hidden": ()}, r"'vae\.hidden' must be >= 1, got 0"),
        ({"hidden": (8, 0)}, r"'vae\.hidden' must be >= 1, got 0"),
        ({"draws": 0}, r"'vae\.draws' must be >= 1"),
        ({"kl_warm_up": 7.0}, r"'vae\.kl_warm_up' must be within 0\.\.1, got 7"),
        ({"learning_rate": math.nan}, r"'vae\.learning_rate' must be >= 0, got nan"),
        ({"log_variance_min": 4.0}, r"'vae\.log_variance_max' must be >= 4, got 3"),
        ({"likelihood": "bernoulli"}, r"'vae\.likelihood' bernoulli is for images"),
    ],
)
def test_a_setting_that_cannot_work_is_refused(wrong: dict[str, Any], message: str) -> None:
    """Each is named with its value before a network is built."""
    with pytest.raises(BadInput, match=message):
        Vae(VaeConfig(**wrong), shape=(6,), columns=6)


def test_one_variance_a_column_is_for_tables() -> None:
    """Pixels have no columns: the option is refused for images."""
    with pytest.raises(BadInput, match="column is for tables"):
        Vae(VaeConfig(likelihood="gaussian", variance="column"), shape=(3, 16, 16))


@pytest.mark.parametrize("shape", [(6,), (3, 17, 20)])
def test_path_gaps_are_the_differences_of_two_paths(shape: tuple[int, ...]) -> None:
    """Each gap is leaky_relu(path of x) minus leaky_relu(path of the other), in double."""
    torch.manual_seed(0)
    likelihood = "gaussian" if len(shape) == 1 else "mse"
    network = VaeNetwork(shape, VaeConfig(), latent_dim=4, likelihood=likelihood).double()
    x, other = torch.randn(2, 5, *shape, dtype=torch.float64)
    with torch.no_grad():
        found = network.path_gaps(network.path(x), x - other)
        pairs = zip(network.path(x), network.path(other), strict=True)
        expected = [(leaky_relu(a, SLOPE) - leaky_relu(b, SLOPE)).flatten(1) for a, b in pairs]
    assert torch.allclose(found[0], (x - other).flatten(1))
    for gap, wanted in zip(found[1:], expected, strict=True):
        assert torch.allclose(gap, wanted, atol=1e-12)


def test_small_path_gaps_keep_their_digits() -> None:
    """A gap of 1e-4 comes through with 5 digits in float32; subtracted activations keep 3."""
    torch.manual_seed(0)
    network = VaeNetwork((6,), VaeConfig(), latent_dim=2, likelihood="gaussian")
    x, gap = 10 * torch.randn(200, 6), 1e-4 * torch.randn(200, 6)
    with torch.no_grad():
        found = network.path_gaps(network.path(x), gap)[-1]
        subtracted = leaky_relu(network.path(x)[-1], SLOPE) - leaky_relu(
            network.path(x - gap)[-1], SLOPE
        )
        network.double()
        exact = network.path_gaps(network.path(x.double()), gap.double())[-1]
    size = exact.abs().max()
    assert (found - exact).abs().median() / size < 1e-6
    assert (subtracted - exact).abs().median() / size > 1e-4


# Lightning's hints about data loaders, and a deprecation inside it: none concerns these short runs.
@pytest.mark.filterwarnings("ignore:.*does not have many workers.*")
@pytest.mark.filterwarnings("ignore:.*LeafSpec.*")
@pytest.mark.filterwarnings("ignore:.*smaller than the logging interval.*")
@pytest.mark.filterwarnings("ignore:.*does not have a `val_dataloader`.*")
@pytest.mark.filterwarnings("ignore:.*You defined a `validation_step`.*")
class TestTraining:
    """What short runs on the CPU show."""

    def test_the_kl_term_pulls(self) -> None:
        """A heavier KL weight leaves less KL: a KL term that is silently zero would not."""
        x = normals()
        left = []
        for weight in (0.01, 1.0, 100.0):
            network = trained(VaeConfig(kl_weight=weight, latent_dim=3), x).network.eval()
            with torch.no_grad():
                left.append(float(kl_to_standard_normal(*network.posterior(x)).mean()))
        assert left[0] > 1.2 * left[1] > 1.2 * left[2]
        assert left[2] < 0.1

    @pytest.mark.parametrize("readout", READOUTS)
    def test_scores_are_deterministic_and_higher_on_planted_anomalies(self, readout: str) -> None:
        """Two calls agree to the bit; rows off the plane score above nearly all fresh normals."""
        x = normals()
        vae = trained(VaeConfig(readout=readout), x)  # type: ignore[arg-type]  # a literal in a loop
        read = vae.fit_readout(x)
        fresh = normals(200, seed=1)
        anomalies = fresh + 2.0 * torch.randn(200, 8, generator=torch.Generator().manual_seed(5))
        with torch.no_grad():
            usual, planted = read(fresh)[0], read(anomalies)[0]
            assert torch.equal(usual, read(fresh)[0])
        above = float((planted[:, None] > usual[None, :]).float().mean())
        assert above > 0.95

    def test_reconstruction_probability_averages_the_fixed_bank(self) -> None:
        """The value is the mean of -log p(x|z_l) over the stored draws, one by one."""
        x = normals(50)
        vae = trained(VaeConfig(), x, epochs=1)
        read = ReconstructionProbability(vae.network.eval(), draws=5)
        with torch.no_grad():
            mean, log_variance = vae.network.posterior(x)
            each = [
                vae.network.negative_log_likelihood(
                    x, vae.network.decode(mean + torch.exp(0.5 * log_variance) * draw)
                )
                for draw in read.bank
            ]
            assert torch.allclose(read(x)[0].float(), torch.stack(each).mean(dim=0), rtol=1e-4)

    def test_the_kl_weight_warms_up(self) -> None:
        """At the first step the weight is near 0; after the warm-up it is the full weight."""
        vae = Vae(VaeConfig(kl_warm_up=0.5), shape=(8,), columns=8)
        weights: list[float] = []
        step = vae.training_step

        def recording(batch: Tensor, batch_idx: int) -> Tensor:
            weights.append(vae.kl_weight_now())
            return step(batch, batch_idx)

        vae.training_step = recording  # type: ignore[method-assign]  # the seam of a spy
        quiet_trainer(max_epochs=2).fit(vae, DataLoader(normals(640), 64))  # type: ignore[arg-type]  # a tensor will do
        assert weights[:3] == pytest.approx([0.1, 0.2, 0.3])
        assert weights[-1] == 1.0

    def test_a_loss_that_is_no_number_says_what_to_change(self) -> None:
        """NaN in training raises TrainingDiverged, naming the learning rate to lower."""
        x = normals(64)
        x[0, 0] = math.nan
        with pytest.raises(TrainingDiverged, match=r"step 0; lower vae\.learning_rate"):
            trained(VaeConfig(), x, epochs=1)

    def test_a_validation_loss_that_is_no_number_says_so_too(self) -> None:
        """Weights that broke after the last look in training are not kept as the best."""
        vae = Vae(VaeConfig(), shape=(8,), columns=8)
        with torch.no_grad():
            vae.network.mean.bias.fill_(math.nan)
        with pytest.raises(TrainingDiverged, match=r"lower vae\.learning_rate"):
            quiet_trainer().validate(vae, DataLoader(normals(64), 64), verbose=False)  # type: ignore[arg-type]  # a tensor will do


def test_a_batch_does_not_change_a_rows_score() -> None:
    """A row's read-out is the same alone and among others, within float32 rounding."""
    x = normals(300)
    vae = Vae(VaeConfig(), shape=(8,), columns=8)
    read = vae.fit_readout(x)
    with torch.no_grad():
        alone = torch.cat([read(row[None])[0] for row in x[:10]])
        together = read(x)[0][:10]
    assert np.allclose(alone.numpy(), together.numpy(), rtol=1e-5)
