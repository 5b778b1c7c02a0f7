"""What the judge of pictures learns from: one to three of a thing, drawn and spoiled in its way.

Nothing here is shared with the generator's lessons but the drawings and the sampling of sprites.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from ..captions import COLORS, SHAPES
from ..dice import Dice
from ..emoji_world import Cast
from ..sprites import draw, layout, sampling_grid
from .model import COUNTS, SIZE

_LARGEST = torch.tensor([0.95, 0.5, 0.44])  # radius of one, of two, of three


@dataclass(frozen=True)
class Views:
    """Pictures with what they show.

    Attributes:
        image: in [0, 1].
        concept: an index into `concepts.NAMES`.
        number: 1 to 3.
    """

    image: Float[Tensor, "views 3 64 64"]
    concept: Int[Tensor, " views"]
    number: Int[Tensor, " views"]


def draw_views(
    cast: Cast,
    count: int,
    generator: torch.Generator,
    styles: tuple[str, ...] | None = None,
    flaws: float = 1.0,
) -> Views:
    """Random views of random things.

    Args:
        cast: what there is.
        count: how many views.
        generator: decides everything.
        styles: of the emoji; all of the cast if None.
        flaws: how far they are recolored, bent, blurred and made noisy; 0 not at all.
    """
    dice = Dice(generator)
    number = 1 + dice.choice(torch.tensor([0.7, 0.16, 0.14]), count)
    concept, sprite = _choose(cast, dice, count, styles or cast.styles)
    largest = _LARGEST[number - 1, None]
    center, radius = layout(dice, number, len(COUNTS), torch.full((count, 1), 0.3), largest)
    row, slot = (torch.arange(len(COUNTS)) < number[:, None]).nonzero().T
    axes = radius[row, slot, None, None] * _axes(dice, row, flaws)
    grid = sampling_grid(center[row, slot], axes, SIZE)
    layers = _draw(cast, dice, concept[row], sprite[row], grid, radius[row, slot] * SIZE, row)
    layers = _recolored(dice, layers, row, 0.25 * flaws)
    image = _grounds(dice, count)
    for place in range(len(COUNTS)):
        here = (slot == place).nonzero()[:, 0]
        cover = layers[here, 3:]
        image[row[here]] = image[row[here]] * (1 - cover) + layers[here, :3]
    return Views(_spoiled(dice, image, flaws).clamp(0, 1), concept, number)


def _choose(cast: Cast, dice: Dice, count: int, styles: tuple[str, ...]) -> tuple[Tensor, Tensor]:
    """Concepts and a sprite of each; one in sixteen is a solid."""
    columns = cast.index[:, [cast.styles.index(style) for style in styles]]
    drawn = (columns >= 0).any(1).nonzero()[:, 0]
    emoji = drawn[dice.integers(0, len(drawn), count)]
    style = torch.multinomial((columns[emoji] >= 0).float(), 1, generator=dice.generator)
    sprite = columns[emoji].gather(1, style)[:, 0]
    whole = (cast.bank.shape_weights.amax(1) == 1).nonzero()[:, 0]
    view = whole[dice.integers(0, len(whole), count)]
    solid = dice.chance(1 / 16, count)
    concept = torch.where(solid, cast.bank.shape_weights[view].argmax(1), emoji + len(SHAPES))
    return concept, torch.where(solid, view, sprite)


def _axes(dice: Dice, row: Tensor, flaws: float) -> Tensor:
    """Small turns, stretches and shears; the copies of a picture are mirrored together."""
    angle = 0.18 * flaws * dice.normal(len(row)).clamp(-2, 2)
    turn = torch.stack([angle.cos(), -angle.sin(), angle.sin(), angle.cos()], dim=1).view(-1, 2, 2)
    mirror = 1 - 2 * dice.chance(0.5 if flaws else 0.0, int(row.max()) + 1).float()[row]
    bent = torch.eye(2) + 0.06 * flaws * dice.normal(len(row), 2, 2).clamp(-2, 2)
    return turn @ bent @ torch.diag_embed(torch.stack([mirror, torch.ones(len(row))], dim=1))


def _draw(
    cast: Cast,
    dice: Dice,
    concept: Tensor,
    sprite: Tensor,
    grid: Tensor,
    pixels: Tensor,
    row: Tensor,
) -> Tensor:
    """Premultiplied RGBA of emoji, and of solids in a color and light of their picture."""
    layers = torch.zeros(len(row), 4, SIZE, SIZE)
    solid = concept < len(SHAPES)
    for rows, pyramid in (
        ((~solid).nonzero()[:, 0], cast.art),
        (solid.nonzero()[:, 0], cast.solids),
    ):
        if len(rows):
            layers[rows] = draw(pyramid, sprite[rows], grid[rows], pixels[rows])
    pictures = int(row.max()) + 1
    names = torch.tensor(list(COLORS.values()))
    paint = names[dice.integers(0, len(names), pictures)] + 0.05 * dice.normal(pictures, 3)
    light = F.normalize(dice.normal(pictures, 3) * 0.7 + torch.tensor([0.0, 0.5, 1.2]), dim=1)
    ambient = dice.uniform(0.45, 0.8, pictures, 1, 1, 1)
    rows = solid.nonzero()[:, 0]
    normals, cover = F.normalize(2 * layers[rows, :3] - 1, dim=1), layers[rows, 3:]
    of = row[rows]
    facing = (normals * light[of, :, None, None]).sum(1, keepdim=True).clamp(min=0)
    shade = ambient[of] + (1 - ambient[of]) * facing
    layers[rows, :3] = (paint[of, :, None, None] * shade).clamp(0, 1) * cover
    return layers


def _recolored(dice: Dice, layers: Tensor, row: Tensor, width: float) -> Tensor:
    """Each picture's things with their own gains, contrast and saturation."""
    pictures = int(row.max()) + 1
    gain = 1 + width * dice.uniform(-1, 1, pictures, 3, 1, 1)
    gray = (width * dice.uniform(-1, 1.6, pictures, 1, 1, 1))[row]
    color, alpha = layers[:, :3] * gain[row], layers[:, 3:]
    color = torch.lerp(color, color.mean(1, keepdim=True).expand_as(color), gray)
    return torch.cat([torch.minimum(color.clamp(min=0), alpha), alpha], dim=1)


