"""Presets are whole and can be used; flags go over them; settings that can't be used are named."""

import dataclasses
import importlib.util
import shlex
from itertools import pairwise
from pathlib import Path
from typing import get_args

import pytest

import checks
from checks import check
from presets import PRESETS, parse_config
from schedule import Ramp
from settings import Config, PresetName

PAGE = Path(__file__).resolve().parents[1] / "docs" / "nerf.md"
PEERS = [name for name in PRESETS if name.startswith("pureclipnerf")]


def parsed(*flags: str) -> Config:
    return parse_config(["--prompt", "a red cone", *flags])


def test_every_preset_has_its_name_and_can_be_used() -> None:
    assert set(PRESETS) == set(get_args(PresetName))
    for name, config in PRESETS.items():
        assert config.preset == name
        assert parsed("--preset", name) == dataclasses.replace(config, prompt="a red cone")
        check(parsed(f"--preset={name}"))


def test_no_preset_is_the_default_one() -> None:
    assert parsed() == Config(prompt="a red cone")


def test_flags_go_over_the_preset() -> None:
    config = parsed(
        *("--preset", "pureclipnerf-explicit", "--steps", "300", "--augment.copies", "4"),
        *("--losses.ball.first", "0.3", "--guidance", "mini", "other:weight=0.5:start=0.33"),
    )
    preset = PRESETS["pureclipnerf-explicit"]
    assert config.steps == 300 and config.augment.copies == 4
    assert config.guidance == ("mini", "other:weight=0.5:start=0.33")
    assert config.losses.ball == dataclasses.replace(preset.losses.ball, first=0.3)
    assert config.field == preset.field and config.augment.background == "dream"
    check(config)


def test_an_unknown_preset_is_named_with_what_there_is() -> None:
    with pytest.raises(ValueError, match="preset is 'dvgo'; expected one of default, pureclip"):
        parsed("--preset", "dvgo")


# The peer's figures, as its paper gives them


@pytest.mark.parametrize("name", PEERS)
def test_what_both_recipes_share(name) -> None:
    config = PRESETS[name]
    cameras = config.cameras
    assert (cameras.elevation, cameras.radius) == ((30.0, 30.0), (4.0, 4.0))
    assert cameras.field_of_view == 39.6
    assert config.views == 1 and config.resolution == 224 and config.augment.copies == 64
    assert config.side(0.0) == config.side(1.0) == 224
    assert config.alpha == "ones" and config.loss == "cosine"
    assert config.adam.betas == (0.9, 0.99)
    assert config.field.shift == -13.8 and config.field.begin == "haze"
    target = config.losses.opacity_target
    ends = [target(step / config.steps) for step in (0, 250, 500, 5000)]
    assert ends == pytest.approx([0.5, 0.3, 0.1, 0.1])
    assert config.losses.transmittance == 0.5 and config.losses.entropy(0.3) == 0.01
    assert config.losses.ball(7999 / config.steps) > 0 == config.losses.ball(8001 / config.steps)


@pytest.mark.parametrize(("name", "ball"), [(PEERS[0], 0.05), (PEERS[1], 0.2)])
def test_weights_of_the_priors_and_ranges_of_the_looks(name, ball) -> None:
    losses, looks = PRESETS[name].losses, PRESETS[name].augment
    assert losses.ball(0.2) == ball and losses.ball_radius == 1
    variation = 0.1 if name == "pureclipnerf-explicit" else 0.0
    assert losses.density_variation(0.5) == losses.color_variation(0.5) == variation
    assert (looks.brightness, looks.saturation, looks.contrast) == (0.5, 1.0, 0.5)
    assert (looks.shift, looks.zoom, looks.cutout, looks.perspective) == (0.25, 0.2, 0.5, 0.2)
    assert looks.background == "dream" and looks.rotation == 0


