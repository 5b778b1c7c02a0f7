"""What the generator learns from: a scene with a region, a prompt, and the picture asked for.

The picture asked for shows the very drawing that the region is about, in its colors, turned as in
the scene, at a fixed place, on the ground that the prompt names. Generators decide everything.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from ...framing import MARGIN, VISIBLE, region_windows
from ...subject.prompts import subject_prompt
from ..artwork import TRAINING_STYLES
from ..captions import COLORS, SHAPES
from ..concepts import EMOJI
from ..dice import Dice
from ..emoji_world import Cast, Mix, render_world
from ..examples import region
from ..looks import recolor
from ..solids import SpriteBank
from ..sprites import build_pyramid, draw, sampling_grid
from ..world import Scenes, Style
from .grounds import draw_grounds
from .prompts import GROUNDS, UNNAMED, Instruction, random_instruction, say

LAYOUTS: dict[tuple[int, str], tuple[tuple[float, float, float], ...]] = {
    (1, "medium"): ((0.0, 0.0, 0.6),),
    (1, "small"): ((0.0, 0.0, 0.4),),
    (1, "large"): ((0.0, 0.0, 0.8),),
    (2, "medium"): ((-0.5, 0.0, 0.4), (0.5, 0.0, 0.4)),
    (3, "medium"): ((-0.5, 0.5, 0.4), (0.5, 0.5, 0.4), (0.0, -0.5, 0.4)),
}
"""(count, size) -> x, y and half the longer side of each copy, in [-1, 1] picture units (y down).

What the tower is shown has a margin, an eighth of that side all around: it would take 4, 6 or 8
latents in a row, whole ones, so that what to draw into a latent is at the same tokens always.
"""
THUMBNAIL = 32
"""Pixels of a subject's picture that the Q-Former learns to draw."""

_THUMBNAIL_RADIUS = 0.8  # as the tower is shown it, if nothing hides a part

_TROUPE = ("troupe",)
_VIEWS = 8  # of each solid
_LIGHT = (0.35, 0.55, 0.76)
_TOLERANCE = 0.25
"""How much larger, smaller, or off its place a drawing may be as the tower is shown it."""
_TRIAL_RADIUS = 0.7  # of a sprite that is drawn to find its extent; turned, it still has room


@dataclass(frozen=True)
class Lesson:
    """What lessons hold.

    Attributes:
        objects: fewest and most subjects in a scene.
        styles: of the emoji.
        emoji: how many different ones appear in one batch.
        solids: fraction of subjects that are solids.
        looks: how far emoji are recolored, in the scene and in the picture asked for alike.
        rough: fraction of scenes that are blurred, and of noisy ones.
        whole: fraction of regions that are the whole picture: any of its subjects is asked for.
        loose: fraction of regions that are wider than the subject (see `examples.region`).
        outside: fraction of regions that are not zero outside.
        named: fraction of subjects whose name is told, to each of the two readers of names.
    """

    objects: tuple[int, int] = (1, 4)
    styles: tuple[str, ...] = TRAINING_STYLES
    emoji: int = 160
    solids: float = 0.06
    looks: float = 0.5
    rough: float = 0.1
    whole: float = 0.05
    loose: float = 0.15
    outside: float = 0.04
    named: float = 0.35


@dataclass(frozen=True)
class Lessons:
    """A batch of lessons.

    Attributes:
        image: the scenes.
        alpha: the region of each.
        sources: what the region is called for the Q-Former.
        prompts: whole prompts, names put in.
        instructions: what the prompts say.
        target: the pictures asked for.
        concept: what the region shows, an index into `concepts.NAMES`.
        thumbnail: the subject alone, small, premultiplied.
    """

    image: Float[Tensor, "lessons 3 height width"]
    alpha: Float[Tensor, "lessons 1 height width"]
    sources: list[str]
    prompts: list[str]
    instructions: list[Instruction]
    target: Float[Tensor, "lessons 3 height width"]
    concept: Int[Tensor, " lessons"]
    thumbnail: Float[Tensor, "lessons 4 32 32"]


