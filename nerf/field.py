"""The explicit field: a grid of density logits and a coarser grid of color logits in [-1, 1]^3.

Grids are stored as `grid_sample` reads them, (1, channels, z, y, x), values at the corners of the
cells. Density is `max_density * sigmoid(sharpness * logit)` per unit length: bounded, so that the
surface (logit 0) is where the object turns solid, and sharpened as the run goes on.

Smoothness and mirror symmetry are built into the parameters (`Volume` is made from a smoothed and
mirrored copy), so they shape every gradient step and leave no trace of noise to clean up.
"""

from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from schedule import Ramp

Mirror = Literal["none", "x", "xz"]


@dataclass(frozen=True)
class FieldSettings:
    """Sizes, growth and shape prior of the field."""

    density_sizes: tuple[int, ...] = (24, 32, 48)
    """Voxels a side, stage by stage."""
    color_sizes: tuple[int, ...] = (3, 4, 6)
    """The same for color; as many stages."""
    grow_at: tuple[float, ...] = (0.35, 0.65)
    """Progress at which each further stage begins."""
    smoothing: int = 2
    """Passes of the (1, 2, 1) filter over the density logits, each along every axis."""
    mirror: Mirror = "xz"
    """Mirror symmetry: none, left-right ("x"), or left-right and front-back ("xz")."""
    max_density: float = 30.0
    sharpness: Ramp = Ramp(2.0, 6.0, 0.2, 1.0)
    limit: float = 6.0
    """Logits stay within plus or minus this, so that nothing is out of the gradient's reach."""


@dataclass(frozen=True)
class Proportion:
    """A blob to start from: a superellipsoid, tapered along its height.

    `taper` 0.5 halves the width at the top and widens the bottom by as much; `roundness` 2 is an
    ellipsoid, large is a box.
    """

    width: float = 0.5
    height: float = 0.5
    depth: float = 0.5
    taper: float = 0.0
    roundness: float = 2.0
    hole: float = 0.0


@dataclass(frozen=True)
class Volume:
    """A field ready to render: what `VoxelField.volume` makes for one step."""

    logits: Float[Tensor, "1 1 depth height width"]
    """Sharpened density logits."""
    normals: Float[Tensor, "1 3 depth height width"]
    """Outward, not of unit length: minus the gradient of the logits."""
    color_logits: Float[Tensor, "1 3 z y x"]
    max_density: float

    def density(self) -> Float[Tensor, "depth height width"]:
        """Density per unit length at the voxels."""
        return self.max_density * self.logits[0, 0].sigmoid()

    def __call__(
        self, points: Float[Tensor, "points 3"]
    ) -> tuple[Float[Tensor, " points"], Float[Tensor, "3 points"], Float[Tensor, "3 points"]]:
        """Density, color in [0, 1] and unit normal at points of the cube; clamped outside."""
        both = sample(torch.cat([self.logits, self.normals], dim=1), points)
        color = sample(self.color_logits, points).sigmoid()
        density = self.max_density * both[0].sigmoid()
        normal = both[1:]
        unit = normal * (normal.square().sum(dim=0) + 1e-8).rsqrt()
        return density, color, unit


class VoxelField(nn.Module):
    """The parameters: `density` and `color` logits."""

    def __init__(
        self,
        density: Float[Tensor, "1 1 depth height width"],
        color: Float[Tensor, "1 3 z y x"],
        settings: FieldSettings,
    ) -> None:
        super().__init__()
        self.density = nn.Parameter(density.clone())
        self.color = nn.Parameter(color.clone())
        self.settings = settings

    def volume(self, sharpness: float = 1.0) -> Volume:
        """The smoothed, mirrored field, with normals; differentiable in the parameters."""
        settings = self.settings
        logits = mirrored(smoothed(self.density, settings.smoothing), settings.mirror)
        return Volume(
            sharpness * logits,
            outward_normals(logits),
            mirrored(self.color, settings.mirror),
            settings.max_density,
        )

    def grown(self, density_size: int, color_size: int) -> "VoxelField":
        """A finer field of the same content."""
        with torch.no_grad():
            density = resampled(self.density, density_size)
            return VoxelField(density, resampled(self.color, color_size), self.settings)

    @torch.no_grad()
    def clamp(self) -> None:
        """Keep every logit within the settings' limit."""
        self.density.clamp_(-self.settings.limit, self.settings.limit)
        self.color.clamp_(-self.settings.limit, self.settings.limit)


