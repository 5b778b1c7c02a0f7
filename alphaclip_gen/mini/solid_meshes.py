"""The solids of `captions.SHAPES` as triangle meshes: upright along +Y, inside the unit ball.

They are written with `trimesh.creation` alone and share no code with the distance functions that
the guide was trained on. `roughen` and `blotch` make them look like what an optimisation returns:
lumpy, softened, patchy.
"""

from collections.abc import Callable

import numpy as np
import trimesh
from jaxtyping import Float
from scipy import ndimage

from .captions import SHAPES

Vary = Callable[[float], float]
"""Takes a proportion, gives it back changed by at most the jitter."""

SEGMENTS = 64


def solid_mesh(
    shape: str, rng: np.random.Generator | None = None, jitter: float = 0.2
) -> trimesh.Trimesh:
    """The solid `shape` with its bounding box centered at the origin, touching the unit sphere.

    Args:
        shape: one of `captions.SHAPES`.
        rng: varies every proportion by up to `jitter`; None keeps the canonical proportions.
        jitter: the largest relative change of a proportion, in [0, 1).

    Raises:
        ValueError: an unknown shape, or a jitter out of range.
    """
    if shape not in SHAPES:
        raise ValueError(f"shape is {shape!r}; expected one of {', '.join(SHAPES)}.")
    if not 0 <= jitter < 1:
        raise ValueError(f"jitter is {jitter}; expected a relative change in [0, 1).")

    def vary(value: float) -> float:
        return value if rng is None else value * (1 + rng.uniform(-jitter, jitter))

    return fit_unit_ball(_BUILDERS[shape](vary))


def fit_unit_ball(mesh: trimesh.Trimesh) -> trimesh.Trimesh:
    """A copy with the center of its bounding box at the origin and its farthest vertex at radius 1.

    Raises:
        ValueError: a mesh without faces or extent, or with coordinates that are not finite.
    """
    if len(mesh.faces) == 0:
        raise ValueError("mesh has no faces; expected a surface of at least one triangle.")
    if not np.isfinite(mesh.vertices).all():
        raise ValueError("mesh has vertices that are not finite; expected finite coordinates.")
    fitted = mesh.copy()
    fitted.apply_translation(-mesh.bounds.mean(axis=0))
    radius = np.linalg.norm(fitted.vertices, axis=1).max()
    if radius == 0:
        raise ValueError("mesh is a single point; expected a surface with an extent.")
    fitted.apply_scale(1 / radius)
    return fitted


def roughen(
    mesh: trimesh.Trimesh,
    rng: np.random.Generator,
    resolution: int = 44,
    softness: float = 1.0,
    lumps: float = 0.15,
) -> trimesh.Trimesh:
    """A copy with rounded edges and a lumpy surface, extracted from a voxel grid of the solid.

    Args:
        mesh: a closed mesh inside the unit ball.
        rng: draws the lumps.
        resolution: voxels per side of the cube [-1, 1]^3.
        softness: standard deviation of the blur, in voxels.
        lumps: standard deviation of the smooth noise that is added to the occupancy (0 .. 1)
            before its level 0.5 is extracted; pieces can come loose from about 0.2.

    Raises:
        ImportError: scikit-image is not installed.
    """
    from skimage.measure import marching_cubes

    pitch = 2 / resolution
    margin = 5
    voxels = mesh.voxelized(pitch).fill()
    filled = np.pad(voxels.matrix, margin)
    volume = (filled + ndimage.binary_erosion(filled).astype(np.float32)) / 2
    volume = ndimage.gaussian_filter(volume, softness)
    noise = ndimage.gaussian_filter(rng.standard_normal(volume.shape), rng.uniform(1.0, 3.0))
    near = ndimage.gaussian_filter(volume, 2.0) > 0.02
    volume = volume + near * noise * (lumps / noise.std())
    volume[[0, -1]] = volume[:, [0, -1]] = volume[:, :, [0, -1]] = 0
    vertices, faces, _, _ = marching_cubes(volume, level=0.5)
    origin = voxels.transform[:3, 3] - margin * pitch
    return trimesh.Trimesh(vertices * pitch + origin, faces[:, ::-1], process=False)


def blotch(
    mesh: trimesh.Trimesh,
    color: tuple[float, float, float],
    rng: np.random.Generator,
    amount: float = 0.0,
    waves: int = 6,
) -> trimesh.Trimesh:
    """A copy with vertex colors: `color` (sRGB, [0, 1]) plus smooth noise of deviation `amount`."""
    frequencies = rng.normal(0, 3.0, (3, waves, 3))
    phases = rng.uniform(0, 2 * np.pi, (3, waves))
    noise = np.sin(np.einsum("vi,cwi->vcw", mesh.vertices, frequencies) + phases).sum(axis=2)
    values = np.asarray(color) + amount * noise * np.sqrt(2 / waves)
    painted = mesh.copy()
    painted.visual = trimesh.visual.ColorVisuals(
        painted, vertex_colors=np.round(255 * values.clip(0, 1)).astype(np.uint8)
    )
    return painted


