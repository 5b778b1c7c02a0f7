"""Meshes as input: files of any kind, with colors, and the signed distance to their surface."""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
import trimesh
from jaxtyping import Float
from scipy.ndimage import distance_transform_edt
from scipy.spatial import cKDTree
from torch import Tensor

from colors import to_srgb
from grids import vertices
from rasterize import covered

SUFFIXES = {".glb", ".gltf", ".obj", ".off", ".ply", ".stl"}
POINTS = 20_000
"""Where colors are read on a surface, beside its vertices."""
SIZE = 65
"""Voxels a side of signed distances."""
ASIDE = np.array([0.00131, 0.00217, 0.00173])
"""In voxels: columns pass beside the corners of meshes, which like to lie on round numbers. Once on
either side, so that what is symmetric stays so."""


class Painted(NamedTuple):
    """A closed surface, and colors near it."""

    mesh: trimesh.Trimesh
    places: Float[np.ndarray, "places 3"]
    colors: Float[np.ndarray, "places 3"]
    """sRGB in [0, 1] at the places."""

    def moved(self, center: Float[np.ndarray, "3"], scale: float) -> "Painted":
        """The same with `center` at the origin, then `scale` times as large."""
        mesh = self.mesh.copy()
        mesh.vertices = (mesh.vertices - center) * scale
        return self._replace(mesh=mesh, places=(self.places - center) * scale)


def read_mesh(path: Path, argument: str) -> Painted:
    """The mesh of a file, in its own coordinates.

    Args:
        path: of a file of `SUFFIXES`.
        argument: what messages call it.

    Raises:
        FileNotFoundError: it is not there.
        ValueError: it is of another kind or damaged, or its surface is not closed.
    """
    if not path.is_file():
        raise FileNotFoundError(
            f"{argument} {str(path)!r} not found; expected a mesh file, {_kinds()}."
        )
    if path.suffix.lower() not in SUFFIXES:
        raise ValueError(
            f"{argument} {str(path)!r} is of kind {path.suffix!r}; expected a mesh, {_kinds()}."
        )
    try:
        raw = trimesh.load_mesh(path, process=False)
        places, colors = _painted_places(raw, path)
        mesh = trimesh.Trimesh(raw.vertices, raw.faces, process=False)
        mesh.merge_vertices(merge_tex=True, merge_norm=True)
    except Exception as error:  # readers of many formats raise errors of many kinds
        reason = (str(error) or type(error).__name__).splitlines()[0].rstrip(".")
        raise ValueError(
            f"{argument} {str(path)!r} can't be read: {reason}. Export it again, as glb or ply."
        ) from error
    if not (len(mesh.faces) and np.isfinite(mesh.vertices).all()):
        raise ValueError(
            f"{argument} {str(path)!r} has {len(mesh.faces)} faces or coordinates that are not "
            "finite; expected a surface. Export it again, with its triangles."
        )
    if not mesh.is_watertight:
        raise ValueError(
            f"{argument} {str(path)!r} is not watertight; expected a closed surface, which has an "
            "inside. Close its holes, for example by Blender's voxel remesh or trimesh's "
            "repair.fill_holes."
        )
    return Painted(mesh, places, colors)


def signed_distance(mesh: trimesh.Trimesh, size: int = SIZE) -> Float[Tensor, "1 1 size size size"]:
    """Distance to a closed surface at the vertices of the cube's grid, negative inside.

    Good to about half a voxel. Only what lies in the cube [-1, 1]^3 counts.
    """
    both = [_distances(_inside(mesh, size, aside)) for aside in (ASIDE, -ASIDE)]
    return torch.from_numpy(sum(both) / 2 * (2 / (size - 1))).float()[None, None]


def _distances(inside: np.ndarray) -> np.ndarray:
    """In voxels, to the border of what is inside; farther than the cube is wide from nothing."""
    if not inside.any():
        return np.full(inside.shape, 2.0 * len(inside))
    outward = distance_transform_edt(~inside) - distance_transform_edt(inside)
    return outward - 0.5 * np.sign(outward)  # the border lies midway between two vertices


