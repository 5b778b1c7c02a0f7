"""How often text-to-3D makes what the prompt asked for, by a judge that did not guide.

A program (`nerf/optimize.py`) makes one mesh for each prompt, variant and seed; a judge names every
mesh from 8 turntable views. The folder then holds `table.md`, `table.json`, and for each variant a
picture of the meshes of the seed that was asked for first. A prompt without a mesh counts as wrong.
A table can be filled in several calls, by variants and seeds.

The judge is the shipped one of mini's solids, or any CLIP: then the mesh's caption is looked for
among all prompts, which is the R-Precision of Dream Fields (arXiv 2112.01455, section 4.1).
"""

import json
import logging
import shlex
import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import trimesh
from PIL import Image

from .made_meshes import (
    NOTHING_MADE,
    find_program,
    labelled_sheet,
    load_mesh,
    make_meshes,
    read_prompts,
    result_of,
    seconds_of,
    slugs,
)
from .mesh_judges import SOLIDS, MeshJudge, about, open_judge, target
from .mini.captions import COLORS, SHAPES, all_captions, caption
from .mini.rates import proportion, shown
from .mini.splat import ColorSpace
from .tables import markdown_table
from .whole_files import write_json, write_text

logger = logging.getLogger(__name__)

Variant = Literal["masked", "plain", "augmented"]

VARIANTS: dict[str, tuple[str, ...]] = {
    "masked": (),
    "plain": ("--alpha", "ones"),
    "augmented": (
        *("--alpha", "ones", "--views", "8"),
        *("--augment.copies", "8", "--augment.background", "dream"),
        *("--augment.shift", "0.25", "--augment.zoom", "0.2", "--augment.rotation", "0"),
        *("--augment.perspective", "0.2", "--augment.cutout", "0.5"),
        *("--augment.brightness", "0.5", "--augment.saturation", "1", "--augment.contrast", "0.5"),
    ),
}
"""Variant -> the flags it adds: opacity as alpha (the program's default); plain CLIP; plain CLIP
with PureCLIPNeRF's looks at each view (arXiv 2209.15172), 64 pictures a step."""

OWN = {
    *("prompt", "prompts", "parts", "seed"),
    *("output", "device", "session", "mesh", "pictures"),
    *("alpha", "views", "augment"),
}
"""A result's settings that may differ within a table: of a mesh, a place or files, or set by
`VARIANTS`."""


@dataclass(frozen=True)
class EvaluateTextTo3D:
    """Text-to-3D over many prompts, named by a judge. What is finished is not made again, and the
    tables keep what they say of other variants and seeds that were made and judged alike."""

    output: Path = Path("evaluation/text-to-3d")
    """Folder of the meshes (a folder for each variant and seed) and of the tables."""
    variants: tuple[Variant, ...] = ("masked", "plain")
    """masked: alpha is the rendered opacity. plain: alpha is one everywhere, that is CLIP.
    augmented: plain, with 8 looks at each of 8 views over random backgrounds."""
    prompts: Path | None = None
    """File of one prompt a line; for the judge of solids each with a solid and a color of mini."""
    count: int = 60
    """How many of the built-in prompts, where no file is given; every 12 have all solids."""
    seeds: tuple[int, ...] = (0,)
    """Each prompt is made once with each."""
    judge: str = SOLIDS
    """solids, or a CLIP that RegionEncoder opens: it looks for captions among the prompts."""
    judge_pretrained: str | None = None
    """open_clip's tag or file, for a judge of open_clip."""
    program: Path | None = None
    """The program that makes the meshes; nerf/optimize.py if not given."""
    options: str = ""
    """More flags for the program, in one string: --options="--steps 400 --guidance B16.pt"."""
    judge_only: bool = False
    """Judge the meshes that are there, and make none."""
    color_space: ColorSpace = "linear"
    """How the meshes store their vertex colors: linear light, as glTF says, or sRGB values."""


