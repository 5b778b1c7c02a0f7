"""A 3D object from the region of a picture, by Shap-E from a folder of its weights."""

import copy
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from ..conditioning import as_rgba, focus
from . import host
from .focus import unfocused
from .installed import unmet
from .pipeline_folders import SHAP_E, find, load, needs_diffusers
from .vision import CoreTower

TRANSFORMERS = "transformers>=5.21,<6"
"""Whose image processors take pictures of four channels."""


class Made(NamedTuple):
    """A mesh (trimesh.Trimesh, Y up, sRGB vertex colors) and pictures all around it."""

    mesh: Any
    frames: Float[Tensor, "frames 3 size size"]


def image_to_3d(
    model: str,
    picture: Float[Tensor, "1 3 height width"],
    alpha: Float[Tensor, "1 1 height width"] | None,
    tower: torch.nn.Module | None = None,
    *,
    steps: int = 64,
    guidance_scale: float = 3.0,
    frame_size: int = 128,
    seed: int = 0,
) -> Made:
    """The object that the region shows.

    Args:
        model: a folder in models/diffusers with openai/shap-e-img2img.
        picture: in [0, 1].
        alpha: its region; None is the whole picture.
        tower: an Alpha-CLIP L/14 without projection, copied, in place of the pipeline's own,
            which else is focused without training.
        steps, guidance_scale, seed: of the diffusion.
        frame_size: side of the turntable's pictures.

    Raises:
        ImportError: diffusers is not installed, or transformers is too old.
        ValueError: the tower does not fit.
    """
    pipe = open_shap_e(model)
    mask = None if alpha is None else alpha[0, 0]
    progress = host.Progress(steps + 2)
    with (
        torch.no_grad(),
        focus(pipe, copy.deepcopy(tower)),
        host.on_device(pipe) as device,
        _watched(pipe, progress),
    ):
        latents = pipe(
            as_rgba(picture, mask),
            num_inference_steps=steps,
            guidance_scale=guidance_scale,
            generator=torch.Generator().manual_seed(seed),
            output_type="latent",
        ).images
        mesh = pipe.shap_e_renderer.decode_to_mesh(latents, device)
        progress(steps + 1)
        frames = pipe.shap_e_renderer.decode_to_image(latents, device, size=frame_size)
        progress(steps + 2)
    return Made(as_trimesh(mesh), frames.movedim(-1, 1).float().clamp(0, 1).cpu())


@contextmanager
def _watched(pipe: Any, progress: host.Progress) -> Iterator[None]:
    """While this holds, steps are counted, and Cancel is heard in every part of the work."""
    steps = 0

    def count(*_: object) -> None:
        nonlocal steps
        steps += 1
        progress(min(steps, progress.total - 2))

    def listen(*_: object) -> None:
        host.stop_if_interrupted()

    with ExitStack() as hooks:
        hooks.callback(pipe.prior.register_forward_hook(count).remove)
        hooks.callback(pipe.shap_e_renderer.mlp.register_forward_hook(listen).remove)
        yield


def own_tower(vision: Any) -> torch.nn.Module:
    """The tower, without projection, of a CLIP_VISION that is ours.

    Raises:
        ValueError: it is the core's, which this pipeline cannot run.
    """
    model = unfocused(vision).model
    if not isinstance(model, CoreTower):
        raise ValueError(
            "clip_vision is ComfyUI's own; expected one of Load Alpha-CLIP Vision. Without any, "
            "the pipeline's own tower is focused without training."
        )
    return model.vision_model


def as_trimesh(mesh: Any) -> Any:
    """The mesh of Shap-E, which has Z up, as a trimesh.Trimesh with Y up."""
    import trimesh

    x, y, z = mesh.verts.float().cpu().numpy().T
    channels = [mesh.vertex_channels[name].float().cpu().numpy() for name in "RGB"]
    color = (np.clip(np.stack(channels, axis=1), 0, 1) * 255).round().astype(np.uint8)
    return trimesh.Trimesh(
        np.stack([x, z, -y], axis=1), mesh.faces.cpu().numpy(), vertex_colors=color, process=False
    )


def open_shap_e(model: str) -> Any:
    """Shap-E's pipeline of a folder in models/diffusers."""
    folder = find(model, SHAP_E)
    if lacking := unmet(TRANSFORMERS):
        raise ImportError(
            f"Image to 3D needs {TRANSFORMERS} ({lacking}). Install it into ComfyUI's Python: "
            f"python -m pip install '{TRANSFORMERS}'"
        )
    with needs_diffusers("Image to 3D"):
        from diffusers import ShapEImg2ImgPipeline
    return load(folder, ShapEImg2ImgPipeline)
