"""The field: sampling, smoothing and mirroring by hand; growth keeps content and Adam's state."""

import pytest
import torch

from field import (
    FieldSettings,
    Proportion,
    VoxelField,
    blob_field,
    blob_logits,
    grow_adam,
    mirrored,
    outward_normals,
    resampled,
    sample,
    smoothed,
)
from schedule import Ramp


def linear_grid(size: int) -> torch.Tensor:
    """A grid that holds x + 10 y + 100 z."""
    axis = torch.linspace(-1, 1, size)
    z, y, x = torch.meshgrid(axis, axis, axis, indexing="ij")
    return (x + 10 * y + 100 * z).view(1, 1, size, size, size)


def test_ramp() -> None:
    ramp = Ramp(1.0, 3.0, 0.2, 0.6)
    assert [ramp(p) for p in (0.0, 0.2, 0.4, 0.6, 1.0)] == pytest.approx([1, 1, 2, 3, 3])
    step = Ramp(0.0, 1.0, 0.5, 0.5)
    assert [step(p) for p in (0.4, 0.6)] == [0, 1]


@pytest.mark.parametrize("count", [1, 4, 7])
def test_sampling_is_trilinear_in_x_y_z(count) -> None:
    points = torch.rand(count, 3, generator=torch.Generator().manual_seed(0)) * 2 - 1
    expected = points @ torch.tensor([1.0, 10.0, 100.0])
    assert torch.allclose(sample(linear_grid(5), points)[0], expected, atol=1e-3)


def test_sampling_nothing_gives_nothing() -> None:
    assert sample(linear_grid(5), torch.zeros(0, 3)).shape == (1, 0)


def test_resampling_keeps_a_linear_grid() -> None:
    assert torch.allclose(resampled(linear_grid(5), 8), linear_grid(8), atol=1e-3)


def test_smoothing_by_hand() -> None:
    grid = torch.zeros(1, 1, 5, 5, 5)
    grid[0, 0, 2, 2, 2] = 64.0
    once = smoothed(grid, 1)[0, 0]
    assert once[2, 2, 2] == 8 and once[1, 2, 2] == 4 and once[1, 1, 2] == 2 and once[1, 1, 1] == 1
    assert once.sum() == 64
    assert torch.equal(smoothed(grid, 0), grid)
    assert torch.allclose(smoothed(torch.ones(1, 1, 4, 4, 4), 3), torch.ones(()))


def test_mirroring_averages_left_and_right() -> None:
    grid = linear_grid(5)
    for name, seen in {"none": [1, 10, 100], "x": [0, 10, 100], "xz": [0, 10, 0]}.items():
        value = sample(mirrored(grid, name), torch.tensor([[0.5, 0.5, 0.5]]))[0]
        assert value.item() == pytest.approx(sum(seen) / 2, abs=1e-4)


def test_normals_point_out_of_a_ball() -> None:
    normals = outward_normals(blob_logits(Proportion(0.5, 0.5, 0.5), 33))
    points = torch.nn.functional.normalize(torch.randn(50, 3), dim=1) * 0.5
    found = torch.nn.functional.normalize(sample(normals, points).T, dim=1)
    assert ((found * points / 0.5).sum(dim=1) > 0.99).all()


def test_normals_are_slopes_per_unit_length() -> None:
    normals = outward_normals(linear_grid(9))[0, :, 4, 4, 4]
    assert torch.allclose(normals, torch.tensor([-1.0, -10.0, -100.0]), atol=1e-3)


def test_a_blob_has_its_proportions_and_color() -> None:
    settings = FieldSettings(density_sizes=(33,), color_sizes=(3,), smoothing=0, max_density=20.0)
    blob = blob_field(Proportion(0.3, 0.7, 0.3), torch.tensor([0.9, 0.5, 0.1]), settings)
    points = torch.tensor([[0.3, 0.0, 0.0], [0.0, 0.7, 0.0], [0.0, 0.0, 0.3], [0.0, 0.0, 0.0]])
    density, color, _ = blob.volume()(points)
    assert torch.allclose(density[:3], torch.tensor(10.0), atol=0.7)  # half of the largest
    assert density[3] > 15
    assert torch.allclose(color, torch.tensor([[0.9], [0.5], [0.1]]).expand(3, 4), atol=1e-5)


def test_a_taper_narrows_the_top() -> None:
    logits = blob_logits(Proportion(0.5, 0.6, 0.5, taper=0.7), 33)
    above, below = sample(logits, torch.tensor([[0.3, 0.4, 0.0], [0.3, -0.4, 0.0]]))[0]
    assert above < 0 < below


def test_growth_keeps_the_field() -> None:
    settings = FieldSettings(smoothing=0, mirror="none")
    field = VoxelField(linear_grid(5), torch.randn(1, 3, 3, 3, 3), settings)
    finer = field.grown(9, 5)
    points = torch.rand(20, 3) * 2 - 1
    assert torch.allclose(finer.volume()(points)[0], field.volume()(points)[0], atol=1e-3)
    assert torch.allclose(finer.volume()(points)[1], field.volume()(points)[1], atol=0.1)
    assert finer.density.shape[-1] == 9 and finer.color.shape[-1] == 5


def test_adam_goes_on_after_growth() -> None:
    """Moments become those of the finer grid, the count of steps stays, the rate is kept."""
    old = torch.nn.Parameter(torch.zeros(1, 1, 4, 4, 4))
    optimizer = torch.optim.Adam([{"params": [old], "lr": 0.5}], fused=True)
    old.grad = linear_grid(4)
    optimizer.step()
    before = {name: value.clone() for name, value in optimizer.state[old].items()}
    new = torch.nn.Parameter(resampled(old.detach(), 7))
    grow_adam(optimizer, old, new, 7)
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


def test_clamp_keeps_logits_in_reach() -> None:
    field = VoxelField(100 * linear_grid(4), torch.full((1, 3, 2, 2, 2), -50.0), FieldSettings())
    field.clamp()
    assert field.density.abs().max() == 6 and field.color.min() == -6
