"""What mini's generator can be asked to do with a subject, and the ways to say it.

An instruction says how many of the subject, how large, and on what ground. Its wordings hold
`{subject}`, which the pipeline replaces by the subject's name ("thing" if none is known).
"""

import random
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product

from ..captions import COLOR_WORDS, COLORS, with_articles

SUBJECT = "{subject}"
UNNAMED = "thing"
"""The name of a subject that only its region tells."""

SCENERY: dict[str, tuple[str, ...]] = {
    "grass": ("grass", "a lawn"),
    "sand": ("sand", "a beach"),
    "snow": ("snow",),
    "sea": ("the sea", "water"),
    "sky": ("the sky", "a cloudy sky"),
    "night": ("a night sky", "the night sky"),
    "checks": ("checks", "a checkered background"),
    "stripes": ("stripes", "a striped background"),
    "dots": ("dots", "a dotted background"),
}
"""Grounds that are no flat color -> their names, the canonical one first."""

GROUNDS = (*COLORS, *SCENERY)
"""Every ground: flat colors, then scenery."""

SIZES: dict[str, tuple[str, ...]] = {
    "medium": ("",),
    "small": ("small", "little", "tiny"),
    "large": ("large", "big", "huge"),
}
COUNTS: dict[int, tuple[str, ...]] = {
    1: ("a", "one", "the"),
    2: ("two", "a pair of"),
    3: ("three",),
}
_LINKS = ("on", "in front of", "over")
_FRAMES = ("{}", "a picture of {}", "a drawing of {}")
_COLORED = ("a {} background", "{}")


@dataclass(frozen=True)
class Instruction:
    """What to do with a subject.

    Attributes:
        ground: one of `GROUNDS`, None for any.
        count: how many, 1 to 3.
        size: one of `SIZES`; several are always of medium size.
    """

    ground: str | None = None
    count: int = 1
    size: str = "medium"

    def __post_init__(self) -> None:
        if self.ground is not None and self.ground not in GROUNDS:
            raise ValueError(f"ground is {self.ground!r}; expected None or one of {GROUNDS}.")
        if self.count not in COUNTS:
            raise ValueError(f"count is {self.count}; expected one of {tuple(COUNTS)}.")
        if self.size not in SIZES:
            raise ValueError(f"size is {self.size!r}; expected one of {tuple(SIZES)}.")
        if self.count > 1 and self.size != "medium":
            raise ValueError(
                f"size is {self.size!r} for {self.count} subjects; expected 'medium': only a "
                f"single one is small or large."
            )


def random_instruction(rng: random.Random) -> Instruction:
    """One instruction: mostly a single subject on a flat color."""
    kind = rng.random()
    ground = rng.choice(list(COLORS)) if kind < 0.6 else None
    ground = rng.choice(list(SCENERY)) if kind >= 0.85 else ground
    count = rng.choices([1, 2, 3], [0.7, 0.17, 0.13])[0]
    size = rng.choices(list(SIZES), [0.45, 0.15, 0.4])[0] if count == 1 else "medium"
    return Instruction(ground, count, size)


def wording(instruction: Instruction) -> str:
    """The canonical wording: "a {subject} on a blue background", "two {subject} on grass"."""
    return next(_wordings(instruction))


def say(rng: random.Random, instruction: Instruction) -> str:
    """One random wording of the instruction, often the canonical one."""
    if rng.random() < 0.3:
        return wording(instruction)
    return rng.choice(list(_wordings(instruction)))


def _wordings(instruction: Instruction) -> Iterator[str]:
    """Every wording, the canonical one first."""
    for frame, link, ground, count, size in product(
        _FRAMES,
        _LINKS,
        _ground_names(instruction.ground),
        _counts(instruction),
        SIZES[instruction.size],
    ):
        subject = " ".join(filter(None, [count, size, SUBJECT]))
        text = f"{subject} {link} {ground}" if ground else subject
        yield with_articles(frame.format(text))


def _counts(instruction: Instruction) -> tuple[str, ...]:
    """How many; a single subject may go without an article: "{subject} on grass"."""
    return (*COUNTS[instruction.count], "") if instruction.count == 1 else COUNTS[instruction.count]


def _ground_names(ground: str | None) -> tuple[str, ...]:
    if ground is None:
        return ("",)
    if ground in SCENERY:
        return SCENERY[ground]
    return tuple(frame.format(word) for frame in _COLORED for word in COLOR_WORDS[ground])


def vocabulary() -> list[str]:
    """Every word that a prompt can hold, sorted; the subjects' names are `concepts.vocabulary`."""
    words = {UNNAMED}
    for ground, count in product(GROUNDS, COUNTS):
        for size in SIZES if count == 1 else ("medium",):
            for text in _wordings(Instruction(ground, count, size)):
                words.update(text.split())
    return sorted(words - {SUBJECT})
