"""Examples: which regions of scenes are asked about, and what they should be called."""

import random

import pytest
import torch
from tiny_cast import STYLES, tiny_cast

from alphaclip_gen.mini.concepts import NAMES, SOLID_CAPTIONS, all_captions
from alphaclip_gen.mini.emoji_world import Mix, render_world
from alphaclip_gen.mini.examples import make_examples, region


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.fixture(scope="module")
def scenes():
    mix = Mix(styles=STYLES, solids=0.4, looks=0.0, rough=0.0)
    return render_world(tiny_cast(), 60, generator(), mix)


@pytest.fixture(scope="module")
def examples(scenes):
    return make_examples(scenes, generator(1), random.Random(0), loose=0.0)


def test_every_visible_subject_is_an_example_called_by_its_name(scenes, examples):
    scene, slot = scenes.present.nonzero().T
    concept = scenes.concept[scene, slot]
    single, named = len(scene), examples.captions[: len(scene)].argmax(1)
    solid = concept < 12
    assert torch.equal(named[solid] // 12, concept[solid])
    assert torch.equal(named[~solid] - SOLID_CAPTIONS, concept[~solid] - 12)
    assert torch.equal(examples.concepts[:single].argmax(1), concept)
    assert torch.equal(examples.image[:single], scenes.image[scene])
    torch.testing.assert_close(examples.captions.sum(1), torch.ones(len(examples.captions)))


def test_regions_of_several_hold_both_and_are_called_by_both(scenes, examples):
    single = len(examples.captions)
    sayings = examples.scene_captions
    assert len(sayings) == len(examples.image) - single > 3
    assert all(" and " in saying for saying in sayings)
    assert (examples.alpha[single:].amax((1, 2, 3)) > 0.9).all()
    whole = [bool(alpha.min() == 1) for alpha in examples.alpha[single:]]
    assert any(whole) and not all(whole)


def test_whole_scenes_of_one_subject_are_called_by_it(scenes, examples):
    single = int(scenes.present.sum())
    alone = len(examples.captions) - single
    assert alone > 0
    assert (examples.alpha[single : single + alone] == 1).all()


def test_cover_is_the_share_of_a_patch_that_a_concept_fills(scenes, examples):
    cover = examples.cover[: int(scenes.present.sum())]
    assert cover.shape[1:] == (64, len(NAMES))
    scene, slot = scenes.present.nonzero().T
    name = scenes.concept[scene, slot]
    emoji = name >= 12
    patch = scenes.visible[scene, slot].unfold(1, 8, 8).unfold(2, 8, 8).mean((-1, -2)).flatten(1)
    mine = cover[torch.arange(len(scene)), :, name]
    torch.testing.assert_close(mine[emoji], patch[emoji])


def test_loose_regions_hold_what_they_are_about():
    visible = torch.zeros(200, 1, 64, 64)
    visible[:, :, 20:30, 30:50] = 1
    exact = region(visible, generator(), loose=0.0)
    strength = exact[:, 0, 25, 40]
    assert 0.3 < (strength < 1).float().mean() < 0.7 and 0.5 <= strength.min() < 0.6
    assert strength.max() == 1 == exact.max()
    outside = exact[:, 0, 5, 5]
    assert 0.05 < (outside > 0).float().mean() < 0.3 and outside.max() <= 0.3
    loose = region(visible, generator(), loose=1.0)
    area, inside = loose.gt(0.4).sum((1, 2, 3)), loose[:, :, 20:30, 30:50].gt(0.4).sum((1, 2, 3))
    assert (inside > 0).all() and (area >= inside).all()
    boxes = (area == 200) & (inside == 200)
    assert boxes.float().mean() > 0.15  # a box of a box is itself; discs and wide rims are not


def test_strokes_and_dots_lie_on_what_they_are_about():
    visible = torch.zeros(200, 1, 64, 64)
    visible[:, :, 20:30, 10:54] = 1
    drawn = region(visible, generator(), loose=0.0, outside=0.0, drawn=1.0)
    ink = drawn / drawn.amax((1, 2, 3), keepdim=True) > 0.5
    area, wide = ink.sum((1, 2, 3)), ink.any(2)[:, 0].sum(1)
    assert (ink & (visible > 0)).sum() > 0.85 * ink.sum()
    assert (ink[:, 0].flatten(1) & (visible[:, 0].flatten(1) > 0)).any(1).all()
    assert (wide > 30).any() and (wide < 10).any()  # from dots to strokes across
    assert area.float().mean() < 0.6 * 440
    some = region(visible, generator(), loose=0.0, outside=0.0, drawn=0.25)
    whole = (some / some.amax((1, 2, 3), keepdim=True)).sum((1, 2, 3)) > 439
    assert 0.65 < whole.float().mean() < 0.85


def test_faint_regions_deserve_their_caption_less(scenes):
    examples = make_examples(scenes, generator(1), random.Random(0), loose=0.0)
    single = int(scenes.present.sum())
    alpha, own = examples.alpha[:single], examples.captions[:single].amax(1)
    strength = alpha.amax((1, 2, 3)) - alpha.amin((1, 2, 3))
    assert strength.min() < 0.3 and strength.max() > 0.95
    for faint, share in zip(strength.tolist(), own.tolist(), strict=True):
        assert share <= faint + (1 - faint) / len(all_captions()) + 1e-5
    assert own[strength > 0.999].median() > 0.9


def test_everything_repeats_by_seed(scenes):
    first, second = (make_examples(scenes, generator(4), random.Random(4)) for _ in range(2))
    assert torch.equal(first.alpha, second.alpha)
    assert first.scene_captions == second.scene_captions
    assert first.captions.shape[1] == len(all_captions())
