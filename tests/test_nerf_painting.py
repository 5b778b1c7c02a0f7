"""Colors and normals of the surface: those of the field, where a viewer's look ends."""

import numpy as np
import pytest
import torch
import trimesh

from field import FieldSettings, Volume, VoxelField
from painting import body_normals, on_faces, painted, sampled_points, surface_colors
from surface import decimated, isosurface

SETTINGS = FieldSettings(density_sizes=(40,), color_sizes=(4,), smoothing=0, mirror="none")


def red_ball(color=(0.8, 0.2, 0.1), radius: float = 0.5, size: int = 40) -> Volume:
    axis = torch.linspace(-1, 1, size)
    z, y, x = torch.meshgrid(axis, axis, axis, indexing="ij")
    logits = 50 * (radius - (x * x + y * y + z * z).sqrt()).view(1, 1, size, size, size)
    colors = torch.tensor(color).logit().view(1, 3, 1, 1, 1).expand(1, 3, 4, 4, 4)
    with torch.no_grad():
        return VoxelField(logits, colors, SETTINGS).volume(4.0)


def with_colors(volume: Volume, colors: torch.Tensor) -> Volume:
    """The volume with a grid of colors (3, z, y, x)."""
    return Volume(volume.logits, volume.normals, colors.logit(eps=1e-6)[None], volume.max_density)


def painted_ball(volume: Volume, faces: int = 10_000) -> trimesh.Trimesh:
    return painted(decimated(isosurface(volume, 15.0), faces), volume, volume)


def test_normals_are_those_of_the_body() -> None:
    mesh = painted_ball(red_ball(), faces=300)
    outward = mesh.vertices / np.linalg.norm(mesh.vertices, axis=1, keepdims=True)
    assert np.einsum("vc,vc->v", mesh.vertex_normals, outward).min() > 0.995


def test_normals_fade_to_the_geometry_where_they_disagree() -> None:
    """At the body's +X side, for faces turned away from +X by more and more."""
    angle = np.radians([0, 30, 60, 90, 180])
    geometric = np.stack([np.cos(angle), np.sin(angle), 0 * angle], axis=1)
    normals = body_normals(red_ball(), np.tile([[0.5, 0.0, 0.0]], (5, 1)), geometric)
    assert np.allclose(np.linalg.norm(normals, axis=1), 1)
    turned = np.degrees(np.arctan2(normals[:, 1], normals[:, 0]))
    assert turned[:2] == pytest.approx([0, 0], abs=1)
    assert 20 < turned[2] < 50
    assert turned[3:] == pytest.approx([90, 180], abs=1e-6)


def test_places_on_faces() -> None:
    mesh = trimesh.Trimesh([[0, 0, 0], [1, 0, 0], [0, 1, 0]], [[0, 1, 2]], process=False)
    mesh.vertex_normals = np.eye(3)
    position, normal = on_faces(mesh, np.array([0]), np.array([[0.5, 0.25, 0.25]]))
    assert position[0] == pytest.approx([0.25, 0.25, 0])
    assert normal[0] == pytest.approx(np.array([2, 1, 1]) / 6**0.5)


def test_vertices_have_the_color_that_is_seen() -> None:
    mesh = painted_ball(red_ball((0.8, 0.2, 0.1)))
    assert np.abs(np.asarray(mesh.visual.vertex_colors)[:, :3] / 255 - [0.8, 0.2, 0.1]).max() < 0.01


def test_color_is_looked_up_below_the_surface_where_light_ends() -> None:
    """A red ball in never-rendered blue: a vertex a little outside is red all the same."""
    axis = torch.linspace(-1, 1, 40)
    z, y, x = torch.meshgrid(axis, axis, axis, indexing="ij")
    inside = (x * x + y * y + z * z).sqrt() < 0.5
    red, blue = torch.tensor([[0.9, 0.1, 0.1], [0.1, 0.1, 0.9]])
    colors = torch.where(inside, red.view(3, 1, 1, 1), blue.view(3, 1, 1, 1))
    volume = with_colors(red_ball(), colors)
    point = np.array([[0.53, 0.0, 0.0]])
    seen = surface_colors(volume, point, np.array([[1.0, 0.0, 0.0]]))
    plain = volume(torch.tensor(point).float())[1][:, 0]
    assert plain[2] > 0.5 and seen[0, 0] > 0.8 and seen[0, 2] < 0.2
    far = surface_colors(volume, np.array([[0.9, 0.0, 0.0]]), np.array([[1.0, 0.0, 0.0]]))
    assert far[0] == pytest.approx([0.1, 0.1, 0.9], abs=0.01)  # nothing there: the mean


def test_decimated_meshes_keep_colors() -> None:
    """Left half red, right half blue, on 300 faces."""
    axis = torch.linspace(-1, 1, 16)
    x = axis.view(1, 1, 16).expand(16, 16, 16)
    colors = torch.stack([(x < 0) * 0.8 + 0.1, torch.full_like(x, 0.1), (x > 0) * 0.8 + 0.1])
    volume = with_colors(red_ball(), colors)
    mesh = painted_ball(volume, faces=300)
    stored = np.asarray(mesh.visual.vertex_colors)[:, :3] / 255
    left, right = (stored[s * mesh.vertices[:, 0] > 0.15].mean(axis=0) for s in (-1, 1))
    assert left == pytest.approx([0.9, 0.1, 0.1], abs=0.03)
    assert right == pytest.approx([0.1, 0.1, 0.9], abs=0.03)


def test_many_points_are_worked_off_in_parts() -> None:
    volume = red_ball()
    mesh = isosurface(volume, 15.0)
    args = (volume, mesh.vertices, mesh.vertex_normals)
    assert np.allclose(surface_colors(*args), surface_colors(*args, at_once=100), atol=1e-6)


def test_points_lie_evenly_on_the_surface() -> None:
    volume = red_ball((0.2, 0.4, 0.6))
    mesh = painted_ball(volume)
    cloud = sampled_points(mesh, volume, 4000, torch.Generator().manual_seed(0))
    assert np.linalg.norm(cloud.positions, axis=1) == pytest.approx(0.5, abs=0.03)
    octant = (cloud.positions > 0) @ [4, 2, 1]
    assert np.abs(np.bincount(octant, minlength=8) / 500 - 1).max() < 0.2
    height = np.sort(cloud.positions[:, 1]) / 0.5  # Archimedes: even in height
    assert np.abs(height - np.linspace(-1, 1, 4000)).max() < 0.08
    assert np.abs(cloud.colors - [0.2, 0.4, 0.6]).max() < 0.01
    assert np.einsum("pc,pc->p", cloud.normals, cloud.positions).min() > 0.47
    again = sampled_points(mesh, volume, 4000, torch.Generator().manual_seed(0))
    assert np.array_equal(cloud.positions, again.positions)


def test_painting_keeps_the_mesh() -> None:
    mesh = isosurface(red_ball(), 15.0)
    assert np.array_equal(painted(mesh, red_ball(), red_ball()).vertices, mesh.vertices)
