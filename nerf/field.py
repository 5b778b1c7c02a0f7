"""The field of an object: logits of density and of color in the cube [-1, 1]^3.

Density per unit length is `max_density * activation(sharpness * (logit + shift))`. The default is
bounded (sigmoid), so that the surface (logit 0) is where the object turns solid, and sharpened as
the run goes on. `softplus` is DVGO's (arXiv 2111.11215, section 4.2), which PureCLIPNeRF
(arXiv 2209.15172) took over: opacity 1 - (1 + exp(logit + shift))^-interval. Values are activated
after sampling. Color is sigmoid(logit), the same from all sides.

Smoothness and mirror symmetry are built into the parameters (`Volume` is made from a smoothed and
mirrored copy), so they shape every gradient step and leave no trace of noise to clean up.
"""

import math
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from blobs import Proportion, blob_logits
from cameras import HALF_TURN
from grids import Mirror, mirrored, outward_normals, resampled, sample, smoothed
from schedule import Ramp

Activation = Literal["sigmoid", "softplus"]


@dataclass(frozen=True)
class FieldSettings:
    """Kind, sizes, growth and shape prior of the field."""

    kind: Literal["explicit", "implicit"] = "explicit"
    """Explicit: the voxels are the parameters. Implicit: two small networks make the voxels."""
    density_sizes: tuple[int, ...] = (24, 32, 48)
    """Voxels a side, stage by stage."""
    color_sizes: tuple[int, ...] = (3, 4, 6)
    """The same for color; as many stages."""
    grow_at: tuple[float, ...] = (0.35, 0.65)
    """Progress at which each further stage begins."""
    growth_drop: float = 0.0
    """Taken from every density logit at each growth."""
    begin: Literal["blob", "haze"] = "blob"
    """The warm start's blob, or gray haze of logit 0 everywhere."""
    smoothing: int = 2
    """Passes of the (1, 2, 1) filter over the density logits, each along every axis."""
    mirror: Mirror = "xz"
    """Mirror symmetry: none, left-right ("x"), front-back ("z"), or both ("xz")."""
    activation: Activation = "sigmoid"
    max_density: float = 30.0
    """Per unit length: the largest with sigmoid, what softplus is multiplied by."""
    shift: float = 0.0
    """Added to every density logit."""
    sharpness: Ramp = Ramp(2.0, 6.0, 0.2, 1.0)
    limit: float = 6.0
    """Logits of blobs, explicit fields and networks stay within plus or minus this, so that nothing
    is out of the gradient's reach."""
    frequencies: int = 4
    """Of the positional encoding of an implicit field."""
    width: int = 128
    """Of the networks of an implicit field."""


@dataclass(frozen=True)
class Volume:
    """A field ready to render: what `volume` of a field makes for one step."""

    logits: Float[Tensor, "1 1 depth height width"]
    """Shifted and sharpened density logits."""
    normals: Float[Tensor, "1 3 depth height width"]
    """Outward, not of unit length: minus the gradient of the logits."""
    color_logits: Float[Tensor, "1 3 z y x"]
    max_density: float
    activation: Activation = "sigmoid"

    def density_of(self, logits: Tensor) -> Tensor:
        """Density per unit length of logits."""
        active = logits.sigmoid() if self.activation == "sigmoid" else F.softplus(logits)
        return self.max_density * active

    def logit_of(self, density: float) -> float:
        """The logit of a density above 0: the inverse of `density_of`."""
        share = density / self.max_density
        if self.activation == "sigmoid":
            return math.log(share / (1 - share))
        return share + math.log(-math.expm1(-share))

    def is_same_from_behind(self) -> bool:
        """Whether half a turn around the vertical changes nothing: both mirrors leave it so."""
        turn = self.normals.new_tensor(HALF_TURN).view(1, 3, 1, 1, 1)
        grids = (self.logits, 1.0), (self.color_logits, 1.0), (self.normals, turn)
        return all(torch.equal(grid, sign * grid.flip(2, 4)) for grid, sign in grids)

    def density(self) -> Float[Tensor, "depth height width"]:
        """Density per unit length at the voxels."""
        return self.density_of(self.logits[0, 0])

    def density_at(self, points: Float[Tensor, "points 3"]) -> Float[Tensor, " points"]:
        """Density per unit length at points of the cube; clamped outside."""
        return self.density_of(sample(self.logits, points)[0])

    def __call__(
        self, points: Float[Tensor, "points 3"]
    ) -> tuple[Float[Tensor, " points"], Float[Tensor, "3 points"], Float[Tensor, "3 points"]]:
        """Density, color in [0, 1] and unit normal at points of the cube; clamped outside."""
        both = sample(torch.cat([self.logits, self.normals], dim=1), points)
        color = sample(self.color_logits, points).sigmoid()
        logits, normal = both.split([1, 3])
        density = self.density_of(logits[0])
        unit = normal * (normal.square().sum(dim=0) + 1e-8).rsqrt()
        return density, color, unit


def as_volume(
    density: Float[Tensor, "1 1 depth height width"],
    color: Float[Tensor, "1 3 z y x"],
    settings: FieldSettings,
    sharpness: float = 1.0,
) -> Volume:
    """Grids of logits, smoothed, mirrored and with normals; differentiable in both."""
    logits = mirrored(smoothed(density, settings.smoothing), settings.mirror)
    return Volume(
        sharpness * (logits + settings.shift),
        outward_normals(logits),
        mirrored(color, settings.mirror),
        settings.max_density,
        settings.activation,
    )


class VoxelField(nn.Module):
    """The explicit field; its parameters are `density` and `color` logits."""

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

    @property
    def sizes(self) -> tuple[int, int]:
        """Voxels a side of density and of color."""
        return self.density.shape[-1], self.color.shape[-1]

    def parts(self) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
        """The parameters of density and those of color."""
        return [self.density], [self.color]

    def volume(self, sharpness: float = 1.0) -> Volume:
        """The smoothed, mirrored field, with normals; differentiable in the parameters."""
        return as_volume(self.density, self.color, self.settings, sharpness)

    def grown(self, density_size: int, color_size: int) -> "VoxelField":
        """A finer field of the same content, less the settings' drop."""
        with torch.no_grad():
            density = resampled(self.density, density_size) - self.settings.growth_drop
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
    density = blob_logits(proportion, settings.density_sizes[0]).to(color) - settings.shift
    side = settings.color_sizes[0]
    logits = color_logits(color).expand(1, 3, side, side, side)
    return VoxelField(density.clamp(-settings.limit, settings.limit), logits, settings)


def haze_field(settings: FieldSettings, device: torch.device | None = None) -> VoxelField:
    """A gray field of logit 0 everywhere, as dense as the shift says, at the first stage."""
    side, color_side = settings.density_sizes[0], settings.color_sizes[0]
    return VoxelField(
        torch.zeros(1, 1, side, side, side, device=device),
        torch.zeros(1, 3, color_side, color_side, color_side, device=device),
        settings,
    )


def color_logits(color: Float[Tensor, "3"]) -> Float[Tensor, "1 3 1 1 1"]:
    """Logits of a color in [0, 1], kept away from the ends."""
    return color.clamp(0.02, 0.98).logit().view(1, 3, 1, 1, 1)
