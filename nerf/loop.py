"""The optimization, as a generator that yields its progress after every step.

Each step renders a few views, lets the guide say how they should change, and carries that back
into the field: two backward passes, so that the tower's time and the renderer's can be told apart.
"""

import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
from jaxtyping import Float
from torch import Tensor

from alphaclip_gen.guidance import Guidance, augment, composite, random_backgrounds
from cameras import random_views
from field import Volume, VoxelField, blob_field, grow_adam
from losses import (
    LossSettings,
    ball_loss,
    center_loss,
    entropy_loss,
    floor_loss,
    total_variation,
    transmittance_loss,
)
from render import Rendering, occupancy, random_light, render, shaded
from settings import Config
from warm_start import Start, best_start


@dataclass
class Clock:
    """Seconds spent, by part; waits for a GPU to finish."""

    device: torch.device
    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def __call__(self, part: str) -> Iterator[None]:
        begin = time.perf_counter()
        try:
            yield
        finally:
            if self.device.type == "cuda":
                torch.cuda.synchronize(self.device)
            passed = time.perf_counter() - begin
            self.seconds[part] = self.seconds.get(part, 0.0) + passed


@dataclass(frozen=True)
class Progress:
    """Where a run stands after `step` steps; step 0 is the blob it begins with."""

    step: int
    loss: float
    score: float
    """Of the pictures of this step, by the guide."""
    field: VoxelField
    sharpness: float
    start: Start


def optimize(
    config: Config, guide: Guidance, generator: torch.Generator, clock: Clock
) -> Iterator[Progress]:
    """Progress after the warm start and after each step; the field in it goes on changing."""
    with clock("warm start"):
        start = best_start(
            guide, config.alpha == "opacity", config.resolution, config.warm_start, config.field,
            config.cameras, config.render, generator, clock.device,
        )  # fmt: skip
    voxels = blob_field(
        start.proportion, torch.tensor(start.color, device=clock.device), config.field
    )
    optimizer = _adam(voxels, config)
    sharpness = config.field.sharpness(0.0)
    yield Progress(0, math.nan, math.nan, voxels, sharpness, start)
    for step in range(config.steps):
        progress = step / max(config.steps - 1, 1)
        with clock("rendering"):
            voxels = _grown(voxels, optimizer, config, progress)
            _set_rates(optimizer, config, progress)
        loss, score = _step(voxels, optimizer, guide, config, progress, generator, clock)
        sharpness = config.field.sharpness(progress)
        yield Progress(step + 1, loss, score, voxels, sharpness, start)


def _step(
    voxels: VoxelField,
    optimizer: torch.optim.Optimizer,
    guide: Guidance,
    config: Config,
    progress: float,
    generator: torch.Generator,
    clock: Clock,
) -> tuple[float, float]:
    """Loss of the guide and score, before the step."""
    with clock("rendering"):
        volume = voxels.volume(config.field.sharpness(progress))
        rendering, color = _pictures(volume, config, generator)
    with clock("CLIP"):
        loss, score, pull = guidance_gradient(guide, color, rendering.opacity, config, generator)
    with clock("rendering"):
        penalty = penalties(volume, rendering, config.losses, progress)
        optimizer.zero_grad()
        torch.autograd.backward([color, rendering.opacity, penalty], [*pull, None])
        for parameter in voxels.parameters():
            scale_to_unit(parameter)
        optimizer.step()
        voxels.clamp()
    return loss, score


def _pictures(
    volume: Volume, config: Config, generator: torch.Generator
) -> tuple[Rendering, Tensor]:
    """A rendering of random views, and its lit premultiplied color."""
    light = config.render
    cameras = random_views(config.views, config.cameras, generator).to(volume.logits.device)
    space = occupancy(volume.density(), light.step, light.threshold, light.margin)
    rendering = render(
        volume, cameras, config.resolution, space, light.step, light.hidden_below, generator
    )
    return rendering, shaded(rendering, *random_light(cameras, light, generator))


