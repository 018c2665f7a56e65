"""The variational autoencoder's mechanism: its terms, its pull, its read-outs."""

import math
from typing import Any, get_args, get_type_hints

import numpy as np
import pytest
import torch
from lightning.pytorch import Trainer
from torch import Tensor
from torch.distributions import Bernoulli, Normal, kl_divergence
from torch.utils.data import DataLoader

from amiss_export.errors import BadInput
from amiss_training.detectors.networks import DENSE_WIDTHS
from amiss_training.detectors.readouts import Complexity
from amiss_training.detectors.similarity import ms_ssim
from amiss_training.detectors.vae import (
    READOUTS_FOR_IMAGES,
    Likelihood,
    ReconstructionProbability,
    Vae,
    VaeConfig,
    VaeNetwork,
    kl_to_standard_normal,
)
from amiss_training.errors import TrainingDiverged


def dense(config: VaeConfig, d: int, *, likelihood: Likelihood = "gaussian") -> VaeNetwork:
    return VaeNetwork((d,), config, widths=DENSE_WIDTHS, latent_dim=2, likelihood=likelihood)


def convolutional(likelihood: Likelihood, *, channels: int = 1) -> VaeNetwork:
    shape = (channels, 16, 16)
    return VaeNetwork(shape, VaeConfig(), widths=(4, 8), latent_dim=2, likelihood=likelihood)


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
    """The closed form is kl_divergence(N(mean, std), N(0, 1)) of every latent dimension."""
    mean, log_variance = torch.randn(50, 7), torch.randn(50, 7)
    ours = kl_to_standard_normal(mean, log_variance)
    posterior = Normal(mean, torch.exp(0.5 * log_variance))
    theirs = kl_divergence(posterior, Normal(0.0, 1.0))
    assert torch.allclose(ours, theirs, rtol=1e-4, atol=1e-5)


def test_gaussian_likelihood_equals_torch_distributions() -> None:
    """-log p(x|z) is Normal's, with the learned variance, per column when asked for."""
    for variance in ("shared", "column"):
        config = VaeConfig(variance=variance)  # type: ignore[arg-type]  # a literal in a loop
        network = dense(config, 5)
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
    network = convolutional("bernoulli")
    x, logits = torch.rand(6, 1, 16, 16), torch.randn(6, 1, 16, 16)
    theirs = -Bernoulli(logits=logits, validate_args=False).log_prob(x).flatten(1).sum(dim=1)
    assert torch.allclose(network.negative_log_likelihood(x, logits), theirs, rtol=1e-4)


def test_the_probabilistic_decoder_gives_every_feature_a_mean_and_a_variance() -> None:
    """-log p(x|z) is Normal's with both taken from the code, and the mean is the expectation."""
    network = convolutional("probabilistic", channels=3)
    x, z = torch.rand(4, 3, 16, 16), torch.randn(4, 2)
    output = network.decoder(z)
    mean, log_variance = output[:, :3], output[:, 3:].clamp(-5.0, 3.0)
    theirs = -Normal(mean, torch.exp(0.5 * log_variance)).log_prob(x).flatten(1).sum(dim=1)
    assert torch.allclose(network.negative_log_likelihood(x, output), theirs, rtol=1e-4)
    assert torch.equal(network.decode(z), mean)


def test_a_similarity_loss_is_a_pixel_sum_of_one_minus_similarity() -> None:
    """MS-SSIM in the place of -log p(x|z): 0 for a perfect decoder, on the scale of a pixel sum."""
    network = convolutional("ms_ssim")
    x, logits = torch.rand(4, 1, 16, 16), torch.randn(4, 1, 16, 16)
    theirs = 256 * (1 - ms_ssim(x, torch.sigmoid(logits)))
    assert torch.allclose(network.negative_log_likelihood(x, logits), theirs)
    perfect = torch.logit(x.clamp(0.01, 0.99))
    assert (network.negative_log_likelihood(x.clamp(0.01, 0.99), perfect) < 0.01).all()


