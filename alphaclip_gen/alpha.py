"""The alpha map: the one value that says where a picture is attended to.

An alpha map is `Float[Tensor, "batch 1 height width"]` with values in [0, 1], 1 = attend, of the
same height, width and device as its image. In-between values are graded attention. To attend
everywhere, pass `alpha=None` (or an alpha map of ones). `regions` holds the doors into it.
"""

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor
from torchvision.transforms.functional import gaussian_blur

Number = int | float

ROUNDING = 1e-3  # what half-precision arithmetic may leave outside [0, 1]
ATTEND_EVERYWHERE = "To attend everywhere, pass alpha=None or an alpha map of ones."


# The contract


def check_values(values: Tensor, name: str) -> None:
    """Nothing; raises unless `values` are floats, finite and in [0, 1] (up to rounding)."""
    if not values.is_floating_point():
        raise TypeError(
            f"{name} has dtype {values.dtype}; expected floats in [0, 1]. "
            f"as_alpha_map() and as_image() convert integers."
        )
    if values.numel() == 0:
        raise ValueError(f"{name} has shape {tuple(values.shape)}; expected at least one pixel.")
    low, high = (bound.item() for bound in values.detach().aminmax())
    if not (math.isfinite(low) and math.isfinite(high)):
        raise ValueError(
            f"{name} has NaN or infinite values; expected numbers in [0, 1]. "
            f"torch.nan_to_num() or an earlier check removes them."
        )
    if low < -ROUNDING or high > 1 + ROUNDING:
        raise ValueError(
            f"{name} has values from {low:.4g} to {high:.4g}; expected [0, 1]. "
            f"Divide 0..255 by 255, shift -1..1 by (x + 1) / 2, or clamp."
        )


def check_alpha(
    alpha: object, image: Tensor | None = None
) -> Float[Tensor, "batch 1 height width"]:
    """The alpha map itself, unchanged, when it keeps the contract.

    Args:
        alpha: what should be an alpha map.
        image: (batch, 3, height, width) picture that it belongs to; alpha has its batch or 1.
    """
    if not isinstance(alpha, Tensor):
        raise TypeError(
            f"alpha is a {type(alpha).__name__}; expected a tensor. as_alpha_map() converts a mask."
        )
    if alpha.ndim != 4 or alpha.shape[1] != 1:
        raise ValueError(
            f"alpha has shape {tuple(alpha.shape)}; expected (batch, 1, height, "
            f"width). as_alpha_map() converts a mask."
        )
    check_values(alpha, "alpha")
    if image is None:
        return alpha
    if alpha.shape[-2:] != image.shape[-2:]:
        raise ValueError(
            f"alpha is {shown_extent(alpha.shape)} but its image is "
            f"{shown_extent(image.shape)}; expected the same size. "
            f"framing.resize(alpha, size) helps if both show the same view."
        )
    if len(alpha) not in (1, len(image)):
        raise ValueError(
            f"alpha has batch {len(alpha)} but its image has batch {len(image)}; expected the same "
            f"batch, or alpha of batch 1. image.expand({len(alpha)}, -1, -1, -1) repeats one image."
        )
    if alpha.device != image.device:
        raise ValueError(
            f"alpha is on {alpha.device} but its image is on {image.device}; "
            f"alpha.to(image.device) moves it."
        )
    return alpha


def check_size(size: tuple[int, int], name: str = "size") -> tuple[int, int]:
    """(height, width), checked to be two positive whole numbers."""
    if len(size) != 2 or any(int(side) != side or side < 1 for side in size):
        raise ValueError(f"{name} is {tuple(size)}; expected (height, width), both at least 1.")
    return int(size[0]), int(size[1])


def check_region(alpha: Tensor, name: str) -> Tensor:
    """The alpha map itself, unchanged, when no region of its batch is empty."""
    empty = empty_regions(alpha)
    if empty.any():
        which = f" (number {empty.nonzero().flatten().tolist()} of the batch)" * (len(alpha) > 1)
        raise ValueError(
            f"{name} is empty{which}: all zeros leave nothing to attend to; expected "
            f"at least one value above 0. {ATTEND_EVERYWHERE}"
        )
    return alpha


