"""The table of text to 3D: what a judge saw in the meshes of each variant and seed.

It is filled call by call. Only what was made and judged alike stands in one table; a file that does
not fit beside is put aside.
"""

import json
import logging
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

from .mesh_judges import target
from .mini.captions import all_captions
from .mini.rates import proportion, shown
from .tables import markdown_table
from .whole_files import write_json, write_text

logger = logging.getLogger(__name__)

FILE = "table.json"
OWN = {
    *("prompt", "prompts", "parts", "seed"),
    *("output", "device", "session", "mesh", "pictures"),
    *("alpha", "views", "augment"),
}
"""A result's settings that may differ within a table: of a mesh, a place or files, or what makes a
variant."""
OWN_OF_TOWER = {"scales", "grow_at"}
"""The same of the settings of its tower: how its pictures grow."""


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
    seconds_in_steps: float | None = None
    """Of the seconds, those that the steps took: rendering and CLIP."""
    outlines: float | None = None
    """How far the mesh's outlines agree with the rendered ones (intersection over union), as its
    maker says."""

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


class Judged(NamedTuple):
    """What a judge saw of one variant."""

    made_by: dict[str, Any]
    """What all rows of a table have in common: judge, prompts, options, settings."""
    pictures_a_step: int | None
    """How many of them a tower saw."""
    exit_codes: dict[str, int | None]
    """Of the program, by seed."""
    rows: list[Row]
    """Of whole seeds."""


def add_to_table(
    output: Path, variant: str, judged: Judged, order: Iterable[str]
) -> dict[str, dict]:
    """What a folder's table.json, and table.md as a page, hold then: a variant's new rows in place
    of its same seeds, and all else that was made alike.

    A file of before that can't stand beside is kept under another name.

    Args:
        output: the folder.
        variant: of the rows.
        judged: the rows and what they were made by.
        order: of the variants.
    """
    before = _read(output / FILE)
    alike = {
        name: {**part, **summarize(_rows(part))}  # an earlier version summarized less
        for name, part in before.items()
        if part.get("made_by") == judged.made_by
        and (name != variant or part["pictures_a_step"] == judged.pictures_a_step)
    }
    if len(alike) < len(before):
        _put_aside(output / FILE)
    alike[variant] = joined(alike.get(variant), judged)
    table = {name: alike[name] for name in order if name in alike}
    write_json(output / FILE, table)
    write_text(output / "table.md", markdown(table))
    return table


def joined(before: dict | None, judged: Judged) -> dict:
    """What a table holds of a variant: new rows, and those of before of other seeds."""
    before = before or {"rows": [], "exit_codes": {}}
    stay = [row for row in _rows(before) if str(row.seed) not in judged.exit_codes]
    rows = sorted([*stay, *judged.rows], key=lambda row: row.seed)
    return {
        "made_by": judged.made_by,
        "exit_codes": {**before["exit_codes"], **judged.exit_codes},
        "pictures_a_step": judged.pictures_a_step,
        **summarize(rows),
        "rows": [asdict(row) for row in rows],
    }


def shared_settings(variant: str, settings: Sequence[dict]) -> dict:
    """What all results of a variant were made with, without what is each one's own.

    Raises:
        ValueError: they differ.
    """
    shared = [{key: one[key] for key in one.keys() - OWN} for one in settings]
    for one in shared:
        if "tower" in one:
            tower = one["tower"].items()
            one["tower"] = {key: value for key, value in tower if key not in OWN_OF_TOWER}
    keys = {key for one in shared for key in one}
    different = {key for key in keys if any(one.get(key) != shared[0].get(key) for one in shared)}
    if different:
        raise ValueError(
            f"meshes of {variant!r} were made with different {', '.join(sorted(different))}; they "
            "can't stand in one table. Judge their seeds in calls with an --output of its own each."
        )
    return dict(sorted(shared[0].items())) if shared else {}


def pictures_a_step(settings: dict[str, Any]) -> int | None:
    """How many pictures a tower saw in a step of a run; None if its settings do not say."""
    views, augment = settings.get("views"), settings.get("augment") or {}
    return None if views is None else views * augment.get("copies", 1)


def _read(path: Path) -> dict[str, dict]:
    """What a table's file holds, by variant; nothing where there is none to be read."""
    try:
        table = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    parts = table.items() if isinstance(table, dict) else ()
    return {variant: part for variant, part in parts if isinstance(part, dict)}


def _put_aside(path: Path) -> None:
    """Nothing; the file has another name."""
    number = 1
    while (aside := path.with_stem(f"{path.stem}-{number}")).exists():
        number += 1
    path.rename(aside)
    logger.warning("%s was made or judged otherwise: kept as %s", path, aside.name)


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
    steps = [row.seconds_in_steps for row in rows if row.seconds_in_steps is not None]
    summary["seconds_in_steps"] = round(statistics.mean(steps), 1) if steps else None
    outlines = [row.outlines for row in rows if row.outlines is not None]
    for name, measure in (("mean", statistics.mean), ("least", min)):
        summary[f"outlines_{name}"] = round(measure(outlines), 3) if outlines else None
    summary["missing"] = [row.prompt for row in rows if row.problem]
    return summary


def markdown(table: dict[str, dict]) -> str:
    """The table as a page: one line for each variant, then one for each mesh."""
    any_part = next(iter(table.values()))
    keys = [key for key in ("caption", "shape", "color") if key in any_part]
    heads = ["variant", "pictures a step", "prompts", "meshes", *(f"right {key}" for key in keys)]
    heads += ["seconds: mean", "median", "max", "in steps", "outlines alike: mean", "least"]
    lines = []
    for variant, part in table.items():
        counts = (part["pictures_a_step"] or "-", part["prompts"], part["meshes"])
        names = ("mean", "median", "max", "in_steps")
        seconds = [_shown(part[f"seconds_{name}"]) for name in names]
        outlines = [_shown(part[f"outlines_{name}"], 3) for name in ("mean", "least")]
        rates = [shown(part[key]) for key in keys]
        lines.append((variant, *counts, *rates, *seconds, *outlines))
    pages = [
        markdown_table(heads, lines),
        "Rates among all captions, with 95 % Wilson intervals; no mesh counts as wrong. Seconds "
        "are of whole objects, files included; the first of each seed also looks at the blobs "
        "that all prompts begin with. In steps: the mean of rendering and CLIP alone. Outlines: "
        "of the mesh and of what is rendered, intersection over union from 24 sides, 1 is the "
        "same.\n",
        any_part["made_by"]["judge"],
    ]
    for variant, part in table.items():
        pages.append(f"## {variant}\n")
        if part["missing"]:
            pages.append(f"No mesh: {', '.join(part['missing'])}.\n")
        of_a_mesh = ("prompt", "seed", "named", "p(prompt)", "seconds")
        pages.append(markdown_table(of_a_mesh, map(_mesh_line, _rows(part))))
    return "\n".join(pages)


def _rows(part: dict) -> list[Row]:
    return [Row(**values) for values in part["rows"]]


def _mesh_line(row: Row) -> tuple[object, ...]:
    named = row.problem or str(row.named)
    named = named if row.right["caption"] else f"**{named}**"
    return row.prompt, row.seed, named, _shown(row.probability, 2), _shown(row.seconds)


def _shown(value: float | None, digits: int = 1) -> str:
    return "-" if value is None else f"{value:.{digits}f}"
