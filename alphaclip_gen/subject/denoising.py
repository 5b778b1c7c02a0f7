"""Denoising with a subject: what conditions a step, and what any scheduler needs around it."""

import inspect
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from diffusers import ControlNetModel, DiffusionPipeline, SchedulerMixin, UNet2DConditionModel
from diffusers.utils.torch_utils import randn_tensor
from jaxtyping import Float
from torch import Tensor

from .canvas import Canvas

OUTPUT_TYPES = ("pil", "np", "pt", "latent")


@dataclass(frozen=True)
class Conditions:
    """What every step is told.

    Attributes:
        prompt_embeds: of the prompts; with guidance the negative ones come first.
        guidance_scale: classifier-free guidance, off at 1 and below.
        canvas: of an inpainting run.
        control: pictures in [0, 1] that the ControlNet follows.
        control_scale: how strongly.
    """

    prompt_embeds: Float[Tensor, "prompts tokens channels"]
    guidance_scale: float = 1.0
    canvas: Canvas | None = None
    control: Float[Tensor, "batch 3 height width"] | None = None
    control_scale: float = 1.0

    @property
    def guided(self) -> bool:
        return self.guidance_scale > 1


def predict(
    unet: UNet2DConditionModel,
    controlnet: ControlNetModel | None,
    inputs: Float[Tensor, "batch channels rows columns"],
    timestep: Tensor,
    conditions: Conditions,
) -> Float[Tensor, "batch channels rows columns"]:
    """The UNet's prediction for latents that the scheduler has scaled, guided."""
    passes = 2 if conditions.guided else 1
    inputs = torch.cat([inputs] * passes)
    residuals: dict[str, Any] = {}
    if conditions.control is not None and controlnet is not None:
        down, middle = controlnet(
            inputs,
            timestep,
            encoder_hidden_states=conditions.prompt_embeds,
            controlnet_cond=torch.cat([conditions.control] * passes),
            conditioning_scale=conditions.control_scale,
            return_dict=False,
        )
        residuals = {
            "down_block_additional_residuals": down,
            "mid_block_additional_residual": middle,
        }
    if conditions.canvas is not None and conditions.canvas.unet_input is not None:
        inputs = torch.cat([inputs, torch.cat([conditions.canvas.unet_input] * passes)], dim=1)
    predicted = unet(
        inputs,
        timestep,
        encoder_hidden_states=conditions.prompt_embeds,
        return_dict=False,
        **residuals,
    )[0]
    if not conditions.guided:
        return predicted
    without, with_prompt = predicted.chunk(2)
    return without + conditions.guidance_scale * (with_prompt - without)


def check_run(
    prompts: Any, repeats: int, steps: int, strength: float, inpainting: bool, output_type: str
) -> None:
    """Nothing; raises unless a run can be made of its arguments."""
    are_texts = isinstance(prompts, list | tuple) and all(isinstance(one, str) for one in prompts)
    if not are_texts or not prompts:
        raise TypeError(f"prompt is {prompts!r}; expected a string, or a list of strings.")
    if steps < 1:
        raise ValueError(f"num_inference_steps is {steps}; expected at least 1.")
    if repeats < 1:
        raise ValueError(f"num_images_per_prompt is {repeats}; expected at least 1.")
    if not 0 < strength <= 1:
        raise ValueError(f"strength is {strength}; expected above 0, at most 1.")
    if strength < 1 and not inpainting:
        raise ValueError(f"strength is {strength} without inpaint_image; expected 1.")
    if output_type not in OUTPUT_TYPES:
        raise ValueError(f"output_type is {output_type!r}; expected one of {OUTPUT_TYPES}.")


def run_size(
    height: int | None, width: int | None, natural: tuple[int, int], scale: int
) -> tuple[int, int]:
    """(height, width) of the result: as asked for, else the natural one."""
    size = height or natural[0], width or natural[1]
    if any(side % scale for side in size):
        raise ValueError(f"height and width are {size}; expected multiples of {scale}.")
    return size


