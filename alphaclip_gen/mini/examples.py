"""Regions with what they should be called: what a training step learns from, made from scenes."""

import random
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from .captions import SHAPES
from .concepts import NAMES, say_scene
from .emoji_world import caption_targets
from .world import Scenes


@dataclass(frozen=True)
class Examples:
    """Pictures with regions: of one subject each first, then whole scenes and pairs of subjects.

    Attributes:
        image: pixels in [0, 1].
        alpha: the region.
        captions: how much the leading, single examples deserve each of `concepts.all_captions`.
        shapes: the same of each solid alone; zero for what is no solid.
        colors: the same of each color alone.
        scene_captions: what the remaining examples should be called.
        cover: how much of every example's patches each concept covers.
        patches: the patches that the tower is shown, the same as those of `cover`; None for all.
    """

    image: Float[Tensor, "examples 3 height width"]
    alpha: Float[Tensor, "examples 1 height width"]
    captions: Float[Tensor, "single captions"]
    shapes: Float[Tensor, "single shapes"]
    colors: Float[Tensor, "single colors"]
    scene_captions: list[str]
    cover: Float[Tensor, "examples patches concepts"]
    patches: Int[Tensor, "examples patches"] | None = None

    @property
    def concepts(self) -> Float[Tensor, "single concepts"]:
        """How much the single examples deserve each name of `concepts.NAMES`."""
        emoji = self.captions[:, -(len(NAMES) - len(SHAPES)) :]
        return torch.cat([self.shapes, emoji], dim=1)