def test_the_explicit_schedule() -> None:
    config = PRESETS["pureclipnerf-explicit"]
    field = config.field
    assert config.steps == 15000
    assert [time * 15 for time in field.grow_at] == pytest.approx([5, 7, 9, 11])
    assert field.density_sizes == field.color_sizes and field.density_sizes[-1] == 160
    voxels = [size**3 for size in field.density_sizes]
    ratios = [after / before for before, after in pairwise(voxels)]
    assert ratios == pytest.approx([2.0] * 4, rel=0.03)
    assert field.growth_drop == 1.0 and config.adam.reset_on_growth and config.adam.masked
    assert (config.adam.density_rate, config.adam.color_rate) == (0.1, 0.1)
    for variation in (config.losses.density_variation, config.losses.color_variation):
        on = [step for step in range(0, 15001, 100) if variation(step / 15000)]
        assert (on[0], on[-1]) == (5000, 13000)


def test_the_implicit_networks() -> None:
    config = PRESETS["pureclipnerf-implicit"]
    assert config.field.kind == "implicit" and config.steps == 10000
    assert (config.field.frequencies, config.field.width) == (4, 128)
    assert config.field.density_sizes == config.field.color_sizes == (80,)
    assert config.adam.density_rate == config.adam.color_rate == 5e-3


# Settings that can't be used


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--field.grow-at", "0.5"], r"field.grow_at is \(0.5,\) for 3 field.density_sizes; exp"),
        (["--field.grow-at", "0.6", "0.5"], "expected 2 rising numbers"),
        (["--field.density-sizes", "8"], "equally many sizes"),
        (["--tower.scales", "0.5"], "tower.grow_at is .* expected 0 rising numbers"),
        (["--tower.scales", "0", "0.5", "1"], "tower.scales is .* that leave 8 pixels or more"),
        (["--tower.batch", "0"], "tower.batch is 0; expected 1 or more"),
        (["--augment.copies", "0"], "augment.copies is 0; expected 1"),
        (["--split-views", "4"], "split_views is 4; expected a divisor of views, 2"),
        (["--field.begin", "haze"], "warm_start.shades 3; expected 0"),
        (["--guidance", "mini:start=0.2"], "without a guide from progress 0 on"),
        (["--guidance", "a:end=0.4", "b:start=0.5"], "without a guide from progress 0.4 on"),
        (["--guidance", "a:end=0.4"], "without a guide from progress 0.4 on"),
        (["--guidance", "mini:weight=-1"], "expected a weight above 0"),
        (["--device", "toaster"], "device 'toaster' is not usable"),
    ],
)
def test_settings_that_can_not_be_used_are_named(flags, message) -> None:
    with pytest.raises(ValueError, match=message):
        check(parsed(*flags))


@pytest.mark.parametrize("guidance", [("a:end=0.5", "b:start=0.5"), ("a", "b:start=0.3:end=0.4")])
def test_windows_that_cover_the_run_are_fine(guidance) -> None:
    check(Config(prompt="a red cone", guidance=guidance))


def test_a_ramp_in_a_config_is_a_value() -> None:
    assert parsed("--field.sharpness.first", "3").field.sharpness == Ramp(3.0, 6.0, 0.2, 1.0)


def test_the_parts_preset_differs_in_what_parts_need_alone() -> None:
    config, default = PRESETS["parts"], Config()
    assert config.field.mirror == "none" and min(config.field.color_sizes) >= 6
    assert config.views > default.views and config.steps > default.steps
    assert config.warm_start.shades > default.warm_start.shades
    assert config.side(0.0) == default.side(1.0) > default.side(0.0)
    names = ("preset", "field", "views", "steps", "tower", "warm_start")
    same = {name: getattr(default, name) for name in names}
    assert dataclasses.replace(config, **same) == default


# The page


def commands() -> list[str]:
    """The arguments of each call of the program on the page."""
    lines = PAGE.read_text(encoding="utf-8").splitlines() if PAGE.is_file() else []
    return [line.split("optimize.py ")[1] for line in lines if " nerf/optimize.py " in line]


@pytest.mark.parametrize("command", commands())
def test_every_command_of_the_page_can_be_given(command, monkeypatch) -> None:
    """Extras, GPUs and towers are taken for granted; all else is checked."""
    monkeypatch.chdir(PAGE.parents[1])
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: True)
    monkeypatch.setattr(checks, "_check_device", lambda *arguments: None)
    check(parse_config(shlex.split(command)))
