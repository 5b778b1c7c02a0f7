"""The renderer against numbers worked out by hand and against a dense reference."""

import math

import pytest
import torch

import render as renderer
from blobs import Proportion
from cameras import CameraSettings, random_views, rays, turntable
from field import FieldSettings, VoxelField, blob_field, haze_field
from render import (
    Occupancy,
    RenderSettings,
    Samples,
    composite_samples,
    march,
    occupancy,
    random_light,
    render,
    render_parts,
    shaded,
    studio_light,
)


def noisy_field(size: int = 12, seed: int = 0) -> VoxelField:
    generator = torch.Generator().manual_seed(seed)
    density = 4 * torch.randn(1, 1, size, size, size, generator=generator) - 2
    color = torch.randn(1, 3, 4, 4, 4, generator=generator)
    return VoxelField(density, color, FieldSettings(smoothing=1, mirror="none"))


def everywhere(field: VoxelField) -> Occupancy:
    density = field.volume().density().detach()
    return Occupancy(density, torch.ones_like(density, dtype=torch.bool))


def test_two_samples_by_hand() -> None:
    """Thickness ln 2 each: the first takes a half, the second a half of the rest."""
    density = torch.full((2,), math.log(2) / 0.5)
    values = torch.tensor([[1.0, 0.0], [0.0, 1.0], [3.0, 5.0]])
    sums, opacity = composite_samples(density, values, torch.tensor([1, 1]), 3, 0.5)
    assert torch.allclose(opacity, torch.tensor([0.0, 0.75, 0.0]))
    assert torch.allclose(sums[:, 1], torch.tensor([0.5, 0.25, 1.5 + 1.25]))
    assert (sums[:, [0, 2]] == 0).all()


def test_rays_do_not_shade_each_other() -> None:
    density = torch.tensor([1e4, 2.0, 1e4, 3.0])
    ray = torch.tensor([0, 1, 1, 3])
    _, opacity = composite_samples(density, torch.zeros(1, 4), ray, 4, 0.1)
    expected = torch.tensor([1.0, 1.0, 0.0, 1 - math.exp(-0.3)])
    assert torch.allclose(opacity, expected, atol=1e-6)


def test_composite_gradients() -> None:
    density = torch.tensor([0.5, 2.0, 1.0, 3.0], dtype=torch.float64, requires_grad=True)
    values = torch.rand(2, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    ray = torch.tensor([0, 0, 0, 2])
    assert torch.autograd.gradcheck(
        lambda d, v: composite_samples(d, v, ray, 3, 0.5), (density, values.requires_grad_())
    )


def test_occupied_only_is_dense() -> None:
    """Skipping what is empty or hidden changes nothing that can be seen."""
    field = noisy_field()
    volume = field.volume(2.0)
    cameras = turntable(3, elevation=25.0)
    full = Occupancy(volume.density().detach(), everywhere(field).occupied)
    space = occupancy(volume.density(), 0.05, threshold=1e-4, margin=0.2)
    assert space.occupied.float().mean() < 0.8
    dense = render(volume, cameras, 16, full, 0.05, hidden_below=0.0)
    sparse = render(volume, cameras, 16, space, 0.05, hidden_below=1e-4)
    for one, other in zip(dense[:2], sparse[:2], strict=True):
        assert (one - other).abs().max() < 5e-3
    assert dense.opacity.amax() > 0.5 > dense.opacity.amin()


def test_gradients_of_occupied_only_are_those_of_dense() -> None:
    gradients = []
    for sparse in (False, True):
        field = noisy_field()
        volume = field.volume(2.0)
        space = (
            occupancy(volume.density(), 0.05, threshold=1e-5, margin=0.2)
            if sparse
            else Occupancy(volume.density().detach(), everywhere(field).occupied)
        )
        rendering = render(volume, turntable(2), 16, space, 0.05, hidden_below=1e-5)
        weight = torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))
        (rendering.color * weight).sum().backward()
        gradients.append((field.density.grad, field.color.grad))
    for dense, sparse in zip(*gradients, strict=True):
        assert (dense - sparse).norm() < 0.02 * dense.norm()


