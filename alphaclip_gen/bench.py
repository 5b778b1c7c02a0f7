"""What focus costs: ours against stock, as `measuring` compares them.

"stock, again" is the first case once more: how far its ratio is from 1 is what this machine cannot
tell apart.
"""

import importlib.util
import os
import platform
from dataclasses import asdict, dataclass
from datetime import date
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

import torch
from rich.console import Console

from .bench_cases import (
    AGAIN,
    STOCK,
    TOWERS,
    UNETS,
    TowerName,
    make_encoders,
    make_towers,
    pipeline_cases,
    region_cases,
    tower_cases,
)
from .measuring import Against, Cases, clock_of, compare, model_bytes, peak_bytes
from .tables import Sheet, page, ratio_cells
from .whole_files import make_writable, write_json, write_text

AT_MOST = 1.02
"""What the ratio of a tower's forward and of a pipeline's call may be."""

Row = dict[str, Any]


@dataclass(frozen=True)
class Bench:
    """What focus costs: ours / stock in time and memory, and N regions in one batch."""

    towers: tuple[TowerName, ...] = ("B/32", "B/16", "L/14")
    """Whose forward is measured."""
    pipeline_tower: TowerName = "L/14"
    """The image encoder of the pipelines."""
    regions_tower: TowerName = "B/16"
    """What encodes regions of one picture, besides the shipped mini."""
    regions: tuple[int, ...] = (1, 4, 16)
    """How many regions, in one batch and in as many calls."""
    batch: int = 1
    """Pictures in a tower's forward."""
    steps: int = 4
    """Denoising steps of the pipelines."""
    rounds: int = 11
    """How often each case is timed, at least."""
    seconds: float = 20.0
    """Cases that are done sooner are timed more often, until so long has passed."""
    device: str = "cpu"
    """cpu, or cuda with or without a number."""
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    """Of weights and pictures."""
    output: Path | None = None
    """Folder for bench.json and cost.md."""


@torch.no_grad()
def bench(config: Bench, console: Console) -> Row:
    """Prints, and if asked writes, the tables; returns what bench.json holds."""
    device, dtype = _checked(config), getattr(torch, config.dtype)
    timed = partial(compare, rounds=config.rounds, clock=clock_of(device), seconds=config.seconds)
    rows: dict[str, list[Row]] = {"time": [], "memory": [], "regions": []}
    for name in dict.fromkeys([*config.towers, config.pipeline_tower]):
        with console.status(f"ViT-{name}"):
            towers = make_towers(name, device, dtype)
            if name in config.towers:
                cases = tower_cases(towers, config.batch)
                rows["time"] += _time_rows("tower", name, timed(cases))
                rows["memory"] += _memory_rows(name, cases, device)
            if name == config.pipeline_tower:
                for unet in UNETS:
                    cases = pipeline_cases(towers, config.steps, unet)
                    rows["time"] += _time_rows(f"pipeline, {unet} U-Net", name, timed(cases))
    for label, encoder in make_encoders(config.regions_tower, device, dtype).items():
        with console.status(f"regions, {label}"):
            rows["regions"] += [
                _region_row(label, count, timed(region_cases(encoder, count)))
                for count in config.regions
            ]
    result = {"conditions": _conditions(config, device), **rows}
    for sheet in sheets(result):
        console.print(sheet.printed())
    console.print(note(result), highlight=False)
    if config.output:
        write_json(config.output / "bench.json", result)
        write_text(config.output / "cost.md", markdown(result))
    return result


def _checked(config: Bench) -> torch.device:
    """The device; what cannot be measured is refused before anything is."""
    for name, least in {"rounds": 3, "seconds": 0, "batch": 1, "steps": 1}.items():
        if getattr(config, name) < least:
            raise ValueError(f"{name} is {getattr(config, name)}; expected {least} or more.")
    if not config.towers:
        raise ValueError(f"towers is empty; expected some of {', '.join(TOWERS)}.")
    if not config.regions or min(config.regions) < 1:
        raise ValueError(f"regions is {config.regions}; expected numbers of 1 or more.")
    if importlib.util.find_spec("diffusers") is None:
        raise ImportError("bench needs diffusers: pip install 'alphaclip-gen[diffusion]'")
    device = _device(config.device)
    if config.output:
        make_writable(config.output)
    return device


def _device(name: str) -> torch.device:
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:  # torch without CUDA asserts
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise ValueError(f"device is {name!r}, which cannot be used here: {reason}") from error
    if device.type not in ("cpu", "cuda"):
        raise ValueError(f"device is {name!r}; expected cpu or cuda, whose memory can be measured.")
    return device


