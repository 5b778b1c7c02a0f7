"""Settings that can't be used, found before the work begins and named with the remedy."""

import dataclasses
import math
from collections.abc import Iterator, Sequence
from typing import get_args

import torch

from alphaclip_gen.precision import has_bfloat16
from looks import AlphaMode
from parts import parse_part
from results import check_files
from scene import check_start, open_scene
from session import check_session
from settings import Config, parse_guide

COUNTS = (
    *("steps", "views", "split_views", "augment.copies", "tower.batch", "pictures.frames"),
    *("warm_start.finalists", "warm_start.views", "warm_start.batch"),
)
RANGES: dict[str, tuple[float, float]] = {
    **dict.fromkeys(COUNTS, (1, math.inf)),
    "resolution": (16, math.inf),
    "seed": (0, math.inf),
    "warm_start.shades": (0, math.inf),
    "field.density_sizes": (2, 256),
    "cameras.elevation": (-90, 90),
    "cameras.radius": (1.01, math.inf),
    "cameras.field_of_view": (1, 170),
    "render.step": (0.001, 1),
    "render.step_in_voxels": (0, 10),
    "render.threshold": (0, 1),
    "render.faint": (0, 1),
    "render.margin": (0, 2),
    "render.hidden_below": (0, 1),
    "render.ambient": (0, 1),
    "adam.density_rate": (0, math.inf),
    "adam.color_rate": (0, math.inf),
    "adam.last_rate": (0, math.inf),
    "adam.betas": (0, 0.99999),
    "adam.eps": (1e-12, math.inf),
    "pictures.size": (16, 8192),
    "pictures.elevation": (-90, 90),
    "pictures.milliseconds": (10, math.inf),
    "pictures.step": (0.001, 1),
}
"""Smallest and largest of settings, both included; a camera stands outside of the ball of radius 1
that is rendered, voxels are numbered in single precision, a GIF counts hundredths of a second."""
SMALLEST = 8
"""Side of the guidance pictures, in pixels, at whatever scale."""
LOW_TO_HIGH = {"cameras.elevation", "cameras.radius", "render.ambient"}
"""Settings of two numbers, the lower one first."""


def check(config: Config) -> None:
    """Nothing; raises ValueError for a setting that can't be used."""
    _check_texts(config)
    _check_numbers(config)
    if config.views % config.split_views:
        raise ValueError(
            f"split_views is {config.split_views}; expected a divisor of views, {config.views}."
        )
    if config.alpha not in get_args(AlphaMode):
        raise ValueError(f"alpha is {config.alpha!r}; expected one of {get_args(AlphaMode)}.")
    _check_field(config)
    _check_stages("tower.scales", config.tower.scales, "tower.grow_at", config.tower.grow_at)
    _check_sides(config)
    _check_guides(config.guidance)
    _check_device(config.device, config.tower.precision)
    check_session(config.session)
    check_files(config.mesh, config.pictures)
    check_start(config)
    open_scene(config, torch.device("cpu"))


def _check_numbers(config: Config) -> None:
    for name, value in _numbers(config):
        values = value if isinstance(value, tuple) else (value,)
        low, high = RANGES.get(name, (-math.inf, math.inf))
        if not all(math.isfinite(one) and low <= one <= high for one in values):
            expected = f"{low:g} or more" if high == math.inf else f"{low:g} to {high:g}"
            expected = expected if name in RANGES else "finite numbers"
            raise ValueError(f"{name} is {value}; expected {expected}.")
        if name in LOW_TO_HIGH and list(values) != sorted(values):
            raise ValueError(f"{name} is {value}; expected the lower number first.")


def _numbers(settings: object, prefix: str = "") -> Iterator[tuple[str, float | tuple]]:
    """Names and values of all settings that are numbers, those of the session left out."""
    assert dataclasses.is_dataclass(settings)
    for field in dataclasses.fields(settings):
        value, name = getattr(settings, field.name), prefix + field.name
        if dataclasses.is_dataclass(value) and name != "session":
            yield from _numbers(value, f"{name}.")
        elif isinstance(value, int | float) or (
            isinstance(value, tuple) and value and isinstance(value[0], int | float)
        ):
            yield name, value


