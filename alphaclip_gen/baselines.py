"""What people do without Alpha-CLIP: the picture itself is changed so that a tower sees a region.

Each is a function (image, alpha) -> image; all-one alpha returns the image itself. They are the
rows that every evaluation compares against. `focus(pipe, blur_outside)` puts one before a
pipeline's own tower, so that RGBA pictures go in as for the others.
"""

from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor
from torchvision.transforms.functional import to_pil_image

from .alpha import ROUNDING, Number, check_alpha, feather
from .framing import MARGIN, PADDING_GRAY, check_image, preprocess, region_windows
from .regions import alpha_from_rgba

Baseline = Callable[[Tensor, Tensor], Tensor]

RED = (1.0, 0.0, 0.0)


def crop_to_region(
    image: Float[Tensor, "batch 3 height width"],
    alpha: Float[Tensor, "batch 1 height width"],
    margin: Number = MARGIN,
) -> Float[Tensor, "batch 3 new_height new_width"]:
    """A square around each region, enlarged to the picture's longer side.

    Args:
        image: pixels in [0, 1].
        alpha: alpha map of the same size.
        margin: of the region's longer side, kept on each of its sides.
    """
    if attends_everywhere(image, alpha):
        return image
    return preprocess(image, alpha, max(image.shape[-2:]), "region", margin=margin)[0]


def blur_outside(
    image: Float[Tensor, "batch 3 height width"],
    alpha: Float[Tensor, "batch 1 height width"],
    radius: Number = 0.08,
) -> Float[Tensor, "batch 3 height width"]:
    """The picture with everything outside the region blurred.

    Args:
        image: pixels in [0, 1].
        alpha: alpha map of the same size.
        radius: of the blur, in fractions of the shorter side.
    """
    if attends_everywhere(image, alpha):
        return image
    pixels = max(1.0, radius * min(image.shape[-2:]))
    blurred = torch.cat([feather(image[:, c : c + 1], pixels) for c in range(3)], dim=1)
    return image * alpha + blurred * (1 - alpha)


def gray_outside(
    image: Float[Tensor, "batch 3 height width"],
    alpha: Float[Tensor, "batch 1 height width"],
    gray: Number = PADDING_GRAY,
) -> Float[Tensor, "batch 3 height width"]:
    """The picture with everything outside the region painted gray."""
    if attends_everywhere(image, alpha):
        return image
    return image * alpha + gray * (1 - alpha)


def red_circle(
    image: Float[Tensor, "batch 3 height width"],
    alpha: Float[Tensor, "batch 1 height width"],
    thickness: Number = 0.015,
) -> Float[Tensor, "batch 3 height width"]:
    """The picture with a red circle around each region (arXiv 2304.06712).

    The circle is that around the region's square window; it is not differentiable in alpha.

    Args:
        image: pixels in [0, 1].
        alpha: alpha map of the same size.
        thickness: of the line, in fractions of the shorter side; at least 1 pixel.
    """
    if attends_everywhere(image, alpha):
        return image
    width = max(1.0, thickness * min(image.shape[-2:]))
    rings = [_ring(window, width, image) for window in region_windows(alpha, margin=0)]
    ring = torch.stack(rings)[:, None]
    return image * (1 - ring) + image.new_tensor(RED).view(3, 1, 1) * ring


def _ring(window: tuple[int, int, int, int], width: float, image: Tensor) -> Tensor:
    """(height, width) coverage of a circle through the corners of the window, antialiased."""
    x0, y0, x1, y1 = window
    height, extent = image.shape[-2:]
    y = torch.arange(height, device=image.device)[:, None] + 0.5 - (y0 + y1) / 2
    x = torch.arange(extent, device=image.device) + 0.5 - (x0 + x1) / 2
    radius = ((x1 - x0) ** 2 + (y1 - y0) ** 2) ** 0.5 / 2
    distance = (torch.hypot(x, y) - radius - width / 2).abs()
    return (0.5 + width / 2 - distance).clamp(0, 1).to(image.dtype)


def attends_everywhere(image: Tensor, alpha: Tensor) -> bool:
    """Whether alpha is all one; both are checked to belong together."""
    check_alpha(alpha, check_image(image))
    return bool(alpha.min() >= 1 - ROUNDING)


BASELINES: dict[str, Baseline] = {
    "crop": crop_to_region,
    "blur": blur_outside,
    "gray": gray_outside,
    "red circle": red_circle,
}


def flatten(picture: object, baseline: Baseline) -> object:
    """The picture without its transparency, which became what the baseline does with a region.

    Args:
        picture: PIL picture, tensor (..., 4, height, width) in [0, 1], or lists of them; whatever
            has no transparency is returned as it is.
        baseline: one of the functions above, or any (image, alpha) -> image.
    """
    if isinstance(picture, list | tuple):
        return [flatten(one, baseline) for one in picture]
    if isinstance(picture, Image.Image) and picture.has_transparency_data:
        image, alpha = alpha_from_rgba(picture)
        changed = baseline(image, alpha)[0].clamp(0, 1)
        return to_pil_image((changed * 255).round().byte())
    if isinstance(picture, Tensor) and picture.ndim > 2 and picture.shape[-3] == 4:
        batch = picture.reshape(-1, *picture.shape[-3:]).clamp(0, 1)
        changed = baseline(batch[:, :3], batch[:, 3:])
        return changed.reshape(*picture.shape[:-3], *changed.shape[-3:])
    return picture


class BaselineImageProcessor:
    """A pipeline's own image processor behind a baseline; everything else is the processor's."""

    def __init__(self, processor: Any, baseline: Baseline):
        self.processor = processor
        self.baseline = baseline

    def __call__(self, images: object, *args: object, **kwargs: object) -> object:
        """What the processor makes of the pictures after the baseline."""
        return self.processor(flatten(images, self.baseline), *args, **kwargs)

    def preprocess(self, images: object, *args: object, **kwargs: object) -> object:
        """The same under the name that some pipelines call."""
        return self(images, *args, **kwargs)

    def __getattr__(self, name: str) -> object:
        if name in ("processor", "baseline"):  # not yet set, while being copied
            raise AttributeError(name)
        return getattr(self.processor, name)