def make_lessons(
    cast: Cast,
    scenes: int,
    generator: torch.Generator,
    rng: random.Random,
    lesson: Lesson | None = None,
) -> Lessons:
    """One lesson for every visible subject of so many random scenes.

    Args:
        cast: what can appear.
        scenes: how many.
        generator: decides pictures and regions.
        rng: decides words.
        lesson: what they hold; `Lesson()` if None.
    """
    lesson, dice = lesson or Lesson(), Dice(generator)
    troupe = choose_troupe(cast, dice, lesson.styles, lesson.emoji, lesson.looks)
    rendered = render_world(troupe, scenes, generator, _mix(lesson))
    scene, slot = rendered.present.nonzero().T
    alpha = region(rendered.visible[scene, slot, None], generator, lesson.loose, lesson.outside)
    whole = dice.chance(lesson.whole, len(scene), 1, 1, 1)
    alpha = torch.where(whole, 1.0, alpha)
    subjects = find_subjects(troupe, dice, rendered, scene, slot, alpha)
    instructions = [random_instruction(rng) for _ in range(len(scene))]
    names = [_name(rng, subjects, row) for row in range(len(scene))]
    return Lessons(
        image=rendered.image[scene],
        alpha=alpha,
        sources=_told(rng, names, lesson.named),
        prompts=[
            subject_prompt(say(rng, instruction), name, 1)
            for instruction, name in zip(instructions, _told(rng, names, lesson.named), strict=True)
        ],
        instructions=instructions,
        target=draw_pictures(troupe, dice, subjects, instructions, rendered.image.shape[-1]),
        concept=subjects.concept,
        thumbnail=_thumbnails(troupe, subjects),
    )


def _mix(lesson: Lesson) -> Mix:
    plain = Style(named=1.0, blended=0.0, rough=0.0)
    return Mix(lesson.objects, _TROUPE, lesson.solids, 0.0, lesson.rough, plain, mirrored=0.0)


def choose_troupe(
    cast: Cast, dice: Dice, styles: Sequence[str], most: int, looks: float = 0.0
) -> Cast:
    """A cast of one drawing each of so many random emoji, what one batch shows.

    With looks they are recolored, and half are mirrored: a picture shows them as the scene does.

    In it an emoji's sprite is known from its concept, so a scene's subject can be drawn again.
    """
    columns = cast.index[:, [cast.styles.index(style) for style in styles]]
    drawn = (columns >= 0).any(1).nonzero()[:, 0]
    emoji = drawn[torch.randperm(len(drawn), generator=dice.generator)[:most]]
    options = columns[emoji]
    style = torch.multinomial((options >= 0).float(), 1, generator=dice.generator)
    pixels = cast.art.levels[0][options.gather(1, style)[:, 0]].float() / 255
    if looks:
        pixels = recolor(dice, pixels, looks)
        pixels = torch.where(dice.chance(0.5, len(pixels), 1, 1, 1), pixels.flip(3), pixels)
    index = torch.full((len(cast.index), 1), -1)
    index[emoji, 0] = torch.arange(len(emoji))
    art = build_pyramid((pixels * 255).round().to(torch.uint8))
    return replace(cast, art=art, index=index, styles=_TROUPE)


@dataclass(frozen=True)
class Subjects:
    """Subjects of scenes, ready to be drawn again.

    Attributes:
        concept: an index into `concepts.NAMES`.
        sprite: of the troupe's emoji, or of the solids.
        color: the index of a solid's color; 0 for emoji.
        angle: how far emoji are turned, as in their scenes.
        framed: center (x, y) and half side of their squares as the tower is shown them, in [-1, 1]
            units of that; half sides are 0 of what can't be copied from there.
    """

    concept: Int[Tensor, " subjects"]
    sprite: Int[Tensor, " subjects"]
    color: Int[Tensor, " subjects"]
    angle: Float[Tensor, " subjects"]
    framed: Float[Tensor, "subjects 3"]

    @property
    def solid(self) -> Tensor:
        """Which are solids."""
        return self.concept < len(SHAPES)

    def take(self, rows: Int[Tensor, " rows"]) -> "Subjects":
        """Those of the rows."""
        return Subjects(**{name: value[rows] for name, value in vars(self).items()})


