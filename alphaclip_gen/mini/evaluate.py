"""What mini sees in scenes that it was not trained on, and how smoothly its similarity moves.

Solids come from sprites traced with another seed: fresh views, proportions, colors, backgrounds.
Emoji come in fresh scenes, in the styles of the training and in the one that is never trained on;
their drawings are not part of the package, and are left out where they are not.
"""

import math
import statistics
from dataclasses import dataclass
from datetime import date
from pathlib import Path

import torch
from jaxtyping import Float, Int
from rich.console import Console
from rich.table import Table
from torch import Tensor

from ..encoder import RegionEncoder
from ..whole_files import write_json, write_text
from . import captions
from .captions import COLORS, SHAPES
from .concepts import SOLID_CAPTIONS, all_captions
from .emoji_world import (
    HELD_OUT,
    SEEN,
    SOLIDS,
    caption_targets,
    cast_of_solids,
    render_world,
)
from .evaluate_regions import read_cast, region_figures
from .rates import shown
from .solids import build_bank, random_views, trace_blend
from .world import Scenes


@dataclass(frozen=True)
class EvaluateMini:
    """How often mini names the region of a held-out scene, with its alpha and without."""

    scenes: int = 400
    """Held-out scenes of two to four subjects, of each kind; every visible one is a question."""
    lines: int = 100
    """Straight lines between random pairs of captions, for smoothness."""
    seed: int = 1_000_001
    """Of the scenes; trainings use small ones."""
    model: str = "mini"
    """mini, or a folder that training wrote."""
    artwork: Path = Path("runs/artwork")
    """Folder of the emoji; see python -m alphaclip_gen.mini.artwork."""
    output: Path | None = None
    """Folder for mini.json and mini.md."""


def evaluate_mini(config: EvaluateMini, console: Console) -> dict:
    """Prints, and if asked writes, the table; returns what mini.json holds."""
    encoder = RegionEncoder.from_pretrained(config.model)
    generator = torch.Generator().manual_seed(config.seed)
    bank = build_bank(generator, views=48, blends=0, rippled=0.0)
    scenes = render_world(cast_of_solids(bank), config.scenes, generator, SOLIDS)
    result: dict = {
        "model": config.model,
        "seed": config.seed,
        "date": date.today().isoformat(),
        "accuracy": region_accuracy(encoder, scenes, captions.all_captions()),
        "smoothness": smoothness(encoder, config.lines, generator),
    }
    console.print(_table(result))
    try:
        result["emoji"] = emoji_figures(encoder, config)
        console.print(emoji_markdown(result["emoji"]), soft_wrap=True)
    except FileNotFoundError as missing:
        console.print(f"Emoji are left out. {missing}")
    if config.output:
        config.output.mkdir(parents=True, exist_ok=True)
        write_json(config.output / "mini.json", result)
        write_text(config.output / "mini.md", _markdown(result))
    return result


def emoji_figures(encoder: RegionEncoder, config: EvaluateMini) -> dict:
    """The figures of emoji in the styles of the training, and in the held-out one.

    Raises:
        FileNotFoundError: the drawings are not there.
    """
    cast = read_cast(config.artwork)
    found = {}
    for kind, mix in (("training styles", SEEN), ("held-out style", HELD_OUT)):
        generator = torch.Generator().manual_seed(config.seed)
        found[kind] = region_figures(encoder, render_world(cast, config.scenes, generator, mix))
    return found


def region_accuracy(encoder: RegionEncoder, scenes: Scenes, texts: list[str] | None = None) -> dict:
    """Top-1 of every visible object among captions: with its alpha, and with all ones.

    Args:
        encoder: what is asked.
        scenes: what it is shown.
        texts: captions in the order of `concepts.all_captions`, which None stands for; the first
            of them are enough for solids.
    """
    scene, slot = scenes.present.nonzero().T
    truth = caption_targets(scenes, scene, slot).argmax(1)
    image, alpha = scenes.image[scene], scenes.visible[scene, slot, None]
    text = encoder.embed_texts(texts or all_captions())
    number = scenes.present.sum(1).long()[scene]
    named = {
        "alpha": (_embed(encoder, image, alpha) @ text.T).argmax(1),
        "ones": (_embed(encoder, image, torch.ones_like(alpha)) @ text.T).argmax(1),
    }
    table: dict = {"questions": len(truth), "captions": len(text)}
    for kind, guess in named.items():
        table[kind] = {**_rates(guess, truth), "by_objects": {}}
        for objects in sorted(set(number.tolist()) - {1}):
            right = (guess == truth)[number == objects]
            table[kind]["by_objects"][objects] = round(right.float().mean().item(), 4)
    return table


