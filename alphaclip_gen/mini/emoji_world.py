"""mini's second world: scenes of one to four emoji and solids, with every subject's visible alpha.

As in the first (`world`), all is vectorized and decided by a `torch.Generator`: same state, same
scenes. Emoji come in the styles of `artwork`; one style is never trained on.
"""

from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Float, Int
from safetensors.torch import load_file, save_file
from torch import Tensor

from ..whole_files import whole_file
from .artwork import HELD_OUT_STYLES, SIDE, TRAINING_STYLES, ArtBank, load_art
from .backdrops import backdrops
from .captions import SHAPES
from .concepts import EMOJI
from .dice import Dice
from .looks import outline, recolor, relief, shadows
from .solids import SpriteBank, build_bank
from .sprites import Pyramid, build_pyramid, draw, layout, sampling_grid
from .world import PLAIN, Scenes, Style, choose_sprites, degrade, paint_solids

_LARGEST = (1.0, 0.95, 0.76, 0.68, 0.6)  # greatest radius among so many subjects
_SMALLEST = 0.31  # of the radius: 20 of 64 pixels across


@dataclass(frozen=True)
class Mix:
    """What the scenes hold.

    Attributes:
        objects: fewest and most subjects in a scene; four at most.
        styles: the styles of the emoji.
        solids: fraction of subjects that are solids, not emoji.
        looks: how far emoji are recolored, lit, outlined and bent; 1 is much, 0 not. All
            are turned a little.
        rough: fraction of pictures that are blurred, and of noisy ones.
        solid: how the solids are colored.
        mirrored: fraction of emoji that are.
    """

    objects: tuple[int, int] = (1, 4)
    styles: tuple[str, ...] = TRAINING_STYLES
    solids: float = 0.15
    looks: float = 1.0
    rough: float = 0.18
    solid: Style = Style()
    mirrored: float = 0.5


SEEN = Mix(objects=(2, 4), solids=0.0, looks=0.0, rough=0.0)
"""A test of two to four emoji in the colors they were drawn in, in the styles of the training."""
HELD_OUT = Mix(objects=(2, 4), styles=HELD_OUT_STYLES, solids=0.0, looks=0.0, rough=0.0)
"""The same in the style that is never trained on."""

SOLIDS = Mix(objects=(2, 4), solids=1.0, looks=0.0, rough=0.0, solid=PLAIN)
"""The same of whole solids in named colors."""


@dataclass(frozen=True)
class Cast:
    """Everything that can appear, ready to be drawn.

    Attributes:
        art: premultiplied RGBA of emoji.
        index: the sprite of emoji and style; -1 for none.
        styles: the styles' names.
        solids: unit normals times coverage, from [-1, 1] to [0, 1], and coverage.
        bank: the solids' own bank, for what each is.
    """

    art: Pyramid
    index: Int[Tensor, "emoji styles"]
    styles: tuple[str, ...]
    solids: Pyramid
    bank: SpriteBank


def make_cast(art: ArtBank, bank: SpriteBank) -> Cast:
    """The cast of a bank of emoji and one of solids."""
    coverage = bank.coverage[:, None].float()
    normals = (bank.normals.float() * coverage / 255 + 127.5).round()
    solids = torch.cat([normals, coverage], dim=1).to(torch.uint8)
    return Cast(build_pyramid(art.pixels), art.index, art.styles, build_pyramid(solids), bank)


def cast_of_solids(bank: SpriteBank) -> Cast:
    """The cast for scenes of nothing but solids, such as `SOLIDS`; it needs no artwork."""
    blank = torch.zeros(1, 4, SIDE, SIDE, dtype=torch.uint8)
    index = torch.zeros(len(EMOJI), len(TRAINING_STYLES), dtype=torch.long)
    return make_cast(ArtBank(blank, index, TRAINING_STYLES), bank)


def load_cast(cache: Path, seed: int = 0) -> Cast:
    """The cast in a cache folder, built there the first time.

    Args:
        cache: see `artwork.load_art`.
        seed: of the solids' views.
    """
    art, path = load_art(cache), cache / f"solids-{seed}.safetensors"
    if not path.exists():
        bank = build_bank(torch.Generator().manual_seed(seed))
        with whole_file(path) as part:
            save_file(vars(bank), part)
    return make_cast(art, SpriteBank(**load_file(path)))


