"""How alike a mesh and the field it comes from look: overlap of their outlines, from all around.

The outline of the field is where a pixel's ray is at least half opaque; that of the mesh is
rasterized. Both look through pixel centers, so neither gains from a soft edge.
"""

import math
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch
import trimesh
from jaxtyping import Bool, Float
from torch import Tensor

from cameras import Cameras, one_side, orbit, project, rays
from field import Volume
from rasterize import covered
from render import Samples, march, occupancy

ELEVATIONS = (-20.0, 20.0, 60.0)
SIZE = 96
"""Side of the pictures compared, in pixels."""


class Scan(NamedTuple):
    """What rays meet on their way through a field."""

    thickness: Float[Tensor, "views size size"]
    """Integral of the density; the opacity is 1 - exp(-thickness)."""
    densest: Float[Tensor, "views size size"]
    """Largest density."""

    def outline(self, opacity: float = 0.5) -> Bool[Tensor, "views size size"]:
        """Where the opacity is above a value."""
        return self.thickness > -math.log1p(-opacity)

    def strongest(self) -> float:
        """The largest opacity of any ray."""
        return -math.expm1(-float(self.thickness.max()))


class Level(NamedTuple):
    """The density at the surface of a solid body."""

    density: float
    agreement: float
    """Intersection over union of the body's pixels and the field's."""


def all_around(views: int = 24, turn: float = 0.0) -> Cameras:
    """Cameras at even azimuths from `turn` degrees on; from below, the side and above in turn."""
    azimuth = turn + torch.arange(views) * (360 / views)
    elevation = torch.tensor(ELEVATIONS)[torch.arange(views) % len(ELEVATIONS)]
    return orbit(azimuth, elevation, torch.full((views,), 3.2))


@torch.no_grad()
def view_samples(
    volume: Volume, cameras: Cameras, size: int = SIZE
) -> Iterator[tuple[Samples, Float[Tensor, " samples"], float]]:
    """Samples, their densities and the step between them, of each view's rays in turn.

    Hidden samples too, a voxel apart; what is as good as empty is left out.
    """
    density = volume.density()
    step = 2 / len(density)
    space = occupancy(density, step, threshold=0.005, margin=0.0)
    for camera in cameras.to(density.device).each():
        samples = march(*rays(camera, size), space, step, hidden_below=0.0)
        yield samples, volume.density_at(samples.points), step


def scan(volume: Volume, cameras: Cameras, size: int = SIZE) -> Scan:
    """Thickness and largest density along every pixel's ray."""
    index: Tensor | slice = slice(None)
    if volume.is_same_from_behind():
        cameras, index, _ = one_side(cameras)
    thickness = volume.logits.new_zeros(len(cameras.position), size * size)
    densest = torch.zeros_like(thickness)
    views = zip(thickness, densest, view_samples(volume, cameras, size), strict=True)
    for thick, most, (samples, density, step) in views:
        thick.index_add_(0, samples.ray, density * step)
        most.scatter_reduce_(0, samples.ray, density, "amax")
    return Scan(*(values.view(-1, size, size)[index] for values in (thickness, densest)))


def best_level(found: Scan) -> Level:
    """The density whose solid body has the outline of the soft field: all levels are tried.

    A ray meets the body of a level where its largest density exceeds it, so one pass over the
    sorted rays gives the intersection over union of every level. The level lies midway to the next
    ray, and below the largest density, where a surface would be all noise. A faint field's outline
    is where it is half as opaque as it gets.
    """
    densest, order = found.densest.flatten().sort(descending=True)
    strongest = found.strongest()
    wanted = found.outline(0.5 if strongest > 0.5 else strongest / 2).flatten()[order]
    both = wanted.cumsum(dim=0)
    agreement = both / (wanted.sum() + (~wanted).cumsum(dim=0))
    following = torch.cat([densest[1:], densest.new_zeros(1)])
    best = int(torch.where(densest > following, agreement, -1.0).argmax())
    density = min(float(densest[best] + following[best]) / 2, 0.95 * float(densest[0]))
    return Level(density, float(agreement[best]))


def outlines(
    mesh: trimesh.Trimesh, cameras: Cameras, size: int = SIZE
) -> Bool[Tensor, "views size size"]:
    """Which pixel centers the mesh covers; it lies before the cameras as a whole."""
    vertices = torch.tensor(mesh.vertices).float()
    pixels = (project(cameras, vertices).double().numpy() + 1) * (size / 2)
    seen = np.zeros((len(pixels), size, size), dtype=bool)
    for picture, corners in zip(seen, pixels[:, mesh.faces], strict=True):
        hits = covered(corners, size)
        picture[hits.row, hits.column] = True
    return torch.from_numpy(seen)


def overlap(
    first: Bool[Tensor, "views height width"], second: Bool[Tensor, "views height width"]
) -> Float[Tensor, " views"]:
    """Intersection over union of each view; 1 where both are empty."""
    union = (first | second).sum(dim=(1, 2))
    both = (first & second).sum(dim=(1, 2))
    return torch.where(union > 0, both / union.clamp(min=1), 1.0)


def silhouette_iou(mesh: trimesh.Trimesh, volume: Volume) -> float:
    """Mean overlap of the mesh's outline and the rendered one's over 24 views."""
    cameras = all_around()
    rendered = scan(volume, cameras).outline().cpu()
    return float(overlap(outlines(mesh, cameras), rendered).mean())
