"""How often text-to-3D makes what the prompt asked for, by a judge that did not guide.

A program (`nerf/optimize.py`) makes one mesh for each prompt, once for each variant; the judge
names every mesh from 8 turntable views. The folder then holds `table.md`, `table.json`, and a
picture of all meshes for each variant. A prompt without a mesh counts as wrong.
"""

import json
import logging
import math
import re
import shlex
import statistics
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

import torch
import trimesh
from PIL import Image, ImageDraw, ImageFont

from .mini.captions import COLOR_WORDS, COLORS, SHAPES, caption
from .mini.judge import Judge, judge_mesh
from .mini.solid_meshes import fit_unit_ball
from .mini.splat import ColorSpace, Light, render_mesh

logger = logging.getLogger(__name__)

Variant = Literal["masked", "plain"]

VARIANTS: dict[str, tuple[str, ...]] = {"masked": (), "plain": ("--alpha", "ones")}
"""Variant -> the flags it adds: opacity as alpha (the program's default), or plain CLIP."""


@dataclass(frozen=True)
class EvaluateTextTo3D:
    """Text-to-3D over 48 prompts, named by the judge. What is finished is not made again."""

    output: Path = Path("evaluation/text-to-3d")
    """Folder of the meshes (one folder for each variant) and of the tables."""
    variants: tuple[Variant, ...] = ("masked", "plain")
    """masked: alpha is the rendered opacity. plain: alpha is one everywhere, that is CLIP."""
    prompts: Path | None = None
    """File of one prompt a line, each with a solid and a color of mini; the 48 if not given."""
    program: Path | None = None
    """The program that makes the meshes; nerf/optimize.py if not given."""
    options: str = ""
    """More flags for the program, in one string: --options="--steps 100"."""
    judge_only: bool = False
    """Judge the meshes that are there, and make none."""
    color_space: ColorSpace = "linear"
    """How the meshes store their vertex colors: linear light, as glTF says, or sRGB values."""


@dataclass(frozen=True)
class Row:
    """One prompt: what was asked, what the judge saw; `problem` says why there is no verdict."""

    prompt: str
    shape: str
    color: str
    named_shape: str | None = None
    named_color: str | None = None
    probability: float | None = None
    """Of the prompt's caption, among all captions."""
    seconds: float | None = None
    problem: str | None = None

    @property
    def right(self) -> dict[str, bool]:
        """Whether the whole caption, the shape and the color were named."""
        shape, color = self.named_shape == self.shape, self.named_color == self.color
        return {"caption": shape and color, "shape": shape, "color": color}


def run(config: EvaluateTextTo3D) -> dict:
    """Makes and judges the meshes; returns what table.json holds."""
    prompts = read_prompts(config.prompts) if config.prompts else evaluation_prompts()
    return evaluate_text_to_3d(
        None if config.judge_only else find_program(config.program),
        prompts,
        config.output,
        config.variants,
        options=shlex.split(config.options),
        color_space=config.color_space,
    )


def evaluate_text_to_3d(
    program: Path | None,
    prompts: Sequence[str],
    output: Path,
    variants: Sequence[str] = ("masked", "plain"),
    *,
    options: Sequence[str] = (),
    color_space: ColorSpace = "linear",
    judge: Judge | None = None,
) -> dict:
    """Scores of each variant; also written to table.md, table.json and <variant>.png in `output`.

    Args:
        program: called once for each variant as `program --prompts FILE --output FOLDER`; it writes
            FOLDER/<slug>/mesh.glb and result.json (with "seconds") and skips what is finished.
            None judges the meshes that are there.
        prompts: each names a solid and a color of mini.
        output: folder; the meshes of a variant are in the folder of its name.
        variants: keys of `VARIANTS`.
        options: more arguments for the program.
        color_space: how the meshes store their vertex colors, see `render_mesh`; glTF says linear.
        judge: the shipped one if None.

    Raises:
        ValueError: an unknown variant, no prompts, or a prompt without a solid or a color.
        RuntimeError: the program failed and made no mesh at all.
    """
    unknown = [variant for variant in variants if variant not in VARIANTS]
    if unknown or not variants:
        raise ValueError(f"variants are {list(variants)}; expected some of {', '.join(VARIANTS)}.")
    if not prompts:
        raise ValueError("prompts are empty; expected at least one. The default makes 48.")
    targets = {prompt: target(prompt) for prompt in prompts}
    judge = judge or Judge.from_pretrained()
    output.mkdir(parents=True, exist_ok=True)
    table = {}
    for variant in variants:
        folder = output / variant
        flags = [*VARIANTS[variant], *options]
        code = make_meshes(program, prompts, folder, flags) if program else None
        rows = [
            judge_folder(judge, folder / slug(prompt), prompt, targets[prompt], color_space)
            for prompt in prompts
        ]
        table[variant] = {**summarize(rows), "exit_code": code, "rows": [asdict(r) for r in rows]}
        meshes = [load_mesh(folder / slug(row.prompt))[0] for row in rows]
        contact_sheet(rows, meshes, color_space=color_space).save(output / f"{variant}.png")
        (output / "table.json").write_text(json.dumps(table, indent=1) + "\n")
        (output / "table.md").write_text(markdown(table))
        logger.info("%s: %s", variant, table[variant]["caption"])
    return table


