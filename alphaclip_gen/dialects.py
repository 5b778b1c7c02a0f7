"""The same CLIP under other names: state dicts to and from transformers' layout, and their sizes.

Four layouts of one network, text side included where there is one:

| layout | vision | alpha |
|---|---|---|
| transformers | `vision_model.encoder.layers.0.self_attn.q_proj.weight` | `patch_embedding_alpha` |
| alpha-clip | `transformer.resblocks.0.attn.in_proj.weight`, vision only | `conv1_alpha` |
| openai | `visual.transformer.resblocks.0.attn.in_proj_weight` | none |
| open_clip | as openai | the fourth channel of `conv1` |

Names that no layout knows pass through unchanged, so that a loader can refuse them by name.
Everything here is a function of names and tensors; files are in `checkpoints`.
"""

import math
import re
from collections.abc import Iterable, Mapping
from typing import Any, Literal

import torch
from torch import Tensor

from .vision import ALPHA_MEAN, ALPHA_STD

Layout = Literal["transformers", "alpha-clip", "openai", "open_clip"]
State = dict[str, Tensor]

ALPHA = "vision_model.embeddings.patch_embedding_alpha.weight"
_COLOR = "vision_model.embeddings.patch_embedding.weight"
_POSITIONS = "vision_model.embeddings.position_embedding.weight"
_MARKERS = ("input_resolution", "context_length", "vocab_size")
_NO_WEIGHTS = re.compile(rf"(.*\.)?(position_ids|attn_mask|{'|'.join(_MARKERS)})")

_TABLE = {
    "visual.class_embedding": "vision_model.embeddings.class_embedding",
    "visual.positional_embedding": _POSITIONS,
    "visual.conv1.weight": _COLOR,
    "visual.conv1_alpha.weight": ALPHA,
    "visual.ln_pre.weight": "vision_model.pre_layrnorm.weight",
    "visual.ln_pre.bias": "vision_model.pre_layrnorm.bias",
    "visual.ln_post.weight": "vision_model.post_layernorm.weight",
    "visual.ln_post.bias": "vision_model.post_layernorm.bias",
    "visual.proj": "visual_projection.weight",
    "token_embedding.weight": "text_model.embeddings.token_embedding.weight",
    "positional_embedding": "text_model.embeddings.position_embedding.weight",
    "ln_final.weight": "text_model.final_layer_norm.weight",
    "ln_final.bias": "text_model.final_layer_norm.bias",
    "text_projection": "text_projection.weight",
    "logit_scale": "logit_scale",
}
_TABLE_BACK = {new: old for old, new in _TABLE.items()}
_BLOCK = {
    "ln_1": "layer_norm1",
    "attn.out_proj": "self_attn.out_proj",
    "ln_2": "layer_norm2",
    "mlp.c_fc": "mlp.fc1",
    "mlp.c_proj": "mlp.fc2",
}
_BLOCK_BACK = {new: old for old, new in _BLOCK.items()}
_QKV = ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj")
_TRANSPOSED = ("visual.proj", "text_projection")
_OLD_BLOCK = re.compile(r"(visual\.)?transformer\.resblocks\.(\d+)\.(.+?)[._](weight|bias)")
_NEW_BLOCK = re.compile(r"(vision|text)_model\.encoder\.layers\.(\d+)\.(.+)\.(weight|bias)")


def layout_of(names: Iterable[str]) -> Layout:
    """Which layout the names are in.

    "openai" stands for open_clip too: by name alone the two cannot be told apart.

    Raises:
        ValueError: no vision transformer of CLIP, saying what it seems to be instead.
    """
    names = [name.removeprefix("module.") for name in names]
    if any(name.endswith("embeddings.patch_embedding.weight") for name in names):
        return "transformers"
    if any(name.endswith(("conv1_alpha.weight", "attn.in_proj.weight")) for name in names):
        return "alpha-clip"
    if any(name in ("visual.proj", "proj", "visual.class_embedding") for name in names):
        return "openai"
    raise ValueError(
        f"the weights are {_what_else(names)}; expected a CLIP vision transformer of OpenAI, "
        f"Alpha-CLIP, open_clip or transformers. The first of {len(names)} names: {names[:3]}."
    )


def _what_else(names: list[str]) -> str:
    if any("attnpool" in name for name in names):
        return "a CLIP with a ResNet (RN50 ...), which has no patches"
    if any(name.startswith("visual.trunk.") for name in names):
        return "a timm tower of open_clip (SigLIP, EVA, ConvNeXt ...)"
    if any("embeddings.token_embedding" in name for name in names):
        return "a text tower only"
    return "of no known CLIP"


def is_marked_openai(names: Iterable[str]) -> bool:
    """Whether the names carry the three numbers that only OpenAI's own archives hold."""
    return set(_MARKERS) <= {name.removeprefix("module.") for name in names}


