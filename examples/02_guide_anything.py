"""The masked loss in an optimizer that knows nothing of it: one soft superellipse learns a prompt.

Color, place, size and roundness are eight numbers; gradients reach them through color and alpha.

Usage: python examples/02_guide_anything.py [prompt] [figure.png]
"""

import sys

import torch
from PIL import Image

from alphaclip_gen import RegionEncoder
from alphaclip_gen.guidance import Guidance, augment, composite, random_backgrounds
from alphaclip_gen.mini.captions import all_captions
from alphaclip_gen.show import figure, to_pil


def draw(numbers: torch.Tensor, size: int = 64) -> tuple[torch.Tensor, torch.Tensor]:
    """Premultiplied color (1, 3, size, size) and opacity (1, 1, size, size)."""
    line = torch.linspace(-1, 1, size)
    across, along = numbers[3:5].exp() * 0.5
    x = ((line - numbers[5]) / across).abs() + 1e-3
    y = ((line[:, None] - numbers[6]) / along).abs() + 1e-3
    power = 2 + 4 * numbers[7].sigmoid()
    opacity = (8 * (1 - (x**power + y**power) ** (1 / power))).sigmoid()[None, None]
    return numbers[:3].sigmoid().view(1, 3, 1, 1) * opacity, opacity


def main(prompt: str = "a green cube", target: str = "guided.png", *, steps: int = 60) -> None:
    guide = Guidance(RegionEncoder.from_pretrained("mini"), prompt, all_captions())
    generator = torch.Generator().manual_seed(0)
    numbers = torch.zeros(8, requires_grad=True)
    optimizer = torch.optim.Adam([numbers], lr=0.1)
    pictures: list[Image.Image] = []
    captions = []
    for step in range(steps + 1):
        color, opacity = draw(numbers)
        if step % (steps // 4) == 0:
            picture = composite(color, opacity, torch.ones(1, 3, 1, 1))
            pictures.append(to_pil(picture.detach()))
            score = guide.score(picture, opacity.detach()).item()
            captions.append([f"step {step}", f"{prompt}  {score:.2f}"])
        views = augment(color.expand(8, -1, -1, -1), opacity.expand(8, -1, -1, -1), generator)
        background = random_backgrounds(8, (64, 64), generator)
        optimizer.zero_grad()
        guide(composite(*views, background), views[1]).backward()
        optimizer.step()
    figure(pictures, captions).save(target)


if __name__ == "__main__":
    main(*sys.argv[1:])
