"""Field, cameras and renderer in a loop of one's own: here a plain Adam and a masked CLIP.

A loss on color and opacity is all that is needed: put yours in place of the guide.

Usage: python nerf/own_loop.py [prompt] [figure.png]
"""

import sys
from pathlib import Path

import torch

from alphaclip_gen import RegionEncoder
from alphaclip_gen.augmentation import augment, composite
from alphaclip_gen.backgrounds import random_backgrounds
from alphaclip_gen.guidance import Guidance
from alphaclip_gen.mini.captions import all_captions
from alphaclip_gen.show import figure
from blobs import Proportion
from cameras import CameraSettings, random_views
from field import FieldSettings, blob_field
from formats import write_glb
from render import RenderSettings, occupancy, random_light, render, shaded
from surface import extract
from turntable import PictureSettings, turn

STEP = 0.05  # between samples along a ray


def main(prompt: str = "a red cone", target: str = "own-loop.png", *, steps: int = 100) -> None:
    generator = torch.Generator().manual_seed(0)
    settings = FieldSettings(density_sizes=(32,), color_sizes=(4,), grow_at=())
    field = blob_field(Proportion(), torch.full((3,), 0.5), settings)
    optimizer = torch.optim.Adam(field.parameters(), lr=0.1)
    guide = Guidance(RegionEncoder.from_pretrained("mini"), prompt, all_captions())
    for step in range(steps):
        volume = field.volume(sharpness=2 + 4 * step / steps)
        cameras = random_views(4, CameraSettings(), generator)
        space = occupancy(volume.density().detach(), STEP)
        seen = render(volume, cameras, 64, space, STEP, generator=generator)
        color = shaded(seen, *random_light(cameras, RenderSettings(), generator))
        color, opacity = augment(color, seen.opacity, generator)
        background = random_backgrounds(len(color), (64, 64), generator)
        loss = guide(composite(color, opacity, background), opacity)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    volume = field.volume(sharpness=6.0)
    Path(target).with_suffix(".glb").write_bytes(write_glb(extract(volume)))
    frames = turn(volume, PictureSettings(size=160, frames=4))
    names = ["front", "right", "back", "left"]
    figure(frames, [[f"{prompt}, {name}"] for name in names], columns=4).save(target)


if __name__ == "__main__":
    main(*sys.argv[1:])
