"""Ways to read a score off an autoencoder: frozen modules, features -> (value (n,), expectation).

Higher = more anomalous, deterministic, fitted on training normals (whatever says so: on early-stop
normals, which the network has not learned by heart). They are part of the exported graph.
"""

from collections.abc import Callable, Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from amiss_export.errors import BadInput
from amiss_export.graph import ScoreScale, Whitener
from amiss_training.detectors.networks import Autoencoder, leaky
from amiss_training.detectors.similarity import ms_ssim, ssim
from amiss_training.rows import spread

Complexity = Literal["none", "variation", "variation_ink"]
MAX_WHITENING_ROWS = {"image": 1_500, "table": 20_000}
WHITENED_DIRECTIONS = {"image": 128, "table": 1_024}
MAX_NEIGHBOUR_ROWS = {"image": 4_000, "table": 2_000}
NEIGHBOUR_DIRECTIONS = {"image": 128, "table": 64}
NEIGHBOURS = 5
LEAST_SPARSE = 0.01  # of the mean: rows that repeat have no distance at all
AROUND = 10  # neighbours that tell how dense the training rows are around a row
DENSITY_SHARE = 0.4  # of that density that counts: 0 the distance alone, 1 the factor alone
TINY = 1e-12


class Residual(nn.Module):
    """Sum of absolute (l1) or squared (l2) differences between x and its expectation."""

    def __init__(self, network: Autoencoder, *, norm: Literal["l1", "l2"]) -> None:
        super().__init__()
        self.network, self.norm = network, norm

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        expected = self.network.reconstruct(x)
        gap = (x - expected).flatten(1)
        terms = gap.abs() if self.norm == "l1" else gap.square()
        return terms.sum(dim=1, dtype=torch.float64), expected


class Dissimilarity(nn.Module):
    """1 - SSIM, or 1 - MS-SSIM, of an image and its expectation."""

    def __init__(self, network: Autoencoder, *, multi_scale: bool) -> None:
        super().__init__()
        self.network, self.similarity = network, ms_ssim if multi_scale else ssim

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        expected = self.network.reconstruct(x)
        return 1.0 - self.similarity(x, expected.clamp(0.0, 1.0)), expected


class WhitenedPath(nn.Module):
    """Squared Mahalanobis length of [path of x minus path of its reconstruction, code].

    RaPP's normalised aggregation along pathway (Kim et al. 2020), with the code added.
    """

    def __init__(self, network: Autoencoder, train: Tensor) -> None:
        super().__init__()
        self.network = network
        rows = spread(train, MAX_WHITENING_ROWS[_kind(train)])
        with torch.no_grad():
            widths = [x[0].numel() for x in (rows, *network.encoder.path(rows[:1]))]
            widths.append(network.encode(rows[:1]).shape[1])
            self.whitener = _whitener(_in_parts(self._difference, rows), widths, _kind(train))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        rows, expected = self._difference(x)
        return self.whitener(rows), expected

    def _difference(self, x: Tensor) -> tuple[Tensor, Tensor]:
        path = self.network.encoder.path(x)
        code = self.network.code(path[-1])
        expected = self.network.decode(code)
        gaps = self.network.encoder.path_gaps(path, x - expected)
        return torch.cat([*(gap.flatten(1) for gap in gaps), code], dim=1), expected


class WhitenedResidual(nn.Module):
    """Squared Mahalanobis length of [x minus its reconstruction, code]."""

    def __init__(self, network: Autoencoder, train: Tensor) -> None:
        super().__init__()
        self.network = network
        rows = spread(train, MAX_WHITENING_ROWS[_kind(train)])
        with torch.no_grad():
            widths = [rows[0].numel(), network.encode(rows[:1]).shape[1]]
            self.whitener = _whitener(_in_parts(self._difference, rows), widths, _kind(train))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        rows, expected = self._difference(x)
        return self.whitener(rows), expected

    def _difference(self, x: Tensor) -> tuple[Tensor, Tensor]:
        code = self.network.encode(x)
        expected = self.network.decode(code)
        return torch.cat([(x - expected).flatten(1), code], dim=1), expected