def evaluation_prompts() -> list[str]:
    """The 48 prompts: four rows of all solids; every color comes once in each row."""
    colors = list(COLORS)
    return [
        caption(shape, colors[(index + 3 * row) % len(colors)])
        for row in range(4)
        for index, shape in enumerate(SHAPES)
    ]


def read_prompts(path: Path) -> list[str]:
    """The lines of a file that are not blank, each once.

    Raises:
        FileNotFoundError: no such file.
    """
    if not path.is_file():
        raise FileNotFoundError(f"prompts: {path} is not a file; expected one prompt a line.")
    lines = (line.strip() for line in path.read_text(encoding="utf-8").splitlines())
    return list(dict.fromkeys(line for line in lines if line))


def find_program(program: Path | None = None) -> Path:
    """The program that makes meshes: the given file, or nerf/optimize.py of a checkout.

    Raises:
        FileNotFoundError: it is not there.
    """
    checkout = Path(__file__).resolve().parents[1]
    places = [program] if program else [p / "nerf" / "optimize.py" for p in (Path.cwd(), checkout)]
    for place in places:
        if place.is_file():
            return place
    raise FileNotFoundError(
        f"program: {' and '.join(map(str, places))} not found. nerf/optimize.py comes with a clone "
        "of the repository: run there, or give its path with --program."
    )


def slug(prompt: str) -> str:
    """The folder name of a prompt: "a red cone" -> "a-red-cone"."""
    return "-".join(_words(prompt))


def target(prompt: str) -> tuple[str, str]:
    """The solid and the color that a prompt names.

    Raises:
        ValueError: it names none, or several.
    """
    words = set(_words(prompt))
    shapes = [shape for shape, names in SHAPES.items() if words & set(names)]
    colors = [color for color, names in COLOR_WORDS.items() if words & set(names)]
    if len(shapes) != 1 or len(colors) != 1:
        raise ValueError(
            f"prompt {prompt!r} names the solids {shapes} and the colors {colors}; expected one of "
            f"each. The judge knows {', '.join(SHAPES)} in {', '.join(COLORS)}."
        )
    return shapes[0], colors[0]


def judge_folder(
    judge: Judge,
    folder: Path,
    prompt: str,
    asked: tuple[str, str],
    color_space: ColorSpace = "linear",
) -> Row:
    """The verdict on folder/mesh.glb, or the problem with it."""
    shape, color = asked
    seconds = seconds_of(folder)
    mesh, problem = load_mesh(folder)
    if mesh is None:
        return Row(prompt, shape, color, seconds=seconds, problem=problem)
    verdict = judge_mesh(judge, mesh, color_space=color_space)
    index = list(SHAPES).index(shape) * len(COLORS) + list(COLORS).index(color)
    probability = round(verdict.log_probabilities[index].exp().item(), 4)
    return Row(prompt, shape, color, verdict.shape, verdict.color, probability, seconds)


def wilson(hits: int, trials: int, z: float = 1.96) -> tuple[float, float]:
    """The 95 % score interval of a proportion (Wilson, 1927)."""
    rate, weight = hits / trials, z * z / trials
    middle = (rate + weight / 2) / (1 + weight)
    reach = z * math.sqrt(rate * (1 - rate) / trials + weight / (4 * trials)) / (1 + weight)
    return max(0.0, middle - reach), min(1.0, middle + reach)


def proportion(hits: int, trials: int) -> dict[str, float]:
    """The rate and its interval, as tables hold them."""
    low, high = wilson(hits, trials)
    return {"rate": hits / trials, "low": round(low, 4), "high": round(high, 4)}


def shown_proportion(part: dict[str, float]) -> str:
    """What `proportion` gave, in words."""
    return f"{part['rate']:.3f} ({part['low']:.2f} to {part['high']:.2f})"


def summarize(rows: Sequence[Row]) -> dict:
    """Rates with intervals for the caption, the shape and the color; seconds; missing prompts."""
    summary: dict = {"prompts": len(rows)}
    for key in ("caption", "shape", "color"):
        summary[key] = proportion(sum(row.right[key] for row in rows), len(rows))
    seconds = [row.seconds for row in rows if row.seconds is not None]
    for name, measure in (("mean", statistics.mean), ("median", statistics.median), ("max", max)):
        summary[f"seconds_{name}"] = round(measure(seconds), 1) if seconds else None
    summary["missing"] = [row.prompt for row in rows if row.problem]
    return summary


