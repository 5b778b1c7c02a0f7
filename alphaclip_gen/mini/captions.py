"""The words of mini's world: twelve solids, twelve colors, and the ways to say them.

A caption names one solid ("a red cone"), or everything in sight ("a red cone and a blue cube").
`caption` is the canonical wording; `say` varies synonyms and word order for training.
"""

import random
import re
from collections.abc import Sequence

SHAPES: dict[str, tuple[str, ...]] = {
    "sphere": ("sphere", "ball", "orb"),
    "cube": ("cube", "box", "block"),
    "cylinder": ("cylinder", "can", "drum"),
    "cone": ("cone",),
    "torus": ("torus", "ring", "donut"),
    "pyramid": ("pyramid",),
    "disk": ("disk", "disc", "coin"),
    "stick": ("stick", "rod", "pole"),
    "cross": ("cross", "plus"),
    "capsule": ("capsule", "pill"),
    "snowman": ("snowman",),
    "mushroom": ("mushroom", "toadstool"),
}
"""Solid -> its names, the canonical one first."""

COLORS: dict[str, tuple[float, float, float]] = {
    "red": (0.86, 0.10, 0.10),
    "green": (0.12, 0.64, 0.18),
    "blue": (0.10, 0.25, 0.86),
    "yellow": (0.96, 0.86, 0.12),
    "purple": (0.50, 0.14, 0.66),
    "orange": (0.98, 0.50, 0.05),
    "white": (0.96, 0.96, 0.96),
    "black": (0.06, 0.06, 0.06),
    "gray": (0.50, 0.50, 0.50),
    "pink": (0.98, 0.58, 0.76),
    "brown": (0.44, 0.25, 0.11),
    "cyan": (0.12, 0.82, 0.86),
}
"""Color -> its sRGB value in [0, 1]."""

COLOR_WORDS: dict[str, tuple[str, ...]] = {
    **{name: (name,) for name in COLORS},
    "red": ("red", "scarlet"),
    "purple": ("purple", "violet"),
    "gray": ("gray", "grey"),
    "cyan": ("cyan", "aqua"),
}

_FULL = (
    "a {color} {shape}",
    "the {color} {shape}",
    "{color} {shape}",
    "a {shape} that is {color}",
    "a {color} colored {shape}",
    "a picture of a {color} {shape}",
    "a photo of a {color} {shape}",
)
_SHAPE_ONLY = ("a {shape}", "the {shape}", "{shape}", "a picture of a {shape}")
_COLOR_ONLY = ("a {color} object", "something {color}", "a {color} thing", "{color}")


def caption(shape: str | None = None, color: str | None = None) -> str:
    """The canonical caption: "a red cone", "a cone" (no color) or "a red object" (no shape)."""
    template = (_FULL if color else _SHAPE_ONLY) if shape else _COLOR_ONLY
    return with_articles(template[0].format(shape=shape, color=color))


def all_captions() -> list[str]:
    """Every "a {color} {shape}", at shape index * len(COLORS) + color index."""
    return [caption(shape, color) for shape in SHAPES for color in COLORS]


def say(rng: random.Random, shape: str | None = None, color: str | None = None) -> str:
    """One random wording of `caption(shape, color)`."""
    templates = (_FULL if color else _SHAPE_ONLY) if shape else _COLOR_ONLY
    template = templates[0] if rng.random() < 0.4 else rng.choice(templates)
    text = template.format(
        shape=_synonym(rng, SHAPES[shape]) if shape else None,
        color=_synonym(rng, COLOR_WORDS[color]) if color else None,
    )
    return with_articles(text)


def say_scene(rng: random.Random, things: Sequence[tuple[str, str]]) -> str:
    """The caption of several (shape, color) things, in random order and wording."""
    parts = [
        f"a {_synonym(rng, COLOR_WORDS[color])} {_synonym(rng, SHAPES[shape])}"
        for shape, color in rng.sample(list(things), len(things))
    ]
    return with_articles(" and ".join(parts))


def with_articles(text: str) -> str:
    """The text with "an" before the sound of a vowel: "an orange orb", "a unicorn"."""
    return re.sub(r"\ba (?=hour|(?!uni|ufo)[aeiou])", "an ", text)


def _synonym(rng: random.Random, names: tuple[str, ...]) -> str:
    return names[0] if rng.random() < 0.6 else rng.choice(names)


def vocabulary() -> list[str]:
    """Every word a caption can hold, sorted."""
    words = {word for names in (*SHAPES.values(), *COLOR_WORDS.values()) for word in names}
    for template in (*_FULL, *_SHAPE_ONLY, *_COLOR_ONLY):
        words.update(word for word in template.split() if "{" not in word)
    return sorted(words | {"and", "an"})