@dataclass(frozen=True)
class Row:
    """One prompt of one seed: what the judge saw; `problem` says why there is no verdict."""

    prompt: str
    asked: str
    """The prompt among the judge's captions."""
    named: str | None = None
    probability: float | None = None
    """Of what was asked."""
    seconds: float | None = None
    problem: str | None = None
    seed: int = 0

    @property
    def right(self) -> dict[str, bool]:
        """Whether the whole caption was named; of solids, the shape and the color too."""
        solids = all_captions()
        if self.asked not in solids:
            return {"caption": self.named == self.asked}
        shape, color = target(self.asked)
        named = target(self.named) if self.named in solids else ("", "")
        hits = {"shape": named[0] == shape, "color": named[1] == color}
        return {"caption": all(hits.values()), **hits}


def run(config: EvaluateTextTo3D) -> dict:
    """Makes and judges the meshes; returns what table.json holds."""
    if config.prompts is None:
        prompts = evaluation_prompts(config.count)
    else:
        prompts = read_prompts(config.prompts)
    return evaluate_text_to_3d(
        None if config.judge_only else find_program(config.program),
        prompts,
        config.output,
        config.variants,
        seeds=config.seeds,
        options=shlex.split(config.options),
        color_space=config.color_space,
        judge=open_judge(config.judge, config.judge_pretrained, prompts, config.color_space),
        about_judge=about(config.judge, config.judge_pretrained),
    )


def evaluate_text_to_3d(
    program: Path | None,
    prompts: Sequence[str],
    output: Path,
    variants: Sequence[str] = ("masked", "plain"),
    *,
    seeds: Sequence[int] = (0,),
    options: Sequence[str] = (),
    color_space: ColorSpace = "linear",
    judge: MeshJudge | None = None,
    about_judge: str = "",
) -> dict:
    """Scores of each variant, with those of before in table.json that were made alike.

    They are written to table.md, table.json and <variant>.png in `output`. A table of before with
    others, which can't stand beside, is put aside there.

    Args:
        program: called once for each variant and seed, see `made_meshes`. None judges the meshes
            that are there.
        prompts: for the judge of solids, each names a solid and a color of mini.
        output: folder; the meshes are in <variant>/seed-<seed>/<slug of the prompt>.
        variants: keys of `VARIANTS`.
        seeds: of the meshes.
        options: more arguments for the program.
        color_space: how the meshes store their vertex colors, see `render_mesh`; glTF says linear.
        judge: the shipped one of solids if None.
        about_judge: a line of table.md.

    Raises:
        ValueError: an unknown variant, no prompts or seeds, a prompt that the judge of solids has
            no caption for, or meshes that were made with different settings.
        FileNotFoundError: there is nothing to judge, and no program to make it.
        ChildProcessError: the program failed and made no mesh at all.
    """
    unknown = [variant for variant in variants if variant not in VARIANTS]
    if unknown or not variants:
        raise ValueError(f"variants are {list(variants)}; expected some of {', '.join(VARIANTS)}.")
    if not prompts or not seeds:
        raise ValueError(
            f"prompts are {list(prompts)} and seeds {list(seeds)}; expected one or more of each. "
            "The default makes 60 prompts with seed 0."
        )
    judge = judge or open_judge(SOLIDS, None, prompts, color_space)
    output.mkdir(parents=True, exist_ok=True)
    table, names, seeds = table_in(output), slugs(prompts), list(dict.fromkeys(seeds))
    for variant in variants:
        rows, codes, settings = list[Row](), dict[str, int | None](), list[dict]()
        for seed in seeds:
            folder = output / variant / f"seed-{seed}"
            flags = [*VARIANTS[variant], "--seed", str(seed), *options]
            made = make_meshes(program, prompts, folder, flags) if program else NOTHING_MADE
            codes[str(seed)] = made.code
            for name, prompt in zip(names, prompts, strict=True):
                row = judge_folder(judge, folder / name, prompt, seed, made.problems.get(name))
                rows.append(row)
                if row.problem is None:
                    settings.append(result_of(folder / name).get("settings") or {})
        first = [output / variant / f"seed-{seeds[0]}" / name for name in names]
        if program is None and not any(map(result_of, first)):
            raise FileNotFoundError(
                f"output: nothing to judge; expected results in folders such as {first[0]}. Leave "
                "out --judge-only to make them."
            )
        made_by = {
            "judge": about_judge,
            "color_space": color_space,
            "prompts": list(prompts),
            "options": list(options),
            "settings": shared_settings(variant, settings),
        }
        pictures = pictures_a_step(settings[0]) if settings else None
        table = joined(table, variant, rows, codes, made_by, pictures, output)
        meshes = [
            load_mesh(folder, row.prompt, row.problem)[0]
            for folder, row in zip(first, rows, strict=False)
        ]
        sheet = contact_sheet(rows[: len(prompts)], meshes, color_space=color_space)
        sheet.save(output / f"{variant}.png")
        write_json(output / "table.json", table)
        write_text(output / "table.md", markdown(table, about_judge))
        logger.info("%s: %s", variant, table[variant]["caption"])
    return table


