"""A volume renderer that touches occupied, visible samples only: color, opacity, depth, normal.

March every ray of all views through the box of occupied voxels, at an even step under a random
offset, keep the samples that lie in occupied voxels and are not hidden, evaluate the field once on
those, composite with exp(-cumsum).
The choice of samples is not differentiable; everything after it is.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.autograd.function import once_differentiable

from cameras import Cameras, rays
from grids import distances

AT_ONCE = 8192
"""Rays marched in one go on a CPU, so that what is kept of all their steps stays in a cache."""
Field = Callable[[Tensor], tuple[Tensor, Tensor, Tensor]]
"""points (n, 3) -> density (n,) per unit length, color (3, n), unit normal (3, n)."""
Shape = Callable[[Tensor], Tensor]
"""points (n, 3) -> membership (n,) in [0, 1]."""


@dataclass(frozen=True)
class RenderSettings:
    """Sampling and light of the guidance pictures."""

    step: float = 0.07
    """Length between samples; the cube is 2 wide."""
    step_in_voxels: float = 0.0
    """Above 0: the same in voxels of the density grid, so that it shrinks as the grid grows."""
    threshold: float = 0.03
    """A voxel is occupied where one step through it is at least this opaque."""
    faint: float = 0.0
    """Above 0: also where it is at least this share as opaque as the most opaque voxel, so that
    something can form from haze."""
    margin: float = 0.08
    """Length around occupied voxels that is sampled too, so that the object can grow."""
    hidden_below: float = 0.01
    """Samples that less light than this reaches are skipped."""
    ambient: tuple[float, float] = (0.45, 0.75)
    """Range of the light that falls evenly; the rest comes from one lamp."""
    lamp_spread: float = 0.6
    """How far the lamp strays, beside a way of 1 back and 0.5 up from the object."""

    def length(self, size: int) -> float:
        """Length between samples of a density grid of `size` voxels a side."""
        return self.step_in_voxels * 2 / (size - 1) if self.step_in_voxels > 0 else self.step


class Occupancy(NamedTuple):
    """Where samples are worth taking: never destructive, made anew from the field."""

    density: Float[Tensor, "depth height width"]
    occupied: Bool[Tensor, "depth height width"]

    def box(self) -> tuple[Float[Tensor, "3"], Float[Tensor, "3"]]:
        """Lowest and highest corner (x, y, z) of what holds all occupied voxels; of the whole grid
        where none is."""
        size, flat = len(self.occupied), self.occupied.any(dim=0)
        axes = torch.stack([flat.any(dim=0), flat.any(dim=1), self.occupied.flatten(1).any(dim=1)])
        axes = axes.to(torch.uint8)  # the first of equal values is found
        low, high = axes.argmax(dim=1), size - 1 - axes.flip(1).argmax(dim=1)
        ends = torch.stack([low - 0.5, high + 0.5])
        low, high = ends * (2 / (size - 1)) - 1
        return low, high


class Samples(NamedTuple):
    """The samples kept, in order of rays, front to back."""

    points: Float[Tensor, "samples 3"]
    ray: Int[Tensor, " samples"]
    distance: Float[Tensor, " samples"]


class Rendering(NamedTuple):
    """Pictures, all premultiplied by opacity (divide by it for the mean along the ray)."""

    color: Float[Tensor, "views 3 height width"]
    opacity: Float[Tensor, "views 1 height width"]
    depth: Float[Tensor, "views 1 height width"]
    """Distance from the camera."""
    normal: Float[Tensor, "views 3 height width"]
    """In the world's axes."""


class PartRendering(NamedTuple):
    """The same pictures, through which gradients reach the inside of one shape only."""

    pictures: Rendering
    own: Float[Tensor, "views 1 height width"]
    """Opacity of what lies inside the shape, behind all that is before it."""


