"""Towers from the checkpoints that people have: Alpha-CLIP, OpenAI, open_clip, transformers, ours.

A plain CLIP becomes an Alpha-CLIP with zero alpha weights and equals its base bit for bit. Nothing
is left at random: weights that are missing, unexpected or misshapen are refused by name. No code of
a file is run (see `safe_files`).
"""

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, TypeVar

import torch
from torch import Tensor
from transformers import PreTrainedConfig, PreTrainedModel
from transformers.utils import logging as transformers_logging

from .dialects import ALPHA, State, name_in
from .processor import AlphaCLIPImageProcessor
from .published import weights_folder
from .recognition import Checkpoint
from .sources import PathLike, read_checkpoint, read_json
from .vision import (
    AlphaCLIPConfig,
    AlphaCLIPModel,
    AlphaCLIPVisionModel,
    AlphaCLIPVisionModelWithProjection,
)

Tower = AlphaCLIPVisionModelWithProjection | AlphaCLIPVisionModel
Model = TypeVar("Model", bound=PreTrainedModel)

_TEXT_SIDE = re.compile(r"text_model\..*|text_projection\.weight|logit_scale")
_FOREIGN_TEXT = re.compile(r"text\..*")  # open_clip with a text tower from transformers
_PROCESSOR = "preprocessor_config.json"
_LISTED = 8


def load_tower(
    name_or_path: PathLike,
    pretrained: PathLike | None = None,
    *,
    projection: bool | None = None,
    subfolder: str = "",
    dtype: torch.dtype = torch.float32,
) -> Tower:
    """An Alpha-CLIP tower in evaluation mode, from any of the checkpoints that people have.

    Args:
        name_or_path: a file (published Alpha-CLIP, OpenAI's state dict or TorchScript archive), a
            folder (of transformers, ours or open_clip), a Hub id, the name of a published
            Alpha-CLIP that lies in `weights_folder()`, a shipped name ("mini"), or, together with
            `pretrained`, open_clip's name of an architecture.
        pretrained: open_clip's tag, which is downloaded, or a file of that architecture.
        projection: True and False demand the tower with and without its projection into the space
            shared with texts; None gives what the checkpoint has.
        subfolder: of a folder or Hub id, such as "image_encoder".
        dtype: of the weights.

    Raises:
        FileNotFoundError: nothing bears the name; for a published one, says what to download.
        ValueError: damaged, unsafe, incomplete, of another architecture or size.

    >>> load_tower("ViT-L-14.pt")                                      # OpenAI's archive
    >>> load_tower("clip_l14_grit20m_fultune_2xe.pth")                 # Alpha-CLIP's
    >>> load_tower("ViT-H-14", pretrained="laion2b_s32b_b79k")         # open_clip's
    """
    return make_tower(read_checkpoint(name_or_path, pretrained, subfolder), projection, dtype)


def load_model(
    name_or_path: PathLike,
    pretrained: PathLike | None = None,
    *,
    text: PathLike | None = None,
    subfolder: str = "",
    dtype: torch.dtype = torch.float32,
) -> AlphaCLIPModel:
    """An Alpha-CLIP with its text tower, in evaluation mode.

    Args:
        name_or_path: as in `load_tower`.
        pretrained: as in `load_tower`.
        text: the CLIP that the checkpoint was tuned from, where it has no text tower. With a
            published Alpha-CLIP goes OpenAI's of the same architecture: its file in
            `weights_folder()` (such as ViT-L-14.pt), else from the Hub.
        subfolder: as in `load_tower`.
        dtype: of the weights.
    """
    checkpoint = read_checkpoint(name_or_path, pretrained, subfolder)
    return make_model(checkpoint, text_side(checkpoint, text), dtype)


def load_processor(
    name_or_path: PathLike, pretrained: PathLike | None = None, *, subfolder: str = ""
) -> AlphaCLIPImageProcessor:
    """The image processor for the tower of the same name: its size and normalization."""
    return make_processor(read_checkpoint(name_or_path, pretrained, subfolder))


def text_side(checkpoint: Checkpoint, text: PathLike | None = None) -> Checkpoint:
    """Where the text tower comes from: `text`, the checkpoint itself, or what was published."""
    if text is not None:
        return read_checkpoint(text)
    if checkpoint.text is not None or checkpoint.published is None:
        return checkpoint
    base = checkpoint.published.architecture
    file = weights_folder() / base.clip_file
    try:
        return read_checkpoint(file if file.is_file() else base.clip)
    except FileNotFoundError as error:
        raise FileNotFoundError(
            f"{checkpoint.source} holds no text tower; its own is that of OpenAI's {base.name}. "
            f"{error} Or put OpenAI's {base.clip_file} into {weights_folder()}, or pass text=."
        ) from error


def make_tower(
    checkpoint: Checkpoint, projection: bool | None = None, dtype: torch.dtype = torch.float32
) -> Tower:
    """The tower of a checkpoint that was read (see `load_tower`)."""
    if projection and not checkpoint.has_projection:
        raise ValueError(
            f"{checkpoint.source} has no visual_projection.weight, so it cannot be a tower with "
            f"projection. load_tower(..., projection=False) gives the tower without."
        )
    state = {
        name: value
        for name, value in checkpoint.state.items()
        if not _TEXT_SIDE.fullmatch(name) and not _FOREIGN_TEXT.fullmatch(name)
    }
    if checkpoint.has_projection if projection is None else projection:
        return _make(
            AlphaCLIPVisionModelWithProjection, checkpoint.vision, state, checkpoint, dtype
        )
    state.pop("visual_projection.weight", None)
    return _make(AlphaCLIPVisionModel, checkpoint.vision, state, checkpoint, dtype)