def blob_field(
    proportion: Proportion, color: Float[Tensor, "3"], settings: FieldSettings
) -> VoxelField:
    """A field of one uniformly colored soft blob, at the settings' first stage."""
    density = blob_logits(proportion, settings.density_sizes[0]).to(color)
    side = settings.color_sizes[0]
    logits = color.clamp(0.02, 0.98).logit().view(1, 3, 1, 1, 1).expand(1, 3, side, side, side)
    return VoxelField(density.clamp(-settings.limit, settings.limit), logits, settings)


def blob_logits(
    proportion: Proportion, size: int, slope: float = 12.0
) -> Float[Tensor, "1 1 size size size"]:
    """Density logits of a blob: 0 on its surface, falling by about `slope` a unit of length."""
    axis = torch.linspace(-1, 1, size)
    z, y, x = torch.meshgrid(axis, axis, axis, indexing="ij")
    widening = 1 - proportion.taper * (y / proportion.height).clamp(-1, 1)
    across = [x / (proportion.width * widening), z / (proportion.depth * widening)]
    smallest = min(proportion.width, proportion.height, proportion.depth)
    if proportion.hole > 0:
        rim = (1 - proportion.hole) / 2
        across = [(torch.hypot(*across) - (1 - rim)) / rim]
        smallest = min(proportion.height, rim * proportion.width, rim * proportion.depth)
    scaled = [part.abs() + 1e-6 for part in (*across, y / proportion.height)]
    radius = sum(s**proportion.roundness for s in scaled) ** (1 / proportion.roundness)
    return (slope * smallest * (1 - radius)).view(1, 1, size, size, size)


def sample(
    grid: Float[Tensor, "1 channels depth height width"], points: Float[Tensor, "points 3"]
) -> Float[Tensor, "channels points"]:
    """Trilinear values of a grid at points (x, y, z) of the cube [-1, 1]^3; clamped outside.

    The points go in as a batch of two, because `grid_sample` on a CPU uses one thread an element.
    """
    count = len(points)
    positions = F.pad(points, (0, 0, 0, count % 2)).view(2, 1, 1, -1, 3)
    pair = grid.expand(2, -1, -1, -1, -1)
    values = F.grid_sample(pair, positions, padding_mode="border", align_corners=True)
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
    for _ in range(passes):
        for axis in (2, 3, 4):
            before, after = _neighbors(grid, axis)
            grid = 0.5 * grid + 0.25 * (before + after)
    return grid


def mirrored(
    grid: Float[Tensor, "1 channels depth height width"], mirror: Mirror
) -> Float[Tensor, "1 channels depth height width"]:
    """The mean of the grid and its mirror images."""
    for axis, name in ((4, "x"), (2, "z")):
        if name in mirror and mirror != "none":
            grid = 0.5 * (grid + grid.flip(axis))
    return grid


def outward_normals(
    logits: Float[Tensor, "1 1 depth height width"],
) -> Float[Tensor, "1 3 depth height width"]:
    """Minus the central differences of the logits along x, y, z, per unit length."""
    scale = (logits.shape[-1] - 1) / 4
    pairs = [_neighbors(logits, axis) for axis in (4, 3, 2)]
    return torch.cat([scale * (before - after) for before, after in pairs], dim=1)


def grow_adam(
    optimizer: torch.optim.Optimizer, old: nn.Parameter, new: nn.Parameter, size: int
) -> None:
    """Swap a grid for its finer self in an Adam optimizer, moments resampled like the grid.

    Trilinear weights are never negative, so second moments stay valid.
    """
    for group in optimizer.param_groups:
        group["params"] = [new if p is old else p for p in group["params"]]
    state = optimizer.state.pop(old, {})
    if state:
        optimizer.state[new] = {
            name: resampled(value, size) if value.shape == old.shape else value
            for name, value in state.items()
        }


def _neighbors(grid: Tensor, axis: int) -> tuple[Tensor, Tensor]:
    """The grid shifted by one voxel either way along an axis, borders repeated."""
    size = grid.shape[axis]
    first, last = grid.narrow(axis, 0, 1), grid.narrow(axis, size - 1, 1)
    before = torch.cat([first, grid.narrow(axis, 0, size - 1)], dim=axis)
    after = torch.cat([grid.narrow(axis, 1, size - 1), last], dim=axis)
    return before, after
