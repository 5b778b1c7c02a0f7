"""Meshes: a ball comes out as a ball, upright, in its color, also from the file."""

import json
import struct

import numpy as np
import pytest
import torch
import trimesh

from field import FieldSettings, Proportion, Volume, VoxelField, blob_field, blob_logits
from surface import (
    automatic_level,
    extract,
    read_glb,
    to_linear,
    to_srgb,
    without_floaters,
    write_glb,
)

SETTINGS = FieldSettings(density_sizes=(40,), color_sizes=(4,), smoothing=0, mirror="none")


def volume_of(logits: torch.Tensor, color=(0.8, 0.2, 0.1)) -> Volume:
    colors = torch.tensor(color).logit().view(1, 3, 1, 1, 1).expand(1, 3, 4, 4, 4)
    with torch.no_grad():
        return VoxelField(logits, colors, SETTINGS).volume(4.0)


def ball(radius: float = 0.5, center=(0.0, 0.0, 0.0), size: int = 40) -> torch.Tensor:
    axis = torch.linspace(-1, 1, size)
    z, y, x = torch.meshgrid(axis, axis, axis, indexing="ij")
    squared = (x - center[0]) ** 2 + (y - center[1]) ** 2 + (z - center[2]) ** 2
    return (50 * (radius - squared.sqrt())).view(1, 1, size, size, size)


def glb_json(data: bytes) -> dict:
    length = struct.unpack("<I", data[12:16])[0]
    return json.loads(data[20 : 20 + length])


def test_a_ball_is_a_watertight_ball_of_the_right_size() -> None:
    mesh = extract(volume_of(ball()))
    assert mesh.is_watertight and mesh.is_winding_consistent
    radius = np.linalg.norm(mesh.vertices, axis=1)
    assert radius.mean() == pytest.approx(0.5, abs=0.02) and radius.std() < 0.01
    assert mesh.volume == pytest.approx(4 / 3 * np.pi * 0.5**3, rel=0.1)  # outward, so positive


def test_axes_are_kept() -> None:
    mesh = extract(volume_of(ball(0.3, (0.5, -0.2, 0.1))))
    assert mesh.center_mass == pytest.approx([0.5, -0.2, 0.1], abs=0.02)
    top = extract(
        blob_field(Proportion(0.4, 0.6, 0.4, 0.6), torch.full((3,), 0.5), SETTINGS).volume(4.0)
    )
    wide = [np.abs(top.vertices[s * top.vertices[:, 1] > 0.3][:, 0]).max() for s in (1, -1)]
    assert wide[0] < 0.6 * wide[1]  # narrow end up


def test_an_object_that_reaches_the_border_is_closed() -> None:
    assert extract(volume_of(ball(1.2))).is_watertight


def test_floaters_and_cavities_go() -> None:
    solid, floater, hole = ball(0.6), ball(0.12, (0.85, 0.85, 0.85)), -ball(0.25)
    mesh = extract(volume_of(torch.maximum(solid, floater).minimum(hole)))
    assert mesh.body_count == 1
    assert mesh.volume == pytest.approx(4 / 3 * np.pi * 0.6**3, rel=0.1)


def test_two_large_parts_stay() -> None:
    mesh = extract(volume_of(torch.maximum(ball(0.3, (0.5, 0, 0)), ball(0.3, (-0.5, 0, 0)))))
    assert mesh.body_count == 2
    assert without_floaters(mesh, 1.1).body_count == 1  # the largest is never dropped


def test_the_level_follows_the_silhouette() -> None:
    """A thin haze around a hard ball is not seen, and must not become surface."""
    density = torch.where(ball(0.5)[0, 0] > 0, 30.0, torch.where(ball(0.9)[0, 0] > 0, 0.1, 0.0))
    assert 0.1 < automatic_level(density) < 30
    faint = torch.where(ball(0.5)[0, 0] > 0, 3.0, 0.0)
    assert 0 < automatic_level(faint) < 3


def test_colors_survive_the_file() -> None:
    mesh = extract(volume_of(ball(), (0.8, 0.2, 0.1)))
    again = read_glb(write_glb(mesh))
    for one in (mesh, again):
        color = np.asarray(one.visual.vertex_colors)[:, :3] / 255
        assert np.abs(color - [0.8, 0.2, 0.1]).max() < 0.02
    assert again.vertices.shape == mesh.vertices.shape
    assert np.allclose(again.vertices, mesh.vertices, atol=1e-5)


def test_the_file_holds_linear_light_and_a_matte_material() -> None:
    data = write_glb(extract(volume_of(ball(), (0.5, 0.5, 0.5))))
    plain = trimesh.load_mesh(
        trimesh.util.wrap_as_stream(data), file_type="glb", skip_materials=True
    )
    stored = np.asarray(plain.visual.vertex_colors)[:, :3] / 255
    assert np.abs(stored - 0.2140).max() < 0.006  # sRGB 0.5 is linear 0.214
    content = glb_json(data)
    (material,) = content["materials"]
    assert material["pbrMetallicRoughness"]["metallicFactor"] == 0
    (primitive,) = content["meshes"][0]["primitives"]
    assert primitive["material"] == 0 and {"COLOR_0", "NORMAL"} <= primitive["attributes"].keys()


def test_srgb_and_linear_are_inverse() -> None:
    srgb = np.linspace(0, 1, 101)
    assert np.allclose(to_srgb(to_linear(srgb)), srgb, atol=1e-6)
    assert to_linear(np.array([0.0, 0.5, 1.0])) == pytest.approx([0, 0.21404, 1], abs=1e-4)


def test_an_empty_field_is_named() -> None:
    empty = Volume(
        torch.full((1, 1, 8, 8, 8), -60.0),
        torch.zeros(1, 3, 8, 8, 8),
        torch.zeros(1, 3, 2, 2, 2),
        30.0,
    )
    with pytest.raises(ValueError, match="field is empty"):
        extract(empty)


def test_the_blob_of_the_default_settings_has_a_surface() -> None:
    logits = blob_logits(Proportion(), 24)
    assert extract(volume_of(logits)).is_watertight
