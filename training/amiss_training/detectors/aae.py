"""Adversarial autoencoder (Makhzani et al. 2016), with an image critic too if wanted.

In the paper's order: config, network, reconstruction, one training step, read-outs.
The code is deterministic; a critic, not a KL term, holds its distribution to the prior N(0, 1).
Every sum runs over features and over latent dimensions; only rows are averaged.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from functools import partial
from typing import Any, ClassVar, Literal, cast, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional

from amiss_export.errors import BadInput
from amiss_training.checks import check_range
from amiss_training.detectors.critics import Critic, CriticFeatures, LatentCritic
from amiss_training.detectors.local import LocalWhitening
from amiss_training.detectors.module import NAN_CHECK_EVERY_STEPS, Detector, clip_norm, shift
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
from amiss_training.detectors.similarity import psnr, ssim

Reconstruction = Literal["l1", "l2", "ssim", "bce"]
ReadOut = Literal[
    "reconstruction",
    "critic_features",
    "latent_critic",
    "latent_prior",
    "ssim",
    "whitened_residual",
    "whitened_path",
    "whitened_local",
    "blend",
    "hidden_neighbours",
    "hidden_outlier_factor",
]
NOT_ALWAYS = ("ssim", "whitened_local", "critic_features")  # only for images, or their critic
LATENT_CRITIC_WIDTHS = (64, 64)
MAX_GRADIENT_NORM = 5.0
NOT_NEGATIVE = (
    "reconstruction_weight",
    "adversarial_weight",
    "gradient_penalty_weight",
    "learning_rate",
    "critic_learning_rate",
    "weight_decay",
    "input_noise",
    "code_noise",
    "shift_pixels",
)


@dataclass(frozen=True)
class AaeConfig:
    """Hyper-parameters of the adversarial autoencoder.

    Args:
        hidden: Widths of the encoder's layers; the decoder mirrors them, and so does the image
            critic. Images: channels of the strided convolutions, then the width of the last dense
            layer. Unset: 128, 64 for tables; for images convolutions down to a side of about 8,
            then 64 or 128.
        latent_dim: Latent dimensions; unset: half of the columns within 2..16, 16 for images.
        reconstruction: l1 and l2 sum absolute or squared differences over features; for images
            bce takes pixels as probabilities, ssim is 1 - similarity, times the number of
            pixels. auto: l2 for tables, bce for images.
        reconstruction_weight: Weight of the reconstruction in the network's loss.
        adversarial_weight: Weight of each critic's term in it. Unset: 1 for tables, 10 for images.
        latent_critic: Critic that tells codes from draws of the prior. bce: cross-entropy with
            spectral norm; wgan_gp: Wasserstein distance with a gradient penalty and layer norm.
        image_critic: Critic that tells images from decoded draws of the prior; none goes without.
        gradient_penalty_weight: Weight of the gradient penalty (wgan_gp only).
        critic_steps: Steps of a wgan_gp critic for each step against it.
        learning_rate: Adam's step size at the start; decays along a cosine to a hundredth.
        beta1: Adam's memory of the mean gradient of the encoder and decoder.
        critic_learning_rate: The same of the critics.
        critic_beta1: The same of the critics.
        weight_decay: Decoupled weight decay of the encoder and decoder.
        input_noise: Standard deviation of the noise that the encoder has to see through while
            training. Unset: 0.5 for tables, 0.1 for images.
        code_noise: The same for the decoder; keeps codes apart that stand for different rows, as
            the spread of a VAE's posterior does. Unset: 0.3 for tables, 0 for images.
        shift_pixels: Images are moved by up to this many pixels at random while training.
        readout: How the score is read off the model. auto: blend, which takes together the
            whitened path, the hidden neighbours and, for tables, the latent prior; for images the
            squared error.
        complexity: Correct the score of an image for how complex the image is: by its total
            variation, or by that and its sum of squares. auto: variation for the blend of images.
    """

    hidden: tuple[int, ...] | None = None
    latent_dim: int | None = None
    reconstruction: Literal["auto", "l1", "l2", "ssim", "bce"] = "auto"
    reconstruction_weight: float = 1.0
    adversarial_weight: float | None = None
    latent_critic: Literal["bce", "wgan_gp"] = "bce"
    image_critic: Literal["none", "bce", "wgan_gp"] = "none"
    gradient_penalty_weight: float = 10.0
    critic_steps: int = 5
    learning_rate: float = 1e-3
    beta1: float = 0.9
    critic_learning_rate: float = 1e-3
    critic_beta1: float = 0.5
    weight_decay: float = 1e-5
    input_noise: float | None = None
    code_noise: float | None = None
    shift_pixels: int = 1
    readout: Literal["auto", ReadOut] = "auto"
    complexity: Literal["auto", "none", "variation", "variation_ink"] = "auto"


def check_config(config: AaeConfig, *, shape: Sequence[int]) -> None:
    """Nothing; raises BadInput naming the option that cannot work, and its value."""
    is_image = len(shape) > 1
    for name in ("latent_dim", "critic_steps"):
        check_range(f"aae.{name}", getattr(config, name), 1)
    for name in NOT_NEGATIVE:
        check_range(f"aae.{name}", getattr(config, name), 0)
    for name in ("beta1", "critic_beta1"):
        check_range(f"aae.{name}", getattr(config, name), 0, 0.9999)
    check_widths("aae.hidden", config.hidden, shape)
    check_complexity("aae.complexity", config.complexity, is_image=is_image)
    if config.readout == "critic_features" and config.image_critic == "none":
        raise BadInput(
            "config 'aae.readout' critic_features needs an image critic; set aae.image_critic "
            "to wgan_gp or take another read-out"
        )
    if is_image:
        return
    for name, wrong, instead in (
        ("reconstruction", ("ssim", "bce"), "l1 or l2"),
        ("image_critic", ("bce", "wgan_gp"), "none"),
        ("readout", ("ssim", "whitened_local"), "whitened_path"),
    ):
        if getattr(config, name) in wrong:
            raise BadInput(
                f"config 'aae.{name}' {getattr(config, name)} is for images; take {instead}"
            )


@dataclass(frozen=True)
class Chosen:
    """What a config leaves open, decided."""

    reconstruction: Reconstruction
    adversarial_weight: float
    input_noise: float
    code_noise: float


FOR_TABLES = Chosen("l2", adversarial_weight=1.0, input_noise=0.5, code_noise=0.3)
FOR_IMAGES = Chosen("bce", adversarial_weight=10.0, input_noise=0.1, code_noise=0.0)


def choose(config: AaeConfig, *, is_image: bool) -> Chosen:
    """What the config says, and where it leaves something open what suits the features."""
    asked = {field.name: getattr(config, field.name) for field in fields(Chosen)}
    given = {name: value for name, value in asked.items() if value not in (None, "auto")}
    return replace(FOR_IMAGES if is_image else FOR_TABLES, **given)


# --- network ------------------------------------------------------------------------------------


class AaeNetwork(Autoencoder):
    """Encoder and decoder over features, dense for (f,), convolutional for (c, h, w).

    widths: already resolved. Images come out within 0..1.
    """

    def __init__(self, shape: Sequence[int], *, widths: Sequence[int], latent_dim: int) -> None:
        super().__init__()
        self.is_image = len(shape) > 1
        self.encoder = Encoder(shape, widths)
        self.head = nn.Linear(widths[-1], latent_dim)
        self.decoder = decoder(shape, widths, latent_dim)

    def code(self, last: Tensor) -> Tensor:
        code: Tensor = self.head(leaky(last))
        return code

    def decode(self, z: Tensor) -> Tensor:
        return self.expected(self.decoder(z))

    def expected(self, output: Tensor) -> Tensor:
        """Expected features from the decoder's output, which is logits for images."""
        return torch.sigmoid(output) if self.is_image else output

    def reconstruction_loss(self, x: Tensor, output: Tensor, *, kind: Reconstruction) -> Tensor:
        """How far x (n, *shape) is from what the decoder's output says, summed (n,)."""
        if kind == "ssim":
            return x[0].numel() * (1.0 - ssim(x, self.expected(output)))
        if kind == "bce":
            loss = functional.softplus(output) - x * output  # -x log p - (1-x) log(1-p), by logits
        else:
            gap = x - self.expected(output)
            loss = gap.abs() if kind == "l1" else gap.square()
        return loss.flatten(1).sum(dim=1)


