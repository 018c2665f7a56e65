"""A read-out that looks at one place at a time, for textures and for small defects on objects.

A stochastic texture cannot be reconstructed, so a large residual says little. An unlikely one does:
the residual patches of normal images have a covariance, and a defect departs from it.
"""

from collections.abc import Callable, Iterable

import torch
from torch import Tensor, nn
from torch.nn import functional

from amiss_export.errors import BadInput
from amiss_training.detectors.networks import Autoencoder
from amiss_training.rows import spread

CELLS = 32  # along the shorter side
PATCH_CELLS = 3
BANDS = PATCH_CELLS**2  # divides the number of directions whatever the size of a cell
MIDDLE = slice(2, 7)  # of the bands, by variance: below is noise, above is how textures differ
ENERGY_BLUR_CELLS = 1.0  # standard deviation, as below
CLOSING_CELLS = 5
BLUR_CELLS = 1.75
TOP_SHARE = 0.05  # of the cells make the image's value
MAX_IMAGES = 256
BATCH_ROWS = 32
VARIANCE_FLOOR = 1e-6  # of the largest
ENERGY_FLOOR = 1e-3  # of a normal energy


class LocalWhitening(nn.Module):
    """Mean over the most unusual twentieth of an image's cells of how unlikely their patches are.

    The image is a grid of cells, 32 along its shorter side. The residual patch around each, 3 cells
    wide, is whitened with the mean and covariance over every place of the training images (PaDiM's
    lengths, Defard et al. 2020) and its squares averaged in nine bands, from the directions of
    least variance to those of most. Two lengths are added, each in its standard deviations: the
    energy of the middle bands, which seams between things that do not fit raise; and the squared
    Mahalanobis length of the nine log energies, which also sees what is too smooth, and is unmoved
    by what raises all bands alike. Then a grey closing fills what a seam surrounds, a blur joins
    neighbours, and each cell is divided by its own training average, which evens out borders, and
    objects that lie in the same place in every image.
    """

    filters: Tensor
    offset: Tensor
    log_mean: Tensor
    log_filters: Tensor
    unit: Tensor
    normal: Tensor
    energy_blur: Tensor
    blur: Tensor

    def __init__(self, network: Autoencoder, train: Tensor) -> None:
        """network: frozen. train: features (n, c, h, w) of normal images.

        Raises BadInput for anything but images.
        """
        super().__init__()
        if train.ndim != 4:
            raise BadInput(
                f"read-out 'whitened_local' is for images (n, c, h, w), got rows of shape "
                f"{tuple(train.shape)}; take whitened_path"
            )
        self.network = network
        self.cell = max(1, min(train.shape[2:]) // CELLS)
        self.register_buffer("energy_blur", _gaussian(ENERGY_BLUR_CELLS))
        self.register_buffer("blur", _gaussian(BLUR_CELLS))
        with torch.no_grad():
            self._fit(torch.split(spread(train, MAX_IMAGES), BATCH_ROWS))
        self.top = max(1, int(TOP_SHARE * self.normal.numel()))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        expected = self.network.reconstruct(x)
        cells = self._cells(x - expected).flatten(1).double()
        return cells.topk(self.top, dim=1).values.mean(dim=1), expected

    def pixel_map(self, x: Tensor) -> Tensor:
        """How unusual each place is, (n, h, w): the cells' values, interpolated; 1 is normal."""
        cells = self._cells(x - self.network.reconstruct(x)).unsqueeze(1)
        size = (x.shape[2], x.shape[3])
        return functional.interpolate(cells, size, mode="bilinear", align_corners=False)[:, 0]

    def _fit(self, batches: tuple[Tensor, ...]) -> None:
        def each(of_gap: Callable[[Tensor], Tensor]) -> Iterable[Tensor]:
            return (of_gap(x - self.network.reconstruct(x)) for x in batches)

        side = PATCH_CELLS * self.cell
        mean, filters = _whitening(each(self._patches))
        self.filters = filters.float().view(-1, batches[0].shape[1], side, side)
        self.offset = (filters @ mean).float().view(-1, 1, 1)
        logs = (_rows(self._logs(energies)) for energies in each(self._energies))
        log_mean, log_filters = _whitening(logs)
        self.log_filters = log_filters.float().view(BANDS, BANDS, 1, 1)
        self.log_mean = log_mean.float().view(BANDS, 1, 1)
        lengths = torch.cat([self._lengths(energies) for energies in each(self._energies)])
        self.unit = lengths.double().std(dim=(0, 2, 3)).float().view(2, 1, 1)
        self.normal = torch.ones(())
        self.normal = torch.cat(list(each(self._cells))).mean(dim=0)

    def _cells(self, gap: Tensor) -> Tensor:
        """The grid's values (n, rows, columns) of a residual, seams filled, neighbours joined."""
        both = (self._lengths(self._energies(gap)) / self.unit).sum(dim=1, keepdim=True)
        closed = -_largest(-_largest(both))
        return _blurred(closed, self.blur)[:, 0] / self.normal

    def _energies(self, gap: Tensor) -> Tensor:
        """Mean squares of the whitened patches in each band, (n, 9, rows, columns).

        Whitening a patch is a bank of filters over the residual.
        """
        whitened = functional.conv2d(self._padded(gap), self.filters, stride=self.cell)
        bands = (whitened - self.offset).square().chunk(BANDS, dim=1)
        return torch.stack([band.mean(dim=1, dtype=torch.float64) for band in bands], dim=1).float()

    def _lengths(self, energies: Tensor) -> Tensor:
        """The middle bands' energy, and the length of all log energies; (n, 2, rows, columns)."""
        middle = energies[:, MIDDLE].mean(dim=1, keepdim=True)
        whitened = functional.conv2d(self._logs(energies) - self.log_mean, self.log_filters)
        return torch.cat([middle, whitened.square().mean(dim=1, keepdim=True)], dim=1)

    def _logs(self, energies: Tensor) -> Tensor:
        return torch.log(_blurred(energies, self.energy_blur) + ENERGY_FLOOR)

    def _patches(self, gap: Tensor) -> Tensor:
        """The residual around every cell, (n * cells, c * side * side)."""
        side = PATCH_CELLS * self.cell
        return functional.unfold(self._padded(gap), side, stride=self.cell).mT.flatten(0, 1)

    def _padded(self, gap: Tensor) -> Tensor:
        return functional.pad(gap, (self.cell,) * 4, mode="reflect")


def _whitening(batches: Iterable[Tensor]) -> tuple[Tensor, Tensor]:
    """Mean (d,) of rows (n, d), and filters (d, d) that give them unit covariance.

    In double; the filters go from the direction of least variance to that of most.
    """
    n, total, products = 0, torch.zeros(()), torch.zeros(())
    for batch in batches:
        rows = batch.double()
        n, total, products = n + len(rows), total + rows.sum(dim=0), products + rows.T @ rows
    mean = total / n
    variance, directions = torch.linalg.eigh(products / n - torch.outer(mean, mean))
    lowest = max(VARIANCE_FLOOR * float(variance[-1]), torch.finfo(torch.float32).tiny)
    return mean, (directions / variance.clamp(min=lowest).sqrt()).T


def _rows(maps: Tensor) -> Tensor:
    """Maps (n, d, rows, columns) as vectors (n * rows * columns, d)."""
    return maps.permute(0, 2, 3, 1).flatten(0, 2)


def _gaussian(std: float) -> Tensor:
    """Weights of a Gaussian window out to three standard deviations, summing to 1."""
    reach = int(3 * std + 0.5)
    weights = torch.exp(-0.5 * (torch.arange(-reach, reach + 1) / std).square())
    return weights / weights.sum()


def _blurred(maps: Tensor, window: Tensor) -> Tensor:
    """Maps (n, d, rows, columns) blurred down and across; beyond the border its values repeat."""
    d = maps.shape[1]
    padded = functional.pad(maps, (window.shape[0] // 2,) * 4, mode="replicate")
    down = functional.conv2d(padded, window.view(1, 1, -1, 1).expand(d, -1, -1, -1), groups=d)
    return functional.conv2d(down, window.view(1, 1, 1, -1).expand(d, -1, -1, -1), groups=d)


def _largest(maps: Tensor) -> Tensor:
    """The largest value in the window around each cell."""
    return functional.max_pool2d(maps, CLOSING_CELLS, stride=1, padding=CLOSING_CELLS // 2)
