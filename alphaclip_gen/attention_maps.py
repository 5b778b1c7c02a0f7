"""Where a tower looks: how much each patch counts for what the tower says of a picture.

Gradient-weighted attention, carried through the layers (Chefer, Gur and Wolf 2021, arXiv
2103.15679, eq. 5 and 6). The layers are run through their parts, whose names are the same in
transformers' CLIP and SigLIP, in our towers and in ComfyUI's: attention is written out, so that no
fused kernel hides the weights and no in-place sum breaks their gradients.
"""

import copy
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from .attention_focus import FocusedEncoder, FocusedPoolingHead, attention_bias

_CORE_STATE = ("_v", "_pin_state")
"""Where ComfyUI's core keeps what it knows of a module's memory."""


def attention_map(
    tower: nn.Module,
    pixel_values: Float[Tensor, "batch channels height width"],
    toward: Float[Tensor, "#batch embedding"] | None = None,
    bias: Float[Tensor, "#batch patches"] | None = None,
    from_layer: int = 0,
) -> Float[Tensor, "batch rows columns"]:
    """How much each patch counts, in [0, 1], the strongest patch of each picture 1.

    Not differentiable. Works under `torch.inference_mode` too, if the tower's weights were not
    made in it; `differentiable_copy` helps where they were.

    Args:
        tower: a CLIP or SigLIP vision model of transformers, of ours or of ComfyUI.
        pixel_values: what the tower takes; four channels for a tower that takes alpha.
        toward: directions in the embedding's space, such as texts' embeddings: the map of what
            speaks for them. None is the tower's own embedding: the map of what made it.
        bias: added to the attention logits of the patches, as by `attention_bias`.
        from_layer: first layer that the bias reaches.

    Raises:
        TypeError: the tower is built in another way.
    """
    body = _body(tower)
    with torch.inference_mode(False), torch.enable_grad():
        pixels = pixel_values.detach().clone()
        color, bias, from_layer = _focus_of(body, pixels, bias, from_layer)
        tokens, weights = _run(body, color, bias, from_layer)
        final = body.post_layernorm(tokens)
        embedding = _embedding(tower, body, final, bias)
        aim = embedding.detach() if toward is None else toward.detach().clone().to(embedding)
        gradients = torch.autograd.grad((embedding * aim).sum(), [final, *weights])
        start = _start(body, final, gradients[0])
        heat = relevance(start, [w.detach() for w in weights], gradients[1:])
    rows, columns = _grid(body, pixels)
    heat = heat[:, -rows * columns :].reshape(-1, rows, columns)
    return heat / heat.amax(dim=(1, 2), keepdim=True).clamp(min=torch.finfo(heat.dtype).tiny)


def relevance(
    start: Float[Tensor, "batch tokens"],
    attentions: Sequence[Float[Tensor, "batch heads tokens tokens"]],
    gradients: Sequence[Float[Tensor, "batch heads tokens tokens"]],
) -> Float[Tensor, "batch tokens"]:
    """How much each first-layer token counts for last-layer tokens that count as `start` says.

    The rows `start` of R, where R begins as the identity and each layer adds A R; A is the mean
    over heads of the positive part of attention times gradient.

    Args:
        start: weights of the tokens after the last layer.
        attentions: weights of each layer, first layer first.
        gradients: of the score in these weights.
    """
    heat = start
    for weights, gradient in zip(reversed(attentions), reversed(gradients), strict=True):
        layer = (weights * gradient).relu().mean(dim=1)
        heat = heat + (heat[:, None] @ layer)[:, 0]
    return heat


def differentiable_copy(tower: nn.Module) -> nn.Module:
    """The tower itself, or a single-precision copy where gradients could not pass or would vanish.

    Weights that were made under `torch.inference_mode` cannot take part in differentiation; those
    in half precision let small gradients underflow.
    """
    parameters = list(tower.parameters())
    half = (torch.float16, torch.bfloat16)
    if not any(p.is_inference() or p.dtype in half for p in parameters):
        return tower
    with torch.inference_mode(False), torch.no_grad():
        return _copied(tower).float()


def _copied(tower: nn.Module) -> nn.Module:
    """A deep copy without what ComfyUI's core attaches: a copy of that would free the original."""
    attached = [
        value for m in tower.modules() for name in _CORE_STATE if (value := getattr(m, name, None))
    ]
    copied = copy.deepcopy(tower, {id(value): None for value in attached})
    for module in copied.modules():
        for name in _CORE_STATE:
            vars(module).pop(name, None)
    return copied


