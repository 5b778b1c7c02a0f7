"""Models back into every layout that they can come from: files, folders, and stock CLIP.

With its alpha folded into the position embedding a model becomes a stock CLIP of three channels,
which programs without us can load.
"""

from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from transformers import (
    CLIPConfig,
    CLIPModel,
    CLIPVisionConfig,
    CLIPVisionModel,
    CLIPVisionModelWithProjection,
    PreTrainedModel,
)

from .checkpoints import Tower, no_progress_bar
from .dialects import ALPHA, Layout, State, fold_alpha, from_transformers
from .sources import OPEN_CLIP_CONFIG, PathLike
from .vision import AlphaCLIPModel, AlphaCLIPVisionModel
from .whole_files import whole_file, write_json

FILES = {
    "alpha-clip": "alpha_clip_visual.pth",
    "openai": "clip.pt",
    "open_clip": "open_clip_model.safetensors",
}
"""The file that each layout but transformers' is written to."""


def to_stock(model: Tower | AlphaCLIPModel) -> PreTrainedModel:
    """transformers' own CLIP, of three channels, that equals the model attending everywhere.

    The same class without "Alpha": CLIPModel, CLIPVisionModelWithProjection or CLIPVisionModel.
    """
    state = _unprefixed(model, fold_alpha(_state(model)))
    settings = {**model.config.to_dict(), "architectures": None}
    settings.pop("model_type")
    kind: type[PreTrainedModel] = CLIPVisionModelWithProjection
    config: Any = CLIPVisionConfig
    if isinstance(model, AlphaCLIPModel):
        kind, config = CLIPModel, CLIPConfig
        settings["vision_config"] = {**settings["vision_config"], "model_type": "clip_vision_model"}
    elif isinstance(model, AlphaCLIPVisionModel):
        kind = CLIPVisionModel
    with no_progress_bar():
        stock = kind.from_pretrained(
            None, config=config(**settings), state_dict=state, dtype=model.dtype
        )
    return stock.eval()


def state_in(model: Tower | AlphaCLIPModel, layout: Layout, fold: bool = False) -> State:
    """The model's weights under the names of a layout.

    Args:
        model: a tower or a whole model.
        layout: as in `dialects`; "alpha-clip" takes the vision tower only.
        fold: three channels, with attending everywhere folded in. Alpha weights that are all zero
            need no folding where a layout has no place for them.
    """
    state = _state(model)
    if fold or (layout in ("openai", "open_clip") and not state[ALPHA].any()):
        state = fold_alpha(state)
    return from_transformers(state, layout)


def export(
    model: Tower | AlphaCLIPModel,
    folder: PathLike,
    layout: Layout = "transformers",
    fold: bool = False,
) -> Path:
    """The file or folder that the model was written to, which `load_tower` reads again.

    Args:
        model: a tower or a whole model.
        folder: is made; files of the same names are replaced.
        layout: "transformers" writes a folder for from_pretrained, the others one file; for
            open_clip with a text tower also the configuration for its "local-dir:" names.
        fold: as in `state_in`; for transformers it writes stock CLIP.

    Raises:
        ValueError: the layout has no place for the model's activation or number of heads.
    """
    folder = Path(folder)
    if layout in ("alpha-clip", "openai"):
        _check_is_told_by_shapes(model, layout)
    if layout == "transformers":
        with no_progress_bar():
            (to_stock(model) if fold else model).save_pretrained(folder)
        return folder
    state = {name: value.contiguous() for name, value in state_in(model, layout, fold).items()}
    path = folder / FILES[layout]
    if layout == "open_clip":
        if isinstance(model, AlphaCLIPModel) and state["visual.conv1.weight"].shape[1] == 3:
            write_json(folder / OPEN_CLIP_CONFIG, {"model_cfg": open_clip_config(model)})
        with whole_file(path) as part:
            save_file(state, part)
    else:
        with whole_file(path) as part:
            torch.save(state, part)
    return path


def _check_is_told_by_shapes(model: Tower | AlphaCLIPModel, layout: Layout) -> None:
    """These layouts hold weights only; all else is taken to be as OpenAI's models have it."""
    vision: Any = getattr(model.config, "vision_config", model.config)
    width, heads = vision.hidden_size, vision.num_attention_heads
    if vision.hidden_act != "quick_gelu" or heads * 64 != width:
        raise ValueError(
            f"layout is {layout!r}, which can't say that a model has {vision.hidden_act} and "
            f"{heads} heads in {width} channels: readers would take it for quick_gelu and "
            f"{width // 64} heads. Use 'transformers', or 'open_clip' and its name there."
        )


def open_clip_config(model: AlphaCLIPModel) -> dict[str, Any]:
    """The model as open_clip describes it, for `open_clip.create_model("local-dir:...")`."""
    vision: Any = model.config.vision_config
    text: Any = model.config.text_config
    return {
        "embed_dim": model.config.projection_dim,
        "quick_gelu": vision.hidden_act == "quick_gelu",
        "vision_cfg": {
            "image_size": vision.image_size,
            "layers": vision.num_hidden_layers,
            "width": vision.hidden_size,
            "head_width": vision.hidden_size // vision.num_attention_heads,
            "mlp_ratio": _ratio(vision),
            "patch_size": vision.patch_size,
        },
        "text_cfg": {
            "context_length": text.max_position_embeddings,
            "vocab_size": text.vocab_size,
            "width": text.hidden_size,
            "heads": text.num_attention_heads,
            "layers": text.num_hidden_layers,
            "mlp_ratio": _ratio(text),
        },
    }


def _ratio(config: Any) -> float:
    """Which open_clip multiplies by the width and cuts to a whole number."""
    exact = config.intermediate_size / config.hidden_size
    return exact if int(exact * config.hidden_size) == config.intermediate_size else exact + 1e-6


def _state(model: Tower | AlphaCLIPModel) -> State:
    """The weights under the names of the whole model, whichever class it is."""
    prefix = "vision_model." if isinstance(model, AlphaCLIPVisionModel) else ""
    return {f"{prefix}{name}": value.detach() for name, value in model.state_dict().items()}


def _unprefixed(model: PreTrainedModel, state: State) -> State:
    prefix = "vision_model." if isinstance(model, AlphaCLIPVisionModel) else ""
    return {name.removeprefix(prefix): value.clone() for name, value in state.items()}
