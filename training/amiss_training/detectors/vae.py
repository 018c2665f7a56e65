"""Variational autoencoder (Kingma & Welling 2014; reconstruction probability: An & Cho 2015).

In the paper's order: config, network, likelihood and KL, one training step, read-outs.
Every sum runs over features and over latent dimensions; only rows are averaged.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal, cast, get_args

import torch
from lightning.pytorch.utilities.types import OptimizerLRSchedulerConfig
from torch import Tensor, nn
from torch.nn import functional

from amiss_export.errors import BadInput
from amiss_training.checks import check_range
from amiss_training.detectors.local import LocalWhitening
from amiss_training.detectors.module import ACTIVE, NAN_CHECK_EVERY_STEPS, Detector, shift
from amiss_training.detectors.networks import (
    Autoencoder,
    Encoder,
    check_widths,
    decoder,
    default_widths,
    frozen,
    latent_of,
    leaky,
)
from amiss_training.detectors.readouts import (
    Average,
    Blend,
    Dissimilarity,
    HiddenNeighbours,
    HiddenOutlierFactor,
    Residual,
    WhitenedPath,
    WhitenedResidual,
    check_complexity,
    resolved,
)
from amiss_training.detectors.similarity import ms_ssim, ssim

Likelihood = Literal["gaussian", "probabilistic", "bernoulli", "mse", "ssim", "ms_ssim"]
FOR_IMAGES = ("bernoulli", "ssim", "ms_ssim")
ReadOut = Literal[
    "reconstruction",
    "elbo",
    "weighted_elbo",
    "reconstruction_probability",
    "ssim",
    "ms_ssim",
    "whitened_residual",
    "whitened_path",
    "whitened_local",
    "blend",
    "hidden_neighbours",
    "hidden_outlier_factor",
]
READOUTS_FOR_IMAGES = ("ssim", "ms_ssim", "whitened_local")


@dataclass(frozen=True)
class VaeConfig:
    """Hyper-parameters of the variational autoencoder.

    Args:
        hidden: Widths of the encoder's layers; the decoder mirrors them. Images: channels of the
            strided convolutions, then the width of the last dense layer. Unset: 128, 64 for
            tables; for images convolutions down to a side of about 8, then 64 or 128.
        latent_dim: Latent dimensions; unset: half of the columns within 2..16, 16 for images.
        likelihood: gaussian learns its variance (tables), probabilistic decodes a mean and a
            variance for every feature, bernoulli takes pixels as probabilities, mse is a gaussian
            of fixed variance 1/2, ssim and ms_ssim put 1 - similarity, times the number of
            pixels, in the place of -log p (images). auto: gaussian for tables, bernoulli for
            images.
        variance: One learned variance for all features, or one per column (gaussian only).
        kl_weight: Weight of the KL term after warm-up; 1 is the evidence lower bound.
        kl_warm_up: Share of the training steps over which the KL weight grows from 0.
        log_variance_min: Lowest log-variance of the likelihood; stops near-constant columns from
            dominating.
        log_variance_max: Highest log-variance of the likelihood.
        learning_rate: Adam's step size at the start; decays along a cosine to a hundredth.
        weight_decay: Decoupled weight decay.
        shift_pixels: Images are moved by up to this many pixels at random while training.
        readout: How the score is read off the model. auto: blend, which takes the ELBO and the
            hidden neighbours together for tables; whitened path, squared error and hidden
            neighbours for images.
        complexity: Correct the score of an image for how complex the image is: by its total
            variation, or by that and its sum of squares. auto: variation for the blend of images.
        draws: Size of the fixed bank of latent draws (reconstruction_probability only).
    """

    hidden: tuple[int, ...] | None = None
    latent_dim: int | None = None
    likelihood: Literal[
        "auto", "gaussian", "probabilistic", "bernoulli", "mse", "ssim", "ms_ssim"
    ] = "auto"
    variance: Literal["shared", "column"] = "shared"
    kl_weight: float = 1.0
    kl_warm_up: float = 0.25
    log_variance_min: float = -5.0
    log_variance_max: float = 3.0
    learning_rate: float = 1e-3
    weight_decay: float = 1e-5
    shift_pixels: int = 1
    readout: Literal["auto", ReadOut] = "auto"
    complexity: Literal["auto", "none", "variation", "variation_ink"] = "auto"
    draws: int = 16


def check_config(config: VaeConfig, *, shape: Sequence[int]) -> None:
    """Nothing; raises BadInput naming the option that cannot work, and its value."""
    is_image = len(shape) > 1
    check_range("vae.latent_dim", config.latent_dim, 1)
    check_range("vae.draws", config.draws, 1)
    check_range("vae.shift_pixels", config.shift_pixels, 0)
    check_range("vae.kl_weight", config.kl_weight, 0)
    check_range("vae.kl_warm_up", config.kl_warm_up, 0, 1)
    check_range("vae.learning_rate", config.learning_rate, 0)
    check_range("vae.weight_decay", config.weight_decay, 0)
    check_range("vae.log_variance_max", config.log_variance_max, config.log_variance_min)
    check_widths("vae.hidden", config.hidden, shape)
    check_complexity("vae.complexity", config.complexity, is_image=is_image)
    if is_image:
        if config.variance == "column":
            raise BadInput("config 'vae.variance' column is for tables; take shared")
        return
    if config.likelihood in FOR_IMAGES:
        raise BadInput(
            f"config 'vae.likelihood' {config.likelihood} is for images; take gaussian or mse"
        )
    if config.readout in READOUTS_FOR_IMAGES:
        raise BadInput(f"config 'vae.readout' {config.readout} is for images; take elbo")


# --- network ------------------------------------------------------------------------------------


class VaeNetwork(Autoencoder):
    """Encoder q(z|x) and decoder p(x|z) over features, dense for (f,), convolutional for (c, h, w).

    widths, likelihood: already resolved, never 'auto'.
    """

    def __init__(
        self,
        shape: Sequence[int],
        config: VaeConfig,
        *,
        widths: Sequence[int],
        latent_dim: int,
        likelihood: Likelihood,
    ) -> None:
        super().__init__()
        self.likelihood = likelihood
        self.log_variance_range = (config.log_variance_min, config.log_variance_max)
        self.encoder = Encoder(shape, widths)
        self.mean = nn.Linear(widths[-1], latent_dim)
        self.log_variance = nn.Linear(widths[-1], latent_dim)
        outputs = 2 if likelihood == "probabilistic" else 1
        self.decoder = decoder(shape, widths, latent_dim, outputs=outputs)
        n_variances = shape[0] if config.variance == "column" else 1
        self.output_log_variance = nn.Parameter(
            torch.zeros(n_variances), requires_grad=likelihood == "gaussian"
        )

    def posterior(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log-variance of q(z|x), each (n, latent_dim)."""
        hidden = self.encoder(x)
        return self.mean(hidden), self.log_variance(hidden).clamp(-10.0, 10.0)

    def code(self, last: Tensor) -> Tensor:
        """The posterior mean: no sampling, so equal inputs give equal scores."""
        mean: Tensor = self.mean(leaky(last))
        return mean

    def decode(self, z: Tensor) -> Tensor:
        """E[x|z], shaped like x."""
        return self.expected(self.decoder(z))

    def expected(self, output: Tensor) -> Tensor:
        """E[x|z] from the parameters of p(x|z), the decoder's output."""
        if self.likelihood in FOR_IMAGES:
            return torch.sigmoid(output)
        return output.chunk(2, dim=1)[0] if self.likelihood == "probabilistic" else output

    def negative_log_likelihood(
        self, x: Tensor, output: Tensor, *, sum_in: torch.dtype | None = None
    ) -> Tensor:
        """-log p(x|z) in nats per row (n,), summed over features.

        output: the decoder's, parameters of p(x|z): logits for bernoulli, means otherwise.
        sum_in: the type to add up in. Read-outs take double: runtimes add thousands of float32
        terms in orders of their own.
        """
        if self.likelihood in ("ssim", "ms_ssim"):
            similarity = ssim if self.likelihood == "ssim" else ms_ssim
            return x[0].numel() * (1.0 - similarity(x, self.expected(output)))
        if self.likelihood == "bernoulli":
            loss = functional.softplus(output) - x * output  # -x log p - (1-x) log(1-p), by logits
        elif self.likelihood == "mse":
            loss = (x - output).square()
        else:
            mean, log_variance = self._normal(output)
            squares = (x - mean).square() * torch.exp(-log_variance)
            loss = 0.5 * (squares + log_variance + math.log(2 * math.pi))
        return loss.flatten(1).sum(dim=1, dtype=sum_in)

    def _normal(self, output: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log-variance of p(x|z)."""
        mean, log_variance = output, cast("Tensor", self.output_log_variance)
        if self.likelihood == "probabilistic":
            mean, log_variance = output.chunk(2, dim=1)
        return mean, log_variance.clamp(*self.log_variance_range)


def kl_to_standard_normal(mean: Tensor, log_variance: Tensor) -> Tensor:
    """KL(N(mean, exp(log_variance)) || N(0, 1)) in nats (n, latent_dim); the paper's appendix B."""
    return 0.5 * (mean.square() + log_variance.exp() - 1.0 - log_variance)


# --- one training step --------------------------------------------------------------------------


class Vae(Detector):
    """Minimises the negative evidence lower bound of features, images (c, h, w) or rows (f,)."""

    readout_names: ClassVar[tuple[str, ...]] = tuple(
        name for name in get_args(ReadOut) if name not in READOUTS_FOR_IMAGES
    )
    network: VaeNetwork

    def __init__(self, config: VaeConfig, *, shape: Sequence[int], columns: int = 0) -> None:
        super().__init__()
        self.is_image = len(shape) > 1
        check_config(config, shape=shape)
        self.config = config
        if self.is_image:
            self.readout_names = (*Vae.readout_names, *READOUTS_FOR_IMAGES)  # type: ignore[misc]
        self.readout = "blend" if config.readout == "auto" else config.readout
        self.complexity = resolved(config.complexity, is_image=self.is_image, readout=self.readout)
        self.latent_dim = config.latent_dim or (16 if self.is_image else latent_of(columns))
        default_likelihood = "bernoulli" if self.is_image else "gaussian"
        self.network = VaeNetwork(
            shape,
            config,
            widths=config.hidden or default_widths(shape),
            latent_dim=self.latent_dim,
            likelihood=cast(
                "Likelihood",
                default_likelihood if config.likelihood == "auto" else config.likelihood,
            ),
        )

    def training_step(self, batch: Tensor, batch_idx: int) -> Tensor:
        x = shift(batch, self.config.shift_pixels) if self.is_image else batch
        mean, log_variance = self.network.posterior(x)
        z = mean + torch.randn_like(mean) * torch.exp(0.5 * log_variance)  # reparametrisation
        output = self.network.decoder(z)
        reconstruction = self.network.negative_log_likelihood(x, output).mean()
        kl = kl_to_standard_normal(mean, log_variance).sum(dim=1).mean()
        loss = reconstruction + self.kl_weight_now() * kl
        if batch_idx % NAN_CHECK_EVERY_STEPS == 0:
            self._check_finite(loss)
        self.log_losses("train", rows=len(x), loss=loss, reconstruction=reconstruction, kl=kl)
        return loss

    def validation_step(self, batch: Tensor, batch_idx: int) -> None:
        """Negative ELBO at the posterior mean, full KL weight: comparable between epochs."""
        mean, log_variance = self.network.posterior(batch)
        output = self.network.decoder(mean)
        reconstruction = self.network.negative_log_likelihood(batch, output).mean()
        kl = kl_to_standard_normal(mean, log_variance).mean(dim=0)
        loss = reconstruction + self.config.kl_weight * kl.sum()
        self._check_finite(loss)
        active = (kl > ACTIVE).sum().float()
        self.log_losses(
            "val",
            rows=len(batch),
            loss=loss,
            reconstruction=reconstruction,
            kl=kl.sum(),
            active_units=active,
        )

    def kl_weight_now(self) -> float:
        """KL weight at this step: grows linearly from 0 over the warm-up."""
        warm_up_steps = self.config.kl_warm_up * self.trainer.estimated_stepping_batches
        return self.config.kl_weight * min(1.0, (self.global_step + 1) / max(warm_up_steps, 1.0))

    def configure_optimizers(self) -> OptimizerLRSchedulerConfig:
        rate, steps = self.config.learning_rate, self.planned_steps()
        optimizer = torch.optim.AdamW(
            [p for p in self.parameters() if p.requires_grad],
            lr=rate,
            weight_decay=self.config.weight_decay,
            fused=True,
        )
        cosine = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps, eta_min=rate / 100)
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": cosine, "interval": "step"},
        }

    @torch.no_grad()
    def active_units(self, x: Tensor) -> int:
        """Latent dimensions with a mean KL above 0.01 nat over the rows x (Burda et al. 2016)."""
        return int((kl_to_standard_normal(*self.network.posterior(x)).mean(dim=0) > ACTIVE).sum())

    def named_readout(self, name: str, train: Tensor, early_stop: Tensor) -> nn.Module:
        network, config = cast("VaeNetwork", frozen(self.network)), self.config
        readouts: dict[str, Callable[[], nn.Module]] = {
            "reconstruction": lambda: Elbo(network, kl_weight=0.0),
            "elbo": lambda: Elbo(network, kl_weight=1.0),
            "weighted_elbo": lambda: Elbo(network, kl_weight=config.kl_weight),
            "reconstruction_probability": lambda: ReconstructionProbability(
                network, draws=config.draws
            ),
            "ssim": lambda: Dissimilarity(network, multi_scale=False),
            "ms_ssim": lambda: Dissimilarity(network, multi_scale=True),
            "whitened_residual": lambda: WhitenedResidual(network, train),
            "whitened_path": lambda: WhitenedPath(network, train),
            "whitened_local": lambda: LocalWhitening(network, train),
            "blend": lambda: self._blend(network, train, early_stop),
            "hidden_neighbours": lambda: HiddenNeighbours(network, train),
            "hidden_outlier_factor": lambda: HiddenOutlierFactor(network, train),
        }
        return readouts[name]()

    def _blend(self, network: VaeNetwork, train: Tensor, early_stop: Tensor) -> nn.Module:
        neighbours = HiddenNeighbours(network, train)
        if not self.is_image:
            return Average([Elbo(network, kl_weight=1.0), neighbours], early_stop)
        error = Residual(network, norm="l2")
        return Blend([WhitenedPath(network, train), error, neighbours], early_stop)

    def _check_finite(self, loss: Tensor) -> None:
        self.check_finite(
            loss,
            advice=f"lower vae.learning_rate (now {self.config.learning_rate:g}), or raise "
            f"vae.log_variance_min (now {self.config.log_variance_min:g})",
        )