def empty_regions(alpha: Tensor) -> Tensor:
    """Which alpha maps of the batch are all zeros."""
    return alpha.detach().flatten(1).amax(1) <= 0


def shown_extent(shape: Sequence[int]) -> str:
    """A size as errors say it."""
    return f"{shape[-2]} high and {shape[-1]} wide"


# Operations: alpha maps in, an alpha map of the same size out


def union(
    alphas: Sequence[Tensor] | Tensor, weights: Sequence[Number] | None = None
) -> Float[Tensor, "batch 1 height width"]:
    """The regions together; where several overlap, the largest weight x alpha counts.

    Args:
        alphas: alpha maps of one size, or one alpha map whose batch is merged.
        weights: how much each region counts, in [0, 1]; all 1 by default.
    """
    alphas = alphas.split(1) if isinstance(alphas, Tensor) else list(alphas)
    weights = [1.0] * len(alphas) if weights is None else list(weights)
    if not alphas or len(weights) != len(alphas):
        raise ValueError(
            f"got {len(alphas)} alphas and {len(weights)} weights; expected at least one alpha and "
            f"one weight for each."
        )
    if not (all(0 <= weight <= 1 for weight in weights) and any(weights)):
        raise ValueError(f"weights are {weights}; expected numbers in [0, 1], not all 0.")
    shapes = [tuple(check_alpha(alpha).shape) for alpha in alphas]
    if len({shape[1:] for shape in shapes}) > 1 or len({shape[0] for shape in shapes} - {1}) > 1:
        raise ValueError(f"alphas have shapes {shapes}; expected one size and equal batches (or 1)")
    weighted = [alpha * weight for alpha, weight in zip(alphas, weights, strict=True)]
    return torch.stack(torch.broadcast_tensors(*weighted)).amax(0)


def feather(
    alpha: Float[Tensor, "batch 1 height width"], radius: Number
) -> Float[Tensor, "batch 1 height width"]:
    """The alpha map with edges blurred over `radius` pixels to each side (Gaussian)."""
    check_alpha(alpha)
    if not 0 <= radius < math.inf:
        raise ValueError(f"radius is {radius}; expected 0 or more pixels.")
    if radius == 0:
        return alpha
    reach = math.ceil(radius)
    blurred = F.pad(alpha, [reach] * 4, mode="replicate")
    for kernel in ([1, 2 * reach + 1], [2 * reach + 1, 1]):
        blurred = gaussian_blur(blurred, kernel, radius / 2)
    return blurred[..., reach:-reach, reach:-reach].clamp(0, 1)


def invert(
    alpha: Float[Tensor, "batch 1 height width"],
) -> Float[Tensor, "batch 1 height width"]:
    """1 - alpha: what was ignored is attended to."""
    return 1 - check_alpha(alpha)


def grow(
    alpha: Float[Tensor, "batch 1 height width"], pixels: int
) -> Float[Tensor, "batch 1 height width"]:
    """The alpha map with regions wider by `pixels` to every side, or narrower if negative.

    Graded values are kept (a maximum, or minimum, over squares). The picture's border does not
    narrow a region.
    """
    check_alpha(alpha)
    if pixels < 0:
        return check_region(-_dilate(-alpha, -pixels), f"alpha narrowed by {-pixels} pixels")
    return _dilate(alpha, pixels)


def _dilate(alpha: Tensor, pixels: int) -> Tensor:
    side = 2 * pixels + 1
    rows = F.max_pool2d(alpha, (side, 1), stride=1, padding=(pixels, 0))
    return F.max_pool2d(rows, (1, side), stride=1, padding=(0, pixels))


def with_strength(
    alpha: Float[Tensor, "batch 1 height width"], strength: Number
) -> Float[Tensor, "batch 1 height width"]:
    """The alpha map blended with attention everywhere: strength 1 keeps it, 0 gives ones."""
    if not 0 <= strength <= 1:
        raise ValueError(f"strength is {strength}; expected 0 (attend everywhere) to 1 (as is).")
    return 1 - strength * (1 - check_alpha(alpha))
