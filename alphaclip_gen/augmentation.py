"""What happens to pictures between a renderer and a tower, to color and opacity together.

`color` is premultiplied by `opacity` everywhere in this module: what a volume renderer makes, or
`picture * mask`. Premultiplied pictures can be warped, blurred and resized without dark rims.
"""

import math

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor


def composite(
    color: Float[Tensor, "batch 3 height width"],
    opacity: Float[Tensor, "batch 1 height width"],
    background: Float[Tensor, "#batch 3 #height #width"],
) -> Float[Tensor, "batch 3 height width"]:
    """The picture in front of a background; `color` is premultiplied by `opacity`."""
    return color + (1 - opacity) * background


def harden(
    opacity: Float[Tensor, "batch 1 height width"], threshold: float = 0.5
) -> Float[Tensor, "batch 1 height width"]:
    """1 where the opacity is at least the threshold, else 0; the gradient passes unchanged.

    A straight-through estimator (Bengio et al., arXiv 1308.3432), for towers that were trained on
    alpha maps of 0 and 1 only.
    """
    hard = (opacity >= threshold).to(opacity.dtype)
    return opacity + (hard - opacity).detach()


def augment(
    color: Float[Tensor, "batch 3 height width"],
    opacity: Float[Tensor, "batch layers height width"],
    generator: torch.Generator | None = None,
    strength: float = 1.0,
    shift: float = 0.1,
    zoom: float = 0.15,
    rotation: float = 8.0,
    perspective: float = 0.1,
) -> tuple[Float[Tensor, "batch 3 height width"], Float[Tensor, "batch layers height width"]]:
    """Color and opacity under one random homography each, zero outside; differentiable in both.

    Args:
        color: premultiplied by opacity.
        opacity: in [0, 1]; further layers, as of parts, go along.
        generator: of the random numbers.
        strength: multiplies the four ranges below; 0 leaves the pictures as they are.
        shift: largest shift, as a fraction of the picture's half side.
        zoom: largest change of size, 0.15 for a factor of exp(-0.15) to exp(0.15).
        rotation: largest turn in degrees.
        perspective: largest tilt; 0.1 makes one border 10 % nearer, the opposite one farther.
    """
    if strength == 0:
        return color, opacity
    height, width = color.shape[-2:]
    homography = random_homographies(
        len(color), generator, strength * shift, strength * zoom, strength * rotation,
        strength * perspective, aspect=width / height,
    )  # fmt: skip
    warped = warp(torch.cat([color, opacity], dim=1), homography.to(color))
    return warped[:, :3], warped[:, 3:]


def cut_out(
    color: Float[Tensor, "batch 3 height width"],
    opacity: Float[Tensor, "batch layers height width"],
    generator: torch.Generator | None = None,
    side: float = 0.5,
) -> tuple[Float[Tensor, "batch 3 height width"], Float[Tensor, "batch layers height width"]]:
    """Color and opacity without one random rectangle each: there the background shows.

    The rectangle has `side` of the picture's height and width; its center is anywhere in the
    picture. The cutout of DiffAugment (arXiv 2006.10738), which hides part of a picture, for
    objects: what is cut from the color is cut from the opacity too.
    """
    if side == 0:
        return color, opacity
    device = generator.device if generator else None
    center = torch.rand(len(color), 2, generator=generator, device=device).to(opacity)
    height, width = color.shape[-2:]
    y = (torch.arange(height, device=color.device) + 0.5) / height
    x = (torch.arange(width, device=color.device) + 0.5) / width
    rows = (y - center[:, :1]).abs() < side / 2
    columns = (x - center[:, 1:]).abs() < side / 2
    kept = ~(rows[:, None, :, None] & columns[:, None, None, :])
    return color * kept, opacity * kept


def jitter(
    image: Float[Tensor, "batch 3 height width"],
    generator: torch.Generator | None = None,
    brightness: float = 0.5,
    saturation: float = 1.0,
    contrast: float = 0.5,
) -> Float[Tensor, "batch 3 height width"]:
    """The pictures, background and all, under random color changes, in [0, 1].

    DiffAugment (arXiv 2006.10738), which has these ranges: brightness adds up to plus or minus
    0.5; saturation multiplies the distance from the pixel's gray by 1 plus or minus 1; contrast
    that from the picture's mean by 1 plus or minus 0.5. The gradient passes the limits of [0, 1]
    unchanged, so that saturated pixels still learn.
    """
    if brightness == saturation == contrast == 0:
        return image
    device = generator.device if generator else None
    random = 2 * torch.rand(3, len(image), 1, 1, 1, generator=generator, device=device) - 1
    added, saturated, contrasted = random.to(image)
    changed = image + brightness * added
    gray = changed.mean(dim=1, keepdim=True)
    changed = gray + (1 + saturation * saturated) * (changed - gray)
    mean = changed.mean(dim=(1, 2, 3), keepdim=True)
    changed = mean + (1 + contrast * contrasted) * (changed - mean)
    return changed + (changed.clamp(0, 1) - changed).detach()


def random_homographies(
    count: int,
    generator: torch.Generator | None,
    shift: float,
    zoom: float,
    rotation: float,
    perspective: float,
    aspect: float = 1.0,
) -> Float[Tensor, "count 3 3"]:
    """Random maps from output to input positions in [-1, 1]^2 (x right, y down); see `augment`."""
    device = generator.device if generator else None
    random = torch.rand(count, 6, generator=generator, device=device) * 2 - 1
    turn, size = random[:, 0] * math.radians(rotation), (random[:, 1] * zoom).exp()
    matrix = torch.eye(3, device=device).repeat(count, 1, 1)
    matrix[:, 0, 0] = matrix[:, 1, 1] = size * turn.cos()
    matrix[:, 0, 1] = -size * turn.sin() / aspect
    matrix[:, 1, 0] = size * turn.sin() * aspect
    matrix[:, :2, 2] = random[:, 2:4] * shift
    matrix[:, 2, :2] = random[:, 4:6] * perspective
    return matrix


def warp(
    picture: Float[Tensor, "batch channels height width"],
    homography: Float[Tensor, "batch 3 3"],
) -> Float[Tensor, "batch channels height width"]:
    """The picture seen through output-to-input homographies; bilinear, zero outside."""
    height, width = picture.shape[-2:]
    x = (torch.arange(width, device=picture.device, dtype=picture.dtype) + 0.5) * 2 / width - 1
    y = (torch.arange(height, device=picture.device, dtype=picture.dtype) + 0.5) * 2 / height - 1
    grid = torch.stack([x.expand(height, -1), y[:, None].expand(-1, width)], dim=-1)
    homogeneous = F.pad(grid, (0, 1), value=1.0).reshape(1, -1, 3) @ homography.mT
    positions = homogeneous[..., :2] / homogeneous[..., 2:].clamp(min=1e-3)
    positions = positions.view(-1, height, width, 2)
    return F.grid_sample(picture, positions, mode="bilinear", align_corners=False)