@torch.no_grad()
def occupancy(
    density: Float[Tensor, "depth height width"],
    step: float,
    threshold: float = 0.03,
    margin: float = 0.08,
    faint: float = 0.0,
) -> Occupancy:
    """Voxels at least `threshold` opaque over one step, grown by `margin`, within the unit ball.

    With `faint` above 0, voxels of at least that share of the largest opacity count too.
    """
    size = len(density)
    opacity = -torch.expm1(-density * step)
    kept = opacity >= threshold
    if faint > 0:
        kept |= opacity >= faint * opacity.max()
    kept = dilated(kept, math.ceil(margin * (size - 1) / 2))
    within = distances(size, density.device) <= 1 + 3**0.5 / (size - 1)
    return Occupancy(density.detach(), kept & within)


def dilated(
    mask: Bool[Tensor, "depth height width"], reach: int
) -> Bool[Tensor, "depth height width"]:
    """The mask grown by a cube that reaches so many voxels every way."""
    for axis in range(3):
        for _ in range(reach):
            grown, size = mask.clone(), mask.shape[axis]
            grown.narrow(axis, 1, size - 1).logical_or_(mask.narrow(axis, 0, size - 1))
            grown.narrow(axis, 0, size - 1).logical_or_(mask.narrow(axis, 1, size - 1))
            mask = grown
    return mask


@torch.no_grad()
def march(
    origins: Float[Tensor, "rays 3"],
    directions: Float[Tensor, "rays 3"],
    space: Occupancy,
    step: float,
    hidden_below: float = 1e-3,
    generator: torch.Generator | None = None,
) -> Samples:
    """Samples at an even step along rays, kept where occupied and not hidden.

    The steps count from where a ray enters the unit ball, under a random offset of up to a step a
    ray with a generator, else half a step. Light is estimated from the density of the nearest
    voxels.
    """
    middle = -(origins * directions).sum(dim=1)
    nearest = origins + directions * middle[:, None]
    half_chord = (1 - nearest.square().sum(dim=1)).clamp(min=0).sqrt()
    offset = torch.full_like(middle, 0.5)
    if generator is not None:
        offset = torch.rand(middle.shape, generator=generator, device=generator.device).to(middle)
    enter, leave = _crossing(origins, directions, *space.box())
    first = middle - half_chord + offset * step
    first = first + ((enter - first) / step).ceil().clamp(min=0) * step
    last = leave.minimum(middle + half_chord)
    hit = torch.nonzero(first < last)[:, 0]
    bundle = hit, origins[hit], directions[hit], first[hit], last[hit]
    at_once = AT_ONCE if hit.device.type == "cpu" else max(len(hit), 1)
    chunks = zip(*(each.split(at_once) for each in bundle), strict=True)
    thickness = torch.where(space.occupied, step * space.density, -1.0)
    parts = [
        _along(ray, origin, direction, begin, end, thickness, step, hidden_below)
        for ray, origin, direction, begin, end in chunks
    ]
    return Samples(*(torch.cat(part) for part in zip(*parts, strict=True)))


def _along(
    ray: Tensor,
    origins: Tensor,
    directions: Tensor,
    first: Tensor,
    last: Tensor,
    thickness: Tensor,
    step: float,
    hidden_below: float,
) -> Samples:
    """Samples kept of some rays between two distances on each; `thickness` is that of a step in
    each voxel, below 0 where none is occupied."""
    count = int((last - first).max() / step) + 1 if len(ray) else 0
    distance = first[:, None] + torch.arange(count, device=first.device) * step
    kept = _worthwhile(origins, directions, distance, thickness, hidden_below)
    row, column = torch.nonzero(kept & (distance < last[:, None]), as_tuple=True)
    distance = distance[row, column]
    return Samples(origins[row] + directions[row] * distance[:, None], ray[row], distance)


def _crossing(
    origins: Tensor, directions: Tensor, low: Tensor, high: Tensor
) -> tuple[Float[Tensor, " rays"], Float[Tensor, " rays"]]:
    """Distances at which rays enter and leave a box; those that miss it leave before they enter."""
    inverse = 1 / torch.where(directions.abs() < 1e-9, 1e-9, directions)
    ends = (low - origins) * inverse, (high - origins) * inverse
    return torch.minimum(*ends).amax(dim=1), torch.maximum(*ends).amin(dim=1)