def _revolved(profile: Float[np.ndarray, "points 2"]) -> trimesh.Trimesh:
    """The closed profile (radius, height) turned around +Y."""
    mesh = trimesh.creation.revolve(profile, sections=SEGMENTS)
    mesh.apply_transform(_Z_TO_Y)
    return mesh


_Z_TO_Y = trimesh.transformations.rotation_matrix(-np.pi / 2, [1, 0, 0])


def _together(parts: list[trimesh.Trimesh]) -> trimesh.Trimesh:
    """One mesh of several that may overlap; what lies inside stays, unseen."""
    offsets = np.cumsum([0, *(len(part.vertices) for part in parts)])
    return trimesh.Trimesh(
        np.concatenate([part.vertices for part in parts]),
        np.concatenate([part.faces + start for part, start in zip(parts, offsets, strict=False)]),
        process=False,
    )


def _arc(radius: float, start: float, stop: float, points: int = 24) -> np.ndarray:
    """Points (x, y) on a circle, from angle `start` to `stop` in degrees."""
    angles = np.radians(np.linspace(start, stop, points))
    return radius * np.stack([np.cos(angles), np.sin(angles)], axis=1)


def _tube(radius: float, height: float) -> trimesh.Trimesh:
    return _revolved(
        np.array([[0, -height / 2], [radius, -height / 2], [radius, height / 2], [0, height / 2]])
    )


def _stretched(mesh: trimesh.Trimesh, vary: Vary) -> trimesh.Trimesh:
    """The mesh with each axis scaled; by half of the jitter, as two axes make one proportion."""
    mesh.apply_scale([(1 + vary(1.0)) / 2 for _ in range(3)])
    return mesh


def _sphere(vary: Vary) -> trimesh.Trimesh:
    return _stretched(trimesh.creation.icosphere(subdivisions=4), vary)


def _cube(vary: Vary) -> trimesh.Trimesh:
    return _stretched(trimesh.creation.box((1, 1, 1)), vary)


def _cylinder(vary: Vary) -> trimesh.Trimesh:
    return _tube(radius=1.0, height=vary(2.0))


def _cone(vary: Vary) -> trimesh.Trimesh:
    return _revolved(np.array([[0, 0], [1, 0], [0, vary(2.0)]]))


def _torus(vary: Vary) -> trimesh.Trimesh:
    mesh = trimesh.creation.torus(
        major_radius=1.0, minor_radius=vary(0.38), major_sections=SEGMENTS, minor_sections=32
    )
    mesh.apply_transform(_Z_TO_Y)
    return mesh


def _pyramid(vary: Vary) -> trimesh.Trimesh:
    height, depth = vary(1.0), (1 + vary(1.0)) / 2
    base = [[-0.5, 0, depth / 2], [0.5, 0, depth / 2], [0.5, 0, -depth / 2], [-0.5, 0, -depth / 2]]
    faces = [[0, 1, 4], [1, 2, 4], [2, 3, 4], [3, 0, 4], [0, 2, 1], [0, 3, 2]]
    return trimesh.Trimesh([*base, [0, height, 0]], faces)


def _disk(vary: Vary) -> trimesh.Trimesh:
    return _tube(radius=1.0, height=vary(0.25))


def _stick(vary: Vary) -> trimesh.Trimesh:
    return _tube(radius=vary(0.1), height=1.0)


def _cross(vary: Vary) -> trimesh.Trimesh:
    width, thickness = vary(0.55), vary(0.55)
    return _together(
        [
            trimesh.creation.box((vary(2.0), width, thickness)),
            trimesh.creation.box((width, vary(2.0), thickness)),
        ]
    )


def _capsule(vary: Vary) -> trimesh.Trimesh:
    """Total length : diameter = 2.6 : 1."""
    shift = np.array([0, vary(2.6) / 2 - 0.5])
    profile = np.concatenate([_arc(0.5, -90.0, 0.0) - shift, _arc(0.5, 0.0, 90.0) + shift])
    return _revolved(profile.clip(min=[0, -np.inf]))


def _snowman(vary: Vary) -> trimesh.Trimesh:
    radii = [vary(radius) for radius in (0.5, 0.36, 0.25)]
    balls, height = [], 0.0
    for below, radius in zip([0.0, *radii], radii, strict=False):
        height += 0.85 * (below + radius)
        ball = trimesh.creation.icosphere(subdivisions=3, radius=radius)
        ball.apply_translation([0, height, 0])
        balls.append(ball)
    return _together(balls)


def _mushroom(vary: Vary) -> trimesh.Trimesh:
    stem, length, cap = vary(0.25), vary(0.65), vary(0.75)
    dome = (_arc(0.75, 0.0, 90.0) * [1, cap / 0.75]).clip(min=0)
    return _revolved(np.concatenate([[[0, -length], [stem, -length], [stem, 0]], dome]))


_BUILDERS: dict[str, Callable[[Vary], trimesh.Trimesh]] = {
    "sphere": _sphere,
    "cube": _cube,
    "cylinder": _cylinder,
    "cone": _cone,
    "torus": _torus,
    "pyramid": _pyramid,
    "disk": _disk,
    "stick": _stick,
    "cross": _cross,
    "capsule": _capsule,
    "snowman": _snowman,
    "mushroom": _mushroom,
}