def make_examples(
    scenes: Scenes,
    generator: torch.Generator,
    rng: random.Random,
    loose: float = 0.24,
    drawn: float = 0.16,
) -> Examples:
    """Every visible subject, then whole scenes (a tenth) and pairs of subjects.

    Args:
        scenes: where from.
        generator: decides the regions.
        rng: decides captions, and which subjects are paired.
        loose: share of regions that are wider than the subject: a box, a disc, a wide rim.
        drawn: share of regions that are a stroke or a dot on the subject.
    """
    scene, slot = scenes.present.nonzero().T
    alone = (scenes.present.sum(1) == 1).nonzero()[:, 0][: len(scene) // 25]
    source = [scene, alone]
    visible = scenes.visible[scene, slot, None]
    regions = region(visible, generator, loose, drawn=drawn, faintest=0.1)
    alphas = [regions, torch.ones_like(scenes.visible[alone, :1])]
    apart = regions.amax((1, 2, 3)) - regions.amin((1, 2, 3))
    strength = torch.cat([apart, torch.ones(len(alone))])
    every = torch.cat(source)
    slots = torch.cat([slot, scenes.present[alone].argmax(1)])
    named = _faded(caption_targets(scenes, every, slots), strength[:, None])
    rows, several, sayings = _several(scenes, rng, len(scene) // 5)
    return Examples(
        image=scenes.image[torch.cat([every, rows])],
        alpha=torch.cat([*alphas, several]),
        captions=named,
        shapes=scenes.shape_weights[every, slots],
        colors=scenes.color_weights[every, slots],
        scene_captions=sayings,
        cover=_cover(scenes)[torch.cat([every, rows])],
    )


def _faded(
    captions: Float[Tensor, "examples captions"], strength: Float[Tensor, "examples 1"]
) -> Float[Tensor, "examples captions"]:
    """What regions deserve: the less they stand out, the nearer to all captions alike.

    So the similarity to the own caption rises with the strength of alpha.
    """
    return strength * captions + (1 - strength) / captions.shape[1]


def thinned(examples: Examples, keep: int, generator: torch.Generator) -> Examples:
    """The examples with so many patches each: those of the region first, then random ones.

    Half the patches are half the time of a step (FLIP, Li et al. 2022, arXiv 2212.00794).
    """
    side = round(examples.cover.shape[1] ** 0.5)
    inside = F.adaptive_max_pool2d(examples.alpha, side).flatten(1) > 0.1
    draw = torch.rand(inside.shape, generator=generator)
    patches = (inside + draw).topk(keep, dim=1).indices
    return replace(examples, cover=shown(examples.cover, patches), patches=patches)


def shown(
    tokens: Float[Tensor, "examples all channels"], patches: Int[Tensor, "examples patches"]
) -> Float[Tensor, "examples patches channels"]:
    """The tokens of those patches."""
    return tokens.gather(1, patches[..., None].expand(-1, -1, tokens.shape[2]))


def _several(
    scenes: Scenes, rng: random.Random, most: int
) -> tuple[Int[Tensor, " rows"], Float[Tensor, "rows 1 height width"], list[str]]:
    """Scenes with a region of all, or of two, of their subjects, and what these are called."""
    captions = caption_targets(scenes, *scenes.present.nonzero().T).argmax(1)
    table = torch.zeros_like(scenes.concept)
    table[scenes.present.bool()] = captions
    crowded = (scenes.present.sum(1) >= 2).nonzero()[:, 0].tolist()
    rows = rng.sample(crowded, min(len(crowded), most))
    alphas, sayings = list[Tensor](), list[str]()
    for row in rows:
        slots = scenes.present[row].nonzero()[:, 0].tolist()
        whole = len(slots) == 2 or rng.random() < 0.6
        chosen = slots if whole else rng.sample(slots, 2)
        both = scenes.visible[row, chosen].sum(0, keepdim=True).clamp(max=1)
        alphas.append(torch.ones_like(both) if whole and rng.random() < 0.7 else both)
        sayings.append(say_scene(rng, table[row, chosen].tolist()))
    empty = scenes.visible.new_zeros(0, 1, *scenes.visible.shape[-2:])
    return torch.tensor(rows, dtype=torch.long), torch.stack(alphas) if alphas else empty, sayings


def _cover(scenes: Scenes, patch: int = 8) -> Float[Tensor, "scenes patches concepts"]:
    """How much of each patch of each scene every concept covers."""
    names = F.one_hot(scenes.concept, len(NAMES)).float()
    solid = scenes.shape_weights.sum(-1, keepdim=True) > 0
    padded = F.pad(scenes.shape_weights, (0, len(NAMES) - len(SHAPES)))
    names = torch.where(solid, padded, names)
    return F.avg_pool2d(scenes.visible, patch).flatten(2).mT @ names


def region(
    visible: Float[Tensor, "count 1 height width"],
    generator: torch.Generator,
    loose: float,
    outside: float = 0.15,
    drawn: float = 0.0,
    faintest: float = 0.5,
) -> Float[Tensor, "count 1 height width"]:
    """Alphas as people give them: exact, wide, a box, a disc, a stroke; graded, some outside too.

    Args:
        visible: the subjects.
        generator: decides.
        loose: share of wide ones, boxes and discs, a third each.
        outside: share of those that are not zero outside.
        drawn: share of strokes and dots.
        faintest: the least strength of those that are graded, which half of them are.
    """
    count, _, height, width = visible.shape
    dice = torch.rand(5, count, 1, 1, 1, generator=generator)
    wide = F.avg_pool2d(F.max_pool2d(visible, 5, 1, 2), 3, 1, 1, count_include_pad=False)
    inside = (visible > 0.15).float()
    down, right = inside.amax(3, keepdim=True), inside.amax(2, keepdim=True)
    box = _span(down, 2) * _span(right, 3)
    spots = torch.multinomial(visible.flatten(1) + 1e-6, 2, True, generator=generator)
    disc = _pen(spots[:, :1].expand(-1, 2), (0.08 + 0.1 * dice[1]) * width, height, width)
    stroke = _pen(spots, (0.02 + 0.04 * dice[1]) * width, height, width)
    kind = dice[0]
    alpha = torch.where(kind < loose, wide, visible)
    alpha = torch.where(kind < loose * 2 / 3, box, alpha)
    alpha = torch.where(kind < loose / 3, disc, alpha)
    alpha = torch.where(kind > 1 - drawn, stroke, alpha)
    strength = torch.where(dice[2] < 0.5, torch.ones(()), faintest + (1 - faintest) * dice[3])
    floor = torch.where(dice[4] < outside, 2 * dice[4], torch.zeros(()))
    return strength * torch.maximum(alpha, floor.expand_as(alpha)).clamp(0, 1)


def _pen(
    spots: Int[Tensor, "count 2"], radius: Float[Tensor, "count 1 1 1"], height: int, width: int
) -> Float[Tensor, "count 1 height width"]:
    """What a round pen covers that goes straight from one pixel to another (row after row)."""
    y, x = (spots // width).float(), (spots % width).float()
    (y, dy), (x, dx) = (
        (line[:, :1, None, None], (line[:, 1] - line[:, 0]).view(-1, 1, 1, 1)) for line in (y, x)
    )
    down = torch.arange(height).view(1, 1, -1, 1) - y
    right = torch.arange(width).view(1, 1, 1, -1) - x
    along = ((down * dy + right * dx) / (dy.square() + dx.square()).clamp(min=1)).clamp(0, 1)
    return (radius - torch.hypot(down - along * dy, right - along * dx) + 0.5).clamp(0, 1)


def _span(line: Tensor, axis: int) -> Tensor:
    """1 from the first to the last nonzero entry along the axis."""
    after = line.cummax(axis).values
    before = line.flip(axis).cummax(axis).values.flip(axis)
    return after * before
