"""Pictures of triangle meshes, on a CPU, without a graphics library.

Every triangle is cut into one surface sample for each sub-pixel center it covers, the samples are
z-buffered, and sub-pixels are averaged into pixels. There are no holes and no fattened outlines,
whatever the size of the triangles. Shading is a separate function of the normals.

Frames: the world is right-handed with +Y up. Azimuth 0 looks from +Z, azimuth 90 from +X;
elevation 90 looks straight down. Nothing here is differentiable.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
import torch
import trimesh
from jaxtyping import Float, Int
from torch import Tensor

ColorSpace = Literal["srgb", "linear"]

SLACK = 1e-7
"""Sub-pixels by which a triangle reaches over its edge, so that neighbors leave no crack."""


class Render(NamedTuple):
    """Views of a mesh.

    `color` is straight (not multiplied by coverage), sRGB in [0, 1], and 0 where nothing is seen.
    `coverage` is the covered fraction of each pixel. `normals` are in the camera's frame (x right,
    y up, z towards the viewer), turned towards the viewer and averaged over the covered sub-pixels,
    so shorter than 1 at creases.
    """

    color: Float[Tensor, "views 3 height width"]
    coverage: Float[Tensor, "views 1 height width"]
    normals: Float[Tensor, "views 3 height width"]

    def over(
        self, background: float | Float[Tensor, "#views #3 #height #width"]
    ) -> Float[Tensor, "views 3 height width"]:
        """The picture in front of a background: one gray value, or anything that broadcasts."""
        return self.color * self.coverage + background * (1 - self.coverage)


@dataclass(frozen=True)
class Light:
    """A lamp that moves with the camera: `direction` points to it, in the camera's frame."""

    direction: tuple[float, float, float] = (-0.4, 0.6, 0.7)
    ambient: float = 0.55


def render_mesh(
    mesh: trimesh.Trimesh,
    azimuth: float | Sequence[float] = 30.0,
    elevation: float = 25.0,
    size: tuple[int, int] = (64, 64),
    *,
    distance: float = 3.5,
    fov: float = 35.0,
    light: Light | None = None,
    color_space: ColorSpace = "srgb",
    supersample: int = 2,
) -> Render:
    """Views of a mesh around the origin, one for each azimuth.

    Args:
        mesh: with or without vertex colors (gray then); the unit ball just fits by default.
        azimuth: degrees; several make several views.
        elevation: degrees, in [-90, 90].
        size: (height, width) in pixels.
        distance: of the camera from the origin. Triangles that reach behind it are left out.
        fov: vertical field of view in degrees.
        light: Lambert shading; None keeps the colors of the surface.
        color_space: how the mesh stores its vertex colors. glTF says that COLOR_0 is linear light;
            trimesh and most of its users write sRGB values there, the default.
        supersample: sub-pixels per pixel along each axis.

    Raises:
        ValueError: a size, a supersampling, a distance, a field of view or a color space that makes
            no picture, or a mesh without faces.
    """
    _check(mesh, size, distance, fov, supersample)
    surface = _surface(mesh, color_space)
    fine = (size[0] * supersample, size[1] * supersample)
    azimuths = [azimuth] if isinstance(azimuth, int | float) else list(azimuth)
    views = [_view(surface, look(angle, elevation), distance, fov, fine) for angle in azimuths]
    render = _averaged(torch.from_numpy(np.stack(views)), supersample)
    if light is None:
        return render
    direction = torch.tensor([light.direction], dtype=render.normals.dtype)
    ambient = torch.tensor([light.ambient], dtype=render.normals.dtype)
    brightness = lambert(render.normals, direction, ambient)
    return render._replace(color=render.color * brightness)


def lambert(
    normals: Float[Tensor, "views 3 height width"],
    direction: Float[Tensor, "#views 3"],
    ambient: Float[Tensor, " #views"],
) -> Float[Tensor, "views 1 height width"]:
    """Brightness in [0, 1]: ambient + (1 - ambient) * max(0, cosine to the light)."""
    towards = torch.nn.functional.normalize(direction, dim=1)[:, :, None, None]
    cosine = (normals * towards).sum(dim=1, keepdim=True).clamp(0, 1)
    ambient = ambient[:, None, None, None]
    return ambient + (1 - ambient) * cosine


def linear_to_srgb(linear: np.ndarray) -> np.ndarray:
    """sRGB values in [0, 1] of linear light in [0, 1] (IEC 61966-2-1)."""
    bent = 1.055 * np.maximum(linear, 0.0031308) ** (1 / 2.4) - 0.055
    return np.where(linear <= 0.0031308, 12.92 * linear, bent)


