"""The mesh renderer and the solids: areas known by geometry, exact colors, who hides whom."""

import math

import numpy as np
import pytest
import torch
import trimesh

from alphaclip_gen.mini.captions import SHAPES
from alphaclip_gen.mini.solid_meshes import blotch, fit_unit_ball, roughen, solid_mesh
from alphaclip_gen.mini.splat import Light, lambert, linear_to_srgb, render_mesh


def colored(mesh: trimesh.Trimesh, color: tuple[int, int, int]) -> trimesh.Trimesh:
    """The mesh with one 8-bit color."""
    return blotch(mesh, tuple(value / 255 for value in color), np.random.default_rng(0))


@pytest.mark.parametrize("size", [(64, 64), (48, 80), (200, 200)])
def test_sphere_covers_its_analytic_disc(size: tuple[int, int]) -> None:
    """A unit sphere at distance d is seen under the half angle asin(1 / d)."""
    sphere = trimesh.creation.icosphere(subdivisions=5)
    render = render_mesh(sphere, size=size, distance=3.5, fov=35.0)
    focal = size[0] / 2 / math.tan(math.radians(17.5))
    radius = focal * math.tan(math.asin(1 / 3.5))
    assert render.coverage.sum().item() == pytest.approx(math.pi * radius**2, rel=0.005)


@pytest.mark.parametrize("subdivisions", [0, 2, 5])
def test_no_holes_whatever_the_triangles(subdivisions: int) -> None:
    """Every pixel inside half of the outline's radius is fully covered."""
    ball = trimesh.creation.icosphere(subdivisions=subdivisions)
    coverage = render_mesh(ball, azimuth=[0.0, 13.0, 90.0], elevation=31.0).coverage
    assert (coverage[:, :, 18:46, 18:46] == 1).all()


def test_front_face_of_a_cube_has_its_projected_area() -> None:
    """A face of side s at distance d - s / 2 in front of the camera."""
    cube = trimesh.creation.box((1, 1, 1))
    render = render_mesh(cube, azimuth=0.0, elevation=0.0, size=(128, 128), distance=3.0, fov=30.0)
    side = 128 / 2 / math.tan(math.radians(15)) / 2.5
    assert render.coverage.sum().item() == pytest.approx(side**2, rel=0.02)


def test_unlit_color_is_exact() -> None:
    color = (200, 17, 99)
    render = render_mesh(colored(solid_mesh("torus"), color), supersample=3)
    seen = render.coverage[:, 0] > 0
    expected = torch.tensor(color) / 255
    assert torch.allclose(render.color.movedim(1, 3)[seen], expected, atol=1e-5)
    assert (render.color.movedim(1, 3)[~seen] == 0).all()
    assert torch.allclose(
        render.over(0.25)[~render.coverage.bool().expand(-1, 3, -1, -1)], torch.tensor(0.25)
    )


def test_colors_are_interpolated_in_perspective() -> None:
    """A floor from near black to far white: halfway on the screen is nearer than halfway along."""
    floor = trimesh.Trimesh(
        [[-9, -0.5, 2], [9, -0.5, 2], [9, -0.5, -6], [-9, -0.5, -6]], [[0, 1, 2], [0, 2, 3]]
    )
    shades = np.array([[0] * 3, [0] * 3, [255] * 3, [255] * 3], dtype=np.uint8)
    floor.visual = trimesh.visual.ColorVisuals(floor, vertex_colors=shades)
    render = render_mesh(floor, 0.0, 0.0, size=(101, 101), distance=4.0, fov=60.0, supersample=1)
    row = 60
    depth = 0.5 * (101 / 2 / math.tan(math.radians(30))) / (row + 0.5 - 50.5)
    expected = (depth - 2) / 8
    assert render.color[0, 0, row, 50].item() == pytest.approx(expected, abs=0.005)


