"""Files of meshes: the stored numbers, byte by byte, and what other readers make of them."""

import io
import json
import struct

import numpy as np
import pytest
import trimesh
from PIL import Image

from colors import to_linear, to_srgb, viridis
from formats import of_mesh, read_glb, write_glb, write_obj, write_ply, write_stl
from painting import Points
from texture import Texture

BYTES = np.array([[128, 0, 255], [10, 20, 30], [255, 255, 255], [0, 0, 0]], dtype=np.uint8)
LINEAR_128 = 0.21586  # ((128 / 255 + 0.055) / 1.055) ** 2.4


def tetrahedron() -> trimesh.Trimesh:
    vertices = [[0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1]]
    faces = [[0, 2, 1], [0, 1, 3], [0, 3, 2], [1, 2, 3]]
    mesh = trimesh.Trimesh(vertices, faces, process=False)
    mesh.visual = trimesh.visual.ColorVisuals(mesh, vertex_colors=BYTES)
    return mesh


def texture() -> Texture:
    """Four texels; uv in the middle of the upper left, upper right, lower left, lower right one."""
    picture = Image.fromarray(BYTES.reshape(2, 2, 3))
    uv = np.array([[0.25, 0.25], [0.75, 0.25], [0.25, 0.75], [0.75, 0.75]])
    return Texture(uv, picture)


class Glb:
    """A reader of its own: just enough of the format."""

    def __init__(self, data: bytes) -> None:
        magic, version, length = struct.unpack_from("<4sII", data)
        assert magic == b"glTF" and version == 2 and length == len(data)
        size, kind = struct.unpack_from("<I4s", data, 12)
        assert kind == b"JSON" and size % 4 == 0
        self.tree = json.loads(data[20 : 20 + size])
        rest, kind = struct.unpack_from("<I4s", data, 20 + size)
        assert kind == b"BIN\0" and rest % 4 == 0
        self.buffer = data[28 + size :]
        assert len(self.buffer) == rest == self.tree["buffers"][0]["byteLength"]
        (self.primitive,) = self.tree["meshes"][0]["primitives"]

    def view(self, index: int) -> bytes:
        view = self.tree["bufferViews"][index]
        return self.buffer[view["byteOffset"] :][: view["byteLength"]]

    def attribute(self, name: str) -> np.ndarray:
        accessor = self.tree["accessors"][self.primitive["attributes"][name]]
        assert accessor["componentType"] == 5126
        return np.frombuffer(self.view(accessor["bufferView"]), "<f4").reshape(
            accessor["count"], -1
        )

    def faces(self) -> np.ndarray:
        accessor = self.tree["accessors"][self.primitive["indices"]]
        assert accessor["componentType"] == 5125
        return np.frombuffer(self.view(accessor["bufferView"]), "<u4").reshape(-1, 3)

    def material(self) -> dict:
        return self.tree["materials"][self.primitive["material"]]


# glb


def test_vertex_colors_of_a_glb_are_linear_light() -> None:
    glb = Glb(write_glb(tetrahedron()))
    color = glb.attribute("COLOR_0")
    assert color[0] == pytest.approx([LINEAR_128, 0.0, 1.0], abs=1e-5)
    assert color[1, 0] == pytest.approx(10 / 255 / 12.92, rel=1e-5)  # dark: not rounded to a byte
    assert (to_srgb(color) * 255).round().astype(int).tolist() == BYTES.tolist()


def test_geometry_of_a_glb() -> None:
    mesh = tetrahedron()
    glb = Glb(write_glb(mesh))
    assert np.array_equal(glb.attribute("POSITION"), mesh.vertices)
    assert np.array_equal(glb.faces(), mesh.faces)
    assert np.allclose(glb.attribute("NORMAL"), mesh.vertex_normals, atol=1e-6)
    accessor = glb.tree["accessors"][glb.primitive["attributes"]["POSITION"]]
    assert accessor["min"] == [0, 0, 0] and accessor["max"] == [1, 1, 1]


def test_the_material_is_matte_and_leaves_colors_alone() -> None:
    material = Glb(write_glb(tetrahedron())).material()
    assert material["pbrMetallicRoughness"]["metallicFactor"] == 0  # glTF's default is a metal
    assert "baseColorFactor" not in material["pbrMetallicRoughness"]
    assert material["extensions"]["KHR_materials_specular"] == {"specularFactor": 0}


def test_a_texture_in_a_glb_is_srgb_and_alone() -> None:
    glb = Glb(write_glb(tetrahedron(), texture()))
    assert glb.primitive["attributes"].keys() == {"POSITION", "NORMAL", "TEXCOORD_0"}
    assert np.allclose(glb.attribute("TEXCOORD_0"), texture().uv)
    index = glb.material()["pbrMetallicRoughness"]["baseColorTexture"]["index"]
    image = glb.tree["images"][glb.tree["textures"][index]["source"]]
    assert image["mimeType"] == "image/png"
    with Image.open(io.BytesIO(glb.view(image["bufferView"]))) as picture:
        assert np.asarray(picture).reshape(4, 3).tolist() == BYTES.tolist()


def test_another_reader_finds_the_same_glb() -> None:
    """trimesh turns uv around on reading, to its origin at the bottom."""
    plain = trimesh.load_mesh(io.BytesIO(write_glb(tetrahedron())), file_type="glb", process=False)
    assert plain.is_watertight and plain.volume == pytest.approx(1 / 6)
    textured = io.BytesIO(write_glb(tetrahedron(), texture()))
    mesh = trimesh.load_mesh(textured, file_type="glb", process=False)
    assert np.allclose(mesh.visual.uv, texture().uv * [1, -1] + [0, 1])
    assert mesh.visual.to_color().vertex_colors[:, :3].tolist() == BYTES.tolist()


