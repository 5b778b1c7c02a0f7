"""What mini's second world can show: twelve solids in twelve colors, and emoji; and their captions.

A caption index counts all captions: first the solids' (`captions.all_captions`), then one for each
emoji. `all_captions` has the canonical wordings; `say` varies them for training. The emoji and
their names are listed in concepts.txt.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files

from . import captions
from .captions import COLORS, SHAPES

_TEMPLATES = ("{}", "a picture of {}", "a photo of {}", "an image of {}", "a drawing of {}")
_SCENES = ("{}", "a picture of {}", "{} in one picture")


@dataclass(frozen=True)
class Emoji:
    """One emoji: its code points ("1f436") and the names it goes by, the canonical one first.

    Names are noun phrases without their article; `plain` says of each whether it takes none.
    """

    code: str
    names: tuple[str, ...]
    plain: tuple[bool, ...]

    def phrase(self, index: int = 0, article: str = "a") -> str:
        """The name with its article: "an apple", "grapes", "the grapes"."""
        if self.plain[index] and article == "a":
            return self.names[index]
        return captions.with_articles(f"{article} {self.names[index]}")


def _read(text: str) -> tuple[Emoji, ...]:
    """The emoji of a list like concepts.txt."""
    found = []
    for line in filter(None, (line.partition("#")[0].strip() for line in text.splitlines())):
        code, _, rest = line.partition(" ")
        names = [name.strip() for name in rest.split(",")]
        plain = tuple(name.startswith("-") for name in names)
        found.append(Emoji(code, tuple(name.removeprefix("-") for name in names), plain))
    return tuple(found)


EMOJI = _read(files(__package__).joinpath("concepts.txt").read_text(encoding="utf-8"))
"""Every emoji of the world; the order counts, since `Scenes.concept` and captions index it."""

NAMES = [*SHAPES, *(emoji.names[0] for emoji in EMOJI)]
"""Every concept's name: the solids, then the emoji. `Scenes.concept` indexes it."""

SOLID_CAPTIONS = len(SHAPES) * len(COLORS)
"""How many captions are about solids; the rest is one for each of `EMOJI`."""


def all_captions() -> list[str]:
    """The canonical caption of everything: "a red cone" ..., then "a dog face" ..."""
    return [*captions.all_captions(), *(emoji.phrase() for emoji in EMOJI)]


def say(rng: random.Random, caption: int) -> str:
    """One random wording of the caption with this index."""
    if caption < SOLID_CAPTIONS:
        return captions.say(rng, *_solid(caption))
    template = _TEMPLATES[0] if rng.random() < 0.6 else rng.choice(_TEMPLATES)
    article = "the" if template == "{}" and rng.random() < 0.15 else "a"
    return template.format(_phrase(rng, EMOJI[caption - SOLID_CAPTIONS], article))


def say_all(rng: random.Random) -> list[str]:
    """One random wording of every caption, in the order of `all_captions`."""
    return [say(rng, caption) for caption in range(SOLID_CAPTIONS + len(EMOJI))]


def say_scene(rng: random.Random, things: Sequence[int]) -> str:
    """The caption of several things in any order: "a dog, a pizza and a red cone".

    Args:
        rng: decides order and wording.
        things: the caption index of each.
    """
    parts = [_mention(rng, thing) for thing in rng.sample(list(things), len(things))]
    listed = " and ".join([", ".join(parts[:-1]), parts[-1]]) if len(parts) > 1 else parts[0]
    return rng.choice(_SCENES).format(listed)


def _mention(rng: random.Random, caption: int) -> str:
    if caption < SOLID_CAPTIONS:
        return captions.say_scene(rng, [_solid(caption)])
    return _phrase(rng, EMOJI[caption - SOLID_CAPTIONS])


def _phrase(rng: random.Random, emoji: Emoji, article: str = "a") -> str:
    index = 0 if rng.random() < 0.6 else rng.randrange(len(emoji.names))
    return emoji.phrase(index, article)


def _solid(caption: int) -> tuple[str, str]:
    shape, color = divmod(caption, len(COLORS))
    return list(SHAPES)[shape], list(COLORS)[color]


def vocabulary() -> list[str]:
    """Every word a caption can hold, sorted; words as spaces part them, without commas."""
    words = {word for emoji in EMOJI for name in emoji.names for word in name.split()}
    words.update(word for template in (*_TEMPLATES, *_SCENES) for word in template.split())
    return sorted((words - {"{}"}) | set(captions.vocabulary()) | {"the"})