def render_world(
    cast: Cast,
    count: int,
    generator: torch.Generator,
    mix: Mix | None = None,
    size: int = 64,
    backgrounds: Float[Tensor, "scenes 3 height width"] | None = None,
) -> Scenes:
    """A batch of random scenes.

    Args:
        cast: what can appear (see `load_cast`).
        count: number of scenes.
        generator: decides everything; same state, same scenes.
        mix: what the scenes hold; `Mix()` for training, `SEEN` and `HELD_OUT` for tests.
        size: picture side in pixels.
        backgrounds: what the scenes stand on; None for random ones.

    Raises:
        ValueError: the mix asks for a style that the cast has not, or too many subjects.
    """
    mix, dice = mix or Mix(), Dice(generator)
    _check(mix, cast)
    slots = mix.objects[1]
    number = dice.integers(mix.objects[0], slots + 1, count)
    taken = torch.arange(slots) < number[:, None]
    emoji, sprites = _choose_emoji(cast, dice, count, mix)
    place = _places(dice, number, slots)
    # Subjects are kept as rows, the emoji first, since only they or only solids get some steps.
    solid = taken & dice.chance(mix.solids, count, slots)
    scene, slot = torch.cat([(taken & ~solid).nonzero(), solid.nonzero()]).T
    where = place[scene, slot].split([int((taken & ~solid).sum()), int(solid.sum())])

    angle = 0.14 * dice.normal(len(where[0])).clamp(-2, 2)
    drawn = sprites[scene, slot][: len(angle)]
    art = _draw_emoji(cast, dice, drawn, where[0], angle, size, mix)
    bodies, shapes, colors = _draw_solids(cast, dice, scene[len(art) :], where[1], size, mix)
    layers = torch.cat([art, bodies])
    dark = shadows(dice, layers[:, 3:], 0.3 * mix.looks)
    concept = torch.cat([len(SHAPES) + emoji[scene, slot][: len(art)], shapes.argmax(1)])

    def table(rows: Tensor) -> Tensor:
        full = rows.new_zeros(count, slots, *rows.shape[1:])
        first = len(scene) - len(rows)  # facts about solids are of the last rows
        full[scene[first:], slot[first:]] = rows
        return full

    image = backdrops(dice, count, size) if backgrounds is None else backgrounds
    canvas = table(layers)
    image, visible = _compose(image, canvas, table(dark))
    present = _seen_enough(visible, canvas[:, :, 3])
    if mix.rough:
        image, visible = degrade(dice, image, visible, mix.rough)
    return Scenes(
        image=image.clamp(0, 1),
        visible=visible,
        concept=table(concept),
        shape_weights=table(shapes),
        color_weights=table(colors),
        present=present,
        angle=table(torch.cat([angle, torch.zeros(len(bodies))])),
        place=place,
    )


def caption_targets(
    scenes: Scenes, scene: Int[Tensor, " examples"], slot: Int[Tensor, " examples"]
) -> Float[Tensor, "examples captions"]:
    """How much of each of `concepts.all_captions` subjects deserve; rows sum to one.

    A solid's row is spread over shapes and colors, an emoji's is all on its name.
    """
    joint = scenes.shape_weights[scene, slot, :, None] * scenes.color_weights[scene, slot, None]
    emoji = scenes.concept[scene, slot] - len(SHAPES)
    named = torch.zeros(len(scene), len(EMOJI))
    rows = (emoji >= 0).nonzero()[:, 0]
    named[rows, emoji[rows]] = 1
    return torch.cat([joint.flatten(1), named], dim=1)


def _check(mix: Mix, cast: Cast) -> None:
    if not mix.styles or set(mix.styles) - set(cast.styles):
        raise ValueError(f"mix.styles is {mix.styles}; expected some of {cast.styles}.")
    most = len(_LARGEST) - 1
    if not 1 <= mix.objects[0] <= mix.objects[1] <= most:
        raise ValueError(
            f"mix.objects is {mix.objects}; expected the fewest and the most, 1 to {most}."
        )