def look(azimuth: float, elevation: float) -> Float[np.ndarray, "3 3"]:
    """The rotation from the world to the camera's frame; its rows are right, up, to the viewer."""
    azimuth, elevation = np.radians([azimuth, elevation])
    right = [np.cos(azimuth), 0.0, -np.sin(azimuth)]
    viewer = [
        np.cos(elevation) * np.sin(azimuth),
        np.sin(elevation),
        np.cos(elevation) * np.cos(azimuth),
    ]
    return np.stack([right, np.cross(viewer, right), viewer])


def _check(
    mesh: trimesh.Trimesh, size: tuple[int, int], distance: float, fov: float, supersample: int
) -> None:
    if len(mesh.faces) == 0:
        raise ValueError("mesh has no faces; expected a surface of at least one triangle.")
    if min(size) < 1 or supersample < 1:
        raise ValueError(
            f"size is {size} and supersample {supersample}; expected (height, width) and "
            "sub-pixels of at least 1."
        )
    if distance <= 0 or not 0 < fov < 180:
        raise ValueError(
            f"distance is {distance} and fov {fov}; expected a positive distance and an angle "
            "between 0 and 180 degrees."
        )


class _Surface(NamedTuple):
    corners: Float[np.ndarray, "faces 3 3"]
    normals: Float[np.ndarray, "faces 3 3"]
    colors: Float[np.ndarray, "faces 3 3"]


def _surface(mesh: trimesh.Trimesh, color_space: ColorSpace) -> _Surface:
    """The corners of the mesh; their normals are smooth unless the face lies across a crease."""
    if color_space not in ("srgb", "linear"):
        raise ValueError(f"color_space is {color_space!r}; expected 'srgb' or 'linear'.")
    visual = mesh.visual
    if isinstance(visual, trimesh.visual.TextureVisuals):
        visual = visual.to_color()
    assert isinstance(visual, trimesh.visual.ColorVisuals)
    stored = np.asarray(visual.vertex_colors).reshape(-1, 4)[:, :3]  # one row if all are alike
    colors = np.broadcast_to(stored / 255, mesh.vertices.shape)
    if color_space == "linear":
        colors = linear_to_srgb(colors)
    flat = np.repeat(mesh.face_normals[:, None], 3, axis=1)
    smooth = mesh.vertex_normals[mesh.faces]
    crease = (flat * smooth).sum(axis=2, keepdims=True) < 0.8
    return _Surface(mesh.vertices[mesh.faces], np.where(crease, flat, smooth), colors[mesh.faces])


def _view(
    surface: _Surface,
    rotation: Float[np.ndarray, "3 3"],
    distance: float,
    fov: float,
    size: tuple[int, int],
) -> Float[np.ndarray, "channels height width"]:
    """Channels of one view: color and normals (0 where nothing is seen), then coverage 0 or 1."""
    height, width = size
    camera = surface.corners @ rotation.T
    depth = distance - camera[:, :, 2]
    seen = np.flatnonzero((depth > 1e-3).all(axis=1))
    depth = depth[seen]
    focal = height / (2 * np.tan(np.radians(fov) / 2))
    x = width / 2 + focal * camera[seen, :, 0] / depth
    y = height / 2 - focal * camera[seen, :, 1] / depth
    pixel, face, weights = _nearest(x, y, 1 / depth, size)
    face = seen[face]
    color = np.einsum("fk,fkc->fc", weights, surface.colors[face])
    normal = np.einsum("fk,fkc->fc", weights, surface.normals[face]) @ rotation.T
    position = np.einsum("fk,fkc->fc", weights, camera[face]) - [0, 0, distance]
    normal *= np.where((normal * position).sum(axis=1, keepdims=True) > 0, -1, 1)
    normal /= np.linalg.norm(normal, axis=1, keepdims=True).clip(1e-9)
    channels = np.zeros((height * width, 7), dtype=np.float32)
    channels[pixel] = np.concatenate([color, normal, np.ones_like(color[:, :1])], axis=1)
    return np.ascontiguousarray(channels.T).reshape(7, height, width)


