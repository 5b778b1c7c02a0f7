"""The field's colors and normals on its surface: of vertices, texels and points.

Colors are sRGB everywhere in this program, meshes in memory included; `formats` converts where a
file format wants linear light.
"""

from typing import NamedTuple

import numpy as np
import torch
import trimesh
from jaxtyping import Float, Int
from torch import Tensor

from colors import as_bytes
from field import Volume


class Points(NamedTuple):
    """Points of a surface, with what is known there; colors are sRGB in [0, 1]."""

    positions: Float[np.ndarray, "points 3"]
    normals: Float[np.ndarray, "points 3"]
    colors: Float[np.ndarray, "points 3"]


def painted(mesh: trimesh.Trimesh, body: Volume, volume: Volume) -> trimesh.Trimesh:
    """The mesh with the normals of the body that it bounds, and the colors of the field."""
    normals = body_normals(body, mesh.vertices, mesh.vertex_normals)
    painted = trimesh.Trimesh(mesh.vertices, mesh.faces, vertex_normals=normals, process=False)
    color = surface_colors(volume, painted.vertices, normals)
    painted.visual = trimesh.visual.ColorVisuals(painted, vertex_colors=as_bytes(color))
    return painted


def sampled_points(
    mesh: trimesh.Trimesh, volume: Volume, count: int, generator: torch.Generator
) -> Points:
    """Points evenly spread over a painted mesh, with its normals and the field's colors."""
    face = torch.multinomial(
        torch.tensor(mesh.area_faces), count, replacement=True, generator=generator
    ).numpy()
    first, second = torch.rand(2, count, generator=generator, dtype=torch.float64).numpy()
    root = np.sqrt(first)  # Osada et al. 2002, eq. 1
    weights = np.stack([1 - root, root * (1 - second), root * second], axis=1)
    positions, normals = on_faces(mesh, face, weights)
    return Points(positions, normals, surface_colors(volume, positions, normals))


def on_faces(
    mesh: trimesh.Trimesh, face: Int[np.ndarray, " points"], weights: Float[np.ndarray, "points 3"]
) -> tuple[Float[np.ndarray, "points 3"], Float[np.ndarray, "points 3"]]:
    """Positions and unit normals at barycentric weights of faces."""
    corners = mesh.faces[face]
    positions = np.einsum("pk,pkc->pc", weights, mesh.vertices[corners])
    normals = np.einsum("pk,pkc->pc", weights, mesh.vertex_normals[corners])
    return positions, normals / np.linalg.norm(normals, axis=1, keepdims=True).clip(1e-9)


@torch.no_grad()
def body_normals(
    body: Volume,
    positions: Float[np.ndarray, "points 3"],
    geometric: Float[np.ndarray, "points 3"],
) -> Float[np.ndarray, "points 3"]:
    """Unit normals of the body, smoother than `geometric`; that where the two disagree.

    From 37 degrees between them on, the one fades into the other; beyond 73 it is gone.
    """
    points = torch.tensor(positions).to(body.logits)
    normals = body(points)[2].T.double().cpu().numpy()
    cosine = np.einsum("pc,pc->p", normals, geometric)
    share = np.clip((cosine - 0.3) / 0.5, 0, 1)[:, None]
    mixed = share * normals + (1 - share) * geometric
    return mixed / np.linalg.norm(mixed, axis=1, keepdims=True)


@torch.no_grad()
def surface_colors(
    volume: Volume,
    positions: Float[np.ndarray, "points 3"],
    normals: Float[np.ndarray, "points 3"],
    samples: int = 8,
    at_once: int = 65536,
) -> Float[np.ndarray, "points 3"]:
    """sRGB colors that a viewer sees who looks straight at the surface, in [0, 1].

    A short ray from two voxels outside to two voxels inside is rendered at each point, as pictures
    are. A point that decimation has moved off the surface gets the color of the surface too.
    """
    reach = 4 / (volume.logits.shape[-1] - 1)
    offsets = torch.linspace(reach, -reach, samples).to(volume.logits)
    step = 2 * reach / (samples - 1)
    colors = []
    for i in range(0, len(positions), at_once):
        points, outward = (
            torch.tensor(part[i : i + at_once]).to(volume.logits) for part in (positions, normals)
        )
        along = points[:, None] + outward[:, None] * offsets[:, None]
        density, color, _ = volume(along.view(-1, 3))
        colors.append(_seen(density.view(-1, samples), color.view(3, -1, samples), step))
    return torch.cat(colors, dim=1).T.double().cpu().numpy()


def _seen(density: Tensor, color: Tensor, step: float) -> Tensor:
    """Mean colors along short rays, weighted by the light absorbed; never of nothing."""
    thickness = density * step + 1e-6
    before = thickness.cumsum(dim=1) - thickness
    weight = (-before).exp() * -torch.expm1(-thickness)
    return (weight * color).sum(dim=2) / weight.sum(dim=1)
