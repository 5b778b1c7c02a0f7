"""The field: sampling, smoothing and mirroring by hand; blobs, activations, growth."""

import math
from dataclasses import replace

import pytest
import torch

from blobs import Proportion, blob_logits
from field import FieldSettings, Volume, VoxelField, blob_field, haze_field
from grids import distances, mirrored, outward_normals, resampled, sample, smoothed, vertices
from losses import total_variation
from schedule import Ramp, constant, stage


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


def test_windows() -> None:
    window = Ramp(1.0, 3.0, 0.2, 0.6, since=0.3, until=0.5)
    assert [window(p) for p in (0.2, 0.3, 0.4, 0.5, 0.51)] == pytest.approx([0, 1.5, 2, 2.5, 0])
    assert [constant(0.7, until=0.5)(p) for p in (0.0, 0.5, 0.6)] == [0.7, 0.7, 0.0]
    assert [constant(0.7)(p) for p in (0.0, 1.0)] == [0.7, 0.7]


def test_stages() -> None:
    assert [stage((0.35, 0.65), p) for p in (0.0, 0.34, 0.35, 0.7)] == [0, 0, 1, 2]
    assert stage((), 1.0) == 0


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
    few = torch.randn(1, 2, 2, 3, 4, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda given: smoothed(given, 2), few)
    assert torch.allclose(smoothed(torch.ones(1, 1, 4, 4, 4), 3), torch.ones(()))


def test_mirroring_averages_left_and_right() -> None:
    grid = linear_grid(5)
    kept = {"none": [1, 10, 100], "x": [0, 10, 100], "z": [1, 10, 0], "xz": [0, 10, 0]}
    for name, seen in kept.items():
        value = sample(mirrored(grid, name), torch.tensor([[0.5, 0.5, 0.5]]))[0]
        assert value.item() == pytest.approx(sum(seen) / 2, abs=1e-4)


def test_normals_point_out_of_a_ball() -> None:
    normals = outward_normals(blob_logits(Proportion(0.5, 0.5, 0.5), 33))
    points = torch.nn.functional.normalize(torch.randn(50, 3), dim=1) * 0.5
    found = torch.nn.functional.normalize(sample(normals, points).T, dim=1)
    assert ((found * points / 0.5).sum(dim=1) > 0.99).all()


def test_gradients_of_what_has_its_own() -> None:
    generator = torch.Generator().manual_seed(0)
    for sides in ((4, 4, 4), (2, 2, 2), (2, 3, 4)):
        grid = torch.randn(1, 1, *sides, generator=generator).double().requires_grad_()
        for operation in (outward_normals, lambda g: smoothed(g, 2), total_variation):
            assert torch.autograd.gradcheck(operation, grid)


def test_both_mirrors_look_the_same_from_behind_and_one_does_not() -> None:
    for mirror, same in (("xz", True), ("x", False), ("z", False), ("none", False)):
        settings = FieldSettings(density_sizes=(9,), color_sizes=(3,), mirror=mirror)
        generator = torch.Generator().manual_seed(0)
        density = torch.randn(1, 1, 9, 9, 9, generator=generator)
        color = torch.randn(1, 3, 3, 3, 3, generator=generator)
        volume = VoxelField(density, color, settings).volume(3.0)
        assert volume.is_same_from_behind() == same
        for part in ("logits", "color_logits", "normals"):
            changed = getattr(volume, part).clone()
            changed[0, 0, 0, 0, 0] += 0.1
            assert not replace(volume, **{part: changed}).is_same_from_behind()


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


def test_a_hole_makes_a_ring() -> None:
    """Width 0.8, a quarter of it empty: the tube runs at radius 0.5, 0.3 to either side."""
    ring = blob_logits(Proportion(0.8, 0.2, 0.8, hole=0.25), 65)
    places = {(0.5, 0, 0): 1, (0, 0, -0.5): 1, (0.79, 0, 0): 1, (0.21, 0, 0): 1, (0, 0.19, 0.5): 1,
              (0.81, 0, 0): -1, (0.19, 0, 0): -1, (0, 0, 0): -1, (0.5, 0.21, 0): -1}  # fmt: skip
    values = sample(ring, torch.tensor(list(places)).float())[0]
    assert values.sign().tolist() == list(places.values())
    assert torch.allclose(ring, ring.transpose(2, 4), atol=1e-5)  # round, seen from above
    middle = sample(ring, torch.tensor([[0.5, 0.0, 0.0]])).item()
    assert middle == pytest.approx(12 * 0.2, rel=0.05)  # slope times the smallest radius


