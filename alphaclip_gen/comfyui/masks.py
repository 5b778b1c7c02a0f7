"""The doors between ComfyUI's IMAGE and MASK and the library's image and alpha map."""

import logging
from collections.abc import Callable

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from ..alpha import ROUNDING, check_region, empty_regions, invert, with_strength
from ..framing import resize
from ..regions import alpha_from_comfy_mask

logger = logging.getLogger(__name__)

Tell = Callable[[str], None]

NO_REGION = (
    "focus_mask is all zeros: no region is given (LoadImage's MASK of a picture without "
    "transparency), so all of the picture counts."
)
CUT_OUT = (
    "focus_mask selects the picture's border and not its middle. LoadImage's MASK is 1 - alpha: of "
    "a cut-out subject it selects the background. Switch invert on if the subject is meant."
)
OTHER_VIEW = (
    "focus_mask is {mask} and the picture {image} (height x width): another shape, so the mask is "
    "stretched. Use a mask of the picture itself."
)


def picture(image: Tensor) -> Float[Tensor, "batch 3 height width"]:
    """The library's image of an IMAGE (batch, height, width, 3 or 4); a fourth channel is dropped.

    The result shares no memory with the IMAGE.
    """
    if image.ndim != 4 or image.shape[-1] not in (3, 4):
        raise ValueError(
            f"image has shape {tuple(image.shape)}; expected an IMAGE: (batch, height, width, 3)."
        )
    return image[..., :3].movedim(-1, 1).float().clamp(0, 1).contiguous()


def as_comfy_image(pictures: Float[Tensor, "batch 3 height width"]) -> Tensor:
    """The IMAGE of the library's image."""
    return pictures.detach().movedim(1, -1).float().clamp(0, 1).cpu().contiguous()


def as_comfy_mask(alpha: Float[Tensor, "batch 1 height width"]) -> Tensor:
    """The MASK of an alpha map."""
    return alpha.detach()[:, 0].float().clamp(0, 1).cpu().contiguous()


def region(
    mask: Tensor, strength: float = 1.0, inverted: bool = False, tell: Tell = logger.warning
) -> Float[Tensor, "batch 1 height width"] | None:
    """The alpha map of a MASK; None where all of the picture counts.

    Args:
        mask: (height, width) or (batch, height, width), 1 = selected; an all-zero MASK means that
            no region is given.
        strength: 1 keeps the region, 0 attends everywhere.
        inverted: what the mask does not select is meant.
        tell: takes what the user should know of the mask.

    Raises:
        ValueError: the mask is inverted and selects everything, or is no MASK.
    """
    empty = empty_regions(mask.reshape(-1, *mask.shape[-2:])[:, None])
    if empty.any():
        tell(NO_REGION)
    if empty.all():
        return None
    alpha = alpha_from_comfy_mask(mask.detach().float().clamp(0, 1))
    if inverted:
        empty = empty.to(alpha.device)[:, None, None, None]
        alpha = torch.where(empty, alpha, invert(alpha))
        check_region(alpha, "focus_mask, inverted,")
    elif is_cut_out(alpha):
        tell(CUT_OUT)
    alpha = with_strength(alpha, strength)
    return None if alpha.min() >= 1 - ROUNDING else alpha


def is_cut_out(alpha: Float[Tensor, "batch 1 height width"]) -> bool:
    """Whether some region is most of the picture's border and nothing of its middle."""
    small = F.adaptive_avg_pool2d(alpha, 9)[:, 0]
    border = torch.cat([small[:, 0], small[:, -1], small[:, 1:-1, 0], small[:, 1:-1, -1]], dim=1)
    middle = small[:, 3:6, 3:6].flatten(1)
    return bool(((border.mean(1) > 0.7) & (middle.amax(1) < 0.1)).any())


def fitted(
    alpha: Float[Tensor, "batch 1 height width"],
    size: tuple[int, int],
    tell: Tell = logger.warning,
) -> Float[Tensor, "batch 1 new_height new_width"]:
    """The alpha map at the (height, width) of its picture."""
    height, width = alpha.shape[-2:]
    if abs(height * size[1] / (width * size[0]) - 1) > 0.03:
        tell(OTHER_VIEW.format(mask=f"{height} x {width}", image=f"{size[0]} x {size[1]}"))
    return resize(alpha, size)


def check_count(alpha: Tensor, pictures: int) -> None:
    """Nothing; raises unless there is one region for all pictures, or one for each."""
    if len(alpha) not in (1, pictures):
        raise ValueError(
            f"focus_mask holds {len(alpha)} regions and there are {pictures} pictures; expected "
            f"one region for all of them, or one for each. An encoding in parts (encode_batch_size)"
            f" works with one region only."
        )
