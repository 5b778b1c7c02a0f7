"""Scenes of one to four lit solids over varied backgrounds, with every object's visible alpha.

Everything is vectorized over the batch and decided by a `torch.Generator`: same state, same scenes.
Objects differ in ways that optimization passes through: colors between the named ones, solids
between two solids, translucent and fuzzy bodies, blotches, blur. Targets are graded to match.
"""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor
from torchvision.transforms.v2.functional import gaussian_blur

from .captions import COLORS
from .dice import Dice
from .solids import SpriteBank
from .sprites import layout

COLOR_TOLERANCE = 0.08
"""OKLab distance over which a color's name fades: the sigma of `color_weights`."""


@dataclass(frozen=True)
class Scenes:
    """A batch of rendered scenes.

    Attributes:
        image: sRGB pixels in [0, 1].
        visible: each object's visible coverage, in [0, 1]; zero for absent objects.
        concept: what each object is, an index into `concepts.NAMES` (solids come first there);
            for a blend, the solid that it is most of.
        shape_weights: how much of each solid each object is; rows sum to one, or to zero for what
            is no solid.
        color_weights: how much of each color's name each object deserves; the same.
        present: whether the slot holds an object of which enough can be seen.
        angle: how far each emoji is turned, in radians from x toward y; zero for solids.
        place: center (x, y) and half side of each object's square, in [-1, 1] picture units.
    """

    image: Float[Tensor, "scenes 3 height width"]
    visible: Float[Tensor, "scenes objects height width"]
    concept: Int[Tensor, "scenes objects"]
    shape_weights: Float[Tensor, "scenes objects shapes"]
    color_weights: Float[Tensor, "scenes objects colors"]
    present: Float[Tensor, "scenes objects"]
    angle: Float[Tensor, "scenes objects"]
    place: Float[Tensor, "scenes objects 3"]


@dataclass(frozen=True)
class Style:
    """What the scenes hold.

    Attributes:
        objects: fewest and most objects in a scene.
        named: fraction of objects in a named color (the rest: any color, or between two).
        blended: fraction of sprites that blend two solids.
        rough: fraction of translucent, fuzzy, blotched objects and of blurred or noisy pictures.
    """

    objects: tuple[int, int] = (1, 4)
    named: float = 0.55
    blended: float = 0.2
    rough: float = 0.18


PLAIN = Style(objects=(2, 4), named=1.0, blended=0.0, rough=0.0)
"""The held-out test: two to four whole solids in named colors."""


def render_scenes(
    bank: SpriteBank,
    count: int,
    generator: torch.Generator,
    style: Style | None = None,
    size: int = 64,
) -> Scenes:
    """A batch of random scenes.

    Args:
        bank: the sprites to compose (see `solids.build_bank`).
        count: number of scenes.
        generator: decides everything; same state, same scenes.
        style: what the scenes hold; `Style()` is the training mix, `PLAIN` the test.
        size: picture side in pixels.
    """
    style = style or Style()
    dice = Dice(generator)
    slots = style.objects[1]
    sprites = choose_sprites(bank, dice, count * slots, style)
    number = dice.integers(style.objects[0], slots + 1, count)
    exists = (torch.arange(slots) < number[:, None]).float()

    single = number[:, None] == 1
    smallest, largest = torch.where(single, 0.35, 0.26), torch.where(single, 1.0, 0.62)
    center, radius = layout(dice, number, slots, smallest, largest)
    normals, coverage = _place(bank, sprites, center.view(-1, 2), radius.view(-1), size)
    scene = torch.arange(count).repeat_interleave(slots)
    lit, coverage, weights = paint_solids(dice, normals, coverage, scene, style)

    lit = lit.view(count, slots, 3, size, size)
    coverage = coverage.view(count, slots, size, size) * exists[..., None, None]
    image, visible = _compose(lit, coverage, _backgrounds(dice, count, size))
    full = coverage.sum((-2, -1))
    seen = visible.sum((-2, -1))
    present = exists * (seen > 0.4 * full) * (seen > 10 * (size / 64) ** 2)
    if style.rough:
        image, visible = degrade(dice, image, visible, style.rough)
    shapes = bank.shape_weights[sprites].view(count, slots, -1)
    return Scenes(
        image.clamp(0, 1),
        visible,
        shapes.argmax(-1),
        shapes,
        weights.view(count, slots, -1),
        present,
        torch.zeros(count, slots),
        torch.cat([center, radius[..., None]], dim=2),
    )


