"""The two-minute tour: regions named, a prompt turned into a mesh, and subjects drawn anew."""

import importlib.util
import subprocess
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from rich.console import Console

from .encoder import RegionEncoder
from .mini.concepts import all_captions
from .mini.kept_scenes import load_scenes
from .mini.solids import build_bank
from .mini.world import PLAIN, Scenes, render_scenes
from .show import figure, lit_region, to_pil


@dataclass(frozen=True)
class Demo:
    """Name the regions of scenes, turn a prompt into a mesh, and draw what regions show anew;
    nothing is downloaded."""

    output: Path = Path("outputs/demo")
    """Folder of the pictures and the mesh."""
    prompt: str = "a red mushroom"
    """What to make in 3D."""
    seed: int = 3
    """Of the scene and of the mesh."""


def demo(config: Demo, console: Console) -> None:
    """Write scene.png, regions.png, the mesh's folder and focus.png; print what to try next."""
    config.output.mkdir(parents=True, exist_ok=True)
    began = time.monotonic()
    console.print("[bold]1. Three scenes, their regions named[/]")
    picture = name_regions(config.output, config.seed)
    console.print(f"   {picture}  ({time.monotonic() - began:.0f} s)")
    console.print(f"[bold]2. A mesh from a prompt: {config.prompt}[/]")
    mesh = make_mesh(config)
    if mesh is None:
        console.print(
            "   nerf/optimize.py comes with a clone of the repository: run the demo there."
        )
    began = time.monotonic()
    console.print("[bold]3. The region decides what is generated[/]")
    focus = draw_focus(config.output / "focus.png")
    if focus is None:
        console.print("   needs diffusers: pip install 'alphaclip-gen[diffusion]'")
    else:
        console.print(f"   {focus}  ({time.monotonic() - began:.0f} s)")
    console.print("\n[bold]To look at[/]")
    for path in (picture, *(mesh or ()), *([focus] if focus else ())):
        console.print(f"   {path}")
    console.print("[bold]To try next[/]")
    programs = _shown(Path(sys.executable).parent)
    console.print(f"   {programs}/alphaclip-gen score {config.output}/scene.png --point 0.3,0.3")
    console.print(f'   {programs}/python nerf/optimize.py --prompt "a green snowman"')


def name_regions(folder: Path, seed: int, size: int = 224) -> Path:
    """Writes a scene of solids, and a figure of what mini says of the regions of three scenes."""
    encoder, texts = RegionEncoder.from_pretrained("mini"), all_captions()
    scenes = (solid_scene(seed, size), load_scenes(most=2))
    pictures, captions = [], []
    for image, visible, present in (
        row
        for part in scenes
        for row in zip(part.image.split(1), part.visible, part.present, strict=True)
    ):
        regions = [None, *visible[present > 0][:, None, None]]
        pictures += [lit_region(image, alpha) for alpha in regions]
        for named in encoder.score(image, texts, regions):
            top = named.topk(2)
            said = zip(top.values, top.indices.tolist(), strict=True)
            captions.append([f"{texts[i]}  {p:.2f}" for p, i in said])
        first = captions[-len(regions)]
        first[:] = ["whole picture", first[0]]
    to_pil(scenes[0].image).save(folder / "scene.png")
    figure(pictures, captions, columns=4).save(folder / "regions.png")
    return folder / "regions.png"


def solid_scene(seed: int, size: int) -> Scenes:
    """A scene of three solids, seen well."""
    generator = torch.Generator().manual_seed(seed)
    bank = build_bank(generator, views=2, blends=0, rippled=0.0, side=size)
    scenes = render_scenes(bank, 24, generator, replace(PLAIN, objects=(3, 3)), size=size)
    best = int((scenes.visible.sum((-2, -1)) * scenes.present).amin(1).argmax())
    return Scenes(**{name: value[best : best + 1] for name, value in vars(scenes).items()})


def make_mesh(config: Demo) -> tuple[Path, ...] | None:
    """Runs nerf/optimize.py; the files to look at, or None where there is no clone.

    Raises:
        OSError: the program failed.
    """
    from .made_meshes import find_program, slug

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


def draw_focus(path: Path) -> Path | None:
    """Writes the grid of `alphaclip-gen grid`; None where diffusers is not installed."""
    if importlib.util.find_spec("diffusers") is None:
        return None
    from .focus_grid import FocusGrid, focus_grid

    focus_grid(FocusGrid(path), Console(quiet=True))
    return path


def _shown(path: Path) -> Path:
    """The path as seen from the working directory, where it lies below."""
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path
