"""Region focus for generative models."""

import logging
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import torch
import tyro
from rich.console import Console
from rich.table import Table
from torch import Tensor

from .encoder import RegionEncoder
from .framing import Geometry, as_image, whole_geometry
from .mini.concepts import all_captions
from .regions import alpha_from_box, alpha_from_points, alpha_from_strokes, as_alpha_map
from .show import figure, lit_region
from .whole_files import make_writable

Many = tyro.conf.UseAppendAction[tuple[str, ...]]


@dataclass(frozen=True)
class Score:
    """What the regions of a picture are, and what the whole picture is.

    Coordinates are pixels when they are whole numbers (10,20) and fractions of the picture when
    they have a point and are at most one (0.1,0.25). Every region flag can be given many times.
    """

    picture: Annotated[Path, tyro.conf.Positional]
    """Any picture file."""
    texts: str | None = None
    """What to choose from, separated by commas; mini's whole world by default."""
    box: Many = ()
    """A box: left,top,right,bottom."""
    mask: Many = ()
    """A picture file as large as the picture; white is the region, gray counts in part."""
    point: Many = ()
    """A soft disc around a point: x,y."""
    stroke: Many = ()
    """A drawn line: "x,y x,y x,y"."""
    radius: float = 0.12
    """Of the discs, as a fraction of the picture's shorter side."""
    width: float = 0.06
    """Of the strokes, as a fraction of the picture's shorter side."""
    top: int = 2
    """How many texts to show for each region."""
    geometry: Geometry = "pad"
    """How the picture is framed for the tower; "region" cuts each region out."""
    model: str = "mini"
    """mini, or what RegionEncoder opens: a file, folder, Hub id, published or open_clip name."""
    pretrained: str | None = None
    """open_clip's tag or file, for a name of open_clip."""
    text: str | None = None
    """Where the text tower comes from, if the model has none."""
    save: Path | None = None
    """Write a figure of the regions and their names here."""


def score(config: Score, console: Console) -> None:
    """Print the table of regions and their likeliest texts."""
    _check(config)
    image = as_image(config.picture)
    encoder = RegionEncoder.from_pretrained(config.model, config.pretrained, text=config.text)
    texts = _texts(config)
    names, alphas = _regions(config, (image.shape[-2], image.shape[-1]))
    rows = [encoder.score(image, texts, None, whole_geometry(config.geometry))]
    if alphas:
        rows.append(encoder.score(image, texts, alphas, config.geometry))
    best = [row.topk(min(config.top, len(texts))) for row in torch.cat(rows)]
    named = [
        [(texts[i], f"{p:.2f}") for p, i in zip(found.values, found.indices.tolist(), strict=True)]
        for found in best
    ]
    height, width = image.shape[-2:]
    title = f"{config.picture.name}, {width} x {height}, {config.model}"
    table = Table("region", "is", "", title=title)
    for name, likely in zip(["whole picture", *names], named, strict=True):
        for place, row in enumerate(likely):
            style = "dim" if place else "bold green"
            table.add_row("" if place else name, *(f"[{style}]{cell}[/]" for cell in row))
        table.add_section()
    console.print(table)
    if config.save:
        pictures = [lit_region(image, alpha) for alpha in (None, *alphas)]
        lines = [[" ".join(row) for row in likely] for likely in named]
        figure(pictures, lines).save(config.save)
        console.print(f"figure: {config.save}")


def _check(config: Score) -> None:
    """Nothing; raises for what would fail, or mean something else, later."""
    if config.top < 1:
        raise ValueError(f"top is {config.top}; expected 1 or more.")
    for name in ("radius", "width"):
        share = getattr(config, name)
        if not 0 < share <= 1:
            raise ValueError(
                f"{name} is {share:g}; expected a fraction of the picture's shorter side, above 0 "
                f"and at most 1."
            )
    if config.save:
        make_writable(config.save.parent, "save")


def _texts(config: Score) -> list[str]:
    if config.texts is None:
        if config.model != "mini":
            raise ValueError("texts is not given; name what to choose from: --texts 'a, b, c'.")
        return all_captions()
    texts = [text.strip() for text in config.texts.split(",")]
    if not all(texts):
        raise ValueError(f"texts is {config.texts!r}; expected texts separated by commas.")
    return texts