class HiddenNeighbours(nn.Module):
    """Mean distance to the 5 nearest training rows in the encoder's first hidden layer.

    At most 4,000 training images (2,000 rows), in the leading 128 (64) directions of their hidden
    layer; what lies across those directions counts as at right angles for any two rows.
    """

    mean: Tensor
    basis: Tensor
    along: Tensor
    squares: Tensor
    across: Tensor

    def __init__(self, network: Autoencoder, train: Tensor) -> None:
        super().__init__()
        self.network = network
        kind = _kind(train)
        rows = spread(train, MAX_NEIGHBOUR_ROWS[kind])
        with torch.no_grad():
            hidden = torch.cat([self._hidden(part) for part in torch.split(rows, 1_024)])
            self.register_buffer("mean", hidden.mean(dim=0))
            directions = min(NEIGHBOUR_DIRECTIONS[kind], *hidden.shape)
            self.register_buffer("basis", _leading(hidden - self.mean, directions))
            along, across = self._project(hidden)
        self.register_buffer("along", along)
        self.register_buffer("across", across)
        self.register_buffer("squares", along.square().sum(dim=1))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        nearest, _ = self._nearest(x, NEIGHBOURS)
        return nearest.mean(dim=1), self.network.reconstruct(x)

    def _nearest(self, x: Tensor, count: int) -> tuple[Tensor, Tensor]:
        """Distances (n, k) to the nearest training rows, nearest first, and which those are."""
        along, across = self._project(self._hidden(x))
        squares = along.square().sum(dim=1, keepdim=True) + self.squares
        distances = squares - 2 * along @ self.along.T + across.unsqueeze(1) + self.across
        nearest = distances.topk(min(count, len(self.across)), largest=False)
        return nearest.values.clamp(min=0.0).sqrt(), nearest.indices

    def _hidden(self, x: Tensor) -> Tensor:
        """The first layer's activations (n, width)."""
        return leaky(self.network.encoder.path(x)[0]).flatten(1)

    def _project(self, hidden: Tensor) -> tuple[Tensor, Tensor]:
        """Coordinates along the directions (n, k), squared length across them (n,); in double."""
        centred = hidden - self.mean
        along = centred @ self.basis
        across = centred - along @ self.basis.T
        return along.double(), across.double().square().sum(dim=1)


class HiddenOutlierFactor(HiddenNeighbours):
    """`HiddenNeighbours`, less where the training rows around lie far from each other, too.

    The distance over the neighbours' own distance to their neighbours is the simplified local
    outlier factor (Schubert et al. 2014, after Breunig et al. 2000); here that density counts to
    the power 0.4. It is the weighted mean over ten neighbours, with weights that fall to 0 where
    the eleventh begins, so that the value is continuous in x.
    """

    sparsity: Tensor

    def __init__(self, network: Autoencoder, train: Tensor) -> None:
        super().__init__(network, train)
        bank = spread(train, MAX_NEIGHBOUR_ROWS[_kind(train)])
        with torch.no_grad():
            nearest = [self._nearest(part, NEIGHBOURS + 1)[0] for part in torch.split(bank, 1_024)]
        own = torch.cat(nearest)[:, 1:].mean(dim=1)  # the nearest of all is the row itself
        self.register_buffer("sparsity", _level(own.clamp(min=LEAST_SPARSE * float(own.mean()))))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        distances, rows = self._nearest(x, AROUND + 1)
        weights = distances[:, -1:] - distances[:, :-1] + TINY
        sparsity = (weights * self.sparsity[rows[:, :-1]]).sum(dim=1) / weights.sum(dim=1)
        level = _level(distances[:, :NEIGHBOURS].mean(dim=1)) - DENSITY_SHARE * sparsity
        return level.exp(), self.network.reconstruct(x)


class Blend(nn.Module):
    """Geometric mean of positive read-outs, each first brought to the same spread of logarithms.

    Spreads are those of early-stop normals.
    """

    centre: Tensor
    spread: Tensor

    def __init__(self, parts: Sequence[nn.Module], early_stop: Tensor) -> None:
        super().__init__()
        self.parts = nn.ModuleList(parts)
        with torch.no_grad():
            levels = torch.stack([_level(_in_parts(part, early_stop)) for part in parts])
        self.register_buffer("centre", levels.mean(dim=1))
        self.register_buffer("spread", levels.std(dim=1).clamp(min=1e-6))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        results = [part(x) for part in self.parts]
        levels = torch.stack([_level(value) for value, _ in results], dim=1)
        return ((levels - self.centre) / self.spread).mean(dim=1).exp(), results[0][1]


class Average(nn.Module):
    """Mean of read-outs, each in its own interquartile ranges of early-stop normals.

    The ranges are asinh-compressed (`ScoreScale`), so that one part's wild score cannot outvote
    the others. The expectation is the parts' mean.
    """

    def __init__(self, parts: Sequence[nn.Module], early_stop: Tensor) -> None:
        super().__init__()
        self.parts = nn.ModuleList(parts)
        with torch.no_grad():
            values = [_in_parts(part, early_stop).numpy() for part in parts]
        self.scales = nn.ModuleList(ScoreScale(value) for value in values)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        results = [part(x) for part in self.parts]
        scores = [scale(value) for scale, (value, _) in zip(self.scales, results, strict=True)]
        expected = torch.stack([expectation for _, expectation in results]).mean(dim=0)
        return torch.stack(scores).mean(dim=0), expected


