"""BLIP-Diffusion's Q-Former: what a picture says about a subject, as a few query tokens.

State-dict keys are those of diffusers' Blip2QFormerModel. Source: BLIP-Diffusion, arXiv 2305.14720,
section 3.1.
"""

from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from transformers import Blip2Config, Blip2QFormerConfig
from transformers.activations import ACT2FN
from transformers.modeling_layers import GradientCheckpointingLayer

from .layers import attend
from .loading import CompleteModel
from .vision import AlphaBlip2VisionModel

PROJECTION_DROPOUT, PROJECTION_EPSILON = 0.1, 1e-12  # constants of the published code


class SubjectEmbeddings(nn.Module):
    """The query tokens followed by the words of the subject, normalized together."""

    def __init__(self, config: Blip2QFormerConfig):
        super().__init__()
        width = config.hidden_size
        self.word_embeddings = nn.Embedding(config.vocab_size, width, config.pad_token_id)
        self.position_embeddings = nn.Embedding(config.max_position_embeddings, width)
        self.LayerNorm = nn.LayerNorm(width, eps=config.layer_norm_eps)
        self.dropout = nn.Dropout(config.hidden_dropout_prob)

    def forward(self, input_ids: Tensor, queries: Tensor) -> Tensor:
        words = self.word_embeddings(input_ids)
        places = torch.arange(input_ids.shape[1], device=input_ids.device)
        words = words + self.position_embeddings(places)
        tokens = torch.cat([queries.expand(len(words), -1, -1), words], dim=1)
        return self.dropout(self.LayerNorm(tokens))


class QueryKeyValue(nn.Module):
    def __init__(self, config: Blip2QFormerConfig, source_width: int):
        super().__init__()
        self.heads = config.num_attention_heads
        self.dropout = config.attention_probs_dropout_prob
        self.query = nn.Linear(config.hidden_size, config.hidden_size)
        self.key = nn.Linear(source_width, config.hidden_size)
        self.value = nn.Linear(source_width, config.hidden_size)

    def forward(self, tokens: Tensor, source: Tensor, allowed: Tensor | None) -> Tensor:
        dropout = self.dropout if self.training else 0.0
        projected = self.query(tokens), self.key(source), self.value(source)
        return attend(*projected, self.heads, keys=allowed, dropout=dropout)


class Residual(nn.Module):
    """A linear layer, added to what went around it, then normalized."""

    def __init__(self, config: Blip2QFormerConfig, source_width: int):
        super().__init__()
        self.dense = nn.Linear(source_width, config.hidden_size)
        self.LayerNorm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.dropout = nn.Dropout(config.hidden_dropout_prob)

    def forward(self, change: Tensor, tokens: Tensor) -> Tensor:
        return self.LayerNorm(self.dropout(self.dense(change)) + tokens)


class Attention(nn.Module):
    def __init__(self, config: Blip2QFormerConfig, source_width: int):
        super().__init__()
        self.attention = QueryKeyValue(config, source_width)
        self.output = Residual(config, config.hidden_size)

    def forward(self, tokens: Tensor, source: Tensor, allowed: Tensor | None = None) -> Tensor:
        return self.output(self.attention(tokens, source, allowed), tokens)


class Expansion(nn.Module):
    def __init__(self, config: Blip2QFormerConfig):
        super().__init__()
        self.dense = nn.Linear(config.hidden_size, config.intermediate_size)
        self.activation = ACT2FN[config.hidden_act]

    def forward(self, tokens: Tensor) -> Tensor:
        return self.activation(self.dense(tokens))


class QFormerLayer(GradientCheckpointingLayer):
    """Self-attention of queries and words; the queries then look at the picture."""

    def __init__(self, config: Blip2QFormerConfig, place: int):
        super().__init__()
        self.attention = Attention(config, config.hidden_size)
        self.crossattention = (
            Attention(config, config.encoder_hidden_size)
            if place % config.cross_attention_frequency == 0
            else None
        )
        self.intermediate = Expansion(config)
        self.output = Residual(config, config.intermediate_size)
        self.intermediate_query = Expansion(config)
        self.output_query = Residual(config, config.intermediate_size)

    def forward(self, tokens: Tensor, queries: int, allowed: Tensor, picture: Tensor) -> Tensor:
        tokens = self.attention(tokens, tokens, allowed)
        query, words = tokens[:, :queries], tokens[:, queries:]
        if self.crossattention is not None:
            query = self.crossattention(query, picture)
        query = self.output_query(self.intermediate_query(query), query)
        return torch.cat([query, self.output(self.intermediate(words), words)], dim=1)


