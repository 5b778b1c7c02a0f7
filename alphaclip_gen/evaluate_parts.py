"""How often both parts of an object become what they should, by a judge that did not guide.

30 prompts name two solids of mini, one above the other or side by side. A program
(`nerf/optimize.py`) makes each twice: from two parts with texts of their own, and from one
sentence. Every mesh is cut in two where the parts meet, and the judge names each half by itself.
The folder then holds `table.md`, `table.json`, and a picture of all meshes for each variant.
"""

import logging
import shlex
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import trimesh
from jaxtyping import Float
from scipy.spatial import cKDTree
from trimesh.intersections import slice_faces_plane

from .made_meshes import (
    find_program,
    labelled_sheet,
    load_mesh,
    make_meshes,
    number_in,
    read_prompts,
    result_of,
    slugs,
)
from .mesh_judges import target
from .mini.captions import COLORS, SHAPES, all_captions, caption
from .mini.judge import Judge, judge_mesh
from .mini.rates import proportion, shown
from .mini.splat import ColorSpace
from .tables import markdown_table
from .whole_files import write_json, write_text

logger = logging.getLogger(__name__)

PartsVariant = Literal["parts", "sentence"]

SIDES = {
    "top": (0.0, 1.0, 0.0),
    "bottom": (0.0, -1.0, 0.0),
    "left": (-1.0, 0.0, 0.0),
    "right": (1.0, 0.0, 0.0),
}
"""Half-spaces of the scene, +Y up: the direction in which each lies."""
FLAGS = ("--preset", "parts")
"""For both variants."""


@dataclass(frozen=True)
class EvaluateParts:
    """Objects of two parts over 30 prompts, each half named by the judge. What is finished is not
    made again."""

    output: Path = Path("evaluation/parts")
    """Folder of the meshes (one folder for each variant) and of the tables."""
    variants: tuple[PartsVariant, ...] = ("parts", "sentence")
    """parts: each has a text and a region. sentence: "a red cone and a blue cube"."""
    prompts: Path | None = None
    """File of one prompt a line, "a red cone @ top | a blue cube @ bottom"; the 30 if not given."""
    program: Path | None = None
    """The program that makes the meshes; nerf/optimize.py if not given."""
    options: str = ""
    """More flags for the program, in one string: --options="--steps 100"."""
    judge_only: bool = False
    """Judge the meshes that are there, and make none."""
    color_space: ColorSpace = "linear"
    """How the meshes store their vertex colors: linear light, as glTF says, or sRGB values."""


@dataclass(frozen=True)
class Pair:
    """Two captions and the sides where they belong."""

    first: str
    first_side: str
    second: str
    second_side: str

    @property
    def text(self) -> str:
        """As it is written: "a red cone @ top | a blue cube @ bottom"."""
        return f"{self.first} @ {self.first_side} | {self.second} @ {self.second_side}"

    def line(self, variant: str) -> str:
        """What the program is given: two parts and no prompt for the whole, or one sentence."""
        return f"| {self.text}" if variant == "parts" else f"{self.first} and {self.second}"


@dataclass(frozen=True)
class PairRow:
    """One prompt: what the judge saw in each half; `problem` says why there is no verdict."""

    prompt: str
    asked: tuple[str, str]
    named: tuple[str, str] | None = None
    probability: tuple[float, float] | None = None
    """Of what was asked, in its place."""
    seconds: float | None = None
    problem: str | None = None

    @property
    def right(self) -> dict[str, bool]:
        """Whether both halves are right where they should be, or so with the halves exchanged;
        and whether the first, and the second, is right in its place."""
        named = self.named or ("", "")
        both = named == self.asked
        hits = [one == wanted for one, wanted in zip(named, self.asked, strict=True)]
        return {
            "both": both,
            "either way round": both or named[::-1] == self.asked,
            "first": hits[0],
            "second": hits[1],
        }


def run(config: EvaluateParts) -> dict:
    """Makes and judges the meshes; returns what table.json holds."""
    lines = read_prompts(config.prompts) if config.prompts else None
    return evaluate_parts(
        None if config.judge_only else find_program(config.program),
        evaluation_pairs() if lines is None else [parse_pair(line) for line in lines],
        config.output,
        config.variants,
        options=shlex.split(config.options),
        color_space=config.color_space,
    )