def _check_texts(config: Config) -> None:
    parts = [parse_part(text) for text in config.parts]
    if config.prompt is not None and config.prompts is not None:
        raise ValueError("prompt and prompts: got both; expected one of the two.")
    if config.prompt is None and config.prompts is None and not parts:
        raise ValueError("prompt and prompts: got neither; expected one of the two, or a part.")
    if config.prompt is not None and not config.prompt.strip():
        raise ValueError('prompt is empty; expected a description such as "a red cone".')
    if not 0 < config.prompt_weight < math.inf:
        raise ValueError(
            f"prompt_weight is {config.prompt_weight}; expected a finite number above 0. Leave the "
            "prompt out to be guided by parts alone."
        )
    if not 0 <= config.prompt_in_parts <= 1:
        raise ValueError(
            f"prompt_in_parts is {config.prompt_in_parts}; expected a share between 0 and 1."
        )
    if any(not text.strip() for text in config.avoid):
        raise ValueError('avoid has an empty text; expected a description such as "a blue ball".')
    avoided = [*config.avoid, *(text for part in parts for text in part.avoid)]
    if avoided and config.loss not in ("auto", "contrastive"):
        raise ValueError(
            f"avoid names {avoided[0]!r}, but loss is {config.loss!r}, which knows no other texts; "
            "expected --loss auto or contrastive, or nothing to avoid."
        )
    if config.view_prompts:
        _check_view_prompts(config)
    if parts and config.alpha == "ones":
        raise ValueError(
            "part needs a tower that is told where to attend, but alpha is 'ones'; expected "
            "--alpha opacity or hard, or no part."
        )


def _check_view_prompts(config: Config) -> None:
    texts = config.view_prompts
    if len(texts) < 2 or not all("{}" in text for text in texts):
        raise ValueError(
            f"view_prompts is {texts}; expected 2 texts or more, each with {{}} for the prompt, as "
            'in "{}, front view" "{}, side view" "{}, back view" "{}, side view".'
        )
    if config.prompt is None and config.prompts is None:
        raise ValueError("view_prompts need a prompt for the whole; expected --prompt.")
    if "z" in config.field.mirror:
        raise ValueError(
            f"view_prompts tell front from back, but field.mirror {config.field.mirror!r} makes "
            "them alike; expected --field.mirror x, or none."
        )


def _check_field(config: Config) -> None:
    field = config.field
    sizes = (*field.density_sizes, *field.color_sizes)
    if not sizes or len(field.density_sizes) != len(field.color_sizes) or min(sizes) < 2:
        raise ValueError(
            f"field.density_sizes is {field.density_sizes} and field.color_sizes "
            f"{field.color_sizes}; expected equally many sizes, of 2 voxels or more."
        )
    _check_stages("field.density_sizes", field.density_sizes, "field.grow_at", field.grow_at)
    if field.begin == "haze" and config.warm_start.shades:
        raise ValueError(
            f"field.begin is 'haze' and warm_start.shades {config.warm_start.shades}; expected 0 "
            "shades, since haze needs no warm start, or field.begin 'blob'."
        )


def _check_stages(
    name: str, stages: Sequence[float], times_name: str, times: Sequence[float]
) -> None:
    if len(times) != len(stages) - 1 or list(times) != sorted(times):
        raise ValueError(
            f"{times_name} is {tuple(times)} for {len(stages)} {name}; expected "
            f"{len(stages) - 1} rising numbers, one for each stage after the first (--{times_name} "
            "with nothing behind it for a single stage)."
        )


def _check_sides(config: Config) -> None:
    scales = config.tower.scales
    if round(min(scales) * config.resolution) < SMALLEST:
        raise ValueError(
            f"tower.scales is {scales}; expected shares of resolution, {config.resolution}, and of "
            f"the tower's own side that leave {SMALLEST} pixels or more."
        )


def _check_guides(texts: Sequence[str]) -> None:
    guides = [parse_guide(text) for text in texts]
    for moment in sorted({0.0, 1.0, *(guide.end for guide in guides)}):
        later = [guide.start <= moment < guide.end or moment == guide.end == 1 for guide in guides]
        if not any(later):
            raise ValueError(
                f"guidance {tuple(texts)} leaves the run without a guide from progress "
                f"{moment:g} on; expected windows that cover 0 to 1."
            )


def _check_device(device: str, precision: str) -> None:
    try:
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        message = f"device {device!r} is not usable: {reason} cpu always is."
        raise ValueError(message) from error
    if precision == "bfloat16" and not has_bfloat16(device):
        raise ValueError(
            f"tower.precision is 'bfloat16', which device {device!r} does not have or emulates, "
            "many times slower; expected 'single'."
        )
