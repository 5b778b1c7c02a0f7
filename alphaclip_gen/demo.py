"""The two-minute tour: the regions of one scene named, and a prompt turned into a mesh."""

import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import torch
from rich.console import Console

from .encoder import RegionEncoder
from .mini.captions import all_captions
from .mini.solids import build_bank
from .mini.world import PLAIN, render_scenes
from .show import figure, lit_region, to_pil


@dataclass(frozen=True)
class Demo:
    """Name the regions of a scene, and turn a prompt into a mesh; nothing is downloaded."""

    output: Path = Path("outputs/demo")
    """Folder of the pictures and the mesh."""
    prompt: str = "a red mushroom"
    """What to make in 3D."""
    seed: int = 3
    """Of the scene and of the mesh."""


def demo(config: Demo, console: Console) -> None:
    """Write scene.png, regions.png and the mesh's folder; print what to try next."""
    config.output.mkdir(parents=True, exist_ok=True)
    began = time.monotonic()
    console.print("[bold]1. One scene, its regions named[/]")
    picture = name_regions(config.output, config.seed)
    console.print(f"   {picture}  ({time.monotonic() - began:.0f} s)")
    console.print(f"[bold]2. A mesh from a prompt: {config.prompt}[/]")
    mesh = make_mesh(config)
    if mesh is None:
        console.print(
            "   nerf/optimize.py comes with a clone of the repository: run the demo there."
        )
    console.print("\n[bold]To look at[/]")
    for path in (picture, *(mesh or ())):
        console.print(f"   {path}")
    console.print("[bold]To try next[/]")
    programs = _shown(Path(sys.executable).parent)
    console.print(f"   {programs}/alphaclip-gen score {config.output}/scene.png --point 0.3,0.3")
    console.print(f'   {programs}/python nerf/optimize.py --prompt "a green snowman"')


def name_regions(folder: Path, seed: int, size: int = 224) -> Path:
    """Renders a scene of mini's world; writes it, and a figure of what mini says of its regions."""
    generator = torch.Generator().manual_seed(seed)
    bank = build_bank(generator, views=2, blends=0, rippled=0.0, side=size)
    scenes = render_scenes(bank, 12, generator, PLAIN, size=size)
    row = int(scenes.present.sum(1).argmax())
    image = scenes.image[row : row + 1]
    alphas = [a[None, None] for a in scenes.visible[row][scenes.present[row] > 0]]
    to_pil(image).save(folder / "scene.png")

    encoder, texts = RegionEncoder.from_pretrained("mini"), all_captions()
    probabilities = encoder.score(image, texts, [None, *alphas])
    captions = [
        [f"{texts[i]}  {p:.2f}" for p, i in zip(top.values, top.indices.tolist(), strict=True)]
        for top in (row.topk(2) for row in probabilities)
    ]
    captions = [["whole picture", captions[0][0]], *captions[1:]]
    sheet = figure([lit_region(image, alpha) for alpha in (None, *alphas)], captions)
    sheet.save(folder / "regions.png")
    return folder / "regions.png"


def make_mesh(config: Demo) -> tuple[Path, ...] | None:
    """Runs nerf/optimize.py; the files to look at, or None where there is no clone.

    Raises:
        OSError: the program failed.
    """
    from .evaluate_3d import find_program, slug

    try:
        program = find_program()
    except FileNotFoundError:
        return None
    folder = config.output / slug(config.prompt)
    command = [sys.executable, str(program), "--prompt", config.prompt]
    command += ["--output", str(folder), "--seed", str(config.seed)]
    if subprocess.run(command, check=False).returncode:
        raise OSError(f"{program} failed; its own message stands above.")
    return tuple(folder / name for name in ("turntable.gif", "preview.png", "mesh.glb"))


def _shown(path: Path) -> Path:
    """The path as seen from the working directory, where it lies below."""
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path
