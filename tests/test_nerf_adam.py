"""Steps by hand: even gradients, masks, rates, and what is left of the state after growth."""

import dataclasses

import pytest
import torch

from adam import AdamSettings, grow_adam, grown, make_adam, scale_to_unit, set_rates, take_step
from blobs import Proportion
from field import FieldSettings, VoxelField, blob_field
from grids import resampled
from implicit import ImplicitField
from schedule import Ramp

PLAIN = AdamSettings(density_rate=0.1, color_rate=0.1, last_rate=1.0, eps=1e-8, scaled=False)


def linear_grid(size: int) -> torch.Tensor:
    """A grid that holds x + 10 y + 100 z."""
    axis = torch.linspace(-1, 1, size)
    z, y, x = torch.meshgrid(axis, axis, axis, indexing="ij")
    return (x + 10 * y + 100 * z).view(1, 1, size, size, size)


def field_of(**settings) -> VoxelField:
    small = FieldSettings(density_sizes=(4,), color_sizes=(2,), grow_at=(), **settings)
    return blob_field(Proportion(), torch.full((3,), 0.5), small)


def test_gradients_are_scaled_to_an_even_size() -> None:
    parameter = torch.nn.Parameter(torch.zeros(4))
    parameter.grad = torch.tensor([0.0, 3.0, 4.0, 0.0])
    scale_to_unit(parameter)
    expected = torch.tensor([0.0, 3.0, 4.0, 0.0]) / (25 / 2) ** 0.5
    assert torch.allclose(parameter.grad, expected)
    parameter.grad = torch.zeros(4)
    scale_to_unit(parameter)
    assert (parameter.grad == 0).all()


def test_rates_fall_along_a_cosine() -> None:
    settings = AdamSettings(density_rate=1.0, color_rate=0.5, last_rate=0.2)
    optimizer = make_adam(field_of(), settings)
    for progress, expected in ((0.0, 1.0), (0.5, 0.6), (1.0, 0.2)):
        set_rates(optimizer, settings, progress)
        rates = [group["lr"] for group in optimizer.param_groups]
        assert rates == pytest.approx([expected, expected / 2])


def test_without_gradient_adam_coasts_and_masked_adam_stands_still() -> None:
    """After one step with a gradient, Adam's momentum moves on; the mask of DVGO holds it."""
    moved = {}
    for masked in (False, True):
        field = field_of()
        settings = AdamSettings(**{**vars(PLAIN), "masked": masked})
        optimizer = make_adam(field, settings)
        first = torch.zeros_like(field.density)
        first[0, 0, 1, 1, 1] = first[0, 0, 2, 2, 2] = 3.0
        second = torch.zeros_like(first)
        second[0, 0, 2, 2, 2] = 3.0
        field.density.grad = first
        take_step(optimizer, settings, 0.0)
        held = field.density.detach().clone()
        state = {n: v.clone() for n, v in optimizer.state[field.density].items()}
        field.density.grad = second
        take_step(optimizer, settings, 0.0)
        change = (field.density.detach() - held)[0, 0]
        moved[masked] = change[1, 1, 1].item()
        assert change[2, 2, 2].item() == pytest.approx(-0.1, rel=1e-3)
        same = optimizer.state[field.density]["exp_avg_sq"] == state["exp_avg_sq"]
        assert same[0, 0, 1, 1, 1].item() is masked
    assert moved[False] < -0.05 and moved[True] == 0


def test_the_first_masked_step_is_adams() -> None:
    field = field_of()
    before = field.density.detach().clone()
    optimizer = make_adam(field, PLAIN)
    field.density.grad = linear_grid(4)
    take_step(optimizer, AdamSettings(**{**vars(PLAIN), "masked": True}), 0.0)
    moved = field.density.detach() - before
    assert torch.allclose(moved, -0.1 * linear_grid(4).sign(), atol=1e-4)


