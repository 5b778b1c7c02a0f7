"""A frozen tower in bfloat16 on a CPU, for guidance: fewer and larger operations.

Under autocast transformers casts every weight in every pass, casts each layer's input three times,
and lets the last layer work out tokens that nobody reads. With few pictures a step that is half of
the time.
"""

from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor
from transformers.models.clip.modeling_clip import CLIPEncoderLayer

from .vision import ALPHA_MEAN, ALPHA_STD, AlphaCLIPModel, color_and_stored

HALF = torch.bfloat16


class Half(NamedTuple):
    """A linear layer with weights in bfloat16."""

    weight: Float[Tensor, "out into"]
    bias: Float[Tensor, " out"] | None

    @classmethod
    def of(cls, weight: Tensor, bias: Tensor | None) -> "Half":
        """The layer of weights of any precision."""
        return cls(weight.to(HALF), None if bias is None else bias.to(HALF))

    def __call__(self, values: Float[Tensor, "... into"]) -> Float[Tensor, "... out"]:
        return F.linear(values.to(HALF), self.weight, self.bias)


class _Layer:
    """A transformer layer; the tokens that pass through are float32, products are bfloat16."""

    def __init__(self, layer: CLIPEncoderLayer):
        attention = layer.self_attn
        self.heads, scale = attention.num_heads, attention.scale
        queries, keys, values = attention.q_proj, attention.k_proj, attention.v_proj
        self.queries_keys_values = Half.of(
            torch.cat([scale * queries.weight, keys.weight, values.weight]),
            torch.cat([scale * queries.bias, keys.bias, values.bias]),
        )
        self.out = Half.of(attention.out_proj.weight, attention.out_proj.bias)
        self.before, self.between = layer.layer_norm1, layer.layer_norm2
        self.wide = Half.of(layer.mlp.fc1.weight, layer.mlp.fc1.bias)
        self.activation = layer.mlp.activation_fn
        self.narrow = Half.of(layer.mlp.fc2.weight, layer.mlp.fc2.bias)

    def __call__(
        self, tokens: Float[Tensor, "batch tokens width"], wanted: int
    ) -> Float[Tensor, "batch wanted width"]:
        """The first tokens of the next layer."""
        batch, count, _ = tokens.shape
        found = self.queries_keys_values(self.before(tokens))
        by_head = found.view(batch, count, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        queries, keys, values = by_head.reshape(3, batch * self.heads, count, -1).unbind()
        weights = torch.softmax(torch.bmm(queries[:, :wanted], keys.transpose(1, 2)), dim=2)
        found = torch.bmm(weights, values).view(batch, self.heads, wanted, -1)
        tokens = tokens[:, :wanted] + self.out(found.transpose(1, 2).flatten(2))
        return tokens + self.narrow(self.activation(self.wide(self.between(tokens))))


class HalfTower:
    """The embeddings of `AlphaCLIPModel.get_image_features` under autocast, to its rounding.

    Differentiable in the pictures. Weights are copied once, so later changes to the model go
    unnoticed.
    """

    @torch.inference_mode(False)
    @torch.no_grad()
    def __init__(self, model: AlphaCLIPModel):
        vision = model.vision_model
        self.first, self.last = vision.pre_layrnorm, vision.post_layernorm
        self.embeddings = vision.embeddings
        color = self.embeddings.patch_embedding.weight
        alpha = self.embeddings.patch_embedding_alpha.weight
        self.everywhere = alpha.sum((1, 2, 3)) * ((1 - ALPHA_MEAN) / ALPHA_STD)
        self.patch = color.shape[-1]
        self.patches = torch.cat([color, alpha / ALPHA_STD], dim=1).flatten(1).to(HALF)
        layers: Any = vision.encoder.layers  # typed as bare modules
        self.layers = [_Layer(layer) for layer in layers]
        self.projection = Half.of(model.visual_projection.weight, None)

    def __call__(
        self, pixel_values: Float[Tensor, "batch channels height width"]
    ) -> Float[Tensor, "batch embedding"]:
        """Embeddings, not of unit length; pictures may have any side of whole patches."""
        with torch.autocast("cpu", enabled=False):
            tokens = self.first(self._tokens(pixel_values))
            for layer in self.layers[:-1]:
                tokens = layer(tokens, tokens.shape[1])
            return self.projection(self.last(self.layers[-1](tokens, 1)[:, 0]))

    def _tokens(self, pixel_values: Tensor) -> Float[Tensor, "batch tokens width"]:
        color, stored = color_and_stored(pixel_values)
        values = color if stored is None else pixel_values
        batch, channels, height, width = values.shape
        rows, columns = height // self.patch, width // self.patch
        values = values[:, :, : rows * self.patch, : columns * self.patch].to(HALF)
        pieces = values.reshape(batch, channels, rows, self.patch, columns, self.patch)
        pieces = pieces.permute(0, 2, 4, 1, 3, 5).reshape(batch, rows * columns, -1)
        patches = F.linear(pieces, self.patches[:, : pieces.shape[2]]) + self.everywhere
        start = self.embeddings.class_embedding.expand(batch, 1, -1)
        tokens = torch.cat([start, patches], dim=1)
        return tokens + self.embeddings.interpolate_pos_encoding(tokens, height, width)
