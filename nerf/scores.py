"""What a guide sees in the finished field: the whole, and each part, from all sides."""

from collections import Counter

import torch
from jaxtyping import Float
from torch import Tensor

from alphaclip_gen.augmentation import composite
from alphaclip_gen.backgrounds import random_backgrounds
from alphaclip_gen.guidance import Guidance
from cameras import Cameras, turntable
from field import Volume
from guides import LEAST, WeightedGuide, embed
from render import occupancy, render_parts
from scene import NOTHING, Scene
from settings import Config, TowerSettings
from turntable import views

FINAL = TowerSettings(precision="single")
"""However the towers were run to guide."""


@torch.no_grad()
def final_scores(
    one: WeightedGuide, volume: Volume, config: Config, scene: Scene = NOTHING, count: int = 8
) -> dict:
    """Scores of pictures all around, before plain backgrounds; of parts, where they can be seen."""
    cameras = turntable(count, config.pictures.elevation).to(volume.logits.device)
    color, rendering = views(volume, cameras, config.resolution)
    opacity = rendering.opacity
    mean = (color.sum(dim=(0, 2, 3)) / opacity.sum().clamp(min=1e-6)).cpu()
    generator = torch.Generator().manual_seed(0)
    background = random_backgrounds(count, (1, 1), generator, avoid=mean).to(color)
    image = composite(color, opacity, background).clamp(0, 1)
    scores = _scores(one.guide, image, opacity, config)
    aims = [aim for aim in one.aimed if aim.part]
    if not aims:
        return scores
    owned = own_opacities(volume, scene, cameras, config.resolution)
    found = []
    for text, aim, own in zip(config.parts, aims, owned, strict=True):
        seen = own.mean(dim=(1, 2, 3)) > LEAST
        said = _scores(aim.guide, image[seen], own[seen], config) if seen.any() else {}
        found.append({"part": text, **said})
    return {**scores, "parts": found}


def own_opacities(
    volume: Volume, scene: Scene, cameras: Cameras, size: int, step: float = 0.025
) -> list[Float[Tensor, "views 1 size size"]]:
    """Of each part, the opacity of what lies in its shape, from every camera."""
    space = occupancy(volume.density(), step, threshold=0.01, margin=0.0)
    found = [
        render_parts(volume, scene.shapes, camera, size, space, step)[1]
        for camera in cameras.each()
    ]
    return [torch.cat([part.own for part in of_one]) for of_one in zip(*found, strict=True)]


def _scores(guide: Guidance, image: Tensor, opacity: Tensor, config: Config) -> dict:
    """Of pictures and the opacity that is attended to."""
    embedding = embed(guide.encoder, image, opacity.clamp(0, 1), config.alpha, FINAL, 0.0)
    scores = {
        "score": round(float(guide.score_of(embedding).mean()), 4),
        "similarity": round(float((embedding @ guide.embeddings[0]).mean()), 4),
        "mean_opacity": round(float(opacity.mean()), 4),
    }
    if len(guide.texts) == 1:
        return scores
    named = [guide.texts[i] for i in guide.probabilities(embedding).argmax(dim=1).tolist()]
    return {
        **scores,
        "named": Counter(named).most_common(1)[0][0],
        "views_right": f"{named.count(guide.prompt)} of {len(image)}",
    }