def test_nearer_surface_hides_the_farther() -> None:
    near = colored(trimesh.creation.icosphere(radius=0.3), (255, 0, 0))
    far = colored(trimesh.creation.icosphere(radius=0.6), (0, 0, 255))
    near.apply_translation([0, 0, 0.9])
    both = trimesh.util.concatenate([near, far])
    front, back = render_mesh(both, azimuth=[0.0, 180.0], elevation=0.0).color[:, :, 32, 32]
    assert torch.allclose(front, torch.tensor([1.0, 0, 0]), atol=1e-5)
    assert torch.allclose(back, torch.tensor([0, 0, 1.0]), atol=1e-5)


def test_directions_of_the_camera() -> None:
    """Azimuth 0 looks from +Z with +X to the right, 90 from +X; elevation raises the camera."""
    ball = colored(trimesh.creation.icosphere(radius=0.1), (9, 9, 9))
    ball.apply_translation([0.8, 0, 0])
    front, side = render_mesh(ball, azimuth=[0.0, 90.0], elevation=0.0).coverage[:, 0]
    assert front[:, 40:].sum() > 10 and front[:, :40].sum() == 0
    assert side[28:36, 28:36].sum() == pytest.approx(side.sum().item())
    above = render_mesh(ball, azimuth=-90.0, elevation=30.0).coverage[0, 0]
    assert above[:30].sum() == pytest.approx(above.sum().item())


def test_normals_point_to_the_viewer() -> None:
    render = render_mesh(trimesh.creation.icosphere(subdivisions=4), elevation=0.0, supersample=3)
    middle = render.normals[0, :, 32, 32]
    assert torch.allclose(middle, torch.tensor([0.0, 0, 1]), atol=0.06)
    assert render.normals[0, 0, 32, 56] > 0.6 and render.normals[0, 1, 8, 32] > 0.6
    inside_out = trimesh.creation.icosphere(subdivisions=4)
    inside_out.invert()
    turned = render_mesh(inside_out, elevation=0.0, supersample=3).normals
    assert torch.allclose(turned, render.normals, atol=1e-3)


def test_lambert_by_hand() -> None:
    normals = torch.tensor([[0.0, 0, 1], [1, 0, 0]]).T.reshape(1, 3, 1, 2)
    light = torch.tensor([[0.0, 3.0, 4.0]])
    brightness = lambert(normals, light, torch.tensor([0.5]))
    assert torch.allclose(brightness.flatten(), torch.tensor([0.5 + 0.5 * 0.8, 0.5]))


def test_light_darkens_what_turns_away() -> None:
    gray = colored(trimesh.creation.icosphere(subdivisions=4), (128, 128, 128))
    lit = render_mesh(gray, elevation=0.0, light=Light((1.0, 0.0, 0.0), ambient=0.4)).color[0, 0]
    assert lit[32, 60] > 1.8 * lit[32, 4]
    assert lit[32, 4].item() == pytest.approx(0.4 * 128 / 255, abs=1e-3)


def test_linear_colors_are_decoded() -> None:
    """Linear 0.2140 is sRGB 0.5 (IEC 61966-2-1)."""
    assert linear_to_srgb(np.array([0.0, 0.21404, 1.0])) == pytest.approx([0, 0.5, 1], abs=1e-4)
    mesh = colored(solid_mesh("cube"), (55, 55, 55))
    render = render_mesh(mesh, color_space="linear")
    assert render.color[0, 0, 32, 32].item() == pytest.approx(0.5, abs=0.005)


