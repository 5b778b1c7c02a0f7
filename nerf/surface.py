"""From the field to a mesh: marching cubes at an automatic level, floaters removed, vertex colors.

Colors are sRGB everywhere in this program, meshes in memory included. glTF wants linear light in
COLOR_0, so `write_glb` converts (and `read_glb` back): Blender, three.js and other readers that
follow the specification then show the colors of the turntable.
"""

import io

import numpy as np
import torch
import trimesh
from jaxtyping import Float
from skimage.measure import marching_cubes
from torch import Tensor

from field import Volume

LEVELS = (0.02, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
MATERIAL = {
    "name": "vertex colors",
    "pbrMetallicRoughness": {
        "baseColorFactor": [1.0, 1.0, 1.0, 1.0],
        "metallicFactor": 0.0,
        "roughnessFactor": 0.9,
    },
}


def extract(volume: Volume, smallest_part: float = 0.05) -> trimesh.Trimesh:
    """The surface of a volume, watertight and in the frame of glTF, with sRGB vertex colors.

    Args:
        volume: the field.
        smallest_part: separate parts below this fraction of the largest one's volume are dropped.

    Raises:
        ValueError: the field is empty or has no border.
    """
    density = volume.density().detach()
    level = automatic_level(density)
    logits = volume.logits[0, 0].detach().float().cpu()
    border = float(np.log(level / (volume.max_density - level)))
    vertices, faces = _isosurface(logits, border)
    mesh = trimesh.Trimesh(vertices, faces, process=False)
    mesh = without_floaters(mesh, smallest_part)
    points = torch.from_numpy(np.asarray(mesh.vertices)).to(density)
    with torch.no_grad():
        color = volume(points)[1].T.cpu().numpy()
    mesh.visual = trimesh.visual.ColorVisuals(mesh, vertex_colors=_bytes(color))
    return mesh


def automatic_level(density: Float[Tensor, "depth height width"]) -> float:
    """The density whose hard surface looks most like the soft field.

    Of eleven fractions of the largest density: the one whose silhouettes along the three axes best
    overlap (intersection over union) where the field is at least half opaque.

    Raises:
        ValueError: the field is empty.
    """
    largest = float(density.max())
    if not largest > 1e-6:
        raise ValueError(
            f"field is empty: its largest density is {largest:.2g}, expected some above 0. "
            "More steps, another seed or a lower losses.transmittance may help."
        )
    step = 2 / (len(density) - 1)
    soft = torch.cat([(density.sum(dim=a) * step >= np.log(2)).flatten() for a in range(3)])
    overlaps = []
    for fraction in LEVELS:
        hard = density >= fraction * largest
        hard = torch.cat([hard.any(dim=a).flatten() for a in range(3)])
        overlaps.append(float((soft & hard).sum()) / max(float((soft | hard).sum()), 1.0))
    best = max(overlaps)
    near = [level for level, o in zip(LEVELS, overlaps, strict=True) if o >= best - 0.005]
    return largest * min(near, key=lambda level: abs(level - 0.5))


def without_floaters(mesh: trimesh.Trimesh, smallest_part: float) -> trimesh.Trimesh:
    """The mesh without small separate parts and without cavities, which have negative volume."""
    part = trimesh.graph.connected_component_labels(mesh.face_adjacency, node_count=len(mesh.faces))
    corners = mesh.triangles
    share = np.einsum("fi,fi->f", corners[:, 0], np.cross(corners[:, 1], corners[:, 2])) / 6
    volume = np.bincount(part, weights=share)
    kept = volume >= max(smallest_part * volume.max(), 0.0)
    kept[volume.argmax()] = True
    mesh = mesh.copy()
    mesh.update_faces(kept[part])
    mesh.remove_unreferenced_vertices()
    return mesh


def write_glb(mesh: trimesh.Trimesh) -> bytes:
    """The mesh as a binary glTF: normals, linear COLOR_0 (8 bit), a matte material."""
    linear = mesh.copy()
    color = vertex_colors(mesh)
    linear.visual = trimesh.visual.ColorVisuals(linear, vertex_colors=_bytes(to_linear(color)))
    scene = trimesh.Scene(linear)
    return scene.export(file_type="glb", include_normals=True, tree_postprocessor=_add_material)


def read_glb(data: bytes) -> trimesh.Trimesh:
    """The mesh of a binary glTF with linear COLOR_0, colors back in sRGB."""
    mesh = trimesh.load_mesh(io.BytesIO(data), file_type="glb", skip_materials=True, process=False)
    color = vertex_colors(mesh)
    mesh.visual = trimesh.visual.ColorVisuals(mesh, vertex_colors=_bytes(to_srgb(color)))
    return mesh


def vertex_colors(mesh: trimesh.Trimesh) -> np.ndarray:
    """The colors of the vertices, (vertices, 3) in [0, 1]."""
    assert isinstance(mesh.visual, trimesh.visual.ColorVisuals)
    return np.asarray(mesh.visual.vertex_colors)[:, :3] / 255


def to_linear(srgb: np.ndarray) -> np.ndarray:
    """Linear light of sRGB values in [0, 1] (IEC 61966-2-1)."""
    return np.where(srgb <= 0.04045, srgb / 12.92, ((srgb + 0.055) / 1.055) ** 2.4)


def to_srgb(linear: np.ndarray) -> np.ndarray:
    """sRGB values of linear light in [0, 1]."""
    bent = 1.055 * np.maximum(linear, 0.0031308) ** (1 / 2.4) - 0.055
    return np.where(linear <= 0.0031308, 12.92 * linear, bent)


def _isosurface(logits: Tensor, border: float) -> tuple[np.ndarray, np.ndarray]:
    """Vertices in the cube and outward faces; closed, since a layer of emptiness is added around.

    The field of logits is nearly a distance, so marching cubes places vertices more evenly on it
    than on the steep density.
    """
    size = len(logits)
    outside = min(float(logits.min()), border - 1.0)
    xyz = np.pad(logits.permute(2, 1, 0).numpy(), 1, constant_values=outside)
    if not xyz.max() > border:
        raise ValueError("field has no surface: its density is the same everywhere.")
    vertices, faces, _, _ = marching_cubes(xyz, border, gradient_direction="ascent")
    return (vertices - 1) * (2 / (size - 1)) - 1, faces


def _bytes(color: np.ndarray) -> np.ndarray:
    """RGBA bytes, opaque."""
    rgb = (np.clip(color, 0, 1) * 255).round().astype(np.uint8)
    return np.concatenate([rgb, np.full((len(rgb), 1), 255, dtype=np.uint8)], axis=1)


def _add_material(tree: dict) -> None:
    """Without one, glTF's default material is a metal, dark in most viewers."""
    tree["materials"] = [MATERIAL]
    for mesh in tree["meshes"]:
        for primitive in mesh["primitives"]:
            primitive["material"] = 0