def _worthwhile(
    origins: Tensor,
    directions: Tensor,
    distance: Tensor,
    thickness: Tensor,
    hidden_below: float,
) -> Tensor:
    """Which of (rays, samples) lie in an occupied voxel and are lit; what is said of samples beyond
    the cube means nothing."""
    size = len(thickness)
    scale = (size - 1) / 2
    index = distance.new_zeros(1)  # exact in single precision up to 256 voxels a side
    for axis in (2, 1, 0):
        start = (origins[:, axis, None] + 1) * scale
        position = torch.addcmul(start, directions[:, axis, None] * scale, distance).round_()
        index = position.add_(index, alpha=size)
    index = index.int().clamp_(0, size**3 - 1).flatten()
    met = thickness.flatten().index_select(0, index).view_as(distance)
    occupied = met >= 0
    if hidden_below <= 0:
        return occupied
    met.relu_()
    before = met.cumsum(dim=1).sub_(met)
    return occupied & (before <= -math.log(hidden_below))


def composite_samples(
    density: Float[Tensor, " samples"],
    values: Float[Tensor, "channels samples"],
    ray: Int[Tensor, " samples"],
    rays: int,
    step: float,
) -> tuple[Float[Tensor, "channels rays"], Float[Tensor, " rays"]]:
    """Sums of values along each ray, weighted by the light absorbed, and the rays' opacity.

    The weight of a sample is exp(-thickness before it) * (1 - exp(-its own thickness)), thickness
    being density times step (Max 1995; NeRF, arXiv 2003.08934, eq. 3). Differentiable once.

    Args:
        density: per unit length, of samples in order of rays and front to back.
        values: of the same samples.
        ray: index of each sample's ray, not falling.
        rays: their number.
        step: length that one sample stands for.
    """
    return _Compositing.apply(density, values, ray, rays, step)


class _Compositing(torch.autograd.Function):
    """Gradients by what lies behind each sample: no sum over rays is taken apart again."""

    @staticmethod
    def forward(
        ctx: Any, density: Tensor, values: Tensor, ray: Tensor, rays: int, step: float
    ) -> tuple[Tensor, Tensor]:
        thickness = density * step
        total = thickness.double().cumsum(dim=0)
        before = total - thickness
        count = torch.bincount(ray, minlength=rays)
        end = count.cumsum(dim=0)
        light = (before[(end - count)[ray]] - before).exp_().to(density.dtype)
        passed = torch.exp(-thickness)
        weight = light * -torch.expm1(-thickness)
        sums = values.new_zeros(len(values), rays).index_add_(1, ray, weight * values)
        opacity = weight.new_zeros(rays).index_add_(0, ray, weight)
        ctx.save_for_backward(values, ray, weight, light * passed, (end - 1)[ray])
        ctx.step = step
        return sums, opacity

    @staticmethod
    @once_differentiable
    def backward(  # type: ignore[override]
        ctx: Any, in_sums: Tensor, in_opacity: Tensor
    ) -> tuple[Tensor | None, ...]:
        values, ray, weight, behind, last = ctx.saved_tensors
        here = in_sums.index_select(1, ray)
        in_weight = (here * values).sum(dim=0).add_(in_opacity.index_select(0, ray))
        total = (weight * in_weight).double().cumsum(dim=0)
        hidden = (total.index_select(0, last) - total).to(weight.dtype)
        in_density = (behind * in_weight).sub_(hidden).mul_(ctx.step)
        return in_density, here.mul_(weight), None, None, None


def render(
    field: Field,
    cameras: Cameras,
    size: int,
    space: Occupancy,
    step: float,
    hidden_below: float = 1e-3,
    generator: torch.Generator | None = None,
) -> Rendering:
    """Square pictures of the field from every camera; differentiable through the field."""
    return render_parts(field, (), cameras, size, space, step, hidden_below, generator)[0]


