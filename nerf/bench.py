"""What a step of text to 3D costs: beside the CLIP in it, beside a dense renderer, as sizes grow.

Usage: python nerf/bench.py --output outputs/bench

Calls take turns in one process (see `alphaclip_gen.measuring`); towers other than mini have their
true sizes and random weights.
"""

import math
import os
import platform
import sys
from dataclasses import dataclass, replace
from datetime import date
from functools import partial
from pathlib import Path
from typing import Any

import torch
import tyro
from rich.console import Console
from torch import Tensor

from alphaclip_gen import RegionEncoder
from alphaclip_gen.bench_cases import TowerName, make_encoders
from alphaclip_gen.measuring import Cases, clock_of, compare, peak_bytes
from alphaclip_gen.tables import Sheet, page, ratio_cells
from alphaclip_gen.whole_files import make_writable, write_json, write_text
from blobs import Proportion
from cameras import Cameras, rays, turntable
from field import FieldSettings, Volume, blob_field
from guides import make_guides
from loop import Clock, optimize
from presets import PRESETS
from render import Rendering, RenderSettings, occupancy, render
from settings import FULL_SIZE, Config
from warm_start import WarmStartSettings

AT_MOST = 1.15
"""What a step may take of the time of its CLIP, with ViT-B/16 and pictures of 64 to 96 pixels."""
AT_LEAST = 3.0
"""How many times as fast as the dense renderer ours must be."""

CPU = torch.device("cpu")
TENTH = Proportion(0.576, 0.576, 0.576)
"""A ball that fills a tenth of the cube."""
ONE_STAGE = FieldSettings(density_sizes=(48,), color_sizes=(6,), grow_at=())
BASE = Config(
    prompt="a red ball",
    steps=1_000_000,  # never reached: all steps are alike
    views=2,
    field=ONE_STAGE,
    tower=replace(FULL_SIZE, precision="single"),
    warm_start=WarmStartSettings(shades=0),
)
"""A step of two pictures of 64 pixels."""
AUGMENTED = replace(
    BASE,
    alpha="ones",
    views=8,
    augment=replace(PRESETS["pureclipnerf-explicit"].augment, copies=8),
    tower=replace(BASE.tower, batch=8),
)
"""The same by plain CLIP and looks with PureCLIPNeRF's augmentations, 8 at each of 8 views."""

Row = dict[str, Any]


@dataclass(frozen=True)
class Bench:
    """What a step of text to 3D costs, on a CPU."""

    tower: TowerName = "B/16"
    """Guides besides the shipped mini."""
    resolutions: tuple[int, ...] = (64, 96)
    """Sides of the rendered pictures."""
    rounds: int = 11
    """How often each case is timed."""
    output: Path | None = None
    """Folder for bench-3d.json and cost-3d.md."""


def bench(config: Bench, console: Console) -> Row:
    """Prints, and if asked writes, the tables; returns what bench-3d.json holds."""
    if config.rounds < 3:
        raise ValueError(f"rounds is {config.rounds}; expected 3 or more.")
    if not config.resolutions or min(config.resolutions) < 16:
        raise ValueError(f"resolutions is {config.resolutions}; expected sides of 16 or more.")
    if config.output:
        make_writable(config.output)
    encoders = make_encoders(config.tower, CPU, torch.float32)
    result: Row = {"conditions": _conditions(config)}
    result |= {"step": [], "looks": [], "renderer": [], "growth": []}
    for name, encoder in encoders.items():
        for side in config.resolutions:
            with console.status(f"a step, {name}, {side} pixels"):
                settings = replace(BASE, resolution=side, guidance=(name,))
                result["step"].append(step_row(encoder, settings, config.rounds))
        with console.status(f"64 looks, {name}"):
            result["looks"].append(looks_row(encoder, name))
    for side in config.resolutions:
        with console.status(f"renderer, {side} pixels"):
            result["renderer"].append(renderer_row(side, config.rounds))
    for what, cases in growth_cases(encoders["mini"]).items():
        with console.status(what):
            found = compare(cases, config.rounds, clock_of(CPU))
            result["growth"] += [{"what": what, "at": at, **t._asdict()} for at, t in found.items()]
    for sheet in sheets(result):
        console.print(sheet.printed())
    console.print(note(result), highlight=False)
    if config.output:
        write_json(config.output / "bench-3d.json", result)
        write_text(config.output / "cost-3d.md", markdown(result))
    return result