# The tower's parts


def _body(tower: nn.Module) -> Any:
    body = getattr(tower, "vision_model", tower)
    parts = ("embeddings", "encoder", "post_layernorm")
    missing = [name for name in parts if not hasattr(body, name)]
    if missing or not hasattr(body.encoder, "layers"):
        raise TypeError(
            f"tower is a {type(tower).__name__} without {', '.join(missing) or 'encoder.layers'}; "
            f"expected a CLIP or SigLIP vision model."
        )
    return body


def _focus_of(
    body: Any, pixels: Tensor, bias: Tensor | None, from_layer: int
) -> tuple[Tensor, Tensor | None, int]:
    """What the embeddings take, and the attention's bias, which our focused towers make."""
    if not isinstance(body.encoder, FocusedEncoder):
        return pixels, None if bias is None else bias.detach().clone(), from_layer
    config = body.config
    if pixels.shape[1] == 4:
        bias = attention_bias(pixels[:, 3:], config.patch_size, config.focus_strength)
    return pixels[:, :3], bias, body.encoder.first


def _run(
    body: Any, pixels: Tensor, bias: Tensor | None, from_layer: int
) -> tuple[Tensor, list[Tensor]]:
    """The tokens after the last layer, and the attention weights of every layer."""
    tokens = body.embeddings(pixels)
    if hasattr(body, "pre_layrnorm"):
        tokens = body.pre_layrnorm(tokens)
    tokens = tokens.detach().requires_grad_()
    if bias is not None:
        missing = tokens.shape[1] - bias.shape[1]
        bias = F.pad(bias, (missing, 0))[:, None, None].to(tokens)
    weights = []
    for number, layer in enumerate(body.encoder.layers):
        tokens, attended = _layer(layer, tokens, bias if number >= from_layer else None)
        weights.append(attended)
    return tokens, weights


def _layer(layer: Any, tokens: Tensor, bias: Tensor | None) -> tuple[Tensor, Tensor]:
    """The tokens after a layer, and its attention weights."""
    attention = layer.self_attn
    heads = attention.num_heads if hasattr(attention, "num_heads") else attention.heads
    normed = layer.layer_norm1(tokens)
    query, key, value = (
        project(normed).unflatten(2, (heads, -1)).transpose(1, 2)
        for project in (attention.q_proj, attention.k_proj, attention.v_proj)
    )
    logits = query @ key.mT * query.shape[-1] ** -0.5
    weights = (logits if bias is None else logits + bias).softmax(dim=-1)
    tokens = tokens + attention.out_proj((weights @ value).transpose(1, 2).flatten(2))
    return tokens + layer.mlp(layer.layer_norm2(tokens)), weights


def _embedding(tower: Any, body: Any, final: Tensor, bias: Tensor | None) -> Tensor:
    if _has_class(body):
        pooled = final[:, 0]
    elif getattr(body, "use_head", False):
        pooled = body.head(final) if bias is None else _focused_pooling(body.head, final, bias)
    else:
        pooled = final.mean(dim=1)
    return tower.visual_projection(pooled) if hasattr(tower, "visual_projection") else pooled


def _focused_pooling(head: Any, final: Tensor, bias: Tensor) -> Tensor:
    return FocusedPoolingHead.forward(head, final, bias.expand(len(final), -1).to(final))


def _start(body: Any, final: Tensor, gradient: Tensor) -> Tensor:
    """How much each token after the last layer counts: the class token alone, where there is one.

    Else gradient times token, the first-order share of each in the score.
    """
    if _has_class(body):
        start = torch.zeros_like(final[:, :, 0])
        start[:, 0] = 1
        return start
    share = (final.detach() * gradient).sum(dim=2).relu()
    return share / share.sum(dim=1, keepdim=True).clamp(min=torch.finfo(share.dtype).tiny)


def _has_class(body: Any) -> bool:
    return getattr(body.embeddings, "class_embedding", None) is not None


def _grid(body: Any, pixels: Tensor) -> tuple[int, int]:
    down, right = body.embeddings.patch_embedding.kernel_size
    return pixels.shape[-2] // down, pixels.shape[-1] // right
