"""Regularisers of the field: functions of tensors that return one number, least when satisfied."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from field import Volume
from grids import distances
from schedule import Ramp, constant


@dataclass(frozen=True)
class LossSettings:
    """Weights, beside a guidance loss of weight 1, and schedules over the run's progress 0..1."""

    transmittance: float = 2.0
    opacity_target: Ramp = Ramp(0.45, 0.3, 0.0, 0.4)
    """Largest mean opacity of a view that costs nothing."""
    floor: float = 5.0
    opacity_floor: float = 0.04
    """Smallest mean opacity of a view that costs nothing; of a part, by the size of its shape."""
    density_variation: Ramp = Ramp(0.02, 0.05)
    color_variation: Ramp = Ramp(1.0, 3.0)
    entropy: Ramp = Ramp(0.0, 0.3, 0.4, 1.0)
    ball: Ramp = constant(1.0)
    ball_radius: float = 0.85
    center: float = 0.5


def penalties(
    volume: Volume,
    opacity: Float[Tensor, "views 1 height width"],
    settings: LossSettings,
    progress: float,
    parts: Sequence[tuple[Float[Tensor, "views 1 height width"], float]] = (),
) -> dict[str, Float[Tensor, ""]]:
    """The weighted regularisers of this moment of the run by name, without those of weight 0.

    `parts` are each part's own opacity, and the share of the ball that its shape takes up.
    """
    relative = volume.logits[0, 0].sigmoid()
    terms = {
        "transmittance": (
            settings.transmittance,
            lambda: transmittance_loss(opacity, settings.opacity_target(progress)),
        ),
        "floor": (settings.floor, lambda: floor_loss(opacity, settings.opacity_floor)),
        "parts' floor": (settings.floor if parts else 0.0, lambda: parts_floor(parts, settings)),
        "density variation": (
            settings.density_variation(progress),
            lambda: total_variation(volume.logits),
        ),
        "color variation": (
            settings.color_variation(progress),
            lambda: total_variation(volume.color_logits.sigmoid(), 1.0),
        ),
        "entropy": (settings.entropy(progress), lambda: entropy_loss(opacity)),
        "ball": (settings.ball(progress), lambda: ball_loss(relative, settings.ball_radius)),
        "center": (settings.center, lambda: center_loss(relative)),
    }
    return {name: weight * loss() for name, (weight, loss) in terms.items() if weight}


def transmittance_loss(
    opacity: Float[Tensor, "views 1 height width"], target: float
) -> Float[Tensor, ""]:
    """How far the views' mean opacity exceeds the target.

    Up to a constant the -min(mean transmittance, 1 - target) of Dream Fields (arXiv 2112.01455,
    equation 6), for each view by itself.
    """
    return (opacity.mean(dim=(1, 2, 3)) - target).relu().mean()


def floor_loss(opacity: Float[Tensor, "views 1 height width"], floor: float) -> Float[Tensor, ""]:
    """How far the views' mean opacity falls below the floor: an object must not vanish."""
    return (floor - opacity.mean(dim=(1, 2, 3))).relu().mean()


def parts_floor(
    parts: Sequence[tuple[Float[Tensor, "views 1 height width"], float]], settings: LossSettings
) -> Float[Tensor, ""]:
    """How far the parts' opacities fall below their floors: a part must not vanish either.

    Over all views together, since others may hide a part. The floor of the whole is scaled as areas
    are: a shape of 1/8 of the ball has 1/4 of it.
    """
    losses = [
        floor_loss(own.mean(dim=0, keepdim=True), settings.opacity_floor * share ** (2 / 3))
        for own, share in parts
    ]
    return torch.stack(losses).sum()


def total_variation(
    grid: Float[Tensor, "1 channels depth height width"], power: float = 2.0
) -> Float[Tensor, ""]:
    """Mean of |difference of neighbors|^power over the three axes; 2 smooths, 1 keeps edges."""
    if power == 2.0:
        found: Tensor = _Roughness.apply(grid)
        return found
    differences = [grid.diff(dim=axis) for axis in (2, 3, 4)]
    return torch.stack([(d.square() + 1e-6).pow(power / 2).mean() for d in differences]).mean()


class _Roughness(torch.autograd.Function):
    """Mean square of the differences; its gradient needs no grid for each of them."""

    @staticmethod
    def forward(ctx: Any, grid: Tensor) -> Tensor:
        ctx.save_for_backward(grid)
        return torch.stack([grid.diff(dim=axis).square_().mean() for axis in (2, 3, 4)]).mean()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:  # type: ignore[override]
        (grid,) = ctx.saved_tensors
        found = torch.zeros_like(grid)
        for axis in (2, 3, 4):
            rise = grid.diff(dim=axis)
            rise *= gradient * (2 / 3 / rise.numel())
            length = rise.shape[axis]
            found.narrow(axis, 1, length).add_(rise)
            found.narrow(axis, 0, length).sub_(rise)
        return found


def entropy_loss(opacity: Float[Tensor, "views 1 height width"]) -> Float[Tensor, ""]:
    """Mean binary entropy of the opacity in bits: 0 where clear or solid, 1 at one half."""
    p = opacity.clamp(1e-4, 1 - 1e-4)
    return -(p * p.log2() + (1 - p) * (1 - p).log2()).mean()


def ball_loss(density: Float[Tensor, "depth height width"], radius: float) -> Float[Tensor, ""]:
    """Share of the cube's density beyond the ball, weighted by how far beyond.

    `density` is relative, in [0, 1].
    """
    beyond = (distances(len(density), density.device) - radius).relu()
    return (density * beyond).sum() / (density.sum() + 1e-6)


def center_loss(density: Float[Tensor, "depth height width"]) -> Float[Tensor, ""]:
    """Squared distance of the density's center of mass from the origin."""
    mass = density.sum() + 1e-6
    axis = torch.linspace(-1, 1, len(density), device=density.device)
    sums = [density.sum(dim=(0, 1)), density.sum(dim=(0, 2)), density.sum(dim=(1, 2))]
    return torch.stack([((axis * s).sum() / mass).square() for s in sums]).sum()
