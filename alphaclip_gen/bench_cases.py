"""What `bench` measures: calls that differ in their tower, and regions in a batch or one by one.

Towers have their true sizes and random weights, which all kinds of one tower share. A pipeline's
U-Net is tiny, which leaves the tower and what stands before it, or small: Stable Diffusion's at a
quarter of its width and of its resolution. A real one takes far longer, and focus weighs less.
"""

from functools import partial
from itertools import pairwise
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn
from torchvision.transforms.functional import to_pil_image
from transformers import CLIPImageProcessor, CLIPVisionConfig, CLIPVisionModelWithProjection

from .attention_focus import focus_attention
from .conditioning import as_rgba, focus
from .encoder import RegionEncoder
from .measuring import Cases
from .regions import alpha_from_box
from .vision import (
    AlphaCLIPConfig,
    AlphaCLIPModel,
    AlphaCLIPVisionConfig,
    AlphaCLIPVisionModelWithProjection,
    pixel_values,
)

TowerName = Literal["B/32", "B/16", "L/14", "L/14@336"]
_BASE: dict[str, Any] = {
    "hidden_size": 768,
    "intermediate_size": 3072,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "image_size": 224,
    "projection_dim": 512,
}
_LARGE = {
    "hidden_size": 1024,
    "intermediate_size": 4096,
    "num_hidden_layers": 24,
    "num_attention_heads": 16,
    "patch_size": 14,
    "projection_dim": 768,
}
TOWERS: dict[str, dict[str, Any]] = {
    "B/32": {**_BASE, "patch_size": 32},
    "B/16": {**_BASE, "patch_size": 16},
    "L/14": {**_LARGE, "image_size": 224},
    "L/14@336": {**_LARGE, "image_size": 336},
}
"""Settings of OpenAI's vision transformers."""

_TINY_UNET: dict[str, Any] = {
    "sample_size": 8,
    "block_out_channels": (8, 8),
    "layers_per_block": 1,
    "attention_head_dim": 4,
    "norm_num_groups": 4,
    "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"),
    "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D"),
}
_SMALL_UNET: dict[str, Any] = {
    "sample_size": 32,
    "block_out_channels": (80, 160, 320, 320),
    "norm_num_groups": 16,
}
UNETS: dict[str, dict[str, Any]] = {"tiny": _TINY_UNET, "small": _SMALL_UNET}
"""Settings of the pipelines' U-Nets, over those of Stable Diffusion."""

STOCK, AGAIN = "stock", "stock, again"
LEFT_HALF = (0.0, 0.0, 0.5, 1.0)
PICTURE_SIDE = 512


class Towers(NamedTuple):
    """Three kinds of one tower on the same weights; ours has alpha weights besides."""

    stock: Any
    ours: Any
    training_free: Any


def make_towers(name: str, device: torch.device, dtype: torch.dtype) -> Towers:
    """Towers of a size of `TOWERS`, with random weights."""
    stock: Any = CLIPVisionModelWithProjection(CLIPVisionConfig(**TOWERS[name])).eval()
    stock.to(device, dtype)
    ours: Any = AlphaCLIPVisionModelWithProjection(AlphaCLIPVisionConfig(**TOWERS[name])).eval()
    ours.load_state_dict(stock.state_dict(), strict=False, assign=True)
    alpha = ours.vision_model.embeddings.patch_embedding_alpha.weight
    nn.init.normal_(alpha, std=0.02, generator=torch.Generator().manual_seed(0))
    return Towers(stock, ours.to(device, dtype), focus_attention(stock))


def tower_cases(towers: Towers, batch: int) -> Cases:
    """A forward of each tower, which is the case's `func`."""
    stock, side = towers.stock, towers.stock.config.image_size
    image, alpha = _picture(side), alpha_from_box(LEFT_HALF, (side, side))
    color, half = (
        values.to(stock.device, stock.dtype).repeat(batch, 1, 1, 1)
        for values in (pixel_values(image), pixel_values(image, alpha))
    )
    return {
        STOCK: partial(stock, color),
        AGAIN: partial(stock, color),
        "Alpha-CLIP, three channels": partial(towers.ours, color),
        "Alpha-CLIP, half mask": partial(towers.ours, half),
        "training-free, half mask": partial(towers.training_free, half),
    }


