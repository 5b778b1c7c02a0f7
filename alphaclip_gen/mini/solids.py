"""The twelve solids as signed distance functions, and a bank of their sphere-traced sprites.

Every solid fits the unit ball and stands upright along +Y. Two solids blend by interpolating their
distances, which gives the half-way shapes that mini is trained on.
"""

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from .captions import SHAPES

_FRAME = 1.12  # half the width of a sprite at the solid's center, in scene units


def solid_distance(
    name: str,
    points: Float[Tensor, "*batch 3"],
    stretch: Float[Tensor, "*#batch"] | float = 1.0,
) -> Float[Tensor, "*batch"]:
    """Signed distance (a lower bound outside) from points to the solid, negative inside.

    Args:
        name: a key of `captions.SHAPES`.
        points: scene coordinates, +Y up.
        stretch: scales the solid's secondary proportion (height, thickness, ring width), near 1.
    """
    x, y, z = points.unbind(-1)
    radial = torch.hypot(x, z)
    match name:
        case "sphere":
            return torch.linalg.vector_norm(points, dim=-1) - 0.92
        case "cube":
            return _box(x, y, z, 0.56, 0.56 * stretch, 0.56)
        case "cylinder":
            return _cylinder(radial, y, 0.66, 0.66 * stretch)
        case "cone":
            return _cone(radial, y, 0.7, 0.7 * stretch)
        case "torus":
            return torch.hypot(radial - 0.68, y) - 0.25 * stretch
        case "pyramid":
            return _cone(torch.maximum(x.abs(), z.abs()), y, 0.56, 0.58 * stretch)
        case "disk":
            return _cylinder(radial, y, 0.95, 0.13 * stretch)
        case "stick":
            return _cylinder(radial, y, 0.11 * stretch, 0.96)
        case "cross":
            upright = _box(x, y, z, 0.26 * stretch, 0.9, 0.26 * stretch)
            return torch.minimum(upright, _box(x, y, z, 0.9, 0.26 * stretch, 0.26 * stretch))
        case "capsule":
            half = 0.58 - 0.02 * (stretch - 1)
            return torch.hypot(radial, (y.abs() - half).clamp(min=0)) - 0.37 * stretch
        case "snowman":
            low, middle, high = (
                torch.hypot(radial, y - height) - radius
                for height, radius in ((-0.46, 0.5), (0.2, 0.37), (0.7, 0.26))
            )
            return torch.minimum(low, torch.minimum(middle, high))
        case "mushroom":
            cap = torch.maximum(torch.hypot(radial, y - 0.02) - 0.78, 0.02 - y)
            return torch.minimum(cap, _cylinder(radial, y + 0.36, 0.24 * stretch, 0.42))
    raise ValueError(f"name is {name!r}; expected one of: {', '.join(SHAPES)}.")


def _box(x: Tensor, y: Tensor, z: Tensor, *half_sides: float | Tensor) -> Tensor:
    a, b, c = (axis.abs() - half for axis, half in zip((x, y, z), half_sides, strict=True))
    outside = (a.clamp(min=0) ** 2 + b.clamp(min=0) ** 2 + c.clamp(min=0) ** 2).sqrt()
    return outside + torch.maximum(a, torch.maximum(b, c)).clamp(max=0)


def _cylinder(radial: Tensor, y: Tensor, radius: float | Tensor, half: float | Tensor) -> Tensor:
    sides = radial - radius, y.abs() - half
    return torch.hypot(*(side.clamp(min=0) for side in sides)) + torch.maximum(*sides).clamp(max=0)


def _cone(radial: Tensor, y: Tensor, radius: float, half: float | Tensor) -> Tensor:
    """Apex at +half, base of `radius` at -half; a bound, exact on the faces."""
    slant = torch.as_tensor(2 * half / radius)
    side = (radial * slant + (y - half)) / torch.sqrt(1 + slant**2)
    return torch.maximum(side, -half - y)


@dataclass(frozen=True)
class SpriteBank:
    """Views of solids and of blends between two: what scenes are composed from.

    Attributes:
        normals: camera-frame unit normals x 127 (x right, y up, z toward the camera).
        coverage: antialiased silhouette x 255.
        shape_weights: how much of each solid of `SHAPES` is in the sprite; rows sum to one.
    """

    normals: Tensor  # int8 (sprites, 3, side, side)
    coverage: Tensor  # uint8 (sprites, side, side)
    shape_weights: Tensor  # float (sprites, shapes)

    def __len__(self) -> int:
        return len(self.coverage)


def build_bank(
    generator: torch.Generator,
    views: int = 200,
    blends: int = 24,
    rippled: float = 0.4,
    side: int = 64,
) -> SpriteBank:
    """A bank with `views` sprites of every solid and `blends` of every pair of solids.

    Args:
        generator: decides views, proportions, ripples and blends; same state, same bank.
        rippled: fraction of sprites with a wavy surface.
        side: sprite height and width in pixels.
    """
    names = list(SHAPES)
    jobs = [(i, i, views) for i in range(len(names))]
    jobs += [(i, j, blends) for i, j in itertools.combinations(range(len(names)), 2) if blends]
    parts = [
        _trace_views(names[i], names[j], count, side, rippled, generator) for i, j, count in jobs
    ]
    weights = []
    for (i, j, count), (_, _, blend) in zip(jobs, parts, strict=True):
        row = torch.zeros(count, len(names))
        row[:, i] += 1 - blend
        row[:, j] += blend
        weights.append(row)
    return SpriteBank(
        torch.cat([part[0] for part in parts]),
        torch.cat([part[1] for part in parts]),
        torch.cat(weights),
    )