# Rows and tables


def _time_rows(what: str, name: str, timed: dict[str, Against]) -> list[Row]:
    return [
        {"what": what, "tower": f"ViT-{name}", "case": case, **found._asdict()}
        for case, found in timed.items()
    ]


def _memory_rows(name: str, cases: Cases, device: torch.device) -> list[Row]:
    rows: list[Row] = []
    for label, case in cases.items():
        if label != AGAIN:
            held = {"weights": model_bytes(case.func), "peak": peak_bytes(case, device)}
            stock = rows[0] if rows else held
            ratios = {f"{key}_ratio": value / stock[key] for key, value in held.items()}
            rows.append({"tower": f"ViT-{name}", "case": label, **held, **ratios})
    return rows


def _region_row(label: str, count: int, timed: dict[str, Against]) -> Row:
    """Pictures a second; the ratio says how many times as fast one batch is."""
    batch, calls = timed["one batch"], timed["calls"]
    speeds = {"batch_speed": count / batch.seconds, "calls_speed": count / calls.seconds}
    ratio = {"ratio": calls.ratio, "low": calls.low, "high": calls.high}
    return {"encoder": label, "regions": count, **speeds, **ratio}


def _conditions(config: Bench, device: torch.device) -> Row:
    """Where, when and with what it was measured."""
    cuda = device.type == "cuda"
    settings = {name: value for name, value in asdict(config).items() if name != "output"}
    return {
        "date": date.today().isoformat(),
        "machine": torch.cuda.get_device_name(device) if cuda else platform.machine(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "versions": {name: version(name) for name in ("torch", "transformers", "diffusers")},
        **settings,
    }


def sheets(result: Row) -> list[Sheet]:
    """The tables of time, memory and regions."""
    time_heads = ("", "tower", "case", "ms", "/ stock", "quartiles", f"at most {AT_MOST}")
    memory_heads = ("tower", "case", "weights, MB", "/ stock", "peak of a forward, MB", "/ stock")
    region_heads = (
        "encoder",
        "N",
        "one batch: pictures/s",
        "N calls",
        "batch / calls",
        "quartiles",
    )
    return [
        Sheet("Time", time_heads, [_time_cells(row) for row in result["time"]]),
        Sheet("Memory", memory_heads, [_memory_cells(row) for row in result["memory"]]),
        Sheet(
            "N regions of one picture", region_heads, [_region_cells(r) for r in result["regions"]]
        ),
    ]


def _time_cells(row: Row) -> tuple[str, ...]:
    ours = row["case"] not in (STOCK, AGAIN)
    met = ("yes" if row["ratio"] <= AT_MOST else "no") if ours else ""
    milliseconds = f"{1000 * row['seconds']:.1f}"
    return (row["what"], row["tower"], row["case"], milliseconds, *ratio_cells(row, 3), met)


def _memory_cells(row: Row) -> tuple[str, ...]:
    pairs = [(f"{row[key] / 1e6:.1f}", f"{row[f'{key}_ratio']:.3f}") for key in ("weights", "peak")]
    return (row["tower"], row["case"], *pairs[0], *pairs[1])


def _region_cells(row: Row) -> tuple[str, ...]:
    speeds = (f"{row['batch_speed']:.1f}", f"{row['calls_speed']:.1f}")
    return (row["encoder"], str(row["regions"]), *speeds, *ratio_cells(row, 2))


def note(result: Row) -> str:
    """The conditions, and how to read the tables."""
    told = result["conditions"]
    versions = ", ".join(f"{name} {number}" for name, number in told["versions"].items())
    return (
        f"{told['date']}: {told['machine']}, cores {told['cores']}, threads {told['threads']}, "
        f"{versions}, {told['dtype']}; batch {told['batch']}, {told['steps']} steps of a pipeline, "
        f"{told['rounds']} rounds, and more where they took less than {told['seconds']:g} s. The "
        f"small U-Net is Stable Diffusion's at a quarter of its width and for 256 pixels; the tiny "
        f"one takes next to no time. Ratios are medians of the rounds; how far "
        f'"{AGAIN}" is from 1 is noise. A forward\'s peak comes on top of weights and input; 1 MB '
        f"is a million bytes."
    )


def markdown(result: Row) -> str:
    """The tables and the conditions, as a page."""
    return page(sheets(result), note(result))