def _choose_emoji(cast: Cast, dice: Dice, count: int, mix: Mix) -> tuple[Tensor, Tensor]:
    """Emoji and their sprites, (scenes, slots) each; none twice in a scene."""
    columns = cast.index[:, [cast.styles.index(style) for style in mix.styles]]
    drawn = (columns >= 0).any(1).nonzero()[:, 0]
    order = dice.uniform(0, 1, count, len(drawn)).topk(mix.objects[1], dim=1).indices
    emoji = drawn[order]
    options = columns[emoji.flatten()]
    style = torch.multinomial((options >= 0).float(), 1, generator=dice.generator)
    return emoji, options.gather(1, style).view_as(emoji)


def _places(dice: Dice, number: Tensor, slots: int) -> Tensor:
    """Center x and y, and radius of each slot, (scenes, slots, 3): the fewer, the larger."""
    largest = torch.tensor(_LARGEST)[number, None]
    center, radius = layout(dice, number, slots, torch.full_like(largest, _SMALLEST), largest)
    return torch.cat([center, radius[..., None]], dim=2)


def _draw_emoji(
    cast: Cast, dice: Dice, sprites: Tensor, place: Tensor, angle: Tensor, size: int, mix: Mix
) -> Tensor:
    """Premultiplied RGBA of emoji at their places: turned, mirrored, in a new look."""
    count, angle = len(sprites), angle.view(-1, 1, 1)
    turn = angle.cos() * torch.eye(2) + angle.sin() * torch.tensor([[0.0, -1], [1, 0]])
    mirror = 1 - 2 * dice.chance(mix.mirrored, count).float()
    axes = turn @ torch.diag_embed(torch.stack([mirror, torch.ones(count)], dim=1))
    axes = axes @ (torch.eye(2) + 0.09 * mix.looks * dice.normal(count, 2, 2).clamp(-2, 2))
    center, radius = place[:, :2], place[:, 2]
    grid = sampling_grid(center, radius[:, None, None] * axes, size)
    if not mix.looks:
        return draw(cast.art, sprites, grid, radius * size)
    bend = dice.smooth(count, 2, 4, size).permute(0, 2, 3, 1) - 0.5
    grid = grid + 0.35 * mix.looks * dice.uniform(0, 1, count, 1, 1, 1) * bend
    layers = draw(cast.art, sprites, grid, radius * size)
    layers = recolor(dice, layers, mix.looks)
    layers = relief(dice, layers, 0.4 * mix.looks)
    return outline(dice, layers, 0.12 * mix.looks)


def _draw_solids(
    cast: Cast, dice: Dice, scene: Tensor, place: Tensor, size: int, mix: Mix
) -> tuple[Tensor, Tensor, Tensor]:
    """Premultiplied RGBA of solids at their places, and what shapes and colors they are."""
    sprites = choose_sprites(cast.bank, dice, len(scene), mix.solid)
    center, radius = place[:, :2], place[:, 2]
    grid = sampling_grid(center, radius[:, None, None] * torch.eye(2), size)
    layers = draw(cast.solids, sprites, grid, radius * size)
    normals = 2 * layers[:, :3] - 1
    normals = normals * normals.square().sum(1, keepdim=True).clamp(min=1e-6).rsqrt()
    lit, coverage, colors = paint_solids(dice, normals, layers[:, 3], scene, mix.solid)
    layers = torch.cat([lit * coverage[:, None], coverage[:, None]], dim=1)
    return layers, cast.bank.shape_weights[sprites], colors


def _compose(image: Tensor, layers: Tensor, dark: Tensor) -> tuple[Tensor, Tensor]:
    """Paint slot after slot, its shadow first, the last in front: picture and visible parts."""
    visible = list[Tensor]()
    for slot in range(layers.shape[1]):
        color, cover = layers[:, slot, :3], layers[:, slot, 3:]
        image = image * (1 - dark[:, slot]) * (1 - cover) + color
        visible = [seen * (1 - cover) for seen in visible] + [cover]
    return image, torch.cat(visible, dim=1)


def _seen_enough(visible: Tensor, coverage: Tensor) -> Tensor:
    """1 where at least half of a subject can be seen, and no less than a 64 px picture's 20 px."""
    seen, full = visible.sum((-2, -1)), coverage.sum((-2, -1))
    least = 20 * (visible.shape[-1] / 64) ** 2
    return ((seen > 0.5 * full) & (seen > least)).float()
