"""Where a checkpoint comes from: files, folders, open_clip's names and tags, the Hub.

Only finding and reading happen here; `recognition` says what was read.
"""

import difflib
import json
import os
import re
from pathlib import Path
from types import ModuleType
from typing import Any

from torch import Tensor

from .dialects import open_clip_settings
from .published import PUBLISHED, published, weights_folder
from .recognition import Checkpoint, by_config, by_open_clip, by_shapes, layout_in
from .safe_files import read_tensors

PathLike = str | os.PathLike

SHIPPED = Path(__file__).parent / "weights"
SHIPPED_NAMES = ("mini",)
"""Towers that lie inside the package."""
OPEN_CLIP_CONFIG = "open_clip_config.json"
_WEIGHTS = ("model.safetensors", "pytorch_model.bin", "model.fp16.safetensors")
_OPEN_CLIP_WEIGHTS = ("open_clip_model.safetensors", "open_clip_pytorch_model.bin", *_WEIGHTS)
_SUFFIXES = {".pth", ".pt", ".bin", ".safetensors", ".ckpt"}


def read_checkpoint(
    name_or_path: PathLike, pretrained: PathLike | None = None, subfolder: str = ""
) -> Checkpoint:
    """Weights and configurations of anything that `load_tower` takes (see there)."""
    name, path = str(name_or_path), Path(name_or_path) / subfolder
    if pretrained is not None:
        return _read_open_clip(name, str(pretrained))
    if name in SHIPPED_NAMES:
        return _read_folder(SHIPPED / name / subfolder)
    if path.is_dir():
        return _read_folder(path)
    if path.is_file():
        return _read_file(path)
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
        f"{name!r} is no file, folder, Hub id (owner/name), shipped model "
        f"({', '.join(SHIPPED_NAMES)}) or published Alpha-CLIP ({', '.join(close)}). An "
        f"architecture of open_clip needs pretrained=, a tag or a file: "
        f"load_tower('ViT-H-14', pretrained='laion2b_s32b_b79k')."
    )


# Files and folders


def _read_file(path: Path) -> Checkpoint:
    """One file; a configuration beside it is heeded, else its shapes say the architecture."""
    loaded, folder = read_tensors(path), path.parent
    layout = layout_in(str(path), loaded)
    if layout == "transformers" and (folder / "config.json").is_file():
        return by_config(str(path), loaded, read_json(folder / "config.json"), folder)
    if layout != "alpha-clip" and (folder / OPEN_CLIP_CONFIG).is_file():
        return by_open_clip(str(path), loaded, *_open_clip_json(folder), folder)
    return by_shapes(path, loaded)


def _read_folder(folder: Path) -> Checkpoint:
    source = str(folder)
    if (folder / "config.json").is_file():
        config = read_json(folder / "config.json")
        return by_config(source, _weights_of(folder, _WEIGHTS), config, folder)
    if (folder / OPEN_CLIP_CONFIG).is_file():
        loaded = _weights_of(folder, _OPEN_CLIP_WEIGHTS)
        return by_open_clip(source, loaded, *_open_clip_json(folder), folder)
    raise ValueError(
        f"{source!r} has no config.json or {OPEN_CLIP_CONFIG}; expected a folder that "
        f"save_pretrained() wrote. Of a pipeline, name the part: subfolder='image_encoder'."
    )


def read_json(path: Path) -> dict[str, Any]:
    """What a JSON file says."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{str(path)!r} is damaged or no JSON ({error}).") from error


def _weights_of(folder: Path, names: tuple[str, ...]) -> dict[str, Tensor]:
    """All weights of a folder, in one file or in several with an index."""
    for name in names:
        index = folder / f"{name}.index.json"
        if index.is_file():
            files = sorted({Path(file).name for file in read_json(index)["weight_map"].values()})
            parts = [read_tensors(folder / file) for file in files]
            return {key: value for part in parts for key, value in part.items()}
        if (folder / name).is_file():
            return read_tensors(folder / name)
    raise FileNotFoundError(f"{str(folder)!r} has no weights; expected one of {', '.join(names)}.")


# open_clip


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
        return by_open_clip(source, read_tensors(pretrained), config, {})
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
    return by_open_clip(source, read_tensors(path), config, tag)


def _open_clip() -> ModuleType:
    try:
        import open_clip
    except ImportError as error:
        raise ImportError(
            "names of open_clip need open_clip: pip install 'alphaclip-gen[train]'."
        ) from error
    return open_clip


def _open_clip_json(folder: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """The model's and the preprocessing's settings of a folder."""
    config = read_json(folder / OPEN_CLIP_CONFIG)
    return config.get("model_cfg", config), config.get("preprocess_cfg", {})


# The Hub


def _fetch(repository: str, subfolder: str) -> Path:
    """The folder of a Hub repository in the local cache, with only the files that are needed."""
    root = f"{subfolder}/" if subfolder else ""
    folder = fetch(repository, [f"{root}*.json", f"{root}*.txt"]) / subfolder
    known = _WEIGHTS if (folder / "config.json").is_file() else _OPEN_CLIP_WEIGHTS
    for name in known:
        stem, _, end = name.rpartition(".")
        fetch(repository, [f"{root}{name}", f"{root}{stem}-*.{end}"])
        if (folder / name).is_file() or list(folder.glob(f"{stem}-*.{end}")):
            break
    return folder


def fetch(repository: str, patterns: list[str]) -> Path:
    """A Hub repository in the local cache, where its files of these patterns are now."""
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(repository, allow_patterns=patterns))
    except (OSError, ValueError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise FileNotFoundError(
            f"{repository!r} is no file or folder here, and the Hub does not give it ({reason}). "
            f"Check the name, the network and your access."
        ) from error
