"""The tokenizer that goes with a text tower: the one in its folder, or CLIP's own.

CLIP's vocabulary is not shipped here: open_clip carries it, and so does the Hub.
"""

import gzip
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from transformers import AutoTokenizer, CLIPTokenizer, PreTrainedTokenizerBase

from .recognition import Checkpoint
from .sources import fetch

CLIP_WORDS = 49408
_FILES = ("tokenizer.json", "tokenizer_config.json", "vocab.json")
_ON_THE_HUB = "openai/clip-vit-base-patch32"


def load_tokenizer(checkpoint: Checkpoint) -> PreTrainedTokenizerBase:
    """The tokenizer of the checkpoint's text tower; the Hub is asked only if none is here.

    Raises:
        FileNotFoundError: the tower's words are not CLIP's, or they are nowhere to be had.
        ValueError: the tokenizer in its folder is damaged, or has more words than the tower.
    """
    if tokenizer := find_tokenizer(checkpoint):
        return tokenizer
    assert checkpoint.text is not None
    words = checkpoint.text.vocab_size
    if words != CLIP_WORDS:
        raise FileNotFoundError(
            f"{checkpoint.source} has a text tower of {words} words, not CLIP's {CLIP_WORDS}, and "
            f"no tokenizer; expected {_FILES[0]} in its folder. "
            f"tokenizer.save_pretrained(folder) writes it."
        )
    try:
        return _read(fetch(_ON_THE_HUB, [*_FILES, "merges.txt"]))
    except FileNotFoundError as error:
        raise FileNotFoundError(
            f"{checkpoint.source} has no tokenizer in its folder. CLIP's is neither installed nor "
            f"on the Hub: {error} pip install 'alphaclip-gen[train]' brings it with open_clip."
        ) from error


def find_tokenizer(checkpoint: Checkpoint) -> PreTrainedTokenizerBase | None:
    """The tokenizer of the checkpoint's text tower, if this machine has it."""
    text, folder = checkpoint.text, checkpoint.folder
    if text is None:
        return None
    if folder and any((folder / name).is_file() for name in _FILES):
        tokenizer = _read(folder)
        if len(tokenizer) > text.vocab_size:
            raise ValueError(
                f"the tokenizer in {str(folder)!r} has {len(tokenizer)} words, its text tower "
                f"{text.vocab_size}; expected the tokenizer that the tower was trained with."
            )
        return tokenizer
    found = find_spec("open_clip") if text.vocab_size == CLIP_WORDS else None
    if found is None or found.origin is None:
        return None
    file = Path(found.origin).with_name("bpe_simple_vocab_16e6.txt.gz")
    return clip_tokenizer(file, text.max_position_embeddings) if file.is_file() else None


def _read(folder: Path) -> PreTrainedTokenizerBase:
    try:
        return AutoTokenizer.from_pretrained(folder, local_files_only=True)
    except Exception as error:  # whatever tokenizers says of a file that it cannot read
        raise ValueError(
            f"{str(folder)!r} has tokenizer files that cannot be read ({error}). Save the "
            f"tokenizer again: tokenizer.save_pretrained(folder)."
        ) from error


def clip_tokenizer(merges_file: Path, context: int = 77) -> CLIPTokenizer:
    """CLIP's tokenizer from OpenAI's list of merges, bpe_simple_vocab_16e6.txt.gz.

    Its words are the 256 bytes, the same at the end of a word, what each merge makes, and the two
    that begin and end a text. Token ids are those of open_clip.tokenize, but for what that repairs
    first: curly quotes, HTML entities, ligatures and full-width letters.
    """
    lines = gzip.decompress(merges_file.read_bytes()).decode("utf-8").split("\n")
    merges: Any = [tuple(line.split()) for line in lines[1 : CLIP_WORDS - 513]]
    alphabet = [chr(code) for code in (*range(33, 127), *range(161, 173), *range(174, 256))]
    alphabet += [chr(256 + count) for count in range(256 - len(alphabet))]  # for the other bytes
    words = [*alphabet, *(letter + "</w>" for letter in alphabet), *map("".join, merges)]
    words += ["<|startoftext|>", "<|endoftext|>"]
    vocabulary = {word: index for index, word in enumerate(words)}
    return CLIPTokenizer(vocab=vocabulary, merges=merges, model_max_length=context)
