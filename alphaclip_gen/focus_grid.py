"""A figure of the focus: in each row one scene, the region moved from subject to subject.

Beside each region stands what was generated from it, and last what plain CLIP conditioning (alpha
one everywhere) makes of the scene.
"""

from dataclasses import dataclass
from pathlib import Path

import torch
from PIL import Image
from rich.console import Console

from .focus_ways import Painter, pipeline_painter
from .mini.concepts import NAMES
from .mini.kept_scenes import KEPT, load_scenes
from .mini.world import Scenes
from .show import figure, lit_region, to_pil

PROMPTS = (
    "a large {subject} on a blue background",
    "two {subject} on grass",
    "a large {subject} on a yellow background",
    "a large {subject} on a white background",
)


@dataclass(frozen=True)
class FocusGrid:
    """Draw the grid: scenes, their regions, and what is generated from each."""

    output: Path = Path("focus.png")
    """The picture to write."""
    rows: int = 4
    """How many scenes."""
    seed: int = 5
    """Of the noise."""
    steps: int = 4
    """Of the denoising."""
    guidance: float = 1.5
    """Classifier-free guidance."""
    generator: str = "mini"
    """mini, or a folder that its training wrote."""
    scenes: Path = KEPT
    """Scenes that python -m alphaclip_gen.mini.kept_scenes wrote; the shipped ones if not given."""


def focus_grid(config: FocusGrid, console: Console) -> None:
    """Write the grid, and say where it is."""
    from .mini.generator import load_generator

    if config.rows < 1:
        raise ValueError(f"rows is {config.rows}; expected 1 or more.")
    pipe = load_generator(config.generator)
    scenes = load_scenes(config.scenes, config.rows)
    paint = pipeline_painter(pipe, steps=config.steps, guidance=config.guidance)
    config.output.parent.mkdir(parents=True, exist_ok=True)
    draw_grid(paint, scenes, config.seed).save(config.output)
    console.print(f"figure: {config.output}")


def draw_grid(paint: Painter, scenes: Scenes, seed: int, tile: int = 128) -> Image.Image:
    """The figure of all scenes: each region and its picture, then all-one alpha and its picture.

    Args:
        paint: makes the pictures.
        scenes: every visible subject is a region; the fewest of a scene are shown of all.
        seed: of the noise, the same along a row.
        tile: side of a picture in pixels.
    """
    columns = int(scenes.present.sum(1).min())
    image, alpha, names = [], [], []
    for row, present in enumerate(scenes.present.bool()):
        slots = present.nonzero()[:columns, 0].tolist()
        regions = scenes.visible[row, slots][:, None]
        alpha.append(torch.cat([regions, torch.ones_like(regions[:1])]))
        image.append(scenes.image[row].expand(columns + 1, -1, -1, -1))
        names += [*(NAMES[int(scenes.concept[row, slot])] for slot in slots), "plain CLIP"]
    prompts = [PROMPTS[row % len(PROMPTS)] for row in range(len(image)) for _ in image[row]]
    seeds = [seed + row for row in range(len(image)) for _ in image[row]]
    pictures, regions = torch.cat(image), torch.cat(alpha)
    made = paint(pictures, regions, prompts, seeds)
    tiles, captions = list[Image.Image](), list[list[str]]()
    for number, name in enumerate(names):
        one = slice(number, number + 1)
        whole = number % (columns + 1) == columns
        tiles += [lit_region(pictures[one], None if whole else regions[one]), to_pil(made[one])]
        captions += [["all of it" if whole else name], [name if whole else "generated"]]
    for row in range(len(image)):
        captions[2 * row * (columns + 1) + 1].append(prompts[row * (columns + 1)])
    return figure(tiles, captions, tile, columns=2 * (columns + 1))