def smoothness(encoder: RegionEncoder, lines: int, generator: torch.Generator) -> dict:
    """How steadily similarity to a caption rises on the straight line toward it.

    A line goes from one random caption to another: the solid is morphed and the color mixed in
    eleven even steps, seen from one side. Counted are the steps on which the similarity to the
    goal rises, and by how much it falls below its own running maximum at worst.
    """
    names, wordings = list(SHAPES), captions.all_captions()
    text = encoder.embed_texts(wordings)
    colors = torch.tensor(list(COLORS.values()))
    rising, drops, ranks = [], [], []
    for _ in range(lines):
        start, goal = torch.randperm(len(wordings), generator=generator)[:2].tolist()
        image, alpha = _line(
            names[start // len(colors)],
            names[goal // len(colors)],
            colors[[start % len(colors), goal % len(colors)]],
            generator,
        )
        similarity = _embed(encoder, image, alpha) @ text[goal]
        rising.append((similarity.diff() > 0).float().mean().item())
        drops.append((similarity.cummax(0).values - similarity).max().item())
        ranks.append(_rank_correlation(similarity))
    return {
        "lines": lines,
        "steps_rising": round(statistics.mean(rising), 4),
        "rank_correlation": round(statistics.mean(ranks), 4),
        "worst_drop_mean": round(statistics.mean(drops), 4),
    }


def _line(
    first: str, second: str, ends: Float[Tensor, "2 3"], generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Eleven pictures and alphas from the first solid and color to the second."""
    steps = torch.linspace(0, 1, 11)
    same = torch.ones(len(steps))
    turn = random_views(1, generator).expand(len(steps), -1, -1)
    normals, coverage = trace_blend(first, second, steps, turn, 3.4 * same, same)
    light = torch.tensor([0.35, 0.55, 0.76]).view(1, 3, 1, 1)
    facing = (normals * light).sum(1, keepdim=True).clamp(min=0)
    color = torch.lerp(ends[0], ends[1], steps[:, None])[..., None, None]
    alpha = coverage[:, None]
    return torch.lerp(torch.full_like(normals, 0.6), color * (0.6 + 0.45 * facing), alpha).clamp(
        0, 1
    ), alpha


def _rank_correlation(values: Tensor) -> float:
    """Spearman's, of values against their order."""
    ranks = values.argsort().argsort().float()
    order = torch.arange(len(values), dtype=torch.float)
    return torch.corrcoef(torch.stack([ranks, order]))[0, 1].item()


@torch.no_grad()
def _embed(encoder: RegionEncoder, image: Tensor, alpha: Tensor) -> Tensor:
    parts = zip(image.split(256), alpha.split(256), strict=True)
    return torch.cat([encoder.embed(one, region) for one, region in parts])


def _rates(guess: Int[Tensor, " questions"], truth: Int[Tensor, " questions"]) -> dict:
    """The share of right captions; of solids also of right shapes and colors."""
    colors, right = len(COLORS), {"top1": guess == truth}
    if len(truth) and truth.max() < SOLID_CAPTIONS:
        right["shape"] = guess // colors == truth // colors
        right["color"] = (guess % colors == truth % colors) & (guess < SOLID_CAPTIONS)
    rates = {name: round(hit.float().mean().item(), 4) for name, hit in right.items()}
    spread = 1.96 * math.sqrt(rates["top1"] * (1 - rates["top1"]) / len(truth))
    return {**rates, "top1_95": round(spread, 4)}


def _rows(result: dict) -> list[tuple[str, ...]]:
    table = result["accuracy"]
    rows = []
    for kind, label in (("alpha", "alpha on the object"), ("ones", "all-one alpha")):
        part = table[kind]
        rates = [f"{part[key]:.3f}" for key in ("top1", "shape", "color")]
        rates[0] += f" ± {part['top1_95']:.3f}"
        rows.append((label, *rates, *(f"{v:.3f}" for v in part["by_objects"].values())))
    return rows


def _heads(result: dict) -> tuple[str, ...]:
    numbers = [f"of {n}" for n in result["accuracy"]["alpha"]["by_objects"]]
    return ("", "top-1", "shape", "color", *numbers)


def _note(result: dict) -> str:
    table, smooth = result["accuracy"], result["smoothness"]
    return (
        f"{table['questions']} held-out objects among {table['captions']} captions, seed "
        f"{result['seed']}. On {smooth['lines']} straight lines between captions the similarity "
        f"to the goal rises on {smooth['steps_rising']:.1%} of the steps (rank correlation "
        f"{smooth['rank_correlation']:.3f}, worst fall {smooth['worst_drop_mean']:.3f})."
    )


def _table(result: dict) -> Table:
    table = Table(title=f"{result['model']}, held out", caption=_note(result))
    for head in _heads(result):
        table.add_column(head, no_wrap=True)
    for row in _rows(result):
        table.add_row(*row)
    return table


def _markdown(result: dict) -> str:
    page = f"{_lines(_heads(result), _rows(result))}\n\n{_note(result)}\n"
    if "emoji" in result:
        page += f"\n{emoji_markdown(result['emoji'])}"
    return f"{page}\nMeasured on {result['date']}.\n"


def _lines(heads: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    table = [heads, ("---",) * len(heads), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in table)


def emoji_markdown(figures: dict) -> str:
    """The table of emoji: one row for each way to point, one column for each kind of style."""
    kinds = tuple(figures)
    first = figures[kinds[0]]
    rows = [
        (name, *(shown(figures[kind][part][name]) for kind in kinds))
        for part in ("ways", "doors")
        for name in first[part]
    ]
    for name, label in (
        ("in scene", "two regions, both above the scene's others"),
        ("of all", "two regions, both in the best five of all"),
    ):
        rows.append((label, *(shown(figures[kind]["two"][name]) for kind in kinds)))
    for name, label in (
        ("strength", "steps that rise with the strength of alpha"),
        ("shift", "steps that rise as alpha moves to another subject"),
    ):
        rows.append((label, *(f"{figures[k]['graded'][name]['steps_rising']:.2f}" for k in kinds)))
    asked = " and ".join(f"{figures[kind]['questions']} ({kind})" for kind in kinds)
    return (
        f"{_lines(('emoji', *kinds), rows)}\n\nTop-1 among {first['captions']} captions with 95 % "
        f"Wilson intervals; questions: {asked}.\n"
    )
