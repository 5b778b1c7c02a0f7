"""Custom nodes for the tests on a real core, and functions for those on its stand-in.

They encode in both ways that nodes use, and compare with the library's own towers.
"""

import importlib
import json
import sys
import tempfile
from pathlib import Path

import torch

TOLERANCE = 1.2e-3  # half-precision weights, as the core keeps them
TINY = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 4,
    "num_attention_heads": 2,
    "image_size": 32,
    "patch_size": 8,
    "layer_norm_eps": 1e-5,  # the core's, which reads none
}


def library(module):
    """A module of the library, whatever name the host gave to the pack."""
    (name,) = (name for name in sys.modules if name.endswith("alphaclip_gen.comfyui"))
    return importlib.import_module(name.removesuffix("comfyui") + module)


# Towers


def tiny_tower(kind, scale=4):
    """A tower of transformers, "clip" or "siglip", its weights rounded to half precision."""
    from transformers import (
        CLIPVisionConfig,
        CLIPVisionModelWithProjection,
        SiglipVisionConfig,
        SiglipVisionModel,
    )

    with torch.inference_mode(False), torch.random.fork_rng():
        torch.manual_seed(1)
        if kind == "siglip":
            tower = SiglipVisionModel(SiglipVisionConfig(**TINY, vision_use_head=False))
        else:
            tower = CLIPVisionModelWithProjection(CLIPVisionConfig(**TINY, projection_dim=16))
        for parameter in tower.parameters():
            parameter.data = (scale * parameter.data).half().float()
    return tower.eval().requires_grad_(False)


def core_vision(tower):
    """The core's own CLIP_VISION with the weights of a tower of transformers."""
    import comfy.clip_vision

    is_clip = hasattr(tower, "visual_projection")
    names = ("hidden_act", "num_channels", *TINY, *(("projection_dim",) if is_clip else ()))
    config = {name: getattr(tower.config, name) for name in names}
    config["model_type"] = "clip_vision_model" if is_clip else "siglip_vision_model"
    if not is_clip:
        config |= {"image_mean": [0.5] * 3, "image_std": [0.5] * 3}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "config.json"
        path.write_text(json.dumps(config))
        vision = comfy.clip_vision.ClipVisionModel(str(path))
    inside = {"vision_model", "visual_projection"}
    named = {
        name if name.split(".")[0] in inside else f"vision_model.{name}": value
        for name, value in tower.state_dict().items()
    }
    missing, unexpected = vision.load_sd(named)
    assert not missing and not unexpected, (missing, unexpected)
    vision.reference = tower
    return vision


# Numbers


def by_model(vision, image):
    """The three results that IPAdapter_plus takes of `.model`."""
    import comfy.model_management

    comfy.model_management.load_model_gpu(vision.patcher)
    return vision.model(pixel_values=preprocessed(vision, image), intermediate_output=-2)[:3]


def preprocessed(vision, image):
    import comfy.clip_vision

    return comfy.clip_vision.clip_preprocess(
        image.to(vision.load_device), size=vision.image_size, mean=vision.image_mean,
        std=vision.image_std,
    ).float()  # fmt: skip


def by_library(vision, image, mask):
    """The same three of the library's tower: training-free of the core's tower, else mini."""
    alpha = framed(mask, vision.image_size).expand(len(image), -1, -1, -1)
    if hasattr(vision, "reference"):
        tower = library("attention_focus").focus_attention(vision.reference)
    else:
        tower = library("checkpoints").load_tower("mini")
    color = preprocessed(vision, image).cpu()
    with torch.no_grad():
        output = tower(torch.cat([color, alpha - 1], dim=1), output_hidden_states=True)
    last = output.last_hidden_state
    return last, output.hidden_states[-2], getattr(output, "image_embeds", last)


def framed(mask, size):
    """The alpha map of a MASK, cut as the core cuts pictures."""
    return library("comfyui.focus").as_core_frames(mask[:, None].float(), size)


def apart(found, expected):
    """The largest difference of several results, relative where they are large."""
    pairs = [(a.cpu().float(), b.cpu().float()) for a, b in zip(found, expected, strict=True)]
    return max(((a - b).abs() / (1 + b.abs())).max().item() for a, b in pairs)


def numbers(clip_vision, plain, image, mask):
    """How far both ways to encode are apart and from the library; what regions change.

    Of black pictures they change nothing, however many there are: see IPAdapter's negative.
    """
    output = clip_vision.encode_image(image)
    names = ("last_hidden_state", "penultimate_hidden_states", "image_embeds")
    theirs, ours = [output[name] for name in names], by_model(clip_vision, image)
    whole = plain.encode_image(image).image_embeds
    found = {
        "between the ways": apart(ours, theirs),
        "by the region": ((output.image_embeds - whole).norm() / whole.norm()).item(),
    }
    method = clip_vision.model.method
    if method == "alpha weights" or hasattr(plain, "reference"):
        expected = by_library(plain, image, mask)
        found["from the library"] = max(apart(theirs, expected), apart(ours, expected))
    pair = torch.cat([mask, 1 - mask])[:, None].float()
    black = torch.zeros(1, plain.image_size, plain.image_size, 3)
    focused = library("comfyui.focus").focus_vision(plain, pair, method)
    found["of black"] = apart(by_model(focused, black), by_model(plain, black))
    return found


def heat_by_library(vision, image, mask):
    """The heat map of the library's focused tower."""
    size = (image.shape[1], image.shape[2])
    squares, regions = library("framing").preprocess(
        image.movedim(-1, 1), mask[:, None], vision.image_size, "squash"
    )
    color = library("comfyui.encoding").normalized(vision, squares)
    tower = library("attention_focus").focus_attention(vision.reference)
    heat = library("attention_maps").attention_map(tower, torch.cat([color, regions - 1], dim=1))
    return library("framing").resize(heat[:, None], size, "bicubic")[:, 0].clamp(0, 1)


# Nodes


class Node:
    CATEGORY = "AlphaCLIP tests"
    FUNCTION = "run"
    RETURN_TYPES = ()
    OUTPUT_NODE = True
    WIRES = ()

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {name: (kind,) for name, kind in cls.WIRES}}


class Tower(Node):
    """The core's own CLIP_VISION, tiny, of random weights."""

    RETURN_TYPES = ("CLIP_VISION",)
    OUTPUT_NODE = False
    WIRES = (("kind", ["clip", "siglip"]),)

    def run(self, kind):
        return (core_vision(tiny_tower(kind)),)


class Probe(Node):
    """What `numbers` says."""

    WIRES = (
        ("clip_vision", "CLIP_VISION"), ("plain", "CLIP_VISION"), ("image", "IMAGE"),
        ("mask", "MASK"),
    )  # fmt: skip

    def run(self, clip_vision, plain, image, mask):
        return {"ui": {"text": [json.dumps(numbers(clip_vision, plain, image, mask))]}}


class Heat(Node):
    """How far a heat map is from the library's."""

    WIRES = (
        ("plain", "CLIP_VISION"), ("image", "IMAGE"), ("mask", "MASK"), ("heat", "MASK"),
    )  # fmt: skip

    def run(self, plain, image, mask, heat):
        found = {"from the library": apart([heat], [heat_by_library(plain, image, mask)])}
        return {"ui": {"text": [json.dumps(found)]}}


NODE_CLASS_MAPPINGS = {
    "AlphaCLIPTestTower": Tower,
    "AlphaCLIPTestProbe": Probe,
    "AlphaCLIPTestHeat": Heat,
}