def oklab(color: Float[Tensor, "*batch 3"]) -> Float[Tensor, "*batch 3"]:
    """sRGB in [0, 1] to OKLab, where distance is perceptual (Ottosson 2020)."""
    linear = torch.where(color <= 0.04045, color / 12.92, ((color + 0.055) / 1.055) ** 2.4)
    to_lms = color.new_tensor(
        [
            [0.4122214708, 0.5363325363, 0.0514459929],
            [0.2119034982, 0.6806995451, 0.1073969566],
            [0.0883024619, 0.2817188376, 0.6299787005],
        ]
    )
    to_lab = color.new_tensor(
        [
            [0.2104542553, 0.7936177850, -0.0040720468],
            [1.9779984951, -2.4285922050, 0.4505937099],
            [0.0259040371, 0.7827717662, -0.8086757660],
        ]
    )
    return (linear @ to_lms.T).clamp(min=0) ** (1 / 3) @ to_lab.T


def color_weights(color: Float[Tensor, "*batch 3"]) -> Float[Tensor, "*batch colors"]:
    """How much each name of `captions.COLORS` fits sRGB colors; the last axis sums to one."""
    names = oklab(torch.tensor(list(COLORS.values())))
    squared = (oklab(color).unsqueeze(-2) - names).square().sum(-1)
    return (-squared / (2 * COLOR_TOLERANCE**2)).softmax(-1)


def choose_sprites(bank: SpriteBank, dice: Dice, count: int, style: Style) -> Int[Tensor, " count"]:
    """Random sprites of the bank: whole solids, and as many blends as the style asks for."""
    pure = bank.shape_weights.amax(-1) == 1
    visible = bank.coverage.flatten(1).float().mean(-1) > 0.02 * 255
    whole = (pure & visible).nonzero()[:, 0]
    chosen = whole[dice.integers(0, len(whole), count)]
    if style.blended:
        mixed = (~pure & visible).nonzero()[:, 0]
        other = mixed[dice.integers(0, len(mixed), count)]
        chosen = torch.where(dice.chance(style.blended, count), other, chosen)
    return chosen


def _place(
    bank: SpriteBank, sprites: Tensor, center: Tensor, radius: Tensor, size: int
) -> tuple[Tensor, Tensor]:
    """Sprites drawn into picture coordinates: unit normals and coverage."""
    layers = torch.cat(
        [bank.normals[sprites].float() / 127, bank.coverage[sprites, None].float() / 255], dim=1
    )
    layers = torch.cat([layers[:, :3] * layers[:, 3:], layers[:, 3:]], dim=1)
    theta = torch.zeros(len(sprites), 2, 3)
    theta[:, 0, 0] = theta[:, 1, 1] = 1 / radius
    theta[:, :, 2] = -center / radius[:, None]
    grid = F.affine_grid(theta, [len(sprites), 1, size, size], align_corners=False)
    layers = F.grid_sample(layers, grid, align_corners=False)
    return F.normalize(layers[:, :3], dim=1), layers[:, 3]


def paint_solids(
    dice: Dice,
    normals: Float[Tensor, "objects 3 height width"],
    coverage: Float[Tensor, "objects height width"],
    scene: Int[Tensor, " objects"],
    style: Style,
) -> tuple[
    Float[Tensor, "objects 3 height width"],
    Float[Tensor, "objects height width"],
    Float[Tensor, "objects colors"],
]:
    """Solids colored and lit: sRGB (not premultiplied), coverage, and the weights of color names.

    Args:
        dice: decides.
        normals: the solids' unit normals.
        coverage: their silhouettes.
        scene: the scene that each is in; a scene has one light.
        style: how they are colored.
    """
    count, size = len(normals), normals.shape[-1]
    color, weights = _colors(dice, count, style)
    if style.rough:
        color_map, weights = _blotch(dice, color, weights, size, style)
        coverage = _soften(dice, coverage, normals, style)
    else:
        color_map = color[:, :, None, None]
    scenes = int(scene.max()) + 1 if len(scene) else 0
    return _shade(dice, normals, color_map, scene, scenes), coverage, weights


def _colors(dice: Dice, count: int, style: Style) -> tuple[Tensor, Tensor]:
    """sRGB colors and the weights of their names."""
    anchors = torch.tensor(list(COLORS.values()))
    names = anchors[dice.integers(0, len(anchors), count)]
    named = (names + 0.035 * dice.normal(count, 3)).clamp(0.02, 1)
    between = torch.lerp(
        names, anchors[dice.integers(0, len(anchors), count)], dice.uniform(0, 1, count, 1)
    )
    free = torch.where(dice.chance(0.5, count, 1), dice.uniform(0, 1, count, 3), between)
    color = torch.where(dice.chance(style.named, count, 1), named, free)
    return color, color_weights(color)


def _blotch(
    dice: Dice, color: Tensor, weights: Tensor, size: int, style: Style
) -> tuple[Tensor, Tensor]:
    """Per-pixel colors: some objects carry a second color in blotches, named by its share."""
    count = len(color)
    second, second_weights = _colors(dice, count, style)
    amount = dice.chance(0.6 * style.rough, count, 1) * dice.uniform(0.2, 1, count, 1)
    where = ((dice.smooth(count, 1, 5, size) - 0.5) * 4 + 0.5).clamp(0, 1)
    where = where * amount[..., None, None]
    share = where.mean((-2, -1))
    color_map = torch.lerp(color[..., None, None], second[..., None, None], where)
    return color_map, torch.lerp(weights, second_weights, share)


