"""The emoji and their captions: every name means one thing and says no color."""

import random
import re
from collections import Counter

import pytest

from alphaclip_gen.mini import captions
from alphaclip_gen.mini.captions import COLORS, SHAPES
from alphaclip_gen.mini.concepts import (
    EMOJI,
    NAMES,
    SOLID_CAPTIONS,
    Emoji,
    all_captions,
    say,
    say_all,
    say_scene,
    vocabulary,
)


def test_there_are_many_concepts_and_no_name_means_two():
    assert len(EMOJI) >= 300
    assert len({emoji.code for emoji in EMOJI}) == len(EMOJI)
    names = Counter(name for emoji in EMOJI for name in emoji.names)
    names.update(name for solid in SHAPES.values() for name in solid)
    assert [name for name, count in names.items() if count > 1] == []
    assert NAMES[:12] == list(SHAPES) and len(NAMES) == 12 + len(EMOJI)


def test_captions_list_solids_first_and_are_all_different():
    listed = all_captions()
    assert listed[:SOLID_CAPTIONS] == captions.all_captions()
    assert len(listed) == len(set(listed)) == SOLID_CAPTIONS + len(EMOJI)
    assert {"a dog", "an apple", "grapes", "a pizza"} <= set(listed)


def test_names_say_no_color_and_no_direction():
    """Emoji are recolored and mirrored; eyes of "cat with heart eyes" and the like may stay."""
    words = {word for emoji in EMOJI for name in emoji.names for word in name.split()}
    assert not words & {*COLORS, "grey", "left", "right", "skin", "tone", "flag"}


def test_no_flags_no_skin_tones_and_no_families():
    for emoji in EMOJI:
        points = [int(point, 16) for point in emoji.code.split("-")]
        assert len(points) == 1
        assert not 0x1F3FB <= points[0] <= 0x1F3FF and not 0x1F1E6 <= points[0] <= 0x1F1FF


def test_articles():
    emoji = Emoji("1f347", ("grapes", "orange", "bunch"), (True, False, False))
    assert [emoji.phrase(index) for index in range(3)] == ["grapes", "an orange", "a bunch"]
    assert {"an hourglass", "a unicorn", "an umbrella with rain drops"} <= set(all_captions())
    assert emoji.phrase(0, "the") == "the grapes" and emoji.phrase(1, "the") == "the orange"


def test_every_wording_names_its_thing():
    rng = random.Random(0)
    words = set(vocabulary())
    for _ in range(5):
        texts = say_all(rng)
        assert len(texts) == SOLID_CAPTIONS + len(EMOJI) == len(set(texts))
        for emoji, text in zip(EMOJI, texts[SOLID_CAPTIONS:], strict=True):
            assert any(text.endswith(name) for name in emoji.names)
            assert set(text.split()) <= words and " a a" not in text
    red_cone = all_captions().index("a red cone")
    assert {"cone"} <= set(say(rng, red_cone).split())


def test_wordings_differ():
    texts = {say(random.Random(seed), all_captions().index("a car")) for seed in range(60)}
    assert {"a car", "an automobile", "the car"} <= texts
    assert any(re.fullmatch("a (picture|photo|drawing) of a(n automobile| car)", t) for t in texts)


@pytest.mark.parametrize(
    "names", [("a dog",), ("a dog", "a pizza"), ("a dog", "a red cone", "fire")]
)
def test_scenes_list_their_things(names):
    things = [all_captions().index(name) for name in names]
    texts = {say_scene(random.Random(seed), things) for seed in range(200)}
    if len(names) == 3:
        assert {"a dog, a red cone and fire", "fire, a dog and a red cone"} <= texts
    else:
        assert " and ".join(names) in texts
    assert all(text.count(" and ") == len(names) - 1 - text.count(",") for text in texts)
