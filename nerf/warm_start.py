"""Where to begin: the plain blob, of many colors and a few proportions, that the guide likes best.

Forward passes only. A tower that has seen named colors has little gradient between them; begun
near the right color, the field needs to find its shape only.
"""

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from alphaclip_gen.augmentation import composite
from alphaclip_gen.backgrounds import random_backgrounds
from alphaclip_gen.guidance import Guidance
from blobs import Proportion
from cameras import CameraSettings, random_views
from field import FieldSettings, blob_field
from render import RenderSettings, occupancy, random_light, render, shaded

PROPORTIONS = (
    Proportion(0.6, 0.6, 0.6),
    Proportion(0.5, 0.5, 0.5, roundness=6.0),
    Proportion(0.7, 0.2, 0.7),
    Proportion(0.2, 0.75, 0.2),
    Proportion(0.35, 0.65, 0.35),
    Proportion(0.5, 0.6, 0.5, taper=0.7),
    Proportion(0.5, 0.6, 0.5, taper=-0.5),
    Proportion(0.7, 0.22, 0.7, hole=0.4),
)
"""Ball, box, flat, thin, tall, narrow above, narrow below, ring."""

Embed = Callable[[Tensor, Tensor], Tensor]
"""(image, opacity) -> unit embeddings by the guide's tower."""


@dataclass(frozen=True)
class WarmStartSettings:
    """How many candidates; `shades` 0 begins with `GRAY_BALL`."""

    shades: int = 3
    """Levels of red, green and blue each: 3 makes 27 colors."""
    finalists: int = 12
    """Candidates of the first round (one view each) that are looked at again."""
    views: int = 4
    """Views of a finalist."""
    batch: int = 64


@dataclass(frozen=True)
class Start:
    """The winner and its score: cosine, plus log probability where there are negatives."""

    proportion: Proportion
    color: tuple[float, float, float]
    score: float | None
    parts: tuple["Start", ...] = ()
    """The winners for the parts, each by itself."""

    @classmethod
    def from_dict(cls, content: dict) -> "Start":
        """The start that `dataclasses.asdict` was made of."""
        parts = tuple(cls.from_dict(part) for part in content.get("parts", ()))
        red, green, blue = content["color"]
        proportion = Proportion(**content["proportion"])
        return cls(proportion, (red, green, blue), content["score"], parts)


GRAY_BALL = Start(PROPORTIONS[0], (0.5, 0.5, 0.5), None)


def palette(shades: int) -> Float[Tensor, "colors 3"]:
    """A lattice of colors, black and white almost included; gray alone of one shade."""
    levels = torch.linspace(0.05, 0.95, shades) if shades > 1 else torch.tensor([0.5])
    return torch.cartesian_prod(levels, levels, levels)


class Scenery(NamedTuple):
    """What the pictures of the first round depend on."""

    size: int
    """Side of the pictures, in pixels."""
    settings: WarmStartSettings
    field: FieldSettings
    cameras: CameraSettings
    light: RenderSettings
    seed: int
    device: torch.device


class FirstRound(NamedTuple):
    """All proportions in all colors, one picture each, as a tower sees them: the same for any text.

    A pair's index is that of its proportion times the number of colors, plus that of its color.
    """

    proportions: Sequence[Proportion]
    blobs: Sequence[tuple[Tensor, Tensor]]
    """Shade and opacity of each proportion in white, see `_blob_views`."""
    colors: Float[Tensor, "colors 3"]
    embeddings: Float[Tensor, "pairs channels"]
    random: Tensor
    """State of the generator afterwards."""


