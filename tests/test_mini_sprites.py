"""Sprites: where they are drawn, and that they do not alias, against Pillow's Lanczos filter."""

import numpy as np
import pytest
import torch
from PIL import Image

from alphaclip_gen.mini.dice import Dice
from alphaclip_gen.mini.sprites import Pyramid, build_pyramid, draw, layout, sampling_grid


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def test_levels_shrink_by_half_octaves_and_keep_the_mean():
    pixels = torch.randint(0, 256, (3, 4, 64, 64), generator=generator(), dtype=torch.uint8)
    levels = build_pyramid(pixels, steps=5).levels
    assert [level.shape[-1] for level in levels] == [64, 45, 32, 23, 16]
    means = [level.float().mean().item() for level in levels]
    assert means == pytest.approx([means[0]] * 5, abs=1)


def test_a_sprite_lands_where_it_is_asked_to():
    """A full square of radius 0.25 around (0.5, -0.25): 16 of 64 pixels wide, center (48, 24)."""
    pyramid = build_pyramid(torch.full((1, 1, 64, 64), 255, dtype=torch.uint8))
    grid = sampling_grid(torch.tensor([[0.5, -0.25]]), 0.25 * torch.eye(2)[None], 64)
    drawn = draw(pyramid, torch.tensor([0]), grid, torch.tensor([16.0]))[0, 0]
    rows, columns = (drawn > 0.5).nonzero().T
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (16, 31, 40, 55)
    assert drawn.sum().item() == pytest.approx(16 * 16, rel=0.01)


def test_axes_turn_and_mirror():
    """A dot to the right of the center goes down when x is turned to y, left when mirrored."""
    pixels = torch.zeros(1, 1, 64, 64, dtype=torch.uint8)
    pixels[..., 28:36, 52:60] = 255  # centered at x = 0.75, y = 0
    axes = torch.tensor([[[0.0, -1], [1, 0]], [[-1.0, 0], [0, 1]]])
    grid = sampling_grid(torch.zeros(2, 2), axes, 64)
    drawn = draw(build_pyramid(pixels), torch.tensor([0, 0]), grid, torch.full((2,), 64.0))
    assert drawn[0, 0, 56, 32] > 0.9 and drawn[1, 0, 32, 8] > 0.9
    assert drawn[0, 0, 32].sum() == 0


@pytest.mark.parametrize("width", [20, 24, 28, 36, 40, 48])
def test_drawing_small_does_not_alias(width):
    """Near Pillow's Lanczos resize, on the finest stripes and on a disc; bilinear alone is not."""
    line = torch.arange(64)
    stripes = (line // 2 % 2 * 255).expand(64, 64)
    rings = (torch.hypot(line[:, None] - 32.0, line - 32.0) * 1.7).sin().mul(127).add(128)
    disc = (torch.hypot(line[:, None] - 31.5, line - 31.5) < 28) * 255
    pixels = torch.stack([stripes, stripes.T, rings, disc]).to(torch.uint8)[:, None]
    resized = [
        np.asarray(Image.fromarray(p[0].numpy()).resize((width, width), Image.Resampling.LANCZOS))
        for p in pixels
    ]
    expected = torch.from_numpy(np.stack(resized)) / 255
    grid = sampling_grid(torch.zeros(4, 2), torch.eye(2).expand(4, 2, 2), width)

    def errors(some: Pyramid) -> torch.Tensor:
        drawn = draw(some, torch.arange(4), grid, torch.full((4,), float(width)))[:, 0]
        return (drawn - expected).square().mean((1, 2))

    pyramid = build_pyramid(pixels)
    ours = errors(pyramid)
    assert ours[3].sqrt() < 0.045 and ours.mean().sqrt() < 0.18
    if width < 32:
        assert ours.mean().sqrt() < 0.65 * errors(Pyramid(pyramid.levels[:1])).mean().sqrt()


def test_layout_keeps_subjects_in_the_picture_and_apart():
    number = torch.full((500,), 2)
    smallest, largest = torch.full((500, 1), 0.3), torch.full((500, 1), 0.6)
    center, radius = layout(Dice(generator()), number, 2, smallest, largest)
    assert radius.min() >= 0.3 and radius.max() <= 0.6
    assert (center.abs().amax(2) + radius).max() <= 1.08 + 1e-6
    reach = radius.sum(1)
    near = (center[:, 0] - center[:, 1]).norm(dim=1) < reach
    unrelated = (center[:, 0] - center[:, 1].roll(1, 0)).norm(dim=1) < reach
    assert near.float().mean() < 0.5 * unrelated.float().mean()
