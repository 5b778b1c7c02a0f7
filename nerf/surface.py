"""From the field to a mesh that looks like the rendering, watertight, without floaters.

The frame is that of glTF: right-handed, +Y up.
"""

import dataclasses
from collections.abc import Callable

import numpy as np
import torch
import trimesh
from scipy.spatial import cKDTree

from field import Volume
from fitting import fitted
from grids import distances
from painting import painted
from silhouettes import Level, all_around, best_level, scan

CAMERAS = all_around(12, turn=7.5)
"""What the surface is fitted to: not the views that the agreement is measured by."""
ENOUGH = 0.98
"""Agreement of a level's outlines that fitting does not improve."""


class NothingFormed(ValueError):
    """A field has no surface: it is empty, or haze."""


def extract(
    volume: Volume,
    smallest_part: float = 0.02,
    faces: int | None = None,
    level: Level | None = None,
    before_each: Callable[[], None] = lambda: None,
) -> trimesh.Trimesh:
    """The surface of a volume, watertight, with its normals and sRGB colors at the vertices.

    Args:
        volume: the field.
        smallest_part: separate parts below this fraction of the largest one's volume are dropped.
        faces: at most so many, see `decimated`; None keeps all.
        level: of the surface, `automatic_level` if not given. Where its outlines agree too little
            with the rendering's, the surface is fitted to them, see `fitted`.
        before_each: called before each stage of the work; it may raise, to stop.

    Raises:
        NothingFormed: the field is empty or has no border.
    """
    before_each()
    if level is None:
        level = automatic_level(volume)
    before_each()
    enough = level.agreement >= ENOUGH
    body = volume if enough else fitted(volume, level.density, CAMERAS)
    before_each()
    mesh = largest_parts(isosurface(body, level.density), smallest_part)
    if faces is not None:
        mesh = decimated(mesh, faces)
    before_each()
    return painted(mesh, body, volume)


def automatic_level(volume: Volume) -> Level:
    """The level whose solid body looks most like the rendering, see `best_level`.

    Raises:
        NothingFormed: the field is empty.
    """
    found = scan(volume, CAMERAS)
    largest = float(found.densest.max())
    if not largest > 1e-6:
        raise NothingFormed(
            f"field is empty: the largest density that a ray meets is {largest:.2g}, expected "
            "some above 0. More steps, another seed or a lower losses.transmittance may help."
        )
    return best_level(found)


def without_floaters(
    volume: Volume, level: float, smallest_part: float = 0.02
) -> tuple[Volume, int]:
    """The volume without what lies nearest to small separate parts of its surface; their number.

    Raises:
        NothingFormed: nothing lies above the level.
    """
    mesh = isosurface(volume, level)
    part, size = _parts(mesh)
    small = (size > 0) & ~_large(size, smallest_part)
    if not small.any():
        return volume, 0
    part_of_vertex = np.zeros(len(mesh.vertices), dtype=np.int64)
    part_of_vertex[mesh.faces] = part[:, None]
    grid = (volume.density() > 1e-3 * level).cpu()
    voxels = torch.nonzero(grid).flip(dims=[1]) * (2 / (len(grid) - 1)) - 1
    nearest = cKDTree(mesh.vertices).query(voxels.numpy())[1]
    grid[grid.clone()] = torch.from_numpy(small[part_of_vertex[nearest]])
    nothing = min(float(volume.logits.min()), volume.logit_of(1e-3 * level))
    logits = volume.logits.masked_fill(grid.to(volume.logits.device), nothing)
    return dataclasses.replace(volume, logits=logits), int(small.sum())


def isosurface(volume: Volume, level: float) -> trimesh.Trimesh:
    """The closed surface where the density is `level`, cut off at the ball that is rendered.

    The logits are nearly a distance, so marching cubes places vertices more evenly on them than on
    the steep density. A layer of emptiness is added around.

    Raises:
        NothingFormed: nothing lies above the level.
    """
    from skimage.measure import marching_cubes  # of an extra, see `check_files`

    logits = volume.logits[0, 0].detach().float().cpu()
    border = volume.logit_of(level)
    size = len(logits)
    inside = logits.minimum(border + 20 * (1 - distances(size)))
    xyz = np.pad(inside.permute(2, 1, 0).numpy(), 1, constant_values=border - 1)
    if not xyz.max() > border:
        raise NothingFormed(
            f"field has no surface at density {level:.3g}: no voxel exceeds it. Its density may "
            "be the same everywhere; more steps or another seed may help."
        )
    vertices, faces, _, _ = marching_cubes(xyz, border, gradient_direction="ascent")
    return trimesh.Trimesh((vertices - 1) * (2 / (size - 1)) - 1, faces, process=False)


def largest_parts(mesh: trimesh.Trimesh, smallest_part: float) -> trimesh.Trimesh:
    """The mesh without small separate parts and without cavities, which have negative volume."""
    part, size = _parts(mesh)
    mesh = mesh.copy()
    mesh.update_faces(_large(size, smallest_part)[part])
    mesh.remove_unreferenced_vertices()
    return mesh


def decimated(mesh: trimesh.Trimesh, faces: int) -> trimesh.Trimesh:
    """The mesh with at most `faces` triangles, by quadric edge collapse; still watertight.

    Now and then a collapse pinches the surface. Then slightly fewer triangles are tried, ten times
    at most; if that does not help either, the mesh stays as it is.
    """
    import fast_simplification

    for attempt in range(10):
        target = int(faces * 0.95**attempt)
        if target >= len(mesh.faces):
            return mesh
        vertices, triangles = fast_simplification.simplify(
            np.asarray(mesh.vertices, dtype=np.float32),
            np.asarray(mesh.faces, dtype=np.int32),
            target_count=target,
        )
        smaller = trimesh.Trimesh(vertices, triangles, process=False)
        smaller.remove_unreferenced_vertices()
        if smaller.is_watertight and smaller.is_winding_consistent and smaller.volume > 0:
            return smaller
    return mesh


def _parts(mesh: trimesh.Trimesh) -> tuple[np.ndarray, np.ndarray]:
    """The connected part that each face belongs to, and the volume of each part."""
    part = trimesh.graph.connected_component_labels(mesh.face_adjacency, node_count=len(mesh.faces))
    corners = mesh.triangles
    share = np.einsum("fi,fi->f", corners[:, 0], np.cross(corners[:, 1], corners[:, 2])) / 6
    return part, np.bincount(part, weights=share)


def _large(size: np.ndarray, smallest_part: float) -> np.ndarray:
    """Which parts stay: the largest, and all of at least that fraction of its volume."""
    kept = size >= max(smallest_part * size.max(), 0.0)
    kept[size.argmax()] = True
    return kept
