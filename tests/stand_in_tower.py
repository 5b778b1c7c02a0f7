"""A stand-in tower that sees the region's mean color and how tall it is; and the program on it.

Usage: PYTHONPATH=nerf python tests/stand_in_tower.py [the program's arguments]
       PYTHONPATH=nerf python tests/stand_in_tower.py gradients FILE   the first step's, in 2 shares
"""

import dataclasses
import sys
from unittest import mock

import torch
import torch.nn.functional as F
from torch import Tensor

import loop
import many
import optimize
from field import FieldSettings
from guides import make_guides
from settings import Config
from shares import Shares
from turntable import PictureSettings
from warm_start import WarmStartSettings

WORDS = {
    "red": [1.0, -1.0, -1.0, 0.0],
    "green": [-1.0, 1.0, -1.0, 0.0],
    "blue": [-1.0, -1.0, 1.0, 0.0],
    "stick": [0.0, 0.0, 0.0, 1.5],
    "disk": [0.0, 0.0, 0.0, -1.5],
}
SMALL = Config(
    prompt="a red stick",
    steps=3,
    views=2,
    resolution=16,
    negatives=("a blue stick", "a red disk", "a green disk"),
    field=FieldSettings(density_sizes=(10, 12, 16), color_sizes=(2, 2, 3)),
    warm_start=WarmStartSettings(shades=2, finalists=3, views=2),
    pictures=PictureSettings(size=24, frames=4, step=0.1),
)
FLAGS = [
    *("--steps", "3", "--views", "2", "--resolution", "16"),
    *("--field.density-sizes", "10", "12", "16", "--field.color-sizes", "2", "2", "3"),
    *("--warm-start.shades", "2", "--warm-start.finalists", "3"),
    *("--pictures.size", "24", "--pictures.frames", "4", "--pictures.step", "0.1"),
    *("--negatives", "a blue stick", "a green disk"),
]


class Moments:
    """Mean color in the region, and the log of its height over its width."""

    logit_scale = 10.0

    def __init__(self, interrupt_after: int | None = None, nan_after: int | None = None) -> None:
        self.calls = 0
        self.interrupt_after = interrupt_after
        self.nan_after = nan_after
        self.saw_alpha: set[bool] = set()

    def embed(self, image: Tensor, alpha: Tensor | None = None) -> Tensor:
        self.calls += 1
        if self.calls == self.interrupt_after:
            raise KeyboardInterrupt
        self.saw_alpha.add(alpha is not None)
        weight = torch.ones_like(image[:, :1]) if alpha is None else alpha
        mass = weight.sum(dim=(1, 2, 3)).clamp(min=1e-3)
        color = (weight * image).sum(dim=(2, 3)) / mass[:, None]
        axis = torch.linspace(-1, 1, image.shape[-1])
        tall, wide = (
            (weight * a.square()).sum(dim=(1, 2, 3)).add(1e-4) / mass for a in (axis[:, None], axis)
        )
        seen = F.normalize(torch.cat([2 * color - 1, (tall / wide).log()[:, None]], dim=1), dim=1)
        return seen * torch.nan if self.calls == self.nan_after else seen

    def embed_texts(self, texts: list[str]) -> Tensor:
        words = [[word for word in text.split() if word not in ("a", "and")] for text in texts]
        known = [torch.tensor([WORDS[word] for word in some]).sum(dim=0) for some in words]
        return F.normalize(torch.stack(known), dim=1)


def gradients(shares: Shares, chance: bool = True) -> list[Tensor]:
    """The gradients of a run's first step, as the optimizer gets them.

    Without chance, rays start half a step in, light stands still, and pictures are seen as they are
    in front of gray; so all is the same, however the views are shared out.
    """
    light = dataclasses.replace(SMALL.render, ambient=(0.6, 0.6), lamp_spread=0.0)
    config = dataclasses.replace(
        SMALL,
        views=4,
        render=SMALL.render if chance else light,
        adam=dataclasses.replace(SMALL.adam, scaled=False),
    )
    guides = make_guides(config, (Moments(),))
    generator, clock = torch.Generator().manual_seed(0), loop.Clock(torch.device("cpu"))
    render, looks = (loop.render_parts, loop.looks) if chance else (_render, _looks)
    with mock.patch.multiple(loop, render_parts=render, looks=looks):
        steps = loop.optimize(config, guides, generator, clock, None, shares)
        next(steps)
        return [parameter.grad.clone() for parameter in next(steps).field.parameters()]


def _render(*arguments, render=loop.render_parts):
    return render(*arguments[:-1], None)


def _looks(color: Tensor, opacity: Tensor, *others) -> tuple[Tensor, Tensor]:
    return color + 0.5 * (1 - opacity), opacity


def save_gradients(path: str) -> None:
    """The first process's file holds both kinds, of two shares over all processes."""
    place = many.find_place()
    with many.joined(place, 2, "cpu") as shares:
        found = {chance: gradients(shares, chance) for chance in (True, False)}
    if place.leads:
        torch.save(found, path)


if __name__ == "__main__":
    if sys.argv[1] == "gradients":
        save_gradients(sys.argv[2])
        sys.exit(0)
    optimize.load_encoders = lambda config: (Moments(),)
    sys.exit(optimize.main())
