"""The region of a picture that a phrase fits best: windows of many sizes, scored and refined."""

from collections.abc import Callable
from itertools import product
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from ..encoder import RegionEncoder
from ..regions import alpha_from_box

Box = tuple[float, float, float, float]
Report = Callable[[int], None]

WINDOWS = (0.7, 0.5, 0.35, 0.25)
"""Sides of the windows, as fractions of the picture's; they overlap by half."""
ROUNDS = 3
"""Of moving the best window's sides, each by half of the step before."""
BATCH = 16


def windows() -> list[Box]:
    """Boxes (x0, y0, x1, y1) of all sizes and places, in fractions of the picture."""
    boxes = []
    for side in WINDOWS:
        count = 1 + round((1 - side) / (side / 2))
        starts = torch.linspace(0, 1 - side, count).tolist()
        boxes += [
            (x, y, min(x + side, 1.0), min(y + side, 1.0)) for y, x in product(starts, starts)
        ]
    return boxes


def neighbors(box: Box, step: float) -> list[Box]:
    """The box with one of its sides moved by a step, in or out, as far as that leaves a box."""
    moved = []
    for side, way in product(range(4), (-step, step)):
        changed = list(box)
        changed[side] = min(max(changed[side] + way, 0.0), 1.0)
        x0, y0, x1, y1 = changed
        if x1 - x0 >= 0.1 and y1 - y0 >= 0.1 and changed != list(box):
            moved.append((x0, y0, x1, y1))
    return moved


def find_region(
    encoder: RegionEncoder,
    picture: Float[Tensor, "1 3 height width"],
    text: str,
    others: list[str],
    candidates: Float[Tensor, "candidates 1 height width"] | None = None,
    report: Report = lambda done: None,
) -> tuple[Float[Tensor, "1 1 height width"], float]:
    """The alpha map of the region that the text fits best, and its score.

    Args:
        encoder: reads pictures and texts.
        picture: in [0, 1].
        text: what to look for.
        others: what else is to be seen; the score is the text's probability among them all, or
            without any its cosine.
        candidates: the regions to choose from, such as a segmenter's; windows where there are none.
        report: called with the number of regions that are scored.
    """
    if not text.strip():
        raise ValueError("text is empty; expected words for what to look for, such as 'the cat'.")
    embeddings = encoder.embed_texts([text, *(o for o in others if o != text)]).float()
    scored = 0

    def rate(alphas: Tensor) -> Rated:
        nonlocal scored
        found = []
        for part in alphas.to(encoder.device).split(BATCH):
            found.append(encoder.embed(picture.to(encoder.device), part).float() @ embeddings.T)
            scored += len(part)
            report(scored)
        return rated(torch.cat(found).cpu(), encoder.logit_scale)

    if candidates is not None:
        best = rate(candidates)
        return candidates[best.place : best.place + 1], best.score
    return _search(rate, (picture.shape[-2], picture.shape[-1]))


class Rated(NamedTuple):
    """The best of some regions: its place among them, what it is ranked by, and its score."""

    place: int
    rank: float
    score: float


def rated(similarity: Float[Tensor, "regions texts"], scale: float) -> Rated:
    """The region that the first text fits best, by cosine plus log probability.

    Probabilities alone are too alike among the best: once the others are ruled out, all are near 1.
    """
    logits = scale * similarity
    rank = logits[:, 0] + logits.log_softmax(1)[:, 0]
    score = logits.softmax(1)[:, 0] if similarity.shape[1] > 1 else similarity[:, 0]
    best = int(rank.argmax())
    return Rated(best, float(rank[best]), float(score[best]))


def _search(rate: Callable[[Tensor], Rated], size: tuple[int, int]) -> tuple[Tensor, float]:
    def alphas(boxes: list[Box]) -> Tensor:
        return torch.cat([alpha_from_box(box, size, unit="fractions") for box in boxes])

    boxes = windows()
    top = rate(alphas(boxes))
    best = boxes[top.place]
    step = (best[2] - best[0]) / 4
    for _ in range(ROUNDS):
        boxes = neighbors(best, step)
        found = rate(alphas(boxes))
        if found.rank > top.rank:
            best, top = boxes[found.place], found
        step /= 2
    return alphas([best]), top.score


def most_regions() -> int:
    """How many regions a search scores at most."""
    return len(windows()) + 8 * ROUNDS