def joined(
    table: dict[str, dict],
    variant: str,
    rows: Sequence[Row],
    codes: dict[str, int | None],
    made_by: dict,
    pictures: int | None,
    output: Path,
) -> dict[str, dict]:
    """The table with the new rows of a variant in place of its seeds, and what was made alike.

    Args:
        table: of before.
        variant: of the rows.
        rows: of whole seeds.
        codes: the program's exit codes, by seed.
        made_by: what rows have to have in common to stand in one table.
        pictures: what a tower saw in a step.
        output: folder in which table.json is put aside if not all of it can stay.
    """
    old = {name: part for name, part in table.items() if part.get("made_by") == made_by}
    if variant in old and old[variant]["pictures_a_step"] != pictures:
        del old[variant]
    if len(old) < len(table):
        put_aside(output)
    before = old.get(variant, {"rows": [], "exit_codes": {}})
    stay = [Row(**row) for row in before["rows"] if str(row["seed"]) not in codes]
    all_rows = sorted([*stay, *rows], key=lambda row: row.seed)
    old[variant] = {
        "made_by": made_by,
        "exit_codes": {**before["exit_codes"], **codes},
        "pictures_a_step": pictures,
        **summarize(all_rows),
        "rows": [asdict(row) for row in all_rows],
    }
    return {name: old[name] for name in VARIANTS if name in old}


def shared_settings(variant: str, settings: Sequence[dict]) -> dict:
    """What all results of a variant were made with, without what is each one's own.

    Raises:
        ValueError: they differ.
    """
    shared = [{key: one[key] for key in one.keys() - OWN} for one in settings]
    keys = {key for one in shared for key in one}
    different = {key for key in keys if any(one.get(key) != shared[0].get(key) for one in shared)}
    if different:
        raise ValueError(
            f"meshes of {variant!r} were made with different {', '.join(sorted(different))}; they "
            "can't stand in one table. Judge their seeds in calls with an --output of its own each."
        )
    return dict(sorted(shared[0].items())) if shared else {}


