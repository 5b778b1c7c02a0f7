"""Sprites drawn into pictures at any place, size and angle without aliasing."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int, UInt8
from torch import Tensor

from .dice import Dice


@dataclass(frozen=True)
class Pyramid:
    """Sprites at half-octave sizes, largest first: each level is 1/sqrt(2) as wide as the last.

    Channels must be linear in coverage (premultiplied), or borders would show what lies outside.
    """

    levels: tuple[UInt8[Tensor, "sprites channels _ _"], ...]


def build_pyramid(pixels: UInt8[Tensor, "sprites channels side side"], steps: int = 5) -> Pyramid:
    """The sprites at `steps` sizes, resampled with a cubic filter as wide as the shrinking asks."""
    side = pixels.shape[-1]
    levels = [pixels]
    for step in range(1, steps):
        target = 2 * [round(side / 2 ** (step / 2))]
        small = [
            F.interpolate(part.float(), size=target, mode="bicubic", antialias=True)
            for part in pixels.split(256)
        ]
        levels.append(torch.cat([part.clamp(0, 255).round().to(torch.uint8) for part in small]))
    return Pyramid(tuple(levels))


def draw(
    pyramid: Pyramid,
    sprites: Int[Tensor, " count"],
    grid: Float[Tensor, "count height width 2"],
    pixels: Float[Tensor, " count"],
) -> Float[Tensor, "count channels height width"]:
    """Sprites seen through sampling grids, in [0, 1]; zero outside them.

    Each is sampled bilinearly from the level that is 1.4 to 2 times as wide as what is drawn (or
    from the first), where bilinear sampling hardly aliases and hardly blurs.

    Args:
        pyramid: what to draw from.
        sprites: which.
        grid: for every pixel of the picture, where in the sprite it looks (x, y in [-1, 1]).
        pixels: about how wide each sprite becomes in the picture.
    """
    side = pyramid.levels[0].shape[-1]
    wanted = (2 * torch.log2(side / pixels) - 1).floor().long()
    level = wanted.clamp(0, len(pyramid.levels) - 1)
    channels = pyramid.levels[0].shape[1]
    drawn = grid.new_zeros(len(grid), channels, *grid.shape[1:3])
    for number, sources in enumerate(pyramid.levels):
        rows = (level == number).nonzero()[:, 0]
        if len(rows):
            source = sources[sprites[rows]].to(grid.dtype)
            drawn[rows] = F.grid_sample(source, grid[rows], align_corners=False)
    return drawn.div_(255).clamp_(0, 1)


def sampling_grid(
    center: Float[Tensor, "count 2"],
    axes: Float[Tensor, "count 2 2"],
    size: int,
) -> Float[Tensor, "count size size 2"]:
    """For every pixel of a picture, the sprite's coordinates there (see `draw`).

    Args:
        center: of the sprite, x and y in [-1, 1] picture units (y down).
        axes: takes a sprite's offset from its center to the picture's; columns are where the
            sprite's x and y axes point, so `radius * identity` draws it upright.
        size: picture side in pixels.
    """
    line = (torch.arange(size) + 0.5) / size * 2 - 1
    down, right = torch.meshgrid(line, line, indexing="ij")
    points = torch.stack([right, down], dim=-1).view(1, -1, 2)
    offsets = (points - center[:, None]) @ torch.linalg.inv(axes).mT
    return offsets.view(len(center), size, size, 2)


def layout(
    dice: Dice,
    number: Int[Tensor, " scenes"],
    slots: int,
    smallest: Float[Tensor, "scenes 1"],
    largest: Float[Tensor, "scenes 1"],
) -> tuple[Float[Tensor, "scenes slots 2"], Float[Tensor, "scenes slots"]]:
    """Centers and radii, in [-1, 1] picture units: the roomiest of six random tries.

    Args:
        dice: decides.
        number: how many of the slots are taken, from the first.
        slots: how many there are.
        smallest: least radius in each scene.
        largest: greatest.
    """
    tries, count = 6, len(number)
    radius = smallest + (largest - smallest) * dice.uniform(0, 1, tries, count, slots)
    room = (1.08 - radius).clamp(min=0.05)
    center = dice.uniform(-1, 1, tries, count, slots, 2) * room[..., None]
    gap = torch.cdist(center, center) / (radius[..., None] + radius[..., None, :])
    alive = torch.arange(slots) < number[:, None]
    pairs = alive[:, :, None] & alive[:, None, :] & ~torch.eye(slots, dtype=torch.bool)
    crowding = ((1 - gap).clamp(min=0) * pairs).sum((-2, -1))
    best = crowding.argmin(0)
    rows = torch.arange(count)
    return center[best, rows], radius[best, rows]
