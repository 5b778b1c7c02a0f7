"""What a name, file or folder holds: weights in transformers' layout with their configurations.

Doors for files of OpenAI and Alpha-CLIP, for folders of transformers, for open_clip and for the
Hub. Only reading and recognizing happen here; `checkpoints` makes models of it.
"""

import difflib
import json
import logging
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

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
from .published import LICENSE, PUBLISHED, Published, published, weights_folder
from .safe_files import read_tensors
from .vision import AlphaCLIPConfig, AlphaCLIPVisionConfig

logger = logging.getLogger(__name__)

PathLike = str | os.PathLike

SHIPPED = Path(__file__).parent / "weights"
OPEN_CLIP_CONFIG = "open_clip_config.json"
_CONFIGS: dict[str, type[PreTrainedConfig]] = {
    "clip": CLIPConfig,
    "clip_vision_model": CLIPVisionConfig,
    "alpha_clip": AlphaCLIPConfig,
    "alpha_clip_vision_model": AlphaCLIPVisionConfig,
}
_WEIGHTS = ("model.safetensors", "pytorch_model.bin", "model.fp16.safetensors")
_OPEN_CLIP_WEIGHTS = ("open_clip_model.safetensors", "open_clip_pytorch_model.bin", *_WEIGHTS)
_SUFFIXES = {".pth", ".pt", ".bin", ".safetensors", ".ckpt"}
_WIDEST_OF_OPENAI = 1024


@dataclass(frozen=True)
class Checkpoint:
    """A CLIP as it was read, before a model is made of it.

    Attributes:
        source: what it was read from, for messages.
        layout: the layout it was in.
        state: its weights in transformers' layout; alpha weights only where it has them.
        vision: configuration of the tower.
        text: configuration of the text tower, where there is a whole one of CLIP.
        normalization: image_mean and image_std, where the source tells them.
        folder: with preprocessor and tokenizer files, where it was read from one.
        published: its row in the table of published checkpoints.
    """

    source: str
    layout: Layout
    state: State
    vision: AlphaCLIPVisionConfig
    text: CLIPTextConfig | None = None
    normalization: Mapping[str, tuple[float, ...]] | None = None
    folder: Path | None = None
    published: Published | None = None

    @property
    def has_projection(self) -> bool:
        """Whether it reaches the space shared with texts."""
        return "visual_projection.weight" in self.state


def read_checkpoint(
    name_or_path: PathLike, pretrained: PathLike | None = None, subfolder: str = ""
) -> Checkpoint:
    """Weights and configurations of anything that `load_tower` takes (see there)."""
    name, path = str(name_or_path), Path(name_or_path) / subfolder
    if pretrained is not None:
        return _read_open_clip(name, str(pretrained))
    if path.is_dir():
        return _read_folder(path)
    if path.is_file():
        return _read_file(path)
    if (SHIPPED / name / "config.json").is_file():
        return _read_folder(SHIPPED / name)
    if row := published(path.name):
        here = weights_folder() / row.file
        if path.parent == Path() and here.is_file():
            return _read_file(here)
        raise FileNotFoundError(row.how_to_get(path if path.suffix else here))
    if path.suffix not in _SUFFIXES and re.fullmatch(r"[\w.-]+/[\w.-]+", name):
        return _read_folder(_fetch(name, subfolder))
    raise FileNotFoundError(_nothing_by(name))


def _nothing_by(name: str) -> str:
    names = [row.name for row in PUBLISHED]
    close = difflib.get_close_matches(Path(name).stem, names, n=3, cutoff=0.5) or names
    return (
        f"{name!r} is no file, folder, Hub id (owner/name), shipped model (mini) or published "
        f"Alpha-CLIP ({', '.join(close)}). An architecture of open_clip needs pretrained=, a tag "
        f"or a file: load_tower('ViT-H-14', pretrained='laion2b_s32b_b79k')."
    )


def _read_file(path: Path) -> Checkpoint:
    """One file; a configuration beside it is heeded, else its shapes say the architecture."""
    loaded = read_tensors(path)
    layout, state = _recognized(str(path), loaded)
    if layout == "transformers" and (path.parent / "config.json").is_file():
        return _with_config(str(path), _json(path.parent / "config.json"), state)
    if layout != "alpha-clip" and (path.parent / OPEN_CLIP_CONFIG).is_file():
        return _of_open_clip(str(path), loaded, **_open_clip_json(path.parent))
    sizes = _sizes(str(path), state)
    row = published(path.name)
    if row:
        _check_published(row, sizes, path)
        logger.warning("%s: %s.", row.name, LICENSE)
    elif layout != "alpha-clip" and not is_marked_openai(loaded):
        _take_for_openai(path, sizes["hidden_size"])
    vision = AlphaCLIPVisionConfig(**sizes)
    return Checkpoint(str(path), layout, state, vision, _text_config(state), published=row)


def _recognized(source: str, loaded: Mapping[str, Tensor]) -> tuple[Layout, State]:
    try:
        return layout_of(loaded), to_transformers(loaded)
    except ValueError as error:
        raise ValueError(f"{source}: {error}") from error


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


def _read_folder(folder: Path) -> Checkpoint:
    if (folder / "config.json").is_file():
        _, state = _recognized(str(folder), _weights_of(folder, _WEIGHTS))
        return _with_config(str(folder), _json(folder / "config.json"), state, folder)
    if (folder / OPEN_CLIP_CONFIG).is_file():
        loaded = _weights_of(folder, _OPEN_CLIP_WEIGHTS)
        return _of_open_clip(str(folder), loaded, **_open_clip_json(folder))
    raise ValueError(
        f"{str(folder)!r} has no config.json or {OPEN_CLIP_CONFIG}; expected a folder that "
        f"save_pretrained() wrote. Of a pipeline, name the part: subfolder='image_encoder'."
    )