# --- one training step --------------------------------------------------------------------------


class Aae(Detector):
    """Reconstructs images (c, h, w) or rows (f,) from codes that look like draws of the prior."""

    readout_names: ClassVar[tuple[str, ...]] = tuple(
        name for name in get_args(ReadOut) if name not in NOT_ALWAYS
    )
    network: AaeNetwork

    def __init__(self, config: AaeConfig, *, shape: Sequence[int], columns: int = 0) -> None:
        super().__init__()
        self.automatic_optimization = False  # two losses take turns in every batch
        self.config, self.is_image = config, len(shape) > 1
        check_config(config, shape=shape)
        self.chosen = choose(config, is_image=self.is_image)
        self.readout = "blend" if config.readout == "auto" else config.readout
        self.complexity = resolved(config.complexity, is_image=self.is_image, readout=self.readout)
        self.readout_names = (  # type: ignore[misc]
            *Aae.readout_names,
            *(["ssim", "whitened_local"] if self.is_image else []),
            *(["critic_features"] if config.image_critic != "none" else []),
        )
        self.latent_dim = config.latent_dim or (16 if self.is_image else latent_of(columns))
        widths = config.hidden or default_widths(shape)
        self.network = AaeNetwork(shape, widths=widths, latent_dim=self.latent_dim)
        critic = partial(Critic, penalty_weight=config.gradient_penalty_weight)
        latent = critic((self.latent_dim,), LATENT_CRITIC_WIDTHS, kind=config.latent_critic)
        self.critics = nn.ModuleDict({"latent": latent})
        if config.image_critic != "none":
            self.critics["image"] = critic(shape, widths, kind=config.image_critic)

    def training_step(self, batch: Tensor, batch_idx: int) -> None:
        x = shift(batch, self.config.shift_pixels) if self.is_image else batch
        code = self.network.encode(x + self.chosen.input_noise * torch.randn_like(x))
        network_optimizer, critic_optimizer = cast("list[Any]", self.optimizers())
        # 1. The critics learn to tell codes from draws, and images from decoded draws.
        losses = self.critic_losses(x, code.detach())
        bare = critic_optimizer.optimizer  # not Lightning's: a batch counts as one step
        self._minimise(torch.stack(list(losses.values())).sum(), self.critics, bare)

        # 2. Encoder and decoder learn to reconstruct, and to be taken for real.
        self.critics.eval().requires_grad_(False)
        terms = self.network_losses(x, code)
        loss = self.weighted(terms)
        self._minimise(loss, self.network, network_optimizer)
        self.critics.train().requires_grad_(True)

        for schedule in cast("list[Any]", self.lr_schedulers()):
            schedule.step()
        if batch_idx % NAN_CHECK_EVERY_STEPS == 0:
            self._check_finite(loss)
        self.log_losses("train", rows=len(x), **losses, **terms)

    def critic_losses(self, x: Tensor, code: Tensor) -> dict[str, Tensor]:
        """What each critic minimises on a batch and its codes (n, latent_dim)."""
        losses = {"latent_critic": self._critic("latent").loss(torch.randn_like(code), code)}
        if "image" in self.critics:
            with torch.no_grad():
                made = self.network.decode(torch.randn_like(code))
            losses["image_critic"] = self._critic("image").loss(x, made)
        return losses

    def network_losses(self, x: Tensor, code: Tensor) -> dict[str, Tensor]:
        """The terms that encoder and decoder minimise, unweighted: of a batch and its codes."""
        output = self.network.decoder(code + self.chosen.code_noise * torch.randn_like(code))
        loss = self.network.reconstruction_loss(x, output, kind=self.chosen.reconstruction)
        terms = {"reconstruction": loss.mean()}
        if self.is_due("latent"):
            terms["latent_adversarial"] = self._critic("latent").suspicion(code).mean()
        if "image" in self.critics and self.is_due("image"):
            made = self.network.decode(torch.randn_like(code))
            terms["image_adversarial"] = self._critic("image").suspicion(made).mean()
        return terms

    def weighted(self, terms: dict[str, Tensor]) -> Tensor:
        """What encoder and decoder minimise in all."""
        weights = {"reconstruction": self.config.reconstruction_weight}
        against = self.chosen.adversarial_weight
        return torch.stack([weights.get(name, against) * t for name, t in terms.items()]).sum()

    def is_due(self, name: str) -> bool:
        """Whether this step is one against the critic: a Wasserstein critic is given a lead."""
        if self._critic(name).kind == "bce":
            return True
        return self.global_step % self.config.critic_steps == 0

    def validation_step(self, batch: Tensor, batch_idx: int) -> None:
        """The reconstruction of normals, from their clean, deterministic codes."""
        output = self.network.decoder(self.network.encode(batch))
        kind = self.chosen.reconstruction
        loss = self.network.reconstruction_loss(batch, output, kind=kind).mean()
        self._check_finite(loss)
        terms = {"loss": loss}
        if self.is_image:
            expected = self.network.expected(output)
            terms |= {"psnr": psnr(batch, expected).mean(), "ssim": ssim(batch, expected).mean()}
        self.log_losses("val", rows=len(batch), **terms)

    def configure_optimizers(self) -> Any:
        """Adam for the network and for the critics, both along a cosine to a hundredth."""
        config, steps = self.config, self.planned_steps()

        def adam(part: nn.Module, rate: float, beta1: float, decay: float) -> torch.optim.AdamW:
            betas = (beta1, 0.999)
            return torch.optim.AdamW(
                part.parameters(), lr=rate, betas=betas, weight_decay=decay, fused=True
            )

        optimizers = [
            adam(self.network, config.learning_rate, config.beta1, config.weight_decay),
            adam(self.critics, config.critic_learning_rate, config.critic_beta1, 0.0),
        ]
        cosine = torch.optim.lr_scheduler.CosineAnnealingLR
        return optimizers, [cosine(o, steps, o.defaults["lr"] / 100) for o in optimizers]

    def named_readout(self, name: str, train: Tensor, early_stop: Tensor) -> nn.Module:
        network = cast("AaeNetwork", frozen(self.network))
        critics = cast("dict[str, Critic]", frozen(self.critics))
        norm: Literal["l1", "l2"] = "l1" if self.chosen.reconstruction == "l1" else "l2"
        readouts: dict[str, Callable[[], nn.Module]] = {
            "reconstruction": lambda: Residual(network, norm=norm),
            "critic_features": lambda: CriticFeatures(network, critics["image"]),
            "latent_critic": lambda: LatentCritic(network, critics["latent"]),
            "latent_prior": lambda: LatentPrior(network),
            "ssim": lambda: Dissimilarity(network, multi_scale=False),
            "whitened_residual": lambda: WhitenedResidual(network, train),
            "whitened_path": lambda: WhitenedPath(network, train),
            "whitened_local": lambda: LocalWhitening(network, train),
            "blend": lambda: self._blend(network, train, early_stop),
            "hidden_neighbours": lambda: HiddenNeighbours(network, train),
            "hidden_outlier_factor": lambda: HiddenOutlierFactor(network, train),
        }
        return readouts[name]()

    def _blend(self, network: AaeNetwork, train: Tensor, early_stop: Tensor) -> nn.Module:
        path, neighbours = WhitenedPath(network, train), HiddenNeighbours(network, train)
        if not self.is_image:
            return Average([path, LatentPrior(network), neighbours], early_stop)
        return Blend([path, Residual(network, norm="l2"), neighbours], early_stop)

    def _minimise(self, loss: Tensor, part: nn.Module, optimizer: Any) -> None:
        """Nothing; one step of that part of the detector, its gradient clipped."""
        optimizer.zero_grad()
        self.manual_backward(loss)
        clip_norm([p.grad for p in part.parameters() if p.grad is not None], MAX_GRADIENT_NORM)
        optimizer.step()

    def _critic(self, name: str) -> Critic:
        return cast("Critic", self.critics[name])

    def _check_finite(self, loss: Tensor) -> None:
        self.check_finite(
            loss,
            advice=f"lower aae.learning_rate (now {self.config.learning_rate:g}) or "
            f"aae.adversarial_weight (now {self.chosen.adversarial_weight:g})",
        )


# --- read-outs of its own: features -> (value (n,), reconstruction shaped like the features) ----


class LatentPrior(nn.Module):
    """-log N(code; 0, 1) up to its constant: half the squared length of the code."""

    def __init__(self, network: AaeNetwork) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        code = self.network.encode(x)
        return 0.5 * code.double().square().sum(dim=1), self.network.decode(code)
