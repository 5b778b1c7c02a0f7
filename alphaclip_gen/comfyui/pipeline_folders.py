"""Diffusers pipelines in models/diffusers: which there are, and their loading."""

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import torch

from . import host

INDEX = "model_index.json"
DEEPEST = 3
"""Folders down to a pipeline, at most: as deep as a cache of the Hub (models--*/snapshots/*). The
core asks for the names whenever it checks a graph, and models/diffusers may hold anything."""
INSTALL = (
    "Install it into ComfyUI's Python: python -m pip install 'diffusers>=0.36' 'accelerate>=1.1'"
)


class Kind(NamedTuple):
    """Classes that a model_index.json may name, and the Hub's repository to download."""

    classes: tuple[str, ...]
    source: str


BLIP_DIFFUSION = Kind(
    ("AlphaBlipDiffusionPipeline", "BlipDiffusionPipeline"), "Salesforce/blipdiffusion"
)
SHAP_E = Kind(("ShapEImg2ImgPipeline",), "openai/shap-e-img2img")


def names(kind: Kind) -> list[str]:
    """The pipelines of a kind, as paths below models/diffusers."""
    found = {
        folder.relative_to(place).as_posix()
        for place in host.diffusers_folders()
        for folder in _pipelines(place)
        if class_of(folder) in kind.classes
    }
    return sorted(found)


def _pipelines(place: Path) -> Iterator[Path]:
    for name, below, files in os.walk(place, followlinks=True):
        folder = Path(name)
        if INDEX in files:
            yield folder
        if INDEX in files or len(folder.relative_to(place).parts) == DEEPEST:
            below.clear()


def class_of(folder: Path) -> str | None:
    """The class that the folder's model_index.json names; None where it cannot be read."""
    try:
        index = json.loads((folder / INDEX).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return index.get("_class_name") if isinstance(index, dict) else None


def find(name: str, kind: Kind) -> Path:
    """The folder of a pipeline's name.

    Raises:
        FileNotFoundError: there is none.
        ValueError: it is of another kind.
    """
    for place in host.diffusers_folders():
        folder = place / name
        if not name or not (folder / INDEX).is_file():
            continue
        if class_of(folder) not in kind.classes:
            raise ValueError(
                f"model is {name!r}, whose {INDEX} names {class_of(folder)}; expected "
                f"{' or '.join(kind.classes)}, such as a download of {kind.source}."
            )
        return folder
    raise FileNotFoundError(
        f"model is {name!r}, and models/diffusers has no such folder with a {INDEX}; download the "
        f"whole repository {kind.source} into a folder there, and press R."
    )


@contextmanager
def needs_diffusers(node: str) -> Iterator[None]:
    """While this holds, an import that fails says what the node needs, and how to install it."""
    try:
        yield
    except ImportError as error:
        raise ImportError(f"{node} needs diffusers ({error}). {INSTALL}") from error


@lru_cache(maxsize=1)
def load(folder: Path, pipeline: Any) -> Any:
    """The folder's pipeline of a class, in main memory and trainable; the last one is kept."""
    with torch.inference_mode(False):
        pipe = pipeline.from_pretrained(
            folder, torch_dtype=host.pipeline_dtype(host.compute_device()), local_files_only=True
        )
    pipe.set_progress_bar_config(disable=True)
    return pipe