def evaluate_parts(
    program: Path | None,
    pairs: Sequence[Pair],
    output: Path,
    variants: Sequence[str] = ("parts", "sentence"),
    *,
    options: Sequence[str] = (),
    color_space: ColorSpace = "linear",
    judge: Judge | None = None,
) -> dict:
    """Scores of each variant; also written to table.md, table.json and <variant>.png in `output`.

    Args:
        program: as in `evaluate_text_to_3d`; a line of its file of prompts is `Pair.line`. None
            judges the meshes that are there.
        pairs: what to make.
        output: folder; the meshes of a variant are in the folder of its name.
        variants: "parts", "sentence".
        options: more arguments for the program.
        color_space: how the meshes store their vertex colors.
        judge: the shipped one if None.

    Raises:
        ValueError: an unknown variant, or no pairs.
        ChildProcessError: the program failed and made no mesh at all.
    """
    unknown = set(variants) - {"parts", "sentence"}
    if unknown or not variants or not pairs:
        raise ValueError(
            f"variants are {list(variants)} for {len(pairs)} prompts; expected parts, sentence or "
            "both, and one prompt or more. The default makes 30."
        )
    judge = judge or Judge.from_pretrained()
    output.mkdir(parents=True, exist_ok=True)
    table: dict[str, dict] = {}
    for variant in variants:
        folder, lines = output / variant, [pair.line(variant) for pair in pairs]
        names = slugs(lines)
        flags = [*FLAGS, *options]
        made = make_meshes(program, lines, folder, flags)
        judged = [
            judge_halves(judge, folder / name, pair, color_space, made.problems.get(name))
            for name, pair in zip(names, pairs, strict=True)
        ]
        rows, meshes = [row for row, _ in judged], [mesh for _, mesh in judged]
        table[variant] = {
            **summarize(rows),
            "exit_code": made.code,
            "rows": [asdict(row) for row in rows],
        }
        notes = ["" if row.right["both"] else _seen(row) for row in rows]
        prompts = [row.prompt for row in rows]
        sheet = labelled_sheet(prompts, notes, meshes, columns=5, tile=270, color_space=color_space)
        sheet.save(output / f"{variant}.png")
        write_json(output / "table.json", table)
        write_text(output / "table.md", markdown(table))
        logger.info("%s: %s", variant, table[variant]["both"])
    return table


