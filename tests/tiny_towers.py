"""Towers in the layouts of others: the published one written out, OpenAI's, transformers'.

Not a test: others load it with `runpy`.
"""

from collections import OrderedDict

import torch
from torch import nn
from transformers import CLIPConfig, CLIPModel

TINY = {"width": 128, "layers": 2, "patch": 8, "side": 32, "projection": 16}
L14 = {"width": 1024, "layers": 24, "patch": 14, "side": 224, "projection": 768}


class QuickGELU(nn.Module):
    def forward(self, x):
        return x * torch.sigmoid(1.702 * x)


class Attention(nn.Module):
    """Written out: fused projection, heads of 64, softmax."""

    def __init__(self, width):
        super().__init__()
        self.in_proj = nn.Linear(width, 3 * width)
        self.out_proj = nn.Linear(width, width)

    def forward(self, x):
        batch, tokens, width = x.shape
        parts = self.in_proj(x).reshape(batch, tokens, 3, width // 64, 64).permute(2, 0, 3, 1, 4)
        query, key, value = parts
        weights = (query @ key.transpose(-1, -2) / 8).softmax(-1)
        return self.out_proj((weights @ value).transpose(1, 2).reshape(batch, tokens, width))


class Block(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.attn, self.ln_1, self.ln_2 = Attention(width), nn.LayerNorm(width), nn.LayerNorm(width)
        layers = [("c_fc", nn.Linear(width, 4 * width)), ("gelu", QuickGELU())]
        self.mlp = nn.Sequential(OrderedDict([*layers, ("c_proj", nn.Linear(4 * width, width))]))

    def forward(self, x):
        x = x + self.attn(self.ln_1(x))
        return x + self.mlp(self.ln_2(x))


class PublishedTower(nn.Module):
    """The layout of SunzeY/AlphaCLIP's files and their meaning, from its description."""

    def __init__(self, width, layers, patch, side, projection):
        super().__init__()
        tokens = (side // patch) ** 2 + 1
        self.conv1 = nn.Conv2d(3, width, patch, patch, bias=False)
        self.conv1_alpha = nn.Conv2d(1, width, patch, patch, bias=False)
        self.class_embedding = nn.Parameter(0.05 * torch.randn(width))
        self.positional_embedding = nn.Parameter(0.05 * torch.randn(tokens, width))
        self.ln_pre, self.ln_post = nn.LayerNorm(width), nn.LayerNorm(width)
        self.transformer = nn.Module()
        self.transformer.resblocks = nn.Sequential(*(Block(width) for _ in range(layers)))
        self.proj = nn.Parameter(width**-0.5 * torch.randn(width, projection))

    def forward(self, image, alpha):
        x = self.conv1(image) + self.conv1_alpha((alpha - 0.5) / 0.26)
        x = x.flatten(2).permute(0, 2, 1)
        x = torch.cat([self.class_embedding.expand(len(x), 1, -1), x], 1)
        x = self.transformer.resblocks(self.ln_pre(x + self.positional_embedding))
        return self.ln_post(x[:, 0]) @ self.proj


def inputs(side):
    """Normalized color and an alpha map, of two pictures."""
    generator = torch.Generator().manual_seed(1)
    return (
        torch.randn(2, 3, side, side, generator=generator),
        torch.rand(2, 1, side, side, generator=generator),
    )


@torch.no_grad()
def difference(tower, image, alpha, expected):
    """Largest deviation, relative to the largest value."""
    got = tower(torch.cat([image, alpha - 1], 1)).image_embeds
    return ((got - expected).abs().max() / expected.abs().max()).item()


def openai_state(reference):
    """The same tower without alpha, as OpenAI names it inside a whole CLIP."""
    renamed = {
        name.replace("attn.in_proj.", "attn.in_proj_"): value
        for name, value in reference.state_dict().items()
        if "alpha" not in name
    }
    return {f"visual.{name}": value for name, value in renamed.items()}


def difference_of(got, expected):
    return ((got - expected).abs().max() / expected.abs().max()).item()


def named_config(open_clip, monkeypatch, size, quick_gelu=False, **vision):
    """A model config that open_clip knows by name for the time of a test."""
    config = {
        "embed_dim": size["projection"],
        "quick_gelu": quick_gelu,
        "vision_cfg": {
            "image_size": size["side"],
            "layers": size["layers"],
            "width": size["width"],
            "patch_size": size["patch"],
            **vision,
        },
        "text_cfg": {"context_length": 12, "vocab_size": 64, "width": 64, "heads": 2, "layers": 2},
    }
    monkeypatch.setitem(open_clip.factory._MODEL_CONFIGS, "ViT-test", config)
    return "ViT-test", config


def nested(state):
    """A module tree whose state dict is `state`."""
    root = nn.Module()
    for name, value in state.items():
        *path, last = name.split(".")
        module = root
        for part in path:
            if not hasattr(module, part):
                module.add_module(part, nn.Module())
            module = getattr(module, part)
        if value.is_floating_point():
            module.register_parameter(last, nn.Parameter(value))
        else:
            module.register_buffer(last, value)
    return root


TRANSFORMERS = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "image_size": 32,
    "patch_size": 8,
    "hidden_act": "gelu",
}
WORDS = {
    "vocab_size": 20,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "max_position_embeddings": 8,
    "eos_token_id": 2,
}


def whole_clip():
    torch.manual_seed(0)
    parts = {"vision_config": TRANSFORMERS, "text_config": WORDS}
    return CLIPModel(CLIPConfig(**parts, projection_dim=16)).eval()