# A step beside the forward and backward pass of CLIP in it


def step_row(encoder: RegionEncoder, config: Config, rounds: int) -> Row:
    """The time of a step over that of its CLIP, and the most memory that it holds."""
    step = step_of(encoder, config)
    cases: Cases = {
        "CLIP": partial(clip_pass, encoder, config.views * config.augment.copies),
        "step": step,
    }
    found = compare(cases, rounds, clock_of(CPU))
    return {
        "tower": config.guidance[0],
        "resolution": config.resolution,
        "pictures": config.views * config.augment.copies,
        "clip_seconds": found["CLIP"].seconds,
        **found["step"]._asdict(),
        "peak": peak_bytes(step, CPU),
    }


def looks_row(encoder: RegionEncoder, name: str, rounds: int = 3) -> Row:
    """The time of a step by 64 augmented looks over that of one by two masked pictures."""
    configs = {"masked": BASE, "augmented": AUGMENTED}
    cases: Cases = {
        key: step_of(encoder, replace(config, guidance=(name,))) for key, config in configs.items()
    }
    found = compare(cases, rounds, clock_of(CPU))
    return {
        "tower": name,
        "masked_seconds": found["masked"].seconds,
        **found["augmented"]._asdict(),
    }


def step_of(encoder: RegionEncoder, config: Config) -> partial:
    """A call that makes the next step of a run."""
    generator = torch.Generator().manual_seed(0)
    steps = optimize(config, make_guides(config, [encoder]), generator, Clock(CPU))
    next(steps)  # where it begins
    return partial(next, steps)


def clip_pass(encoder: RegionEncoder, count: int) -> Tensor:
    """The gradient in so many pictures with alpha, at the tower's own size."""
    pixels = torch.zeros(count, 4, encoder.size, encoder.size, requires_grad=True)
    encoder.model.get_image_features(pixels).pooler_output.sum().backward()
    assert pixels.grad is not None
    return pixels.grad


# Our renderer beside a dense one


def renderer_row(size: int, rounds: int, side: int = 64, samples: int = 96) -> Row:
    """Dense over ours in time, forward and backward; and how far apart their pictures are."""
    volume, cameras, step = ball_volume(side), turntable(2), 2 / samples
    pictures = {"ours": partial(ours, volume, cameras, size, step),
                "dense": partial(dense, volume, cameras, size, step)}  # fmt: skip
    apart = difference(pictures["ours"](), pictures["dense"]())
    cases: Cases = {name: partial(to_grids, volume, make) for name, make in pictures.items()}
    found = compare(cases, rounds, clock_of(CPU))
    own, peak = found["ours"].seconds, {name: peak_bytes(case, CPU) for name, case in cases.items()}
    return {
        "resolution": size,
        "side": side,
        "samples": samples,
        "our_seconds": own,
        **found["dense"]._asdict(),
        "our_peak": peak["ours"],
        "dense_peak": peak["dense"],
        **apart,
    }


def ball_volume(side: int) -> Volume:
    """A solid ball that fills a tenth of the cube; its grids are leaves that take gradients."""
    settings = replace(ONE_STAGE, density_sizes=(side,), color_sizes=(side,))
    volume = blob_field(TENTH, torch.tensor([0.8, 0.2, 0.1]), settings).volume(6.0)
    return replace(
        volume,
        logits=volume.logits.detach().requires_grad_(),
        normals=volume.normals.detach().requires_grad_(),
        color_logits=volume.color_logits.detach().requires_grad_(),
    )