def _grounds(dice: Dice, count: int) -> Tensor:
    """Two colors each: flat, graded, in soft or hard blobs, or in tiles."""
    first, second = dice.uniform(0, 1, 2, count, 3, 1, 1)
    names = torch.tensor(list(COLORS.values()))[dice.integers(0, len(COLORS), count), :, None, None]
    first = torch.where(dice.chance(0.4, count, 1, 1, 1), names, first)
    blobs = dice.smooth(count, 1, 4, SIZE)
    hard = (blobs > 0.5).float()
    line = torch.linspace(0, 1, SIZE)
    graded = torch.lerp(line[:, None], line[None], dice.uniform(0, 1, count, 1, 1, 1))
    cells = dice.uniform(2, 9, count, 1, 1, 1)
    tiles = ((line * cells).floor() + (line[:, None] * cells).floor()) % 2
    shares = torch.stack([torch.zeros_like(blobs), graded, blobs, hard, tiles])
    kind = dice.choice(torch.tensor([0.5, 0.15, 0.15, 0.1, 0.1]), count)
    return torch.lerp(first, second, shares[kind, torch.arange(count)])


def _spoiled(dice: Dice, image: Tensor, flaws: float) -> Tensor:
    """Some pictures made coarser and enlarged again, some smeared, some noisy."""
    count = len(image)
    coarse = F.interpolate(F.avg_pool2d(image, 2), scale_factor=2, mode="bilinear")
    image = torch.lerp(image, coarse, flaws * dice.uniform(-1, 1, count, 1, 1, 1).clamp(min=0))
    smeared = F.avg_pool2d(image, 3, 1, 1, count_include_pad=False)
    image = torch.where(dice.chance(0.2 * flaws, count, 1, 1, 1), smeared, image)
    noise = flaws * dice.uniform(-0.05, 0.06, count, 1, 1, 1).clamp(min=0)
    return image + noise * dice.normal(*image.shape)