# --- read-outs of its own: features -> (value (n,), reconstruction shaped like the features) ----


class Elbo(nn.Module):
    """-log p(x|z) + kl_weight * KL at the posterior mean; kl_weight 0: reconstruction only."""

    def __init__(self, network: VaeNetwork, *, kl_weight: float) -> None:
        super().__init__()
        self.network, self.kl_weight = network, kl_weight

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        mean, log_variance = self.network.posterior(x)
        output = self.network.decoder(mean)
        kl = self.kl_weight * kl_to_standard_normal(mean, log_variance).sum(dim=1)
        value = self.network.negative_log_likelihood(x, output, sum_in=torch.float64) + kl
        return value, self.network.expected(output)


class ReconstructionProbability(nn.Module):
    """-1/L sum_l log p(x|z_l), z_l = mean + std * e_l; An & Cho 2015, algorithm 4, log form.

    The draws e_l are fixed and travel with the bundle, so equal rows get equal scores.
    """

    bank: Tensor

    def __init__(self, network: VaeNetwork, *, draws: int) -> None:
        super().__init__()
        self.network = network
        generator = torch.Generator().manual_seed(0)
        latent_dim = network.mean.out_features
        self.register_buffer("bank", torch.randn(draws, latent_dim, generator=generator))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        mean, log_variance = self.network.posterior(x)
        std = torch.exp(0.5 * log_variance)
        draws = self.bank.shape[0]
        z = (mean.unsqueeze(1) + std.unsqueeze(1) * self.bank).flatten(0, 1)  # (n * draws, latent)
        each = x.unsqueeze(1).expand(-1, draws, *x.shape[1:]).flatten(0, 1)
        output = self.network.decoder(z)
        nll = self.network.negative_log_likelihood(each, output, sum_in=torch.float64)
        value = nll.reshape(-1, draws).mean(dim=1)
        return value, self.network.decode(mean)