def ours(volume: Volume, cameras: Cameras, size: int, step: float) -> Rendering:
    """Occupied and visible samples only."""
    light = RenderSettings()
    space = occupancy(volume.density(), step, light.threshold, light.margin)
    return render(volume, cameras, size, space, step, light.hidden_below)


def dense(volume: Volume, cameras: Cameras, size: int, step: float) -> Rendering:
    """Every sample of every ray through the ball of radius 1 goes through `grid_sample`."""
    origins, directions = rays(cameras, size)
    middle = -(origins * directions).sum(dim=1)
    nearest = origins + directions * middle[:, None]
    half_chord = (1 - nearest.square().sum(dim=1)).clamp(min=0).sqrt()
    along = (torch.arange(math.ceil(2 / step) + 1) + 0.5) * step
    distance = (middle - half_chord)[:, None] + along
    points = origins[:, None] + directions[:, None] * distance[..., None]
    density, color, normal = volume(points.view(-1, 3))
    thickness = density.view_as(distance) * step * (along < 2 * half_chord[:, None])
    weight = (thickness - thickness.cumsum(dim=1)).exp() * -torch.expm1(-thickness)
    values = torch.cat([color, torch.ones_like(density)[None], distance.view(1, -1), normal])
    sums = (weight * values.view(len(values), *distance.shape)).sum(dim=2)
    pictures = sums.view(len(values), -1, size, size).transpose(0, 1)
    return Rendering(*pictures.split([3, 1, 1, 3], dim=1))


def to_grids(volume: Volume, make: partial) -> None:
    """Nothing; pictures forward, and backward into the volume's grids."""
    rendering: Rendering = make()
    (rendering.color.sum() + rendering.opacity.sum() + rendering.normal.sum()).backward()
    for grid in (volume.logits, volume.normals, volume.color_logits):
        grid.grad = None


@torch.no_grad()
def difference(one: Rendering, other: Rendering) -> dict[str, float]:
    """How far two renderings' colors and opacities are apart, in [0, 1]: the mean and the most."""
    gap = torch.cat([one.color - other.color, one.opacity - other.opacity], dim=1).abs()
    return {"mean_difference": gap.mean().item(), "most_difference": gap.max().item()}


# How time grows


def growth_cases(encoder: RegionEncoder) -> dict[str, Cases]:
    """What grows -> a step at each of its values, the smallest first."""
    return {
        what: {str(at): step_of(encoder, config) for at, config in configs.items()}
        for what, configs in growth_configs().items()
    }


def growth_configs() -> dict[str, dict[int, Config]]:
    """What grows -> the settings at each of its values, the smallest first."""
    base = replace(BASE, guidance=("mini",))

    def grid(side: int) -> Config:
        return replace(base, field=replace(ONE_STAGE, density_sizes=(side,)))

    def samples(count: int) -> Config:
        return replace(base, render=RenderSettings(step=2 / count))

    def parts(count: int) -> Config:
        texts = ("a red ball @ left", "a blue cube @ right", "a green cone @ top")
        none = replace(base.field, mirror="none")
        return replace(base, prompt=None, parts=texts[:count], field=none)

    return {
        "voxels a side": {side: grid(side) for side in (32, 64, 128)},
        "samples a unit ball's diameter": {count: samples(count) for count in (20, 40, 80)},
        "views": {views: replace(base, views=views) for views in (2, 4, 8)},
        "parts with prompts of their own": {count: parts(count) for count in (1, 2, 3)},
    }


# Tables


