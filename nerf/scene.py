"""What a run is given beside its texts: the shapes of parts, a mesh to start from, what stays.

What stays of the start is put over every volume that the field makes, as finely as that one's grids
are: no step moves it, and no gradient reaches the field from there.
"""

import dataclasses
import hashlib
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from alphaclip_gen.made_meshes import result_of
from blobs import SLOPE, blob_logits
from field import FieldSettings, Volume, VoxelField, color_logits
from grids import outward_normals, resampled, sample, smoothed, vertices
from meshes import SIZE, SUFFIXES, colors_near, read_mesh, signed_distance
from parts import (
    Shape,
    bounds,
    check_mirror,
    parse_part,
    parse_shape,
    places_in_ball,
    share_of_ball,
)
from settings import Config, StartSettings
from warm_start import Start

RADIUS = 0.85
"""Of the ball that a mesh is fitted into, and that parts begin in."""
COLORS = 24
"""Voxels a side of the start's colors."""
FINE = 12
"""Least voxels a side of the color of a field that begins as a start."""
EMPTY = 0.02
"""A part's shape of which the start fills less gets a blob to begin with."""


class Body(NamedTuple):
    """A start as grids: signed distance to its surface, sRGB colors near it."""

    distance: Float[Tensor, "1 1 size size size"]
    color: Float[Tensor, "1 3 colors colors colors"]

    def logits(self, settings: FieldSettings) -> Tensor:
        """Of its density, as a blob's would be."""
        logits = -SLOPE * self.distance - settings.shift
        return logits.clamp(-settings.limit, settings.limit)


class Hold(NamedTuple):
    """What stays: logits of the start, and where they hold (1), do not (0), or in between."""

    logits: Float[Tensor, "1 1 size size size"]
    still: Float[Tensor, "1 1 size size size"]
    color_logits: Float[Tensor, "1 3 colors colors colors"]
    still_color: Float[Tensor, "1 1 colors colors colors"]


@dataclass(frozen=True)
class Scene:
    """The geometry that a run is given."""

    shapes: tuple[Shape, ...] = ()
    """Of the parts, in their order."""
    whole: bool = True
    """Whether the whole is aimed at too, by a prompt."""
    body: Body | None = None
    hold: Hold | None = None
    prompt_in_parts: float = 1.0
    """See the settings."""

    @cached_property
    def shares(self) -> list[float]:
        """How much of the ball each part's shape takes up."""
        return [share_of_ball(shape) for shape in self.shapes]

    def reach(self, points: Float[Tensor, "points 3"]) -> Float[Tensor, " points"]:
        """How much the prompt moves points: less in the shapes of parts."""
        inside = torch.stack([shape(points) for shape in self.shapes]).amax(dim=0)
        return 1 - (1 - self.prompt_in_parts) * inside

    def held(self, volume: Volume, sharpness: float) -> Volume:
        """The volume with what stays of the start put over it."""
        return volume if self.hold is None else held(volume, self.hold, sharpness)


NOTHING = Scene()
"""Nothing but the prompt."""


def open_scene(config: Config, device: torch.device) -> Scene:
    """The scene of the settings; reads meshes.

    Raises:
        ValueError, FileNotFoundError: see `parse_part`, `parse_shape`, `read_start`; or a shape or
            the start is not as symmetric as the field.
    """
    given, settings, whole = config.start, config.field, config.prompt is not None
    shapes = [parse_shape(parse_part(text).shape, "part") for text in config.parts]
    kept = [parse_shape(text, "keep") for text in given.keep]
    check_mirror([*(("part", s) for s in shapes), *(("keep", s) for s in kept)], settings.mirror)
    body = read_start(given)
    if body is None:
        return Scene(tuple(shapes), whole, prompt_in_parts=config.prompt_in_parts)
    if not given.repaint:
        distance = body.distance
        start = Shape(str(given.start), lambda points: sample(distance, points)[0])
        check_mirror([("start", start)], settings.mirror)
    body = Body(*(grid.to(device) for grid in body))
    hold = _hold(body, kept, given.repaint, settings) if given.repaint or kept else None
    return Scene(tuple(shapes), whole, body, hold, config.prompt_in_parts)