def test_samples_stay_in_the_ball_and_in_order() -> None:
    space = everywhere(noisy_field())
    origins, directions = rays(turntable(2), 12)
    samples = march(origins, directions, space, 0.1, 0.0, torch.Generator().manual_seed(0))
    assert samples.points.norm(dim=1).max() <= 1 + 1e-5
    assert (samples.ray.diff() >= 0).all()
    same = samples.ray.diff() == 0
    assert torch.allclose(samples.distance.diff()[same], torch.tensor(0.1), atol=1e-5)
    straight = origins[samples.ray] + directions[samples.ray] * samples.distance[:, None]
    assert torch.allclose(straight, samples.points, atol=1e-5)


def test_jitter_moves_samples_and_repeats_with_the_seed() -> None:
    space = everywhere(noisy_field())
    bundle = rays(turntable(1), 8)
    first, again, other = (
        march(*bundle, space, 0.1, 0.0, torch.Generator().manual_seed(s)) for s in (0, 0, 1)
    )
    assert torch.equal(first.distance, again.distance)
    assert len(first.ray) != len(other.ray) or not torch.equal(first.distance, other.distance)


def test_a_solid_ball_looks_like_one() -> None:
    """Silhouette, depth and normals of a ball of radius 0.5, from its geometry."""
    settings = FieldSettings(density_sizes=(64,), color_sizes=(2,), smoothing=0, max_density=100.0)
    ball = blob_field(Proportion(0.5, 0.5, 0.5), torch.tensor([0.8, 0.2, 0.1]), settings)
    volume, cameras = ball.volume(30.0), turntable(2, elevation=0.0, radius=3.2)
    space = occupancy(volume.density(), 0.01)
    picture = render(volume, cameras, 65, space, 0.01)
    half_angle = math.asin(0.5 / 3.2)
    share = math.pi * (math.tan(half_angle) / math.tan(math.radians(20))) ** 2 / 4
    assert picture.opacity.mean().item() == pytest.approx(share, rel=0.05)
    middle = picture.depth[0, 0, 32, 32] / picture.opacity[0, 0, 32, 32]
    assert middle.item() == pytest.approx(2.7, abs=0.03)
    assert torch.allclose(picture.color[0, :, 32, 32], torch.tensor([0.8, 0.2, 0.1]), atol=0.02)
    assert torch.allclose(picture.normal[0, :, 32, 32], torch.tensor([0.0, 0.0, 1.0]), atol=0.05)
    assert torch.allclose(picture.normal[1, :, 32, 32], torch.tensor([0.0, 0.0, -1.0]), atol=0.05)
    column = picture.opacity[0, 0, :, 32] > 0.5
    top = int(column.nonzero()[0])
    assert picture.normal[0, 1, top + 1, 32] / picture.opacity[0, 0, top + 1, 32] > 0.7  # up


def test_opacity_pulls_density_up() -> None:
    field = noisy_field()
    volume = field.volume()
    rendering = render(volume, turntable(2), 12, occupancy(volume.density(), 0.05), 0.05)
    rendering.opacity.sum().backward()
    assert (field.density.grad >= -1e-6).all() and field.density.grad.max() > 0.01
    assert field.color.grad is None or not field.color.grad.any()


def test_empty_space_is_transparent() -> None:
    field = noisy_field()
    field.density.data.fill_(-6.0)
    volume = field.volume(4.0)
    space = occupancy(volume.density(), 0.05)
    assert not space.occupied.any()
    rendering = render(volume, turntable(2), 8, space, 0.05)
    assert rendering.opacity.abs().max() == 0
    rendering.opacity.sum().backward()
    assert not field.density.grad.any()


def test_occupancy_is_dilated_by_a_length() -> None:
    density = torch.zeros(21, 21, 21)
    density[10, 10, 10] = 100.0
    space = occupancy(density, 0.05, margin=0.2)  # two voxels of 0.1
    assert space.occupied.sum() == 5**3


