"""Adversarially Learned Anomaly Detection (ALAD; Zenati et al. 2018).

In the paper's order: config, networks, objective, one training step, scores. An encoder E and a
generator G learn against three discriminators: D_xz tells (x, E(x)) from (G(z), z), D_xx tells
(x, x) from (x, G(E(x))), D_zz tells (z, z) from (z, E(G(z))). E, G and D_xx are what is scored.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import ClassVar, Literal, cast, get_args

import torch
from lightning.pytorch.core.optimizer import LightningOptimizer
from torch import Tensor, nn
from torch.nn import functional

from amiss_export.graph import Whitener
from amiss_training.checks import check_range
from amiss_training.detectors.alad_networks import (
    AladNetwork,
    JointDiscriminator,
    PairDiscriminator,
)
from amiss_training.detectors.module import NAN_CHECK_EVERY_STEPS, Detector, clip_norm, shift
from amiss_training.detectors.networks import (
    check_widths,
    default_widths,
    frozen,
    latent_of,
)
from amiss_training.detectors.readouts import (
    MAX_WHITENING_ROWS,
    WHITENED_DIRECTIONS,
    Complexity,
    HiddenNeighbours,
    HiddenOutlierFactor,
    WhitenedPath,
    check_complexity,
)
from amiss_training.rows import spread

LATENT_WIDTHS = (64, 32)  # of D_zz, for every data set of the paper
LEARNING_RATES = {"table": 5e-5, "image": 2e-4}
GRADIENT_CLIP = 5.0  # norm; the discriminators' gradients and those of E and G, each on their own

PaperScore = Literal["fm", "l1", "l2", "ch"]
PAPER_SCORES: tuple[PaperScore, ...] = get_args(PaperScore)


@dataclass(frozen=True)
class AladConfig:
    """Hyper-parameters of Adversarially Learned Anomaly Detection.

    Half of each batch trains the discriminators, the other half the encoder and the generator.

    Args:
        hidden: Widths of the encoder's layers; the generator mirrors them. Images: channels of the
            strided convolutions, then the width of the last dense layer. Unset: 128, 64 for
            tables; for images convolutions down to a side of about 8, then 64 or 128.
        discriminator_hidden: Widths of the layers that see x in D_xz and D_xx; unset: as `hidden`.
        latent_dim: Latent dimensions; unset: half of the columns within 2..16, 32 for images.
        spectral_norm: Hold the gain of the layers of the encoder and of the discriminators to 1,
            but for the last layer of each.
        dzz: Let E and G learn from D_zz, too.
        dropout: Share of the units of their dense layers that the discriminators lose while
            training.
        learning_rate: Adam's step size for all five networks; unset: 5e-5 for tables, 2e-4 for
            images.
        beta1: Adam's decay of the mean gradient.
        beta2: Adam's decay of the mean squared gradient.
        reconstruction_weight: Weight of the squared error of x and G(E(x)), summed over features;
            0 is the paper's objective.
        shift_pixels: Images are moved by up to this many pixels at random while training.
        feature_norm: Degree of the norm of the feature difference that is the score fm.
        readout: How the score is read off the model. fm, l1, l2, ch: the paper's.
            whitened_features: whitened residual, code and features of D_xx. whitened: those and
            the gaps along the encoder's layers. auto: whitened.
        complexity: Correct the score of an image for how complex the image is: by its total
            variation, or by that and its sum of squares.
    """

    hidden: tuple[int, ...] | None = None
    discriminator_hidden: tuple[int, ...] | None = None
    latent_dim: int | None = None
    spectral_norm: bool = True
    dzz: bool = True
    dropout: float = 0.2
    learning_rate: float | None = None
    beta1: float = 0.5
    beta2: float = 0.999
    reconstruction_weight: float = 0.0
    shift_pixels: int = 1
    feature_norm: int = 1
    readout: Literal[
        "auto",
        "fm",
        "l1",
        "l2",
        "ch",
        "whitened",
        "whitened_features",
        "whitened_path",
        "hidden_neighbours",
        "hidden_outlier_factor",
    ] = "auto"
    complexity: Literal["none", "variation", "variation_ink"] = "none"


def check_config(config: AladConfig, *, shape: Sequence[int]) -> None:
    """Nothing; raises BadInput naming the option that cannot work, and its value."""
    check_range("alad.latent_dim", config.latent_dim, 1)
    check_range("alad.dropout", config.dropout, 0, 0.9)
    check_range("alad.learning_rate", config.learning_rate, 0)
    check_range("alad.beta1", config.beta1, 0, 0.9999)
    check_range("alad.beta2", config.beta2, 0, 0.99999)
    check_range("alad.reconstruction_weight", config.reconstruction_weight, 0)
    check_range("alad.shift_pixels", config.shift_pixels, 0)
    check_range("alad.feature_norm", config.feature_norm, 1)
    check_widths("alad.hidden", config.hidden, shape)
    check_widths("alad.discriminator_hidden", config.discriminator_hidden, shape)
    check_complexity("alad.complexity", config.complexity, is_image=len(shape) > 1)


# --- objective and one training step ----------------------------------------------------------


def cross_entropy(logits: Tensor, label: Literal[0, 1]) -> Tensor:
    """Mean sigmoid cross-entropy of logits (n,) with one label, a scalar; stable for any logit."""
    return functional.softplus(logits if label == 0 else -logits).mean()


def clip_gradients(parameters: Sequence[nn.Parameter]) -> None:
    """Nothing; scales the gradients of the parameters to a norm of at most GRADIENT_CLIP."""
    clip_norm([p.grad for p in parameters if p.grad is not None], GRADIENT_CLIP)


class Alad(Detector):
    """Plays the game of E and G against D_xz, D_xx and D_zz on features, (f,) or (c, h, w)."""

    readout_names: ClassVar[tuple[str, ...]] = (
        *PAPER_SCORES,
        "whitened",
        "whitened_features",
        "whitened_path",
        "hidden_neighbours",
        "hidden_outlier_factor",
    )
    network: AladNetwork

    def __init__(self, config: AladConfig, *, shape: Sequence[int], columns: int = 0) -> None:
        super().__init__()
        self.is_image = len(shape) > 1
        check_config(config, shape=shape)
        self.automatic_optimization = False
        self.config = config
        self.readout = "whitened" if config.readout == "auto" else config.readout
        self.complexity: Complexity = config.complexity
        self.latent_dim = config.latent_dim or (32 if self.is_image else latent_of(columns))
        default_rate = LEARNING_RATES["image" if self.is_image else "table"]
        self.learning_rate = default_rate if config.learning_rate is None else config.learning_rate
        widths = config.hidden or default_widths(shape)
        discriminator_widths = config.discriminator_hidden or widths
        dropout, normed = config.dropout, config.spectral_norm
        self.network = AladNetwork(
            shape,
            widths=widths,
            discriminator_widths=discriminator_widths,
            latent_dim=self.latent_dim,
            dropout=dropout,
            normed=normed,
        )
        self.d_xz = JointDiscriminator(
            shape, discriminator_widths, self.latent_dim, dropout=dropout, normed=normed
        )
        self.d_zz = PairDiscriminator(
            (self.latent_dim,), LATENT_WIDTHS, dropout=dropout, normed=normed
        )

    def training_step(self, batch: Tensor, batch_idx: int) -> None:
        """One update of each discriminator, then one of E and of G on rows drawn independently.

        Two halves of a batch are two draws that share nothing and leave nothing to remember.
        """
        x = shift(batch, self.config.shift_pixels) if self.is_image else batch
        first, second = (x[::2], x[1::2]) if len(x) > 1 else (x, x)
        made = self._train_discriminators(first)
        learned = self._train_makers(second)
        if batch_idx % NAN_CHECK_EVERY_STEPS == 0:
            self._check_finite(made["dis"] + learned["gen"] + learned["enc"])
        self.log_losses("train", rows=len(x), **learned, **made)

    def discriminator_losses(self, x: Tensor, z: Tensor) -> dict[str, Tensor]:
        """L_Dxz, L_Dxx, L_Dzz and their sum `dis`; real pairs have label 1."""
        network = self.network
        with torch.no_grad():  # E and G hold still
            code, drawn = network.encode(x), network.decode(z)
            x_again, z_again = network.decode(code), network.encode(drawn)
        xz = cross_entropy(self.d_xz(x, code), 1) + cross_entropy(self.d_xz(drawn, z), 0)
        xx = cross_entropy(network.d_xx(x, x), 1) + cross_entropy(network.d_xx(x, x_again), 0)
        zz = cross_entropy(self.d_zz(z, z), 1) + cross_entropy(self.d_zz(z, z_again), 0)
        return {"dis": xz + xx + zz, "dis_xz": xz, "dis_xx": xx, "dis_zz": zz}

    def maker_losses(self, x: Tensor, z: Tensor) -> dict[str, Tensor]:
        """L_G, L_E, and `both`, whose gradient is L_G's for G and L_E's for E.

        The labels are flipped. E and G share the terms of D_xx and D_zz, the cycle; the term of
        D_xz that G learns from does not depend on E, nor the other way round.
        """
        network = self.network
        code, drawn = network.encode(x), network.decode(z)
        x_again, z_again = network.decode(code), network.encode(drawn)
        cycle = cross_entropy(network.d_xx(x, x), 0) + cross_entropy(network.d_xx(x, x_again), 1)
        if self.config.dzz:
            cycle = cycle + cross_entropy(self.d_zz(z, z), 0)
            cycle = cycle + cross_entropy(self.d_zz(z, z_again), 1)
        if self.config.reconstruction_weight > 0:
            errors = (x - x_again).square().flatten(1).sum(dim=1)
            cycle = cycle + self.config.reconstruction_weight * errors.mean()
        gen = cross_entropy(self.d_xz(drawn, z), 1)
        enc = cross_entropy(self.d_xz(x, code), 0)
        return {"gen": gen + cycle, "enc": enc + cycle, "both": gen + enc + cycle}

    def validation_step(self, batch: Tensor, batch_idx: int) -> None:
        """fm of normals as a share of fm of x beside the reconstruction of another row.

        Features of a young D_xx are small, whatever they compare: fm alone is least before the
        first step. The share starts near 1; 0 is a perfect reconstruction.
        """
        network = self.network
        x_again = network.reconstruct(batch)
        fm = self._fm(batch, x_again).mean()
        mismatched = self._fm(batch, x_again.roll(1, dims=0)).mean()
        gap = (batch - x_again).flatten(1)
        self._check_finite(fm)
        self.log_losses(
            "val",
            rows=len(batch),
            loss=fm / mismatched.clamp(min=1e-12),
            fm=fm,
            fm_mismatched=mismatched,
            l1=gap.abs().sum(dim=1).mean(),
            l2=gap.square().sum(dim=1).sqrt().mean(),
            ch=cross_entropy(network.d_xx(batch, x_again), 1),
        )

    def configure_optimizers(self) -> list[torch.optim.Optimizer]:
        rate, betas = self.learning_rate, (self.config.beta1, self.config.beta2)
        groups = (self._discriminator_parameters(), self.network.maker_parameters())
        return [torch.optim.Adam(group, lr=rate, betas=betas, fused=True) for group in groups]

    def named_readout(self, name: str, train: Tensor, early_stop: Tensor) -> nn.Module:
        network = cast("AladNetwork", frozen(self.network))
        readouts: dict[str, Callable[[], nn.Module]] = {
            "whitened": lambda: WhitenedFeatures(network, train, with_path=True),
            "whitened_features": lambda: WhitenedFeatures(network, train, with_path=False),
            "whitened_path": lambda: WhitenedPath(network, train),
            "hidden_neighbours": lambda: HiddenNeighbours(network, train),
            "hidden_outlier_factor": lambda: HiddenOutlierFactor(network, train),
        }
        degree = self.config.feature_norm
        for score in PAPER_SCORES:
            readouts[score] = partial(AladScore, network, score, degree=degree)
        return readouts[name]()

    def _train_discriminators(self, x: Tensor) -> dict[str, Tensor]:
        """Losses of one step that Lightning does not count: max_steps means batches."""
        optimizer, _ = cast("list[torch.optim.Optimizer]", self.optimizers(use_pl_optimizer=False))
        losses = self.discriminator_losses(x, self._prior(len(x)))
        optimizer.zero_grad()
        self.manual_backward(losses["dis"])
        clip_gradients(self._discriminator_parameters())
        optimizer.step()
        return losses

    def _train_makers(self, x: Tensor) -> dict[str, Tensor]:
        """Losses of one step of E and G, for which the discriminators hold still."""
        _, optimizer = cast("list[LightningOptimizer]", self.optimizers())
        parameters = self.network.maker_parameters()
        losses = self.maker_losses(x, self._prior(len(x)))
        optimizer.zero_grad()
        self.manual_backward(losses.pop("both"), inputs=parameters)
        clip_gradients(parameters)
        optimizer.step()
        return losses

    def _prior(self, rows: int) -> Tensor:
        return torch.randn(rows, self.latent_dim, device=self.device)

    def _fm(self, x: Tensor, other: Tensor) -> Tensor:
        return norm(self.network.d_xx.feature_gap(x, other), degree=self.config.feature_norm)

    def _discriminator_parameters(self) -> list[nn.Parameter]:
        parts = (self.d_xz, self.network.d_xx, self.d_zz)
        return [parameter for part in parts for parameter in part.parameters()]

    def _check_finite(self, loss: Tensor) -> None:
        self.check_finite(loss, advice=f"lower alad.learning_rate (now {self.learning_rate:g})")


# --- scores: features -> (value (n,), G(E(x))) --------------------------------------------------


def norm(rows: Tensor, *, degree: int) -> Tensor:
    """Norm of each row (n,), added up in double: runtimes add terms in orders of their own."""
    return rows.flatten(1).double().abs().pow(degree).sum(dim=1).pow(1.0 / degree)


def surprise(logits: Tensor) -> Tensor:
    """-log sigmoid of logits, out of operators that ONNX Runtime also has in double."""
    return (-logits).clamp(min=0.0) + (1.0 + (-logits.abs()).exp()).log()


class AladScore(nn.Module):
    """The paper's scores of x beside x' = G(E(x)); fm is the one it argues for.

    fm: norm of f(x, x) - f(x, x') of the given degree, f the last hidden layer of D_xx. l1, l2:
    norm of x - x'. ch: -log sigmoid(D_xx(x, x')).
    """

    def __init__(self, network: AladNetwork, name: PaperScore, *, degree: int = 1) -> None:
        super().__init__()
        self.network, self.name, self.degree = network, name, degree

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        x_again = self.network.reconstruct(x)
        return self._value(x, x_again), x_again

    def _value(self, x: Tensor, x_again: Tensor) -> Tensor:
        if self.name == "fm":
            return norm(self.network.d_xx.feature_gap(x, x_again), degree=self.degree)
        if self.name == "ch":
            return surprise(self.network.d_xx(x, x_again).double())
        return norm(x - x_again, degree=1 if self.name == "l1" else 2)


class WhitenedFeatures(nn.Module):
    """Squared Mahalanobis length of [x - x', E(x), f(x, x) - f(x, x')] with x' = G(E(x)).

    with_path: the gaps between x and x' after each layer of the encoder as well (RaPP, Kim et al.
    2020). The covariance is that of training normals.
    """

    def __init__(self, network: AladNetwork, train: Tensor, *, with_path: bool) -> None:
        super().__init__()
        self.network, self.with_path = network, with_path
        kind = "image" if train.ndim == 4 else "table"
        rows = torch.split(spread(train, MAX_WHITENING_ROWS[kind]), 1_024)
        with torch.no_grad():
            widths = [block.shape[1] for block in self._blocks(rows[0][:1])[0]]
            vectors = torch.cat([torch.cat(self._blocks(part)[0], dim=1) for part in rows])
        self.whitener = Whitener(
            vectors.numpy(), blocks=widths, components=WHITENED_DIRECTIONS[kind], floor=1e-3
        )

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        blocks, x_again = self._blocks(x)
        return self.whitener(torch.cat(blocks, dim=1)), x_again

    def _blocks(self, x: Tensor) -> tuple[list[Tensor], Tensor]:
        network = self.network
        path = network.encoder.path(x)
        code = network.code(path[-1])
        x_again = network.decode(code)
        gaps = network.encoder.path_gaps(path, x - x_again) if self.with_path else [x - x_again]
        features = network.d_xx.feature_gap(x, x_again)
        return [*(gap.flatten(1) for gap in gaps), code, features], x_again
