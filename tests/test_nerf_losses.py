"""Regularisers by hand, and the way that their gradients point."""

import math

import pytest
import torch

from blobs import Proportion
from field import FieldSettings, blob_field
from losses import (
    LossSettings,
    ball_loss,
    center_loss,
    entropy_loss,
    floor_loss,
    parts_floor,
    penalties,
    total_variation,
    transmittance_loss,
)
from schedule import Ramp, constant


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


def test_transmittance_is_that_of_dream_fields_up_to_a_constant() -> None:
    """-min(mean T, tau) with T = 1 - opacity and tau = 1 - target: same gradient, constant off."""
    for mean in (0.2, 0.8):
        opacity = torch.full((1, 1, 4, 4), mean, requires_grad=True)
        ours = transmittance_loss(opacity, 0.4)
        theirs = -(1 - opacity).mean().clamp(max=0.6)
        gradients = [torch.autograd.grad(loss, opacity)[0] for loss in (ours, theirs)]
        assert torch.allclose(*gradients)
        assert (ours - theirs).item() == pytest.approx(0.6)


def test_penalties_are_weighted_named_and_kept_to_their_windows() -> None:
    settings = LossSettings(
        transmittance=0.5, opacity_target=Ramp(0.5, 0.1, 0.0, 0.5), floor=0.0, center=0.0,
        density_variation=constant(0.1, since=0.4, until=0.6), color_variation=constant(0.0),
        entropy=constant(0.01), ball=constant(0.05, until=0.5),
    )  # fmt: skip
    field = FieldSettings(density_sizes=(9,), color_sizes=(2,))
    volume = blob_field(Proportion(), torch.full((3,), 0.5), field).volume(2.0)
    opacity = torch.full((2, 1, 4, 4), 0.6)
    early, middle, late = (penalties(volume, opacity, settings, p) for p in (0.0, 0.5, 0.7))
    assert early["transmittance"].item() == pytest.approx(0.5 * 0.1)
    assert late["transmittance"].item() == pytest.approx(0.5 * 0.5)
    entropy = -(0.6 * math.log2(0.6) + 0.4 * math.log2(0.4))
    assert early["entropy"].item() == pytest.approx(0.01 * entropy, rel=1e-4)
    assert middle["density variation"] == 0.1 * total_variation(volume.logits)
    assert list(early) == ["transmittance", "entropy", "ball"]
    assert list(middle) == ["transmittance", "density variation", "entropy", "ball"]
    assert list(late) == ["transmittance", "entropy"]


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


def test_a_part_must_not_vanish_from_all_views() -> None:
    """1/8 of the ball has a floor of 0.04 / 4; seen 0 and 0.008, 0.006 of it are missing."""
    settings = LossSettings(opacity_floor=0.04)
    own = torch.tensor([0.0, 0.008]).view(2, 1, 1, 1).expand(2, 1, 4, 4).clone().requires_grad_()
    loss = parts_floor([(own, 1 / 8), (torch.ones(2, 1, 4, 4), 0.5)], settings)
    assert loss.item() == pytest.approx(0.006, rel=1e-3)
    loss.backward()
    assert (own.grad < 0).all()  # more of it everywhere
    assert parts_floor([(torch.full((2, 1, 4, 4), 0.011), 1 / 8)], settings).item() == 0
