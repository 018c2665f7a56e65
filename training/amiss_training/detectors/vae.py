"""Variational autoencoder (Kingma & Welling 2014; reconstruction probability: An & Cho 2015).

In the paper's order: config, networks, likelihood and KL, one training step, read-outs.
Every sum runs over features and over latent dimensions; only rows are averaged.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal, cast

import torch
from lightning.pytorch import LightningModule
from lightning.pytorch.utilities.types import OptimizerLRSchedulerConfig
from torch import Tensor, nn
from torch.nn import functional

from amiss_export.errors import BadInput
from amiss_export.graph import Whitener
from amiss_training.checks import check_range
from amiss_training.errors import TrainingDiverged

ReadOutName = Literal["reconstruction", "elbo", "reconstruction_probability", "whitened_path"]
DEFAULT_READOUT: ReadOutName = "whitened_path"
NAN_CHECK_EVERY_STEPS = 20  # reading the loss waits for the device
MAX_WHITENING_ROWS = {"image": 1_500, "table": 20_000}
SLOPE = 0.2


@dataclass(frozen=True)
class VaeConfig:
    """Hyper-parameters of the variational autoencoder.

    Args:
        hidden: Widths of the encoder's layers; the decoder mirrors them. Images: channels of the
            strided convolutions, then the width of the last dense layer. Unset: 128, 64 for
            tables and 16, 32, 64 for images.
        latent_dim: Latent dimensions; unset: half of the columns within 2..16, 16 for images.
        likelihood: gaussian learns its variance (tables), bernoulli takes pixels as
            probabilities, mse is a gaussian of fixed variance 1/2 (images). auto: gaussian for
            tables, bernoulli for images.
        variance: One learned variance for all features, or one per column (gaussian only).
        kl_weight: Weight of the KL term after warm-up; 1 is the evidence lower bound.
        kl_warm_up: Share of the training steps over which the KL weight grows from 0.
        log_variance_min: Lowest log-variance of the likelihood; stops near-constant columns from
            dominating.
        log_variance_max: Highest log-variance of the likelihood.
        learning_rate: Adam's step size at the start; decays along a cosine to a hundredth.
        weight_decay: Decoupled weight decay.
        shift_pixels: Images are moved by up to this many pixels at random while training.
        readout: How the score is read off the model. auto: whitened_path.
        draws: Size of the fixed bank of latent draws (reconstruction_probability only).
    """

    hidden: tuple[int, ...] | None = None
    latent_dim: int | None = None
    likelihood: Literal["auto", "gaussian", "bernoulli", "mse"] = "auto"
    variance: Literal["shared", "column"] = "shared"
    kl_weight: float = 1.0
    kl_warm_up: float = 0.25
    log_variance_min: float = -5.0
    log_variance_max: float = 3.0
    learning_rate: float = 1e-3
    weight_decay: float = 1e-5
    shift_pixels: int = 1
    readout: Literal[
        "auto", "reconstruction", "elbo", "reconstruction_probability", "whitened_path"
    ] = "auto"
    draws: int = 16


def check_config(config: VaeConfig, *, is_image: bool) -> None:
    """Nothing; raises BadInput naming the option that cannot work, and its value."""
    check_range("vae.latent_dim", config.latent_dim, 1)
    check_range("vae.draws", config.draws, 1)
    check_range("vae.shift_pixels", config.shift_pixels, 0)
    check_range("vae.kl_weight", config.kl_weight, 0)
    check_range("vae.kl_warm_up", config.kl_warm_up, 0, 1)
    check_range("vae.learning_rate", config.learning_rate, 0)
    check_range("vae.weight_decay", config.weight_decay, 0)
    check_range("vae.log_variance_max", config.log_variance_max, config.log_variance_min)
    for width in (0,) if config.hidden == () else config.hidden or ():
        check_range("vae.hidden", width, 1)
    if config.likelihood == "bernoulli" and not is_image:
        raise BadInput("config 'vae.likelihood' bernoulli is for images; take gaussian or mse")
    if config.variance == "column" and is_image:
        raise BadInput("config 'vae.variance' column is for tables; take shared")


# --- networks -----------------------------------------------------------------------------------


class VaeNetwork(nn.Module):
    """Encoder q(z|x) and decoder p(x|z) over features, dense for (f,), convolutional for (c, h, w).

    likelihood: already resolved, never 'auto'.
    """

    def __init__(
        self, shape: Sequence[int], config: VaeConfig, *, latent_dim: int, likelihood: str
    ) -> None:
        super().__init__()
        self.shape = tuple(shape)
        self.likelihood = likelihood
        self.log_variance_range = (config.log_variance_min, config.log_variance_max)
        if len(self.shape) == 1:
            widths = config.hidden or (128, 64)
            self.encoder, self.decoder = _dense(self.shape[0], widths, latent_dim)
        else:
            widths = config.hidden or (16, 32, 64)
            self.encoder, self.decoder = _convolutional(self.shape, widths, latent_dim)
        self.mean = nn.Linear(widths[-1], latent_dim)
        self.log_variance = nn.Linear(widths[-1], latent_dim)
        n_variances = self.shape[0] if config.variance == "column" else 1
        self.output_log_variance = nn.Parameter(
            torch.zeros(n_variances), requires_grad=likelihood == "gaussian"
        )

    def path(self, x: Tensor) -> list[Tensor]:
        """What the encoder's layers make of x, each before its activation."""
        hidden = x
        values = []
        for layer in self.encoder:
            values.append(layer(hidden.flatten(1) if isinstance(layer, nn.Linear) else hidden))
            hidden = leaky(values[-1])
        return values

    def path_gaps(self, path: Sequence[Tensor], gap: Tensor) -> list[Tensor]:
        """How far x and x - gap are apart at the input and after each layer, each flat (n, width).

        path: of x. The gap itself goes through the linear maps: of two nearly equal activations
        subtracted little but rounding would be left, and every runtime rounds in its own way.
        """
        gaps = [gap.flatten(1)]
        for layer, value in zip(self.encoder, path, strict=True):
            gap = _without_bias(cast("nn.Linear | nn.Conv2d", layer), gap)
            slope, other = _slope(value), _slope(value - gap)
            gap = other * gap + (slope - other) * value  # slope * value - other * (value - gap)
            gaps.append(gap.flatten(1))
        return gaps

    def posterior(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log-variance of q(z|x), each (n, latent_dim)."""
        return self.heads(self.path(x)[-1])

    def heads(self, last: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log-variance of q(z|x) from the end of the path."""
        hidden = leaky(last)
        return self.mean(hidden), self.log_variance(hidden).clamp(-10.0, 10.0)

    def decode(self, z: Tensor) -> Tensor:
        """Parameters of p(x|z): logits for bernoulli, means otherwise; shaped like x."""
        output: Tensor = self.decoder(z)
        return output

    def expected(self, output: Tensor) -> Tensor:
        """E[x|z] from the decoder's output."""
        return torch.sigmoid(output) if self.likelihood == "bernoulli" else output

    def reconstruct(self, x: Tensor) -> Tensor:
        """E[x|z] at the posterior mean: no sampling, so equal inputs give equal outputs."""
        return self.expected(self.decode(self.posterior(x)[0]))

    def negative_log_likelihood(
        self, x: Tensor, output: Tensor, *, sum_in: torch.dtype | None = None
    ) -> Tensor:
        """-log p(x|z) in nats per row (n,), summed over features.

        sum_in: the type to add up in. Read-outs take double: runtimes add thousands of float32
        terms in orders of their own.
        """
        if self.likelihood == "bernoulli":
            loss = functional.softplus(output) - x * output  # -x log p - (1-x) log(1-p), by logits
        elif self.likelihood == "mse":
            loss = (x - output).square()
        else:
            log_variance = self.output_log_variance.clamp(*self.log_variance_range)
            squares = (x - output).square() * torch.exp(-log_variance)
            loss = 0.5 * (squares + log_variance + math.log(2 * math.pi))
        return loss.flatten(1).sum(dim=1, dtype=sum_in)


def kl_to_standard_normal(mean: Tensor, log_variance: Tensor) -> Tensor:
    """KL(N(mean, exp(log_variance)) || N(0, 1)) in nats per row (n,). Appendix B of the paper."""
    return 0.5 * (mean.square() + log_variance.exp() - 1.0 - log_variance).sum(dim=1)


def _dense(
    features: int, widths: Sequence[int], latent_dim: int
) -> tuple[nn.ModuleList, nn.Sequential]:
    up = (features, *widths)
    down = (latent_dim, *reversed(widths))
    encoder = nn.ModuleList(nn.Linear(a, b) for a, b in pairwise(up))
    decoder = [_layer(nn.Linear(a, b)) for a, b in pairwise(down)]
    return encoder, nn.Sequential(*decoder, nn.Linear(widths[0], features))


def _convolutional(
    shape: Sequence[int], widths: Sequence[int], latent_dim: int
) -> tuple[nn.ModuleList, nn.Sequential]:
    """Convolutions 4x4 that halve the side, one dense layer; the decoder mirrors them."""
    *channels, dense = widths
    sides = [tuple(shape[1:])]
    for _ in channels:
        sides.append((sides[-1][0] // 2, sides[-1][1] // 2))
    if not channels or min(sides[-1]) < 1:
        raise BadInput(
            f"config 'vae.hidden' {tuple(widths)} halves a side {len(channels)} times, but the "
            f"image is {shape[1]}x{shape[2]}; give 1 to {int(math.log2(min(shape[1:])))} "
            "convolution widths and one dense width"
        )
    stack = (shape[0], *channels)
    flat = channels[-1] * sides[-1][0] * sides[-1][1]
    encoder = nn.ModuleList(nn.Conv2d(a, b, 4, stride=2, padding=1) for a, b in pairwise(stack))
    encoder.append(nn.Linear(flat, dense))
    decoder: list[nn.Module] = [
        _layer(nn.Linear(latent_dim, dense)),
        _layer(nn.Linear(dense, flat)),
    ]
    decoder.append(nn.Unflatten(1, (channels[-1], *sides[-1])))
    for i in range(len(channels), 0, -1):
        odd = (sides[i - 1][0] - 2 * sides[i][0], sides[i - 1][1] - 2 * sides[i][1])
        up = nn.ConvTranspose2d(stack[i], stack[i - 1], 4, stride=2, padding=1, output_padding=odd)
        decoder.append(_layer(up) if i > 1 else up)
    return encoder, nn.Sequential(*decoder)


def _layer(linear: nn.Module) -> nn.Sequential:
    return nn.Sequential(linear, Leaky())


class Leaky(nn.Module):
    """LeakyReLU out of operators that ONNX Runtime also has in double."""

    def forward(self, x: Tensor) -> Tensor:
        return leaky(x)


def leaky(x: Tensor) -> Tensor:
    """x where positive, SLOPE * x elsewhere."""
    return torch.maximum(x, SLOPE * x)


def _slope(value: Tensor) -> Tensor:
    """LeakyReLU's slope at each value."""
    return torch.where(value > 0, torch.ones_like(value), torch.full_like(value, SLOPE))


def _without_bias(layer: nn.Linear | nn.Conv2d, x: Tensor) -> Tensor:
    """The layer's linear map of x alone."""
    if isinstance(layer, nn.Linear):
        return functional.linear(x.flatten(1), layer.weight)
    return functional.conv2d(x, layer.weight, stride=layer.stride, padding=layer.padding)


# --- one training step --------------------------------------------------------------------------


class Vae(LightningModule):
    """Minimises the negative evidence lower bound of features, images (c, h, w) or rows (f,)."""

    def __init__(self, config: VaeConfig, *, shape: Sequence[int], columns: int = 0) -> None:
        super().__init__()
        is_image = len(shape) > 1
        check_config(config, is_image=is_image)
        default_likelihood = "bernoulli" if is_image else "gaussian"
        self.config = config
        self.readout: str = DEFAULT_READOUT if config.readout == "auto" else config.readout
        self.network = VaeNetwork(
            shape,
            config,
            latent_dim=config.latent_dim or (16 if is_image else max(2, min(16, columns // 2))),
            likelihood=default_likelihood if config.likelihood == "auto" else config.likelihood,
        )

    def training_step(self, batch: Tensor, batch_idx: int) -> Tensor:
        x = _shift(batch, self.config.shift_pixels) if batch.ndim == 4 else batch
        mean, log_variance = self.network.posterior(x)
        z = mean + torch.randn_like(mean) * torch.exp(0.5 * log_variance)  # reparametrisation
        reconstruction = self.network.negative_log_likelihood(x, self.network.decode(z)).mean()
        kl = kl_to_standard_normal(mean, log_variance).mean()
        loss = reconstruction + self.kl_weight_now() * kl
        if batch_idx % NAN_CHECK_EVERY_STEPS == 0:
            self._check_finite(loss)
        self._log("train", loss=loss, reconstruction=reconstruction, kl=kl)
        return loss

    def validation_step(self, batch: Tensor, batch_idx: int) -> None:
        """Negative ELBO at the posterior mean, full KL weight: comparable between epochs."""
        mean, log_variance = self.network.posterior(batch)
        reconstruction = self.network.negative_log_likelihood(batch, self.network.decode(mean))
        kl = kl_to_standard_normal(mean, log_variance)
        loss = reconstruction + self.config.kl_weight * kl
        self._check_finite(loss.mean())
        self._log("val", loss=loss.mean(), reconstruction=reconstruction.mean(), kl=kl.mean())

    def kl_weight_now(self) -> float:
        """KL weight at this step: grows linearly from 0 over the warm-up."""
        warm_up_steps = self.config.kl_warm_up * self.trainer.estimated_stepping_batches
        return self.config.kl_weight * min(1.0, (self.global_step + 1) / max(warm_up_steps, 1.0))

    def configure_optimizers(self) -> OptimizerLRSchedulerConfig:
        rate, steps = self.config.learning_rate, int(self.trainer.estimated_stepping_batches)
        optimizer = torch.optim.AdamW(
            [p for p in self.parameters() if p.requires_grad],
            lr=rate,
            weight_decay=self.config.weight_decay,
        )
        cosine = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps, eta_min=rate / 100)
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": cosine, "interval": "step"},
        }

    def fit_readout(self, features: Tensor) -> nn.Module:
        """The read-out as a frozen module (network inside), fitted on training features."""
        network = self.network.eval().requires_grad_(False)
        if self.readout == "whitened_path":
            limit = MAX_WHITENING_ROWS["image" if features.ndim == 4 else "table"]
            return WhitenedPath(network, features[:limit])
        if self.readout == "reconstruction_probability":
            return ReconstructionProbability(network, draws=self.config.draws)
        return Elbo(network, kl_weight=0.0 if self.readout == "reconstruction" else 1.0)

    def _check_finite(self, loss: Tensor) -> None:
        if not torch.isfinite(loss):
            raise TrainingDiverged(
                f"the loss became {loss.item()} at step {self.global_step}; lower "
                f"vae.learning_rate (now {self.config.learning_rate:g}), or raise "
                f"vae.log_variance_min (now {self.config.log_variance_min:g})"
            )

    def _log(self, stage: str, **values: Tensor) -> None:
        self.log_dict(
            {f"{stage}_{name}": value.detach() for name, value in values.items()},
            on_step=False,
            on_epoch=True,
        )


def _shift(images: Tensor, pixels: int) -> Tensor:
    """The batch moved by one random offset of up to `pixels` in each direction."""
    if pixels == 0:
        return images
    down, right = torch.randint(-pixels, pixels + 1, (2,)).tolist()
    return torch.roll(images, (down, right), dims=(2, 3))


# --- read-outs: features -> (value (n,), reconstruction shaped like the features) ---------------


class Elbo(nn.Module):
    """-log p(x|z) + kl_weight * KL at the posterior mean; kl_weight 0: reconstruction only."""

    def __init__(self, network: VaeNetwork, *, kl_weight: float) -> None:
        super().__init__()
        self.network, self.kl_weight = network, kl_weight

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        mean, log_variance = self.network.posterior(x)
        output = self.network.decode(mean)
        kl = self.kl_weight * kl_to_standard_normal(mean, log_variance)
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
        output = self.network.decode(z)
        nll = self.network.negative_log_likelihood(each, output, sum_in=torch.float64)
        value = nll.reshape(-1, draws).mean(dim=1)
        return value, self.network.expected(self.network.decode(mean))


class WhitenedPath(nn.Module):
    """Squared Mahalanobis length of [path of x minus path of its reconstruction, latent mean].

    RaPP's normalised aggregation along pathway (Kim et al. 2020), with the latent mean added.
    """

    def __init__(self, network: VaeNetwork, features: Tensor) -> None:
        super().__init__()
        self.network = network
        with torch.no_grad():
            rows, _ = self._difference(features)
            blocks = [part[0].numel() for part in (features, *network.path(features[:1]))]
        latent_dim = network.mean.out_features
        components = 128 if features.ndim == 4 else 1024
        self.whitener = Whitener(
            rows.numpy(), blocks=[*blocks, latent_dim], components=components, floor=1e-3
        )

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        rows, expected = self._difference(x)
        return self.whitener(rows), expected

    def _difference(self, x: Tensor) -> tuple[Tensor, Tensor]:
        path = self.network.path(x)
        mean, _ = self.network.heads(path[-1])
        expected = self.network.expected(self.network.decode(mean))
        return torch.cat([*self.network.path_gaps(path, x - expected), mean], dim=1), expected