def test_the_box_holds_all_that_is_occupied() -> None:
    occupied = torch.zeros(5, 5, 5, dtype=torch.bool)
    occupied[1, 2, 4] = occupied[2, 2, 3] = True  # (z, y, x), voxels of half a unit
    low, high = Occupancy(torch.ones(5, 5, 5), occupied).box()
    assert low.tolist() == [0.25, -0.25, -0.75] and high.tolist() == [1.25, 0.25, 0.25]
    low, high = Occupancy(torch.ones(5, 5, 5), occupied & False).box()
    assert low.tolist() == [-1.25] * 3 and high.tolist() == [1.25] * 3


@pytest.mark.parametrize("seed", [None, 3])
def test_the_box_and_the_chunks_lose_no_sample(seed: int | None, monkeypatch) -> None:
    """What is occupied lies in a corner; each sample is where it is without any box."""
    density = 30 * torch.rand(9, 9, 9, generator=torch.Generator().manual_seed(0))
    occupied = torch.zeros(9, 9, 9, dtype=torch.bool)
    occupied[2:4, 5:7, 1:4] = density[2:4, 5:7, 1:4] > 10
    spread = occupied.clone()
    spread[[0, -1], [0, -1], [0, -1]] = True  # beyond the ball, so never sampled
    bundle = rays(turntable(3, elevation=30.0), 24)

    def marched(mask: torch.Tensor) -> Samples:
        generator = None if seed is None else torch.Generator().manual_seed(seed)
        return march(*bundle, Occupancy(density, mask), 0.05, 0.5, generator)

    whole = marched(spread)
    monkeypatch.setattr(renderer, "AT_ONCE", 100)
    boxed = marched(occupied)
    assert len(boxed.ray) > 100 and torch.equal(boxed.ray, whole.ray)
    torch.testing.assert_close(boxed.points, whole.points, atol=1e-5, rtol=0)


def test_only_the_box_is_looked_at(monkeypatch) -> None:
    """An eighth of the cube's side in the middle: few rays, and none of them for long."""
    occupied = torch.zeros(16, 16, 16, dtype=torch.bool)
    occupied[7:9, 7:9, 7:9] = True
    looked, worthwhile = [], renderer._worthwhile

    def counted(origins, directions, distance, *others):
        looked.append(distance.shape)
        return worthwhile(origins, directions, distance, *others)

    monkeypatch.setattr(renderer, "_worthwhile", counted)
    samples = march(*rays(turntable(1), 64), Occupancy(torch.ones(16, 16, 16), occupied), 0.05, 0.0)
    [(count, steps)] = looked
    assert 0 < len(samples.ray.unique()) <= count < 64 * 64 / 20 and steps <= 0.27 * 3**0.5 / 0.05


def test_what_no_light_reaches_is_hidden() -> None:
    """Each sample lets a half through: a quarter reaches the third, an eighth no other."""
    density = torch.full((9, 9, 9), math.log(2) / 0.1)
    samples = march(*rays(turntable(1), 16), Occupancy(density, density > 0), 0.1, hidden_below=0.2)
    assert torch.bincount(samples.ray).max() == 3


def test_haze_is_sampled_everywhere_and_can_form() -> None:
    """Far below the threshold, `faint` keeps what is not far from the most opaque voxel."""
    haze = haze_field(FieldSettings(density_sizes=(9,), activation="softplus", shift=-13.8))
    density = haze.volume().density().detach()
    assert not occupancy(density, 0.05, margin=0.0).occupied.any()
    space = occupancy(density, 0.05, margin=0.0, faint=1e-3)
    axis = torch.linspace(-1, 1, 9).square()
    distance = (axis[:, None, None] + axis[:, None] + axis).sqrt()
    assert torch.equal(space.occupied, distance <= 1 + 3**0.5 / 8)
    density[4, 4, 4] *= 1e5
    assert occupancy(density, 0.05, margin=0.0, faint=1e-3).occupied.sum() == 1


def test_a_step_in_voxels_shrinks_with_them() -> None:
    assert RenderSettings(step=0.05).length(41) == 0.05
    assert RenderSettings(step_in_voxels=0.5).length(41) == pytest.approx(0.5 * 2 / 40)


