"""Histograms of oriented gradients. Dalal and Triggs, 2005, https://doi.org/10.1109/CVPR.2005.177.

Unsigned orientations in equal bins without interpolation, sums of magnitude per cell, overlapping blocks
normalised to length one, clipped at 0.2 and normalised again (L2-Hys).
"""

import numpy as np
from jaxtyping import Float, UInt8

_CLIP, _EPS = 0.2, 1e-5


def histogram_of_gradients(
    picture: UInt8[np.ndarray, "height width channels"],
    *,
    orientations: int = 8,
    cell: int = 8,
    block: int = 2,
) -> Float[np.ndarray, " features"]:
    """Features in the order block row, block column, cell row, cell column, orientation."""
    down, right = strongest_gradients(picture.astype(np.float64))
    magnitude = np.hypot(down, right)
    angle = np.rad2deg(np.arctan2(down, right)) % 180
    bins = np.minimum((angle * orientations / 180).astype(int), orientations - 1)
    rows, columns = (side // cell for side in magnitude.shape)
    one_hot = (bins[..., None] == np.arange(orientations)) * magnitude[..., None]
    cells = one_hot[: rows * cell, : columns * cell]
    cells = cells.reshape(rows, cell, columns, cell, orientations).mean((1, 3))
    views = np.lib.stride_tricks.sliding_window_view(cells, (block, block), axis=(0, 1))
    blocks = views.transpose(0, 1, 3, 4, 2).reshape(rows - block + 1, columns - block + 1, -1)
    blocks = np.minimum(_unit(blocks), _CLIP)
    return _unit(blocks).ravel()


def strongest_gradients(
    pixels: Float[np.ndarray, "height width channels"],
) -> tuple[np.ndarray, np.ndarray]:
    """Central differences down and right, of the channel that changes most at each pixel; 0 at the rim."""
    down, right = np.zeros_like(pixels), np.zeros_like(pixels)
    down[1:-1] = pixels[2:] - pixels[:-2]
    right[:, 1:-1] = pixels[:, 2:] - pixels[:, :-2]
    chosen = np.hypot(down, right).argmax(-1)[..., None]
    return (
        np.take_along_axis(down, chosen, -1)[..., 0],
        np.take_along_axis(right, chosen, -1)[..., 0],
    )


def _unit(blocks: np.ndarray) -> np.ndarray:
    unit: np.ndarray = blocks / np.sqrt((blocks**2).sum(-1, keepdims=True) + _EPS**2)
    return unit