def colors_near(painted: Painted, size: int) -> Float[Tensor, "1 3 size size size"]:
    """At each vertex of a grid, the color of the nearest place."""
    at = vertices(size).view(-1, 3).numpy()
    nearest = cKDTree(painted.places).query(at)[1]
    colors = torch.from_numpy(painted.colors[nearest]).float()
    return colors.T.reshape(1, 3, size, size, size)


def _kinds() -> str:
    return ", ".join(sorted(SUFFIXES))


def _inside(mesh: trimesh.Trimesh, size: int, aside: np.ndarray) -> np.ndarray:
    """Which vertices (z, y, x) of the grid lie inside: where the surface winds around them.

    Each column along z is crossed by faces: those that look down open the inside, others close it.
    """
    if mesh.volume < 0:
        mesh = mesh.copy()
        mesh.invert()
    grid = (np.asarray(mesh.triangles) + 1) * ((size - 1) / 2) + aside
    flat = grid[:, :, :2] + 0.5
    hits = covered(flat, size)
    height = np.einsum("hk,hk->h", hits.weights, grid[hits.face, :, 2])
    (ax, ay), (bx, by) = (flat[:, 1] - flat[:, 0]).T, (flat[:, 2] - flat[:, 0]).T
    sign = -np.sign(ax * by - ay * bx)[hits.face]
    first = np.ceil(height).clip(0, size).astype(np.int64)
    winding = np.zeros((size + 1, size, size))
    np.add.at(winding, (first, hits.row, hits.column), sign)
    return winding.cumsum(axis=0)[:size] > 0.5


def _painted_places(
    mesh: trimesh.Trimesh, path: Path
) -> tuple[Float[np.ndarray, "places 3"], Float[np.ndarray, "places 3"]]:
    """The vertices and points spread evenly over the surface, with their sRGB colors."""
    visual, spread = mesh.visual, _spread(mesh)
    if isinstance(visual, trimesh.visual.TextureVisuals) and _has_picture(visual):
        seen = np.asarray(visual.material.to_color(spread(np.asarray(visual.uv))))
        return spread(np.asarray(mesh.vertices)), seen[:, :3] / 255
    return spread(np.asarray(mesh.vertices)), spread(_colors(mesh, path))


def _spread(mesh: trimesh.Trimesh) -> Callable[[np.ndarray], np.ndarray]:
    """What adds to values of the vertices those of points between them, the same ones each time."""
    areas = mesh.area_faces
    total = areas.sum() if len(areas) else 0.0
    if not 0 < total < np.inf:
        return lambda values: values
    random = np.random.default_rng(0)
    face = random.choice(len(areas), POINTS, p=areas / total)
    weights = random.dirichlet((1, 1, 1), POINTS)  # even over a triangle

    def spread(values: np.ndarray) -> np.ndarray:
        between = np.einsum("pk,pkc->pc", weights, values[mesh.faces[face]])
        return np.concatenate([values, between])

    return spread


def _colors(mesh: trimesh.Trimesh, path: Path) -> Float[np.ndarray, "vertices 3"]:
    """sRGB colors of the vertices of a mesh without a texture; gray where the file has none.

    COLOR_0 of glTF is linear light; other formats hold sRGB.
    """
    visual = mesh.visual
    gltf = path.suffix.lower() in {".glb", ".gltf"}
    if isinstance(visual, trimesh.visual.TextureVisuals):
        mesh = trimesh.load_mesh(path, process=False, skip_materials=True)
        plain = visual.to_color()
        visual = mesh.visual
        if not isinstance(visual, trimesh.visual.ColorVisuals) or not visual.defined:
            visual, gltf = plain, False
    if visual is None or not visual.defined:
        return np.full((len(mesh.vertices), 3), 0.5)
    stored = np.asarray(visual.vertex_colors).reshape(-1, 4)[:, :3] / 255
    colors = np.broadcast_to(stored, (len(mesh.vertices), 3))
    return to_srgb(colors) if gltf else colors


def _has_picture(visual: trimesh.visual.TextureVisuals) -> bool:
    material = visual.material
    picture = getattr(material, "baseColorTexture", None) or getattr(material, "image", None)
    return visual.uv is not None and picture is not None
