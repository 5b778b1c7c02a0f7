"""A cast of mini's world that is made here, so that tests need no artwork."""

import torch

from alphaclip_gen.mini.artwork import ArtBank
from alphaclip_gen.mini.concepts import EMOJI
from alphaclip_gen.mini.emoji_world import Cast, make_cast
from alphaclip_gen.mini.solids import build_bank

STYLES = ("plain", "faint", "rare")


def tiny_cast() -> Cast:
    """Twelve emoji that are squares of their own gray; "rare" has only the first; a few solids."""
    pixels = torch.zeros(25, 4, 64, 64, dtype=torch.uint8)
    for row in range(12):
        pixels[row, :3, 2:-2, 2:-2] = 20 * row + 10
        pixels[12 + row, :3, 2:-2, 2:-2] = 10
    pixels[:, 3, 2:-2, 2:-2] = 255
    index = torch.full((len(EMOJI), 3), -1)
    index[:12, 0], index[:12, 1], index[0, 2] = torch.arange(12), torch.arange(12, 24), 24
    bank = build_bank(torch.Generator().manual_seed(0), views=3, blends=1, side=32)
    return make_cast(ArtBank(pixels, index, STYLES), bank)
