"""Which pixels triangles cover: for silhouettes of a mesh, and for the texels of its texture."""

from itertools import pairwise
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

SLACK = 1e-9
"""Share of a triangle by which it reaches over its edges, so that neighbors leave no crack."""
AT_ONCE = 2_000_000
"""Pixels looked at in one go; bounds the memory."""


class Hits(NamedTuple):
    """Pairs of a triangle and a pixel whose center it covers."""

    face: Int[np.ndarray, " hits"]
    row: Int[np.ndarray, " hits"]
    column: Int[np.ndarray, " hits"]
    weights: Float[np.ndarray, "hits 3"]
    """Barycentric: of the triangle's corners at the pixel's center."""


def covered(corners: Float[np.ndarray, "faces 3 2"], size: int) -> Hits:
    """Every pixel of a square picture that each triangle covers, hidden or not, of either winding.

    Args:
        corners: (x, y) in pixels, from the top left; centers lie at halves.
        size: side of the picture in pixels.
    """
    a, b, c = corners.swapaxes(0, 1)  # reductions over so few are slow
    lowest, highest = np.minimum(np.minimum(a, b), c), np.maximum(np.maximum(a, b), c)
    first = np.ceil(lowest - 0.5).clip(0, size).astype(np.int64)
    last = np.floor(highest - 0.5).clip(-1, size - 1).astype(np.int64)
    boxes = (last - first + 1).clip(0)
    chunk = (boxes[:, 0] * boxes[:, 1]).cumsum() // AT_ONCE
    bounds = np.searchsorted(chunk, np.arange(chunk[-1] + 2)) if len(chunk) else np.array([0, 0])
    parts = [
        _covered(corners[begin:end], first[begin:end], boxes[begin:end], begin)
        for begin, end in pairwise(bounds)
    ]
    return Hits(*(np.concatenate(part) for part in zip(*parts, strict=True)))


def _covered(corners: np.ndarray, first: np.ndarray, boxes: np.ndarray, offset: int) -> Hits:
    """Tries every pixel of every triangle's box; faces count from `offset`."""
    count = boxes[:, 0] * boxes[:, 1]
    face = np.repeat(np.arange(len(count)), count)
    within = np.arange(len(face)) - np.repeat(count.cumsum() - count, count)
    row, column = np.divmod(within, boxes[face, 0])
    row, column = row + first[face, 1], column + first[face, 0]
    weights = _barycentric(corners, face, column + 0.5, row + 0.5)
    inside = weights.T.min(axis=0) >= -SLACK  # never true of the NaN of a triangle without area
    return Hits(face[inside] + offset, row[inside], column[inside], weights[inside])


def _barycentric(
    corners: np.ndarray, face: np.ndarray, x: np.ndarray, y: np.ndarray
) -> Float[np.ndarray, "pixels 3"]:
    start, (across, along) = corners[:, 0], (corners[:, 1:] - corners[:, :1]).swapaxes(0, 1)
    area = across[:, 0] * along[:, 1] - across[:, 1] * along[:, 0]
    inverse = 1 / np.where(area == 0, np.nan, area)
    right, down = x - start[face, 0], y - start[face, 1]
    second = (right * along[face, 1] - down * along[face, 0]) * inverse[face]
    third = (down * across[face, 0] - right * across[face, 1]) * inverse[face]
    return np.stack([1 - second - third, second, third], axis=1)
