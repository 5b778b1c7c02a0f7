"""A sheet of scenes of mini's second world, and of the part of every subject that can be seen.

Usage: python -m alphaclip_gen.mini.emoji_sheet --output sheet.png
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
import tyro
from jaxtyping import Float
from PIL import Image, ImageDraw
from torch import Tensor

from .concepts import all_captions
from .emoji_world import HELD_OUT, SEEN, Mix, caption_targets, load_cast, render_world
from .world import Scenes

_LABEL = 14  # height of a line of text in pixels


@dataclass(frozen=True)
class Config:
    """Draw a sheet of scenes: each picture, and the visible part of every subject with its name.

    Attributes:
        output: the picture to write.
        cache: of the artwork; see `python -m alphaclip_gen.mini.artwork`.
        scenes: how many rows.
        seed: of the scenes.
        test: the scenes of the tests, of this kind, instead of the training's.
    """

    output: Path = Path("sheet.png")
    cache: Path = Path("runs/artwork")
    scenes: int = 12
    seed: int = 0
    test: Literal["seen", "held-out"] | None = None


def main(config: Config) -> None:
    """Write the sheet."""
    mix = {None: Mix(), "seen": SEEN, "held-out": HELD_OUT}[config.test]
    generator = torch.Generator().manual_seed(config.seed)
    scenes = render_world(load_cast(config.cache), config.scenes, generator, mix)
    contact_sheet(scenes).save(config.output)


def contact_sheet(scenes: Scenes, side: int = 128) -> Image.Image:
    """A picture of one row a scene: the scene, then the region of each subject, captioned."""
    count, slots = scenes.present.shape
    sheet = Image.new("RGB", ((slots + 1) * side, count * (side + _LABEL)), "white")
    pen = ImageDraw.Draw(sheet)
    for row, image in enumerate(scenes.image):
        sheet.paste(_cell(image, side), (0, row * (side + _LABEL)))
    scene, slot = scenes.present.nonzero().T
    truth = caption_targets(scenes, scene, slot).argmax(1)
    for row, column, caption in zip(*(t.tolist() for t in (scene, slot, truth)), strict=True):
        left, top = (column + 1) * side, row * (side + _LABEL)
        sheet.paste(_cell(scenes.visible[row, column].expand(3, -1, -1), side), (left, top))
        pen.text((left + 2, top + side), all_captions()[caption], fill="black")
    return sheet


def _cell(image: Float[Tensor, "3 height width"], side: int) -> Image.Image:
    pixels = (image * 255).round().byte().permute(1, 2, 0).numpy()
    return Image.fromarray(pixels).resize((side, side), Image.Resampling.NEAREST)


if __name__ == "__main__":
    main(tyro.cli(Config))
