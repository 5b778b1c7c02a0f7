"""Pictures of the subject in a region, by BLIP-Diffusion from a folder of its weights."""

from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from ..framing import as_image
from ..sources import SHIPPED
from . import host
from .pipeline_folders import BLIP_DIFFUSION, find, load, needs_diffusers
from .widgets import AS_TRAINED, MODEL_GEOMETRIES

MINI = "mini"
MINI_FOLDER = SHIPPED / "generator"


def generate(
    model: str,
    picture: Float[Tensor, "images 3 height width"],
    alpha: Float[Tensor, "alphas 1 height width"] | None,
    prompt: str,
    subject: str,
    target: str = "",
    *,
    negative_prompt: str = "",
    geometry: str = AS_TRAINED,
    steps: int = 50,
    guidance_scale: float = 7.5,
    width: int = 0,
    height: int = 0,
    count: int = 1,
    seed: int = 0,
) -> Float[Tensor, "pictures 3 new_height new_width"]:
    """Pictures of the subject that the region shows.

    Args:
        model: "mini", or a folder in models/diffusers.
        picture: the reference in [0, 1]; several are several views of one subject.
        alpha: its region; several regions of one picture are views of one subject too. None is the
            whole picture.
        prompt: what the subject does or where it is; {subject} in it stands for its name.
        subject: name of what the region shows.
        target: name of what to generate; the same if empty.
        negative_prompt: what to stay away from.
        geometry: one of MODEL_GEOMETRIES.
        steps, guidance_scale, count, seed: of the diffusion.
        width, height: of the result; 0 is what the model was trained for.

    Raises:
        ImportError: diffusers is not installed.
        FileNotFoundError, ValueError: there is no such model, or no name.
    """
    if not subject.strip():
        raise ValueError("subject is empty; expected the name of what the region shows: 'dog'.")
    pipe = open_pipeline(model)
    progress = host.Progress(steps)

    def after_step(pipe: Any, index: int, timestep: Any, tensors: dict) -> dict:
        progress(min(index + 1, steps))
        return {}

    images, regions = references(picture, alpha)
    with host.on_device(pipe), torch.no_grad():
        result = pipe(
            prompt,
            images,
            subject,
            target.strip() or subject,
            alpha_mask=regions,
            geometry=MODEL_GEOMETRIES[geometry],
            negative_prompt=negative_prompt,
            guidance_scale=guidance_scale,
            width=width or None,
            height=height or None,
            num_inference_steps=steps,
            num_images_per_prompt=count,
            generator=torch.Generator().manual_seed(seed),
            output_type="pt",
            callback_on_step_end=after_step,
        )
    return result.images.float().cpu()


def model_folder(model: str) -> Path:
    """The folder of a model that the node offers."""
    return MINI_FOLDER if model == MINI else find(model, BLIP_DIFFUSION)


def references(
    pictures: Float[Tensor, "images 3 height width"],
    alpha: Float[Tensor, "alphas 1 height width"] | None,
) -> tuple[list[Tensor], list[Tensor | None]]:
    """The pictures one by one, and the region of each."""
    if alpha is None:
        return list(pictures), [None] * len(pictures)
    count = max(len(pictures), len(alpha))
    images = as_image(pictures).expand(count, -1, -1, -1)
    return list(images), [one[0] for one in alpha.expand(count, -1, -1, -1)]


def open_pipeline(model: str) -> Any:
    """The pipeline of a model that the node offers."""
    folder = model_folder(model)
    with needs_diffusers("Subject Generate"):
        from ..subject import AlphaBlipDiffusionPipeline
    return load(folder, AlphaBlipDiffusionPipeline)
