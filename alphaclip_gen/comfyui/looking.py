"""Where a tower looks in a picture, as a picture."""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from ..attention_focus import attention_bias
from ..attention_maps import attention_map, differentiable_copy
from ..encoder import RegionEncoder
from ..framing import preprocess, resize
from . import host
from .encoding import normalized
from .focus import PICTURE_METHODS, chosen, first_layer, unfocused
from .masks import check_count

COLORS = torch.tensor(
    [
        (0.0, 0.0, 0.02),
        (0.34, 0.06, 0.43),
        (0.73, 0.21, 0.33),
        (0.98, 0.55, 0.04),
        (0.99, 1.0, 0.64),
    ]
)
"""From cold to hot, evenly spaced: black, purple, red, orange, pale yellow."""


def look_at(
    vision: Any,
    pictures: Float[Tensor, "images 3 height width"],
    alpha: Float[Tensor, "alphas 1 height width"] | None,
    method: str = "auto",
    text: str = "",
    encoder: RegionEncoder | None = None,
    progress: host.Progress | None = None,
) -> Float[Tensor, "images 1 height width"]:
    """How much each place counts for what the tower says, in [0, 1], at the pictures' size.

    Args:
        vision: a CLIP_VISION of ours or of the core.
        pictures: in [0, 1]; each is squashed to the tower's square.
        alpha: one region for all pictures, or one for each; None is the whole picture.
        method: "alpha weights", "training-free" or "auto" (see `focus_vision`).
        text: where this is seen, rather than where the tower looks by itself; needs `encoder`.
        encoder: reads the text.
        progress: called after each picture.
    """
    plain = unfocused(vision)
    method = chosen(plain, method)
    if method in PICTURE_METHODS:
        raise ValueError(
            f"method {method!r} changes the picture before the tower sees it, so there is no map "
            f"on the picture itself; use 'auto', 'alpha weights' or 'training-free'."
        )
    host.load(plain.patcher)
    size = (pictures.shape[-2], pictures.shape[-1])
    if alpha is not None:
        check_count(alpha, len(pictures))
        alpha = alpha.expand(len(pictures), -1, -1, -1)
    squares, regions = preprocess(pictures, alpha, plain.image_size, "squash")
    pixel_values = normalized(plain, squares).to(plain.load_device)
    toward = None if encoder is None or not text.strip() else encoder.embed_texts([text])
    tower = differentiable_copy(plain.model)
    maps = []
    for number, one in enumerate(pixel_values.split(1)):
        region = None if alpha is None else regions[number : number + 1].to(one)
        maps.append(_map(tower, one, region, method, toward))
        if progress is not None:
            progress(number + 1)
    return resize(torch.cat(maps).cpu()[:, None], size, "bicubic")


def _map(
    tower: Any, pixel_values: Tensor, alpha: Tensor | None, method: str, toward: Tensor | None
) -> Tensor:
    if alpha is None:
        return attention_map(tower, pixel_values, toward)
    if method == "alpha weights":
        return attention_map(tower, torch.cat([pixel_values, alpha - 1], dim=1), toward)
    bias = attention_bias(alpha - 1, tower.vision_model.embeddings.patch_embedding.kernel_size)
    layer = first_layer(len(tower.vision_model.encoder.layers))
    return attention_map(tower, pixel_values, toward, bias, layer)


def heated(
    pictures: Float[Tensor, "batch 3 height width"], heat: Float[Tensor, "batch 1 height width"]
) -> Float[Tensor, "batch 3 height width"]:
    """The pictures in gray under a heat map, its colors from cold to hot."""
    pictures, heat = pictures.cpu(), heat.cpu()
    place = heat[:, 0].clamp(0, 1) * (len(COLORS) - 1)
    low = place.long().clamp(max=len(COLORS) - 2)
    color = torch.lerp(COLORS[low], COLORS[low + 1], (place - low)[..., None]).movedim(-1, 1)
    gray = pictures.mean(dim=1, keepdim=True)
    return (0.35 * gray + 0.75 * color).clamp(0, 1)
