"""The ways to tell a subject-driven pipeline which part of a picture is meant.

A painter is whatever turns pictures, regions and prompts into new pictures; `pipeline_painter`
makes one of `AlphaBlipDiffusionPipeline` with any checkpoint. The ways around it are the rows of
every comparison: the alpha channel, by a mask, a box, a point or a stroke; none; what people do
instead; and focus without alpha weights.
"""

import copy
from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from .attention_focus import attention_bias
from .baselines import Baseline, blur_outside, crop_to_region, gray_outside, red_circle
from .mini.evaluate_regions import DOORS

Painter = Callable[[Tensor, Tensor, Sequence[str], Sequence[int]], Tensor]
"""(image, alpha, prompts, seeds) -> pictures of the subjects of regions, in [0, 1].

image is (batch, 3, height, width) in [0, 1], alpha (batch, 1, height, width); prompts say what to
do with each subject, `{subject}` in them; seeds are those of each picture's noise.
"""


def pipeline_painter(
    pipe: Any,
    category: str = "thing",
    steps: int = 4,
    guidance: float = 1.5,
    batch: int = 32,
) -> Painter:
    """A painter that runs an AlphaBlipDiffusionPipeline, on any device and in any precision.

    Args:
        pipe: the pipeline; its progress bar is left as it is.
        category: what subjects are called; a name that fits all tells nothing of which is meant.
        steps: of the denoising.
        guidance: classifier-free guidance.
        batch: pictures at a time.
    """

    def paint(image: Tensor, alpha: Tensor, prompts: Sequence[str], seeds: Sequence[int]) -> Tensor:
        made = list[Tensor]()
        for start in range(0, len(image), batch):
            part = slice(start, start + batch)
            made.append(
                pipe(
                    list(prompts[part]),
                    list(image[part]),
                    category,
                    category,
                    alpha_mask=list(alpha[part]),
                    guidance_scale=guidance,
                    num_inference_steps=steps,
                    generator=[torch.Generator().manual_seed(seed) for seed in seeds[part]],
                    output_type="pt",
                ).images
            )
        return torch.cat(made).float().cpu()

    return paint


def ways_around(paint: Painter, focused: Painter | None = None) -> dict[str, Painter]:
    """Name -> the painter pointed at regions that way.

    Args:
        paint: heeds alpha.
        focused: the same without alpha weights, focused by its attention; see `training_free`.
    """
    ways = {
        "alpha": paint,
        **{name: _given(paint, door) for name, door in DOORS.items()},
        "all-one alpha": _changed(paint, lambda image, alpha: image),
        "crop": _changed(paint, crop_to_region),
        "blur outside": _changed(paint, blur_outside),
        "gray outside": _changed(paint, gray_outside),
        "red circle": _changed(paint, red_circle),
    }
    return ways if focused is None else {**ways, "training-free focus": focused}


def _given(paint: Painter, door: Callable[[Tensor], Tensor]) -> Painter:
    """The painter with each region given another way than as a mask."""

    def painted(
        image: Tensor, alpha: Tensor, prompts: Sequence[str], seeds: Sequence[int]
    ) -> Tensor:
        return paint(image, torch.cat([door(mask) for mask in alpha[:, 0]]), prompts, seeds)

    return painted


def _changed(paint: Painter, baseline: Baseline) -> Painter:
    """The painter with all-one alpha, shown pictures that the baseline changed."""

    def painted(
        image: Tensor, alpha: Tensor, prompts: Sequence[str], seeds: Sequence[int]
    ) -> Tensor:
        pairs = zip(image.split(1), alpha.split(1), strict=True)
        seen = torch.cat([baseline(one, region) for one, region in pairs]).clamp(0, 1)
        return paint(seen, torch.ones_like(seen[:, :1]), prompts, seeds)

    return painted


def training_free(pipe: Any) -> Any:
    """The pipeline with a tower whose attention follows the region in place of its alpha weights.

    Args:
        pipe: an AlphaBlipDiffusionPipeline; it stays as it is.
    """
    qformer = copy.deepcopy(pipe.qformer)
    qformer.visual_encoder = AttentionFocusedTower(qformer.visual_encoder)
    changed = copy.copy(pipe)
    changed.qformer = qformer
    return changed


class AttentionFocusedTower(nn.Module):
    """BLIP-Diffusion's tower, focused as `attention_focus` does it: from its middle layer on.

    Args:
        tower: an AlphaBlip2VisionModel; it sees color only, that is all-one alpha.
    """

    def __init__(self, tower: Any):
        super().__init__()
        self.tower = tower
        self.first = len(tower.encoder.layers) // 2

    def forward(
        self, pixel_values: Float[Tensor, "batch 4 height width"]
    ) -> Float[Tensor, "batch tokens channels"]:
        """The tower's tokens; what they gather comes from patches in the region."""
        tower = self.tower
        bias = attention_bias(pixel_values[:, 3:], tower.config.patch_size)
        bias = F.pad(bias, (1, 0)).to(pixel_values.dtype)
        tokens = tower.pre_layernorm(tower.embeddings(pixel_values[:, :3]))
        for index, block in enumerate(tower.encoder.layers):
            tokens = block(tokens, bias) if index >= self.first else block(tokens)
        return tower.post_layernorm(tokens)