class ComplexityCorrected(nn.Module):
    """What a read-out says beyond what the complexity of an image explains, in deviations.

    Simple images are easy to reconstruct whatever they show (Serra et al. 2020). The logarithm of
    the read-out is regressed on log total variation (and on the sum of squares, `ink`) of
    early-stop normals; the value is the standardised residual. Covariates are clipped at three
    deviations: beyond the normals the line is not known.
    """

    centre: Tensor
    spread: Tensor
    weights: Tensor
    offset: Tensor
    unit: Tensor

    def __init__(self, readout: nn.Module, early_stop: Tensor, *, complexity: Complexity) -> None:
        super().__init__()
        self.readout, self.has_ink = readout, complexity == "variation_ink"
        with torch.no_grad():
            value = _in_parts(readout, early_stop)
            if (value <= 0).any():
                raise BadInput(
                    f"config 'complexity' {complexity} takes the logarithm of the read-out, which "
                    f"is {float(value.min()):g} for a normal row; take complexity none or another "
                    "read-out"
                )
            covariates = self._covariates(early_stop)
        self.register_buffer("centre", covariates.mean(dim=0))
        self.register_buffer("spread", covariates.std(dim=0).clamp(min=1e-6))
        design = torch.cat([self._clipped(covariates), torch.ones(len(value), 1).double()], dim=1)
        level = _level(value)
        solution = torch.linalg.lstsq(design, level.unsqueeze(1)).solution[:, 0]
        self.register_buffer("weights", solution[:-1].clone())
        self.register_buffer("offset", solution[-1].clone())
        self.register_buffer("unit", (level - design @ solution).std().clamp(min=1e-6))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        value, expected = self.readout(x)
        explained = (self._clipped(self._covariates(x)) * self.weights).sum(dim=1) + self.offset
        return (_level(value) - explained) / self.unit, expected

    def _clipped(self, covariates: Tensor) -> Tensor:
        return ((covariates - self.centre) / self.spread).clamp(-3.0, 3.0)

    def _covariates(self, x: Tensor) -> Tensor:
        columns = [(total_variation(x) + TINY).log()]
        if self.has_ink:
            columns.append(x.flatten(1).double().square().sum(dim=1))
        return torch.stack(columns, dim=1)


def total_variation(images: Tensor) -> Tensor:
    """Sum of absolute differences between neighbouring pixels (n,) of images (n, c, h, w)."""
    down = (images[:, :, 1:] - images[:, :, :-1]).abs().flatten(1).sum(dim=1, dtype=torch.float64)
    right = (images[..., 1:] - images[..., :-1]).abs().flatten(1).sum(dim=1, dtype=torch.float64)
    return down + right


def resolved(
    complexity: Complexity | Literal["auto"], *, is_image: bool, readout: str
) -> Complexity:
    """The correction that is meant: auto corrects the blend of images for their variation."""
    if complexity != "auto":
        return complexity
    return "variation" if is_image and readout == "blend" else "none"


def check_complexity(name: str, complexity: str, *, is_image: bool) -> None:
    """Nothing; raises BadInput naming the option that would correct rows as if they were images."""
    if not is_image and complexity not in ("auto", "none"):
        raise BadInput(f"config {name!r} {complexity} is for images; take none")


def corrected(readout: nn.Module, early_stop: Tensor, *, complexity: Complexity) -> nn.Module:
    """The read-out, corrected for complexity if that is asked for."""
    if complexity == "none":
        return readout
    if early_stop.ndim != 4:
        raise BadInput(f"config 'complexity' {complexity} is for images; take none")
    return ComplexityCorrected(readout, early_stop, complexity=complexity)


def _leading(centred: Tensor, count: int) -> Tensor:
    """Leading principal directions (d, count) of centred rows (n, d); the same at every call."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)  # the method is randomised (Halko et al. 2011)
        _, _, basis = torch.pca_lowrank(centred, q=count, center=False)
    return basis.contiguous()


def _level(value: Tensor) -> Tensor:
    return value.double().clamp(min=TINY).log()


def _kind(features: Tensor) -> str:
    return "image" if features.ndim == 4 else "table"


def _in_parts(function: Callable[[Tensor], tuple[Tensor, Tensor]], features: Tensor) -> Tensor:
    """The function's first result, found for a part of the rows at a time."""
    return torch.cat([function(part)[0] for part in torch.split(features, 1_024)])


def _whitener(rows: Tensor, widths: list[int], kind: str) -> Whitener:
    return Whitener(rows.numpy(), blocks=widths, components=WHITENED_DIRECTIONS[kind], floor=1e-3)