class QFormerEncoder(nn.Module):
    def __init__(self, config: Blip2QFormerConfig):
        super().__init__()
        layers = (QFormerLayer(config, place) for place in range(config.num_hidden_layers))
        self.layer = nn.ModuleList(layers)

    def forward(self, tokens: Tensor, queries: int, allowed: Tensor, picture: Tensor) -> Tensor:
        for layer in self.layer:
            tokens = layer(tokens, queries, allowed, picture)
        return tokens


class Projection(nn.Module):
    """The query tokens as the text encoder reads them."""

    def __init__(self, width: int):
        super().__init__()
        self.dense1 = nn.Linear(width, 4 * width)
        self.activation = ACT2FN["quick_gelu"]
        self.dense2 = nn.Linear(4 * width, width)
        self.dropout = nn.Dropout(PROJECTION_DROPOUT)
        self.LayerNorm = nn.LayerNorm(width, eps=PROJECTION_EPSILON)

    def forward(self, tokens: Tensor) -> Tensor:
        return tokens + self.dropout(
            self.dense2(self.activation(self.dense1(self.LayerNorm(tokens))))
        )


class AlphaBlip2QFormerModel(CompleteModel):
    """The subject of a picture's region, as query tokens for the context text encoder."""

    __module__ = "alphaclip_gen"
    config_class = Blip2Config
    config: Blip2Config
    _no_split_modules = ["QFormerLayer", "Block"]  # noqa: RUF012
    _keys_to_ignore_on_load_unexpected = [  # noqa: RUF012
        r"embeddings\.position_ids"
    ]

    def __init__(self, config: Blip2Config):
        super().__init__(config)
        inner: Any = config.qformer_config
        vision: Any = config.vision_config
        self.embeddings = SubjectEmbeddings(inner)
        self.visual_encoder = AlphaBlip2VisionModel(vision)
        self.query_tokens = nn.Parameter(torch.zeros(1, config.num_query_tokens, inner.hidden_size))
        self.proj_layer = Projection(inner.hidden_size)
        self.encoder = QFormerEncoder(inner)
        self.post_init()

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        if module is self:
            nn.init.normal_(self.query_tokens, std=self.config.initializer_range)

    def get_input_embeddings(self) -> nn.Module:
        return self.embeddings.word_embeddings

    def forward(
        self,
        pixel_values: Float[Tensor, "pictures colors height width"],
        input_ids: Int[Tensor, "texts words"],
        attention_mask: Int[Tensor, "texts words"] | None = None,
        picture_index: Int[Tensor, " texts"] | None = None,
    ) -> Float[Tensor, "texts queries channels"]:
        """The projected query tokens of each text about its picture.

        Args:
            pixel_values: color, and `alpha - 1` as an optional fourth channel.
            input_ids, attention_mask: the subject's name in words of the Q-Former's tokenizer;
                the mask is 1 for words and 0 for padding, None for no padding.
            picture_index: which picture each text is about; None for one each, or one for all.
        """
        words = input_ids.shape[1]
        longest = self.embeddings.position_embeddings.num_embeddings
        if words > longest:
            raise ValueError(f"input_ids has {words} words; expected at most {longest}.")
        if picture_index is None:
            picture_index = _own_picture(len(pixel_values), input_ids)
        picture = self.visual_encoder(pixel_values)[picture_index]
        if attention_mask is None:
            attention_mask = torch.ones_like(input_ids)
        queries = self.query_tokens.shape[1]
        allowed = nn.functional.pad(attention_mask.bool(), (queries, 0), value=True)
        tokens = self.embeddings(input_ids, self.query_tokens)
        tokens = self.encoder(tokens, queries, allowed, picture)
        return self.proj_layer(tokens[:, :queries])


def _own_picture(pictures: int, input_ids: Tensor) -> Tensor:
    texts = len(input_ids)
    if pictures not in (1, texts):
        raise ValueError(
            f"pixel_values has {pictures} pictures for {texts} texts; expected 1 or {texts}. "
            f"picture_index says which belongs to which."
        )
    return torch.arange(texts, device=input_ids.device).clamp(max=pictures - 1)
