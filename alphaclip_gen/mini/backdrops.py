"""Backgrounds of many kinds: flat, graded, cloudy, striped, checked, dotted, patched, noisy."""

import math
from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

from .dice import Dice


def backdrops(dice: Dice, count: int, size: int) -> Float[Tensor, "count 3 size size"]:
    """Random backgrounds in [0, 1]: two colors mixed by a pattern; a third by another on some."""
    first, second, third = _colors(dice, 3 * count).view(3, count, 3, 1, 1)
    second = torch.lerp(second, first, dice.uniform(0, 0.8, count, 1, 1, 1))
    image = torch.lerp(first, second, patterns(dice, count, size))
    strength = dice.chance(0.35, count, 1, 1, 1) * dice.uniform(0.1, 0.8, count, 1, 1, 1)
    return torch.lerp(image, third, strength * patterns(dice, count, size))


def patterns(dice: Dice, count: int, size: int) -> Float[Tensor, "count 1 size size"]:
    """Random gray patterns in [0, 1]; each kind is made at once for those that get it."""
    kinds = dice.choice(torch.tensor([weight for weight, _ in _KINDS]), count)
    image = torch.zeros(count, 1, size, size)
    for kind, (_, make) in enumerate(_KINDS):
        rows = (kinds == kind).nonzero()[:, 0]
        if len(rows):
            image[rows] = make(dice, len(rows), size)
    return image


def _colors(dice: Dice, count: int) -> Tensor:
    """sRGB colors: a third gray, a quarter pale, the rest anything."""
    color = dice.uniform(0, 1, count, 3)
    gray = dice.uniform(0, 1, count, 1).expand(-1, 3)
    color = torch.where(dice.chance(0.25, count, 1), 0.7 + 0.3 * color, color)
    return torch.where(dice.chance(0.33, count, 1), gray, color)


def _axes(dice: Dice, count: int, size: int) -> tuple[Tensor, Tensor]:
    """Picture coordinates in [-1, 1], turned and shifted at random: two (count, 1, size, size)."""
    line = (torch.arange(size) + 0.5) / size * 2 - 1
    down, right = torch.meshgrid(line, line, indexing="ij")
    angle = dice.uniform(0, 2 * math.pi, count, 1, 1, 1)
    shift = dice.uniform(-1, 1, 2, count, 1, 1, 1)
    across = angle.cos() * right + angle.sin() * down
    along = angle.cos() * down - angle.sin() * right
    return across + shift[0], along + shift[1]


def _edge(dice: Dice, value: Tensor) -> Tensor:
    """A wave in [-1, 1] turned to [0, 1], soft or with a sharp edge."""
    sharpness = 10 ** dice.uniform(0, 1, len(value), 1, 1, 1)
    return (value * sharpness * 0.5 + 0.5).clamp(0, 1)


def _waves(dice: Dice, count: int) -> Tensor:
    """Angular frequencies: 1 to 5 waves across the picture."""
    return dice.uniform(1, 5, count, 1, 1, 1) * math.pi


def _flat(dice: Dice, count: int, size: int) -> Tensor:
    return torch.zeros(count, 1, size, size)


def _slope(dice: Dice, count: int, size: int) -> Tensor:
    return (_axes(dice, count, size)[0] / 2.8 + 0.5).clamp(0, 1)


def _glow(dice: Dice, count: int, size: int) -> Tensor:
    return 1 - torch.hypot(*_axes(dice, count, size)).div(2).clamp(max=1)


def _rings(dice: Dice, count: int, size: int) -> Tensor:
    return _edge(dice, torch.sin(torch.hypot(*_axes(dice, count, size)) * _waves(dice, count)))


def _stripes(dice: Dice, count: int, size: int) -> Tensor:
    return _edge(dice, torch.sin(_axes(dice, count, size)[0] * _waves(dice, count)))


def _checks(dice: Dice, count: int, size: int) -> Tensor:
    across, along = _axes(dice, count, size)
    waves = _waves(dice, count)
    return _edge(dice, 3 * torch.sin(across * waves) * torch.sin(along * waves))


def _dots(dice: Dice, count: int, size: int) -> Tensor:
    across, along = _axes(dice, count, size)
    waves = _waves(dice, count)
    peaks = torch.cos(across * waves) + torch.cos(along * waves)
    return _edge(dice, 2 * peaks - dice.uniform(0, 2.5, count, 1, 1, 1))


def _horizon(dice: Dice, count: int, size: int) -> Tensor:
    line = (torch.arange(size) + 0.5) / size * 2 - 1
    below = line[:, None] - dice.uniform(-0.7, 0.8, count, 1, 1, 1)
    return _edge(dice, 4 * below).expand(-1, -1, -1, size)


def _clouds(dice: Dice, count: int, size: int) -> Tensor:
    return dice.smooth(count, 1, 6, size)


def _marble(dice: Dice, count: int, size: int) -> Tensor:
    return _edge(dice, 2 * (dice.smooth(count, 1, 6, size) + dice.smooth(count, 1, 16, size) - 1))


def _patches(dice: Dice, count: int, size: int) -> Tensor:
    """Areas around random points (Voronoi cells), each of its own gray."""
    across, along = _axes(dice, count, size)
    points = dice.uniform(-2, 2, 2, count, 10, 1, 1)
    nearest = torch.hypot(across - points[0], along - points[1]).argmin(1)
    grays = dice.uniform(0, 1, count, 10)
    return grays.gather(1, nearest.flatten(1)).view(count, 1, size, size)


def _grain(dice: Dice, count: int, size: int) -> Tensor:
    return dice.uniform(0, 1, count, 1, size, size)


_KINDS: tuple[tuple[float, Callable[[Dice, int, int], Tensor]], ...] = (
    (0.20, _flat),
    (0.12, _slope),
    (0.07, _glow),
    (0.05, _rings),
    (0.08, _stripes),
    (0.08, _checks),
    (0.05, _dots),
    (0.10, _horizon),
    (0.09, _clouds),
    (0.06, _marble),
    (0.06, _patches),
    (0.04, _grain),
)