def check_start(config: Config) -> None:
    """Nothing; raises ValueError for settings of the start that conflict."""
    given, settings = config.start, config.field
    if given.start is None:
        for name in ("repaint", "keep"):
            if getattr(given, name):
                raise ValueError(
                    f"{name} is {getattr(given, name)} without a start; expected a mesh or an "
                    "earlier result with --start, of which something can be kept."
                )
        return
    if given.repaint and given.keep and not config.parts and _everything(given.keep):
        raise ValueError(
            f"repaint and keep {given.keep} leave nothing to change; expected a smaller shape."
        )
    for name, needed in (("kind", "explicit"), ("begin", "blob")):
        if getattr(settings, name) != needed:
            raise ValueError(
                f"start {str(given.start)!r} needs field.{name} {needed!r}, got "
                f"{getattr(settings, name)!r}; expected --field.{name} {needed}, or no start."
            )


def check_apart(given: StartSettings, folder: Path) -> None:
    """Nothing; raises ValueError for a start that the results in the folder would overwrite."""
    if given.start is None:
        return
    start, folder = given.start.resolve(), folder.resolve()
    if folder == start or (folder == start.parent and start.stem == "mesh"):
        raise ValueError(
            f"start {str(given.start)!r} would be overwritten by the results in {str(folder)!r}; "
            "expected another folder with --output."
        )


def read_start(given: StartSettings) -> Body | None:
    """The start as grids on the CPU; None without one.

    Raises:
        FileNotFoundError: neither a file nor a folder is there.
        ValueError: the folder holds no result, or the mesh can't be used, see `read_mesh`.
    """
    if given.start is None:
        return None
    path, folder = mesh_of(given.start), given.start.is_dir()
    painted = read_mesh(path, "start")
    if given.fit and not folder:
        center = painted.mesh.bounds.mean(axis=0)
        farthest = float(np.linalg.norm(painted.mesh.vertices - center, axis=1).max())
        painted = painted.moved(center, RADIUS / farthest)
    distance = smoothed(signed_distance(painted.mesh), 2)
    if not (distance < 0).any():
        raise ValueError(
            f"start {str(path)!r} has nothing in the ball of radius 1 around the origin, or is "
            "thinner than 0.02; expected a solid mesh there. --start.fit moves it."
        )
    return Body(distance, colors_near(painted, COLORS))


def mesh_of(start: Path) -> Path:
    """The mesh file of a start: itself, or that of an earlier result.

    Raises:
        FileNotFoundError: there is neither a file nor a folder.
        ValueError: the folder holds no result with a mesh that has colors.
    """
    if not start.is_dir():
        return start
    found = result_of(start)
    if not found:
        raise ValueError(
            f"start {str(start)!r} is a folder without a result.json; expected the folder of an "
            "earlier result, or a mesh file."
        )
    meshes = [start / f"mesh{kind}" for kind in (".glb", ".ply", ".obj")]
    there = [path for path in meshes if path.is_file()]
    if not there:
        raise ValueError(
            f"start {str(start)!r} holds no mesh.glb, mesh.ply or mesh.obj, but "
            f"{found.get('files')}; expected a result with a mesh that has colors: make it again "
            "with --formats glb."
        )
    return there[0]


def digests(config: Config) -> dict[str, str]:
    """What tells the meshes of the settings apart: the start of their files' SHA-256."""
    places = [parse_part(text).shape for text in config.parts] + list(config.start.keep)
    files = [Path(text) for text in places if Path(text).suffix.lower() in SUFFIXES]
    files += [] if config.start.start is None else [mesh_of(config.start.start)]
    return {str(path): _digest(path, path.stat().st_mtime_ns) for path in dict.fromkeys(files)}