def guidance_gradient(
    guide: Guidance,
    color: Float[Tensor, "views 3 height width"],
    opacity: Float[Tensor, "views 1 height width"],
    config: Config,
    generator: torch.Generator,
) -> tuple[float, float, tuple[Tensor, Tensor]]:
    """Loss, mean score, and the loss's gradients in premultiplied color and in opacity."""
    color = color.detach().requires_grad_()
    opacity = opacity.detach().requires_grad_()
    change = config.augment
    seen, alpha = augment(
        color, opacity, generator, change.strength, change.shift, change.zoom, change.rotation,
        change.perspective,
    )  # fmt: skip
    with torch.no_grad():
        mean = (color.sum(dim=(0, 2, 3)) / opacity.sum().clamp(min=1e-6)).cpu()
    background = random_backgrounds(
        len(color), (color.shape[2], color.shape[3]), generator, change.background, mean
    )
    image = composite(seen, alpha, background.to(color))
    embedding = guide.encoder.embed(image, alpha if config.alpha == "opacity" else None)
    loss = guide.loss_of(embedding)
    in_color, in_opacity = torch.autograd.grad(loss, [color, opacity])
    return loss.item(), guide.score_of(embedding).mean().item(), (in_color, in_opacity)


def penalties(
    volume: Volume, rendering: Rendering, settings: LossSettings, progress: float
) -> Float[Tensor, ""]:
    """The weighted sum of the regularisers."""
    relative = volume.logits[0, 0].sigmoid()
    opacity = rendering.opacity
    terms = [
        settings.transmittance * transmittance_loss(opacity, settings.opacity_target(progress)),
        settings.floor * floor_loss(opacity, settings.opacity_floor),
        settings.density_variation(progress) * total_variation(volume.logits),
        settings.color_variation(progress) * total_variation(volume.color_logits.sigmoid(), 1.0),
        settings.entropy(progress) * entropy_loss(opacity),
        settings.ball * ball_loss(relative, settings.ball_radius),
        settings.center * center_loss(relative),
    ]
    return torch.stack(terms).sum()


@torch.no_grad()
def scale_to_unit(parameter: torch.nn.Parameter) -> None:
    """Nothing; the gradient gets a root mean square of 1 over the voxels that have any."""
    if parameter.grad is None:
        return
    squared = parameter.grad.square()
    touched = (squared > 0).sum().clamp(min=1)
    parameter.grad.div_((squared.sum() / touched).sqrt().clamp(min=1e-20))


def _adam(voxels: VoxelField, config: Config) -> torch.optim.Adam:
    groups = [
        {"params": [voxels.density], "lr": config.adam.density_rate},
        {"params": [voxels.color], "lr": config.adam.color_rate},
    ]
    return torch.optim.Adam(groups, betas=config.adam.betas, eps=config.adam.eps, fused=True)


def _set_rates(optimizer: torch.optim.Optimizer, config: Config, progress: float) -> None:
    low = config.adam.last_rate
    factor = low + (1 - low) * (1 + math.cos(math.pi * progress)) / 2
    rates = (config.adam.density_rate, config.adam.color_rate)
    for group, rate in zip(optimizer.param_groups, rates, strict=True):
        group["lr"] = rate * factor


def _grown(
    voxels: VoxelField, optimizer: torch.optim.Optimizer, config: Config, progress: float
) -> VoxelField:
    """The field at the size that is due, optimizer and all; the same one if that is its size."""
    stage = sum(progress >= time for time in config.field.grow_at)
    sizes = config.field.density_sizes[stage], config.field.color_sizes[stage]
    if (voxels.density.shape[-1], voxels.color.shape[-1]) == sizes:
        return voxels
    finer = voxels.grown(*sizes)
    grow_adam(optimizer, voxels.density, finer.density, sizes[0])
    grow_adam(optimizer, voxels.color, finer.color, sizes[1])
    return finer