def pipeline_cases(towers: Towers, steps: int, unet: str = "tiny") -> Cases:
    """A call of an image variation with each tower; all else, a U-Net of `UNETS`, is the same."""
    picture = to_pil_image(_picture(PICTURE_SIDE)[0])
    half = as_rgba(picture, LEFT_HALF)
    stock = _image_variation(towers.stock, UNETS[unet])
    ours, training_free = _twin(stock), _twin(stock)
    focus(ours, towers.ours)
    focus(training_free, towers.training_free)

    def call(pipe: Any, image: Any) -> Any:
        generator = torch.Generator().manual_seed(0)
        return pipe(image, num_inference_steps=steps, generator=generator).images[0]

    return {
        STOCK: partial(call, stock, picture),
        AGAIN: partial(call, stock, picture),
        "Alpha-CLIP, RGB": partial(call, ours, picture),
        "Alpha-CLIP, RGBA": partial(call, ours, half),
        "training-free, RGBA": partial(call, training_free, half),
    }


def _image_variation(tower: Any, settings: dict[str, Any]) -> Any:
    """An image variation pipeline around the tower, with a U-Net of these settings, a tiny VAE."""
    import diffusers

    unet: nn.Module = diffusers.UNet2DConditionModel(
        cross_attention_dim=tower.config.projection_dim, **settings
    )
    vae: nn.Module = diffusers.AutoencoderKL(
        block_out_channels=(8, 8),
        norm_num_groups=4,
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
    )
    for part in (unet, vae):
        nn.Module.to(part.eval(), tower.device, tower.dtype)  # diffusers' own warns
    side = tower.config.image_size
    pipe = diffusers.StableDiffusionImageVariationPipeline(
        vae=vae,
        image_encoder=tower,
        unet=unet,
        scheduler=diffusers.DDIMScheduler(),
        safety_checker=None,
        feature_extractor=CLIPImageProcessor(
            size={"shortest_edge": side}, crop_size={"height": side, "width": side}
        ),
        requires_safety_checker=False,
    )
    pipe.set_progress_bar_config(disable=True)
    return pipe


def _twin(pipe: Any) -> Any:
    """A pipeline of the same components."""
    twin = type(pipe)(**pipe.components, requires_safety_checker=False)
    twin.set_progress_bar_config(disable=True)
    return twin


def make_encoders(name: str, device: torch.device, dtype: torch.dtype) -> dict[str, RegionEncoder]:
    """The shipped mini, and an encoder with a tower of a size of `TOWERS`."""
    mini = RegionEncoder.from_pretrained("mini")
    config = AlphaCLIPConfig(
        vision_config=TOWERS[name],
        text_config={"num_hidden_layers": 1},  # texts are not measured
        projection_dim=TOWERS[name]["projection_dim"],
    )
    encoders = {"mini": mini, f"ViT-{name}": RegionEncoder(AlphaCLIPModel(config), mini.tokenizer)}
    for encoder in encoders.values():
        nn.Module.to(encoder.model, device, dtype)
    return encoders


def region_cases(encoder: RegionEncoder, count: int) -> Cases:
    """The embeddings of upright stripes of one picture: all at once, and one by one."""
    model, size = encoder.model, (PICTURE_SIDE, PICTURE_SIDE)
    edges = pairwise(torch.linspace(0, 1, count + 1).tolist())
    stripes = [alpha_from_box((left, 0.0, right, 1.0), size) for left, right in edges]
    image = _picture(PICTURE_SIDE).to(model.device, model.dtype)
    alphas = torch.cat(stripes).to(model.device, model.dtype)

    def in_calls() -> Tensor:
        return torch.cat([encoder.embed(image, alpha) for alpha in alphas.split(1)])

    return {"one batch": partial(encoder.embed, image, alphas), "calls": partial(in_calls)}


def _picture(side: int) -> Tensor:
    return torch.rand(1, 3, side, side, generator=torch.Generator().manual_seed(0))
