"""Textures: every place of the mesh finds the field's color in the picture, and no seam shows."""

import numpy as np
import pytest
import torch
import trimesh
from PIL import Image

pytest.importorskip("xatlas")

from field import FieldSettings, Volume, VoxelField
from surface import extract
from texture import baked, spread


@pytest.fixture(scope="module")
def volume() -> Volume:
    """A bright ball, redder to the right, greener to the top, bluer to the front."""
    axis = torch.linspace(-1, 1, 32)
    z, y, x = torch.meshgrid(axis, axis, axis, indexing="ij")
    logits = 30 * (0.6 - (x * x + y * y + z * z).sqrt())
    axis = torch.linspace(-1, 1, 6)
    z, y, x = torch.meshgrid(axis, axis, axis, indexing="ij")
    colors = (0.65 + 0.3 * torch.stack([x, y, z])).logit()
    settings = FieldSettings(density_sizes=(32,), color_sizes=(6,), smoothing=0, mirror="none")
    with torch.no_grad():
        return VoxelField(logits[None, None], colors[None], settings).volume(4.0)


@pytest.fixture(scope="module")
def coarse(volume: Volume) -> trimesh.Trimesh:
    return extract(volume, faces=400)


def look_up(picture: Image.Image, uv: np.ndarray) -> np.ndarray:
    """Nearest texels in [0, 1], uv from the top left."""
    texels = np.asarray(picture) / 255
    column, row = np.floor(uv * picture.width).astype(int).clip(0, picture.width - 1).T
    return texels[row, column]


def test_the_picture_holds_the_colors_of_the_field(volume, coarse) -> None:
    """At random places of random faces, against the ball that the faces stand for."""
    mesh, texture = baked(coarse, volume, 256)
    generator = np.random.default_rng(0)
    corners = mesh.faces[generator.integers(len(mesh.faces), size=2000)]
    weights = generator.dirichlet([1, 1, 1], 2000)

    def between(values: np.ndarray) -> np.ndarray:
        return np.einsum("pk,pkc->pc", weights, values[corners])

    outward = between(mesh.vertices)
    outward /= np.linalg.norm(outward, axis=1, keepdims=True)
    on_ball = torch.tensor(outward * np.linalg.norm(coarse.vertices, axis=1).mean()).float()
    expected = volume(on_ball)[1].detach().T.numpy()
    error = np.abs(look_up(texture.picture, between(texture.uv)) - expected)
    assert error.mean() < 0.01 and error.max() < 0.06
    assert expected.std(axis=0).min() > 0.05  # there was something to get wrong
    origin = coarse.kdtree.query(mesh.vertices)[1]
    stored = np.asarray(coarse.visual.vertex_colors)[origin, :3] / 255
    assert error.mean() < np.abs(between(stored) - expected).mean()  # what a texture is for


def test_cutting_moves_nothing(volume, coarse) -> None:
    mesh, texture = baked(coarse, volume, 128)
    assert len(mesh.faces) == len(coarse.faces) and len(mesh.vertices) > len(coarse.vertices)
    assert len(texture.uv) == len(mesh.vertices)
    assert texture.uv.min() >= 0 and texture.uv.max() <= 1
    assert texture.picture.size == (128, 128) and texture.picture.mode == "RGB"
    assert mesh.volume == pytest.approx(coarse.volume, rel=1e-5)
    whole = mesh.copy()
    whole.merge_vertices(merge_tex=True, merge_norm=True)
    assert whole.is_watertight
    origin = coarse.kdtree.query(mesh.vertices)[1]
    assert np.allclose(mesh.vertex_normals, coarse.vertex_normals[origin])  # no crease at a seam


def test_no_texel_is_left_black(volume, coarse) -> None:
    """The darkest color of this field is 0.35 in one channel: gutters must not be darker."""
    texels = np.asarray(baked(coarse, volume, 128)[1].picture)
    assert texels.max(axis=2).min() > 100


def test_pieces_do_not_overlap_and_fill_much_of_the_picture(volume, coarse) -> None:
    mesh, texture = baked(coarse, volume, 128)
    a, b, c = texture.uv[mesh.faces].swapaxes(0, 1)
    area = np.abs((b - a)[:, 0] * (c - a)[:, 1] - (b - a)[:, 1] * (c - a)[:, 0]) / 2
    assert 0.35 < area.sum() < 1


def test_the_same_mesh_gives_the_same_picture(volume, coarse) -> None:
    first, second = (baked(coarse, volume, 96)[1] for _ in range(2))
    assert np.array_equal(first.uv, second.uv)
    assert first.picture.tobytes() == second.picture.tobytes()


def test_gutters_take_the_nearest_texel() -> None:
    texels = np.zeros((1, 6, 3), dtype=np.uint8)
    texels[0, 1], texels[0, 5] = 10, 90
    known = np.zeros((1, 6), dtype=bool)
    known[0, [1, 5]] = True
    assert spread(texels, known)[0, :, 0].tolist() in ([10, 10, 10, c, 90, 90] for c in (10, 90))