def render_parts(
    field: Field,
    shapes: Sequence[Shape],
    cameras: Cameras,
    size: int,
    space: Occupancy,
    step: float,
    hidden_below: float = 1e-3,
    generator: torch.Generator | None = None,
) -> tuple[Rendering, list[PartRendering]]:
    """The rendering of the whole, and one for each shape."""
    origins, directions = rays(cameras, size)
    samples = march(origins, directions, space, step, hidden_below, generator)
    found = field(samples.points)
    whole, _ = _pictures(*found, None, samples, step, len(origins), size)
    parts = []
    for shape in shapes:
        member = shape(samples.points)
        density, color, normal = (inside_only(values, member) for values in found)
        pictures = _pictures(density, color, normal, member, samples, step, len(origins), size)
        parts.append(PartRendering(*pictures))
    return whole, parts


def inside_only(
    values: Float[Tensor, "*channels points"], member: Float[Tensor, " points"]
) -> Float[Tensor, "*channels points"]:
    """The same values; gradients pass in proportion to membership."""
    still = values.detach()
    return still + member * (values - still)


def _pictures(
    density: Float[Tensor, " samples"],
    color: Float[Tensor, "3 samples"],
    normal: Float[Tensor, "3 samples"],
    member: Float[Tensor, " samples"] | None,
    samples: Samples,
    step: float,
    rays: int,
    size: int,
) -> tuple[Rendering, Tensor]:
    """Color and normal of samples, composited; and so the membership, where there is."""
    layers = [color, samples.distance[None], normal]
    layers += [] if member is None else [member[None]]
    sums, opacity = composite_samples(density, torch.cat(layers), samples.ray, rays, step)
    pictures = torch.cat([sums, opacity[None]])
    pictures = pictures.view(len(pictures), -1, size, size).transpose(0, 1)
    color, depth, normal, own = pictures[:, :-1].split([3, 1, 3, len(sums) - 7], dim=1)
    return Rendering(color, pictures[:, -1:], depth, normal), own


def shaded(
    rendering: Rendering,
    lamp: Float[Tensor, "views 3"],
    ambient: Float[Tensor, " views"],
) -> Float[Tensor, "views 3 height width"]:
    """Premultiplied color under even light and one distant lamp in direction `lamp` (Lambert).

    The mean normal of each pixel is shaded, not every sample: `ambient` + (1 - ambient) * cosine.
    """
    normal = rendering.normal
    normal = normal * (normal.square().sum(dim=1, keepdim=True) + 1e-8).rsqrt()
    lamp = F.normalize(lamp, dim=1)[:, :, None, None]
    cosine = (normal * lamp).sum(dim=1, keepdim=True).relu()
    even = ambient.view(-1, 1, 1, 1)
    return rendering.color * (even + (1 - even) * cosine)


def random_light(
    cameras: Cameras, settings: RenderSettings, generator: torch.Generator | None = None
) -> tuple[Float[Tensor, "views 3"], Float[Tensor, " views"]]:
    """A lamp somewhere above and behind each camera, and an ambient level, for `shaded`."""
    views = len(cameras.position)
    stray = torch.randn(views, 3, 1, generator=generator) * settings.lamp_spread
    low, high = settings.ambient
    ambient = low + (high - low) * torch.rand(views, generator=generator)
    local = stray + torch.tensor([[0.0], [0.5], [1.0]])
    lamp = (cameras.rotation @ local.to(cameras.rotation))[:, :, 0]
    return lamp, ambient.to(lamp)


def studio_light(cameras: Cameras) -> tuple[Float[Tensor, "views 3"], Float[Tensor, " views"]]:
    """The light of the results: a lamp above the left shoulder of each camera."""
    right, up, backward = cameras.rotation.unbind(dim=2)
    return backward + 0.6 * up - 0.4 * right, torch.full((len(right),), 0.6).to(right)
