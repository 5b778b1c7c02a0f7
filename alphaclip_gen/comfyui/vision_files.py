"""Single files of models/clip_vision, a folder that the models of all packs share.

So a config.json or a vocab.json beside a file may be another model's: it counts where it fits the
weights, and is ignored where it does not.
"""

import logging
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from transformers import CLIPTokenizer, PreTrainedConfig, PreTrainedTokenizerBase

from ..dialects import text_sizes, vision_sizes
from ..recognition import Checkpoint, by_shapes
from ..safe_files import read_tensors
from ..sources import OPEN_CLIP_CONFIG, read_checkpoint
from ..tokenizer import CLIP_WORDS, find_tokenizer
from . import host

logger = logging.getLogger(__name__)

_SETTINGS = ("config.json", OPEN_CLIP_CONFIG)


def read_file(path: Path) -> Checkpoint:
    """The checkpoint of a file; its shapes say the architecture where no settings fit it."""
    beside = [name for name in _SETTINGS if path.with_name(name).is_file()]
    if not beside:
        return read_checkpoint(path)
    with suppress(Exception):  # whatever foreign settings lead to; the file's own faults come below
        checkpoint = read_checkpoint(path)
        if checkpoint.folder is None or _fits(checkpoint):
            return checkpoint
    checkpoint = by_shapes(path, read_tensors(path))
    logger.warning(
        "%s lies beside %s and is another model's, so it is not used; the weights' shapes say the "
        "architecture. A folder of its own for each model keeps them apart.",
        " and ".join(beside),
        path,
    )
    return checkpoint


def _fits(checkpoint: Checkpoint) -> bool:
    """Whether the configurations are of the sizes that the weights have."""
    text, state = checkpoint.text, checkpoint.state
    return _is_of(checkpoint.vision, vision_sizes(state, head_width=1)) and (
        text is None or _is_of(text, text_sizes(state, head_width=1))
    )


def _is_of(config: PreTrainedConfig, sizes: Mapping[str, Any]) -> bool:
    """Whether a configuration names these sizes; no shape tells of heads and of special words."""
    untold = {"num_attention_heads", "bos_token_id", "eos_token_id"}
    return all(getattr(config, name) == sizes[name] for name in sizes.keys() - untold)


def tokenizer_of(checkpoint: Checkpoint) -> PreTrainedTokenizerBase:
    """The tokenizer of the checkpoint's text tower; CLIP's is the one that the core brings."""
    assert checkpoint.text is not None
    words = checkpoint.text.vocab_size
    try:
        found = find_tokenizer(checkpoint)
    except ValueError:
        if words != CLIP_WORDS:
            raise
        found = None
    if found is None or (words == CLIP_WORDS and len(found) != words):
        return CLIPTokenizer.from_pretrained(host.clip_words())
    return found