def find_subjects(
    troupe: Cast,
    dice: Dice,
    scenes: Scenes,
    scene: Int[Tensor, " subjects"],
    slot: Int[Tensor, " subjects"],
    alpha: Float[Tensor, "subjects 1 height width"],
) -> Subjects:
    """The subjects at those places: emoji as they stand, solids from another side.

    Args:
        troupe: what the scenes show.
        dice: decides from where solids are seen.
        scenes: where from.
        scene: of each subject.
        slot: of each subject.
        alpha: the region by which each is shown to the tower.
    """
    concept = scenes.concept[scene, slot]
    solid = concept < len(SHAPES)
    emoji = troupe.index[(concept - len(SHAPES)).clamp(min=0), 0]
    view = dice.integers(0, _VIEWS, len(concept))
    seen = _solid_views(troupe.bank)[concept.clamp(max=len(SHAPES) - 1), view]
    color = scenes.color_weights[scene, slot].argmax(1)
    sprite, color = torch.where(solid, seen, emoji), torch.where(solid, color, 0)
    windows = torch.tensor(region_windows(alpha, MARGIN, inside=False)) / alpha.shape[-1] * 2 - 1
    middle, half = (windows[:, :2] + windows[:, 2:]) / 2, (windows[:, 2] - windows[:, 0]) / 2
    place = scenes.place[scene, slot]
    framed = torch.cat([place[:, :2] - middle, place[:, 2:]], dim=1) / half[:, None]
    return Subjects(concept, sprite, color, scenes.angle[scene, slot], framed * ~solid[:, None])


def _solid_views(bank: SpriteBank) -> Int[Tensor, "shapes views"]:
    """A few sprites of each whole solid, always the same; repeated where there are fewer."""
    whole = (bank.shape_weights == 1) & (bank.coverage.flatten(1).float().mean(1) > 5)[:, None]
    found = [column.nonzero()[:, 0] for column in whole.T]
    return torch.stack([rows[torch.arange(_VIEWS) % len(rows)] for rows in found])


def draw_pictures(
    troupe: Cast,
    dice: Dice,
    subjects: Subjects,
    instructions: Sequence[Instruction],
    size: int = 64,
) -> Float[Tensor, "subjects 3 {size} {size}"]:
    """The pictures that the instructions ask for; a ground that they leave open is any."""
    copies = [
        (row, *place)
        for row, asked in enumerate(instructions)
        for place in LAYOUTS[asked.count, asked.size]
    ]
    row = torch.tensor([copy[0] for copy in copies])
    place = torch.tensor([copy[1:] for copy in copies])
    layers = draw_subjects(troupe, subjects.take(row), place[:, :2], place[:, 2], size)
    open_ground = dice.integers(0, len(GROUNDS), len(instructions)).tolist()
    names = [
        asked.ground or GROUNDS[any_ground]
        for asked, any_ground in zip(instructions, open_ground, strict=True)
    ]
    image = draw_grounds(dice, names, size)
    for one, layer in zip(row.tolist(), layers, strict=True):
        image[one] = image[one] * (1 - layer[3:]) + layer[:3]
    return image.clamp(0, 1)