def test_softplus_is_the_opacity_of_dvgo() -> None:
    """1 - (1 + exp(logit + shift))^-interval, where max_density * step is the interval."""
    logits = torch.tensor([-3.0, 0.0, 2.0, 15.0, 30.0])
    volume = Volume(
        logits.view(1, 1, 1, 1, 5) - 13.8, torch.zeros(1, 3, 1, 1, 5), torch.zeros(1, 3, 1, 1, 1),
        80.0, "softplus",
    )  # fmt: skip
    step, interval = 0.5 / 80, 0.5
    opacity = 1 - (-volume.density().flatten().double() * step).exp()
    expected = 1 - (1 + (logits.double() - 13.8).exp()) ** -interval
    assert torch.allclose(opacity, expected, rtol=1e-4, atol=1e-12)


def test_haze_begins_at_an_opacity_of_a_millionth() -> None:
    settings = FieldSettings(
        density_sizes=(8,), color_sizes=(4,), begin="haze", activation="softplus",
        max_density=80.0, shift=-13.8,
    )  # fmt: skip
    density, color, _ = haze_field(settings).volume()(torch.rand(9, 3) - 0.5)
    assert torch.allclose(density / 80, torch.tensor(1e-6), rtol=0.02)  # a voxel of 1/80
    assert torch.allclose(color, torch.tensor(0.5))


@pytest.mark.parametrize("activation", ["sigmoid", "softplus"])
def test_logits_of_densities(activation) -> None:
    grid = torch.zeros(1, 1, 2, 2, 2)
    volume = Volume(grid, grid.expand(1, 3, 2, 2, 2), grid.expand(1, 3, 2, 2, 2), 30.0, activation)
    for density in (0.001, 1.0, 29.0):
        logit = volume.logit_of(density)
        assert volume.density_of(torch.tensor(logit)).item() == pytest.approx(density, rel=1e-4)
    half = {"sigmoid": 0.0, "softplus": math.log(math.exp(0.5) - 1)}[activation]
    assert volume.logit_of(15.0) == pytest.approx(half, abs=1e-9)


def test_a_shift_moves_a_blob_only_in_its_parameters() -> None:
    settings = FieldSettings(density_sizes=(17,), color_sizes=(2,), smoothing=0, limit=40.0)
    shifted = FieldSettings(**{**vars(settings), "shift": -13.8})
    color = torch.full((3,), 0.5)
    plain, moved = (blob_field(Proportion(), color, s).volume(2.0) for s in (settings, shifted))
    assert torch.allclose(plain.logits, moved.logits, atol=1e-4)


def test_growth_keeps_the_field() -> None:
    settings = FieldSettings(smoothing=0, mirror="none")
    field = VoxelField(linear_grid(5), torch.randn(1, 3, 3, 3, 3), settings)
    finer = field.grown(9, 5)
    points = torch.rand(20, 3) * 2 - 1
    assert torch.allclose(finer.volume()(points)[0], field.volume()(points)[0], atol=1e-3)
    assert torch.allclose(finer.volume()(points)[1], field.volume()(points)[1], atol=0.1)
    assert finer.sizes == (9, 5)


def test_growth_takes_the_drop_from_density_only() -> None:
    settings = FieldSettings(growth_drop=1.0)
    finer = VoxelField(linear_grid(5), torch.ones(1, 3, 3, 3, 3), settings).grown(9, 5)
    assert torch.allclose(finer.density, linear_grid(9) - 1, atol=1e-3)
    assert (finer.color == 1).all()


def test_clamp_keeps_logits_in_reach() -> None:
    field = VoxelField(100 * linear_grid(4), torch.full((1, 3, 2, 2, 2), -50.0), FieldSettings())
    field.clamp()
    assert field.density.abs().max() == 6 and field.color.min() == -6


def test_distances_are_those_of_the_grids_places() -> None:
    assert torch.allclose(distances(5), vertices(5).norm(dim=-1))
