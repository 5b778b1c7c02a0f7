"""What mini sees in the regions of emoji scenes: by every way to point, graded, two at once.

The rows are those of the table in mini's card: the alpha channel, the tower without it, and what
people do instead. All take scenes of `emoji_world`.
"""

import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from ..attention_focus import focus_attention
from ..baselines import blur_outside, crop_to_region, gray_outside, red_circle
from ..encoder import RegionEncoder
from ..exporting import to_stock
from ..regions import alpha_from_box, alpha_from_points, alpha_from_strokes
from ..vision import pixel_values
from .concepts import all_captions
from .emoji_world import Cast, caption_targets, load_cast
from .rates import rate
from .world import Scenes

Embed = Callable[[Tensor, Tensor], Tensor]
"""(image, alpha) -> unit embeddings."""


def read_cast(artwork: Path) -> Cast:
    """The emoji and solids of a folder that has the artwork; nothing is downloaded.

    Raises:
        FileNotFoundError: the artwork is not there.
    """
    if not (artwork / "artwork.safetensors").is_file():
        raise FileNotFoundError(
            f"artwork: there is no artwork.safetensors in {str(artwork)!r}. The emoji are not part "
            f"of this package: python -m alphaclip_gen.mini.artwork --cache {artwork} fetches "
            f"them from npm (about 160 MB) and needs the train extra."
        )
    return load_cast(artwork)


def region_figures(encoder: RegionEncoder, scenes: Scenes) -> dict:
    """Every figure of scenes: by way, by door, graded and of two regions."""
    text = encoder.embed_texts(all_captions())
    return {
        "scenes": len(scenes.image),
        "questions": int(scenes.present.sum()),
        "captions": len(text),
        "ways": accuracy_by_way(encoder, scenes, text),
        "doors": accuracy_by_door(encoder, scenes, text),
        "graded": graded(encoder, scenes, text),
        "two": two_regions(encoder, scenes, text),
    }


def ways_to_see(encoder: RegionEncoder) -> dict[str, Embed]:
    """Name -> how a region is seen that way."""

    def changed(baseline: Embed) -> Embed:
        return lambda image, alpha: encoder.embed(
            torch.cat(
                [baseline(one, a) for one, a in zip(image.split(1), alpha.split(1), strict=True)]
            )
        )

    return {
        "alpha": lambda image, alpha: encoder.embed(image, alpha),
        "all-one alpha": lambda image, alpha: encoder.embed(image, torch.ones_like(alpha)),
        "crop": changed(crop_to_region),
        "blur outside": changed(blur_outside),
        "gray outside": changed(gray_outside),
        "red circle": changed(red_circle),
        "training-free focus": training_free(encoder),
    }


def training_free(encoder: RegionEncoder) -> Embed:
    """The tower with all-one alpha folded in, its attention turned to the region instead."""
    stock: Any = to_stock(encoder.model)
    tower: Any = focus_attention(stock.vision_model)

    def embed(image: Tensor, alpha: Tensor) -> Tensor:
        pooled = tower(pixel_values(image, alpha)).pooler_output
        return F.normalize(stock.visual_projection(pooled), dim=-1)

    return embed


def accuracy_by_way(
    encoder: RegionEncoder, scenes: Scenes, text: Float[Tensor, "captions channels"]
) -> dict[str, dict]:
    """Top-1 of every visible subject among all captions, pointed at in every way."""
    scene, slot, truth = _questions(scenes)
    image, alpha = scenes.image[scene], scenes.visible[scene, slot, None]
    return {
        name: rate((_in_parts(embed, image, alpha) @ text.T).argmax(1) == truth)
        for name, embed in ways_to_see(encoder).items()
    }


def accuracy_by_door(
    encoder: RegionEncoder, scenes: Scenes, text: Float[Tensor, "captions channels"]
) -> dict[str, dict]:
    """The same with the region given as people give it: a box, a point, a stroke."""
    scene, slot, truth = _questions(scenes)
    image, masks = scenes.image[scene], scenes.visible[scene, slot]
    found = {}
    for name, door in DOORS.items():
        alpha = torch.cat([door(mask) for mask in masks])
        named = (_in_parts(encoder.embed, image, alpha) @ text.T).argmax(1)
        found[name] = rate(named == truth)
    return found


def box_of(mask: Float[Tensor, "height width"]) -> Float[Tensor, "1 1 height width"]:
    """The box around a mask, as an alpha map."""
    rows, columns = ((mask > 0.5).any(axis).nonzero()[:, 0].tolist() for axis in (1, 0))
    box = (columns[0], rows[0], columns[-1] + 1, rows[-1] + 1)
    return alpha_from_box(box, (mask.shape[0], mask.shape[1]), "pixels")


def point_of(mask: Float[Tensor, "height width"]) -> Float[Tensor, "1 1 height width"]:
    """A soft disc on the pixel of a mask that has most of it around."""
    around = F.avg_pool2d(mask[None], 9, 1, 4)[0] * (mask > 0.5)
    row, column = divmod(int(around.argmax()), mask.shape[1])
    size = (mask.shape[0], mask.shape[1])
    return alpha_from_points((column + 0.5, row + 0.5), 0.1 * min(size), size, "pixels")


