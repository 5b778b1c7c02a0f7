"""A solid body that has the outlines of a soft field, from all around.

No density fits everywhere: where an object is thin it turns half opaque at a higher density than
where it is thick. So the logits are raised and lowered a little, smoothly, until the body above one
level covers the pixels that the rendering covers.
"""

import dataclasses
import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from cameras import Cameras
from field import Volume
from grids import outward_normals, resampled, sample, smoothed
from silhouettes import SIZE, view_samples

STEPS, RATE, SMOOTHING = 12, 0.3, 2
SHARPNESS = 3.0
"""Of the border between covered and not, per voxel."""
REACH = 3.0
"""Voxels; rays whose highest sample is farther above or below the surface are not in doubt."""
WINDOW = 2.0
"""Voxels below a ray's highest sample within which others may become the highest."""
LARGEST = 64
"""Most voxels a side of the changes."""


class Evidence(NamedTuple):
    """Samples near the surface, and whether the pixel of their ray is to be covered."""

    points: Float[Tensor, "samples 3"]
    ray: Int[Tensor, " samples"]
    height: Float[Tensor, " samples"]
    """Logit above the level's, in voxels of the surface's usual slope."""
    wanted: Bool[Tensor, " rays"]


@torch.enable_grad()
def fitted(volume: Volume, level: float, cameras: Cameras) -> Volume:
    """The volume with logits changed so that what exceeds the level has the rendering's outlines.

    A ray is covered where its highest sample lies above the level: gradient descent on the logistic
    loss of that, in a smoothed grid of changes. Normals follow, colors stay.
    """
    logits = volume.logits.detach()
    border = volume.logit_of(level)
    slope = surface_slope(logits[0, 0] - border)
    found = _evidence(volume, cameras, border, slope)
    side = min(logits.shape[-1], LARGEST)
    change = torch.zeros(1, 1, side, side, side, device=logits.device, requires_grad=True)
    optimizer = torch.optim.Adam([change], lr=RATE, betas=(0.9, 0.98), eps=0.1, fused=True)
    for _ in range(STEPS):
        offset = smoothed(change, SMOOTHING)
        top = _highest(found, offset.detach())
        height = found.height[top] + sample(offset, found.points[top])[0]
        sign = 2 * found.wanted[found.ray[top]].float() - 1
        optimizer.zero_grad()
        F.softplus(-SHARPNESS * sign * height).sum().backward()
        optimizer.step()
    offset = resampled(smoothed(change.detach(), SMOOTHING), logits.shape[-1])
    logits = logits + slope * offset
    return dataclasses.replace(volume, logits=logits, normals=outward_normals(logits))


def surface_slope(height: Float[Tensor, "depth height width"]) -> float:
    """Median difference between neighboring voxels on either side of 0; 1 if there are none."""
    steps = torch.cat([height.diff(dim=axis).abs().flatten() for axis in range(3)])
    crossing = torch.cat([(height > 0).diff(dim=axis).flatten() for axis in range(3)])
    across = steps[crossing]
    return float(across.median()) if len(across) else 1.0


@torch.no_grad()
def _evidence(volume: Volume, cameras: Cameras, border: float, slope: float) -> Evidence:
    """What every view shows of the surface; rays that are not in doubt are left out."""
    parts = []
    for view, (samples, density, step) in enumerate(view_samples(volume, cameras)):
        points, ray, _ = samples
        height = (sample(volume.logits, points)[0] - border) / slope
        none = height.new_zeros(SIZE * SIZE)
        wanted = none.index_add(0, ray, density * step) > math.log(2)
        top = (none - math.inf).scatter_reduce(0, ray, height, "amax")[ray]
        kept = (top.abs() < REACH) & (height > top - WINDOW)
        parts.append((points[kept], ray[kept] + view * SIZE * SIZE, height[kept], wanted))
    return Evidence(*(torch.cat(part) for part in zip(*parts, strict=True)))


@torch.no_grad()
def _highest(found: Evidence, offset: Tensor) -> Int[Tensor, " tops"]:
    """The index of each ray's highest sample."""
    height = found.height + sample(offset, found.points)[0]
    top = height.new_full((len(found.wanted),), -math.inf)
    top.scatter_reduce_(0, found.ray, height, "amax")
    return torch.nonzero(height == top[found.ray])[:, 0]
