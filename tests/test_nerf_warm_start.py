"""The warm start, on a stand-in tower that sees the region's mean color and how tall it is."""

import runpy
from pathlib import Path

import pytest
import torch

from alphaclip_gen.guidance import Guidance
from blobs import Proportion
from cameras import CameraSettings
from field import FieldSettings
from render import RenderSettings
from warm_start import (
    PROPORTIONS,
    FirstRound,
    Scenery,
    Start,
    WarmStartSettings,
    best_start,
    first_round,
    palette,
)

Moments = runpy.run_path(str(Path(__file__).with_name("stand_in_tower.py")))["Moments"]
NEGATIVES = ("a red disk", "a green disk", "a red stick")
"""Beside "a blue disk"."""


def look(settings: WarmStartSettings, proportions, tower) -> FirstRound:
    field = FieldSettings(density_sizes=(24,), color_sizes=(2,), grow_at=())
    scenery = Scenery(
        24, settings, field, CameraSettings(), RenderSettings(), 0, torch.device("cpu")
    )
    return first_round(tower.embed, scenery, proportions)


def start_of(settings: WarmStartSettings, proportions=PROPORTIONS, text="a blue disk") -> Start:
    guide = Guidance(Moments(), text, NEGATIVES)
    first = look(settings, proportions, guide.encoder)
    return best_start(guide, guide.encoder.embed, first, settings)


def test_it_finds_color_and_proportion() -> None:
    shapes = (Proportion(0.2, 0.7, 0.2), Proportion(0.7, 0.2, 0.7))
    start = start_of(WarmStartSettings(shades=3, finalists=6, views=3), shapes)
    red, green, blue = start.color
    assert blue > 0.9 and blue - max(red, green) > 0.4
    assert start.proportion == shapes[1] and start.score > 0


def test_one_first_round_serves_every_text() -> None:
    """And chooses as if each text had its own."""
    settings, tower = WarmStartSettings(shades=2, finalists=6, views=3), Moments()
    first = look(settings, PROPORTIONS, tower)
    calls = tower.calls
    for text in ("a red stick", "a green disk", "a blue disk"):
        guide = Guidance(tower, text, NEGATIVES)
        start = best_start(guide, tower.embed, first, settings)
        assert start == start_of(settings, text=text)
    assert tower.calls - calls == 3  # each time one batch, of the finalists


def test_the_palette_is_a_lattice() -> None:
    colors = palette(5)
    assert colors.shape == (125, 3) and len(colors.unique(dim=0)) == 125
    assert colors.min() == pytest.approx(0.05) and colors.max() == pytest.approx(0.95)
    assert palette(1).tolist() == [[0.5, 0.5, 0.5]]
