"""A mesh from a prompt, by the program in nerf/, with a live preview.

The core runs nodes under `torch.inference_mode`, in which nothing can be learned: the run leaves
it, and takes a copy of a tower whose weights were made or moved in it.
"""

import copy
import dataclasses
from pathlib import Path
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from ..encoder import RegionEncoder
from . import host
from .entries import lines_of
from .meshes import as_pictures
from .programs import Program, program

GIVEN = "clip_vision"
"""What the program calls a tower that it did not load itself."""

PREVIEWS = 40
"""Pictures of the growing object, at most."""


class Grown(NamedTuple):
    """A mesh (trimesh.Trimesh, Y up, sRGB vertex colors), the same as a file, and its turntable."""

    mesh: Any
    glb: bytes
    frames: Float[Tensor, "frames 3 size size"]


def text_to_3d(
    prompt: str,
    encoder: RegionEncoder | None = None,
    *,
    parts: str = "",
    steps: int = 200,
    views: int = 4,
    resolution: int = 64,
    negatives: str = "",
    frames: int = 24,
    size: int = 256,
    seed: int = 0,
) -> Grown:
    """The object that the prompt names.

    Args:
        prompt: what to make; may be empty where there are parts.
        encoder: the tower that guides; None is mini, which knows the words of its own world only.
        parts: a text and the shape where it holds, one part a line: "a red cone @ top". A shape may
            be a mesh file in the core's input folder.
        steps, views, resolution, seed: of the optimization, its pictures a step and the side of the
            last ones.
        negatives: what it should not be, one text a line.
        frames, size: of the turntable.

    Raises:
        ValueError: a setting cannot be used, or nothing grew.
        FileNotFoundError: nerf/ is not beside the package.
    """
    with torch.inference_mode(False), torch.enable_grad():
        nerf = program("nerf")
        places = parts_of(parts, nerf)
        config = dataclasses.replace(
            nerf.presets.PRESETS["parts" if places else "default"],
            prompt=prompt if prompt.strip() or not places else None,
            parts=places,
            steps=steps,
            views=views,
            resolution=resolution,
            negatives=tuple(lines_of(negatives)),
            guidance=("mini",) if encoder is None else (GIVEN,),
            seed=seed,
            device=str(host.compute_device()),
            pictures=nerf.turntable.PictureSettings(size=size, frames=frames),
        )
        nerf.checks.check(config)
        towers = nerf.guides.load_encoders(config) if encoder is None else (_trainable(encoder),)
        last = _optimized(nerf, config, nerf.guides.make_guides(config, towers))
        volume = last.volume()
        around = nerf.turntable.turn(volume, config.pictures, host.stop_if_interrupted)
        turn = as_pictures(around)
        mesh = nerf.surface.extract(volume, before_each=host.stop_if_interrupted)
        return Grown(mesh, nerf.formats.write_glb(mesh), turn)


def parts_of(text: str, nerf: Program) -> tuple[str, ...]:
    """The parts of a text box as the program takes them; mesh files are the core's.

    Raises:
        ValueError: a line is no part.
        FileNotFoundError: a mesh is not in the core's input folder.
    """
    return tuple(_with_its_mesh(line, nerf) for line in lines_of(text))


def _with_its_mesh(line: str, nerf: Program) -> str:
    shape = nerf.parts.parse_part(line).shape
    if Path(shape).suffix.lower() not in nerf.meshes.SUFFIXES:
        return line
    words, at, place = line.partition("@")
    return words + at + place.replace(shape, str(host.input_path(shape, "parts")), 1)


def _optimized(nerf: Program, config: Any, guides: Any) -> Any:
    """The program's state after its last step; the start and each step may be interrupted."""
    progress = host.Progress(config.steps)
    every = max(1, config.steps // PREVIEWS)
    clock = nerf.loop.Clock(torch.device(config.device))
    generator = torch.Generator().manual_seed(config.seed)
    steps = nerf.loop.optimize(
        config, guides, generator, clock, before_each=host.stop_if_interrupted
    )
    for last in steps:
        shown = last.step % every == 0
        progress(last.step, nerf.turntable.snapshot(last.volume()) if shown else None)
    return last


def _trainable(encoder: RegionEncoder) -> RegionEncoder:
    """A copy in single precision where the core computes, through which gradients pass."""
    model = copy.deepcopy(encoder.model).float()
    torch.nn.Module.to(model, host.compute_device())
    return RegionEncoder(model, encoder.tokenizer, encoder.processor)
