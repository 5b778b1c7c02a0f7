"""A figure of the focus: in each row one scene, the region moved from subject to subject.

Beside each region stands what was generated from it, and last what plain CLIP conditioning (alpha
one everywhere) makes of the scene. Scenes come from the emoji artwork where it is, else from those
few that are kept beside the generator's weights.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from rich.console import Console
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from .focus_ways import Painter, pipeline_painter
from .mini.artwork import HELD_OUT_STYLES, TRAINING_STYLES
from .mini.concepts import NAMES
from .mini.emoji_world import Mix, render_world
from .mini.evaluate_regions import read_cast
from .mini.world import Scenes
from .show import figure, lit_region, to_pil
from .sources import SHIPPED

KEPT = SHIPPED / "generator" / "scenes.safetensors"
"""Scenes that need no artwork."""
PROMPTS = (
    "a {subject} on a blue background",
    "two {subject} on grass",
    "a {subject} on a yellow background",
    "a large {subject} on checks",
)


@dataclass(frozen=True)
class FocusGrid:
    """Draw the grid: scenes, their regions, and what is generated from each."""

    output: Path = Path("focus.png")
    """The picture to write."""
    scenes: int = 4
    """How many rows."""
    subjects: int = 3
    """Subjects in each scene."""
    seed: int = 5
    """Of scenes and noise."""
    steps: int = 20
    """Of the denoising."""
    guidance: float = 2.5
    """Classifier-free guidance."""
    generator: str = "mini"
    """mini, or a folder that its training wrote."""
    artwork: Path = Path("runs/artwork")
    """Folder of the emoji; without them the scenes kept with the weights are shown."""
    style: str | None = None
    """One style of emoji for all scenes, such as noto; by default any, the held-out one last."""
    keep: Path | None = None
    """Also write the scenes here, to be shown where there is no artwork."""


def focus_grid(config: FocusGrid, console: Console) -> None:
    """Write the grid, and say where it is."""
    from .mini.generator import load_generator

    pipe = load_generator(config.generator)
    scenes = _find_scenes(config)
    if config.keep:
        save_scenes(scenes, config.keep)
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
        whole = name == "plain CLIP"
        tiles += [lit_region(pictures[one], None if whole else regions[one]), to_pil(made[one])]
        captions += [["all of it" if whole else name], [name if whole else "generated"]]
    for row in range(len(image)):
        captions[2 * row * (columns + 1) + 1].append(prompts[row * (columns + 1)])
    return figure(tiles, captions, tile, columns=2 * (columns + 1))


def _find_scenes(config: FocusGrid) -> Scenes:
    """Scenes of the artwork, or those that are kept where there is none."""
    if not (config.artwork / "artwork.safetensors").is_file() and KEPT.is_file():
        return load_scenes(KEPT, config.scenes)
    cast = read_cast(config.artwork)
    generator = torch.Generator().manual_seed(config.seed)
    found = []
    for row in range(config.scenes):
        last = row == config.scenes - 1 and config.scenes > 1
        styles = HELD_OUT_STYLES if last else TRAINING_STYLES
        styles = (config.style,) if config.style else styles
        mix = Mix((config.subjects,) * 2, styles, solids=0.0, looks=0.0, rough=0.0)
        tried = render_world(cast, 64, generator, mix)
        found.append(_take(tried, [_clearest(tried)]))
    return Scenes(
        **{name: torch.cat([getattr(one, name) for one in found]) for name in vars(found[0])}
    )


def _clearest(scenes: Scenes) -> int:
    """The scene whose least visible subject is largest."""
    return int(scenes.visible.sum((-2, -1)).amin(1).argmax())


def _take(scenes: Scenes, rows: list[int]) -> Scenes:
    return Scenes(**{name: value[rows] for name, value in vars(scenes).items()})


def save_scenes(scenes: Scenes, path: Path) -> None:
    """Nothing; writes pictures and regions as bytes, and what the subjects are."""
    path.parent.mkdir(parents=True, exist_ok=True)
    tensors = {
        "image": (scenes.image * 255).round().to(torch.uint8),
        "visible": (scenes.visible * 255).round().to(torch.uint8),
        "present": scenes.present.to(torch.uint8),
    }
    names = [[NAMES[concept] for concept in row] for row in scenes.concept.tolist()]
    save_file(tensors, path, metadata={"names": json.dumps(names)})


def load_scenes(path: Path, most: int | None = None) -> Scenes:
    """The scenes that `save_scenes` wrote, the first of them; without weights of shapes, colors.

    Raises:
        ValueError: they show what this version has no name for.
    """
    with safe_open(path, "pt") as file:
        names: list[list[str]] = json.loads(file.metadata()["names"])
        stored: dict[str, Any] = {name: file.get_tensor(name)[:most] for name in file.keys()}  # noqa: SIM118
    unknown = sorted({name for row in names for name in row} - set(NAMES))
    if unknown:
        raise ValueError(f"{path.name} shows {', '.join(unknown)}; expected names of concepts.txt.")
    concept = torch.tensor([[NAMES.index(name) for name in row] for row in names[:most]])
    nothing = torch.zeros(*concept.shape, 0)
    image, visible = (_unit(stored[name]) for name in ("image", "visible"))
    return Scenes(image, visible, concept, nothing, nothing, stored["present"].float())


def _unit(values: Tensor) -> Tensor:
    return values.float() / 255
