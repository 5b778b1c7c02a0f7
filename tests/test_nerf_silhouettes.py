"""Silhouettes: pixels worked out by hand, another renderer's outlines, every level tried."""

import math

import numpy as np
import pytest
import torch
import trimesh
from scipy.spatial import Delaunay

import rasterize
from alphaclip_gen.mini.splat import render_mesh
from cameras import turntable
from field import FieldSettings, Volume, VoxelField
from rasterize import covered
from silhouettes import (
    Scan,
    all_around,
    best_level,
    outlines,
    overlap,
    scan,
    silhouette_iou,
)
from surface import isosurface


def soft_ball(slope: float = 12.0, radius: float = 0.5, size: int = 32) -> Volume:
    axis = torch.linspace(-1, 1, size)
    z, y, x = torch.meshgrid(axis, axis, axis, indexing="ij")
    logits = slope * (radius - (x * x + y * y + z * z).sqrt())
    settings = FieldSettings(
        density_sizes=(size,), color_sizes=(2,), smoothing=0, mirror="none", max_density=30.0
    )
    with torch.no_grad():
        return VoxelField(logits[None, None], torch.zeros(1, 3, 2, 2, 2), settings).volume(1.0)


# Rasterizing


def test_a_triangle_covers_the_centers_inside_it() -> None:
    hits = covered(np.array([[[0.0, 0.0], [3.0, 0.0], [0.0, 3.0]]]), 8)
    found = set(zip(hits.column.tolist(), hits.row.tolist(), strict=True))
    assert found == {(0, 0), (1, 0), (2, 0), (0, 1), (1, 1), (0, 2)}  # the slope's centers count
    at = dict(zip(zip(hits.column, hits.row, strict=True), hits.weights, strict=True))
    assert at[0, 0] == pytest.approx([2 / 3, 1 / 6, 1 / 6])
    assert at[1, 1] == pytest.approx([0, 0.5, 0.5])


def test_both_windings_count_and_flat_triangles_do_not() -> None:
    corners = np.array([[1.2, 1.2], [6.1, 2.0], [2.3, 6.7]])
    one, other = covered(corners[None], 8), covered(corners[None, ::-1], 8)
    assert len(one.face) == len(other.face) > 5
    assert len(covered(np.array([[[1.0, 1.0], [4.0, 4.0], [7.0, 7.0]]]), 8).face) == 0


def test_weights_give_the_pixel_back(monkeypatch) -> None:
    """Also when the work is done in many small parts, and for triangles that stick out."""
    generator = np.random.default_rng(0)
    corners = generator.uniform(-3, 23, (200, 3, 2))
    whole = covered(corners, 20)
    place = np.einsum("hk,hkc->hc", whole.weights, corners[whole.face])
    assert np.allclose(place, np.stack([whole.column + 0.5, whole.row + 0.5], axis=1))
    monkeypatch.setattr(rasterize, "AT_ONCE", 50)
    parts = covered(corners, 20)
    assert all(np.array_equal(a, b) for a, b in zip(whole, parts, strict=True))


def test_a_tiled_square_has_no_cracks() -> None:
    generator = np.random.default_rng(1)
    frame = [[0, 0], [0, 16], [16, 0], [16, 16]]
    points = np.concatenate([generator.uniform(0, 16, (60, 2)), frame])
    hits = covered(points[Delaunay(points).simplices], 16)
    assert len(set(zip(hits.row.tolist(), hits.column.tolist(), strict=True))) == 256
    assert len(covered(np.zeros((0, 3, 2)), 16).face) == 0


# Outlines


def test_outlines_agree_with_another_renderer() -> None:
    """Same cameras, other code: fans of spans in `splat`, boxes of pixels here."""
    mesh = trimesh.creation.torus(0.5, 0.2, major_sections=24, minor_sections=12)
    mesh.apply_transform(trimesh.transformations.rotation_matrix(0.7, [1, 0.3, 0]))
    mine = outlines(mesh, turntable(4, elevation=20.0, radius=3.2), 64)
    views = [0.0, 90.0, 180.0, 270.0]
    other = render_mesh(mesh, views, 20.0, (64, 64), distance=3.2, fov=40.0, supersample=1)
    assert int((mine != (other.coverage[:, 0] > 0.5)).sum()) <= 4
    assert 300 < int(mine[0].sum()) < 3000


