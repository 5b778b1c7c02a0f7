"""Meshes and points as files: glb, obj with mtl and png, ply, stl; all +Y up.

In memory colors are sRGB. glTF wants linear light in COLOR_0, so `write_glb` converts it, and
`read_glb` converts back. Textures are sRGB in every format, and so are the vertex colors of obj
and ply, as Blender, MeshLab and others read them.
"""

import io
import json
import struct

import numpy as np
import trimesh
from PIL import Image

from colors import as_bytes, to_linear, to_srgb, vertex_colors
from painting import Points
from texture import Texture

FLOAT, UNSIGNED = 5126, 5125
"""Component types of glTF."""
MATTE, NO_GLOSS = "KHR_materials_specular", {"specularFactor": 0.0}
"""Without it, readers add a reflection of the surroundings that the rendering has not."""
VERTEX_DATA, INDEX_DATA = 34962, 34963
"""Targets of buffer views in glTF."""


def write_glb(mesh: trimesh.Trimesh, texture: Texture | None = None) -> bytes:
    """The mesh as a binary glTF 2.0: normals, a matte material, and a texture or vertex colors.

    COLOR_0 is linear light as float32, since 8 bits of it are too few for dark colors. A textured
    mesh has none: readers would multiply both.
    """
    arrays = {
        "POSITION": np.asarray(mesh.vertices, np.float32),
        "NORMAL": np.asarray(mesh.vertex_normals, np.float32),
    }
    if texture is None:
        arrays["COLOR_0"] = to_linear(vertex_colors(mesh)).astype(np.float32)
    else:
        arrays["TEXCOORD_0"] = np.asarray(texture.uv, np.float32)
    tree, buffer = _geometry(arrays, np.asarray(mesh.faces, np.uint32))
    material: dict = {"metallicFactor": 0.0, "roughnessFactor": 0.9}
    if texture is not None:
        view = _append(tree, buffer, png(texture.picture))
        tree["images"] = [{"bufferView": view, "mimeType": "image/png"}]
        tree["samplers"] = [{"magFilter": 9729, "minFilter": 9987, "wrapS": 33071, "wrapT": 33071}]
        tree["textures"] = [{"source": 0, "sampler": 0}]
        material["baseColorTexture"] = {"index": 0}
    tree["materials"] = [
        {"name": "matte", "pbrMetallicRoughness": material, "extensions": {MATTE: NO_GLOSS}}
    ]
    tree["extensionsUsed"] = [MATTE]
    tree["buffers"] = [{"byteLength": len(buffer)}]
    return _container(json.dumps(tree, separators=(",", ":")).encode(), bytes(buffer))


def read_glb(data: bytes) -> trimesh.Trimesh:
    """The mesh of a binary glTF with linear COLOR_0, colors back in sRGB."""
    mesh = trimesh.load_mesh(io.BytesIO(data), file_type="glb", skip_materials=True, process=False)
    color = as_bytes(to_srgb(vertex_colors(mesh)))
    mesh.visual = trimesh.visual.ColorVisuals(mesh, vertex_colors=color)
    return mesh


def write_obj(
    mesh: trimesh.Trimesh, texture: Texture | None = None, name: str = "mesh"
) -> dict[str, bytes]:
    """Files by name, in the order to write them: a png where there is a texture, then mtl and obj.

    Without a texture the colors stand behind the positions ("v x y z r g b"), in sRGB, where
    Blender and MeshLab look for them.
    """
    material = ["newmtl matte", "Kd 1 1 1", "Ks 0 0 0", "illum 1"]
    files = {}
    if texture is None:
        rows = np.hstack([mesh.vertices, vertex_colors(mesh)])
        lines = _lines("v {:.6f} {:.6f} {:.6f} {:.4f} {:.4f} {:.4f}", rows)
        corner = "{0}//{0}"
    else:
        files[f"{name}.png"] = png(texture.picture)
        material.append(f"map_Kd {name}.png")
        lines = _lines("v {:.6f} {:.6f} {:.6f}", mesh.vertices)
        lines += _lines("vt {:.6f} {:.6f}", texture.uv * [1, -1] + [0, 1])  # from the bottom here
        corner = "{0}/{0}/{0}"
    lines += _lines("vn {:.4f} {:.4f} {:.4f}", mesh.vertex_normals)
    face = " ".join(corner.replace("0", i) for i in "012")
    lines += ["usemtl matte", *_lines(f"f {face}", mesh.faces + 1)]
    files[f"{name}.mtl"] = _text(material)
    files[f"{name}.obj"] = _text([f"mtllib {name}.mtl", f"o {name}", *lines])
    return files


