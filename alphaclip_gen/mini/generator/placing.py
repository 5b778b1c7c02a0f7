"""Queries that look at their own cells of a picture from the first step of the training.

With random weights the Q-Former reads a picture as a whole for hundreds of steps: that a token's
place is in it, and how to ask for it, is found late. Here both are measured and written down: where
a token comes from, by linear discriminants, and for each query those of its cell.
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
    """Nothing; sets query tokens, and key and query weights of most cross-attending heads.

    A head's softmax over linear discriminants is the odds of each place, given what is seen there.
    The heads share a cell, each a square of it, since what one head gathers is an average; at least
    one head stays random.

    Args:
        qformer: with a tower that is trained, the rest random, and a square number of queries.
        pixels: what the tower is shown, some hundred pictures.
    """
    tokens = qformer.visual_encoder(pixels)[:, 1:]
    cells, side = math.isqrt(qformer.query_tokens.shape[1]), math.isqrt(tokens.shape[1])
    layers: Any = qformer.encoder.layer
    looks = [layer.crossattention.attention for layer in layers]
    heads = looks[0].heads
    parts = math.isqrt(heads - 1)  # of a cell, along each side
    codes, reading = _discriminants(tokens, rank=min(4 * cells, side * side - 1))
    wanted = codes.T.unflatten(1, (side, side))
    wanted = F.pixel_unshuffle(F.adaptive_avg_pool2d(wanted, cells * parts)[:, None], parts)
    wanted = wanted.flatten(2).permute(2, 1, 0)  # cells, parts, rank
    width, rank = qformer.query_tokens.shape[2], wanted.shape[2]
    each = width // heads
    gain = each**0.25  # attention divides by the root of a head's width
    for look in looks:
        for part in range(parts**2):
            rows = slice(part * each, part * each + rank)
            look.query.weight[rows] = gain * torch.eye(width)[part * rank : (part + 1) * rank]
            look.key.weight[rows] = gain * reading
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
