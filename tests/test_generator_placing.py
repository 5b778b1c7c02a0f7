"""Queries that look at their own cells before anything is learned."""

import inspect

import torch
from test_generator_model import TINY

from alphaclip_gen.checkpoints import load_tower
from alphaclip_gen.mini.generator.model import (
    CONTEXT_POSITION,
    mark_cells,
    new_autoencoder,
    new_generator,
)
from alphaclip_gen.mini.generator.placing import place_queries
from alphaclip_gen.sources import SHIPPED
from alphaclip_gen.subject import ContextCLIPTextModel
from alphaclip_gen.vision import pixel_values


def test_queries_look_at_their_cells():
    """Of four queries each has most of its attention on its quarter of pictures not seen before."""
    torch.manual_seed(0)
    tower = load_tower(SHIPPED / "mini", projection=False)
    qformer = new_generator(new_autoencoder(TINY).eval(), tower, TINY).qformer
    generator = torch.Generator().manual_seed(0)
    image = torch.rand(80, 3, 8, 8, generator=generator).repeat_interleave(8, 2)
    pixels = pixel_values(image.repeat_interleave(8, 3), torch.ones(80, 1, 64, 64))

    def share_of_own_cell(pixels):
        look = qformer.encoder.layer[0].crossattention.attention
        tokens = qformer.visual_encoder(pixels)[:, 1:]
        query = qformer.embeddings.LayerNorm(qformer.query_tokens)
        query, key = look.query(query), look.key(tokens)
        each = query.shape[2] // look.heads
        weight = (query[..., :each] @ key[..., :each].mT / each**0.5).softmax(-1)
        weight = weight.view(len(pixels), 4, 8, 8).mean(0)
        return [
            weight[2 * y + x, 4 * y : 4 * y + 4, 4 * x : 4 * x + 4].sum().item()
            for y in range(2)
            for x in range(2)
        ]

    with torch.no_grad():
        before = share_of_own_cell(pixels[60:])
        place_queries(qformer, pixels[:60])
        after = share_of_own_cell(pixels[60:])
        query = qformer.query_tokens[0]
        torch.testing.assert_close(qformer.embeddings.LayerNorm(query), query, atol=1e-2, rtol=0)
    assert max(before) < 0.4 and min(after) > 0.7


def test_positions_tell_row_and_column():
    """Of four tokens, after begin and article: 3 more at the row's and at the column's number."""
    positions = torch.zeros(8, 6)
    mark_cells(positions, 4)
    assert positions[[0, 1, 6, 7]].eq(0).all() and positions[:, 4:].eq(0).all()
    told = positions[2:6, :4].eq(3).nonzero()[:, 1].view(4, 2)
    assert told.tolist() == [[0, 2], [0, 3], [1, 2], [1, 3]]
    place = inspect.signature(ContextCLIPTextModel.forward).parameters["context_position"]
    assert place.default == CONTEXT_POSITION
