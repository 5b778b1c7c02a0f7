"""Regularisers by hand, and the way that their gradients point."""

import pytest
import torch

from losses import (
    ball_loss,
    center_loss,
    entropy_loss,
    floor_loss,
    total_variation,
    transmittance_loss,
)


def blocks(*filled: tuple[int, int, int], size: int = 5) -> torch.Tensor:
    density = torch.zeros(size, size, size)
    for place in filled:
        density[place] = 1.0
    return density


def test_transmittance_counts_the_excess_only() -> None:
    opacity = torch.tensor([0.2, 0.6]).view(2, 1, 1, 1).expand(2, 1, 4, 4)
    assert transmittance_loss(opacity, 0.4).item() == pytest.approx(0.1)
    assert transmittance_loss(opacity, 0.7).item() == 0
    assert floor_loss(opacity, 0.3).item() == pytest.approx(0.05)
    assert floor_loss(opacity, 0.1).item() == 0


def test_total_variation_by_hand() -> None:
    grid = torch.zeros(1, 1, 2, 2, 2)
    grid[..., 1] = 3.0  # one axis of three differs, by 3
    assert total_variation(grid).item() == pytest.approx(3.0)
    assert total_variation(grid, 1.0).item() == pytest.approx(1.0, abs=1e-2)
    assert total_variation(torch.full((1, 3, 4, 4, 4), 7.0)).item() == 0


def test_entropy_is_one_bit_at_a_half() -> None:
    assert entropy_loss(torch.full((1, 1, 2, 2), 0.5)).item() == pytest.approx(1.0)
    assert entropy_loss(torch.tensor([0.0, 1.0]).view(1, 1, 1, 2)).item() < 2e-3
    opacity = torch.tensor([0.4, 0.6]).view(1, 1, 1, 2).requires_grad_()
    entropy_loss(opacity).backward()
    assert opacity.grad[..., 0] > 0 > opacity.grad[..., 1]  # descent parts them


def test_ball_loss_sees_what_is_beyond() -> None:
    inside, corner = blocks((2, 2, 2)), blocks((0, 0, 0))
    assert ball_loss(inside, 0.8).item() == 0
    assert ball_loss(corner, 0.8).item() == pytest.approx(3**0.5 - 0.8, rel=1e-3)
    assert ball_loss(inside + corner, 0.8).item() == pytest.approx((3**0.5 - 0.8) / 2, rel=1e-3)


def test_center_loss_is_the_squared_offset() -> None:
    assert center_loss(blocks((2, 2, 2))).item() == pytest.approx(0, abs=1e-9)
    assert center_loss(blocks((1, 2, 4))).item() == pytest.approx(0.5**2 + 1, rel=1e-3)
    density = blocks((2, 2, 3), (2, 2, 2)).requires_grad_()
    center_loss(density).backward()
    assert density.grad[2, 2, 4] > 0 > density.grad[2, 2, 0]
