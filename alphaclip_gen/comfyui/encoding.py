"""A region encoded: CLIP_VISION_OUTPUT for core nodes, EMBEDS for IPAdapter, and what was seen."""

from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from ..baselines import blur_outside
from ..framing import as_image, preprocess
from ..show import lit_region
from . import host
from .focus import PICTURE_METHODS, chosen, focus_vision, unfocused
from .masks import as_comfy_image
from .vision import output_of
from .widgets import GEOMETRIES, IMAGE_EMBEDS, TOKENS


class Encoded(NamedTuple):
    """Of every region: the output, EMBEDS for and against it, and the picture that was seen."""

    output: Any
    positive: Tensor
    negative: Tensor
    preview: Tensor


def encode_region(
    vision: Any,
    pictures: Float[Tensor, "images 3 height width"],
    alpha: Float[Tensor, "alphas 1 height width"] | None,
    geometry: str = "center",
    method: str = "auto",
    embeds: str = IMAGE_EMBEDS,
) -> Encoded:
    """The regions of pictures, encoded by a CLIP_VISION.

    Args:
        vision: of ours or of the core; a region that it carries already is put aside.
        pictures: in [0, 1].
        alpha: one region for all pictures, one for each, or several of one picture; None is the
            whole picture.
        geometry: one of GEOMETRIES: how a picture becomes a square.
        method: see `focus_vision`.
        embeds: which features the EMBEDS are: IMAGE_EMBEDS, or TOKENS for "plus" adapters.
    """
    plain = unfocused(vision)
    method = chosen(plain, method)
    seen, region = framed(pictures, alpha, plain.image_size, GEOMETRIES[geometry], method)
    host.load(plain.patcher)
    device = plain.load_device
    looked_at = None if method in PICTURE_METHODS else region
    focused = focus_vision(plain, None if looked_at is None else looked_at.to(device), method)
    output = output_of(focused, normalized(plain, seen).to(device))
    positive = output[_EMBEDS[embeds]]
    negative = torch.zeros_like(positive)
    if embeds == TOKENS:  # as IPAdapter makes it: of a black picture, seen whole
        black = normalized(plain, torch.zeros_like(seen[:1])).to(device)
        negative = output_of(plain, black)[_EMBEDS[embeds]].expand_as(positive).clone()
    return Encoded(output, positive, negative, preview(seen, region))


_EMBEDS = {IMAGE_EMBEDS: "image_embeds", TOKENS: "penultimate_hidden_states"}


def framed(
    pictures: Float[Tensor, "images 3 height width"],
    alpha: Float[Tensor, "alphas 1 height width"] | None,
    size: int,
    geometry: str,
    method: str,
) -> tuple[Float[Tensor, "regions 3 size size"], Float[Tensor, "regions 1 size size"] | None]:
    """Squares of pictures and their regions; what "crop" and "blur" do to pictures is done."""
    if alpha is None:
        if geometry == "region":
            raise ValueError(
                "geometry 'crop to region' needs a region, and focus_mask gives none; draw one, or "
                "use 'pad'."
            )
        return preprocess(pictures, None, size, geometry)[0], None
    if method == "blur":
        pictures = pictures.expand(len(alpha), -1, -1, -1) if len(pictures) == 1 else pictures
        pictures = blur_outside(pictures, alpha)
    return preprocess(pictures, alpha, size, "region" if method == "crop" else geometry)


def normalized(
    vision: Any, pictures: Float[Tensor, "batch 3 size size"]
) -> Float[Tensor, "batch 3 size size"]:
    """The pixel values of a tower, rounded to 8 bit first, as the core does."""
    mean = pictures.new_tensor(vision.image_mean).view(3, 1, 1)
    std = pictures.new_tensor(vision.image_std).view(3, 1, 1)
    return ((pictures * 255).clamp(0, 255).round() / 255 - mean) / std


def preview(
    pictures: Float[Tensor, "batch 3 height width"],
    alpha: Float[Tensor, "batch 1 height width"] | None,
) -> Tensor:
    """An IMAGE of what was seen: lit where it was attended to, dim and gray elsewhere."""
    alphas = [None] * len(pictures) if alpha is None else alpha.split(1)
    lit = [lit_region(one, region) for one, region in zip(pictures.split(1), alphas, strict=True)]
    return as_comfy_image(torch.cat([as_image(one) for one in lit]))
