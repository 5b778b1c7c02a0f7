"""A gallery of text to 3D: every mesh from four sides, with its time and the judge's word.

A program (`nerf/optimize.py`) makes one object for each prompt, and one for each pair of parts. The
judge, which did not guide, names an object of parts half by half.
"""

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import trimesh
from PIL import Image, ImageDraw, ImageFont
from rich.console import Console

from .evaluate_3d import evaluation_prompts, judge_folder
from .evaluate_parts import FLAGS, Pair, judge_halves, parse_pair
from .made_meshes import find_program, make_meshes, slugs, view_of
from .mesh_judges import solid_judge
from .mini.judge import Judge
from .show import FAINT, INK, PAPER

PAIRS = (
    "a green torus @ left | an orange mushroom @ right",
    "a red cone @ top | a blue cube @ bottom",
    "a yellow pyramid @ top | a purple cylinder @ bottom",
    "a pink sphere @ left | a brown cross @ right",
)
AZIMUTHS = (30.0, 120.0, 210.0, 300.0)
"""Of the frames, in degrees."""


@dataclass(frozen=True)
class Gallery:
    """Make objects from prompts and from parts, and a picture of all. What is finished is not made
    again."""

    output: Path = Path("evaluation/gallery")
    """Folder of the meshes (prompts, parts) and of gallery.png."""
    count: int = 12
    """How many of the built-in prompts."""
    pairs: tuple[str, ...] = PAIRS
    """Two solids of mini with opposite sides each."""
    program: Path | None = None
    """The program that makes the meshes; nerf/optimize.py if not given."""
    options: str = ""
    """More flags for the program, in one string: --options="--steps 100"."""
    judge_only: bool = False
    """Show the meshes that are there, and make none."""


class Piece(NamedTuple):
    """One object of the gallery; without a mesh the note says why."""

    title: str
    mesh: trimesh.Trimesh | None
    note: str


def gallery(config: Gallery, console: Console) -> list[Piece]:
    """Makes the meshes and gallery.png, and says where that is; returns what it shows."""
    prompts, pairs = evaluation_prompts(config.count), [parse_pair(text) for text in config.pairs]
    lines = [pair.line("parts") for pair in pairs]
    program = None if config.judge_only else find_program(config.program)
    options = shlex.split(config.options)
    wholes = make_meshes(program, prompts, config.output / "prompts", options)
    parts = make_meshes(
        program if pairs else None, lines, config.output / "parts", [*FLAGS, *options]
    )
    judge = Judge.from_pretrained()
    pieces = [
        _whole(judge, config.output / "prompts" / name, prompt, wholes.problems.get(name))
        for name, prompt in zip(slugs(prompts), prompts, strict=True)
    ]
    pieces += [
        _pair(judge, config.output / "parts" / name, pair, parts.problems.get(name))
        for name, pair in zip(slugs(lines), pairs, strict=True)
    ]
    config.output.mkdir(parents=True, exist_ok=True)
    draw_gallery(pieces).save(config.output / "gallery.png")
    console.print(f"gallery: {config.output / 'gallery.png'}")
    return pieces


def _whole(judge: Judge, folder: Path, prompt: str, problem: str | None) -> Piece:
    row, mesh = judge_folder(solid_judge(judge), folder, prompt, problem=problem)
    note = row.problem or f"{_time(row.seconds)}seen as {row.named}, {row.probability:.2f}"
    return Piece(prompt, mesh, note)


def _pair(judge: Judge, folder: Path, pair: Pair, problem: str | None) -> Piece:
    row, mesh = judge_halves(judge, folder, pair, problem=problem)
    seen = zip(row.named or (), row.probability or (), strict=True)
    said = " and ".join(f"{name}, {likely:.2f}" for name, likely in seen)
    note = row.problem or f"{_time(row.seconds)}seen as {said}"
    return Piece(pair.text.replace(" | ", ", "), mesh, note)


def _time(seconds: float | None) -> str:
    return "" if seconds is None else f"{seconds:.0f} s, "


def draw_gallery(pieces: Sequence[Piece], columns: int = 2, tile: int = 116) -> Image.Image:
    """Each object's frames side by side; below them its title, and the note fainter."""
    pad, text = 10, 40
    wide, high = len(AZIMUTHS) * tile + pad, tile + text
    rows = -(-len(pieces) // columns)
    sheet = Image.new("RGB", (pad + columns * wide, pad + rows * high), PAPER)
    pen = ImageDraw.Draw(sheet)
    for number, piece in enumerate(pieces):
        left, top = pad + number % columns * wide, pad + number // columns * high
        for place, azimuth in enumerate(AZIMUTHS):
            frame = view_of(piece.mesh, tile, "linear", azimuth)
            sheet.paste(frame, (left + place * tile, top))
        for line, (words, shade) in enumerate(((piece.title, INK), (piece.note, FAINT))):
            font = ImageFont.load_default(size=13 - line)
            pen.text((left, top + tile + 3 + 16 * line), words, shade, font)
    return sheet
