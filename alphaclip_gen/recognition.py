"""What weights are: a Checkpoint, from their names, their shapes and the settings beside them.

Tensors and settings in, a Checkpoint out. `sources` reads the files, `checkpoints` makes models.
"""

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL.Image import Resampling
from torch import Tensor
from transformers import CLIPConfig, CLIPTextConfig, CLIPVisionConfig, PreTrainedConfig

from .dialects import (
    ALPHA,
    Layout,
    State,
    is_marked_openai,
    layout_of,
    open_clip_settings,
    text_sizes,
    to_transformers,
    vision_sizes,
)
from .published import LICENSE, Published, published
from .vision import AlphaCLIPConfig, AlphaCLIPVisionConfig

logger = logging.getLogger(__name__)

_CONFIGS: dict[str, type[PreTrainedConfig]] = {
    "clip": CLIPConfig,
    "clip_vision_model": CLIPVisionConfig,
    "alpha_clip": AlphaCLIPConfig,
    "alpha_clip_vision_model": AlphaCLIPVisionConfig,
}
_WIDEST_OF_OPENAI = 1024
_TEXT_SIZES = {"context_length", "vocab_size", "width", "heads", "layers", "mlp_ratio"}
_GEOMETRIES = {"squash": "squash", "longest": "pad"}  # open_clip's resize modes; else "center"


@dataclass(frozen=True)
class Checkpoint:
    """A CLIP as it was read, before a model is made of it.

    Attributes:
        source: what it was read from, for messages.
        layout: the layout it was in.
        state: its weights in transformers' layout; alpha weights only where it has them.
        vision: configuration of the tower.
        text: configuration of the text tower, where there is a whole one of CLIP.
        look: settings of the image processor, where open_clip tells them.
        folder: with preprocessor and tokenizer files, where it was read from one.
        published: its row in the table of published checkpoints.
    """

    source: str
    layout: Layout
    state: State
    vision: AlphaCLIPVisionConfig
    text: CLIPTextConfig | None = None
    look: Mapping[str, Any] | None = None
    folder: Path | None = None
    published: Published | None = None

    @property
    def has_projection(self) -> bool:
        """Whether it reaches the space shared with texts."""
        return "visual_projection.weight" in self.state


def layout_in(source: str, loaded: Mapping[str, Tensor]) -> Layout:
    """The layout that the names of the weights are in (see `dialects`)."""
    try:
        return layout_of(loaded)
    except ValueError as error:
        raise ValueError(f"{source}: {error}") from error


def by_shapes(path: Path, loaded: Mapping[str, Tensor]) -> Checkpoint:
    """OpenAI's or Alpha-CLIP's weights: their shapes say the architecture, the name which row."""
    source = str(path)
    layout, state = layout_in(source, loaded), to_transformers(loaded)
    sizes = _sizes(source, state)
    row = published(path.name)
    if row:
        _check_published(row, sizes, path)
        logger.warning("%s: %s.", row.name, LICENSE)
    elif layout != "alpha-clip" and not is_marked_openai(loaded):
        _take_for_openai(path, sizes["hidden_size"])
    vision = AlphaCLIPVisionConfig(**sizes)
    return Checkpoint(source, layout, state, vision, _text_config(state), published=row)


def by_config(
    source: str, loaded: Mapping[str, Tensor], config: dict[str, Any], folder: Path
) -> Checkpoint:
    """Weights in transformers' layout with their config.json, whatever version wrote it."""
    layout, state = layout_in(source, loaded), to_transformers(loaded)
    kind = str(config.get("model_type"))
    if kind not in _CONFIGS:
        raise ValueError(
            f"{source} has model_type {kind!r}; expected one of {', '.join(_CONFIGS)}."
        )
    if kind.startswith("alpha") and ALPHA not in state:
        raise ValueError(f"{source} is an Alpha-CLIP by its config.json, but {ALPHA} is missing.")
    whole = _CONFIGS[kind].from_dict(config)
    vision = _fields(getattr(whole, "vision_config", whole), CLIPVisionConfig)
    text = None
    if "visual_projection.weight" in state:  # its width, which old files tell wrongly
        vision["projection_dim"] = len(state["visual_projection.weight"])
    if "text_projection.weight" in state and hasattr(whole, "text_config"):
        words = _fields(whole.text_config, CLIPTextConfig)
        text = CLIPTextConfig(**{**words, "projection_dim": len(state["text_projection.weight"])})
    return Checkpoint(source, layout, state, AlphaCLIPVisionConfig(**vision), text, folder=folder)


def _fields(config: PreTrainedConfig, kind: type[PreTrainedConfig]) -> dict[str, Any]:
    """The settings that make the architecture, without names, versions and dtype."""
    about_the_file = {"model_type", "architectures", "dtype", "transformers_version"}
    known = kind().to_dict().keys() - about_the_file
    return {key: value for key, value in config.to_dict().items() if key in known}