def test_the_spread_moves_the_surroundings_along() -> None:
    """One pass of the filter shares a gradient out 8 : 4 : 2 : 1; plain descent follows it."""
    settings = AdamSettings(**{**vars(PLAIN), "eps": 1e9, "spread": Ramp(1.0, 0.0)})
    moved = {}
    for progress in (0.0, 1.0):
        field = field_of()
        field.density.data.zero_()
        optimizer = make_adam(field, settings)
        field.density.grad = torch.zeros_like(field.density)
        field.density.grad[0, 0, 1, 1, 1] = 64.0
        take_step(optimizer, settings, progress)
        moved[progress] = -field.density.detach()[0, 0] * 1e9 / 0.1
    wide, point = moved[0.0], moved[1.0]
    near = torch.stack([wide[1, 1, 1], wide[1, 1, 2], wide[1, 2, 2], wide[2, 2, 2]])
    assert near.tolist() == pytest.approx([8, 4, 2, 1], rel=1e-3)
    assert point[1, 1, 1].item() == pytest.approx(64, rel=1e-3) and point.count_nonzero() == 1


def test_adam_goes_on_after_growth() -> None:
    """Moments become those of the finer grid, the count of steps stays, the rate is kept."""
    old = torch.nn.Parameter(torch.zeros(1, 1, 4, 4, 4))
    optimizer = torch.optim.Adam([{"params": [old], "lr": 0.5}], fused=True)
    old.grad = linear_grid(4)
    optimizer.step()
    before = {name: value.clone() for name, value in optimizer.state[old].items()}
    new = torch.nn.Parameter(resampled(old.detach(), 7))
    grow_adam(optimizer, old, new)
    state = optimizer.state[new]
    assert old not in optimizer.state
    assert torch.allclose(state["exp_avg"], 0.1 * linear_grid(7), atol=1e-4)
    assert torch.allclose(state["exp_avg_sq"], resampled(before["exp_avg_sq"], 7))
    assert state["exp_avg_sq"].min() >= 0 and state["step"] == 1
    assert optimizer.param_groups[0]["params"][0] is new
    assert optimizer.param_groups[0]["lr"] == 0.5
    previous = new.detach().clone()
    new.grad = linear_grid(7)
    optimizer.step()
    moved = new.detach() - previous
    assert optimizer.state[new]["step"] == 2
    assert (moved * linear_grid(7) <= 0).all() and moved.abs().max() > 0.3


def test_growth_keeps_or_forgets_the_moments_as_set() -> None:
    for forget in (False, True):
        settings = AdamSettings(reset_on_growth=forget)
        field = field_of()
        optimizer = make_adam(field, settings)
        field.density.grad = linear_grid(4)
        take_step(optimizer, settings, 0.0)
        assert grown(field, optimizer, (4, 2), settings) is field
        finer = grown(field, optimizer, (6, 3), settings)
        assert finer.sizes == (6, 3)
        assert [g["params"][0] for g in optimizer.param_groups] == [finer.density, finer.color]
        assert (finer.density in optimizer.state) is not forget


def test_networks_keep_their_optimizer_through_growth() -> None:
    settings = FieldSettings(kind="implicit", density_sizes=(5,), color_sizes=(3,), width=8)
    field = ImplicitField(
        settings, Proportion(), torch.full((3,), 0.5), torch.Generator().manual_seed(0)
    )
    optimizer = make_adam(field, AdamSettings())
    assert [len(group["params"]) for group in optimizer.param_groups] == [6, 6]
    field.volume().logits.sum().backward()
    take_step(optimizer, AdamSettings(), 0.0)
    finer = grown(field, optimizer, (7, 4), AdamSettings())
    assert finer.sizes == (7, 4)
    assert set(optimizer.state) == set(finer.density.parameters())


@pytest.mark.parametrize("masked", [False, True])
def test_a_step_into_nothing_is_taken_back(masked) -> None:
    """A rate that is no number: parameters and moments are as after the step before."""
    settings = AdamSettings(**{**vars(PLAIN), "masked": masked})
    field = field_of()
    optimizer = make_adam(field, settings)
    for rate in (0.1, float("nan")):
        set_rates(optimizer, dataclasses.replace(settings, density_rate=rate), 0.0)
        field.density.grad = linear_grid(4)
        kept = field.density.detach().clone()
        state = {n: v.clone() for n, v in optimizer.state[field.density].items()}
        if rate == 0.1:
            take_step(optimizer, settings, 0.0)
            assert not torch.equal(field.density, kept)
    with pytest.raises(FloatingPointError, match=r"taken back. Lower adam.density_rate and adam"):
        take_step(optimizer, settings, 0.0)
    assert torch.equal(field.density, kept)
    for name in ("exp_avg", "exp_avg_sq", "step"):
        assert torch.equal(optimizer.state[field.density][name], state[name])
