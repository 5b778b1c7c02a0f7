"""Scenes of emoji and solids, drawn from a bank made here: what is where, and what it is called."""

import pytest
import torch
from tiny_cast import STYLES, tiny_cast

from alphaclip_gen.mini.captions import SHAPES
from alphaclip_gen.mini.concepts import NAMES, SOLID_CAPTIONS, all_captions
from alphaclip_gen.mini.emoji_sheet import contact_sheet
from alphaclip_gen.mini.emoji_world import (
    SOLIDS,
    Mix,
    caption_targets,
    cast_of_solids,
    render_world,
)
from alphaclip_gen.mini.solids import build_bank

PLAIN = Mix(objects=(2, 4), styles=("plain",), solids=0.0, looks=0.0, rough=0.0)
TRAINING = Mix(styles=STYLES, solids=0.4)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.fixture(scope="module")
def cast():
    return tiny_cast()


def test_scenes_repeat_and_keep_their_ranges(cast):
    for mix in (PLAIN, TRAINING, Mix(styles=STYLES, solids=1.0), Mix((1, 1), STYLES, solids=0.0)):
        first, second = (render_world(cast, 12, generator(5), mix) for _ in range(2))
        for name in vars(first):
            assert torch.equal(getattr(first, name), getattr(second, name)), name
        assert first.image.min() >= 0 and first.image.max() <= 1
        assert first.visible.min() >= 0 and first.visible.sum(1).max() <= 1 + 1e-4
        assert first.concept.shape == first.present.shape == (12, mix.objects[1])
    assert not torch.equal(render_world(cast, 12, generator(6), PLAIN).image, first.image)


def test_subjects_look_like_their_concept_where_their_alpha_is(cast):
    """Plain emoji are squares of gray 20 * number + 10, so the picture tells the concept."""
    scenes = render_world(cast, 100, generator(1), PLAIN)
    scene, slot = scenes.present.nonzero().T
    inside = (scenes.visible[scene, slot] > 0.999).float()
    mean = (scenes.image[scene, 0] * inside).sum((1, 2)) / inside.sum((1, 2))
    number = scenes.concept[scene, slot] - 12
    torch.testing.assert_close(mean * 255, 20.0 * number + 10, atol=1.5, rtol=0)
    assert len(scene) > 200 and set(number.tolist()) == set(range(12))


def test_no_concept_appears_twice(cast):
    scenes = render_world(cast, 200, generator(2), Mix((4, 4), ("plain",), 0.0, 0.0, 0.0))
    ordered = scenes.concept.sort(1).values
    assert (ordered.diff(dim=1) > 0).all()


def test_emoji_come_only_in_styles_that_have_them(cast):
    rare = render_world(cast, 20, generator(3), Mix((1, 1), ("rare",), 0.0, 0.0, 0.0))
    assert set(rare.concept.flatten().tolist()) == {12}
    faint = render_world(cast, 20, generator(3), Mix((2, 4), ("faint",), 0.0, 0.0, 0.0))
    scene, slot = faint.present.nonzero().T
    inside = faint.visible[scene, slot] > 0.999
    assert faint.image[scene, 0][inside].max() * 255 < 11


def test_what_is_hidden_is_not_visible(cast):
    scenes = render_world(cast, 100, generator(4), PLAIN)
    behind = scenes.visible[:, :-1].sum(1) * (scenes.visible[:, -1] > 0.999)
    assert behind.abs().max() < 1e-3


def test_targets_name_emoji_and_grade_solids(cast):
    scenes = render_world(cast, 100, generator(5), TRAINING)
    scene, slot = scenes.present.nonzero().T
    targets = caption_targets(scenes, scene, slot)
    assert targets.shape == (len(scene), len(all_captions()))
    torch.testing.assert_close(targets.sum(1), torch.ones(len(scene)))
    concept, truth = scenes.concept[scene, slot], targets.argmax(1)
    emoji = concept >= 12
    assert 0.25 < 1 - emoji.float().mean() < 0.55
    assert (targets[emoji].amax(1) == 1).all()
    assert torch.equal(truth[emoji] - SOLID_CAPTIONS, concept[emoji] - 12)
    shapes = targets[~emoji, :SOLID_CAPTIONS].view(-1, 12, 12).sum(2)
    torch.testing.assert_close(shapes, scenes.shape_weights[scene, slot][~emoji])
    assert torch.equal(shapes.argmax(1), concept[~emoji])
    row = int(truth[emoji][0])
    assert all_captions()[row].endswith(NAMES[int(concept[emoji][0])])


def test_a_given_background_stays_where_nothing_is(cast):
    backgrounds = torch.rand(20, 3, 64, 64, generator=generator())
    scenes = render_world(cast, 20, generator(6), PLAIN, backgrounds=backgrounds)
    empty = (scenes.visible.sum(1, keepdim=True) == 0).expand(-1, 3, -1, -1)
    assert empty.float().mean() > 0.2
    assert torch.equal(scenes.image[empty], backgrounds[empty])


def test_sizes_scale(cast):
    small, large = (render_world(cast, 20, generator(7), PLAIN, size=s) for s in (32, 96))
    share = [scenes.visible.mean().item() for scenes in (small, large)]
    assert share[0] == pytest.approx(share[1], rel=0.05)


def test_bad_mixes_are_refused(cast):
    with pytest.raises(ValueError, match=r"mix.styles is \('oil',\); expected some of"):
        render_world(cast, 2, generator(), Mix(styles=("oil",)))
    with pytest.raises(ValueError, match=r"mix.objects is \(2, 5\); expected .* 1 to 4"):
        render_world(cast, 2, generator(), Mix(objects=(2, 5), styles=STYLES))


def test_the_sheet_shows_scenes_and_regions(cast):
    scenes = render_world(cast, 3, generator(8), PLAIN)
    sheet = contact_sheet(scenes, side=64)
    assert sheet.size == (5 * 64, 3 * (64 + 14))
    scene, slot = scenes.present.nonzero()[0].tolist()
    region = sheet.crop(((slot + 1) * 64, scene * 78, (slot + 2) * 64, scene * 78 + 64))
    drawn = torch.tensor(list(region.convert("L").tobytes())).view(64, 64) / 255
    torch.testing.assert_close(drawn, scenes.visible[scene, slot], atol=0.01, rtol=0)


def test_scenes_of_nothing_but_solids_need_no_artwork():
    bank = build_bank(torch.Generator().manual_seed(0), views=3, blends=1, side=32)
    scenes = render_world(cast_of_solids(bank), 30, generator(9), SOLIDS)
    present = scenes.present.bool()
    assert present.sum() > 60 and scenes.concept[present].max() < len(SHAPES)
    assert (scenes.shape_weights[present].amax(1) == 1).all()  # whole solids
    assert scenes.color_weights[present].amax(1).min() > 0.5  # in named colors
