"""IP-Adapters of random weights, loaded onto the pipelines of tiny_pipelines.py.

Not a test: others load it with `runpy`.
"""

import runpy
from pathlib import Path
from types import SimpleNamespace

import torch

parts = SimpleNamespace(**runpy.run_path(str(Path(__file__).with_name("tiny_parts.py"))))
WIDTH = parts.WIDTH


def adapter_weights(model, image_proj, bias=False):
    """An IP-Adapter's state dict for a U-Net or a Flux transformer."""
    ours = {}
    names = [name for name in model.attn_processors if not name.startswith("single_")]
    cross = [name for name in names if name.endswith("attn2.processor")] or names
    for index, name in enumerate(cross):
        attention = model.get_submodule(name.removesuffix(".processor"))
        inner = attention.to_q.out_features
        key = 2 * index + 1 if bias is False else index
        for part in "kv":
            ours[f"{key}.to_{part}_ip.weight"] = parts.weight(inner, WIDTH)
            if bias:
                ours[f"{key}.to_{part}_ip.bias"] = torch.zeros(inner)
    return {"image_proj": image_proj, "ip_adapter": ours}


def plain_projection():
    return {
        "proj.weight": parts.weight(4 * WIDTH, WIDTH),
        "proj.bias": torch.zeros(4 * WIDTH),
        "norm.weight": torch.ones(WIDTH),
        "norm.bias": torch.zeros(WIDTH),
    }


def plus_projection():
    """The weights of IP-Adapter Plus' resampler, one layer, under their published names."""
    inner = 64  # one head
    weights = {
        "latents": torch.randn(1, 4, WIDTH),
        "proj_in.weight": parts.weight(WIDTH, WIDTH),
        "proj_in.bias": torch.zeros(WIDTH),
        "proj_out.weight": parts.weight(WIDTH, WIDTH),
        "proj_out.bias": torch.zeros(WIDTH),
        "norm_out.weight": torch.ones(WIDTH),
        "norm_out.bias": torch.zeros(WIDTH),
    }
    for layer in range(4):
        for norm in ("0.norm1", "0.norm2", "1.0"):
            weights[f"layers.{layer}.{norm}.weight"] = torch.ones(WIDTH)
            weights[f"layers.{layer}.{norm}.bias"] = torch.zeros(WIDTH)
        weights[f"layers.{layer}.0.to_q.weight"] = parts.weight(inner, WIDTH)
        weights[f"layers.{layer}.0.to_kv.weight"] = parts.weight(2 * inner, WIDTH)
        weights[f"layers.{layer}.0.to_out.weight"] = parts.weight(WIDTH, inner)
        weights[f"layers.{layer}.1.1.weight"] = parts.weight(4 * WIDTH, WIDTH)
        weights[f"layers.{layer}.1.3.weight"] = parts.weight(WIDTH, 4 * WIDTH)
    return weights


def seeded(make, *inputs):
    """The same random weights every time: an adapter is loaded again after its pipeline."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        return make(*inputs)


def with_adapter(pipe, image_proj=plain_projection):
    weights = seeded(lambda: adapter_weights(pipe.unet, image_proj()))
    pipe.load_ip_adapter(weights, subfolder=None, weight_name=None)
    return pipe


def with_plus_adapter(pipe):
    return with_adapter(pipe, plus_projection)


def wide_weights(model):
    """Those of SDXL, whose texts are twice as wide as its pictures."""
    wide = plain_projection()
    wide["proj.weight"], wide["proj.bias"] = parts.weight(8 * WIDTH, WIDTH), torch.zeros(8 * WIDTH)
    wide["norm.weight"], wide["norm.bias"] = torch.ones(2 * WIDTH), torch.zeros(2 * WIDTH)
    weights = adapter_weights(model, wide)
    for name, value in weights["ip_adapter"].items():
        weights["ip_adapter"][name] = parts.weight(len(value), 2 * WIDTH)
    return weights


def with_wide_adapter(pipe):
    weights = seeded(wide_weights, pipe.unet)
    pipe.load_ip_adapter(weights, subfolder=None, weight_name=None)
    return pipe


def with_flux_adapter(pipe):
    pipe.load_ip_adapter(
        seeded(lambda: adapter_weights(pipe.transformer, plain_projection(), bias=True)),
        weight_name=None,
        subfolder=None,
        image_encoder_pretrained_model_name_or_path=None,
    )
    return pipe
