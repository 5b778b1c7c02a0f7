"""Queries that read their own cells of a picture from the first step of the training.

With random weights the Q-Former reads a picture as a whole for hundreds of steps: that a token's
place is in it, and how to ask for it, is found late, and what is found there hardly gets through.
Here all is measured and written down: where a token comes from, by linear discriminants, and for
each query those of its cell; what is read there is passed on as it is.
"""

import math
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from ...subject import AlphaBlip2QFormerModel


@torch.no_grad()
def place_queries(qformer: AlphaBlip2QFormerModel, pixels: Float[Tensor, "pictures 4 y x"]) -> None:
    """Nothing; sets the query tokens and the weights by which they read the picture.

    A head's softmax over linear discriminants is the odds of each place, given what is seen there.
    The heads share a cell, each a square of it, since what one head gathers is an average; those
    that are left over look at the first squares again.

    Args:
        qformer: with a tower that is trained, the rest random, and a square number of queries; what
            is read is passed on as far as the width allows.
        pixels: what the tower is shown, some hundred pictures.
    """
    tokens = qformer.visual_encoder(pixels)[:, 1:]
    cells, side = math.isqrt(qformer.query_tokens.shape[1]), math.isqrt(tokens.shape[1])
    layers: Any = qformer.encoder.layer
    heads = layers[0].crossattention.attention.heads
    parts = min(math.isqrt(heads), side // cells)  # of a cell, along each side
    width = qformer.query_tokens.shape[2]
    each = width // heads
    codes, reading = _discriminants(tokens, rank=min(4 * cells, side * side - 1, each))
    wanted = codes.T.unflatten(1, (side, side))
    wanted = F.pixel_unshuffle(F.adaptive_avg_pool2d(wanted, cells * parts)[:, None], parts)
    wanted = wanted.flatten(2).permute(2, 1, 0)  # cells, parts, rank
    rank = wanted.shape[2]
    gain = each**0.25  # attention divides by the root of a head's width
    for place, layer in enumerate(layers):
        look = layer.crossattention
        for head in range(heads):
            rows, part = slice(head * each, head * each + rank), head % parts**2
            look.attention.query.weight[rows] = (
                gain * torch.eye(width)[part * rank : (part + 1) * rank]
            )
            look.attention.key.weight[rows] = gain * reading
        if place == 0:
            for passing in (look.attention.value, look.output.dense):
                passing.weight.copy_(torch.eye(*passing.weight.shape))
                passing.bias.zero_()
    qformer.query_tokens[0] = _normalized(wanted.flatten(1), qformer.query_tokens[0])


def _discriminants(
    tokens: Float[Tensor, "pictures places channels"], rank: int
) -> tuple[Float[Tensor, "places rank"], Float[Tensor, "rank channels"]]:
    """The mean of each place along the best discriminants, and what takes tokens to them."""
    means = tokens.mean(0)
    spread = (tokens - means).flatten(0, 1)
    within = spread.T @ spread / len(spread) + 1e-3 * torch.eye(spread.shape[1])
    whiten = torch.linalg.inv(torch.linalg.cholesky(within))
    centered = (means - means.mean(0)) @ whiten.T
    axes = torch.linalg.svd(centered, full_matrices=False).Vh[:rank]
    return centered @ axes.T, axes @ whiten


def _normalized(
    codes: Float[Tensor, "queries rank"], rest: Float[Tensor, "queries width"]
) -> Float[Tensor, "queries width"]:
    """Queries that begin with the codes and have mean 0 and variance 1, as a layer norm makes them.

    What follows the codes is random, so that queries can be told apart otherwise too.
    """
    rank, width = codes.shape[1], rest.shape[1]
    limit = (0.7 * width) ** 0.5 / codes.norm(dim=1).amax()
    codes = codes * limit.clamp(max=1)
    rest = rest[:, rank:] - rest[:, rank:].mean(1, keepdim=True)
    shift = codes.sum(1, keepdim=True) / (width - rank)
    room = width - codes.square().sum(1, keepdim=True) - (width - rank) * shift.square()
    return torch.cat([codes, rest * (room / rest.square().sum(1, keepdim=True)).sqrt() - shift], 1)
