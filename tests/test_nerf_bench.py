"""The benchmark of text to 3D at tiny size: its dense renderer, its cases, its tables."""

import io
import json
import sys
from dataclasses import replace

import pytest
import torch
from rich.console import Console

import bench as program
from alphaclip_gen import bench_cases
from bench import (
    BASE,
    Bench,
    ball_volume,
    bench,
    dense,
    difference,
    growth_configs,
    ours,
    sheets,
    step_of,
)
from cameras import turntable
from render import Occupancy, render

TINY = {
    "hidden_size": 32,
    "intermediate_size": 32,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "image_size": 32,
    "patch_size": 16,
    "projection_dim": 128,
}


@pytest.fixture
def encoders(monkeypatch):
    monkeypatch.setitem(bench_cases.TOWERS, "B/16", TINY)
    return bench_cases.make_encoders("B/16", torch.device("cpu"), torch.float32)


def test_the_ball_fills_a_tenth_of_the_cube() -> None:
    filled = (ball_volume(48).density() > 15).float().mean().item()
    assert filled == pytest.approx(0.1, abs=0.01)


def test_dense_renders_what_ours_does_with_every_sample() -> None:
    """Nothing is empty or hidden then, so both composite the same samples."""
    volume, cameras, step = ball_volume(16), turntable(2), 2 / 24
    everything = Occupancy(volume.density().detach() * 0, torch.ones(16, 16, 16, dtype=torch.bool))
    full = render(volume, cameras, 20, everything, step, hidden_below=0.0)
    plain = dense(volume, cameras, 20, step)
    for name in ("color", "opacity", "depth", "normal"):
        torch.testing.assert_close(
            getattr(plain, name), getattr(full, name), atol=2e-5, rtol=1e-4, msg=name
        )
    assert plain.opacity.max() > 0.9 and plain.opacity.min() < 0.05


def test_ours_leaves_out_what_does_not_show() -> None:
    volume, cameras = ball_volume(32), turntable(2)
    apart = difference(ours(volume, cameras, 32, 2 / 48), dense(volume, cameras, 32, 2 / 48))
    assert apart["most_difference"] < 0.05 and apart["mean_difference"] < 0.005
    assert apart["most_difference"] > 0


def test_a_step_after_another_changes_the_field(encoders) -> None:
    step = step_of(encoders["mini"], replace(BASE, resolution=16, guidance=("mini",)))
    first, second = step(), step()
    assert (first.step, second.step) == (1, 2)
    assert step.func is next


def test_every_table_has_its_rows_and_is_written(encoders, monkeypatch, tmp_path) -> None:
    small = {"rows": {"1": step_of(encoders["mini"], replace(BASE, resolution=16))}}
    monkeypatch.setattr(program, "growth_cases", lambda encoder: small)
    console = Console(file=io.StringIO(), width=200)
    result = bench(Bench(resolutions=(16,), rounds=3, output=tmp_path / "new"), console)
    assert [row["tower"] for row in result["step"]] == ["mini", "ViT-B/16"]
    assert all(row["seconds"] > 0 and row["peak"] > 0 for row in result["step"])
    assert [row["tower"] for row in result["looks"]] == ["mini", "ViT-B/16"]
    assert all(row["seconds"] > row["masked_seconds"] > 0 for row in result["looks"])
    assert result["renderer"][0]["our_peak"] < result["renderer"][0]["dense_peak"]
    page = (tmp_path / "new" / "cost-3d.md").read_text()
    for sheet in sheets(result):
        assert f"## {sheet.title}" in page
        assert all(len(row) == len(sheet.heads) for row in sheet.rows)
    assert json.loads((tmp_path / "new" / "bench-3d.json").read_text()) == result


@pytest.mark.parametrize("ratio, said", [(1.15, "yes"), (1.16, "no")])
def test_a_step_is_held_against_what_is_asked(ratio, said) -> None:
    row = {
        **{"tower": "ViT-B/16", "pictures": 2, "resolution": 64, "clip_seconds": 1.0},
        **{"seconds": ratio, "ratio": ratio, "low": ratio, "high": ratio, "peak": 1},
    }
    result = {"step": [row, {**row, "tower": "mini"}], "looks": [], "renderer": [], "growth": []}
    rows = sheets(result)[0].rows
    assert rows[0][-2] == said and rows[1][-2] == ""


@pytest.mark.parametrize("ratio, said", [(2.9, "no"), (3.0, "yes")])
def test_the_renderer_is_held_against_what_is_asked(ratio, said) -> None:
    row = {
        **dict.fromkeys(("our_seconds", "seconds", "our_peak", "dense_peak"), 1.0),
        **dict.fromkeys(("ratio", "low", "high"), ratio),
        **{"resolution": 64, "mean_difference": 0.0, "most_difference": 0.0},
    }
    result = {"step": [], "looks": [], "renderer": [row], "growth": []}
    assert said in sheets(result)[2].rows[0]


def test_just_what_is_named_grows() -> None:
    """Each table changes its own setting, and that one only."""
    values = {
        "voxels a side": lambda config: config.field.density_sizes[0],
        "samples a unit ball's diameter": lambda config: round(2 / config.render.step),
        "views": lambda config: config.views,
        "parts with prompts of their own": lambda config: len(config.parts),
    }
    configs = growth_configs()
    assert list(configs) == list(values)
    usual = {what: value(BASE) for what, value in values.items()}
    for what, grown in configs.items():
        assert [values[what](config) for config in grown.values()] == list(grown)
        for other in values:
            found = {values[other](config) for config in grown.values()}
            assert other == what or found == {usual[other]}


@pytest.mark.parametrize(
    "arguments, message",
    [(["--rounds", "2"], "rounds is 2"), (["--resolutions", "8"], "resolutions is (8,)")],
)
def test_what_cannot_be_measured_is_refused(monkeypatch, capsys, arguments, message) -> None:
    monkeypatch.setattr(sys, "argv", ["bench.py", *arguments])
    with pytest.raises(SystemExit) as stop:
        program.main()
    assert stop.value.code == 2 and message in capsys.readouterr().err