@cache
def _digest(path: Path, changed: int) -> str:
    """Of a file that was last changed then: a checkpoint need not read large files again."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:16]


def sizes(scene: Scene, settings: FieldSettings, stage: int) -> tuple[int, int]:
    """Voxels a side of density and of color in a stage.

    A field that begins as a start is as fine in color as it will ever be, `FINE` at least, so that
    the start's colors are not lost at once.
    """
    density, color = settings.density_sizes[stage], settings.color_sizes[stage]
    return density, color if scene.body is None else max(*settings.color_sizes, FINE)


def first_field(
    start: Start, scene: Scene, settings: FieldSettings, device: torch.device
) -> VoxelField:
    """The explicit field that a run begins with: the mesh or the blob, then a blob in each part.

    What the whole begins with is left out of the parts' shapes, if a blob goes there.
    """
    size, color_size = sizes(scene, settings, 0)
    density, color = _whole(start, scene, settings, device)
    spacing = 2 / (color_size - 1)
    for part, shape in zip(start.parts, scene.shapes, strict=False):  # repainting needs none
        if scene.body is not None and filled(scene.body, shape) >= EMPTY:
            continue
        low, high = bounds(shape, RADIUS)
        center, scale = ((low + high) / 2).tolist(), float((high - low).min()) / 2 / 0.7
        proportion = part.proportion.at_least(2 / (size - 1) / scale)  # a voxel, to be there at all
        blob = blob_logits(proportion, size, center=center, scale=scale).to(device)
        member = _on_grid(shape, size).to(device)
        density = torch.lerp(density, blob - settings.shift, member)
        near = shape.distance(vertices(color_size).view(-1, 3)).view(1, 1, *[color_size] * 3)
        share = (0.5 - near / spacing).clamp(0, 1).to(device)
        color = torch.lerp(color, color_logits(torch.tensor(part.color, device=device)), share)
    return VoxelField(density.clamp(-settings.limit, settings.limit), color, settings)


def filled(body: Body, shape: Shape) -> float:
    """How much of a shape, within the ball, the body takes up."""
    places = places_in_ball()
    places = places[shape.distance(places) <= 0]
    return float((sample(body.distance, places.to(body.distance))[0] < 0).float().mean())


@torch.no_grad()
def _whole(
    start: Start, scene: Scene, settings: FieldSettings, device: torch.device
) -> tuple[Tensor, Tensor]:
    """Logits of density and color without parts, at the first stage's sizes."""
    size, side = sizes(scene, settings, 0)
    if scene.body is not None:
        color = resampled(scene.body.color, side).clamp(0.02, 0.98).logit()
        return resampled(scene.body.logits(settings), size), color
    color = color_logits(torch.tensor(start.color, device=device)).expand(1, 3, side, side, side)
    if scene.whole:
        return blob_logits(start.proportion, size).to(device) - settings.shift, color
    nearest = torch.stack(
        [shape.distance(vertices(side).view(-1, 3)) for shape in scene.shapes]
    ).argmin(dim=0)
    colors = torch.tensor([part.color for part in start.parts])[nearest].clamp(0.02, 0.98).logit()
    color = colors.T.reshape(1, 3, side, side, side).to(device)
    return torch.full((1, 1, size, size, size), -settings.limit, device=device), color


def held(volume: Volume, hold: Hold, sharpness: float) -> Volume:
    """The volume, with the start's density and color where they hold; differentiable elsewhere."""
    size = volume.logits.shape[-1]
    kept, still = (resampled(grid, size) for grid in (hold.logits, hold.still))
    logits = torch.lerp(volume.logits, sharpness * kept, still)
    color = volume.color_logits
    if hold.still_color.any():
        color = resampled(color, max(COLORS, color.shape[-1]))
        kept, still = (
            resampled(grid, color.shape[-1]) for grid in (hold.color_logits, hold.still_color)
        )
        color = torch.lerp(color, kept, still)
    return dataclasses.replace(
        volume, logits=logits, normals=outward_normals(logits), color_logits=color
    )


def _hold(body: Body, kept: list[Shape], repaint: bool, settings: FieldSettings) -> Hold:
    """The body, held everywhere in density if only repainted, and in the shapes that are kept."""

    def still(size: int) -> Tensor:
        grids = [torch.zeros(1, 1, size, size, size), *(_on_grid(s, size) for s in kept)]
        return torch.stack(grids).amax(dim=0).to(body.distance)

    density = torch.ones_like(body.distance) if repaint else still(SIZE)
    logits = body.logits(settings) + settings.shift
    return Hold(logits, density, body.color.clamp(0.02, 0.98).logit(), still(COLORS))


def _on_grid(shape: Shape, size: int) -> Float[Tensor, "1 1 size size size"]:
    return shape(vertices(size).view(-1, 3)).view(1, 1, size, size, size)


def _everything(texts: tuple[str, ...]) -> bool:
    """Whether the shapes together leave next to nothing of the ball."""
    places = places_in_ball()
    inside = [parse_shape(text, "keep")(places) >= 0.5 for text in texts]
    return bool(inside) and float(torch.stack(inside).any(dim=0).float().mean()) > 0.99
