"""Checkpoints from one layout into another: what `alphaclip-gen convert` does."""

import logging
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import torch
import tyro
from rich.console import Console
from rich.table import Table
from torch import Tensor
from transformers import CLIPImageProcessor, PreTrainedTokenizerBase

from .checkpoints import Tower, make_model, make_processor, make_tower
from .dialects import ALPHA, Layout
from .exporting import export
from .processor import AlphaCLIPImageProcessor
from .published import LICENSE
from .recognition import Checkpoint
from .sources import PathLike, read_checkpoint
from .tokenizer import find_tokenizer
from .vision import AlphaCLIPModel

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Conversion:
    """What was read and written: rows of a table, and the file or folder."""

    rows: tuple[tuple[str, str], ...]
    path: Path


def convert(
    source: PathLike,
    to: PathLike,
    pretrained: PathLike | None = None,
    text: PathLike | None = None,
    subfolder: str = "",
    layout: Layout = "transformers",
    fold: bool = False,
    dtype: torch.dtype = torch.float32,
) -> Conversion:
    """What was read of `source` and where it was written, in another layout.

    The text tower goes along where there is one. A folder of transformers also gets the image
    processor and, with a text tower, the tokenizer, so that RegionEncoder.from_pretrained opens it.

    Args:
        source: as `load_tower`'s name_or_path.
        to: folder, new or empty.
        pretrained: as in `load_tower`.
        text: where the text tower comes from, as in `load_model`.
        subfolder: as in `load_tower`.
        layout: to write.
        fold: three channels, with attending everywhere folded in.
        dtype: of the weights written.
    """
    folder = Path(to)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ValueError(f"to={str(folder)!r} is not empty; expected a new or an empty folder.")
    checkpoint = read_checkpoint(source, pretrained, subfolder)
    words = read_checkpoint(text) if text is not None else checkpoint
    model: Tower | AlphaCLIPModel
    if words.text is not None and checkpoint.has_projection:
        model = make_model(checkpoint, words, dtype)
    else:
        model = make_tower(checkpoint, dtype=dtype)
    rows = _rows(checkpoint, words)
    is_folder = layout == "transformers"
    tokenizer = _tokenizer(words) if is_folder and isinstance(model, AlphaCLIPModel) else None
    path = export(model, folder, layout, fold)
    if is_folder:
        processor = make_processor(checkpoint)
        (_stock_processor(processor) if fold else processor).save_pretrained(folder)
    if tokenizer is not None:
        tokenizer.save_pretrained(folder)
    kept = "folded into the position embedding" if fold else "not folded"
    rows.append(
        ("written", f"{path} ({layout}, {str(dtype).removeprefix('torch.')}; alpha {kept})")
    )
    return Conversion(tuple(rows), path)


def _stock_processor(processor: AlphaCLIPImageProcessor) -> CLIPImageProcessor:
    """transformers' own with the same settings: what is folded takes three channels only."""
    settings, known = processor.to_dict(), CLIPImageProcessor().to_dict()
    kept = settings.keys() & known.keys() - {"image_processor_type"}
    return CLIPImageProcessor(**{name: settings[name] for name in kept})


def _tokenizer(words: Checkpoint) -> PreTrainedTokenizerBase | None:
    tokenizer = find_tokenizer(words)
    if tokenizer is None:
        logger.warning(
            "%s has no tokenizer, and CLIP's is not installed: none is written.", words.source
        )
    return tokenizer


def _rows(checkpoint: Checkpoint, words: Checkpoint) -> list[tuple[str, str]]:
    """What was read, as a reader wants to check it."""
    vision, text = checkpoint.vision, words.text
    dtypes = Counter(str(value.dtype).removeprefix("torch.") for value in checkpoint.state.values())
    numbers = sum(value.numel() for value in checkpoint.state.values())
    rows = [
        ("source", checkpoint.source),
        ("layout", checkpoint.layout),
        (
            "weights",
            f"{len(checkpoint.state)} tensors, {numbers / 1e6:.1f} M numbers, "
            + ", ".join(f"{count} {kind}" for kind, count in dtypes.most_common()),
        ),
        (
            "tower",
            f"{vision.num_hidden_layers} layers, {vision.hidden_size} wide, "
            f"{vision.num_attention_heads} heads, patch {vision.patch_size}, {vision.image_size} "
            f"px, {vision.hidden_act}",
        ),
        ("alpha", _alpha(checkpoint.state.get(ALPHA))),
        ("projection", str(vision.projection_dim) if checkpoint.has_projection else "none"),
        ("text tower", _text(words) if text else "none"),
    ]
    if checkpoint.published:
        rows.append(("license", LICENSE))
    return rows


def _alpha(weights: Tensor | None) -> str:
    if weights is None:
        return "none: zero weights are added, which equal the base"
    largest = weights.abs().max().item()
    return f"trained, weights up to {largest:.3g}" if largest else "zero: equals its base"


def _text(words: Checkpoint) -> str:
    text = words.text
    assert text is not None
    return (
        f"{text.num_hidden_layers} layers, {text.hidden_size} wide, {text.vocab_size} words, "
        f"from {words.source}"
    )


@dataclass(frozen=True)
class Convert:
    """Read a CLIP or Alpha-CLIP of any layout, check it, and write it in another."""

    source: Annotated[str, tyro.conf.Positional]
    """A file, folder, Hub id, published name, or with --pretrained a name of open_clip."""
    to: Path
    """Folder to write, new or empty."""
    pretrained: str | None = None
    """open_clip's tag, which is downloaded, or a file of that architecture."""
    text: str | None = None
    """Where the text tower comes from, if the source has none."""
    subfolder: str = ""
    """Of a folder or Hub id, such as image_encoder."""
    layout: Layout = "transformers"
    """What to write; transformers is what this package and diffusers load."""
    fold: bool = False
    """Write three channels: attending everywhere becomes part of the position embedding."""
    half: bool = False
    """Write half precision."""


def convert_command(config: Convert, console: Console) -> Conversion:
    """Converts, and prints the table of what was read and written."""
    result = convert(
        config.source,
        config.to,
        config.pretrained,
        config.text,
        config.subfolder,
        config.layout,
        config.fold,
        torch.float16 if config.half else torch.float32,
    )
    table = Table(title="alphaclip-gen convert", show_header=False)
    for row in result.rows:
        table.add_row(*row)
    console.print(table)
    return result
