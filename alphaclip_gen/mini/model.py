"""mini's architecture: a 64 px Alpha-CLIP, a small text tower and a word tokenizer, untrained."""

import math

import torch
from jaxtyping import Float
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.normalizers import Lowercase
from tokenizers.pre_tokenizers import Whitespace
from tokenizers.processors import TemplateProcessing
from torch import Tensor
from transformers import PreTrainedTokenizerFast

from ..vision import AlphaCLIPConfig, AlphaCLIPModel
from .captions import vocabulary

PAD, BOS, UNKNOWN, EOS = "<pad>", "<bos>", "<unk>", "<eos>"
CONTEXT = 32
"""Longest caption in tokens, begin and end included."""


def new_tokenizer() -> PreTrainedTokenizerFast:
    """A tokenizer of whole words over mini's vocabulary."""
    words = [PAD, BOS, UNKNOWN, EOS, *vocabulary()]
    tokenizer = Tokenizer(WordLevel({word: i for i, word in enumerate(words)}, unk_token=UNKNOWN))
    tokenizer.normalizer = Lowercase()
    tokenizer.pre_tokenizer = Whitespace()
    tokenizer.post_processor = TemplateProcessing(
        single=f"{BOS} $A {EOS}", special_tokens=[(BOS, words.index(BOS)), (EOS, words.index(EOS))]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=PAD,
        bos_token=BOS,
        unk_token=UNKNOWN,
        eos_token=EOS,
        model_max_length=CONTEXT,
    )


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