def by_open_clip(
    source: str,
    loaded: Mapping[str, Tensor],
    config: Mapping[str, Any],
    look: Mapping[str, Any],
    folder: Path | None = None,
) -> Checkpoint:
    """Weights in open_clip's layout, which must be of the sizes that its model config names.

    Args:
        source: for messages.
        loaded: the weights.
        config: open_clip's, of the architecture.
        look: open_clip's preprocess settings (mean, std, interpolation, resize_mode); may be empty.
        folder: as in `Checkpoint`.
    """
    layout, state = layout_in(source, loaded), to_transformers(loaded)
    settings = open_clip_settings(config)
    sizes = _sizes(source, state, settings["head_width"])
    vision, words = config["vision_cfg"], config["text_cfg"]
    wanted = {
        "hidden_size": vision.get("width", 768),
        "num_hidden_layers": vision.get("layers", 12),
        "patch_size": vision.get("patch_size", 16),
        "image_size": vision.get("image_size", 224),
        "projection_dim": config["embed_dim"],
    }
    if wrong := _differences(sizes, wanted):
        raise ValueError(f"{source}: the weights are of another size: {wrong}.")
    activation, text = settings["hidden_act"], None
    if _is_plain_text(words):
        text = _text_config(state, activation, words.get("width", 512) // words.get("heads", 8))
    config_of_tower = AlphaCLIPVisionConfig(**sizes, hidden_act=activation)
    return Checkpoint(source, layout, state, config_of_tower, text, _processor(look), folder)


def _is_plain_text(words: Mapping[str, Any]) -> bool:
    """Whether open_clip's text tower is CLIP's: nothing but sizes, pooled at the highest token."""
    settings = {key: value for key, value in words.items() if key not in _TEXT_SIZES and value}
    return not settings or settings == {"pool_type": "argmax"}


def _processor(look: Mapping[str, Any]) -> dict[str, Any]:
    """open_clip's preprocess settings as those of AlphaCLIPImageProcessor."""
    settings: dict[str, Any] = {
        f"image_{key}": tuple(look[key]) for key in ("mean", "std") if look.get(key)
    }
    if look.get("interpolation") == "bilinear":
        settings["resample"] = Resampling.BILINEAR
    if look.get("resize_mode") in _GEOMETRIES:
        settings["geometry"] = _GEOMETRIES[look["resize_mode"]]
    return settings


def _sizes(source: str, state: State, head_width: int = 64) -> dict[str, Any]:
    try:
        return vision_sizes(state, head_width)
    except ValueError as error:
        raise ValueError(f"{source}: {error}") from error


def _take_for_openai(path: Path, width: int) -> None:
    """A warning that the activation is a guess; refuses widths that OpenAI never published."""
    if width > _WIDEST_OF_OPENAI:
        raise ValueError(
            f"{path} is {width} wide, and OpenAI published nothing wider than {_WIDEST_OF_OPENAI}. "
            f"Name its architecture, load_tower('ViT-H-14', pretrained={str(path)!r}), or put its "
            f"config.json beside it."
        )
    logger.warning(
        "%s does not say whose CLIP it is: taken as OpenAI's, with quick_gelu. If it is "
        "open_clip's, name the architecture: load_tower('ViT-L-14', pretrained=%r).",
        path,
        str(path),
    )


def _check_published(row: Published, sizes: Mapping[str, int], path: Path) -> None:
    wanted = row.architecture
    pairs = {
        "hidden_size": wanted.width,
        "num_hidden_layers": wanted.layers,
        "patch_size": wanted.patch,
        "image_size": wanted.side,
        "projection_dim": wanted.projection,
    }
    if wrong := _differences(sizes, pairs):
        raise ValueError(
            f"{path} bears the name of an Alpha-CLIP {wanted.name} but is of another size: "
            f"{wrong}. It is another checkpoint or incomplete; download it from {row.url}."
        )


def _differences(sizes: Mapping[str, int], wanted: Mapping[str, int]) -> str:
    wrong = {key: size for key, size in wanted.items() if sizes.get(key) != size}
    return ", ".join(f"{key} {sizes.get(key)} instead of {size}" for key, size in wrong.items())


def _text_config(
    state: State, hidden_act: str = "quick_gelu", head_width: int = 64
) -> CLIPTextConfig | None:
    """Of a text tower of CLIP; None where there is none, or somebody else's."""
    needed = ("text_model.embeddings.token_embedding.weight", "text_projection.weight")
    if not all(name in state for name in needed):
        return None
    return CLIPTextConfig(**text_sizes(state, head_width), hidden_act=hidden_act)
