"""The doors between ComfyUI's IMAGE and MASK and the library's image and alpha map.

What a user should know of a mask is logged as a warning, which the node then shows.
"""

import logging
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

from ..alpha import ROUNDING, invert, with_strength
from ..framing import resize

logger = logging.getLogger(__name__)

FAINTEST = 2 / 255
"""A mask that nowhere exceeds this selects nothing: some files are opaque but for a rounding."""

NO_REGION = (
    "focus_mask is black: no region is given (LoadImage's MASK of a picture without transparency), "
    "so all of the picture counts."
)
CUT_OUT = (
    "focus_mask selects the picture's border and not its middle. LoadImage's MASK is 1 - alpha: of "
    "a cut-out subject it selects the background. Switch invert on if the subject is meant."
)
ALL_INVERTED = (
    "focus_mask is white all over and invert is on, which leaves nothing to look at; expected some "
    "black in the mask. Switch invert off, or use another mask."
)
OTHER_VIEW = (
    "focus_mask is {mask} and the picture {image} (height x width): another shape, so the mask is "
    "stretched. Use a mask of the picture itself."
)


class Reference(NamedTuple):
    """Pictures and what of them is meant, of one size; None is all of them."""

    pictures: Float[Tensor, "images 3 height width"]
    alpha: Float[Tensor, "alphas 1 height width"] | None


def reference(
    image: Tensor, mask: Tensor, strength: float = 1.0, inverted: bool = False
) -> Reference:
    """The pictures of an IMAGE and the regions of a MASK: one for all of them, or one for each.

    One picture may have several regions. See `picture` and `region`.
    """
    pictures = picture(image)
    alpha = region(mask, strength, inverted)
    if alpha is None:
        return Reference(pictures, None)
    if len(pictures) > 1:
        check_count(alpha, len(pictures))
    return Reference(pictures, fitted(alpha, size_of(image)).to(pictures))


def picture(image: Tensor) -> Float[Tensor, "batch 3 height width"]:
    """The library's image of an IMAGE (batch, height, width, 3 or 4); a fourth channel is dropped.

    The result shares no memory with the IMAGE.
    """
    size_of(image)
    if not torch.isfinite(image).all():
        raise ValueError(
            "image has NaN or infinite values; expected numbers in [0, 1]. A VAE in half precision "
            "makes them: start ComfyUI with --fp32-vae."
        )
    return image[..., :3].movedim(-1, 1).float().clamp(0, 1).contiguous()


def size_of(image: Tensor) -> tuple[int, int]:
    """Height and width of an IMAGE."""
    if image.ndim != 4 or image.shape[-1] not in (3, 4) or image.numel() == 0:
        raise ValueError(
            f"image has shape {tuple(image.shape)}; expected an IMAGE: (batch, height, width, 3), "
            f"with one picture or more. Wire the output of Load Image, or of a node like it."
        )
    return image.shape[1], image.shape[2]


def as_comfy_image(pictures: Float[Tensor, "batch 3 height width"]) -> Tensor:
    """The IMAGE of the library's image."""
    return pictures.detach().movedim(1, -1).float().clamp(0, 1).cpu().contiguous()


def as_comfy_mask(alpha: Float[Tensor, "batch 1 height width"]) -> Tensor:
    """The MASK of an alpha map."""
    return alpha.detach()[:, 0].float().clamp(0, 1).cpu().contiguous()


def region(
    mask: Tensor, strength: float = 1.0, inverted: bool = False
) -> Float[Tensor, "batch 1 height width"] | None:
    """The alpha map of a MASK; None where all of the picture counts.

    Args:
        mask: (height, width) or (batch, height, width), 1 = selected; a black one means that no
            region is given.
        strength: 1 keeps the region, 0 attends everywhere.
        inverted: what the mask does not select is meant.

    Raises:
        ValueError: the mask is inverted and selects everything, or is no MASK.
    """
    alpha = layers(mask)
    empty = selects_nothing(alpha)
    if empty.any():
        logger.warning(NO_REGION)
    if empty.all():
        return None
    if inverted:
        alpha = invert(alpha)
        if (selects_nothing(alpha) & ~empty).any():
            raise ValueError(ALL_INVERTED)
    elif is_cut_out(alpha):
        logger.warning(CUT_OUT)
    alpha = with_strength(torch.where(empty[:, None, None, None], 1.0, alpha), strength)
    return None if alpha.min() >= 1 - ROUNDING else alpha


def selects_nothing(alpha: Float[Tensor, "batch 1 height width"]) -> Bool[Tensor, " batch"]:
    """Which masks are black, or nearly so."""
    return alpha.amax((1, 2, 3)) <= FAINTEST


def layers(mask: Tensor, name: str = "focus_mask") -> Float[Tensor, "batch 1 height width"]:
    """The masks of a MASK as they are, black ones too."""
    if mask.ndim not in (2, 3) or mask.numel() == 0:
        raise ValueError(
            f"{name} has shape {tuple(mask.shape)}; expected a MASK: (height, width) or (batch, "
            f"height, width), with one mask or more. Mask Editor, or Convert Image to Mask, makes "
            f"one."
        )
    if not torch.isfinite(mask).all():
        raise ValueError(
            f"{name} has NaN or infinite values; expected numbers in [0, 1], 1 = selected. Mend "
            f"it where it is made, or use another mask."
        )
    values = mask.detach().float().clamp(0, 1)
    return (values if mask.ndim == 3 else values[None])[:, None]


def candidates(mask: Tensor, size: tuple[int, int]) -> Float[Tensor, "regions 1 height width"]:
    """The regions of a MASK to choose from, at the picture's size; black ones are left out."""
    alphas = layers(mask, "candidates")
    alphas = alphas[~selects_nothing(alphas)]
    if len(alphas) == 0:
        raise ValueError(
            "candidates is black; expected one mask or more that selects something, such as the "
            "masks of a segmenter. Without candidates, windows of many sizes are searched."
        )
    return fitted(alphas, size)


def is_cut_out(alpha: Float[Tensor, "batch 1 height width"]) -> bool:
    """Whether some region is most of the picture's border and nothing of its middle."""
    small = F.adaptive_avg_pool2d(alpha, 9)[:, 0]
    border = torch.cat([small[:, 0], small[:, -1], small[:, 1:-1, 0], small[:, 1:-1, -1]], dim=1)
    middle = small[:, 3:6, 3:6].flatten(1)
    return bool(((border.mean(1) > 0.7) & (middle.amax(1) < 0.1)).any())


def fitted(
    alpha: Float[Tensor, "batch 1 height width"], size: tuple[int, int]
) -> Float[Tensor, "batch 1 new_height new_width"]:
    """The alpha map at the (height, width) of its picture."""
    height, width = alpha.shape[-2:]
    if abs(height * size[1] / (width * size[0]) - 1) > 0.03:
        shown = OTHER_VIEW.format(mask=f"{height} x {width}", image=f"{size[0]} x {size[1]}")
        logger.warning(shown)
    return resize(alpha, size)


def check_count(alpha: Tensor, pictures: int) -> None:
    """Nothing; raises unless there is one region for all pictures, or one for each."""
    if len(alpha) not in (1, pictures):
        raise ValueError(
            f"focus_mask holds {len(alpha)} regions and there are {pictures} pictures; expected "
            f"one region for all of them, or one for each. An encoding in parts (encode_batch_size)"
            f" works with one region only."
        )
