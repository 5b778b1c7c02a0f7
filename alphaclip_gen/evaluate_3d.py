"""How often text-to-3D makes what the prompt asked for, by a judge that did not guide.

A program (`nerf/optimize.py`) makes one mesh for each prompt, variant and seed; a judge names every
mesh from 8 turntable views. The folder then holds `table.md`, `table.json`, and for each variant a
picture of the meshes of the seed that was asked for first. A prompt without a mesh counts as wrong.
A table can be filled in several calls, by variants and seeds.

The judge is the shipped one of mini's solids, or any CLIP: then the mesh's caption is looked for
among all prompts, which is the R-Precision of Dream Fields (arXiv 2112.01455, section 4.1).
"""

import logging
import shlex
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import trimesh
from PIL import Image

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
from .mesh_judges import SOLIDS, MeshJudge, open_judge
from .mesh_table import Judged, Row, add_to_table, pictures_a_step, shared_settings
from .mini.captions import COLORS, SHAPES, caption
from .mini.splat import ColorSpace

logger = logging.getLogger(__name__)

Variant = Literal["masked", "plain", "augmented"]

VARIANTS: dict[str, tuple[str, ...]] = {
    "masked": ("--alpha", "opacity", "--views", "2", "--augment.copies", "1"),
    "plain": ("--alpha", "ones", "--views", "2", "--augment.copies", "1"),
    "augmented": (
        *("--alpha", "ones", "--views", "8"),
        *("--tower.scales", "1", "--tower.grow-at"),
        *("--augment.copies", "8", "--augment.background", "dream"),
        *("--augment.shift", "0.25", "--augment.zoom", "0.2", "--augment.rotation", "0"),
        *("--augment.perspective", "0.2", "--augment.cutout", "0.5"),
        *("--augment.brightness", "0.5", "--augment.saturation", "1", "--augment.contrast", "0.5"),
    ),
}
"""Variant -> the flags it adds to whatever preset: opacity as alpha; plain CLIP, both of two
pictures a step; plain CLIP with PureCLIPNeRF's augmentations (arXiv 2209.15172), 64 a step that are
as large at first as at last."""


@dataclass(frozen=True)
class EvaluateTextTo3D:
    """Text-to-3D over many prompts, named by a judge. What is finished is not made again, and the
    tables keep what they say of other variants and seeds that were made and judged alike."""

    output: Path = Path("evaluation/text-to-3d")
    """Folder of the meshes (a folder for each variant and seed) and of the tables."""
    variants: tuple[Variant, ...] = ("masked", "plain")
    """masked: alpha is the rendered opacity. plain: alpha is one everywhere, that is CLIP.
    augmented: plain, with 8 looks at each of 8 views over random backgrounds, all at full size."""
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

    Raises:
        ValueError: an unknown variant, no prompts or seeds, a prompt that the judge of solids has
            no caption for, or meshes that were made with different settings.
        FileNotFoundError: a variant's seed has no results, and there is no program to make them.
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
    variants, seeds = list(dict.fromkeys(variants)), list(dict.fromkeys(seeds))
    names = slugs(prompts)
    folders = {(v, seed): output / v / f"seed-{seed}" for v in variants for seed in seeds}
    if program is None:
        _check_made(folders.values(), names)
    table: dict[str, dict] = {}
    for variant in variants:
        rows, meshes = list[Row](), list[trimesh.Trimesh | None]()
        codes, settings = dict[str, int | None](), list[dict]()
        for seed in seeds:
            folder = folders[variant, seed]
            flags = [*VARIANTS[variant], "--seed", str(seed), *options]
            made = make_meshes(program, prompts, folder, flags)
            codes[str(seed)] = made.code
            for name, prompt in zip(names, prompts, strict=True):
                problem = made.problems.get(name)
                row, mesh = judge_folder(judge, folder / name, prompt, seed, problem)
                rows.append(row)
                if seed == seeds[0]:
                    meshes.append(mesh)
                if mesh is not None:
                    settings.append(result_of(folder / name).get("settings") or {})
        made_by = {
            "judge": judge.about,
            "color_space": color_space,
            "prompts": list(prompts),
            "options": list(options),
            "settings": shared_settings(variant, settings),
        }
        pictures = pictures_a_step(settings[0]) if settings else None
        table = add_to_table(output, variant, Judged(made_by, pictures, codes, rows), VARIANTS)
        sheet = contact_sheet(rows[: len(meshes)], meshes, color_space=color_space)
        sheet.save(output / f"{variant}.png")
        logger.info("%s: %s", variant, table[variant]["caption"])
    return table


def _check_made(folders: Iterable[Path], names: Sequence[str]) -> None:
    """Nothing; each folder has results.

    Raises:
        FileNotFoundError: one has none.
    """
    for folder in folders:
        if not any(result_of(folder / name) for name in names):
            raise FileNotFoundError(
                f"output: nothing to judge; expected results in folders such as "
                f"{folder / names[0]}. Leave out --judge-only to make them."
            )


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
) -> tuple[Row, trimesh.Trimesh | None]:
    """The verdict on folder/mesh.glb and that mesh, or the problem with it and None."""
    asked = judge.asked(prompt)
    mesh, problem = load_mesh(folder, prompt, problem)
    if mesh is None:
        return Row(prompt, asked, problem=problem, seed=seed), None
    probability = judge.probability(mesh)
    named = judge.captions[int(probability.argmax())]
    likely = round(probability[list(judge.captions).index(asked)].item(), 4)
    result = result_of(folder)
    row = Row(
        prompt,
        asked,
        named,
        likely,
        number_in(result, "seconds"),
        seed=seed,
        seconds_in_steps=number_in(result, "seconds_by_part", "rendering", "CLIP"),
        outlines=number_in(result, "silhouette_iou"),
    )
    return row, mesh


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
