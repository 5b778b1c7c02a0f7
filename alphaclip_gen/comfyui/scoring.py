"""Regions named: which of some texts fits a region best."""

from typing import NamedTuple

from jaxtyping import Float
from torch import Tensor

from ..encoder import RegionEncoder


class Named(NamedTuple):
    """The best text of each region, all of them with their probabilities, and the best one's."""

    best: list[str]
    table: str
    score: float


def name_regions(
    encoder: RegionEncoder,
    pictures: Float[Tensor, "images 3 height width"],
    alpha: Float[Tensor, "alphas 1 height width"] | None,
    texts: list[str],
) -> Named:
    """How likely each text names each region; of several regions, `score` is the first one's.

    Raises:
        ValueError: fewer than two texts: a probability compares.
    """
    if len(texts) < 2:
        raise ValueError(
            f"texts has {len(texts)} lines; expected two or more to choose from, one a line."
        )
    if alpha is not None and len(alpha) < len(pictures):
        alpha = alpha.expand(len(pictures), -1, -1, -1)
    several = [pictures] if len(pictures) == 1 else list(pictures.split(1))
    probabilities = encoder.score(several, texts, alpha).float().cpu()
    best = [texts[i] for i in probabilities.argmax(1).tolist()]
    return Named(best, table(texts, probabilities), float(probabilities[0].max()))


def table(texts: list[str], probabilities: Float[Tensor, "regions texts"]) -> str:
    """Markdown: a row for each text, best of the first region first, a column for each region."""
    rows = ["| text |" + "".join(f" {n + 1} |" for n in range(len(probabilities)))]
    rows.append("|---|" + "---|" * len(probabilities))
    for i in probabilities[0].argsort(descending=True).tolist():
        rows.append(f"| {texts[i]} |" + "".join(f" {p:.3f} |" for p in probabilities[:, i]))
    return "\n".join(rows)
