"""How each pipeline of tiny_pipelines.py is run, and what the tests of `focus` do with it.

Not a test: others load it with `runpy`.
"""

import runpy
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import diffusers as d
import numpy as np
import pytest
import torch
from PIL import Image
from transformers import CLIPVisionModel, CLIPVisionModelWithProjection

from alphaclip_gen.conditioning import focus
from alphaclip_gen.families import tower_place
from alphaclip_gen.vision import (
    AlphaCLIPVisionConfig,
    AlphaCLIPVisionModel,
    AlphaCLIPVisionModelWithProjection,
)


def neighbor(name):
    return SimpleNamespace(**runpy.run_path(str(Path(__file__).with_name(name))))


parts, pipes = neighbor("tiny_parts.py"), neighbor("tiny_pipelines.py")
adapters = neighbor("tiny_adapters.py")
ALPHA_CLIP = {
    CLIPVisionModel: AlphaCLIPVisionModel,
    CLIPVisionModelWithProjection: AlphaCLIPVisionModelWithProjection,
}

# How each is run: a pipeline and a picture in, a tensor out


def latents(pipe, first, **arguments):
    steps = {"num_inference_steps": 2, "generator": parts.generator(), "output_type": "latent"}
    return pipe(first, **steps | arguments)[0]


def adapted(pipe, image, **arguments):
    words = {
        "prompt_embeds": parts.noise(1, 8, parts.WIDTH),
        "negative_prompt_embeds": parts.noise(1, 8, parts.WIDTH),
    }
    return latents(pipe, None, ip_adapter_image=image, **words | arguments)


def adapted_xl(pipe, image):
    return adapted(
        pipe,
        image,
        prompt_embeds=parts.noise(1, 8, 2 * parts.WIDTH),
        negative_prompt_embeds=parts.noise(1, 8, 2 * parts.WIDTH),
        pooled_prompt_embeds=parts.noise(1, parts.WIDTH),
        negative_pooled_prompt_embeds=parts.noise(1, parts.WIDTH),
    )


def output_mask():
    mask = torch.zeros(1, 1, 16, 16)
    mask[..., 8:] = 1
    return mask


def masked_adapter(pipe, image):
    return adapted(pipe, image, cross_attention_kwargs={"ip_adapter_masks": [output_mask()]})


def several_references(pipe, image):
    """Two references of one adapter, each with the region of its own."""
    mirrored = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    return adapted(pipe, [[image, mirrored]])


def cached_embeddings(pipe, image):
    embeds = pipe.prepare_ip_adapter_image_embeds([image], None, "cpu", 1, True)
    return adapted(pipe, None, ip_adapter_image_embeds=embeds)


def interpolated(pipe, image):
    return pipe.interpolate(
        [image, "a"], [0.7, 0.3], num_inference_steps=2, generator=parts.generator()
    ).image_embeds


def inpainted(pipe, image):
    scene = Image.linear_gradient("L").resize((16, 16)).convert("RGB")
    hole = Image.new("L", (16, 16))
    hole.paste(255, (4, 4, 12, 12))
    return latents(pipe, image, image=scene, mask_image=hole, height=16, width=16)


def animated(pipe, image):
    return latents(pipe, image, height=16, width=16, num_frames=2, max_guidance_scale=1.5)


def filmed(pipe, image):
    words = {
        "prompt_embeds": parts.noise(1, 8, parts.WIDTH),
        "negative_prompt_embeds": parts.noise(1, 8, parts.WIDTH),
    }
    return latents(pipe, image, height=32, width=32, num_frames=5, **words)


def described(model, image):
    processor = model.processor_in_use
    inputs = processor(images=image, text="a <image> b", return_tensors="pt")
    return model(**inputs).logits


def flux_adapted(pipe, image):
    words = {
        "prompt_embeds": parts.noise(1, 4, parts.WIDTH),
        "pooled_prompt_embeds": parts.noise(1, parts.WIDTH),
    }
    return latents(pipe, None, ip_adapter_image=image, height=16, width=16, **words)


# The cases


@dataclass(frozen=True)
class Case:
    """A pipeline that `focus` covers.

    Attributes:
        name: for the table of docs/pipelines.md.
        make: its components, put together.
        result: of a pipeline and a picture; a tensor.
        published: whether an Alpha-CLIP is published for the tower of the real pipeline.
        attach: what is loaded onto the pipeline besides; again once it was saved and loaded.
    """

    name: str
    make: Callable[[], Any]
    result: Callable[[Any, Any], torch.Tensor]
    published: bool = False
    attach: Callable[[Any], Any] = lambda pipe: pipe


def unclip(pipe, image):
    steps = {"decoder_num_inference_steps": 2, "super_res_num_inference_steps": 2}
    pictures = pipe(image, **steps, generator=parts.generator(), output_type="np").images
    return torch.from_numpy(pictures)