def to_transformers(state: Mapping[str, Tensor]) -> State:
    """The same weights under transformers' names, `module.` and buffers without weights left out.

    Projections are transposed, the fused query, key and value are cut in three, and a fourth
    channel of open_clip's first convolution becomes the alpha convolution.
    """
    layout = layout_of(state)
    plain = {name.removeprefix("module."): value for name, value in state.items()}
    plain = {name: value for name, value in plain.items() if not _NO_WEIGHTS.fullmatch(name)}
    if layout == "transformers":
        flat = "embeddings.patch_embedding.weight" in plain
        return {
            f"vision_model.{name}" if flat and not name.startswith("visual_") else name: value
            for name, value in plain.items()
        }
    renamed: State = {}
    for name, value in _one_root(plain).items():
        renamed.update(_new_names(name, value))
    color = renamed.get(_COLOR)
    if color is not None and color.ndim == 4 and color.shape[1] == 4:
        renamed[_COLOR], renamed[ALPHA] = color[:, :3].clone(), color[:, 3:].clone()
    return renamed


def _one_root(plain: Mapping[str, Tensor]) -> State:
    """Names with vision under `visual.` and text at the root, as OpenAI's full model has them."""
    if not any(name.startswith("visual.") for name in plain):
        return {f"visual.{name}": value for name, value in plain.items()}
    text = {name.removeprefix("text.") for name in plain if name.startswith("text.")}
    if "token_embedding.weight" not in text:
        return dict(plain)
    return {name.removeprefix("text."): value for name, value in plain.items()}


def _new_names(name: str, value: Tensor) -> State:
    """One tensor of OpenAI's layout under the one or three names of transformers'."""
    if name in _TABLE:
        return {_TABLE[name]: value.T.contiguous() if name in _TRANSPOSED else value}
    found = _OLD_BLOCK.fullmatch(name)
    if found is None or found[3] not in {*_BLOCK, "attn.in_proj"}:
        return {name: value}
    tower = "vision" if found[1] else "text"
    root = f"{tower}_model.encoder.layers.{found[2]}"
    if found[3] in _BLOCK:
        return {f"{root}.{_BLOCK[found[3]]}.{found[4]}": value}
    return {
        f"{root}.{part}.{found[4]}": one.clone()
        for part, one in zip(_QKV, value.chunk(3), strict=True)
    }


def name_in(name: str, layout: Layout) -> str:
    """What another layout calls a weight of transformers' layout (names only, for messages)."""
    if layout == "transformers":
        return name
    old = _TABLE_BACK.get(name, name)
    if found := _NEW_BLOCK.fullmatch(name):
        tower, number, part, kind = found.groups()
        root = f"{'visual.' if tower == 'vision' else ''}transformer.resblocks.{number}"
        if part in _QKV:
            fused = f"attn.in_proj.{kind}" if layout == "alpha-clip" else f"attn.in_proj_{kind}"
            old = f"{root}.{fused}"
        elif part in _BLOCK_BACK:
            old = f"{root}.{_BLOCK_BACK[part]}.{kind}"
    return old.removeprefix("visual.") if layout == "alpha-clip" else old


def from_transformers(state: Mapping[str, Tensor], layout: Layout) -> State:
    """The same weights in another layout.

    "alpha-clip" holds the vision tower only, as published. "open_clip" puts alpha weights into a
    fourth channel of `conv1`; its alpha is normalized as the published one, (alpha - 0.5) / 0.26.

    Raises:
        ValueError: "openai" cannot hold alpha weights (see `fold_alpha`), or "alpha-clip" gets
            none.
    """
    if layout == "transformers":
        return dict(state)
    if layout == "openai" and ALPHA in state:
        raise ValueError(
            "layout 'openai' has three input channels and cannot hold alpha weights. fold_alpha(), "
            "or fold=True (--fold) of convert, makes 'attend everywhere' part of the position "
            "embedding; 'alpha-clip' keeps alpha."
        )
    if layout == "alpha-clip" and ALPHA not in state:
        raise ValueError(f"layout 'alpha-clip' needs alpha weights; {ALPHA} is missing.")
    state = dict(state)
    if layout == "alpha-clip":
        vision = ("vision_model.", "visual_projection.")
        state = {name: value for name, value in state.items() if name.startswith(vision)}
    elif ALPHA in state:
        state[_COLOR] = torch.cat([state[_COLOR], state.pop(ALPHA)], dim=1)
    renamed: State = {}
    for name in sorted(state, key=_fused_order):
        old = name_in(name, layout)
        value = state[name]
        if old in (*_TRANSPOSED, "proj"):
            value = value.T.contiguous()
        renamed[old] = torch.cat([renamed[old], value]) if old in renamed else value
    return renamed


def _fused_order(name: str) -> int:
    """Query before key before value: the order inside the fused projection."""
    return next((i for i, part in enumerate(_QKV) if part in name), -1)


