"""Lessons: the picture asked for shows the drawing that the region is on, as the prompt says."""

import math
import random
from dataclasses import replace

import pytest
import torch
from tiny_cast import STYLES, tiny_cast

from alphaclip_gen.framing import preprocess, resize
from alphaclip_gen.mini.captions import COLORS, SHAPES
from alphaclip_gen.mini.concepts import EMOJI
from alphaclip_gen.mini.dice import Dice
from alphaclip_gen.mini.emoji_world import Mix, render_world
from alphaclip_gen.mini.generator.lessons import (
    LAYOUTS,
    Lesson,
    Subjects,
    choose_troupe,
    draw_pictures,
    draw_subjects,
    find_subjects,
    make_lessons,
)
from alphaclip_gen.mini.generator.prompts import UNNAMED, Instruction
from alphaclip_gen.mini.sprites import build_pyramid

PLAIN = Lesson(styles=STYLES, emoji=12, solids=0.0, looks=0.0, rough=0.0, whole=0.0)


@pytest.fixture(scope="module")
def cast():
    return tiny_cast()


def lessons_of(cast, lesson, scenes=12, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return make_lessons(cast, scenes, generator, random.Random(seed), lesson)


def gray(concept, style="plain"):
    """What tiny_cast paints that emoji with."""
    return (20 * (int(concept) - len(SHAPES)) + 10) / 255 if style == "plain" else 10 / 255


def emoji_subjects(troupe, *rows):
    concept = torch.tensor(rows) + len(SHAPES)
    nothing = torch.zeros(len(rows), dtype=torch.long)
    sprite = troupe.index[torch.tensor(rows), 0]
    return Subjects(concept, sprite, nothing, torch.zeros(len(rows)), torch.zeros(len(rows), 3))


def test_the_target_shows_the_region_s_drawing_and_the_asked_ground(cast):
    lessons = lessons_of(cast, replace(PLAIN, styles=("plain",), objects=(2, 3)))
    assert len(lessons.prompts) == len(lessons.target) > 12
    for row, instruction in enumerate(lessons.instructions):
        x, y, _ = LAYOUTS[instruction.count, instruction.size][0]
        center = lessons.target[row, :, int(32 + 32 * y), int(32 + 32 * x)]
        assert center.tolist() == pytest.approx([gray(lessons.concept[row])] * 3, abs=0.01)
        if instruction.ground in COLORS and instruction.size != "large":
            corner = lessons.target[row, :, 0, 0]
            assert (corner - torch.tensor(COLORS[instruction.ground])).abs().max() < 0.05


def test_regions_lie_on_their_subject(cast):
    lessons = lessons_of(cast, replace(PLAIN, styles=("plain",), loose=0.0))
    luma = lessons.image.mean(1, keepdim=True)
    core = (lessons.alpha >= lessons.alpha.amax((2, 3), keepdim=True) - 1e-3).float()
    seen = (luma * core).sum((1, 2, 3)) / core.sum((1, 2, 3))
    wanted = torch.tensor([gray(concept) for concept in lessons.concept])
    assert (seen - wanted).abs().median() < 0.02


def test_as_many_regions_as_asked_are_the_whole_picture(cast):
    lessons = lessons_of(cast, replace(PLAIN, whole=0.5, loose=0.0), scenes=40)
    whole = (lessons.alpha == 1).flatten(1).all(1).float().mean()
    assert 0.35 < whole < 0.65
    assert not (lessons_of(cast, PLAIN).alpha == 1).flatten(1).all(1).any()


def test_names_are_told_as_often_as_asked(cast):
    never, always = (lessons_of(cast, replace(PLAIN, named=share)) for share in (0.0, 1.0))
    assert set(never.sources) == {UNNAMED} and all(UNNAMED in text for text in never.prompts)
    for source, text, concept in zip(
        always.sources, always.prompts, always.concept.tolist(), strict=True
    ):
        names = EMOJI[concept - len(SHAPES)].names
        assert source in names and any(name in text for name in names)


def test_same_generators_same_lessons(cast):
    first, again = (lessons_of(cast, replace(PLAIN, looks=1.0, solids=0.3)) for _ in range(2))
    assert torch.equal(first.image, again.image) and torch.equal(first.target, again.target)
    assert first.prompts == again.prompts


def test_a_troupe_has_one_drawing_of_each_emoji_of_the_styles(cast):
    troupe = choose_troupe(cast, Dice(torch.Generator().manual_seed(0)), ("faint",), 5)
    assert int((troupe.index >= 0).sum()) == 5 and troupe.index.shape == (len(EMOJI), 1)
    assert set(troupe.art.levels[0][:, 0, 32, 32].tolist()) == {10}


def test_counts_and_sizes_are_drawn(cast):
    """The share of the picture that the drawing, a square, covers in each layout."""
    troupe = choose_troupe(cast, Dice(torch.Generator().manual_seed(0)), ("plain",), 12)
    asked = [Instruction("green", count, size) for count, size in LAYOUTS]
    subjects = emoji_subjects(troupe, *[0] * len(asked))
    pictures = draw_pictures(troupe, Dice(torch.Generator().manual_seed(0)), subjects, asked)
    covered = (pictures[:, 1] < 0.3).flatten(1).float().mean(1)
    for share, places in zip(covered.tolist(), LAYOUTS.values(), strict=True):
        assert share == pytest.approx(sum(r**2 for _, _, r in places), rel=0.1)


def test_solids_are_lit_in_their_color(cast):
    troupe = choose_troupe(cast, Dice(torch.Generator().manual_seed(0)), ("plain",), 12)
    rows = (troupe.bank.shape_weights.argmax(1) == 0).nonzero()[:1, 0]  # a sphere
    red = torch.tensor([list(COLORS).index("red")])
    subjects = Subjects(
        torch.zeros(1, dtype=torch.long), rows, red, torch.zeros(1), torch.zeros(1, 3)
    )
    layer = draw_subjects(troupe, subjects, torch.zeros(1, 2), torch.ones(1), 32)[0]
    inside = layer[:, layer[3] > 0.99]
    assert inside.shape[1] > 100
    assert (inside[0] > 3 * inside[1]).all() and inside[0].std() > 0.02


def test_unknown_solids_and_emoji_get_thumbnails_of_themselves(cast):
    lessons = lessons_of(cast, replace(PLAIN, styles=("plain",), solids=0.4), scenes=20)
    assert lessons.thumbnail.shape == (len(lessons.prompts), 4, 32, 32)
    emoji = lessons.concept >= len(SHAPES)
    assert emoji.any() and not emoji.all()
    for concept, thumbnail in zip(lessons.concept[emoji], lessons.thumbnail[emoji], strict=True):
        assert thumbnail[0, 16, 16].item() == pytest.approx(gray(concept), abs=0.01)
        assert thumbnail[3, 16, 16].item() == pytest.approx(1, abs=0.01)
    assert (lessons.thumbnail[~emoji, 3].amax((1, 2)) > 0.5).all()


def test_a_subject_is_turned_as_in_its_scene(cast):
    """By 0.3 from x toward y: where its x axis pointed, the drawing's edge midpoint, is lower."""
    troupe = choose_troupe(cast, Dice(torch.Generator().manual_seed(0)), ("plain",), 12)
    subjects = emoji_subjects(troupe, 0)
    still, turned = (
        draw_subjects(
            troupe,
            replace(subjects, angle=torch.tensor([angle])),
            torch.zeros(1, 2),
            torch.tensor([0.6]),
            64,
        )[0, 3]
        for angle in (0.0, 0.3)
    )
    corner = torch.tensor([0.4, -0.4])  # inside, near the upper right corner
    turn = torch.tensor([[math.cos(0.3), -math.sin(0.3)], [math.sin(0.3), math.cos(0.3)]])
    x, y = (32 + 32 * turn @ corner).int().tolist()
    assert still[15, 48] > 0.9 and turned[y, x] > 0.9 and turned[14, 46] < 0.5
    scenes = render_world(troupe, 3, torch.Generator().manual_seed(1), Mix(styles=("troupe",)))
    scene, slot = scenes.present.nonzero().T
    alpha = scenes.visible[scene, slot, None]
    dice = Dice(torch.Generator().manual_seed(0))
    found = find_subjects(troupe, dice, scenes, scene, slot, alpha)
    emoji = ~found.solid
    assert (found.angle[emoji] != 0).all() and (found.angle[~emoji] == 0).all()
    assert (found.framed[emoji, 2] > 0).all() and (found.framed[~emoji] == 0).all()


def test_scene_and_picture_asked_for_show_the_same_side(cast):
    """Drawings that are black on their right: half are mirrored, in scene and picture alike."""
    pixels = cast.art.levels[0].clone()
    pixels[:, :3, :, 32:] = 0
    lesson = replace(PLAIN, styles=("plain",), looks=0.01, objects=(1, 1), loose=0.0, outside=0.0)
    lessons = lessons_of(replace(cast, art=build_pyramid(pixels)), lesson, scenes=30)

    def bright_left(image):
        return image[:, :, :, :32].mean((1, 2, 3)) > image[:, :, :, 32:].mean((1, 2, 3))

    light = lessons.concept - len(SHAPES) > 5
    drawn = bright_left(resize(lessons.thumbnail[light, :3], (64, 64)))
    assert light.sum() > 8 and 0 < drawn.sum() < len(drawn)
    alpha = lessons.alpha[light]
    seen, _ = preprocess(lessons.image[light] * (alpha > 0.3), alpha, 64, "region-centered")
    assert torch.equal(bright_left(seen), drawn)


def test_an_unhidden_subject_is_asked_for_as_the_tower_is_shown_it(cast):
    """Also where a drawing fills a corner of its sprite: it is asked for in the middle, as wide."""
    pixels = cast.art.levels[0].clone()
    pixels[:, :, :20] = pixels[:, :, :, 40:] = 0
    lesson = replace(PLAIN, styles=("plain",), objects=(1, 1), loose=0.0, outside=0.0)
    lessons = lessons_of(replace(cast, art=build_pyramid(pixels)), lesson, scenes=30)
    shown, alpha = preprocess(lessons.image, lessons.alpha, 64, "region-centered")
    alpha = alpha / alpha.amax((2, 3), keepdim=True)
    edge = torch.cat([lessons.alpha[:, 0, [0, -1]], lessons.alpha[:, 0, :, [0, -1]].mT], dim=1)
    whole = edge.amax((1, 2)) == 0
    copied = resize(torch.cat([shown * alpha, alpha], dim=1), (32, 32))[whole]
    drawn = lessons.thumbnail[whole]
    assert len(drawn) > 15 and drawn[:, 3].mean() > 0.3
    assert (copied - drawn).abs().mean((1, 2, 3)).max() < 0.04
    line = torch.arange(32.0)
    cover = torch.stack([copied[:, 3], drawn[:, 3]])
    mass = cover.sum((2, 3))
    x, y = (cover.sum(2) * line).sum(2) / mass, (cover.sum(3) * line).sum(2) / mass
    assert x.diff(dim=0).abs().max() < 0.1 and y.diff(dim=0).abs().max() < 0.1
    edges = drawn[:, 3] > 0.5
    middle = [(edges.any(axis) * torch.arange(32)).float().amax(1) for axis in (1, 2)]
    assert ((15.5 + 12.8 - torch.stack(middle).amax(0)).abs() < 1.5).all()


def test_a_drawing_shown_far_off_its_place_is_asked_for_in_its_place(cast):
    """As where half of it is hidden, or a region is much wider than it."""
    troupe = choose_troupe(cast, Dice(torch.Generator().manual_seed(0)), ("plain",), 12)
    subjects = emoji_subjects(troupe, *[0] * 4)
    # The square of 1.25 windows' half sides would be the place itself.
    framed = torch.tensor([[0.0, 0, 0], [0.02, 0, 0.8], [0.4, 0, 0.8], [0, 0, 1.2]])
    center, radius = torch.zeros(4, 2), torch.full((4,), 0.5)
    layers = draw_subjects(troupe, replace(subjects, framed=framed), center, radius, 64)
    place, shifted, off, large = layers[:, 3]
    assert (shifted - place).abs().mean() > 0.001
    torch.testing.assert_close(off, place)
    torch.testing.assert_close(large, place)