def _regions(config: Score, size: tuple[int, int]) -> tuple[list[str], list[Tensor]]:
    """Names and alpha maps of every region flag."""
    short = min(size)
    radius, width = config.radius * short, config.width * short
    doors = {
        "box": lambda text: alpha_from_box(_pixels(text, "box", size), size, "pixels"),
        "mask": lambda path: as_alpha_map(path, size),
        "point": lambda text: alpha_from_points(
            _pixels(text, "point", size), radius, size, "pixels"
        ),
        "stroke": lambda text: alpha_from_strokes(
            [_pixels(part, "stroke", size) for part in text.split()], width, size, "pixels"
        ),
    }
    names, alphas = [], []
    for kind, door in doors.items():
        for text in getattr(config, kind):
            names.append(f"{kind} {Path(text).name if kind == 'mask' else text}")
            alphas.append(door(text))
    return names, alphas


def _pixels(text: str, name: str, size: tuple[int, int]) -> list[float]:
    """The numbers of "x,y" or "x0,y0,x1,y1" in pixels: whole numbers are, fractions become."""
    try:
        numbers = [float(part) for part in text.split(",")]
    except ValueError:
        numbers = []
    if len(numbers) != (4 if name == "box" else 2):
        box = "left,top,right,bottom, such as 10,20,90,80"
        form = box if name == "box" else "x,y, such as 10,20"
        raise ValueError(f"{name} is {text!r}; expected numbers as {form}.")
    if "." in text:
        if not all(0 <= number <= 1 for number in numbers):
            raise ValueError(
                f"{name} is {text!r}; expected whole numbers for pixels, or all from 0 to 1 for "
                f"fractions of the picture."
            )
        return [number * size[1 - i % 2] for i, number in enumerate(numbers)]
    return numbers


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line; user errors end with exit code 2 and one clear line."""
    logging.basicConfig(format="%(levelname)s: %(message)s", level=logging.WARNING)
    program, config = _read(arguments)
    try:
        program(config, Console())
    except ModuleNotFoundError as error:
        remedy = "it comes with an extra: pip install 'alphaclip-gen[all]'"
        print(f"error: {error.name} is not installed; {remedy}", file=sys.stderr)
        raise SystemExit(2) from None
    except (ValueError, TypeError, OSError, ImportError) as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(2) from None
    except KeyboardInterrupt:
        print("interrupted.", file=sys.stderr)
        raise SystemExit(130) from None


def _read(arguments: Sequence[str] | None) -> tuple[Callable[[Any, Console], object], Any]:
    """The chosen program and its settings."""
    from .bench import Bench, bench
    from .conversion import Convert, convert_command
    from .demo import Demo, demo
    from .evaluate_3d import EvaluateTextTo3D, run
    from .evaluate_focus import EvaluateFocus, evaluate_focus
    from .evaluate_parts import EvaluateParts
    from .evaluate_parts import run as run_parts
    from .focus_grid import FocusGrid, focus_grid
    from .gallery import Gallery, gallery
    from .mini.evaluate import EvaluateMini, evaluate_mini

    programs: dict[type, Callable[[Any, Console], object]] = {
        Score: score,
        Demo: demo,
        Convert: convert_command,
        Bench: bench,
        FocusGrid: focus_grid,
        Gallery: gallery,
        EvaluateFocus: evaluate_focus,
        EvaluateMini: evaluate_mini,
        EvaluateTextTo3D: lambda config, console: run(config),
        EvaluateParts: lambda config, console: run_parts(config),
    }
    named = tyro.conf.subcommand
    evaluations = (
        Annotated[EvaluateMini, named("mini")]
        | Annotated[EvaluateFocus, named("focus")]
        | Annotated[EvaluateTextTo3D, named("text-to-3d")]
        | Annotated[EvaluateParts, named("parts")]
    )
    commands = (
        Annotated[Score, named("score")]
        | Annotated[Demo, named("demo")]
        | Annotated[Convert, named("convert")]
        | Annotated[Bench, named("bench")]
        | Annotated[FocusGrid, named("grid")]
        | Annotated[Gallery, named("gallery")]
        | Annotated[evaluations, named("evaluate", description="Measure against held-out data.")]
    )
    config = tyro.cli(commands, args=arguments, prog="alphaclip-gen", description=__doc__)
    return programs[type(config)], config
