"""The same drawing in other looks: recolored, lit as if it bulged, outlined, with a soft shadow.

Styles of drawing differ in just this, so a model that has seen one drawing in many looks names
drawings of styles that it has not seen. All take and give premultiplied RGBA in [0, 1].
"""

import math

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from .dice import Dice

_LUMA = (0.299, 0.587, 0.114)


def recolor(
    dice: Dice, layers: Float[Tensor, "count 4 height width"], strength: float = 1.0
) -> Float[Tensor, "count 4 height width"]:
    """Each with its own small turn of hue, saturation, contrast, brightness and tint; some gray."""
    matrix, offset = color_change(dice, len(layers), strength)
    color, alpha = layers[:, :3], layers[:, 3:]
    changed = (matrix @ color.flatten(2)).view_as(color) + offset[..., None, None] * alpha
    return torch.cat([torch.minimum(changed.clamp(min=0), alpha), alpha], dim=1)


def color_change(
    dice: Dice, count: int, strength: float = 1.0
) -> tuple[Float[Tensor, "count 3 3"], Float[Tensor, "count 3"]]:
    """Random linear changes of sRGB: matrices and offsets.

    Hue turns about the gray axis (Rodrigues' formula), saturation moves colors from or to their
    luma, contrast from or to mid-gray.
    """

    def spread(width: float) -> Tensor:
        return dice.uniform(-width * strength, width * strength, count, 1, 1)

    angle = math.pi / 12 * strength * dice.normal(count, 1, 1).clamp(-2, 2)
    axis = torch.full((3,), 3**-0.5)
    cross = torch.linalg.cross(torch.eye(3), axis.expand(3, 3)).T
    along = torch.outer(axis, axis)
    hue = angle.cos() * torch.eye(3) + angle.sin() * cross + (1 - angle.cos()) * along
    gray = dice.chance(0.08 * min(strength, 1), count, 1, 1)
    saturation = torch.where(gray, 0.0, 1 + spread(0.6))
    luma = torch.tensor(_LUMA).expand(3, 3)
    saturate = torch.lerp(luma, torch.eye(3), saturation)
    contrast, brightness = 1 + spread(0.35), spread(0.15)
    tint = torch.diag_embed(1 + dice.uniform(-0.12 * strength, 0.12 * strength, count, 3))
    matrix = contrast * tint @ saturate @ hue
    offset = (1 - contrast) * 0.5 + brightness
    return matrix, offset[..., 0].expand(-1, 3)


def relief(
    dice: Dice, layers: Float[Tensor, "count 4 height width"], share: float = 0.4
) -> Float[Tensor, "count 4 height width"]:
    """That share of them lit from one side as if they bulged, with a highlight."""
    color, alpha = layers[:, :3], layers[:, 3:]
    scale = alpha.shape[-1] / 64
    height = _blur(alpha, 3 * scale)
    across = F.pad(height[..., 2:] - height[..., :-2], (1, 1))
    along = F.pad(height[..., 2:, :] - height[..., :-2, :], (0, 0, 1, 1))
    angle = dice.uniform(0, 2 * math.pi, len(layers), 1, 1, 1)
    toward = -4 * scale * (angle.cos() * across + angle.sin() * along)
    amount = dice.chance(share, len(layers), 1, 1, 1) * dice.uniform(0.2, 0.9, len(layers), 1, 1, 1)
    shine = dice.uniform(0, 0.5, len(layers), 1, 1, 1) * toward.clamp(0, 1) ** 2
    lit = color * (1 + amount * toward.clamp(-0.7, 0.7)) + amount * shine * alpha
    return torch.cat([torch.minimum(lit.clamp(min=0), alpha), alpha], dim=1)


def outline(
    dice: Dice, layers: Float[Tensor, "count 4 height width"], share: float = 0.12
) -> Float[Tensor, "count 4 height width"]:
    """That share of them with a rim around, a pixel or two wide, white, black or colored."""
    rows = dice.chance(share, len(layers)).nonzero()[:, 0]
    if not len(rows):
        return layers
    alpha = layers[rows, 3:]
    thin, thick = (F.max_pool2d(alpha, width, 1, width // 2) for width in (3, 5))
    rim = torch.where(dice.chance(0.5, len(rows), 1, 1, 1), thick, thin) * (1 - alpha)
    color = dice.uniform(0, 1, len(rows), 3, 1, 1)
    color = torch.where(dice.chance(0.35, len(rows), 1, 1, 1), 1.0, color)
    color = torch.where(dice.chance(0.35, len(rows), 1, 1, 1), 0.0, color)
    rimmed = layers.clone()
    rimmed[rows] = (rimmed[rows] + torch.cat([color * rim, rim], dim=1)).clamp(max=1)
    return rimmed


def shadows(
    dice: Dice, alpha: Float[Tensor, "count 1 height width"], share: float = 0.3
) -> Float[Tensor, "count 1 height width"]:
    """How much darker it is behind that share of them: blurred copies, moved a few pixels.

    All are moved the same way, for speed.
    """
    reach = max(1, alpha.shape[-1] // 16)
    right, down = dice.integers(-reach, reach + 1, 2).tolist()
    moved = F.pad(alpha, (reach + right, reach - right, reach + down, reach - down))
    moved = moved[..., reach:-reach, reach:-reach]
    soft = _blur(moved, alpha.shape[-1] / 32)
    count = len(alpha)
    strength = dice.chance(share, count, 1, 1, 1) * dice.uniform(0.2, 0.7, count, 1, 1, 1)
    return soft * strength


def _blur(image: Tensor, sigma: float) -> Tensor:
    """Gaussian blur, zero outside; by two matrix products, the fastest way for small pictures."""
    place = torch.arange(image.shape[-1], dtype=image.dtype)
    weights = torch.exp(-(((place[:, None] - place) / sigma) ** 2) / 2)
    weights = weights / (sigma * math.sqrt(2 * math.pi))
    return weights @ image @ weights