def markdown(table: dict) -> str:
    """The table as a page: one line for each variant, then one for each prompt."""
    lines = [
        "| variant | prompts | right caption | right shape | right color | seconds: mean "
        "| median | max |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for variant, part in table.items():
        rates = [shown_proportion(part[key]) for key in ("caption", "shape", "color")]
        seconds = [_shown(part[f"seconds_{name}"]) for name in ("mean", "median", "max")]
        lines.append(_line(variant, part["prompts"], *rates, *seconds))
    lines += ["", "Rates among all captions, with 95 % Wilson intervals; no mesh counts as wrong."]
    for variant, part in table.items():
        lines += ["", f"## {variant}", ""]
        if part["missing"]:
            lines += [f"No mesh: {', '.join(part['missing'])}.", ""]
        lines += [_line("prompt", "named", "p(prompt)", "seconds"), "|---|---|---|---|"]
        for row in (Row(**values) for values in part["rows"]):
            named = row.problem or f"{row.named_color} {row.named_shape}"
            named = named if row.right["caption"] else f"**{named}**"
            lines.append(_line(row.prompt, named, _shown(row.probability, 2), _shown(row.seconds)))
    return "\n".join(lines) + "\n"


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
        ""
        if row.right["caption"]
        else "no mesh"
        if row.problem
        else f"seen as {row.named_color} {row.named_shape}"
        for row in rows
    ]
    prompts = [row.prompt for row in rows]
    return labelled_sheet(
        prompts, notes, meshes, columns=columns, tile=tile, color_space=color_space
    )


def labelled_sheet(
    prompts: Sequence[str],
    notes: Sequence[str],
    meshes: Sequence[trimesh.Trimesh | None],
    *,
    columns: int = 12,
    tile: int = 136,
    color_space: ColorSpace = "linear",
) -> Image.Image:
    """A picture of the meshes in a grid, each with its prompt, and below it a note in red."""
    pad, text = 6, 34
    across = min(columns, len(prompts))
    down = math.ceil(len(prompts) / across)
    sheet = Image.new(
        "RGB", (pad + across * (tile + pad), pad + down * (tile + text)), (255, 255, 255)
    )
    pen, font = ImageDraw.Draw(sheet), ImageFont.load_default(size=11)
    for number, (prompt, note, mesh) in enumerate(zip(prompts, notes, meshes, strict=True)):
        left = pad + number % across * (tile + pad)
        top = pad + number // across * (tile + text)
        sheet.paste(_tile(mesh, tile, color_space), (left, top))
        center = left + tile // 2
        pen.text((center, top + tile + 3), prompt, (60, 62, 68), font, anchor="ma")
        pen.text((center, top + tile + 16), note, (200, 40, 40), font, anchor="ma")
    return sheet


def _tile(mesh: trimesh.Trimesh | None, size: int, color_space: ColorSpace) -> Image.Image:
    shades = torch.linspace(0.97, 0.86, size)[:, None].expand(1, 3, size, size)
    if mesh is not None:
        view = render_mesh(
            fit_unit_ball(mesh),
            azimuth=30.0,
            elevation=22.0,
            size=(size, size),
            distance=3.9,
            light=Light(),
            color_space=color_space,
            supersample=3,
        )
        shades = view.over(shades)
    pixels = (shades[0] * 255).round().byte().permute(1, 2, 0).contiguous()
    return Image.fromarray(pixels.numpy())


def make_meshes(program: Path, prompts: Sequence[str], folder: Path, flags: Sequence[str]) -> int:
    """Runs the program; returns its exit code. Its output is shown as it comes.

    Raises:
        RuntimeError: it failed and there is no mesh at all, as after a wrong option.
    """
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / "prompts.txt"
    file.write_text("\n".join(prompts) + "\n", encoding="utf-8")
    command = [sys.executable, str(program), "--prompts", str(file), "--output", str(folder)]
    code = subprocess.run([*command, *flags], check=False).returncode
    if code and not any((folder / slug(prompt) / "mesh.glb").is_file() for prompt in prompts):
        raise RuntimeError(
            f"the program ended with exit code {code} and made no mesh; its message is above. "
            f"The command was: {shlex.join([*command, *flags])}"
        )
    if code:
        logger.warning("%s ended with exit code %d; judging what is there", program.name, code)
    return code


def load_mesh(folder: Path) -> tuple[trimesh.Trimesh | None, str | None]:
    """The mesh of a folder with its vertex colors (no materials), or why there is none."""
    path = folder / "mesh.glb"
    if not path.is_file():
        return None, "no mesh.glb"
    try:
        mesh = trimesh.load_mesh(path, skip_materials=True)
        fit_unit_ball(mesh)
    except Exception as error:  # any broken file must count as wrong, not end the evaluation
        return None, f"unreadable mesh.glb: {error}"
    return mesh, None


def seconds_of(folder: Path) -> float | None:
    """What the result in a folder took; None where it does not say."""
    try:
        return float(json.loads((folder / "result.json").read_text())["seconds"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _words(prompt: str) -> list[str]:
    return re.findall(r"[^\W_]+", prompt.lower())


def _line(*cells: object) -> str:
    return f"| {' | '.join(map(str, cells))} |"


def _shown(value: float | None, digits: int = 1) -> str:
    return "-" if value is None else f"{value:.{digits}f}"
