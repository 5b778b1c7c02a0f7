"""mini's architecture: a 64 px Alpha-CLIP, a small text tower, a tokenizer; untrained."""

import functools
import itertools
import math
import string
from collections import Counter

import torch
from jaxtyping import Float
from tokenizers import Tokenizer
from tokenizers.models import BPE
from tokenizers.normalizers import Lowercase
from tokenizers.pre_tokenizers import Whitespace
from tokenizers.processors import TemplateProcessing
from torch import Tensor
from transformers import PreTrainedTokenizerFast

from ..vision import AlphaCLIPConfig, AlphaCLIPModel
from .concepts import vocabulary

PAD, BOS, UNKNOWN, EOS, END = "<pad>", "<bos>", "<unk>", "<eos>", "</w>"
CONTEXT = 32
"""Longest caption in tokens, begin and end included."""


def new_tokenizer() -> PreTrainedTokenizerFast:
    """A byte-pair tokenizer in which every word of mini's vocabulary is one token."""
    special = [PAD, BOS, UNKNOWN, EOS]
    tokens, merges = byte_pairs(tuple(vocabulary()))
    ids = {token: index for index, token in enumerate([*special, *tokens])}
    tokenizer = Tokenizer(BPE(ids, list(merges), unk_token=UNKNOWN, end_of_word_suffix=END))
    tokenizer.normalizer = Lowercase()
    tokenizer.pre_tokenizer = Whitespace()
    tokenizer.post_processor = TemplateProcessing(
        single=f"{BOS} $A {EOS}",
        special_tokens=[(BOS, special.index(BOS)), (EOS, special.index(EOS))],
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=PAD,
        bos_token=BOS,
        unk_token=UNKNOWN,
        eos_token=EOS,
        model_max_length=CONTEXT,
        knows_whole_words_only=True,  # what falls into pieces was never seen: RegionEncoder says so
    )


@functools.cache
def byte_pairs(words: tuple[str, ...]) -> tuple[tuple[str, ...], tuple[tuple[str, str], ...]]:
    """Tokens, and the merges that make every word one of them (Sennrich et al. 2016).

    The commonest pair is merged first, the first in the alphabet among equals: always the same, as
    training with the tokenizers library is not.
    """
    parts = Whitespace()
    split = sorted({part for word in words for part, _ in parts.pre_tokenize_str(word)})
    spelled = [[*word[:-1], word[-1] + END] for word in split]
    letters = string.ascii_lowercase + string.digits
    tokens = {*letters, *(letter + END for letter in letters), *itertools.chain(*spelled)}
    merges = list[tuple[str, str]]()
    while pairs := Counter(pair for word in spelled for pair in itertools.pairwise(word)):
        pair = min(pairs, key=lambda pair: (-pairs[pair], pair))
        merges.append(pair)
        spelled = [_merged(word, pair) for word in spelled]
    ordered = dict.fromkeys([*sorted(tokens), *(first + second for first, second in merges)])
    return tuple(ordered), tuple(merges)


def _merged(word: list[str], pair: tuple[str, str]) -> list[str]:
    """The word with every occurrence of the pair made one token, from the left."""
    found, place = list[str](), 0
    while place < len(word):
        whole = tuple(word[place : place + 2]) == pair
        found.append("".join(pair) if whole else word[place])
        place += 1 + whole
    return found


def new_model(tokenizer: PreTrainedTokenizerFast) -> AlphaCLIPModel:
    """mini with random weights (from the global generator, as transformers draws them)."""
    config = AlphaCLIPConfig(
        vision_config={
            "hidden_size": 192,
            "intermediate_size": 768,
            "num_hidden_layers": 6,
            "num_attention_heads": 3,
            "image_size": 64,
            "patch_size": 8,
            "projection_dim": 128,
            "hidden_act": "gelu",
        },
        text_config={
            "vocab_size": len(tokenizer),
            "hidden_size": 128,
            "intermediate_size": 512,
            "num_hidden_layers": 3,
            "num_attention_heads": 2,
            "max_position_embeddings": CONTEXT,
            "projection_dim": 128,
            "hidden_act": "gelu",
            "pad_token_id": tokenizer.pad_token_id,
            "bos_token_id": tokenizer.bos_token_id,
            "eos_token_id": tokenizer.eos_token_id,
        },
        projection_dim=128,
        logit_scale_init_value=math.log(14),
    )
    model = AlphaCLIPModel(config)
    positions = model.vision_model.embeddings.position_embedding.weight
    with torch.no_grad():
        positions[1:] = 0.4 * plane_waves(8, positions.shape[1])
        for layer in model.vision_model.encoder.layers:
            layer.self_attn.q_proj.weight.mul_(3)  # attention that is not uniform at the start
            layer.self_attn.k_proj.weight.mul_(3)
    return model


def plane_waves(side: int, width: int) -> Float[Tensor, "patches width"]:
    """Sines and cosines of the patches' places, row by row (Vaswani et al. 2017, in two axes).

    At CLIP's initial scale, 0.02, positions would be faint beside the patches' features.
    """
    frequencies = math.pi * torch.logspace(-1, 0, width // 4)
    places = torch.arange(side)[:, None] * frequencies
    waves = torch.cat([places.sin(), places.cos()], dim=1)
    down, right = waves[:, None].expand(-1, side, -1), waves[None].expand(side, -1, -1)
    return torch.cat([down, right], dim=2).flatten(0, 1)