def _soften(dice: Dice, coverage: Tensor, normals: Tensor, style: Style) -> Tensor:
    """Some objects translucent, some fuzzy toward their rim like a half-formed density."""
    count = len(coverage)
    thin = dice.uniform(0.3, 1, count, 1, 1)
    opacity = torch.where(dice.chance(style.rough, count, 1, 1), thin, torch.ones(()))
    rim = normals[:, 2].clamp(0.05, 1) ** dice.uniform(0.3, 1.5, count, 1, 1)
    fuzz = torch.where(dice.chance(0.6 * style.rough, count, 1, 1), rim, torch.ones(()))
    return coverage * opacity * fuzz


def _shade(dice: Dice, normals: Tensor, color: Tensor, scene: Tensor, scenes: int) -> Tensor:
    """Lambert shading under one light a scene; a fifth of the scenes are unlit."""
    light = dice.normal(scenes, 3) * torch.tensor([0.8, 0.6, 0.4]) + torch.tensor([0, 0.6, 1.2])
    light = F.normalize(light, dim=-1)[scene, :, None, None]
    ambient = dice.uniform(0.4, 0.8, scenes)
    ambient = torch.where(dice.chance(0.2, scenes), torch.ones(()), ambient)
    ambient = ambient[scene, None, None, None]
    facing = (normals * light).sum(1, keepdim=True).clamp(min=0)
    gloss = dice.chance(0.3, len(normals)) * dice.uniform(0, 0.5, len(normals))
    shine = gloss[:, None, None, None] * (1 - ambient) * facing**24
    return (color * (ambient + (1.08 - ambient) * facing.clamp(max=1)) + shine).clamp(0, 1)


def _compose(lit: Tensor, coverage: Tensor, background: Tensor) -> tuple[Tensor, Tensor]:
    """Paint slot after slot, the last in front; returns the picture and what stays visible."""
    image, visible = background, list[Tensor]()
    for slot in range(coverage.shape[1]):
        cover = coverage[:, slot, None]
        visible = [seen * (1 - cover) for seen in visible] + [cover]
        image = torch.lerp(image, lit[:, slot], cover)
    return image, torch.cat(visible, dim=1)


def _backgrounds(dice: Dice, count: int, size: int) -> Tensor:
    """Flat, gradient, cloudy, checkered, horizon and pixel-noise backgrounds, mixed."""
    first, second = dice.uniform(0, 1, 2, count, 3, 1, 1)
    gray = dice.uniform(0, 1, count, 1, 1, 1).expand(-1, 3, -1, -1)
    first = torch.where(dice.chance(0.35, count, 1, 1, 1), gray, first)
    second = torch.lerp(second, first, dice.uniform(0, 1, count, 1, 1, 1))
    line = torch.linspace(-1, 1, size)
    angle = dice.uniform(0, 2 * math.pi, count, 1, 1, 1)
    slope = (angle.cos() * line + angle.sin() * line[:, None]) / 2.8 + 0.5
    cells = dice.uniform(1.5, 5, count, 1, 1, 1)
    checks = ((line * cells).floor() + (line[:, None] * cells).floor()) % 2
    horizon = (line[:, None].expand(size, size) > dice.uniform(-0.6, 0.7, count, 1, 1, 1)).float()
    clouds = dice.smooth(count, 1, 6, size)
    grain = dice.uniform(0, 1, count, 1, size, size)
    flat = torch.zeros(count, 1, size, size)
    mixes = torch.stack([flat, slope, clouds, checks, horizon, grain])
    kind = torch.multinomial(
        torch.tensor([0.34, 0.18, 0.18, 0.1, 0.14, 0.06]), count, True, generator=dice.generator
    )
    return torch.lerp(first, second, mixes[kind, torch.arange(count)])


def degrade(
    dice: Dice,
    image: Float[Tensor, "scenes 3 height width"],
    visible: Float[Tensor, "scenes objects height width"],
    rough: float,
) -> tuple[Tensor, Tensor]:
    """That fraction of the pictures blurred together with their alphas, and as many noisy."""
    both = torch.cat([image, visible], dim=1)
    sigma = float(dice.uniform(0.4, 1.6, 1))
    rows = dice.chance(rough, len(image)).nonzero()[:, 0]
    if len(rows):
        both[rows] = gaussian_blur(both[rows], [7, 7], [sigma, sigma])
    image, visible = both[:, :3], both[:, 3:]
    noise = dice.chance(rough, len(image), 1, 1, 1) * dice.uniform(0, 0.06, len(image), 1, 1, 1)
    return image + noise * dice.normal(*image.shape), visible
