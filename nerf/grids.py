"""Operations on grids of the cube [-1, 1]^3, all differentiable.

Grids are stored as `grid_sample` reads them, (1, channels, z, y, x), values at the corners of the
cells.
"""

from collections.abc import Sequence
from functools import lru_cache
from typing import Any, Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

Mirror = Literal["none", "x", "z", "xz"]


def sample(
    grid: Float[Tensor, "1 channels depth height width"], points: Float[Tensor, "points 3"]
) -> Float[Tensor, "channels points"]:
    """Trilinear values of a grid at points (x, y, z) of the cube [-1, 1]^3; clamped outside.

    On a CPU with several threads the points go in as a batch of two, because `grid_sample` uses one
    thread an element there. The last bits of gradients depend on that.
    """
    several = points.device.type == "cpu" and torch.get_num_threads() > 1
    count, batch = len(points), 2 if several else 1
    positions = F.pad(points, (0, 0, 0, count % batch)).view(batch, 1, 1, -1, 3)
    same = grid.expand(batch, -1, -1, -1, -1)
    values = F.grid_sample(same, positions, padding_mode="border", align_corners=True)
    return values.transpose(0, 1).reshape(grid.shape[1], -1)[:, :count]


def resampled(
    grid: Float[Tensor, "1 channels depth height width"], size: int
) -> Float[Tensor, "1 channels size size size"]:
    """The grid with another number of voxels, trilinear, corners kept on corners."""
    return F.interpolate(grid, size=(size, size, size), mode="trilinear", align_corners=True)


def smoothed(
    grid: Float[Tensor, "1 channels depth height width"], passes: int
) -> Float[Tensor, "1 channels depth height width"]:
    """The grid after `passes` of the (1, 2, 1) / 4 filter along each axis, borders repeated."""
    return _Smoothing.apply(grid, passes)


class _Smoothing(torch.autograd.Function):
    """The filter is a symmetric matrix, so gradients go through the same filter: three times as
    fast as through its parts."""

    @staticmethod
    def forward(ctx: Any, grid: Tensor, passes: int) -> Tensor:
        ctx.passes = passes
        for axis in (2, 3, 4) * passes:
            filtered = 0.5 * grid
            for to, since, length, _ in _neighbors(grid.shape[axis] - 1):
                neighbor = grid.narrow(axis, since, length)
                filtered.narrow(axis, to, length).add_(neighbor, alpha=0.25)
            grid = filtered
        return grid

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:  # type: ignore[override]
        return smoothed(gradient, ctx.passes), None


def mirrored(
    grid: Float[Tensor, "1 channels depth height width"], mirror: Mirror
) -> Float[Tensor, "1 channels depth height width"]:
    """The mean of the grid and its mirror images."""
    for axis, name in ((4, "x"), (2, "z")):
        if name in mirror:
            grid = 0.5 * (grid + grid.flip(axis))
    return grid


def outward_normals(
    logits: Float[Tensor, "1 1 depth height width"],
) -> Float[Tensor, "1 3 depth height width"]:
    """Minus the central differences of the logits along x, y, z, per unit length; borders are
    repeated."""
    return _Slope.apply(logits)


class _Slope(torch.autograd.Function):
    """Its gradient adds and takes away in place, where that of slices would fill many grids."""

    @staticmethod
    def forward(ctx: Any, logits: Tensor) -> Tensor:
        slope = logits.new_zeros(1, 3, *logits.shape[2:])
        for axis, each in zip((4, 3, 2), slope.split(1, dim=1), strict=True):
            for to, since, length, sign in _neighbors(logits.shape[axis] - 1):
                each.narrow(axis, to, length).add_(logits.narrow(axis, since, length), alpha=sign)
        return slope.mul_((logits.shape[-1] - 1) / 4)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:  # type: ignore[override]
        found = torch.zeros_like(gradient[:, :1])
        for axis, each in zip((4, 3, 2), gradient.split(1, dim=1), strict=True):
            for to, since, length, sign in _neighbors(gradient.shape[axis] - 1):
                found.narrow(axis, since, length).add_(each.narrow(axis, to, length), alpha=sign)
        return found.mul_((gradient.shape[-1] - 1) / 4)


def _neighbors(end: int) -> Sequence[tuple[int, int, int, int]]:
    """Where the voxels before and after each of 0 to `end` go: to, since, length, and the sign in a
    difference. The ends are outer neighbors of themselves."""
    return (1, 0, end, 1), (0, 1, end, -1), (0, 0, 1, 1), (end, end, 1, -1)


def vertices(size: int, device: torch.device | None = None) -> Float[Tensor, "size size size 3"]:
    """The places (x, y, z) of a grid's values, in its order."""
    axis = torch.linspace(-1, 1, size, device=device)
    z, y, x = torch.meshgrid(axis, axis, axis, indexing="ij")
    return torch.stack([x, y, z], dim=-1)


@lru_cache(maxsize=4)
def distances(size: int, device: torch.device | None = None) -> Float[Tensor, "size size size"]:
    """How far a grid's values lie from the origin; not to be written to."""
    square = torch.linspace(-1, 1, size, device=device).square()
    return (square[:, None, None] + square[:, None] + square).sqrt()
