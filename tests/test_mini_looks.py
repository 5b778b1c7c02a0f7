"""Looks and backdrops: ranges, what stays, and that they do what their names say."""

import pytest
import torch

from alphaclip_gen.mini import backdrops as kinds
from alphaclip_gen.mini.backdrops import backdrops, patterns
from alphaclip_gen.mini.dice import Dice
from alphaclip_gen.mini.looks import color_change, outline, recolor, relief, shadows


def dice(seed=0):
    return Dice(torch.Generator().manual_seed(seed))


@pytest.fixture
def discs():
    """Forty red discs in the middle of 64 px, half of them see-through."""
    line = torch.arange(64) - 31.5
    alpha = (torch.hypot(line[:, None], line) < 20).float().expand(40, 1, -1, -1).clone()
    alpha[20:] *= 0.5
    return torch.cat([alpha * torch.tensor([0.8, 0.2, 0.1]).view(3, 1, 1), alpha], dim=1)


@pytest.mark.parametrize("look", [recolor, relief])
def test_looks_keep_the_alpha_and_stay_premultiplied(discs, look):
    made = look(dice(), discs)
    assert torch.equal(made[:, 3], discs[:, 3])
    assert made.min() >= 0 and (made[:, :3] <= made[:, 3:]).all()
    changed = (made - discs).abs().amax((1, 2, 3)) > 0.02
    assert changed.float().mean() > 0.2


def test_no_strength_changes_no_color(discs):
    torch.testing.assert_close(recolor(dice(), discs, 0.0), discs)
    torch.testing.assert_close(relief(dice(), discs, 0.0), discs)
    assert torch.equal(outline(dice(), discs, 0.0), discs)
    assert shadows(dice(), discs[:, 3:], 0.0).max() == 0


def test_hue_turns_keep_gray_gray():
    """Only tint colors a gray; a matrix without it maps gray to gray."""
    matrix, _ = color_change(dice(), 500)
    response = matrix @ torch.ones(3)
    spread = response.amax(1) / response.amin(1)
    assert spread.max() < 1.12 / 0.88 + 1e-4
    assert (spread > 1.02).float().mean() > 0.5
    assert response.mean() == pytest.approx(1, abs=0.05)


def test_relief_lights_one_side_and_darkens_the_other(discs):
    made = relief(dice(), discs[:20], 1.0)[:, 0]
    sides = torch.stack([made[:, 16, 32], made[:, 47, 32], made[:, 32, 16], made[:, 32, 47]], 1)
    assert (sides.amax(1) > 0.82).all() and (sides.amin(1) < 0.78).all()
    assert (made[:, 32, 32] - 0.8).abs().max() < 0.05


def test_outlines_grow_the_alpha_by_a_pixel_or_two(discs):
    grown = outline(dice(), discs[:20], 1.0)[:, 3] - discs[:20, 3]
    widths = grown[:, 31, 32:].sum(1)
    assert set(widths.round().tolist()) == {1.0, 2.0}
    assert grown[:, 31, 31].abs().max() < 1e-6


def test_shadows_are_soft_moved_copies(discs):
    dark = shadows(dice(), discs[:, 3:], 1.0)
    assert 0.05 < dark.amax() <= 0.7 and dark.min() >= 0
    mass = dark.sum((2, 3)) / discs[:, 3:].sum((2, 3))
    assert mass.min() > 0.19 and mass.max() < 0.71


def test_backdrops_repeat_and_vary():
    images = backdrops(dice(), 200, 64)
    assert torch.equal(images, backdrops(dice(), 200, 64))
    assert images.min() >= 0 and images.max() <= 1
    deviation = images.std((2, 3)).mean(1)
    assert (deviation < 1e-6).float().mean() > 0.05 and (deviation > 0.1).float().mean() > 0.15
    assert images.mean((2, 3)).std(0).min() > 0.15


@pytest.mark.parametrize("make", [make for _, make in kinds._KINDS], ids=lambda f: f.__name__)
def test_every_pattern_stays_in_range_at_any_size(make):
    for size in (32, 96):
        image = make(dice(), 6, size)
        assert image.shape == (6, 1, size, size)
        assert image.min() >= 0 and image.max() <= 1
        assert make is kinds._flat or image.std((2, 3)).max() > 0.05


def test_patterns_come_in_the_given_shares():
    flat = (patterns(dice(), 4000, 8).flatten(1).std(1) == 0).float().mean()
    assert flat == pytest.approx(kinds._KINDS[0][0], abs=0.12)
