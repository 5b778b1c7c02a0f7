"""Folders of meshes that a program made, one for each prompt: made, found, read, shown.

The program is `nerf/optimize.py` or any that is called as `program --prompts FILE --output FOLDER
--resume` and writes FOLDER/<slug>/mesh.glb and result.json, skipping what is finished and going on
with what was interrupted. If prompts fail it ends with an exit code other than 0, and may say why
in FOLDER/failures.json.
"""

import json
import logging
import math
import re
import shlex
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
import trimesh
from PIL import Image, ImageDraw, ImageFont

from .mini.solid_meshes import fit_unit_ball
from .mini.splat import ColorSpace, Light, render_mesh

logger = logging.getLogger(__name__)

RESULT = "result.json"
FAILURES = "failures.json"
"""Of a program's output folder: prompts that failed in its last run, and why."""


class Made(NamedTuple):
    """What a run of the program has come to."""

    code: int | None
    """Its exit code; None if it did not run."""
    problems: dict[str, str]
    """Why the mesh of a folder does not count, by the folder's name."""


def read_prompts(path: Path) -> list[str]:
    """The prompts of a file, one a line; blank lines and repeated ones are left out.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is not text, or holds no prompt.
    """
    if not path.is_file():
        raise FileNotFoundError(f"prompts {str(path)!r} not found; expected one prompt a line.")
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise ValueError(f"prompts {str(path)!r} is not UTF-8 text: {error}.") from error
    prompts = list(dict.fromkeys(line.strip() for line in lines if line.strip()))
    if not prompts:
        raise ValueError(f"prompts {str(path)!r} is empty; expected one prompt a line.")
    return prompts


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
    return "-".join(words(prompt))[:80].rstrip("-") or "prompt"


def slugs(prompts: Sequence[str]) -> list[str]:
    """One folder name for each prompt, numbered where two would share one."""
    names: list[str] = []
    for prompt in prompts:
        name, number = slug(prompt), 2
        while name in names:
            name, number = f"{slug(prompt)}-{number}", number + 1
        names.append(name)
    return names


def words(prompt: str) -> list[str]:
    """The words of a prompt in small letters."""
    return re.findall(r"[^\W_]+", prompt.lower())


def make_meshes(
    program: Path | None, prompts: Sequence[str], folder: Path, flags: Sequence[str]
) -> Made:
    """Runs the program, which goes on where it was interrupted; its output is shown as it comes.

    Without a program, nothing is made: what is there counts.

    Raises:
        ChildProcessError: it failed and there is no mesh that counts, as after a wrong option.
    """
    if program is None:
        return Made(None, {})
    folder.mkdir(parents=True, exist_ok=True)
    (folder / FAILURES).unlink(missing_ok=True)
    file = folder / "prompts.txt"
    file.write_text("\n".join(prompts) + "\n", encoding="utf-8")
    command = [sys.executable, str(program), "--prompts", str(file), "--output", str(folder)]
    command += ["--resume", *flags]
    code = subprocess.run(command, check=False).returncode
    problems = _problems(prompts, folder, code)
    if code and not any(
        load_mesh(folder / name, prompt, problems.get(name))[0]
        for name, prompt in zip(slugs(prompts), prompts, strict=True)
    ):
        raise ChildProcessError(
            f"the program ended with exit code {code} and made no mesh that counts; its message "
            f"is above. The command was: {shlex.join(command)}"
        )
    if code:
        logger.warning("%s ended with exit code %d; judging what is there", program.name, code)
    for name, problem in problems.items():
        logger.warning("%s does not count: %s", folder / name, problem)
    return Made(code, problems)


def _problems(prompts: Sequence[str], folder: Path, code: int) -> dict[str, str]:
    """Why meshes that may be there do not count, after a run of the program.

    One that failed and named no prompts has approved only of those that it made itself.
    """
    names = slugs(prompts)
    if code == 0:
        return {}
    if (folder / FAILURES).is_file():
        failed = json.loads((folder / FAILURES).read_text(encoding="utf-8"))
        return {n: failed[p] for n, p in zip(names, prompts, strict=True) if p in failed}
    begin = (folder / "prompts.txt").stat().st_mtime_ns
    results = {name: folder / name / RESULT for name in names}
    return {
        name: f"of an earlier run, and this one ended with exit code {code} before it was done"
        for name, path in results.items()
        if path.is_file() and path.stat().st_mtime_ns < begin
    }


def load_mesh(
    folder: Path, prompt: str, problem: str | None = None
) -> tuple[trimesh.Trimesh | None, str | None]:
    """The mesh of a folder with its vertex colors (no materials), or why there is none.

    Args:
        folder: with mesh.glb, and result.json of a run that has ended by itself.
        prompt: the line that it was made from; a result that names another does not count.
        problem: why the mesh does not count, if that is known.
    """
    path = folder / "mesh.glb"
    if problem := problem or _incomplete(folder, prompt):
        return None, problem
    try:
        mesh = trimesh.load_mesh(path, skip_materials=True)
        fit_unit_ball(mesh)
    except Exception as error:  # any broken file must count as wrong, not end the evaluation
        return None, f"unreadable mesh.glb: {error}"
    return mesh, None


def _incomplete(folder: Path, prompt: str) -> str | None:
    """What keeps a folder from being the whole result of a line of prompts; None if nothing."""
    result, asked = result_of(folder), title(prompt)
    if not (folder / "mesh.glb").is_file():
        return next(iter(result.get("problems", [])), "no mesh.glb")
    if not result:
        return "mesh.glb without a result.json"
    if result.get("interrupted"):
        return f"ended early: {result.get('stopped', 'interrupted')}"
    if result.get("prompt", asked) != asked:
        return f"made of {result['prompt']!r}"
    return None


def title(line: str) -> str:
    """What a line of prompts makes, in words: its prompt, or the texts of all its parts."""
    prompt, *parts = (text.strip() for text in line.split("|"))
    return prompt or " and ".join(part.partition("@")[0].strip() for part in parts)


def result_of(folder: Path) -> dict[str, Any]:
    """What result.json of a folder holds; nothing where there is none that can be read."""
    try:
        content = json.loads((folder / RESULT).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def number_in(result: dict, name: str, *parts: str) -> float | None:
    """A number of a result, such as its "seconds", or the sum of some parts of a group of them;
    None where it does not say."""
    found = result.get(name)
    group = found if isinstance(found, dict) else {}
    numbers = [group.get(part) for part in parts] if parts else [found]
    known = [number for number in numbers if isinstance(number, int | float)]
    return float(sum(known)) if len(known) == len(numbers) else None


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
        sheet.paste(view_of(mesh, tile, color_space), (left, top))
        center = left + tile // 2
        pen.text((center, top + tile + 3), prompt, (60, 62, 68), font, anchor="ma")
        pen.text((center, top + tile + 16), note, (200, 40, 40), font, anchor="ma")
    return sheet


def view_of(
    mesh: trimesh.Trimesh | None, size: int, color_space: ColorSpace, azimuth: float = 30.0
) -> Image.Image:
    """A lit picture of a mesh over light gray; without a mesh the gray alone."""
    shades = torch.linspace(0.97, 0.86, size)[:, None].expand(1, 3, size, size)
    if mesh is not None:
        view = render_mesh(
            fit_unit_ball(mesh),
            azimuth=azimuth,
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
