"""Cameras: the frame of glTF, pictures the right way up, rays that agree with projection."""

import pytest
import torch

from cameras import (
    HALF_TURN,
    Cameras,
    CameraSettings,
    azimuths,
    one_side,
    orbit,
    project,
    random_views,
    rays,
    turntable,
)


def camera(azimuth: float, elevation: float, radius: float = 3.0):
    return orbit(torch.tensor([azimuth]), torch.tensor([elevation]), torch.tensor([radius]))


@pytest.mark.parametrize(
    ("azimuth", "elevation", "place"),
    [
        (0.0, 0.0, [0, 0, 3]),
        (90.0, 0.0, [3, 0, 0]),
        (180.0, 0.0, [0, 0, -3]),
        (0.0, 90.0, [0, 3, 0]),
    ],
)
def test_where_cameras_stand(azimuth, elevation, place) -> None:
    position = camera(azimuth, elevation).position[0]
    assert torch.allclose(position, torch.tensor(place).float(), atol=1e-5)


def test_the_origin_is_in_the_middle_and_up_is_up() -> None:
    cameras = random_views(40, CameraSettings(), torch.Generator().manual_seed(0))
    points = torch.tensor([[0.0, 0.0, 0.0], [0.0, 0.5, 0.0], [0.0, -0.5, 0.0]])
    flat = project(cameras, points)
    assert flat[:, 0].abs().max() < 1e-5
    assert (flat[:, 1, 1] < -0.05).all() and (flat[:, 2, 1] > 0.05).all()  # rows run downward
    assert flat[:, 1:, 0].abs().max() < 1e-5


def test_right_is_right_from_the_front() -> None:
    """From +Z, the viewer of a glTF, +X is on the right; from behind it is on the left."""
    point = torch.tensor([[0.5, 0.0, 0.0]])
    assert project(camera(0.0, 0.0), point)[0, 0, 0] > 0.1
    assert project(camera(180.0, 0.0), point)[0, 0, 0] < -0.1


def test_random_views_are_spread_around() -> None:
    """One in each sector: the half circle from one of eight on has four or five."""
    generator = torch.Generator().manual_seed(0)
    for _ in range(50):
        azimuth = azimuths(random_views(8, CameraSettings(), generator))
        within = ((azimuth - azimuth[:, None]) % 360 < 180).sum(dim=1)  # itself too
        assert within.min() >= 4 and within.max() <= 5


def test_each_camera_by_itself_is_all_of_them() -> None:
    cameras = orbit(torch.tensor([0.0, 90.0, 10.0]), torch.zeros(3), torch.ones(3))
    alone = list(cameras.each())
    assert len(alone) == 3 and {camera.field_of_view for camera in alone} == {cameras.field_of_view}
    assert torch.equal(torch.cat([camera.position for camera in alone]), cameras.position)
    assert torch.equal(torch.cat([camera.rotation for camera in alone]), cameras.rotation)


def test_rotations_are_right_handed_rotations() -> None:
    rotation = random_views(8, CameraSettings(), torch.Generator().manual_seed(1)).rotation
    assert torch.allclose(rotation @ rotation.mT, torch.eye(3).expand(8, 3, 3), atol=1e-5)
    assert torch.allclose(torch.linalg.det(rotation), torch.ones(8), atol=1e-5)


def test_rays_run_through_the_pixels_that_their_points_project_to() -> None:
    cameras = turntable(3, elevation=30.0)
    origins, directions = rays(cameras, 5)
    assert torch.allclose(directions.norm(dim=1), torch.ones(75), atol=1e-6)
    points = (origins + 2.5 * directions).view(3, 25, 3)
    steps = (torch.arange(5) + 0.5) * 2 / 5 - 1
    rows, columns = torch.meshgrid(steps, steps, indexing="ij")
    expected = torch.stack([columns, rows], dim=-1).view(25, 2)
    for view in range(3):
        flat = project(cameras, points[view])[view]
        assert torch.allclose(flat, expected, atol=1e-5)


def test_random_views_keep_their_ranges_and_go_all_around() -> None:
    settings = CameraSettings(elevation=(-10.0, 60.0), radius=(3.0, 3.4))
    position = random_views(400, settings, torch.Generator().manual_seed(2)).position
    distance = position.norm(dim=1)
    elevation = (position[:, 1] / distance).asin().rad2deg()
    assert 3.0 <= distance.min() < distance.max() <= 3.4001
    assert -10.01 <= elevation.min() < -5 and 55 < elevation.max() <= 60.01
    azimuth = torch.atan2(position[:, 0], position[:, 2]).rad2deg() % 360
    assert (torch.histc(azimuth, 8, 0, 360) > 40).all()


def test_azimuths_are_those_of_the_orbit() -> None:
    given = torch.tensor([0.0, 90.0, 179.0, -45.0])
    cameras = orbit(given, torch.tensor([0.0, 30.0, -20.0, 60.0]), torch.full((4,), 3.0))
    assert torch.allclose(azimuths(cameras), given, atol=1e-3)


def test_one_side_leaves_out_cameras_opposite_to_earlier_ones() -> None:
    half = one_side(turntable(6))
    assert torch.equal(half.cameras.position, turntable(6).position[:3])
    assert half.which.tolist() == [0, 1, 2, 0, 1, 2]
    assert half.behind.tolist() == [False] * 3 + [True] * 3
    odd = one_side(turntable(5))
    assert odd.which.tolist() == [0, 1, 2, 3, 4] and not odd.behind.any()


def test_opposite_is_at_the_same_height_and_distance_and_no_turn_of_the_camera() -> None:
    azimuth = torch.tensor([10.0, 190.0, 190.0, 190.0, 10.0])
    elevation = torch.tensor([20.0, 30.0, 20.0, 20.0, 20.0])
    radius = torch.tensor([3.0, 3.0, 2.0, 3.0, 3.0])
    half = one_side(orbit(azimuth, elevation, radius))
    assert half.which.tolist() == [0, 1, 2, 0, 3]  # the last is the first again, opposite to none
    assert half.behind.tolist() == [False, False, False, True, False]
    first = camera(10.0, 20.0)
    rolled = first.rotation @ torch.diag(torch.tensor([-1.0, -1.0, 1.0]))
    place = first.position * torch.tensor(HALF_TURN)
    turned = torch.tensor(HALF_TURN)[:, None] * rolled
    both = Cameras(torch.cat([first.position, place]), torch.cat([first.rotation, turned]), 40.0)
    assert not one_side(both).behind.any()