def test_light_that_is_even_leaves_colors_alone() -> None:
    ball = blob_field(Proportion(), torch.full((3,), 0.5), FieldSettings(density_sizes=(24,)))
    volume = ball.volume(4.0)
    picture = render(volume, turntable(1), 9, occupancy(volume.density(), 0.05), 0.05)
    lit = shaded(picture, torch.randn(1, 3), torch.ones(1))
    assert torch.equal(lit, picture.color)


def test_lamp_from_the_front_and_from_behind() -> None:
    settings = FieldSettings(density_sizes=(24,), color_sizes=(2,))
    ball = blob_field(Proportion(), torch.full((3,), 0.5), settings)
    volume = ball.volume(4.0)
    picture = render(volume, turntable(1), 17, occupancy(volume.density(), 0.05), 0.05)
    ambient = torch.tensor([0.4])
    front = shaded(picture, turntable(1).position, ambient)[0, :, 8, 8]
    behind = shaded(picture, -turntable(1).position, ambient)[0, :, 8, 8]
    assert torch.allclose(front, picture.color[0, :, 8, 8], rtol=0.02)
    assert torch.allclose(behind, 0.4 * picture.color[0, :, 8, 8], rtol=1e-4)


def test_lights_follow_their_cameras() -> None:
    cameras = random_views(200, CameraSettings(), torch.Generator().manual_seed(0))
    settings = RenderSettings(ambient=(0.3, 0.6))
    lamp, ambient = random_light(cameras, settings, torch.Generator().manual_seed(0))
    facing = (lamp * cameras.rotation[:, :, 2]).sum(dim=1)
    assert facing.mean().item() == pytest.approx(1.0, abs=0.15)
    assert ambient.min() >= 0.3 and ambient.max() <= 0.6
    lamp, _ = studio_light(cameras)
    assert ((lamp * cameras.rotation[:, :, 1]).sum(dim=1) > 0.5).all()


def two_samples(monkeypatch):
    """A field and a camera of one pixel: two samples of thickness ln 2, the left one in front."""
    values = torch.tensor([[math.log(2) / 0.5] * 2, [0.8, 0.2], [0.2, 0.8], [0, 0], [1, 1], [0, 0],
                           [0, 0]], requires_grad=True)  # fmt: skip
    samples = Samples(
        torch.tensor([[-1.0, 0, 0], [1.0, 0, 0]]), torch.tensor([0, 0]), torch.ones(2)
    )
    monkeypatch.setattr("render.march", lambda *arguments: samples)

    def render_of(*shapes):
        field = lambda points: (values[0], values[1:4], values[4:])  # noqa: E731
        space = Occupancy(torch.ones(2, 2, 2), torch.ones(2, 2, 2, dtype=torch.bool))
        return render_parts(field, shapes, turntable(1), 1, space, 0.5)

    return values, render_of


def test_a_parts_own_opacity_is_what_is_left_behind_others(monkeypatch) -> None:
    """The front sample absorbs a half, the back one half of the rest, which is 0.8 of the part."""
    _, render_of = two_samples(monkeypatch)
    whole, (front, back) = render_of(
        lambda points: torch.tensor([1.0, 0.0]), lambda points: torch.tensor([0.0, 0.8])
    )
    assert front.own.item() == pytest.approx(0.5) and back.own.item() == pytest.approx(0.2)
    for part in (front, back):
        assert all(torch.equal(a, b) for a, b in zip(part.pictures, whole, strict=True))
    assert whole.opacity.item() == pytest.approx(0.75)


def test_gradients_reach_the_inside_of_a_part_only(monkeypatch) -> None:
    values, render_of = two_samples(monkeypatch)
    whole, (back,) = render_of(lambda points: torch.tensor([0.0, 0.5]))
    total = back.pictures.color.sum() + back.own.sum()
    (inside,) = torch.autograd.grad(total, values, retain_graph=True)
    (everywhere,) = torch.autograd.grad(whole.color.sum() + whole.opacity.sum(), values)
    assert (inside[:, 0] == 0).all() and inside[0, 1] > 0
    assert torch.allclose(inside[1:4, 1], 0.5 * everywhere[1:4, 1])  # in proportion to membership
    assert (everywhere[1:4, 0] > 0).all()