def _nearest(
    x: Float[np.ndarray, "faces 3"],
    y: Float[np.ndarray, "faces 3"],
    nearness: Float[np.ndarray, "faces 3"],
    size: tuple[int, int],
) -> tuple[Int[np.ndarray, " seen"], Int[np.ndarray, " seen"], Float[np.ndarray, "seen 3"]]:
    """Covered pixels, the nearest face in each, and its weights of the three corners.

    `nearness` is 1 / depth: it is affine on the screen, so it needs no perspective correction.
    """
    area = _cross(x, y, np.arange(3))
    face, row, column = _samples(x, y, size)
    face, row, column = (part[area[face] != 0] for part in (face, row, column))
    weights = _weights(x, y, area, face, row, column)
    near = (weights * nearness[face]).sum(axis=1)
    pixel = row * size[1] + column
    nearest = np.zeros(size[0] * size[1])
    np.maximum.at(nearest, pixel, near)
    owner = np.full(size[0] * size[1], -1)
    front = np.flatnonzero(near == nearest[pixel])
    owner[pixel[front]] = front
    front = owner[owner >= 0]
    corrected = weights[front] * nearness[face[front]]
    return pixel[front], face[front], corrected / corrected.sum(axis=1, keepdims=True)


def _cross(x: np.ndarray, y: np.ndarray, corners: np.ndarray) -> np.ndarray:
    """Twice the signed area of the triangles."""
    a, b, c = corners
    return (x[:, b] - x[:, a]) * (y[:, c] - y[:, a]) - (x[:, c] - x[:, a]) * (y[:, b] - y[:, a])


def _weights(
    x: np.ndarray,
    y: np.ndarray,
    area: np.ndarray,
    face: np.ndarray,
    row: np.ndarray,
    column: np.ndarray,
) -> Float[np.ndarray, "samples 3"]:
    """Barycentric coordinates of pixel centers on the screen."""
    right, down = column + 0.5 - x[face, 2], row + 0.5 - y[face, 2]
    inverse = 1 / area[face]
    first = ((y[:, 1] - y[:, 2])[face] * right + (x[:, 2] - x[:, 1])[face] * down) * inverse
    second = ((y[:, 2] - y[:, 0])[face] * right + (x[:, 0] - x[:, 2])[face] * down) * inverse
    return np.stack([first, second, 1 - first - second], axis=1)


def _samples(
    x: Float[np.ndarray, "faces 3"], y: Float[np.ndarray, "faces 3"], size: tuple[int, int]
) -> tuple[Int[np.ndarray, " samples"], Int[np.ndarray, " samples"], Int[np.ndarray, " samples"]]:
    """Face, row and column of every pixel center inside a triangle: row spans, then columns."""
    face, row = _spans(y.min(axis=1), y.max(axis=1), size[0])
    ends = [_crossing(x, y, face, row + 0.5, a, b) for a, b in ((0, 1), (1, 2), (2, 0))]
    left = np.min([np.where(np.isnan(end), np.inf, end) for end in ends], axis=0)
    right = np.max([np.where(np.isnan(end), -np.inf, end) for end in ends], axis=0)
    span, column = _spans(left, right, size[1])
    return face[span], row[span], column


def _crossing(
    x: np.ndarray, y: np.ndarray, face: np.ndarray, middle: np.ndarray, a: int, b: int
) -> Float[np.ndarray, " spans"]:
    """Where the edge from corner a to b meets the middle of a row; NaN where it does not."""
    start, rise = y[face, a], (y[:, b] - y[:, a])[face]
    low, high = np.minimum(start, start + rise), np.maximum(start, start + rise)
    meets = (middle >= low - SLACK) & (middle <= high + SLACK) & (rise != 0)
    along = np.clip((middle - start) / np.where(meets, rise, np.nan), 0, 1)
    return x[face, a] + along * (x[:, b] - x[:, a])[face]


def _spans(
    low: Float[np.ndarray, " items"], high: Float[np.ndarray, " items"], limit: int
) -> tuple[Int[np.ndarray, " cells"], Int[np.ndarray, " cells"]]:
    """Item and cell for each cell in [0, limit) whose center lies in the item's [low, high]."""
    first = np.ceil(low - 0.5 - SLACK).clip(0, limit)
    last = np.floor(high - 0.5 + SLACK).clip(-1, limit - 1)
    count = np.maximum(last - first + 1, 0).astype(np.int64)
    item = np.repeat(np.arange(len(low)), count)
    within = np.arange(len(item)) - np.repeat(np.cumsum(count) - count, count)
    return item, first.astype(np.int64)[item] + within


def _averaged(fine: Float[Tensor, "views 7 tall wide"], supersample: int) -> Render:
    """Pixels from sub-pixels: the mean over the covered ones, and how many are covered."""
    mean = torch.nn.functional.avg_pool2d(fine, supersample)
    coverage = mean[:, 6:]
    straight = mean[:, :6] / coverage.clamp_min(1e-6)
    return Render(straight[:, :3].clamp(0, 1), coverage, straight[:, 3:])
