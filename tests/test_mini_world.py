"""mini's world: solids against formulas, scenes by hand, captions, and how examples are made."""

import math
import random

import pytest
import torch

from alphaclip_gen.mini.captions import (
    COLOR_WORDS,
    COLORS,
    SHAPES,
    all_captions,
    caption,
    say,
    say_scene,
    vocabulary,
)
from alphaclip_gen.mini.solids import build_bank, solid_distance, trace_blend
from alphaclip_gen.mini.world import PLAIN, Style, color_weights, oklab, render_scenes


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.fixture(scope="module")
def bank():
    return build_bank(generator(), views=4, blends=1, side=32)


# Captions


def test_captions_cover_every_solid_in_every_color():
    captions = all_captions()
    assert len(captions) == len(set(captions)) == len(SHAPES) * len(COLORS) == 144
    assert captions[3 * len(COLORS) + 0] == "a red cone"
    assert caption("cone", "orange") == "an orange cone"
    assert caption("cone") == "a cone"
    assert caption(color="red") == "a red object"


def test_every_wording_names_its_thing_in_known_words():
    words = set(vocabulary())
    rng = random.Random(0)
    for shape in SHAPES:
        for color in COLORS:
            for text in (say(rng, shape, color), say_scene(rng, [(shape, color)] * 2)):
                assert set(text.split()) <= words
                assert set(SHAPES[shape]) & set(text.split())
                assert set(COLOR_WORDS[color]) & set(text.split())
                assert " a o" not in f" {text}" and " a a" not in f" {text}"


# Solids


@pytest.mark.parametrize("name", SHAPES)
def test_solids_fit_the_unit_ball_and_distances_are_bounds(name):
    points = torch.rand(4000, 3, generator=generator()) * 4 - 2
    distance = solid_distance(name, points)
    assert not (distance[points.norm(dim=-1) > 1.01] < 0).any()
    assert (distance < 0).any()
    moved = solid_distance(name, points + 0.01 * torch.nn.functional.normalize(points, dim=-1))
    assert ((moved - distance).abs() <= 0.01 + 1e-5).all()


@pytest.mark.parametrize(
    ("name", "volume"),
    [
        ("sphere", 4 / 3 * math.pi * 0.92**3),
        ("cube", 1.12**3),
        ("cylinder", 2 * math.pi * 0.66**3),
        ("cone", math.pi * 0.7**2 * 1.4 / 3),
        ("pyramid", 1.12**2 * 1.16 / 3),
        ("torus", 2 * math.pi**2 * 0.68 * 0.25**2),
        ("disk", math.pi * 0.95**2 * 0.26),
        ("stick", math.pi * 0.11**2 * 1.92),
        ("cross", 2 * 0.52**2 * 1.8 - 0.52**3),
        ("capsule", math.pi * 0.37**2 * 1.16 + 4 / 3 * math.pi * 0.37**3),
    ],
)
def test_solids_have_the_volume_of_their_formula(name, volume):
    points = torch.rand(1_000_000, 3, generator=generator()) * 2 - 1
    inside = (solid_distance(name, points) < 0).float().mean().item() * 8
    assert inside == pytest.approx(volume, rel=0.04)


def test_unknown_solid_is_refused():
    with pytest.raises(ValueError, match="name is 'dodecahedron'; expected one of: sphere"):
        solid_distance("dodecahedron", torch.zeros(1, 3))


def test_a_traced_sphere_is_a_disc_with_its_own_normals():
    one = torch.ones(1)
    normals, coverage = trace_blend(
        "sphere", "sphere", 0 * one, torch.eye(3)[None], 4 * one, one, side=96
    )
    apparent = 4 * math.tan(math.asin(0.92 / 4)) / 1.12 * 48
    assert coverage.sum().item() == pytest.approx(math.pi * apparent**2, rel=0.03)
    assert normals[0, 2, 48, 48] == pytest.approx(1, abs=0.01)
    assert normals[0, 0, 48, 80] > 0.6 and normals[0, 1, 16, 48] > 0.6