def fold_alpha(state: Mapping[str, Tensor]) -> State:
    """The three-channel CLIP that equals an Alpha-CLIP attending everywhere.

    An alpha map of ones adds the same vector to every patch: the sum of the alpha convolution
    times (1 - 0.5) / 0.26. It moves into the position embedding of the patches.
    """
    folded = {name: value for name, value in state.items() if name != ALPHA}
    if ALPHA in state:
        constant = state[ALPHA].double().sum((1, 2, 3)) * ((1 - ALPHA_MEAN) / ALPHA_STD)
        positions = folded[_POSITIONS].double()
        positions[1:] += constant
        folded[_POSITIONS] = positions.to(folded[_POSITIONS].dtype)
    return folded


def vision_sizes(state: Mapping[str, Tensor], head_width: int = 64) -> dict[str, Any]:
    """The sizes of a CLIPVisionConfig that fit weights in transformers' layout.

    Args:
        state: weights; only their shapes are read.
        head_width: channels of an attention head, which no shape tells. 64 in all of OpenAI's.
    """
    width, _, patch, _ = _shape(state, _COLOR, 4)
    positions = _shape(state, _POSITIONS, 2)[0] - 1
    side = math.isqrt(positions)
    if side * side != positions:
        raise ValueError(
            f"{_POSITIONS} has {positions + 1} rows; expected 1 and a square number of patches."
        )
    sizes = _tower_sizes(state, "vision", width, head_width)
    if "visual_projection.weight" in state:
        sizes["projection_dim"] = _shape(state, "visual_projection.weight", 2)[0]
    return {**sizes, "patch_size": patch, "image_size": patch * side}


def text_sizes(state: Mapping[str, Tensor], head_width: int = 64) -> dict[str, Any]:
    """The sizes of a CLIPTextConfig; the last word of the vocabulary ends a text, as OpenAI's."""
    words, width = _shape(state, "text_model.embeddings.token_embedding.weight", 2)
    return {
        **_tower_sizes(state, "text", width, head_width),
        "vocab_size": words,
        "max_position_embeddings": _shape(
            state, "text_model.embeddings.position_embedding.weight", 2
        )[0],
        "projection_dim": _shape(state, "text_projection.weight", 2)[0],
        "bos_token_id": words - 2,
        "eos_token_id": words - 1,
    }


def _tower_sizes(state: Mapping[str, Tensor], tower: str, width: int, head: int) -> dict[str, Any]:
    if width % head:
        raise ValueError(
            f"the {tower} tower is {width} wide, no multiple of the {head} channels of a head. "
            f"If it is one of open_clip's, name its architecture: load_tower(name, pretrained=...)."
        )
    blocks = [found for name in state if (found := _NEW_BLOCK.fullmatch(name))]
    numbers = [int(found[2]) for found in blocks if found[1] == tower]
    hidden = _shape(state, f"{tower}_model.encoder.layers.0.mlp.fc1.weight", 2)[0]
    return {
        "hidden_size": width,
        "intermediate_size": hidden,
        "num_hidden_layers": max(numbers) + 1,
        "num_attention_heads": width // head,
    }


def _shape(state: Mapping[str, Tensor], name: str, dimensions: int) -> torch.Size:
    if name not in state:
        raise ValueError(
            f"the weights hold no {name} ({name_in(name, 'openai')} in OpenAI's layout): they are "
            f"incomplete, or not of a CLIP with a vision transformer."
        )
    shape = state[name].shape
    if len(shape) != dimensions:
        raise ValueError(f"{name} has shape {tuple(shape)}; expected {dimensions} dimensions.")
    return shape


def open_clip_settings(config: Mapping[str, Any]) -> dict[str, Any]:
    """What shapes do not tell, from an open_clip model config: activation and width of a head.

    Raises:
        ValueError: the vision tower is built otherwise than OpenAI's; the settings are named.
    """
    vision = {**config["vision_cfg"]}
    harmless = {"layers", "width", "head_width", "mlp_ratio", "patch_size", "image_size"}
    harmless |= {"patch_dropout", "output_tokens"}
    default = {"pool_type": "tok", "pos_embed_type": "learnable", "block_type": "default"}
    unknown = {
        key: value
        for key, value in vision.items()
        if key not in harmless and value and value != default.get(key)
    }
    if isinstance(vision.get("layers"), list):
        unknown["layers"] = vision["layers"]
    if unknown:
        raise ValueError(
            f"the architecture has {unknown} in its vision tower; expected a plain vision "
            f"transformer (ViT-B-32 ... ViT-bigG-14 without CLIPA, CoCa, SigLIP or timm)."
        )
    activation = "quick_gelu" if config.get("quick_gelu") else "gelu"
    return {"hidden_act": activation, "head_width": vision.get("head_width", 64)}
