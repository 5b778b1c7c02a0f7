"""Point at one thing of a picture after another, and have it drawn anew as a prompt says.

The noise is the same each time: what changes is the region alone.

Usage: python examples/04_draw_the_subject.py [prompt] [figure.png]
"""

import sys
from typing import Any

import torch

from alphaclip_gen.mini.generator import load_generator
from alphaclip_gen.mini.kept_scenes import load_scenes
from alphaclip_gen.show import figure, lit_region, to_pil


def main(prompt: str = "two {subject} on grass", target: str = "subjects.png") -> None:
    scene = load_scenes(most=1)  # or any picture of mini's emoji
    regions = scene.visible[0][:, None]
    pipe = load_generator("mini")
    pictures, captions = [], []
    for region in regions.split(1):
        made: Any = pipe(
            prompt,
            scene.image,
            "thing",  # all that the generator is told of the subject in words
            "thing",
            alpha_mask=region,
            guidance_scale=1.5,
            num_inference_steps=4,
            generator=torch.Generator().manual_seed(0),
            output_type="pt",
        )
        pictures += [lit_region(scene.image, region), to_pil(made.images)]
        captions += [["region"], [prompt]]
    figure(pictures, captions, columns=2 * len(regions)).save(target)


if __name__ == "__main__":
    main(*sys.argv[1:])