def stroke_of(mask: Float[Tensor, "height width"]) -> Float[Tensor, "1 1 height width"]:
    """A line through the middle of a mask, along its longer axis."""
    size = (mask.shape[0], mask.shape[1])
    places = (mask > 0.5).nonzero().flip(1).float() + 0.5
    middle = places.mean(0)
    spread, axes = torch.linalg.eigh((places - middle).T @ (places - middle) / len(places))
    reach = axes[:, -1] * spread[-1].sqrt()
    ends = torch.stack([middle - reach, middle + reach])
    ends = ends.clamp(min=0.5).minimum(torch.tensor([size[1] - 0.5, size[0] - 0.5]))
    return alpha_from_strokes(ends, 0.08 * min(size), size, "pixels")


DOORS: dict[str, Callable[[Tensor], Tensor]] = {
    "box": box_of,
    "point": point_of,
    "stroke": stroke_of,
}
"""Ways to give a region that is no mask: (height, width) mask -> (1, 1, height, width) alpha."""


def graded(
    encoder: RegionEncoder,
    scenes: Scenes,
    text: Float[Tensor, "captions channels"],
    steps: int = 6,
) -> dict[str, dict]:
    """How steadily similarity follows a graded alpha.

    "strength": alpha on a subject grows from 0 to 1, and with it the similarity to its caption.
    "shift": alpha moves from one subject to another of the same scene, and with it the similarity
    to the second caption less that to the first. Counted are the steps on which it rises.
    """
    scene, slot, truth = _questions(scenes)
    masks = scenes.visible[scene, slot, None]
    first, second = _neighbors(scene)
    strength, shift = list[Tensor](), list[Tensor]()
    for share in torch.linspace(0, 1, steps):
        seen = _in_parts(encoder.embed, scenes.image[scene], share * masks)
        strength.append((seen * text[truth]).sum(1))
        both = ((1 - share) * masks[first] + share * masks[second]).clamp(max=1)
        seen = _in_parts(encoder.embed, scenes.image[scene[first]], both)
        shift.append((seen * (text[truth[second]] - text[truth[first]])).sum(1))
    return {
        name: rising(torch.stack(values, dim=1))
        for name, values in (("strength", strength), ("shift", shift))
    }


def rising(values: Float[Tensor, "lines steps"]) -> dict[str, float]:
    """The share of steps that rise, and of lines that rise from end to end."""
    up = values.diff(dim=1) > 0
    whole = values[:, -1] > values[:, 0]
    return {
        "steps_rising": round(up.float().mean().item(), 4),
        "ends_rising": round(whole.float().mean().item(), 4),
    }


def two_regions(
    encoder: RegionEncoder, scenes: Scenes, text: Float[Tensor, "captions channels"]
) -> dict[str, dict]:
    """How often a region of two subjects scores both of their captions above the rest.

    "in scene": above those of the scene's other subjects (scenes of three or four).
    "of all": both among the best five of all captions.
    """
    rows, pairs, others = [], [], []
    for row, present in enumerate(scenes.present.bool()):
        slots = present.nonzero()[:, 0].tolist()
        if len(slots) > 2:
            rows.append(row)
            pairs.append(slots[:2])
            others.append(slots[2:])
    scene, slot, truth = _questions(scenes)
    captions = torch.zeros_like(scenes.concept)
    captions[scene, slot] = truth
    alpha = torch.stack(
        [scenes.visible[row, pair].sum(0) for row, pair in zip(rows, pairs, strict=True)]
    )
    seen = _in_parts(encoder.embed, scenes.image[rows], alpha[:, None].clamp(max=1))
    similarity = seen @ text.T
    best = similarity.topk(5, dim=1).indices
    in_scene, of_all = [], []
    for number, (row, pair, rest) in enumerate(zip(rows, pairs, others, strict=True)):
        wanted = captions[row, pair]
        lowest = similarity[number, wanted].min()
        in_scene.append(bool(lowest > similarity[number, captions[row, rest]].max()))
        of_all.append(bool(torch.isin(wanted, best[number]).all()))
    return {"in scene": rate(torch.tensor(in_scene)), "of all": rate(torch.tensor(of_all))}


def _questions(scenes: Scenes) -> tuple[Tensor, Tensor, Tensor]:
    """Scene, slot and caption of every visible subject."""
    scene, slot = scenes.present.nonzero().T
    return scene, slot, caption_targets(scenes, scene, slot).argmax(1)


def _neighbors(scene: Tensor) -> tuple[list[int], list[int]]:
    """Indices of questions about the first two subjects of each scene that has two."""
    groups = itertools.groupby(range(len(scene)), key=lambda index: int(scene[index]))
    pairs = [(members[0], members[1]) for _, group in groups if len(members := list(group)) > 1]
    return [first for first, _ in pairs], [second for _, second in pairs]


@torch.no_grad()
def _in_parts(embed: Embed, image: Tensor, alpha: Tensor) -> Tensor:
    parts = zip(image.split(256), alpha.split(256), strict=True)
    return torch.cat([embed(one, region) for one, region in parts])
