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
    scenes: Scenes, generator: torch.Generator, rng: random.Random, loose: float = 0.24
) -> Examples:
    """Every visible subject, then whole scenes (a tenth) and pairs of subjects.

    Args:
        scenes: where from.
        generator: decides the regions.
        rng: decides captions, and which subjects are paired.
        loose: share of regions that are wider than the subject: a box, a disc, a wide rim.
    """
    scene, slot = scenes.present.nonzero().T
    alone = (scenes.present.sum(1) == 1).nonzero()[:, 0][: len(scene) // 25]
    source = [scene, alone]
    alphas = [
        region(scenes.visible[scene, slot, None], generator, loose),
        torch.ones_like(scenes.visible[alone, :1]),
    ]
    every = torch.cat(source)
    slots = torch.cat([slot, scenes.present[alone].argmax(1)])
    named = caption_targets(scenes, every, slots)
    rows, several, sayings = _several(scenes, rng, len(scene) // 7)
    return Examples(
        image=scenes.image[torch.cat([every, rows])],
        alpha=torch.cat([*alphas, several]),
        captions=named,
        shapes=scenes.shape_weights[every, slots],
        colors=scenes.color_weights[every, slots],
        scene_captions=sayings,
        cover=_cover(scenes)[torch.cat([every, rows])],
    )


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
) -> Float[Tensor, "count 1 height width"]:
    """Alphas as people give them: exact, wide, a box, a disc; graded inside, sometimes outside."""
    count, _, height, width = visible.shape
    dice = torch.rand(5, count, 1, 1, 1, generator=generator)
    wide = F.avg_pool2d(F.max_pool2d(visible, 5, 1, 2), 3, 1, 1, count_include_pad=False)
    inside = (visible > 0.15).float()
    down, right = inside.amax(3, keepdim=True), inside.amax(2, keepdim=True)
    box = _span(down, 2) * _span(right, 3)
    spot = torch.multinomial(visible.flatten(1) + 1e-6, 1, generator=generator)[:, 0]
    y, x = (spot // width).view(-1, 1, 1, 1), (spot % width).view(-1, 1, 1, 1)
    grid_y, grid_x = torch.arange(height).view(1, 1, -1, 1), torch.arange(width).view(1, 1, 1, -1)
    radius = (0.08 + 0.1 * dice[1]) * width
    disc = (radius - torch.hypot((grid_y - y).float(), (grid_x - x).float()) + 0.5).clamp(0, 1)
    kind = dice[0]
    alpha = torch.where(kind < loose, wide, visible)
    alpha = torch.where(kind < loose * 2 / 3, box, alpha)
    alpha = torch.where(kind < loose / 3, disc, alpha)
    strength = torch.where(dice[2] < 0.5, torch.ones(()), 0.5 + 0.5 * dice[3])
    floor = torch.where(dice[4] < outside, 2 * dice[4], torch.zeros(()))
    return torch.maximum(alpha * strength, floor.expand_as(alpha)).clamp(0, 1)


def _span(line: Tensor, axis: int) -> Tensor:
    """1 from the first to the last nonzero entry along the axis."""
    after = line.cummax(axis).values
    before = line.flip(axis).cummax(axis).values.flip(axis)
    return after * before