def write_ply(points: Points, faces: np.ndarray | None = None) -> bytes:
    """A binary ply of a mesh, or of bare points: normals, sRGB colors as bytes."""
    vertex = np.empty(
        len(points.positions), [("position", "<f4", 3), ("normal", "<f4", 3), ("color", "u1", 3)]
    )
    vertex["position"], vertex["normal"] = points.positions, points.normals
    vertex["color"] = as_bytes(points.colors)
    header = ["ply", "format binary_little_endian 1.0", f"element vertex {len(vertex)}"]
    header += [f"property float {name}" for name in ("x", "y", "z", "nx", "ny", "nz")]
    header += [f"property uchar {name}" for name in ("red", "green", "blue")]
    body = vertex.tobytes()
    if faces is not None:
        face = np.empty(len(faces), [("count", "u1"), ("corners", "<i4", 3)])
        face["count"], face["corners"] = 3, faces
        header += [f"element face {len(face)}", "property list uchar int vertex_indices"]
        body += face.tobytes()
    return _text([*header, "end_header"]) + body


def write_stl(mesh: trimesh.Trimesh) -> bytes:
    """A binary stl: the shape alone, for a printer."""
    return trimesh.exchange.stl.export_stl(mesh)


def of_mesh(mesh: trimesh.Trimesh) -> Points:
    """The vertices of a mesh."""
    return Points(mesh.vertices, mesh.vertex_normals, vertex_colors(mesh))


def png(picture: Image.Image) -> bytes:
    """A picture as a PNG."""
    file = io.BytesIO()
    picture.save(file, "PNG")
    return file.getvalue()


def _geometry(arrays: dict[str, np.ndarray], faces: np.ndarray) -> tuple[dict, bytearray]:
    """The tree of a glTF with one mesh of material 0, and the buffer with its numbers."""
    tree: dict = {
        "asset": {"version": "2.0", "generator": "alphaclip-gen"},
        "scene": 0,
        "scenes": [{"nodes": [0]}],
        "nodes": [{"mesh": 0, "name": "mesh"}],
        "bufferViews": [],
        "accessors": [],
    }
    buffer = bytearray()
    attributes = {}
    for name, array in arrays.items():
        attributes[name] = len(tree["accessors"])
        view = _append(tree, buffer, array.tobytes(), VERTEX_DATA)
        kind = f"VEC{array.shape[1]}"
        tree["accessors"].append(_accessor(view, FLOAT, len(array), kind))
    tree["accessors"][0] |= {
        "min": arrays["POSITION"].min(axis=0).tolist(),
        "max": arrays["POSITION"].max(axis=0).tolist(),
    }
    primitive = {"attributes": attributes, "indices": len(tree["accessors"]), "material": 0}
    view = _append(tree, buffer, faces.tobytes(), INDEX_DATA)
    tree["accessors"].append(_accessor(view, UNSIGNED, faces.size, "SCALAR"))
    tree["meshes"] = [{"name": "mesh", "primitives": [primitive]}]
    return tree, buffer


def _accessor(view: int, component: int, count: int, kind: str) -> dict:
    return {"bufferView": view, "componentType": component, "count": count, "type": kind}


def _append(tree: dict, buffer: bytearray, data: bytes, target: int | None = None) -> int:
    """The index of a new buffer view of the data, which is put at the buffer's end."""
    view = {"buffer": 0, "byteOffset": len(buffer), "byteLength": len(data)}
    tree["bufferViews"].append(view if target is None else view | {"target": target})
    buffer += data + bytes(-len(data) % 4)
    return len(tree["bufferViews"]) - 1


def _container(text: bytes, data: bytes) -> bytes:
    """The two chunks of a glb, each padded to four bytes (glTF 2.0, section 4.4)."""
    text += b" " * (-len(text) % 4)
    head = struct.pack("<4sII", b"glTF", 2, 28 + len(text) + len(data))
    text = struct.pack("<I4s", len(text), b"JSON") + text
    return head + text + struct.pack("<I4s", len(data), b"BIN\0") + data


def _lines(pattern: str, rows: np.ndarray) -> list[str]:
    return [pattern.format(*row) for row in rows.tolist()]


def _text(lines: list[str]) -> bytes:
    return ("\n".join(lines) + "\n").encode()