def run_noise(
    shape: tuple[int, ...],
    generator: torch.Generator | list[torch.Generator] | None,
    latents: Tensor | None,
    device: torch.device,
    dtype: torch.dtype,
) -> Float[Tensor, "batch channels rows columns"]:
    """Noise of standard deviation 1: new, or the latents given, checked."""
    if isinstance(generator, list) and len(generator) != shape[0]:
        raise ValueError(
            f"generator is a list of {len(generator)}; expected one for each of {shape[0]} results."
        )
    if latents is None:
        return randn_tensor(shape, generator=generator, device=device, dtype=dtype)
    if tuple(latents.shape) != shape:
        raise ValueError(
            f"latents has shape {tuple(latents.shape)}; expected {shape}: results, channels, "
            f"height and width of the latents."
        )
    return latents.to(device, dtype)


def plan(scheduler: SchedulerMixin, steps: int, strength: float, device: torch.device) -> Tensor:
    """The timesteps of a run; below strength 1 only the last part of them.

    The scheduler is set to them.
    """
    scheduler.set_timesteps(steps, device=device)
    skipped = (steps - max(1, int(steps * strength))) * getattr(scheduler, "order", 1)
    if skipped and hasattr(scheduler, "set_begin_index"):
        scheduler.set_begin_index(skipped)
    return scheduler.timesteps[skipped:]


def first_latents(
    scheduler: SchedulerMixin,
    noise: Float[Tensor, "batch channels rows columns"],
    canvas: Canvas | None,
    timesteps: Tensor,
    strength: float,
) -> Float[Tensor, "batch channels rows columns"]:
    """What the first step gets: noise as strong as the scheduler's, over the canvas if it stays."""
    if canvas is not None and strength < 1:
        return canvas.noisy(scheduler, timesteps[0])
    return noise * getattr(scheduler, "init_noise_sigma", 1.0)


def scaled(scheduler: SchedulerMixin, latents: Tensor, timestep: Tensor) -> Tensor:
    """The latents as the UNet takes them; some schedulers have nothing to do."""
    if hasattr(scheduler, "scale_model_input"):
        return scheduler.scale_model_input(latents, timestep)
    return latents


def step_options(scheduler: SchedulerMixin, generator: Any, eta: float) -> dict[str, Any]:
    """The arguments of the scheduler's step that not every scheduler takes."""
    taken = inspect.signature(scheduler.step).parameters
    options = {"generator": generator, "eta": eta, "return_dict": False}
    return {name: value for name, value in options.items() if name in taken}


def denoise(
    pipe: DiffusionPipeline,
    latents: Float[Tensor, "batch channels rows columns"],
    timesteps: Tensor,
    conditions: Conditions,
    options: dict[str, Any],
    callback: Callable | None = None,
    callback_inputs: tuple[str, ...] | list[str] = ("latents",),
) -> Float[Tensor, "batch channels rows columns"]:
    """The latents after all timesteps, or those until a callback sets `pipe.interrupt`.

    Args:
        pipe: has the UNet, the scheduler, perhaps a ControlNet, and the progress bar.
        options: of the scheduler's step.
        callback: see AlphaBlipDiffusionPipeline.
    """
    unknown = sorted(set(callback_inputs) - set(pipe._callback_tensor_inputs))
    if unknown:
        raise ValueError(
            f"callback_on_step_end_tensor_inputs has {unknown}; expected some of "
            f"{pipe._callback_tensor_inputs}."
        )
    pipe.interrupt = False
    for index, timestep in enumerate(pipe.progress_bar(timesteps)):
        if pipe.interrupt:
            break
        inputs = scaled(pipe.scheduler, latents, timestep)
        predicted = predict(pipe.unet, pipe.controlnet, inputs, timestep, conditions)
        latents = pipe.scheduler.step(predicted, timestep, latents, **options)[0]
        if conditions.canvas is not None:
            following = timesteps[index + 1] if index + 1 < len(timesteps) else None
            latents = conditions.canvas.keep(latents, pipe.scheduler, following)
        if callback is not None:
            here = {"latents": latents, "prompt_embeds": conditions.prompt_embeds}
            given = {name: here[name] for name in callback_inputs}
            here |= callback(pipe, index, timestep, given) or {}
            latents = here["latents"]
            conditions = replace(conditions, prompt_embeds=here["prompt_embeds"])
    return latents
