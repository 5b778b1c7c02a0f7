"""How parameters follow their gradients: Adam, and what happens to it when a field grows."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from field import VoxelField
from grids import resampled, smoothed
from implicit import ImplicitField
from schedule import Ramp, constant

Field = VoxelField | ImplicitField


@dataclass(frozen=True)
class AdamSettings:
    """Adam on gradients that are scaled to an even size first."""

    density_rate: float = 0.25
    color_rate: float = 0.08
    last_rate: float = 0.2
    """The rates fall to this fraction of themselves, along a cosine."""
    betas: tuple[float, float] = (0.9, 0.98)
    eps: float = 0.5
    """In units of a grid's root mean square gradient: what is below moves in proportion to its
    gradient, as in plain descent; only what is above is held to the rate. Quiets the noise where
    nothing is to be learned."""
    scaled: bool = True
    """Scale the gradient of each grid to a root mean square of 1 first."""
    masked: bool = False
    """Leave parameters and their moments alone where the gradient is 0 (DVGO)."""
    reset_on_growth: bool = False
    """Forget the moments when the field grows, instead of resampling them."""
    spread: Ramp = constant(0.0)
    """Passes of the (1, 2, 1) filter over the gradient of explicit density, rounded: whole shapes
    move before their details do (Sobolev gradient; Sundaramoorthi et al., IJCV 73, 2007)."""


def make_adam(field: Field, settings: AdamSettings) -> torch.optim.Adam:
    """The optimizer of a field: density first, then color."""
    rates = settings.density_rate, settings.color_rate
    groups = [{"params": p, "lr": rate} for p, rate in zip(field.parts(), rates, strict=True)]
    return torch.optim.Adam(groups, betas=settings.betas, eps=settings.eps, fused=True)


def set_rates(optimizer: torch.optim.Optimizer, settings: AdamSettings, progress: float) -> None:
    """Nothing; the learning rates are those of this moment of the run."""
    low = settings.last_rate
    factor = low + (1 - low) * (1 + math.cos(math.pi * progress)) / 2
    rates = (settings.density_rate, settings.color_rate)
    for group, rate in zip(optimizer.param_groups, rates, strict=True):
        group["lr"] = rate * factor


def take_step(optimizer: torch.optim.Adam, settings: AdamSettings, progress: float) -> None:
    """Nothing; the parameters have moved against their gradients.

    Raises:
        FloatingPointError: one of them is not finite then; they and the optimizer are as before.
    """
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    before = [(p.detach().clone(), _moments(optimizer, p)) for p in parameters]
    for density in optimizer.param_groups[0]["params"]:
        if density.ndim == 5 and density.grad is not None:
            density.grad = smoothed(density.grad, round(settings.spread(progress)))
    if settings.scaled:
        for parameter in parameters:
            scale_to_unit(parameter)
    optimizer.step()
    if not all(p.sum().isfinite() for p in parameters):
        _put_back(optimizer, parameters, before)
        for parameter in parameters:
            if parameter.grad is not None:
                optimizer.state[parameter]["step"] -= 1
        raise FloatingPointError(
            "the field is not finite after a step of the optimizer, which was taken back. Lower "
            "adam.density_rate and adam.color_rate."
        )
    if settings.masked:
        _put_back(optimizer, parameters, before, where_still=True)


@torch.no_grad()
def scale_to_unit(parameter: nn.Parameter) -> None:
    """Nothing; the gradient gets a root mean square of 1 over the voxels that have any."""
    if parameter.grad is None:
        return
    squared = parameter.grad.square()
    touched = (squared > 0).sum().clamp(min=1)
    parameter.grad.div_((squared.sum() / touched).sqrt().clamp(min=1e-20))


State = tuple[Tensor, dict[str, Tensor]]
"""Copies of a parameter and of its moments."""


def _moments(optimizer: torch.optim.Adam, parameter: nn.Parameter) -> dict[str, Tensor]:
    """Copies of a parameter's moments, zeros before the first step."""
    state = optimizer.state.get(parameter, {})
    names = ("exp_avg", "exp_avg_sq")
    return {n: state[n].clone() if n in state else torch.zeros_like(parameter) for n in names}


@torch.no_grad()
def _put_back(
    optimizer: torch.optim.Adam,
    parameters: Sequence[nn.Parameter],
    before: Sequence[State],
    where_still: bool = False,
) -> None:
    """Nothing; parameters and moments are as before, everywhere or where the gradient is 0."""
    for parameter, (value, moments) in zip(parameters, before, strict=True):
        if parameter.grad is None:
            continue
        still = parameter.grad == 0 if where_still else torch.ones_like(value, dtype=torch.bool)
        parameter.copy_(torch.where(still, value, parameter))
        for name, moment in moments.items():
            now = optimizer.state[parameter][name]
            now.copy_(torch.where(still, moment, now))


def grow_adam(optimizer: torch.optim.Optimizer, old: nn.Parameter, new: nn.Parameter) -> None:
    """Swap a grid for its finer self in an Adam optimizer, moments resampled like the grid.

    Trilinear weights are never negative, so second moments stay valid.
    """
    for group in optimizer.param_groups:
        group["params"] = [new if p is old else p for p in group["params"]]
    state = optimizer.state.pop(old, {})
    if state:
        optimizer.state[new] = {
            name: resampled(value, new.shape[-1]) if value.shape == old.shape else value
            for name, value in state.items()
        }


def grown(
    field: Field, optimizer: torch.optim.Adam, sizes: tuple[int, int], settings: AdamSettings
) -> Field:
    """The field at these sizes of density and color, optimizer and all; itself if it has them."""
    if field.sizes == sizes:
        return field
    finer = field.grown(*sizes)
    if isinstance(field, VoxelField) and isinstance(finer, VoxelField):
        grow_adam(optimizer, field.density, finer.density)
        grow_adam(optimizer, field.color, finer.color)
    if settings.reset_on_growth:
        optimizer.state.clear()
    return finer