def test_rendering_is_deterministic_and_order_free() -> None:
    mesh = colored(solid_mesh("snowman"), (10, 200, 30))
    first, again = (render_mesh(mesh, [0.0, 50.0], light=Light()) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    alone = render_mesh(mesh, 50.0, light=Light())
    assert torch.equal(alone.color[0], first.color[1])


def test_textured_and_plain_meshes_render() -> None:
    assert render_mesh(trimesh.creation.box()).color.max() > 0
    uv = np.zeros((8, 2))
    textured = trimesh.creation.box()
    material = trimesh.visual.material.PBRMaterial(baseColorFactor=[255, 0, 0, 255])
    textured.visual = trimesh.visual.TextureVisuals(uv=uv, material=material)
    color = render_mesh(textured).color[0, :, 32, 32]
    assert torch.allclose(color, torch.tensor([1.0, 0, 0]), atol=1e-5)


def test_triangles_behind_the_camera_are_left_out() -> None:
    ball = trimesh.creation.icosphere(subdivisions=2)
    assert render_mesh(ball, distance=0.5, fov=90.0).coverage.min() == 1
    ball.apply_translation([0, 0, 9])
    assert render_mesh(ball, 0.0, 0.0).coverage.sum() == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"size": (0, 64)}, "size is .* expected .height, width."),
        ({"supersample": 0}, "supersample 0"),
        ({"distance": -1.0}, "distance is -1.0 .* expected a positive distance"),
        ({"fov": 180.0}, "between 0 and 180"),
    ],
)
def test_bad_arguments_are_named(arguments: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        render_mesh(trimesh.creation.box(), **arguments)


def test_empty_mesh_is_named() -> None:
    with pytest.raises(ValueError, match="mesh has no faces"):
        render_mesh(trimesh.Trimesh())


@pytest.mark.parametrize("shape", SHAPES)
def test_solids_just_fit_the_unit_ball(shape: str) -> None:
    for mesh in (solid_mesh(shape), solid_mesh(shape, np.random.default_rng(3))):
        assert np.linalg.norm(mesh.vertices, axis=1).max() == pytest.approx(1)
        assert mesh.bounds.mean(axis=0) == pytest.approx(np.zeros(3), abs=1e-6)
        assert mesh.is_watertight and mesh.volume > 0


@pytest.mark.parametrize(
    ("shape", "proportions"),
    [
        ("sphere", (1, 1, 1)),
        ("cube", (1, 1, 1)),
        ("cylinder", (1, 1, 1)),
        ("cone", (1, 1, 1)),
        ("torus", (1, 0.76 / 2.76, 1)),
        ("pyramid", (1, 1, 1)),
        ("disk", (1, 0.125, 1)),
        ("stick", (0.2, 1, 0.2)),
        ("cross", (1, 1, 0.275)),
        ("capsule", (1 / 2.6, 1, 1 / 2.6)),
        ("mushroom", (1, 1.4 / 1.5, 1)),
    ],
)
def test_solids_have_the_agreed_proportions(shape: str, proportions: tuple) -> None:
    extents = solid_mesh(shape).extents
    assert extents / extents.max() == pytest.approx(np.array(proportions), abs=0.01)


@pytest.mark.parametrize("shape", ["cone", "pyramid", "snowman"])
def test_pointed_solids_point_up(shape: str) -> None:
    mesh = solid_mesh(shape)
    assert mesh.center_mass[1] < -0.05


def test_mushroom_has_its_cap_on_top() -> None:
    assert solid_mesh("mushroom").center_mass[1] > 0.05


def test_roughened_solid_stays_near_the_solid() -> None:
    mesh = solid_mesh("cross")
    rough = roughen(mesh, np.random.default_rng(0), softness=0.8, lumps=0.05)
    assert rough.volume == pytest.approx(mesh.volume, rel=0.12)
    assert np.abs(rough.bounds - mesh.bounds).max() < 0.1


def test_bad_solids_are_named() -> None:
    with pytest.raises(ValueError, match="shape is 'teapot'; expected one of sphere, cube"):
        solid_mesh("teapot")
    with pytest.raises(ValueError, match=r"jitter is 1.0; expected .* \[0, 1\)"):
        solid_mesh("cube", jitter=1.0)
    with pytest.raises(ValueError, match="not finite"):
        fit_unit_ball(
            trimesh.Trimesh([[0, 0, 0], [1, 0, 0], [0, math.nan, 0]], [[0, 1, 2]], process=False)
        )
    with pytest.raises(ValueError, match="single point"):
        fit_unit_ball(trimesh.Trimesh(np.zeros((3, 3)), [[0, 1, 2]], process=False))
