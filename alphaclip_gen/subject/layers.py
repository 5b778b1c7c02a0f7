"""What the towers of BLIP-Diffusion share: attention, and the block of both CLIP towers."""

import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn
from transformers import PreTrainedConfig
from transformers.activations import ACT2FN
from transformers.modeling_layers import GradientCheckpointingLayer


def attend(
    query: Float[Tensor, "batch queries channels"],
    key: Float[Tensor, "batch keys channels"],
    value: Float[Tensor, "batch keys channels"],
    heads: int,
    *,
    keys: Bool[Tensor, "batch keys"] | Float[Tensor, "batch keys"] | None = None,
    causal: bool = False,
    dropout: float = 0.0,
) -> Float[Tensor, "batch queries channels"]:
    """The attended values of every query, heads side by side again.

    Args:
        query, key, value: projected tokens; `heads` divides the channels.
        keys: which of them count, or what is added to the logits of each; None for all alike.
        causal: a query sees keys up to its own place only.
        dropout: probability of dropping an attention weight.
    """
    query, key, value = (
        tokens.unflatten(-1, (heads, -1)).transpose(1, 2) for tokens in (query, key, value)
    )
    mask = None if keys is None else keys[:, None, None, :]
    mixed = F.scaled_dot_product_attention(
        query, key, value, attn_mask=mask, dropout_p=dropout, is_causal=causal
    )
    return mixed.transpose(1, 2).flatten(2)


class Perceptron(nn.Module):
    def __init__(self, config: PreTrainedConfig):
        super().__init__()
        self.fc1 = nn.Linear(config.hidden_size, config.intermediate_size)
        self.activation = ACT2FN[config.hidden_act]
        self.fc2 = nn.Linear(config.intermediate_size, config.hidden_size)

    def forward(self, tokens: Tensor) -> Tensor:
        return self.fc2(self.activation(self.fc1(tokens)))


class Block(GradientCheckpointingLayer):
    """CLIP's transformer block: attention, then a perceptron, each added after a norm."""

    def __init__(self, config: PreTrainedConfig, attention: nn.Module):
        super().__init__()
        self.self_attn = attention
        self.layer_norm1 = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.mlp = Perceptron(config)
        self.layer_norm2 = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)

    def forward(self, tokens: Tensor, *options: Tensor) -> Tensor:
        tokens = tokens + self.self_attn(self.layer_norm1(tokens), *options)
        return tokens + self.mlp(self.layer_norm2(tokens))


class Encoder(nn.Module):
    def __init__(self, blocks: list[Block]):
        super().__init__()
        self.layers = nn.ModuleList(blocks)

    def forward(self, tokens: Tensor) -> Tensor:
        for block in self.layers:
            tokens = block(tokens)
        return tokens
