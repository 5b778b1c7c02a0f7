"""A mesh from a prompt, by the program in nerf/, with a live preview.

The core runs nodes under `torch.inference_mode`, in which nothing can be learned: the run leaves
it, and takes a copy of a tower whose weights were made or moved in it.
"""

import copy
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from ..encoder import RegionEncoder
from . import host
from .meshes import as_pictures
from .programs import Program, program
from .text_boxes import lines_of

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
    steps: int = 200,
    views: int = 6,
    resolution: int = 64,
    negatives: str = "",
    frames: int = 24,
    size: int = 256,
    seed: int = 0,
) -> Grown:
    """The object that the prompt names.

    Args:
        prompt: what to make.
        encoder: the tower that guides; None is mini, which knows the words of its own world only.
        steps, views, resolution, seed: of the optimization, its pictures a step and their side.
        negatives: what it should not be, one text a line.
        frames, size: of the turntable.

    Raises:
        ValueError: a setting cannot be used, or nothing grew.
        FileNotFoundError: nerf/ is not beside the package.
    """
    with torch.inference_mode(False), torch.enable_grad():
        nerf = program("nerf")
        config = nerf.settings.Config(
            prompt=prompt,
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
        mesh = nerf.surface.extract(volume)
        turn = as_pictures(nerf.turntable.turn(volume, config.pictures))
        return Grown(mesh, nerf.formats.write_glb(mesh), turn)


def _optimized(nerf: Program, config: Any, guides: Any) -> Any:
    """The program's state after its last step; each step may be interrupted."""
    progress = host.Progress(config.steps)
    every = max(1, config.steps // PREVIEWS)
    clock = nerf.loop.Clock(torch.device(config.device))
    generator = torch.Generator().manual_seed(config.seed)
    for last in nerf.loop.optimize(config, guides, generator, clock):
        shown = last.step % every == 0
        progress(last.step, nerf.turntable.snapshot(last.volume()) if shown else None)
    return last


def _trainable(encoder: RegionEncoder) -> RegionEncoder:
    """A copy in single precision where the core computes, through which gradients pass."""
    model = copy.deepcopy(encoder.model).float()
    torch.nn.Module.to(model, host.compute_device())
    return RegionEncoder(model, encoder.tokenizer, encoder.processor)