@torch.no_grad()
def first_round(
    embed: Embed,
    scenery: Scenery,
    proportions: Sequence[Proportion] = PROPORTIONS,
    before_each: Callable[[], None] = lambda: None,
) -> FirstRound:
    """What `best_start` chooses from.

    Blobs are rendered once in white; colors multiply the picture. What is called before each blob
    and each batch may raise, to stop.
    """
    generator, settings = torch.Generator().manual_seed(scenery.seed), scenery.settings
    blobs = []
    for proportion in proportions:
        before_each()
        blobs.append(_blob_views(proportion, scenery, generator))
    colors = palette(settings.shades)
    jobs = [(*pair, 0) for pair in itertools.product(range(len(blobs)), range(len(colors)))]
    embeddings = _embedded(embed, blobs, colors, jobs, settings.batch, generator, before_each)
    return FirstRound(proportions, blobs, colors, embeddings, generator.get_state())


@torch.no_grad()
def best_start(
    guide: Guidance,
    embed: Embed,
    first: FirstRound,
    settings: WarmStartSettings,
    before_each: Callable[[], None] = lambda: None,
) -> Start:
    """The pair that a guide likes best: the finalists of the first round, seen from all sides."""
    generator = torch.Generator()
    generator.set_state(first.random)
    scores = _scores(guide, first.embeddings)
    finalists = [
        divmod(pair, len(first.colors))
        for pair in scores.topk(min(settings.finalists, len(scores))).indices.tolist()
    ]
    jobs = [(*pair, view) for pair in finalists for view in range(settings.views)]
    embeddings = _embedded(
        embed, first.blobs, first.colors, jobs, settings.batch, generator, before_each
    )
    final = _scores(guide, embeddings).view(len(finalists), settings.views).mean(dim=1)
    blob, color = finalists[int(final.argmax())]
    red, green, blue = first.colors[color].tolist()
    return Start(first.proportions[blob], (red, green, blue), float(final.max()))


def _blob_views(
    proportion: Proportion, scenery: Scenery, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Shade (views, 1, size, size), premultiplied, and opacity of a white blob."""
    field, light = scenery.field, scenery.light
    blob = blob_field(proportion, torch.ones(3, device=scenery.device), field)
    volume = blob.volume(field.sharpness.last)
    step = light.length(field.density_sizes[0])
    space = occupancy(volume.density(), step)
    cams = random_views(scenery.settings.views, scenery.cameras, generator).to(scenery.device)
    rendering = render(volume, cams, scenery.size, space, step)
    lit = shaded(rendering, *random_light(cams, light, generator))
    white = torch.full((1,), 0.98, device=scenery.device)
    return lit[:, :1] / white, rendering.opacity


def _embedded(
    embed: Embed,
    blobs: Sequence[tuple[Tensor, Tensor]],
    colors: Tensor,
    jobs: Sequence[tuple[int, int, int]],
    batch: int,
    generator: torch.Generator,
    before_each: Callable[[], None],
) -> Float[Tensor, "jobs channels"]:
    """Embeddings of (proportion, color, view) triples, over random backgrounds."""
    parts = []
    for i in range(0, len(jobs), batch):
        before_each()
        some = jobs[i : i + batch]
        shade = torch.stack([blobs[blob][0][view] for blob, _, view in some])
        opacity = torch.stack([blobs[blob][1][view] for blob, _, view in some])
        color = colors[[index for _, index, _ in some]]
        backgrounds = torch.cat(
            [random_backgrounds(1, (1, 1), generator, avoid=avoided) for avoided in color]
        )
        tinted = shade * color.to(shade)[:, :, None, None]
        image = composite(tinted, opacity, backgrounds.to(shade))
        parts.append(embed(image.clamp(0, 1), opacity.clamp(0, 1)))
    return torch.cat(parts)


def _scores(guide: Guidance, embedding: Float[Tensor, "batch channels"]) -> Float[Tensor, " batch"]:
    """Cosine, plus the log of the probability where there are negatives: probabilities alone are
    too alike among the best."""
    similarity = embedding @ guide.embeddings[0]
    if len(guide.texts) > 1:
        similarity = similarity + guide.probabilities(embedding)[:, 0].log()
    return similarity.cpu()