def table_in(output: Path) -> dict[str, dict]:
    """What table.json of a folder holds, by variant; nothing where there is none to be read."""
    try:
        table = json.loads((output / "table.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    parts = table.items() if isinstance(table, dict) else ()
    return {variant: part for variant, part in parts if isinstance(part, dict)}


def put_aside(output: Path) -> None:
    """Nothing; table.json is kept under another name, since what is next can't stand in it."""
    number = 1
    while (aside := output / f"table-{number}.json").exists():
        number += 1
    (output / "table.json").rename(aside)
    logger.warning("%s was made or judged otherwise: kept as %s", output / "table.json", aside.name)


def evaluation_prompts(count: int = 60) -> list[str]:
    """Built-in prompts: rows of all solids; every color comes once in each row.

    Raises:
        ValueError: fewer than one, or more than there are solids in colors.
    """
    colors = list(COLORS)
    rows = [
        caption(shape, colors[(index + 3 * row + row // 4) % len(colors)])
        for row in range(len(colors))
        for index, shape in enumerate(SHAPES)
    ]
    if not 1 <= count <= len(rows):
        raise ValueError(f"count is {count}; expected 1 to {len(rows)} prompts.")
    return rows[:count]


def judge_folder(
    judge: MeshJudge, folder: Path, prompt: str, seed: int = 0, problem: str | None = None
) -> Row:
    """The verdict on folder/mesh.glb, or the problem with it."""
    mesh, problem = load_mesh(folder, prompt, problem)
    if mesh is None:
        return Row(prompt, prompt, problem=problem, seed=seed)
    captions, probability = judge(mesh)
    asked = prompt if prompt in captions else caption(*target(prompt))
    likely = round(probability[list(captions).index(asked)].item(), 4)
    named = captions[int(probability.argmax())]
    return Row(prompt, asked, named, likely, seconds_of(folder), seed=seed)


def pictures_a_step(settings: dict[str, Any]) -> int | None:
    """How many pictures a tower saw in a step of a run; None if its settings do not say."""
    views, augment = settings.get("views"), settings.get("augment") or {}
    return None if views is None else views * augment.get("copies", 1)


# Tables


def summarize(rows: Sequence[Row]) -> dict:
    """Rates with intervals of what the rows can say; seconds; prompts without a mesh."""
    summary: dict = {"prompts": len({row.prompt for row in rows}), "meshes": len(rows)}
    right = [row.right for row in rows]
    for key in ("caption", "shape", "color"):
        if all(key in one for one in right):
            summary[key] = proportion(sum(one[key] for one in right), len(rows))
    seconds = [row.seconds for row in rows if row.seconds is not None]
    for name, measure in (("mean", statistics.mean), ("median", statistics.median), ("max", max)):
        summary[f"seconds_{name}"] = round(measure(seconds), 1) if seconds else None
    summary["missing"] = [row.prompt for row in rows if row.problem]
    return summary


def markdown(table: dict, about_judge: str = "") -> str:
    """The table as a page: one line for each variant, then one for each mesh."""
    keys = [key for key in ("caption", "shape", "color") if key in next(iter(table.values()))]
    heads = ["variant", "pictures a step", "prompts", "meshes", *(f"right {key}" for key in keys)]
    heads += ["seconds: mean", "median", "max"]
    lines = []
    for variant, part in table.items():
        counts = (part["pictures_a_step"] or "-", part["prompts"], part["meshes"])
        seconds = [_shown(part[f"seconds_{name}"]) for name in ("mean", "median", "max")]
        lines.append((variant, *counts, *(shown(part[key]) for key in keys), *seconds))
    pages = [
        markdown_table(heads, lines),
        "Rates among all captions, with 95 % Wilson intervals; no mesh counts as wrong. Seconds "
        "are of whole objects, files included; the first of each seed also looks at the blobs "
        "that all prompts begin with.\n",
        about_judge,
    ]
    for variant, part in table.items():
        pages.append(f"## {variant}\n")
        if part["missing"]:
            pages.append(f"No mesh: {', '.join(part['missing'])}.\n")
        rows = [Row(**values) for values in part["rows"]]
        pages.append(
            markdown_table(
                ("prompt", "seed", "named", "p(prompt)", "seconds"), map(_mesh_line, rows)
            )
        )
    return "\n".join(pages)


def _mesh_line(row: Row) -> tuple[object, ...]:
    named = row.problem or str(row.named)
    named = named if row.right["caption"] else f"**{named}**"
    return row.prompt, row.seed, named, _shown(row.probability, 2), _shown(row.seconds)


def contact_sheet(
    rows: Sequence[Row],
    meshes: Sequence[trimesh.Trimesh | None],
    *,
    columns: int = 12,
    tile: int = 136,
    color_space: ColorSpace = "linear",
) -> Image.Image:
    """A picture of the meshes in a grid with their prompts; a wrong verdict stands below in red."""
    notes = [
        "" if row.right["caption"] else "no mesh" if row.problem else f"seen as {row.named}"
        for row in rows
    ]
    prompts = [row.prompt for row in rows]
    return labelled_sheet(
        prompts, notes, meshes, columns=columns, tile=tile, color_space=color_space
    )


def _shown(value: float | None, digits: int = 1) -> str:
    return "-" if value is None else f"{value:.{digits}f}"