def _json(path: Path) -> dict[str, Any]:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{str(path)!r} is damaged or no JSON ({error}).") from error


def _weights_of(folder: Path, names: tuple[str, ...]) -> dict[str, Tensor]:
    """All weights of a folder, in one file or in several with an index."""
    for name in names:
        index = folder / f"{name}.index.json"
        if index.is_file():
            files = sorted({Path(file).name for file in _json(index)["weight_map"].values()})
            parts = [read_tensors(folder / file) for file in files]
            return {key: value for part in parts for key, value in part.items()}
        if (folder / name).is_file():
            return read_tensors(folder / name)
    raise FileNotFoundError(f"{str(folder)!r} has no weights; expected one of {', '.join(names)}.")


def _with_config(
    source: str, config: dict[str, Any], state: State, folder: Path | None = None
) -> Checkpoint:
    """Weights of transformers' layout with their configuration, whatever version wrote it."""
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
    vision_config = AlphaCLIPVisionConfig(**vision)
    return Checkpoint(source, "transformers", state, vision_config, text, folder=folder)


def _fields(config: PreTrainedConfig, kind: type[PreTrainedConfig]) -> dict[str, Any]:
    """The settings that make the architecture, without names, versions and dtype."""
    about_the_file = {"model_type", "architectures", "dtype", "transformers_version"}
    known = kind().to_dict().keys() - about_the_file
    return {key: value for key, value in config.to_dict().items() if key in known}


def _read_open_clip(name: str, pretrained: str) -> Checkpoint:
    """An architecture of open_clip with the weights of a tag (downloaded) or of a file."""
    open_clip = _open_clip()
    name = name.replace("/", "-")
    config = open_clip.get_model_config(name)
    if config is None:
        known = [model for model in open_clip.list_models() if model.startswith("ViT")]
        close = difflib.get_close_matches(name, known, n=3, cutoff=0.4) or known[:8]
        raise ValueError(
            f"{name!r} is no architecture that open_clip knows; the nearest are "
            f"{', '.join(close)}. pretrained= goes with names of open_clip only."
        )
    open_clip_settings(config)  # refuses before anything is downloaded
    source = f"{name} {pretrained}"
    if Path(pretrained).is_file():
        return _of_open_clip(source, read_tensors(pretrained), config)
    tag = open_clip.get_pretrained_cfg(name, pretrained)
    if not tag:
        tags = ", ".join(open_clip.list_pretrained_tags_by_model(name)) or "none"
        raise ValueError(
            f"pretrained={pretrained!r} is neither a file nor a tag of {name}; its tags: {tags}."
        )
    config["quick_gelu"] = bool(tag.get("quick_gelu") or config.get("quick_gelu"))
    try:
        path = open_clip.download_pretrained(tag)
    except (OSError, RuntimeError) as error:
        raise FileNotFoundError(
            f"could not download {source} ({error}). Fetch the file by hand and pass its path as "
            f"pretrained=."
        ) from error
    return _of_open_clip(source, read_tensors(path), config, tag)


def _open_clip() -> ModuleType:
    try:
        import open_clip
    except ImportError as error:
        raise ImportError(
            "names of open_clip need open_clip: pip install 'alphaclip-gen[train]'."
        ) from error
    return open_clip


def _open_clip_json(folder: Path) -> dict[str, Any]:
    config = _json(folder / OPEN_CLIP_CONFIG)
    return {"config": config.get("model_cfg", config), "look": config.get("preprocess_cfg", {})}


def _of_open_clip(
    source: str,
    loaded: Mapping[str, Tensor],
    config: Mapping[str, Any],
    look: Mapping[str, Any] | None = None,
) -> Checkpoint:
    """Weights in open_clip's layout, which must be of the sizes that its model config names."""
    layout, state = _recognized(source, loaded)
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
    activation = settings["hidden_act"]
    text = None
    if not words.get("hf_model_name") and not words.get("no_causal_mask"):
        text = _text_config(state, activation, words.get("width", 512) // words.get("heads", 8))
    normalization = {
        f"image_{key}": tuple(look[key]) for key in ("mean", "std") if look and look.get(key)
    }
    vision_config = AlphaCLIPVisionConfig(**sizes, hidden_act=activation)
    return Checkpoint(source, layout, state, vision_config, text, normalization)


def _fetch(repository: str, subfolder: str) -> Path:
    """The folder of a Hub repository in the local cache, with only the files that are needed."""
    from huggingface_hub import snapshot_download

    root = f"{subfolder}/" if subfolder else ""
    small = [f"{root}*.json", f"{root}*.txt"]
    try:
        folder = Path(snapshot_download(repository, allow_patterns=small)) / subfolder
        known = _WEIGHTS if (folder / "config.json").is_file() else _OPEN_CLIP_WEIGHTS
        for name in known:
            stem, _, end = name.rpartition(".")
            parts = [f"{root}{name}", f"{root}{stem}-*.{end}"]
            snapshot_download(repository, allow_patterns=parts)
            if (folder / name).is_file() or list(folder.glob(f"{stem}-*.{end}")):
                break
    except (OSError, ValueError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise FileNotFoundError(
            f"{repository!r} is no file or folder here, and the Hub does not give it ({reason}). "
            f"Check the name, the network and your access."
        ) from error
    return folder
