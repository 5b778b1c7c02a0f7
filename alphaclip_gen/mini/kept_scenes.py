"""A few scenes of emoji that are shipped, to show and to try on without the artwork.

Usage: python -m alphaclip_gen.mini.kept_scenes
"""

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
import tyro
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from ..sources import SHIPPED
from ..whole_files import whole_file
from .concepts import NAMES
from .emoji_world import SEEN, Cast, load_cast, render_world
from .world import Scenes

KEPT = SHIPPED / "scenes.safetensors"


@dataclass(frozen=True)
class Config:
    """Choose scenes and keep them.

    Attributes:
        output: the file to write.
        artwork: folder where the emoji are, or are fetched to.
        styles: of the scenes in turn; the licenses of their drawings must allow passing them on.
        subjects: in each scene.
        side: of the pictures in pixels.
        seed: of the scenes.
    """

    output: Path = KEPT
    artwork: Path = Path("runs/artwork")
    styles: tuple[str, ...] = ("noto", "twemoji", "fluent", "noto", "twemoji", "fluent")
    subjects: int = 3
    side: int = 96
    seed: int = 5


def main(config: Config) -> None:
    """Write the file."""
    cast = load_cast(config.artwork)
    scenes = clear_scenes(cast, config.styles, config.subjects, config.side, config.seed)
    save_scenes(scenes, config.output)


def clear_scenes(
    cast: Cast, styles: tuple[str, ...], subjects: int, side: int, seed: int
) -> Scenes:
    """One scene of each style, of 64 random ones that in which its subjects are seen best."""
    generator, found = torch.Generator().manual_seed(seed), []
    for style in styles:
        mix = replace(SEEN, objects=(subjects, subjects), styles=(style,))
        tried = render_world(cast, 64, generator, mix, side)
        best = int(tried.visible.sum((-2, -1)).amin(1).argmax())
        found.append({name: value[best] for name, value in vars(tried).items()})
    return Scenes(**{name: torch.stack([one[name] for one in found]) for name in found[0]})


def save_scenes(scenes: Scenes, path: Path) -> None:
    """Nothing; writes pictures and regions as bytes, and what the subjects are."""
    tensors = {
        "image": _bytes(scenes.image),
        "visible": _bytes(scenes.visible),
        "present": scenes.present.to(torch.uint8),
    }
    names = [[NAMES[concept] for concept in row] for row in scenes.concept.tolist()]
    with whole_file(path) as part:
        save_file(tensors, part, metadata={"names": json.dumps(names)})


def load_scenes(path: Path = KEPT, most: int | None = None) -> Scenes:
    """The first of the scenes that `save_scenes` wrote; places and weights of names are not kept.

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
    nothing, place = torch.zeros(*concept.shape, 0), torch.zeros(*concept.shape, 3)
    image, visible = (stored[name].float() / 255 for name in ("image", "visible"))
    present = stored["present"].float()
    return Scenes(image, visible, concept, nothing, nothing, present, 0 * present, place)


def _bytes(values: Tensor) -> Tensor:
    return (values * 255).round().to(torch.uint8)


if __name__ == "__main__":
    main(tyro.cli(Config))