def _trace_views(
    first: str, second: str, count: int, side: int, rippled: float, generator: torch.Generator
) -> tuple[Tensor, Tensor, Tensor]:
    """int8 normals, uint8 coverage and blend weight of `count` random views of a blend."""
    blend = torch.rand(count, generator=generator) if first != second else torch.zeros(count)
    turn = random_views(count, generator)
    distance = 2.8 + 2 * torch.rand(count, generator=generator)
    stretch = 0.84 + 0.32 * torch.rand(count, generator=generator)
    ripple = _ripple(count, rippled, generator)
    normals, coverage = [], []
    for rows in torch.arange(count).split(32):
        some = tuple(part[rows] for part in ripple)
        traced = trace_blend(
            first, second, blend[rows], turn[rows], distance[rows], stretch[rows], side, some
        )
        normals.append((traced[0] * 127).round().to(torch.int8))
        coverage.append((traced[1] * 255).round().to(torch.uint8))
    return torch.cat(normals), torch.cat(coverage), blend


@torch.no_grad()
def trace_blend(
    first: str,
    second: str,
    blend: Float[Tensor, " count"],
    turn: Float[Tensor, "count 3 3"],
    distance: Float[Tensor, " count"],
    stretch: Float[Tensor, " count"],
    side: int = 64,
    ripple: tuple[Tensor, ...] | None = None,
) -> tuple[Float[Tensor, "count 3 side side"], Float[Tensor, "count side side"]]:
    """Unit normals in the camera's frame and antialiased coverage of blends of two solids.

    Args:
        first: the solid at blend 0.
        second: the solid at blend 1.
        blend: where between the two.
        turn: world-to-camera rotations (see `random_views`).
        distance: of the camera from the solid's center, in scene units.
        stretch: see `solid_distance`.
        side: sprite height and width in pixels.
        ripple: amplitudes (count, 1), wave vectors (count, waves, 3) and phases (count, 1, waves).
    """
    stretch = stretch[:, None].expand(-1, side * side)

    def surface(points: Tensor) -> Tensor:
        value = solid_distance(first, points, stretch)
        if first != second:
            value = torch.lerp(value, solid_distance(second, points, stretch), blend[:, None])
        if ripple is None or not ripple[0].any():
            return value
        amplitude, waves, phases = ripple
        return value + amplitude * torch.sin(points @ waves.mT + phases).mean(-1)

    return _trace(surface, turn, distance, side)


def random_views(count: int, generator: torch.Generator) -> Float[Tensor, "count 3 3"]:
    """World-to-camera rotations: mostly upright from all sides, a fifth turned freely."""
    azimuth = 2 * math.pi * torch.rand(count, generator=generator)
    elevation = torch.deg2rad(-20 + 85 * torch.rand(count, generator=generator))
    roll = torch.deg2rad(12 * torch.randn(count, generator=generator).clamp(-2, 2))
    upright = _rotation(roll, 2) @ _rotation(elevation, 0) @ _rotation(azimuth, 1)
    free = torch.linalg.qr(torch.randn(count, 3, 3, generator=generator)).Q
    free = free * torch.linalg.det(free)[:, None, None]
    return torch.where((torch.rand(count, generator=generator) < 0.2)[:, None, None], free, upright)


def _rotation(angle: Tensor, axis: int) -> Tensor:
    matrix = torch.eye(3).repeat(len(angle), 1, 1)
    i, j = (axis + 1) % 3, (axis + 2) % 3
    matrix[:, i, i] = matrix[:, j, j] = angle.cos()
    matrix[:, i, j], matrix[:, j, i] = -angle.sin(), angle.sin()
    return matrix


def _ripple(
    count: int, rippled: float, generator: torch.Generator
) -> tuple[Tensor, Tensor, Tensor]:
    """Amplitudes, wave vectors and phases of a smooth ripple, for the first of the sprites."""
    amplitude = 0.1 * torch.rand(count, 1, generator=generator)
    amplitude[round(rippled * count) :] = 0
    waves = 4.5 * torch.randn(count, 4, 3, generator=generator)
    return amplitude, waves, 2 * math.pi * torch.rand(count, 1, 4, generator=generator)


def _trace(
    surface: Callable[[Tensor], Tensor],
    turn: Tensor,
    distance: Tensor,
    side: int,
    steps: int = 24,
) -> tuple[Tensor, Tensor]:
    """Normals (n, 3, side, side) and coverage (n, side, side) by sphere tracing."""
    count = len(turn)
    line = (torch.arange(side) + 0.5) / side * 2 - 1
    up, right = torch.meshgrid(-line, line, indexing="ij")
    plane = torch.stack([right * _FRAME, up * _FRAME, torch.zeros_like(up)], -1).view(1, -1, 3)
    eye = torch.zeros(count, 1, 3)
    eye[..., 2] = distance[:, None]
    rays = F.normalize(plane - eye, dim=-1) @ turn
    origin = eye @ turn
    depth = (distance[:, None] - 1.25).expand(-1, side * side).clone()
    nearest = torch.full_like(depth, 9.0)
    closest = depth.clone()
    for _ in range(steps):
        value = surface(origin + depth[..., None] * rays)
        better = value < nearest
        nearest = torch.where(better, value, nearest)
        closest = torch.where(better, depth, closest)
        depth = (depth + 0.9 * value).clamp(max=7.0)
    pixel = 2 * _FRAME / side
    coverage = (1 - nearest / pixel).clamp(0, 1)
    hit = origin + closest[..., None] * rays
    step = 0.01
    gradient = torch.stack(
        [surface(hit + step * axis) - surface(hit - step * axis) for axis in torch.eye(3)], -1
    )
    normals = F.normalize(gradient, dim=-1) @ turn.mT
    return normals.mT.reshape(count, 3, side, side).contiguous(), coverage.view(count, side, side)
