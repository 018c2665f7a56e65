"""Figures of images as PNG bytes: reconstructions, samples from the prior, maps of the pixels.

Drawn on a dark ground, which suits pictures in either scheme.
"""

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from numpy.typing import NDArray

from amiss_training.plots import DARK, GRID_DPI, figure, png
from amiss_training.wording import readable


def image_grid_png(
    images: NDArray[np.uint8],
    reconstructions: NDArray[Any],
    score: NDArray[Any],
    *,
    brightest: float,
) -> bytes:
    """A row per image: input, reconstruction, absolute difference; numbered, with the score.

    images: (k, c, h, w) uint8, reconstructions the same shape in 0..255. `brightest` is the
    difference drawn brightest, so that two grids can share one scale.
    """
    k, theme = len(images), DARK
    height = 1.5 * images.shape[2] / images.shape[3]
    whole = figure(theme, width=4.6, height=k * (height + 0.3) + 0.3, dpi=GRID_DPI)
    grid = whole.subplots(k, 3, squeeze=False)
    difference = absolute_difference(images, reconstructions)
    for i in range(k):
        for axes in grid[i]:
            axes.set_axis_off()
        _show(grid[i, 0], images[i])
        _show(grid[i, 1], np.clip(reconstructions[i], 0, 255).astype(np.uint8))
        grid[i, 2].imshow(difference[i], cmap="viridis", vmin=0, vmax=max(brightest, 1e-9))
        grid[i, 0].set_title(
            f"#{i + 1}  score {readable(score[i])}", loc="left", fontsize=9, color=theme.ink
        )
    grid[0, 1].set_title("reconstruction", fontsize=9, color=theme.ink)
    grid[0, 2].set_title("difference", fontsize=9, color=theme.ink)
    return png(whole)


def samples_png(images: NDArray[Any]) -> bytes:
    """Images (k, c, h, w) in 0..255 decoded from the prior, eight in a line."""
    columns = min(8, len(images))
    lines = -(-len(images) // columns)
    height = 4.6 / columns * images.shape[2] / images.shape[3]
    whole = figure(DARK, width=4.6, height=lines * height + 0.1, dpi=GRID_DPI)
    grid = whole.subplots(lines, columns, squeeze=False).ravel()
    for axes in grid:
        axes.set_axis_off()
    for axes, image in zip(grid, images, strict=False):
        _show(axes, np.clip(image, 0, 255).astype(np.uint8))
    return png(whole)


def pixel_maps_png(
    images: NDArray[np.uint8],
    maps: NDArray[Any],
    score: NDArray[Any],
    *,
    masks: NDArray[np.bool_] | None,
) -> bytes:
    """A row per image: input, map on the fixed scale 0..1, and the true mask where there is one.

    images: (k, c, h, w), maps and masks: (k, h, w).
    """
    k, columns = len(images), 2 if masks is None else 3
    height = 4.6 / 3 * images.shape[2] / images.shape[3]
    whole = figure(DARK, width=4.6, height=k * (height + 0.3) + 0.3, dpi=GRID_DPI)
    grid = whole.subplots(k, columns, squeeze=False)
    for i in range(k):
        for axes in grid[i]:
            axes.set_axis_off()
        _show(grid[i, 0], images[i])
        drawn = grid[i, 1].imshow(maps[i], cmap="inferno", vmin=0, vmax=1)
        if masks is not None:
            grid[i, 2].imshow(masks[i], cmap="gray", vmin=0, vmax=1)
        grid[i, 0].set_title(
            f"#{i + 1}  score {readable(score[i])}", loc="left", fontsize=9, color=DARK.ink
        )
    for axes, title in zip(grid[0, 1:], ("map", "true mask"), strict=False):
        axes.set_title(title, fontsize=9, color=DARK.ink)
    bar = whole.colorbar(
        drawn, ax=grid, location="bottom", shrink=0.7, aspect=30, pad=0.02, extend="both"
    )
    bar.ax.tick_params(colors=DARK.ink, labelsize=8)
    return png(whole)


def absolute_difference(images: NDArray[np.uint8], reconstructions: NDArray[Any]) -> NDArray[Any]:
    """Mean over the channels of |image - reconstruction|, (k, h, w), in 0..255."""
    wide = images.astype(np.float32) - reconstructions.astype(np.float32)
    return np.asarray(np.abs(wide).mean(axis=1))


def _show(axes: Axes, image: NDArray[np.uint8]) -> None:
    if len(image) == 1:
        axes.imshow(image[0], cmap="gray", vmin=0, vmax=255)
    else:
        axes.imshow(image.transpose(1, 2, 0))