def draw_subjects(
    troupe: Cast,
    subjects: Subjects,
    center: Float[Tensor, "subjects 2"],
    radius: Float[Tensor, " subjects"],
    size: int,
) -> Float[Tensor, "subjects 4 {size} {size}"]:
    """Premultiplied RGBA of subjects alone, each in the middle of its place.

    Where that is nearly so if a subject is drawn just as the tower is shown it, it is drawn just
    so: what to copy to where is then the same for all, to a fraction of a pixel.

    Args:
        troupe: what they are drawn from.
        subjects: which, and how far turned.
        center: x and y in [-1, 1] picture units, y down.
        radius: half of the longer side of what is seen, in the same units.
        size: picture side in pixels.
    """
    angle = subjects.angle
    turn = torch.stack([angle.cos(), -angle.sin(), angle.sin(), angle.cos()], dim=1).view(-1, 2, 2)
    trial = _draw_sprites(troupe, subjects, torch.zeros_like(center), _TRIAL_RADIUS * turn, 64)
    middle, half = _extent(trial[:, 3])
    seen = torch.cat([-middle, torch.full_like(half, _TRIAL_RADIUS)[:, None]], 1) / half[:, None]
    shown = subjects.framed * (1 + 2 * MARGIN)
    larger = shown[:, 2] / seen[:, 2]
    alike = (larger - 1).abs() < _TOLERANCE
    alike &= (shown[:, :2] - seen[:, :2]).abs().amax(1) < _TOLERANCE
    at = torch.where(alike[:, None], shown, seen) * radius[:, None]
    return _draw_sprites(troupe, subjects, center + at[:, :2], at[:, 2, None, None] * turn, size)


def _draw_sprites(
    troupe: Cast, subjects: Subjects, center: Tensor, axes: Tensor, size: int
) -> Tensor:
    grid = sampling_grid(center, axes, size)
    pixels = axes.det().sqrt() * size
    layers = torch.zeros(len(center), 4, size, size)
    for kind, pyramid in ((False, troupe.art), (True, troupe.solids)):
        rows = (subjects.solid == kind).nonzero()[:, 0]
        if len(rows):
            drawn = draw(pyramid, subjects.sprite[rows], grid[rows], pixels[rows])
            layers[rows] = _lit(drawn, subjects.color[rows]) if kind else drawn
    return layers


def _extent(
    coverage: Float[Tensor, "subjects side side"],
) -> tuple[Float[Tensor, "subjects 2"], Float[Tensor, " subjects"]]:
    """Middle (x, y) and half the longer side of what is seen, in [-1, 1] picture units."""
    seen, side = coverage > VISIBLE * coverage.amax((1, 2), keepdim=True), coverage.shape[-1]
    lines = torch.stack([seen.any(1), seen.any(2)], dim=1).int()  # columns, rows
    first = lines.argmax(2) / side * 2 - 1
    last = 1 - lines.flip(2).argmax(2) / side * 2
    return (first + last) / 2, (last - first).amax(1) / 2


def _lit(layers: Tensor, color: Tensor) -> Tensor:
    """Solids in their color under one light, from encoded normals and coverage."""
    normals, coverage = F.normalize(2 * layers[:, :3] - 1, dim=1), layers[:, 3:]
    facing = (normals * torch.tensor(_LIGHT).view(1, 3, 1, 1)).sum(1, keepdim=True).clamp(min=0)
    paint = torch.tensor(list(COLORS.values()))[color][..., None, None]
    return torch.cat([(paint * (0.6 + 0.45 * facing)).clamp(0, 1) * coverage, coverage], dim=1)


def _thumbnails(troupe: Cast, subjects: Subjects) -> Float[Tensor, "subjects 4 32 32"]:
    count = len(subjects.concept)
    center, radius = torch.zeros(count, 2), torch.full((count,), _THUMBNAIL_RADIUS)
    whole = draw_subjects(troupe, subjects, center, radius, 2 * THUMBNAIL)
    return F.avg_pool2d(whole, 2)


def _name(rng: random.Random, subjects: Subjects, row: int) -> str:
    concept = int(subjects.concept[row])
    if concept >= len(SHAPES):
        return rng.choice(EMOJI[concept - len(SHAPES)].names)
    return f"{list(COLORS)[int(subjects.color[row])]} {list(SHAPES)[concept]}"


def _told(rng: random.Random, names: Sequence[str], share: float) -> list[str]:
    """The names, most of them kept back."""
    return [name if rng.random() < share else UNNAMED for name in names]
