"""Orbit cameras around the origin of a right-handed world with +Y up, the frame of glTF.

Azimuth 0 stands on +Z and looks along -Z, azimuth 90 stands on +X; elevation 90 is straight above.
A camera's own axes are x right, y up, z backward; picture rows run downward from the top.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor


@dataclass(frozen=True)
class CameraSettings:
    """Where the random views of a run look from."""

    elevation: tuple[float, float] = (-10.0, 60.0)
    """Degrees; drawn evenly in between."""
    radius: tuple[float, float] = (3.0, 3.4)
    """Distance from the middle of the cube [-1, 1]^3."""
    field_of_view: float = 40.0
    """Degrees across the picture."""


class Cameras(NamedTuple):
    """Several cameras: `rotation` columns are right, up, backward in the world."""

    position: Float[Tensor, "views 3"]
    rotation: Float[Tensor, "views 3 3"]
    field_of_view: float

    def to(self, device: torch.device) -> "Cameras":
        """The same cameras on another device."""
        return Cameras(self.position.to(device), self.rotation.to(device), self.field_of_view)

    def each(self) -> Iterator["Cameras"]:
        """Each camera by itself."""
        for position, rotation in zip(self.position, self.rotation, strict=True):
            yield Cameras(position[None], rotation[None], self.field_of_view)


def orbit(
    azimuth: Float[Tensor, " views"],
    elevation: Float[Tensor, " views"],
    radius: Float[Tensor, " views"],
    field_of_view: float = 40.0,
) -> Cameras:
    """Upright cameras that look at the origin; angles in degrees."""
    azimuth, elevation = azimuth.deg2rad(), elevation.deg2rad()
    sin_a, cos_a, sin_e, cos_e = azimuth.sin(), azimuth.cos(), elevation.sin(), elevation.cos()
    backward = torch.stack([sin_a * cos_e, sin_e, cos_a * cos_e], dim=1)
    right = torch.stack([cos_a, torch.zeros_like(cos_a), -sin_a], dim=1)
    up = torch.linalg.cross(backward, right)
    rotation = torch.stack([right, up, backward], dim=2)
    return Cameras(backward * radius[:, None], rotation, field_of_view)


def turntable(
    views: int, elevation: float = 20.0, radius: float = 3.2, field_of_view: float = 40.0
) -> Cameras:
    """Cameras evenly around the object, from azimuth 0 on."""
    azimuth = torch.arange(views) * (360.0 / views)
    ones = torch.ones(views)
    return orbit(azimuth, ones * elevation, ones * radius, field_of_view)


def random_views(
    views: int, settings: CameraSettings, generator: torch.Generator | None = None
) -> Cameras:
    """Random cameras, one in each of `views` equal sectors of azimuth under a random turn."""
    random = torch.rand(3, views, generator=generator)
    sector = torch.arange(views) + random[0] + torch.rand(1, generator=generator) * views
    low, high = settings.elevation
    near, far = settings.radius
    return orbit(
        sector * (360.0 / views),
        low + (high - low) * random[1],
        near + (far - near) * random[2],
        settings.field_of_view,
    )


HALF_TURN = (-1.0, 1.0, -1.0)
"""What half a turn around the vertical multiplies coordinates by."""


class OneSide(NamedTuple):
    """The cameras that are needed of an object which looks the same from behind."""

    cameras: Cameras
    """Those that stand opposite to no earlier one."""
    which: Int[Tensor, " views"]
    """Of all views: which of `cameras` sees the same."""
    behind: Bool[Tensor, " views"]
    """Whether it does so from half a turn away."""


def one_side(cameras: Cameras) -> OneSide:
    """The cameras without those that are half a turn around the vertical from an earlier one."""
    turn = cameras.position.new_tensor(HALF_TURN)
    place = torch.cat([cameras.position[:, :, None], cameras.rotation], dim=2)
    apart = (place[:, None] - turn[:, None] * place).abs().amax(dim=(2, 3))
    earlier = torch.tril(apart < 1e-5, diagonal=-1)
    earlier &= ~earlier.any(dim=1)  # not one that is left out itself
    first = ~earlier.any(dim=1)
    number = first.cumsum(dim=0) - 1
    index = torch.where(first, number, number[earlier.int().argmax(dim=1)])
    kept = Cameras(cameras.position[first], cameras.rotation[first], cameras.field_of_view)
    return OneSide(kept, index, ~first)


def azimuths(cameras: Cameras) -> Float[Tensor, " views"]:
    """Degrees in (-180, 180] around the vertical at which each camera stands, 0 in front."""
    return torch.atan2(cameras.position[:, 0], cameras.position[:, 2]).rad2deg()


def rays(cameras: Cameras, size: int) -> tuple[Float[Tensor, "rays 3"], Float[Tensor, "rays 3"]]:
    """Origins and unit directions of every pixel's center, in order view, row, column."""
    reach = math.tan(math.radians(cameras.field_of_view) / 2)
    steps = (torch.arange(size, device=cameras.position.device) + 0.5) * 2 / size - 1
    y, x = torch.meshgrid(-steps * reach, steps * reach, indexing="ij")
    local = torch.stack([x, y, -torch.ones_like(x)], dim=-1).view(1, -1, 3)
    directions = torch.nn.functional.normalize(local @ cameras.rotation.mT, dim=-1)
    origins = cameras.position[:, None].expand_as(directions)
    return origins.reshape(-1, 3), directions.reshape(-1, 3)


def project(cameras: Cameras, points: Float[Tensor, "points 3"]) -> Float[Tensor, "views points 2"]:
    """Picture positions in [-1, 1]^2 (x right, y down) of points in the world."""
    local = (points - cameras.position[:, None]) @ cameras.rotation
    reach = math.tan(math.radians(cameras.field_of_view) / 2)
    flat = local[..., :2] / (-local[..., 2:] * reach)
    return flat * torch.tensor([1.0, -1.0], device=flat.device)