def test_the_variance_cannot_fall_below_its_floor() -> None:
    """A log-variance parameter far below the floor acts as the floor."""
    config = VaeConfig(log_variance_min=-5.0)
    network = dense(config, 3)
    x = torch.zeros(1, 3)
    with torch.no_grad():
        network.output_log_variance.fill_(-50.0)
    expected = 3 * 0.5 * (-5.0 + math.log(2 * math.pi))
    assert network.negative_log_likelihood(x, x).tolist() == pytest.approx([expected])


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
        ({"likelihood": "ms_ssim"}, r"'vae\.likelihood' ms_ssim is for images"),
        ({"readout": "ssim"}, r"'vae\.readout' ssim is for images"),
        ({"complexity": "variation"}, r"'vae\.complexity' variation is for images; take none"),
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
                left.append(float(kl_to_standard_normal(*network.posterior(x)).sum(dim=1).mean()))
        assert left[0] > 1.2 * left[1] > 1.2 * left[2]
        assert left[2] < 0.1

    @pytest.mark.parametrize("readout", Vae.readout_names)
    def test_scores_are_deterministic_and_higher_on_planted_anomalies(self, readout: str) -> None:
        """Two calls agree to the bit (D18); broken rows score above nearly all normals (D2)."""
        x = normals()
        vae = trained(VaeConfig(readout=readout), x)  # type: ignore[arg-type]  # a literal in a loop
        read = vae.fit_readout(x[:500], x[500:])
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
                    x, vae.network.decoder(mean + torch.exp(0.5 * log_variance) * draw)
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
    read = vae.fit_readout(x[:200], x[200:])
    with torch.no_grad():
        alone = torch.cat([read(row[None])[0] for row in x[:10]])
        together = read(x)[0][:10]
    assert np.allclose(alone.numpy(), together.numpy(), rtol=1e-5)


def test_every_read_out_has_a_name_that_a_flag_can_ask_for() -> None:
    """The names a detector offers are those of its option, auto aside; images have a few more."""
    asked = set(get_args(get_type_hints(VaeConfig)["readout"])) - {"auto"}
    assert set(Vae(VaeConfig(), shape=(1, 16, 16)).readout_names) == asked
    assert set(Vae(VaeConfig(), shape=(4,), columns=4).readout_names) == asked - set(
        READOUTS_FOR_IMAGES
    )


@pytest.mark.parametrize("complexity", ["variation", "variation_ink"])
def test_every_read_out_of_an_image_can_be_corrected(complexity: Complexity) -> None:
    """Values stay finite and deterministic for images of one colour too."""
    x = torch.rand(80, 1, 16, 16, generator=torch.Generator().manual_seed(0))
    blank = torch.zeros(1, 1, 16, 16)
    for readout in Vae(VaeConfig(), shape=x.shape[1:]).readout_names:
        config = VaeConfig(readout=readout, complexity=complexity, hidden=(4, 8))  # type: ignore[arg-type]  # a literal in a loop
        read = Vae(config, shape=x.shape[1:]).fit_readout(x[:40], x[40:])
        with torch.no_grad():
            value = read(torch.cat([x, blank]))[0]
            assert torch.equal(value, read(torch.cat([x, blank]))[0])
        assert torch.isfinite(value).all()


def test_active_units_are_those_that_carry_information() -> None:
    """A latent dimension whose posterior is the prior everywhere is not counted."""
    vae = Vae(VaeConfig(latent_dim=3), shape=(4,), columns=4)
    with torch.no_grad():
        for head in (vae.network.mean, vae.network.log_variance):
            head.weight[1].zero_()
            head.bias[1] = 0.0
        vae.network.mean.bias[[0, 2]] = 1.0
    assert vae.active_units(torch.randn(200, 4)) == 2