def _conditions(config: Bench) -> Row:
    return {
        "date": date.today().isoformat(),
        "machine": platform.machine(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "rounds": config.rounds,
    }


def sheets(result: Row) -> list[Sheet]:
    """The tables of steps, of looks, of the renderers, and of growth."""
    step_heads = ("tower", "pictures", "CLIP, ms", "step, ms", "step / CLIP", "quartiles",
                  f"at most {AT_MOST}", "peak, MB")  # fmt: skip
    looks_heads = ("tower", "2 masked, ms", "64 augmented, ms", "augmented / masked", "quartiles")
    renderer_heads = ("pictures", "ours, ms", "dense, ms", "dense / ours", "quartiles",
                      f"at least {AT_LEAST:g}", "peak, MB: ours", "dense",
                      "difference: mean", "most")  # fmt: skip
    return [
        Sheet("A step beside its CLIP", step_heads, [_step_cells(row) for row in result["step"]]),
        Sheet(
            "A step by 64 augmented looks of plain CLIP beside one by 2 masked pictures",
            looks_heads,
            [_looks_cells(row) for row in result["looks"]],
        ),
        Sheet(
            "Renderer, forward and backward",
            renderer_heads,
            [_renderer_cells(row) for row in result["renderer"]],
        ),
        Sheet(
            "A step of mini as things grow",
            ("what", "", "ms", "/ first", "quartiles"),
            [_growth_cells(row) for row in result["growth"]],
        ),
    ]


def _step_cells(row: Row) -> tuple[str, ...]:
    asked = row["tower"] != "mini"
    return (
        row["tower"],
        f"{row['pictures']} of {row['resolution']} px",
        *(f"{1000 * row[key]:.1f}" for key in ("clip_seconds", "seconds")),
        *ratio_cells(row, 2),
        ("yes" if row["ratio"] <= AT_MOST else "no") if asked else "",
        _megabytes(row["peak"]),
    )


def _looks_cells(row: Row) -> tuple[str, ...]:
    milliseconds = (f"{1000 * row[key]:.1f}" for key in ("masked_seconds", "seconds"))
    return (row["tower"], *milliseconds, *ratio_cells(row, 1))


def _renderer_cells(row: Row) -> tuple[str, ...]:
    return (
        f"2 of {row['resolution']} px",
        *(f"{1000 * row[key]:.1f}" for key in ("our_seconds", "seconds")),
        *ratio_cells(row, 2),
        "yes" if row["ratio"] >= AT_LEAST else "no",
        *(_megabytes(row[key]) for key in ("our_peak", "dense_peak")),
        *(f"{row[key]:.4f}" for key in ("mean_difference", "most_difference")),
    )


def _growth_cells(row: Row) -> tuple[str, ...]:
    return (row["what"], row["at"], f"{1000 * row['seconds']:.1f}", *ratio_cells(row, 2))


def _megabytes(count: int) -> str:
    return f"{count / 1e6:.1f}"


def note(result: Row) -> str:
    """The conditions, and how to read the tables."""
    told = result["conditions"]
    return (
        f"{told['date']}: {told['machine']}, cores {told['cores']}, threads {told['threads']}, "
        f"torch {told['torch']}, float32, {told['rounds']} rounds. A step renders, augments, asks "
        f"CLIP, goes back into a field of 48 voxels a side and changes it; CLIP is the tower "
        f"alone, forward and backward to as many pictures of its own size. The augmented looks "
        f"have PureCLIPNeRF's augmentations, 8 at each of 8 views, 8 at a time through the tower "
        f"(3 rounds). The "
        f"renderers march the same samples, 96 across the unit ball, through a field of 64 voxels "
        f"a side in which a solid ball fills a tenth; ours leaves out those that are empty or "
        f"hidden. Ratios are medians of the rounds; 1 MB is a million bytes."
    )


def markdown(result: Row) -> str:
    """The tables and the conditions, as a page."""
    return page(sheets(result), note(result))


def main() -> None:
    """Run the command line; user errors end with exit code 2 and one clear line."""
    config = tyro.cli(Bench, description=__doc__)
    try:
        bench(config, Console())
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(2) from None


if __name__ == "__main__":
    main()
