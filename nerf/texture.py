"""A texture for a mesh: unfolded by xatlas, colored by asking the field at every texel.

A texture holds what vertices are too few for: a mesh of a thousand triangles keeps all colors.
"""

from typing import NamedTuple

import numpy as np
import trimesh
from jaxtyping import Float
from PIL import Image
from scipy.ndimage import distance_transform_edt

from colors import as_bytes
from field import Volume
from painting import on_faces, surface_colors
from rasterize import covered

GUTTER = 4
"""Texels between the pieces, for filters and smaller copies of the picture."""


class Texture(NamedTuple):
    """A picture, and where each vertex lies in it."""

    uv: Float[np.ndarray, "vertices 2"]
    """In [0, 1] from the top left corner, as in glTF."""
    picture: Image.Image
    """sRGB, square."""


def baked(mesh: trimesh.Trimesh, volume: Volume, size: int) -> tuple[trimesh.Trimesh, Texture]:
    """The mesh, cut open along the seams of its texture, and the texture.

    Args:
        mesh: with normals at its vertices, as `extract` makes it.
        volume: the field it comes from.
        size: side of the picture in texels.
    """
    cut, uv = unfolded(mesh, size)
    hits = covered(uv[cut.faces] * size, size)
    positions, normals = on_faces(cut, hits.face, hits.weights)
    texels = np.zeros((size, size, 3), dtype=np.uint8)
    known = np.zeros((size, size), dtype=bool)
    texels[hits.row, hits.column] = as_bytes(surface_colors(volume, positions, normals))
    known[hits.row, hits.column] = True
    return cut, Texture(uv, Image.fromarray(spread(texels, known)))


def unfolded(mesh: trimesh.Trimesh, size: int) -> tuple[trimesh.Trimesh, np.ndarray]:
    """The mesh with vertices doubled along seams, and the uv of each, from the top left.

    Raises:
        ModuleNotFoundError: xatlas is not installed.
    """
    import xatlas

    atlas = xatlas.Atlas()
    atlas.add_mesh(
        np.asarray(mesh.vertices, dtype=np.float32),
        np.asarray(mesh.faces, dtype=np.uint32),
        np.asarray(mesh.vertex_normals, dtype=np.float32),
    )
    packing = xatlas.PackOptions()
    packing.resolution = size
    packing.padding = GUTTER
    packing.bilinear = True
    atlas.generate(pack_options=packing)
    origin, faces, uv = atlas[0]
    cut = trimesh.Trimesh(
        mesh.vertices[origin],
        faces.astype(np.int64),
        vertex_normals=mesh.vertex_normals[origin],
        process=False,
    )
    return cut, uv.astype(np.float64)


def spread(texels: np.ndarray, known: np.ndarray) -> np.ndarray:
    """The picture with every unknown texel like the nearest known one."""
    row, column = distance_transform_edt(~known, return_distances=False, return_indices=True)
    return texels[row, column]