def make_model(
    checkpoint: Checkpoint, text: Checkpoint | None = None, dtype: torch.dtype = torch.float32
) -> AlphaCLIPModel:
    """The tower of one checkpoint with the text tower of `text`, or with its own."""
    words = text or checkpoint
    if words.text is None:
        raise ValueError(
            f"{words.source} has no text tower of CLIP. Pass text=, the CLIP that it was tuned "
            f"from (a file, folder or Hub id), or use load_tower() for the tower alone."
        )
    if not checkpoint.has_projection:
        raise ValueError(
            f"{checkpoint.source} has no visual_projection.weight, so it shares no space with "
            f"texts. load_tower() gives the tower alone."
        )
    given, wanted = words.text.projection_dim, checkpoint.vision.projection_dim
    if given != wanted:
        raise ValueError(
            f"text={words.source} has {given} channels, {checkpoint.source} has {wanted}; expected "
            f"the CLIP that the tower was tuned from."
        )
    state = {n: v for n, v in checkpoint.state.items() if not (text and _TEXT_SIDE.fullmatch(n))}
    state |= {name: value for name, value in words.state.items() if _TEXT_SIDE.fullmatch(name)}
    if state.get("logit_scale", torch.empty(2)).numel() == 1:
        state["logit_scale"] = state["logit_scale"].reshape(())  # open_clip has some of shape (1,)
    config = AlphaCLIPConfig(
        vision_config=checkpoint.vision.to_dict(),
        text_config=words.text.to_dict(),
        projection_dim=wanted,
    )
    return _make(AlphaCLIPModel, config, state, checkpoint, dtype)


def make_processor(checkpoint: Checkpoint) -> AlphaCLIPImageProcessor:
    """The image processor of a checkpoint that was read."""
    folder = checkpoint.folder
    if not checkpoint.look and folder and (folder / _PROCESSOR).is_file():
        settings = read_json(folder / _PROCESSOR)
        size, crops = settings.get("size"), settings.get("do_center_crop")
        if crops is None:  # SigLIP's, which resize to an exact size, do not say that they don't
            crops = not (isinstance(size, dict) and "height" in size)
        return AlphaCLIPImageProcessor.from_pretrained(folder, do_center_crop=crops)
    return AlphaCLIPImageProcessor.for_side(checkpoint.vision.image_size, **checkpoint.look or {})


def _make(
    kind: type[Model],
    config: PreTrainedConfig,
    state: State,
    checkpoint: Checkpoint,
    dtype: torch.dtype,
) -> Model:
    """The model of exactly these weights; a plain CLIP gets alpha weights of zero."""
    prefix = "vision_model." if kind is AlphaCLIPVisionModel else ""
    with torch.device("meta"):
        shapes = {f"{prefix}{name}": v.shape for name, v in kind(config).state_dict().items()}
    if ALPHA not in state and checkpoint.layout != "alpha-clip":
        state[ALPHA] = torch.zeros(shapes[ALPHA], dtype=dtype)
    _check_weights(state, shapes, checkpoint)
    # Copies, since tensors of a file lie unaligned in memory: slower, and 1e-7 off the base.
    named = {name.removeprefix(prefix): value.clone() for name, value in state.items()}
    with no_progress_bar():
        return kind.from_pretrained(None, config=config, state_dict=named, dtype=dtype).eval()


@contextmanager
def no_progress_bar(library: Any = transformers_logging) -> Iterator[None]:
    """A library shows a bar for weights that are at hand already: not while this holds.

    Args:
        library: its logging module, transformers' or diffusers'.
    """
    shown = library.is_progress_bar_enabled()
    library.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            library.enable_progress_bar()


def _check_weights(
    state: Mapping[str, Tensor], shapes: Mapping[str, torch.Size], checkpoint: Checkpoint
) -> None:
    """Refuses weights that are missing, unexpected or misshapen, by their names in the source."""

    def listed(names: set[str]) -> str:
        theirs = list(dict.fromkeys(name_in(name, checkpoint.layout) for name in sorted(names)))
        more = f" and {len(theirs) - _LISTED} more" if len(theirs) > _LISTED else ""
        return ", ".join(theirs[:_LISTED]) + more

    problems = {
        "missing": shapes.keys() - state.keys(),
        "unexpected": state.keys() - shapes.keys(),
        "of another size": {n for n in shapes.keys() & state.keys() if state[n].shape != shapes[n]},
    }
    if any(problems.values()):
        told = "; ".join(f"{what}: {listed(names)}" for what, names in problems.items() if names)
        for name in sorted(problems["of another size"])[:1]:
            told += f" ({tuple(state[name].shape)} instead of {tuple(shapes[name])})"
        raise ValueError(
            f"{checkpoint.source} does not hold exactly the weights of its architecture. {told}. "
            f"It is incomplete or of another model."
        )
