"""Meshes as input: signed distances by hand, colors of every kind of file, files that can't be."""

import numpy as np
import pytest
import torch
import trimesh
from PIL import Image

from colors import as_bytes, to_linear
from grids import sample
from meshes import colors_near, read_mesh, signed_distance

LOW, HIGH = (-0.5, -0.25, -0.5), (0.5, 0.25, 0.5)


def block() -> trimesh.Trimesh:
    return trimesh.creation.box(bounds=[LOW, HIGH])


def two_colors(convert=lambda color: color) -> trimesh.Trimesh:
    """The block, red on the left and dark green on the right."""
    mesh = block().subdivide()
    left = (mesh.vertices[:, :1] < 0.1).astype(float)
    color = left * [0.8, 0.1, 0.1] + (1 - left) * [0.1, 0.3, 0.1]
    mesh.visual = trimesh.visual.ColorVisuals(mesh, vertex_colors=as_bytes(convert(color)))
    return mesh


def test_distances_to_a_box() -> None:
    grid = signed_distance(block(), 49)
    assert grid.shape == (1, 1, 49, 49, 49)
    points = torch.tensor([[0, 0, 0], [0.5, 0, 0], [0.9, 0, 0], [0, 0.9, 0], [0.8, 0.65, 0.0]])
    expected = torch.tensor([-0.25, 0.0, 0.4, 0.65, 0.5])
    assert torch.allclose(sample(grid, points)[0], expected, atol=0.025)  # a voxel is 0.042 wide


def test_a_surface_that_is_inside_out_has_the_same_inside() -> None:
    mesh = block()
    mesh.invert()
    assert torch.equal(signed_distance(mesh, 25), signed_distance(block(), 25))


def test_holes_and_several_bodies() -> None:
    """A ring has no inside in its middle; what lies outside of the cube is far from everything."""
    ring = trimesh.creation.torus(0.6, 0.2)  # around z
    pair = trimesh.util.concatenate([ring, trimesh.creation.icosphere(2, 0.2)])
    grid = signed_distance(pair, 49)
    points = torch.tensor([[0.6, 0.0, 0.0], [0.0, -0.6, 0.0], [0.0, 0.0, 0.0], [0.3, 0.0, 0.0]])
    assert (sample(grid, points)[0] < 0).tolist() == [True, True, True, False]
    assert (signed_distance(block().apply_translation([3, 0, 0]), 17) > 2).all()


@pytest.mark.parametrize(("kind", "convert"), [("glb", to_linear), ("ply", lambda color: color)])
def test_vertex_colors_are_srgb_whatever_the_file(tmp_path, kind, convert) -> None:
    path = tmp_path / f"mesh.{kind}"
    two_colors(convert).export(path)
    painted = read_mesh(path, "start")
    grid = colors_near(painted, 9)
    seen = sample(grid, torch.tensor([[-0.5, 0.0, 0.0], [0.5, 0.0, 0.0]])).T
    expected = torch.tensor([[0.8, 0.1, 0.1], [0.1, 0.3, 0.1]])
    assert torch.allclose(seen, expected, atol=0.03)


def test_a_texture_is_read_between_the_vertices_too(tmp_path) -> None:
    """Eight red corners; the middle third of the picture, and so of the block, is blue."""
    mesh = block()
    u = (mesh.vertices[:, 0] - LOW[0]) / (HIGH[0] - LOW[0])
    picture = np.zeros((4, 96, 3), np.uint8)
    picture[:, :32] = picture[:, 64:] = (200, 20, 20)
    picture[:, 32:64] = (20, 20, 200)
    mesh.visual = trimesh.visual.TextureVisuals(
        np.stack([u, np.full_like(u, 0.5)], axis=1), image=Image.fromarray(picture)
    )
    mesh.export(tmp_path / "mesh.glb")
    grid = colors_near(read_mesh(tmp_path / "mesh.glb", "start"), 25)
    seen = sample(grid, torch.tensor([[-0.42, 0.25, 0.1], [0.0, 0.25, 0.1], [0.42, 0.25, 0.1]])).T
    red, blue = torch.tensor([200, 20, 20]) / 255, torch.tensor([20, 20, 200]) / 255
    assert torch.allclose(seen, torch.stack([red, blue, red]), atol=0.02)


def test_colors_between_vertices_are_mixed(tmp_path) -> None:
    """A block of eight vertices from dark to bright: its middle is neither of the two."""
    mesh = block()
    bright = np.where(mesh.vertices[:, :1] > 0, [200, 200, 200, 255], [40, 40, 40, 255])
    mesh.visual = trimesh.visual.ColorVisuals(mesh, vertex_colors=bright.astype(np.uint8))
    mesh.export(tmp_path / "mesh.ply")
    grid = colors_near(read_mesh(tmp_path / "mesh.ply", "start"), 25)
    middle = sample(grid, torch.tensor([[0.0, 0.25, 0.1]]))
    assert middle.mean().item() == pytest.approx(120 / 255, abs=0.04)


def test_a_file_without_colors_is_gray(tmp_path) -> None:
    path = tmp_path / "mesh.stl"
    block().export(path)
    painted = read_mesh(path, "start")
    assert painted.mesh.is_watertight and len(painted.mesh.vertices) == 8  # corners are joined
    assert (colors_near(painted, 3) == 0.5).all()


def test_moved_goes_with_its_colors() -> None:
    painted = read_mesh_of(two_colors())
    moved = painted.moved(np.array([0.5, 0.0, 0.0]), 2.0)
    assert np.allclose(moved.mesh.bounds, [[-2.0, -0.5, -1.0], [0.0, 0.5, 1.0]])
    assert np.allclose(moved.places, (painted.places - [0.5, 0, 0]) * 2)


def read_mesh_of(mesh: trimesh.Trimesh):
    from meshes import Painted

    return Painted(mesh, np.asarray(mesh.vertices), np.zeros((len(mesh.vertices), 3)))


def test_files_that_can_not_be_used_are_named(tmp_path) -> None:
    with pytest.raises(FileNotFoundError, match=r"start .*none.glb' not found; expected a mesh"):
        read_mesh(tmp_path / "none.glb", "start")
    (tmp_path / "mesh.blend").write_text("no mesh")
    with pytest.raises(ValueError, match=r"is of kind '.blend'; expected a mesh, .glb, .gltf"):
        read_mesh(tmp_path / "mesh.blend", "start")
    (tmp_path / "mesh.glb").write_bytes(b"no mesh at all")
    with pytest.raises(ValueError, match=r"mesh.glb' can't be read: .*Export it again"):
        read_mesh(tmp_path / "mesh.glb", "start")
    opened = block()
    opened.update_faces(np.arange(len(opened.faces)) > 0)
    opened.export(tmp_path / "open.ply")
    with pytest.raises(ValueError, match=r"keep .*open.ply' is not watertight; .*Close its holes"):
        read_mesh(tmp_path / "open.ply", "keep")
    (tmp_path / "empty.obj").write_text("v 0 0 0\nv 1 0 0\nv 0 1 0\n")
    with pytest.raises(ValueError, match=r"empty.obj'"):
        read_mesh(tmp_path / "empty.obj", "start")