def test_colors_come_back_from_a_glb() -> None:
    again = read_glb(write_glb(tetrahedron()))
    stored = np.asarray(again.visual.vertex_colors)[:, :3].astype(int)
    assert np.abs(stored - BYTES)[[0, 2, 3]].max() <= 1
    assert np.abs(stored - BYTES)[1].max() <= 7  # trimesh keeps 8 bits of linear light


# obj


def test_an_obj_without_texture_has_srgb_behind_its_positions() -> None:
    files = write_obj(tetrahedron())
    assert list(files) == ["mesh.mtl", "mesh.obj"]  # what is referred to comes first
    lines = files["mesh.obj"].decode().splitlines()
    assert lines[0] == "mtllib mesh.mtl"
    assert "v 0.000000 0.000000 0.000000 0.5020 0.0000 1.0000" in lines
    assert "f 1//1 3//3 2//2" in lines
    assert b"map_Kd" not in files["mesh.mtl"]


def test_an_obj_with_texture_counts_from_the_bottom() -> None:
    files = write_obj(tetrahedron(), texture(), name="thing")
    assert list(files) == ["thing.png", "thing.mtl", "thing.obj"]
    lines = files["thing.obj"].decode().splitlines()
    assert "vt 0.250000 0.750000" in lines and "v 0.000000 0.000000 0.000000" in lines
    assert "f 1/1/1 3/3/3 2/2/2" in lines
    assert "map_Kd thing.png" in files["thing.mtl"].decode().splitlines()
    with Image.open(io.BytesIO(files["thing.png"])) as picture:
        assert np.asarray(picture).reshape(4, 3).tolist() == BYTES.tolist()


@pytest.mark.parametrize("surface", [None, texture()], ids=["colors", "texture"])
def test_another_reader_finds_the_same_obj(tmp_path, surface) -> None:
    for name, data in write_obj(tetrahedron(), surface).items():
        (tmp_path / name).write_bytes(data)
    mesh = trimesh.load_mesh(tmp_path / "mesh.obj", process=False)
    assert mesh.volume == pytest.approx(1 / 6)
    if surface is None:  # beside a material, trimesh takes colors for just some numbers
        colors = mesh.vertex_attributes["color"]
    else:
        colors = mesh.visual.to_color().vertex_colors[:, :3] / 255
    order = tetrahedron().kdtree.query(mesh.vertices)[1]
    assert np.abs(255 * np.asarray(colors)[:, :3] - BYTES[order]).max() < 1


# ply, stl


def test_the_bytes_of_a_ply() -> None:
    mesh = tetrahedron()
    data = write_ply(of_mesh(mesh), mesh.faces)
    header, body = data.split(b"end_header\n")
    assert header.startswith(b"ply\nformat binary_little_endian 1.0\nelement vertex 4\n")
    assert b"element face 4\nproperty list uchar int vertex_indices" in header
    assert len(body) == 4 * (24 + 3) + 4 * (1 + 12)
    assert body[24:27] == bytes([128, 0, 255])  # sRGB, as it is
    assert struct.unpack_from("<3f", body, 27) == (1, 0, 0)
    assert struct.unpack_from("<B3i", body, 4 * 27) == (3, 0, 2, 1)


def test_another_reader_finds_the_same_ply() -> None:
    mesh = tetrahedron()
    data = write_ply(of_mesh(mesh), mesh.faces)
    again = trimesh.load_mesh(io.BytesIO(data), file_type="ply", process=False)
    assert np.array_equal(again.faces, mesh.faces) and np.allclose(again.vertices, mesh.vertices)
    assert again.visual.vertex_colors[:, :3].tolist() == BYTES.tolist()
    assert np.allclose(again.vertex_normals, mesh.vertex_normals, atol=1e-6)


def test_a_cloud_is_a_ply_without_faces() -> None:
    cloud = Points(np.eye(3), np.eye(3)[::-1], np.array([[0.5, 0, 1], [0, 0, 0], [1, 1, 1]]))
    data = write_ply(cloud)
    assert b"face" not in data.split(b"end_header")[0]
    again = trimesh.load(io.BytesIO(data), file_type="ply")
    assert np.array_equal(again.vertices, np.eye(3))
    assert again.colors[:, :3].tolist() == [[128, 0, 255], [0, 0, 0], [255, 255, 255]]


def test_an_stl_holds_the_shape() -> None:
    data = write_stl(tetrahedron())
    assert len(data) == 84 + 4 * 50 and struct.unpack_from("<I", data, 80) == (4,)
    again = trimesh.load_mesh(io.BytesIO(data), file_type="stl")
    assert again.is_watertight and again.volume == pytest.approx(1 / 6)


# Colors


def test_srgb_and_linear_are_inverse() -> None:
    srgb = np.linspace(0, 1, 101)
    assert np.allclose(to_srgb(to_linear(srgb)), srgb, atol=1e-6)
    assert to_linear(np.array([0.0, 0.5, 1.0])) == pytest.approx([0, 0.21404, 1], abs=1e-4)


def test_the_scale_of_depth_grows_brighter_evenly() -> None:
    """Viridis: its ends and middle as published, and even steps of lightness (CIE L*)."""
    assert (viridis(np.array([0.0, 0.5, 1.0])) * 255).round().tolist() == [
        [0x44, 0x01, 0x54], [0x21, 0x91, 0x8C], [0xFD, 0xE7, 0x25],
    ]  # fmt: skip
    luminance = to_linear(viridis(np.linspace(0, 1, 33))) @ [0.2126, 0.7152, 0.0722]
    lightness = 116 * np.cbrt(luminance) - 16
    steps = np.diff(lightness)
    assert steps.min() > 0.5 * steps.mean() and steps.max() < 1.6 * steps.mean()