def test_a_blend_is_between_its_ends():
    one, view = torch.ones(3), torch.eye(3).expand(3, 3, 3)
    areas = trace_blend("cube", "stick", torch.tensor([0, 0.5, 1]), view, 4 * one, one)[1].sum(
        (1, 2)
    )
    assert areas[0] > areas[1] > areas[2]


def test_banks_repeat_and_say_what_they_hold(bank):
    again = build_bank(generator(), views=4, blends=1, side=32)
    assert torch.equal(bank.normals, again.normals) and torch.equal(bank.coverage, again.coverage)
    assert len(bank) == 12 * 4 + 66
    torch.testing.assert_close(bank.shape_weights.sum(1), torch.ones(len(bank)))
    assert torch.equal(bank.shape_weights[:48].argmax(1), torch.arange(12).repeat_interleave(4))
    assert ((bank.shape_weights[48:] > 0).sum(1) <= 2).all()


# Scenes


def test_oklab_of_white_gray_and_red():
    """Reference values of Ottosson's article."""
    lab = oklab(torch.tensor([[1.0, 1, 1], [0, 0, 0], [1, 0, 0]]))
    expected = torch.tensor([[1.0, 0, 0], [0, 0, 0], [0.62796, 0.22486, 0.12585]])
    torch.testing.assert_close(lab, expected, atol=1e-3, rtol=0)


def test_named_colors_get_their_own_name_and_fade_smoothly():
    anchors = torch.tensor(list(COLORS.values()))
    weights = color_weights(anchors)
    assert torch.equal(weights.argmax(1), torch.arange(len(COLORS)))
    assert weights.diag().min() > 0.7
    steps = torch.lerp(anchors[8], anchors[0], torch.linspace(0, 1, 11)[:, None])
    assert (color_weights(steps)[:, 0].diff() > 0).all()


def test_scenes_repeat_and_keep_their_ranges(bank):
    for style in (Style(), PLAIN):
        first, second = (render_scenes(bank, 16, generator(5), style) for _ in range(2))
        for name in vars(first):
            assert torch.equal(getattr(first, name), getattr(second, name)), name
        assert first.image.min() >= 0 and first.image.max() <= 1
        assert first.visible.min() >= 0 and first.visible.sum(1).max() <= 1 + 1e-4
        torch.testing.assert_close(first.color_weights.sum(-1), torch.ones(16, style.objects[1]))
        assert torch.equal(first.concept, first.shape_weights.argmax(-1))
    assert not torch.equal(render_scenes(bank, 16, generator(6), PLAIN).image, first.image)


def test_plain_scenes_hold_named_colors_where_their_alpha_is(bank):
    scenes = render_scenes(bank, 64, generator(1), PLAIN)
    anchors = torch.tensor(list(COLORS.values()))
    scene, slot = scenes.present.nonzero().T
    alpha = scenes.visible[scene, slot]
    inside = (alpha > 0.99).float()
    keep = inside.sum((1, 2)) > 40
    mean = (scenes.image[scene] * inside[:, None]).sum((2, 3)) / inside.sum((1, 2))[:, None]
    anchor = anchors[scenes.color_weights[scene, slot].argmax(1)]
    cosine = torch.cosine_similarity(mean + 0.02, anchor + 0.02)
    assert (cosine[keep] > 0.9).float().mean() > 0.95
    assert set(scenes.present.sum(1).tolist()) <= {1.0, 2.0, 3.0, 4.0}


def test_occluded_objects_lose_the_hidden_part_of_their_alpha(bank):
    scenes = render_scenes(bank, 64, generator(2), PLAIN)
    overlap = scenes.visible[:, :, None] * scenes.visible[:, None]
    off_diagonal = overlap * ~torch.eye(4, dtype=torch.bool)[None, :, :, None, None]
    assert off_diagonal.amax() <= 0.26  # two antialiased edges share a pixel, never more
