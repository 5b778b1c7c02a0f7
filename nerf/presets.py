"""Whole configurations by name; flags then change single settings of one.

"parts" is for objects of several parts: more colors, steps and views, and no mirror symmetry.

The two of PureCLIPNeRF (Lee and Chang, Understanding Pure CLIP Guidance for Voxel Grid NeRF Models,
arXiv 2209.15172) follow its description. Differently from there, opacity moves with color under
every augmentation, backgrounds fill what the object leaves free and are never added to it, and
voxels that were empty once can fill again. Their ball prior has radius 1, and here nothing beyond
that radius is rendered: it clears only the corners of the cube, which no picture shows. Two towers
are a matter of --guidance, as in --guidance B16 "B32:weight=0.5:start=0.333".
"""

import argparse
from collections.abc import Sequence
from dataclasses import replace

import tyro

from adam import AdamSettings
from cameras import CameraSettings
from field import FieldSettings
from looks import AugmentSettings
from losses import LossSettings
from render import RenderSettings
from schedule import Ramp, constant
from settings import FULL_SIZE, Config
from warm_start import WarmStartSettings

_EXPLICIT = Config(
    preset="pureclipnerf-explicit",
    steps=15000,
    views=1,
    resolution=224,
    alpha="ones",
    loss="cosine",
    field=FieldSettings(
        density_sizes=(64, 80, 101, 127, 160),
        color_sizes=(64, 80, 101, 127, 160),
        grow_at=(5 / 15, 7 / 15, 9 / 15, 11 / 15),
        growth_drop=1.0,
        begin="haze",
        smoothing=0,
        mirror="none",
        activation="softplus",
        max_density=80.0,  # voxels of the last stage in a unit of length
        shift=-13.8,  # an opacity of 1e-6 to begin with
        sharpness=constant(1.0),
        limit=20.0,
    ),
    cameras=CameraSettings(elevation=(30.0, 30.0), radius=(4.0, 4.0), field_of_view=39.6),
    tower=FULL_SIZE,
    render=RenderSettings(
        step_in_voxels=0.5, threshold=0.01, faint=1e-3, hidden_below=1e-3, ambient=(1.0, 1.0)
    ),
    losses=LossSettings(
        transmittance=0.5,
        opacity_target=Ramp(0.5, 0.1, 0.0, 500 / 15000),
        floor=0.0,
        density_variation=constant(0.1, since=5 / 15, until=13 / 15),
        color_variation=constant(0.1, since=5 / 15, until=13 / 15),
        entropy=constant(0.01),
        ball=constant(0.05, until=8 / 15),
        ball_radius=1.0,
        center=0.0,
    ),
    adam=AdamSettings(
        density_rate=0.1,
        color_rate=0.1,
        last_rate=1.0,
        betas=(0.9, 0.99),
        eps=1e-8,
        scaled=False,
        masked=True,
        reset_on_growth=True,
    ),
    augment=AugmentSettings(
        copies=64,
        shift=0.25,
        zoom=0.2,
        rotation=0.0,
        perspective=0.2,
        cutout=0.5,
        brightness=0.5,
        saturation=1.0,
        contrast=0.5,
        background="dream",
    ),
    warm_start=WarmStartSettings(shades=0),
)

_IMPLICIT = replace(
    _EXPLICIT,
    preset="pureclipnerf-implicit",
    steps=10000,
    field=replace(
        _EXPLICIT.field,
        kind="implicit",
        density_sizes=(80,),
        color_sizes=(80,),
        grow_at=(),
        max_density=40.0,
    ),
    losses=replace(
        _EXPLICIT.losses,
        opacity_target=Ramp(0.5, 0.1, 0.0, 500 / 10000),
        density_variation=constant(0.0),
        color_variation=constant(0.0),
        ball=constant(0.2, until=0.8),
    ),
    adam=replace(_EXPLICIT.adam, density_rate=5e-3, color_rate=5e-3, masked=False),
)

_PARTS = Config(
    preset="parts",
    steps=200,
    views=4,
    tower=FULL_SIZE,
    field=FieldSettings(color_sizes=(6, 9, 12), mirror="none"),
    warm_start=WarmStartSettings(shades=5, finalists=24),
)

PRESETS: dict[str, Config] = {
    config.preset: config for config in (Config(), _EXPLICIT, _IMPLICIT, _PARTS)
}


def parse_config(arguments: Sequence[str] | None, description: str | None = None) -> Config:
    """The settings of a command line: those of --preset, changed by the other flags.

    Raises:
        ValueError: there is no preset of that name.
    """
    first = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    first.add_argument("--preset", default="default")
    name = first.parse_known_args(arguments)[0].preset
    if name not in PRESETS:
        raise ValueError(f"preset is {name!r}; expected one of {', '.join(PRESETS)}.")
    return tyro.cli(Config, args=arguments, default=PRESETS[name], description=description)
