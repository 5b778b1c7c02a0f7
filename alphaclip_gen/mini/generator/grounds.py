"""The grounds that prompts name, drawn: flat colors, and simple scenery that a small model learns.

Patterns are as coarse as the generator's latents, eight pixels of 64.
"""

import math
from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from ..captions import COLORS
from ..dice import Dice

Color = tuple[float, float, float]


def draw_grounds(
    dice: Dice, names: Sequence[str], size: int = 64
) -> Float[Tensor, "count 3 {size} {size}"]:
    """A picture in [0, 1] of each ground (names of `prompts.GROUNDS`), no two quite alike."""
    pictures = torch.zeros(len(names), 3, size, size)
    for kind in dict.fromkeys("color" if name in COLORS else name for name in names):
        rows = [
            i for i, name in enumerate(names) if (name if name in _SCENERY else "color") == kind
        ]
        if kind == "color":
            colors = torch.tensor([COLORS[names[row]] for row in rows])
            pictures[rows] = colors[..., None, None].expand(-1, -1, size, size)
        else:
            pictures[rows] = _SCENERY[kind](dice, len(rows), size)
    shift = 0.015 * dice.normal(len(names), 3, 1, 1).clamp(-2, 2)
    return (pictures + shift).clamp(0, 1)


def _mix(first: Color, second: Color, share: Tensor) -> Tensor:
    """(count, 3, size, size): the first color where the share is 0, the second where it is 1."""
    ends = torch.tensor([first, second])[..., None, None]
    return torch.lerp(ends[0], ends[1], share)


def _coordinates(size: int) -> tuple[Tensor, Tensor]:
    """Right and down, from 0 to 1 over the picture: (1, size) and (size, 1)."""
    line = (torch.arange(size) + 0.5) / size
    return line[None], line[:, None]


def _wave(value: Tensor) -> Tensor:
    """From 0 to 1 and back each time the value grows by one."""
    return 0.5 - 0.5 * torch.cos(2 * math.pi * value)


def _fill(count: int, size: int, share: Tensor) -> Tensor:
    return share.expand(count, 1, size, size)


def _grass(dice: Dice, count: int, size: int) -> Tensor:
    right, down = _coordinates(size)
    start = dice.uniform(0, 1, count, 1, 1, 1)
    blades = _wave(8 * right + start + 0.35 * torch.sin(4 * math.pi * down))
    return _mix((0.30, 0.62, 0.16), (0.46, 0.78, 0.28), _fill(count, size, blades))


def _sand(dice: Dice, count: int, size: int) -> Tensor:
    right, down = _coordinates(size)
    start = dice.uniform(0, 1, count, 1, 1, 1)
    ripples = _wave(5 * down + 0.3 * torch.sin(2 * math.pi * (right + start)))
    return _mix((0.95, 0.85, 0.62), (0.85, 0.70, 0.46), _fill(count, size, ripples))


def _snow(dice: Dice, count: int, size: int) -> Tensor:
    right, down = _coordinates(size)
    hill = 0.45 + 0.06 * torch.sin(2 * math.pi * (right + dice.uniform(0, 1, count, 1, 1, 1)))
    ground = ((down - hill) * size / 2 + 0.5).clamp(0, 1)
    return _mix((0.70, 0.84, 0.97), (0.97, 0.98, 1.0), _fill(count, size, ground))


def _sea(dice: Dice, count: int, size: int) -> Tensor:
    right, down = _coordinates(size)
    start = dice.uniform(0, 1, count, 1, 1, 1)
    waves = _wave(4 * down + 0.12 * torch.sin(6 * math.pi * (right + start)))
    return _mix((0.05, 0.36, 0.62), (0.20, 0.60, 0.80), _fill(count, size, waves))


def _sky(dice: Dice, count: int, size: int) -> Tensor:
    clouds = ((dice.smooth(count, 1, 5, size) - 0.62) * 4).clamp(0, 1)
    return _mix((0.44, 0.70, 0.96), (0.96, 0.98, 1.0), clouds)


def _night(dice: Dice, count: int, size: int) -> Tensor:
    right, down = _coordinates(size)
    places = dice.uniform(0.04, 0.96, 2, count, 9, 1, 1)
    away = torch.hypot(right - places[0], down - places[1]).amin(1, keepdim=True)
    return _mix((0.05, 0.06, 0.20), (0.98, 0.96, 0.80), (1.8 - away * size).clamp(0, 1))


def _checks(dice: Dice, count: int, size: int) -> Tensor:
    right, down = _coordinates(size)
    odd = ((right * 8).floor() + (down * 8).floor()) % 2
    return _mix((0.93, 0.93, 0.95), (0.62, 0.64, 0.70), _fill(count, size, odd))


def _stripes(dice: Dice, count: int, size: int) -> Tensor:
    right, _ = _coordinates(size)
    odd = ((right * 8).floor() % 2).expand(size, size)
    return _mix((0.98, 0.95, 0.88), (0.90, 0.66, 0.55), _fill(count, size, odd))


def _dots(dice: Dice, count: int, size: int) -> Tensor:
    right, down = _coordinates(size)
    away = torch.hypot((right * 4) % 1 - 0.5, (down * 4) % 1 - 0.5) / 4
    spots = ((0.068 - away) * size + 0.5).clamp(0, 1)
    return _mix((0.96, 0.94, 0.98), (0.62, 0.48, 0.82), _fill(count, size, spots))


_SCENERY: dict[str, Callable[[Dice, int, int], Tensor]] = {
    "grass": _grass,
    "sand": _sand,
    "snow": _snow,
    "sea": _sea,
    "sky": _sky,
    "night": _night,
    "checks": _checks,
    "stripes": _stripes,
    "dots": _dots,
}
