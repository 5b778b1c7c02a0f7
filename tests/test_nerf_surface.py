"""Meshes: a ball comes out as a ball, upright, closed, alone, at any number of faces."""

import dataclasses

import numpy as np
import pytest
import torch

from blobs import Proportion, blob_logits
from field import FieldSettings, Volume, VoxelField
from silhouettes import silhouette_iou
from surface import automatic_level, decimated, extract, isosurface, largest_parts, without_floaters

SETTINGS = FieldSettings(density_sizes=(40,), color_sizes=(4,), smoothing=0, mirror="none")


def volume_of(logits: torch.Tensor, color=(0.8, 0.2, 0.1), sharpness: float = 4.0) -> Volume:
    colors = torch.tensor(color).logit().view(1, 3, 1, 1, 1).expand(1, 3, 4, 4, 4)
    with torch.no_grad():
        return VoxelField(logits, colors, SETTINGS).volume(sharpness)


def ball(radius: float = 0.5, center=(0.0, 0.0, 0.0), size: int = 40) -> torch.Tensor:
    axis = torch.linspace(-1, 1, size)
    z, y, x = torch.meshgrid(axis, axis, axis, indexing="ij")
    squared = (x - center[0]) ** 2 + (y - center[1]) ** 2 + (z - center[2]) ** 2
    return (50 * (radius - squared.sqrt())).view(1, 1, size, size, size)


# Shape


def test_a_ball_is_a_watertight_ball_of_the_right_size() -> None:
    mesh = extract(volume_of(ball()))
    assert mesh.is_watertight and mesh.is_winding_consistent
    radius = np.linalg.norm(mesh.vertices, axis=1)
    assert radius.mean() == pytest.approx(0.5, abs=0.02) and radius.std() < 0.01
    assert mesh.volume == pytest.approx(4 / 3 * np.pi * 0.5**3, rel=0.1)  # outward, so positive


def test_a_field_of_unbounded_density_has_a_surface_too() -> None:
    """Softplus, 40 times as dense inside as where it turns opaque."""
    plain = volume_of(ball())
    volume = dataclasses.replace(plain, activation="softplus", max_density=20.0)
    assert float(volume.density().max()) > 1500
    mesh = extract(volume)
    assert mesh.is_watertight
    assert np.linalg.norm(mesh.vertices, axis=1).mean() == pytest.approx(0.5, abs=0.03)
    assert silhouette_iou(mesh, volume) > 0.98


def test_axes_are_kept() -> None:
    mesh = extract(volume_of(ball(0.3, (0.5, -0.2, 0.1))))
    assert mesh.center_mass == pytest.approx([0.5, -0.2, 0.1], abs=0.02)
    top = extract(volume_of(blob_logits(Proportion(0.4, 0.6, 0.4, 0.6), 40)))
    wide = [np.abs(top.vertices[s * top.vertices[:, 1] > 0.3][:, 0]).max() for s in (1, -1)]
    assert wide[0] < 0.6 * wide[1]  # narrow end up


@pytest.mark.parametrize("size", [40, 41])
def test_an_object_that_reaches_the_border_ends_where_the_rendering_ends(size) -> None:
    """Only the unit ball is rendered: the cube's corners must not show up in the mesh."""
    mesh = extract(volume_of(ball(1.6, size=size)))
    assert mesh.is_watertight
    assert np.linalg.norm(mesh.vertices, axis=1).max() < 1.02
    assert mesh.volume == pytest.approx(4 / 3 * np.pi, rel=0.03)


def test_floaters_and_cavities_go() -> None:
    solid, floater, hole = ball(0.6), ball(0.12, (0.55, 0.55, 0.55)), -ball(0.25)
    mesh = extract(volume_of(torch.maximum(solid, floater).minimum(hole)))
    assert mesh.body_count == 1
    assert mesh.volume == pytest.approx(4 / 3 * np.pi * 0.6**3, rel=0.1)


