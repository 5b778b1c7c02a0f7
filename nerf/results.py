"""What a run leaves behind: its mesh and pictures, in the formats that were asked for."""

import importlib.util
import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal, get_args

import torch
import trimesh

from alphaclip_gen.whole_files import write_bytes
from field import Volume
from formats import of_mesh, write_glb, write_obj, write_ply, write_stl
from painting import sampled_points
from session import Unprefixed
from silhouettes import silhouette_iou
from surface import NothingFormed, automatic_level, extract, without_floaters
from texture import Texture, baked
from turntable import (
    AnimationFormat,
    PictureSettings,
    VideoFailed,
    animation,
    check_animation,
    contact_sheet,
    depth_pictures,
    on_white,
    turn_views,
)

MeshFormat = Literal["glb", "obj", "ply", "stl", "points"]
TEXTURED = {"glb", "obj"}
MESHES = [*(f"mesh.{kind}" for kind in ("glb", "obj", "mtl", "png", "ply", "stl")), "points.ply"]
"""All files that a mesh may be in."""
TURNS = [f"{turn}.{kind}" for turn in ("turntable", "depth") for kind in get_args(AnimationFormat)]
"""All files that it may turn in."""
PACKAGES = {"skimage": "scikit-image", "fast_simplification": "fast-simplification"}
"""What every mesh needs, by import and by name, which the extra "3d" installs."""


@dataclass(frozen=True)
class MeshSettings:
    """The surface, and the files it is written to."""

    formats: Annotated[tuple[MeshFormat, ...], Unprefixed] = ("glb",)
    """mesh.glb, mesh.obj with mesh.mtl, mesh.ply, mesh.stl; points is points.ply, a cloud."""
    texture: Annotated[bool, Unprefixed] = False
    """A picture on the mesh instead of colors at its vertices, in glb and obj."""
    texture_size: int = 1024
    """Its side in texels."""
    faces: Annotated[int | None, Unprefixed] = 20_000
    """Triangles, at most about so many; None keeps all."""
    smallest_part: float = 0.02
    """Separate parts of less than this share of the largest one's volume are dropped."""
    points: int = 20_000
    """Of the cloud."""


def check_files(mesh: MeshSettings, pictures: PictureSettings) -> None:
    """Nothing; what the files need is installed, and their settings can be used.

    Raises:
        ValueError: a setting of the files can't be used.
    """
    _check_known("formats", mesh.formats, MeshFormat)
    _check_known("turntable", pictures.turntable, AnimationFormat)
    for module, package in PACKAGES.items():
        if importlib.util.find_spec(module) is None:
            raise ValueError(
                f"a mesh needs {package}, which is not installed. "
                'Install it by pip install "alphaclip-gen[3d]".'
            )
    check_animation(pictures.turntable)
    least = {"texture_size": 64, "points": 1, "faces": 4}
    for name, lowest in least.items():
        value = getattr(mesh, name)
        if value is not None and value < lowest:
            raise ValueError(f"mesh.{name} is {value}; expected {lowest} or more.")
    if not 0 <= mesh.smallest_part <= 1:
        raise ValueError(
            f"mesh.smallest_part is {mesh.smallest_part}; expected a share between 0 and 1."
        )
    if mesh.texture and not TEXTURED & set(mesh.formats):
        raise ValueError(
            f"texture needs a format that has one, glb or obj; formats is {mesh.formats}. "
            "Add one of the two, or leave out --texture."
        )
    if mesh.texture and importlib.util.find_spec("xatlas") is None:
        raise ValueError(
            "texture needs xatlas, which is not installed. "
            'Install it by pip install "alphaclip-gen[3d]", or leave out --texture.'
        )


def save_result_files(
    folder: Path, volume: Volume, mesh: MeshSettings, pictures: PictureSettings
) -> dict:
    """Figures for result.json and the names of the files, which are in the folder then.

    Floaters are removed from the field first, so neither mesh nor pictures show any. What could not
    be made is named in "problems".
    """
    problems: list[str] = []
    files: dict[str, bytes] = {}
    figures: dict = {"silhouette_iou": None, "mesh": None}
    try:
        level = automatic_level(volume)
        volume, floaters = without_floaters(volume, level.density, mesh.smallest_part)
        kept = None if floaters else level
        surface = extract(volume, mesh.smallest_part, mesh.faces, level=kept)
    except NothingFormed as error:
        problems.append(f"no mesh: {error}")
    else:
        files = mesh_files(surface, volume, mesh)
        figures = mesh_figures(surface, volume, floaters)
    shown, lost = picture_files(volume, pictures)
    files |= shown
    for name, data in files.items():
        write_bytes(folder / name, data)
    return {**figures, "problems": problems + lost, "files": list(files)}


def drop_older_files(folder: Path, files: Sequence[str]) -> None:
    """Nothing; meshes, turntables and clouds that are not among the files are gone: another run of
    this prompt made them."""
    for name in {*MESHES, *TURNS} - {*files}:
        (folder / name).unlink(missing_ok=True)


def mesh_figures(mesh: trimesh.Trimesh, volume: Volume, floaters: int) -> dict:
    """What result.json says of a mesh."""
    return {
        "silhouette_iou": round(silhouette_iou(mesh, volume), 4),
        "mesh": {
            "vertices": len(mesh.vertices),
            "faces": len(mesh.faces),
            "watertight": bool(mesh.is_watertight),
            "volume": round(float(mesh.volume), 4),
            "floaters_removed": floaters,
        },
    }


def mesh_files(mesh: trimesh.Trimesh, volume: Volume, settings: MeshSettings) -> dict[str, bytes]:
    """The mesh's files by name; a file stands behind those that it refers to."""
    coated: tuple[trimesh.Trimesh, Texture | None] = mesh, None
    if settings.texture:
        coated = baked(mesh, volume, settings.texture_size)
    files: dict[str, bytes] = {}
    for kind in settings.formats:
        match kind:
            case "glb":
                files["mesh.glb"] = write_glb(*coated)
            case "obj":
                files |= write_obj(*coated)
            case "ply":
                files["mesh.ply"] = write_ply(of_mesh(mesh), mesh.faces)
            case "stl":
                files["mesh.stl"] = write_stl(mesh)
            case "points":
                generator = torch.Generator().manual_seed(0)
                cloud = sampled_points(mesh, volume, settings.points, generator)
                files["points.ply"] = write_ply(cloud)
    return files


def picture_files(volume: Volume, settings: PictureSettings) -> tuple[dict[str, bytes], list[str]]:
    """The pictures' files by name (turntables of color and depth, a sheet of views), and what is
    missing of them."""
    color, rendering = turn_views(volume, settings)
    frames = on_white(color, rendering)
    turns = {"turntable": frames}
    if settings.depth:
        turns["depth"] = depth_pictures(rendering)
    files: dict[str, bytes] = {}
    problems: list[str] = []
    for (turn, pictures), kind in itertools.product(turns.items(), settings.turntable):
        try:
            files[f"{turn}.{kind}"] = animation(pictures, kind, settings.milliseconds)
        except VideoFailed as error:
            problems.append(f"no {turn}.{kind}: {error}")
    return files | {"preview.png": contact_sheet(frames)}, problems


def _check_known(name: str, given: tuple[str, ...], known: object) -> None:
    unknown = [kind for kind in given if kind not in get_args(known)]
    if unknown:
        raise ValueError(
            f"{name} holds {', '.join(map(repr, unknown))}; expected {', '.join(get_args(known))}."
        )