def emb2emb(pipe, image):
    steps = {"num_inference_steps": 4, "strength": 0.5, "generator": parts.generator()}
    return pipe("a", image, **steps).image_embeds


def cascade(pipe, image):
    steps = {"height": 64, "width": 64, "num_inference_steps": 2, "generator": parts.generator()}
    return pipe("a", images=[image], **steps).image_embeddings


def adapter_cases():
    names = {
        "IP-Adapter, SD 1.5": adapted,
        "IP-Adapter with `ip_adapter_masks`": masked_adapter,
        "IP-Adapter, several references": several_references,
        "IP-Adapter, `ip_adapter_image_embeds`": cached_embeddings,
    }
    plus, wide = adapters.with_plus_adapter, adapters.with_wide_adapter
    return [
        *(
            Case(n, pipes.stable_diffusion, r, attach=adapters.with_adapter)
            for n, r in names.items()
        ),
        Case("IP-Adapter Plus, SD 1.5", pipes.stable_diffusion, adapted, attach=plus),
        Case("IP-Adapter, SDXL", pipes.stable_diffusion_xl, adapted_xl, attach=wide),
        Case("IP-Adapter, Flux", pipes.flux, flux_adapted, True, adapters.with_flux_adapter),
    ]


def kandinsky(name, result, published=False):
    return Case(name, lambda: pipes.kandinsky_prior(getattr(d, name)), result, published)


CASES = [
    Case("StableDiffusionImageVariationPipeline", pipes.image_variation, latents, published=True),
    Case(
        "StableUnCLIPImg2ImgPipeline",
        pipes.stable_unclip,
        lambda pipe, image: latents(pipe, image, prompt="a"),
    ),
    Case("UnCLIPImageVariationPipeline", pipes.unclip_image_variation, unclip, published=True),
    kandinsky("KandinskyPriorPipeline", interpolated, published=True),
    kandinsky("KandinskyV22PriorPipeline", interpolated),
    kandinsky("KandinskyV22PriorEmb2EmbPipeline", emb2emb),
    Case("StableCascadePriorPipeline", pipes.cascade_prior, cascade, published=True),
    *adapter_cases(),
    Case("ShapEImg2ImgPipeline", pipes.shap_e, latents, published=True),
    Case("PaintByExamplePipeline", pipes.paint_by_example, inpainted, published=True),
    Case("StableVideoDiffusionPipeline", pipes.stable_video, animated),
    Case("WanImageToVideoPipeline", pipes.wan, filmed),
    Case("FluxPriorReduxPipeline", pipes.redux, lambda pipe, image: pipe(image).prompt_embeds),
    Case("LlavaForConditionalGeneration", pipes.llava, described, published=True),
]
BY_NAME = {case.name: case for case in CASES}


# What the tests do with a case


def build(case):
    """The case's pipeline, the same one every time."""
    torch.manual_seed(0)
    pipe = case.attach(case.make())
    if hasattr(pipe, "set_progress_bar_config"):
        pipe.set_progress_bar_config(disable=True)
    else:
        object.__setattr__(pipe, "processor_in_use", pipes.llava_processor())
    return pipe


def focused(pipe, tower=None):
    return focus(pipe, tower, getattr(pipe, "processor_in_use", None))


def run(case, pipe, image):
    with torch.no_grad():
        return case.result(pipe, image).float()


def own_tower(pipe):
    return tower_place(pipe).value


def alpha_tower(stock, std=0.0):
    """The tower as an Alpha-CLIP; with `std`, its alpha weights are as if they were trained."""
    kind = ALPHA_CLIP.get(type(stock))
    if kind is None:
        pytest.skip("no Alpha-CLIP is a SigLIP")
    tower = kind(AlphaCLIPVisionConfig(**stock.config.to_dict() | {"model_type": None}))
    tower.load_state_dict(stock.state_dict(), strict=False)
    for name, parameter in tower.named_parameters():
        if "alpha" in name:
            torch.nn.init.normal_(parameter, std=std)
    return tower.eval()


def noise_picture():
    noise = torch.rand(3, 4, 4, generator=torch.Generator().manual_seed(1))
    pixels = (noise * 255).byte().movedim(0, -1).numpy()
    return Image.fromarray(pixels).resize((32, 32), Image.Resampling.NEAREST)


def with_region(image, side=0.5):
    """The picture with its left part, `side` of the width, as the region."""
    alpha = np.zeros((image.height, image.width), dtype=np.uint8)
    alpha[:, : round(side * image.width)] = 255
    rgba = image.convert("RGBA")
    rgba.putalpha(Image.fromarray(alpha))
    return rgba


def moved(result, from_what):
    """How far a result is from another, relative to that one."""
    return ((result - from_what).norm() / from_what.norm()).item()