def test_floaters_go_from_the_field_with_their_haze() -> None:
    """So pictures and mesh show the same; the rest of the field is left alone."""
    body, floater = (0.4, (-0.4, 0.0, 0.0)), (0.1, (0.6, 0.0, 0.0))
    both = volume_of(torch.maximum(ball(*body), ball(*floater)) / 2, sharpness=1.0)
    level = automatic_level(both).density
    clean, count = without_floaters(both, level, 0.1)
    assert count == 1
    places = torch.tensor([[0.6, 0, 0], [0.6, 0.18, 0], [-0.4, 0, 0], [-0.4, 0.43, 0]])
    before, after = both(places)[0], clean(places)[0]
    assert before[1] > 1 and after[:2].max() < 0.05
    assert torch.equal(before[2:], after[2:]) and before[3] > 1
    assert without_floaters(clean, level, 0.1) == (clean, 0)
    assert without_floaters(both, level, 0.001) == (both, 0)  # large enough then


def test_two_large_parts_stay() -> None:
    two = volume_of(torch.maximum(ball(0.3, (0.5, 0, 0)), ball(0.3, (-0.5, 0, 0))))
    mesh = extract(two)
    assert mesh.body_count == 2
    assert largest_parts(mesh, 1.1).body_count == 1  # the largest is never dropped
    assert without_floaters(two, automatic_level(two).density)[1] == 0


def test_the_surface_lies_where_the_density_is_the_level() -> None:
    volume = volume_of(ball())
    for level in (0.5, 15.0, 29.0):
        mesh = isosurface(volume, level)
        density = volume(torch.tensor(mesh.vertices).float())[0]
        assert density.median() == pytest.approx(level, rel=0.15)
    with pytest.raises(ValueError, match=r"no surface at density 29\.9"):
        isosurface(Volume(torch.zeros(1, 1, 8, 8, 8), *_rest(volume)), 29.9)


def test_fewer_faces_of_the_same_ball() -> None:
    volume = volume_of(ball())
    for count in (1000, 300):
        mesh = extract(volume, faces=count)
        assert 0.5 * count <= len(mesh.faces) <= count
        assert mesh.is_watertight and mesh.is_winding_consistent
        assert mesh.volume == pytest.approx(4 / 3 * np.pi * 0.5**3, rel=0.1)
    whole = extract(volume)
    assert decimated(whole, len(whole.faces)) is whole


def test_decimation_tries_again_when_the_surface_is_pinched(monkeypatch) -> None:
    import fast_simplification

    mesh = isosurface(volume_of(ball()), 15.0)
    real, targets = fast_simplification.simplify, []

    def torn(points, faces, target_count):
        targets.append(target_count)
        vertices, triangles = real(points, faces, target_count=target_count)
        return vertices, triangles[1:] if len(targets) < 3 else triangles

    monkeypatch.setattr(fast_simplification, "simplify", torn)
    assert decimated(mesh, 1000).is_watertight
    assert targets == [1000, 950, 902]
    monkeypatch.setattr(
        fast_simplification, "simplify", lambda points, faces, target_count: (points, faces[1:])
    )
    assert decimated(mesh, 1000) is mesh


def test_the_same_field_gives_the_same_mesh() -> None:
    first, second = (extract(volume_of(ball()), faces=500) for _ in range(2))
    assert np.array_equal(first.vertices, second.vertices)
    assert np.array_equal(first.faces, second.faces)


# What can't be


def test_an_empty_field_is_named() -> None:
    empty = Volume(torch.full((1, 1, 8, 8, 8), -60.0), *_rest(volume_of(ball())))
    with pytest.raises(ValueError, match="field is empty"):
        extract(empty)


def test_the_blob_of_the_default_settings_has_a_surface() -> None:
    assert extract(volume_of(blob_logits(Proportion(), 24))).is_watertight


def _rest(volume: Volume) -> tuple:
    return torch.zeros(1, 3, 8, 8, 8), volume.color_logits, volume.max_density
