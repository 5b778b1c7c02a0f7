"""What a guide sees in the finished field: the whole, and each part, from all sides."""

from collections import Counter
from dataclasses import replace

import torch
from torch import Tensor

from alphaclip_gen.augmentation import composite
from alphaclip_gen.backgrounds import random_backgrounds
from alphaclip_gen.guidance import Guidance
from cameras import turntable
from field import Volume
from guides import LEAST, WeightedGuide, embed
from render import shaded, studio_light
from scene import NOTHING, Scene
from settings import FULL_SIZE, Config
from turntable import part_views

FINAL = replace(FULL_SIZE, precision="single")
"""However the towers were run to guide."""


@torch.no_grad()
def final_scores(
    one: WeightedGuide, volume: Volume, config: Config, scene: Scene = NOTHING, count: int = 8
) -> dict:
    """Scores of pictures all around, before plain backgrounds; of parts, where they can be seen."""
    cameras = turntable(count, config.pictures.elevation).to(volume.logits.device)
    rendering, owned = part_views(volume, scene.shapes, cameras, config.resolution)
    color, opacity = shaded(rendering, *studio_light(cameras)), rendering.opacity
    mean = (color.sum(dim=(0, 2, 3)) / opacity.sum().clamp(min=1e-6)).cpu()
    generator = torch.Generator().manual_seed(0)
    background = random_backgrounds(count, (1, 1), generator, avoid=mean).to(color)
    image = composite(color, opacity, background).clamp(0, 1)
    scores = _scores(one.guide, image, opacity, config)
    aims = [aim for aim in one.aimed if aim.part]
    if not aims:
        return scores
    found = []
    for text, aim, own in zip(config.parts, aims, owned, strict=True):
        seen = own.mean(dim=(1, 2, 3)) > LEAST
        said = _scores(aim.guide, image[seen], own[seen], config) if seen.any() else {}
        found.append({"part": text, **said})
    return {**scores, "parts": found}


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
