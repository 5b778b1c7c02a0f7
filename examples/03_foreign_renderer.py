"""The masked loss with somebody else's renderer: 300 soft balls in space, splatted by `splat`.

The renderer knows nothing of CLIP, the loss nothing of balls: color and opacity are all it needs.

Usage: python examples/03_foreign_renderer.py [prompt] [figure.png]
"""

import sys

import torch

from alphaclip_gen import RegionEncoder
from alphaclip_gen.augmentation import augment, composite
from alphaclip_gen.backgrounds import random_backgrounds
from alphaclip_gen.guidance import Guidance
from alphaclip_gen.mini.captions import all_captions
from alphaclip_gen.show import figure, to_pil


def splat(scene: torch.Tensor, azimuth: torch.Tensor, side: int = 64) -> torch.Tensor:
    """Premultiplied color and opacity (4, side, side) of balls: place, density, color a row."""
    x, y, z = scene[:, :3].T
    near = z * azimuth.cos() + x * azimuth.sin()
    scene, x = scene[near.argsort(descending=True)], x * azimuth.cos() - z * azimuth.sin()
    x, y = (place[near.argsort(descending=True), None, None] for place in (x, y))
    line = torch.linspace(-1.2, 1.2, side)
    squared = (line - x) ** 2 + (line[:, None] + y) ** 2
    alpha = scene[:, 3].sigmoid()[:, None, None] * (-squared / (2 * 0.08**2)).exp()
    light = torch.cat([torch.ones_like(alpha[:1]), (1 - alpha).cumprod(dim=0)[:-1]])
    values = torch.cat([scene[:, 4:].sigmoid(), torch.ones(len(scene), 1)], dim=1)
    return torch.einsum("nc,nhw->chw", values, light * alpha)


def main(prompt: str = "a red cone", target: str = "splats.png", *, steps: int = 100) -> None:
    generator = torch.Generator().manual_seed(0)
    places = 0.25 * torch.randn(300, 3, generator=generator)
    scene = torch.cat([places, torch.zeros(300, 4)], dim=1).requires_grad_()
    optimizer = torch.optim.Adam([scene], lr=0.03)
    guide = Guidance(RegionEncoder.from_pretrained("mini"), prompt, all_captions())
    pictures, captions = [], []
    for step in range(steps + 1):
        azimuths = torch.arange(4) * torch.pi / 2 + torch.rand(1, generator=generator) * torch.pi
        color, opacity = torch.stack([splat(scene, a) for a in azimuths]).split([3, 1], dim=1)
        if step % (steps // 4) == 0:
            picture = composite(color, opacity, torch.ones(1, 3, 1, 1)).detach()
            score = guide.score(picture, opacity.detach()).mean().item()
            pictures.append(to_pil(picture[:1]))
            captions.append([f"step {step}", f"{prompt}  {score:.2f}"])
        color, opacity = augment(color, opacity, generator)
        background = random_backgrounds(4, (64, 64), generator)
        loss = guide(composite(color, opacity, background), opacity)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    figure(pictures, captions).save(target)


if __name__ == "__main__":
    main(*sys.argv[1:])