def evaluation_pairs() -> list[Pair]:
    """The 30 prompts: 15 one above the other, 15 side by side, solids and colors spread evenly."""
    shapes, colors = list(SHAPES), list(COLORS)
    pairs = []
    for i in range(30):
        first = caption(shapes[i % 12], colors[(5 * i + i // 12) % 12])
        second = caption(shapes[(i + 5 + i // 12) % 12], colors[(5 * i + 6 + i // 12) % 12])
        sides = ("top", "bottom") if i % 2 == 0 else ("left", "right")
        pairs.append(Pair(first, sides[0], second, sides[1]))
    return pairs


def parse_pair(text: str) -> Pair:
    """The pair that "a red cone @ top | a blue cube @ bottom" names.

    Raises:
        ValueError: it is no two captions of mini's solids with opposite sides.
    """
    halves = [[word.strip() for word in half.split("@")] for half in text.split("|")]
    opposite = ({"top", "bottom"}, {"left", "right"})
    if [len(half) for half in halves] != [2, 2] or {side for _, side in halves} not in opposite:
        raise ValueError(
            f"prompt {text!r} is no pair; expected two captions on opposite sides, as in "
            '"a red cone @ top | a blue cube @ bottom", or left and right.'
        )
    (first, first_side), (second, second_side) = halves
    for caption_ in (first, second):
        target(caption_)
    return Pair(first, first_side, second, second_side)


def judge_halves(
    judge: Judge,
    folder: Path,
    pair: Pair,
    color_space: ColorSpace = "linear",
    problem: str | None = None,
) -> tuple[PairRow, trimesh.Trimesh | None]:
    """The verdict on both halves of folder/mesh.glb and that mesh; or the problem, and None."""
    first, second = (caption(*target(text)) for text in (pair.first, pair.second))
    mesh, problem = load_mesh(folder, pair.line("sentence"), problem)
    if mesh is None:
        return PairRow(pair.text, (first, second), problem=problem), None
    captions, named, likely = all_captions(), [], []
    for side, asked in zip((pair.first_side, pair.second_side), (first, second), strict=True):
        half = cut(mesh, SIDES[side])
        verdict = None if half is None else judge_mesh(judge, half, color_space=color_space)
        named.append("nothing" if verdict is None else verdict.caption)
        chances = None if verdict is None else verdict.log_probabilities.exp()
        likely.append(0.0 if chances is None else round(chances[captions.index(asked)].item(), 4))
    seen, sure = (named[0], named[1]), (likely[0], likely[1])
    seconds = number_in(result_of(folder), "seconds")
    return PairRow(pair.text, (first, second), seen, sure, seconds), mesh


def cut(mesh: trimesh.Trimesh, direction: Sequence[float]) -> trimesh.Trimesh | None:
    """What of a mesh lies in a direction from the origin, closed where it is cut; None if nothing.

    A vertex of the cut has the color of the mesh's nearest one on that side. The lid is a fan from
    the middle of each outline, which is exact for outlines that are seen whole from there.
    """
    normal, origin = np.asarray(direction, dtype=float), np.zeros(3)
    kept = mesh.vertices @ normal > 0
    vertices, faces = slice_faces_plane(mesh.vertices, mesh.faces, normal, origin)[:2]
    if len(faces) == 0 or not kept.any():
        return None
    vertices, faces = _closed(trimesh.Trimesh(vertices, faces))  # corners along the cut are joined
    nearest = cKDTree(mesh.vertices[kept]).query(vertices)[1]
    visual = mesh.visual
    assert isinstance(visual, trimesh.visual.ColorVisuals)  # see `load_mesh`
    colors = np.asarray(visual.vertex_colors)[kept][nearest]
    return trimesh.Trimesh(vertices, faces, vertex_colors=colors, process=False)


def _closed(mesh: trimesh.Trimesh) -> tuple[Float[np.ndarray, "vertices 3"], np.ndarray]:
    """Vertices and faces with a fan over each outline."""
    once = trimesh.grouping.group_rows(mesh.edges_sorted, require_count=1)
    vertices, faces = [np.asarray(mesh.vertices)], [np.asarray(mesh.faces)]
    count = len(mesh.vertices)
    for outline in trimesh.graph.connected_components(mesh.edges[once]):
        edges = mesh.edges[once][np.isin(mesh.edges[once][:, 0], outline)]
        vertices.append(mesh.vertices[outline].mean(axis=0, keepdims=True))
        faces.append(np.column_stack([edges[:, ::-1], np.full(len(edges), count)]))
        count += 1
    return np.concatenate(vertices), np.concatenate(faces)


def summarize(rows: Sequence[PairRow]) -> dict:
    """Rates with 95 % intervals: both parts, either way round, and parts one by one."""
    summary: dict = {"prompts": len(rows)}
    for key in ("both", "either way round"):
        summary[key] = proportion(sum(row.right[key] for row in rows), len(rows))
    parts = sum(row.right["first"] + row.right["second"] for row in rows)
    summary["part"] = proportion(parts, 2 * len(rows))
    seconds = [row.seconds for row in rows if row.seconds is not None]
    summary["seconds_mean"] = round(sum(seconds) / len(seconds), 1) if seconds else None
    summary["missing"] = [row.prompt for row in rows if row.problem]
    return summary


def markdown(table: dict[str, dict]) -> str:
    """The table as a page: one line for each variant, then one for each prompt."""
    heads = ("variant", "prompts", "both parts right", "either way round", "part right", "seconds")
    lines = []
    for variant, part in table.items():
        rates = [shown(part[key]) for key in ("both", "either way round", "part")]
        seconds = "-" if part["seconds_mean"] is None else part["seconds_mean"]
        lines.append((variant, part["prompts"], *rates, seconds))
    pages = [
        markdown_table(heads, lines),
        "Each half of a mesh is named by itself, among all captions; 95 % Wilson intervals.\n",
    ]
    for variant, part in table.items():
        rows = [PairRow(**values) for values in part["rows"]]
        pages.append(f"## {variant}\n")
        pages.append(markdown_table(("prompt", "seen"), map(_prompt_line, rows)))
    return "\n".join(pages)


def _prompt_line(row: PairRow) -> tuple[str, str]:
    seen = _seen(row) if row.right["both"] else f"**{_seen(row)}**"
    return row.prompt.replace("|", "and"), seen


def _seen(row: PairRow) -> str:
    return row.problem or "seen: " + ", ".join(row.named or ())