def test_overlap_by_hand() -> None:
    first = torch.tensor([[[True, True, False]], [[False, False, False]]])
    second = torch.tensor([[[False, True, True]], [[False, False, False]]])
    assert overlap(first, second).tolist() == pytest.approx([1 / 3, 1.0])


def test_views_stand_all_around() -> None:
    position = all_around(24).position
    assert torch.allclose(position.norm(dim=1), torch.full((24,), 3.2))
    azimuth = torch.atan2(position[:, 0], position[:, 2]).rad2deg() % 360
    assert torch.allclose(azimuth.sort().values, torch.arange(24) * 15.0, atol=1e-3)
    height = torch.asin(position[:, 1] / 3.2).rad2deg().round()
    assert height.unique().tolist() == [-20, 20, 60]
    turned = all_around(12, turn=7.5).position
    assert torch.cdist(turned, position).min() > 0.2  # no view is among the others


def test_a_scan_meets_what_lies_on_the_ray() -> None:
    """Through the middle of a ball of density 2 and radius 0.5 the thickness is 2."""
    volume = soft_ball(slope=400.0, size=48)
    volume = Volume(volume.logits, volume.normals, volume.color_logits, 2.0)
    found = scan(volume, all_around(2), size=33)
    assert found.thickness[0, 16, 16] == pytest.approx(2.0, rel=0.05)
    assert found.densest[0, 16, 16] == pytest.approx(2.0)
    assert found.thickness[0, 0, 0] == 0 == found.densest[0, 0, 0]
    assert found.strongest() == pytest.approx(1 - math.exp(-2.0), abs=0.01)


def test_the_outline_is_half_opaque() -> None:
    thickness = torch.tensor([[[0.0, 0.69, 0.70, 3.0]]])
    found = Scan(thickness, thickness)
    assert found.outline().tolist() == [[[False, False, True, True]]]
    assert found.outline(0.94).tolist() == [[[False, False, False, True]]]


# The level


def test_the_level_is_the_best_of_all() -> None:
    """Against trying them one by one."""
    generator = torch.Generator().manual_seed(0)
    densest = torch.rand(2, 20, 20, generator=generator) * 10
    thickness = 0.15 * densest + 0.3 * torch.rand(2, 20, 20, generator=generator)
    found = Scan(thickness, densest)

    def iou(level: float) -> float:
        hard, soft = densest > level, found.outline()
        return float((hard & soft).sum() / (hard | soft).sum())

    level, agreement = best_level(found)
    assert iou(level) == pytest.approx(max(map(iou, densest.flatten().tolist())))
    assert 2 < level < 6 and agreement == pytest.approx(iou(level))


def test_a_thin_haze_is_not_surface_and_a_faint_object_is() -> None:
    ball = soft_ball(slope=300.0, size=40)
    haze = ball.logits.clamp(min=-5.7)  # density 0.1 everywhere: 0.2 thick, not half opaque
    hazy = Volume(haze, ball.normals, ball.color_logits, 30.0)
    assert best_level(scan(hazy, all_around(6))).density > 0.2
    faint = Volume(ball.logits, ball.normals, ball.color_logits, 0.3)
    assert 0 < best_level(scan(faint, all_around(6))).density < 0.3


@pytest.mark.parametrize("slope", [12.0, 60.0])
def test_the_chosen_level_fits_and_others_do_not(slope) -> None:
    """The half-opaque outline of a soft ball is well outside of its half-dense surface."""
    volume = soft_ball(slope)
    level = best_level(scan(volume, all_around(12, turn=7.5))).density
    assert silhouette_iou(isosurface(volume, level), volume) > 0.98
    if slope < 20:
        assert silhouette_iou(isosurface(volume, 15.0), volume) < 0.9


def test_the_measure_sees_a_wrong_mesh() -> None:
    volume = soft_ball(slope=400.0, size=48)
    right = isosurface(volume, 15.0)
    assert silhouette_iou(right, volume) > 0.97
    assert silhouette_iou(right.copy().apply_translation([0.2, 0, 0]), volume) < 0.8
    larger = trimesh.creation.icosphere(subdivisions=3, radius=0.5 * math.sqrt(2))
    # Shares of the picture within the cones that touch the two balls.
    by_hand = (0.25 / (3.2**2 - 0.25)) / (0.5 / (3.2**2 - 0.5))
    assert silhouette_iou(larger, volume) == pytest.approx(by_hand, abs=0.03)
