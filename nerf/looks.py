"""What a tower gets to see of a rendering: several looks at each view, augmented, over backgrounds.

PureCLIPNeRF (arXiv 2209.15172) needs 64 looks a step; with the opacity as the alpha map one a view
is enough.
"""

from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from alphaclip_gen.augmentation import augment, composite, cut_out, jitter
from alphaclip_gen.backgrounds import BackgroundStyle, random_backgrounds

AlphaMode = Literal["opacity", "hard", "ones"]


@dataclass(frozen=True)
class AugmentSettings:
    """What happens to pictures between renderer and tower."""

    copies: int = 1
    """Looks at each view, each augmented by itself: views times copies pictures a step."""
    strength: float = 1.0
    """Of shift, zoom, rotation and perspective together; 0 switches them off."""
    shift: float = 0.1
    zoom: float = 0.12
    rotation: float = 6.0
    perspective: float = 0.05
    cutout: float = 0.0
    """Side of a rectangle that is cut from color and opacity, as a share of the picture's."""
    brightness: float = 0.0
    """Largest that is added to the finished picture."""
    saturation: float = 0.0
    """Largest relative change."""
    contrast: float = 0.0
    """Largest relative change."""
    background: BackgroundStyle = "flat"


def looks(
    color: Float[Tensor, "views 3 height width"],
    opacity: Float[Tensor, "views layers height width"],
    settings: AugmentSettings,
    generator: torch.Generator,
) -> tuple[Float[Tensor, "looks 3 height width"], Float[Tensor, "looks 1 height width"]]:
    """Pictures and opacities, `copies` of each view in turn; differentiable in both.

    `color` is premultiplied by `opacity`. A second layer of `opacity` is the share of it that the
    picture is about, and comes back instead. Backgrounds keep away from the object's mean color.
    """
    with torch.no_grad():
        whole = opacity[:, :1].sum()
        mean = (color.sum(dim=(0, 2, 3)) / whole.clamp(min=1e-6)).cpu()
    if settings.copies > 1:
        color = color.repeat_interleave(settings.copies, dim=0)
        opacity = opacity.repeat_interleave(settings.copies, dim=0)
    seen, alpha = augment(
        color, opacity, generator, settings.strength, settings.shift, settings.zoom,
        settings.rotation, settings.perspective,
    )  # fmt: skip
    seen, alpha = cut_out(seen, alpha, generator, settings.cutout)
    size = color.shape[2], color.shape[3]
    background = random_backgrounds(len(color), size, generator, settings.background, mean)
    image = composite(seen, alpha[:, :1], background.to(color))
    image = jitter(image, generator, settings.brightness, settings.saturation, settings.contrast)
    return image, alpha[:, -1:]
