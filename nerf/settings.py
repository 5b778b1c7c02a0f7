"""Everything that can be set, as one frozen dataclass: the command line, its help, its defaults."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

import torch

from alphaclip_gen.guidance import BackgroundStyle, LossName
from cameras import CameraSettings
from field import FieldSettings
from losses import LossSettings
from render import RenderSettings
from turntable import PictureSettings
from warm_start import WarmStartSettings

AlphaMode = Literal["opacity", "ones"]


@dataclass(frozen=True)
class AdamSettings:
    """Adam on gradients that are scaled to an even size first."""

    density_rate: float = 0.25
    color_rate: float = 0.08
    last_rate: float = 0.2
    """The rates fall to this fraction of themselves, along a cosine."""
    betas: tuple[float, float] = (0.9, 0.98)
    eps: float = 0.5
    """In units of a grid's root mean square gradient: what is below moves in proportion to its
    gradient, as in plain descent; only what is above is held to the rate. Quiets the noise where
    nothing is to be learned."""


@dataclass(frozen=True)
class AugmentSettings:
    """What happens to pictures between renderer and tower."""

    strength: float = 1.0
    """Of shift, zoom, rotation and perspective together; 0 switches them off."""
    shift: float = 0.1
    zoom: float = 0.12
    rotation: float = 6.0
    perspective: float = 0.05
    background: BackgroundStyle = "flat"


@dataclass(frozen=True)
class Config:
    """A mesh from a prompt, by guidance of a region-aware CLIP alone."""

    prompt: str | None = None
    """What to make: "a red cone"."""
    prompts: Path | None = None
    """A file with one prompt a line instead: a folder for each, finished ones are skipped."""
    output: Path | None = None
    """Folder of the results; outputs/<prompt>, or outputs for a file of prompts."""
    seed: int = 0
    """Same seed, same mesh (on a CPU)."""
    steps: int = 200
    views: int = 6
    """Pictures a step."""
    resolution: int = 64
    """Side of the guidance pictures in pixels."""
    guidance: str = "mini"
    """The tower: mini, or a folder in transformers' format."""
    alpha: AlphaMode = "opacity"
    """What the tower is told to attend to: the rendered opacity, or everything (plain CLIP)."""
    loss: LossName = "auto"
    """auto: contrastive where there are negatives, else cosine."""
    negatives: tuple[str, ...] = ()
    """What it should not be; mini knows by itself all that it could be."""
    cosine_weight: float = 1.0
    """Of the cosine loss beside the contrastive one."""
    device: str = "cpu"
    field: FieldSettings = FieldSettings()
    cameras: CameraSettings = CameraSettings()
    render: RenderSettings = RenderSettings()
    losses: LossSettings = LossSettings()
    adam: AdamSettings = AdamSettings()
    augment: AugmentSettings = AugmentSettings()
    warm_start: WarmStartSettings = WarmStartSettings()
    pictures: PictureSettings = PictureSettings()


def check(config: Config) -> None:
    """Nothing; raises ValueError for a setting that can't be used, naming it and the remedy."""
    if (config.prompt is None) == (config.prompts is None):
        given = "neither" if config.prompt is None else "both"
        raise ValueError(f"prompt and prompts: got {given}; expected one of the two.")
    if config.prompt is not None and not config.prompt.strip():
        raise ValueError('prompt is empty; expected a description such as "a red cone".')
    least = {"steps": 1, "views": 1, "resolution": 16, "seed": 0}
    for name, lowest in least.items():
        if getattr(config, name) < lowest:
            raise ValueError(f"{name} is {getattr(config, name)}; expected {lowest} or more.")
    if config.alpha not in get_args(AlphaMode):
        raise ValueError(f'alpha is {config.alpha!r}; expected "opacity" or "ones".')
    _check_field(config.field)
    _check_device(config.device)


def _check_field(field: FieldSettings) -> None:
    sizes = (*field.density_sizes, *field.color_sizes)
    if not sizes or len(field.density_sizes) != len(field.color_sizes) or min(sizes) < 2:
        raise ValueError(
            f"field.density_sizes is {field.density_sizes} and field.color_sizes "
            f"{field.color_sizes}; expected equally many sizes, of 2 voxels or more."
        )
    times = field.grow_at
    if len(times) != len(field.density_sizes) - 1 or list(times) != sorted(times):
        raise ValueError(
            f"field.grow_at is {times}; expected {len(field.density_sizes) - 1} rising numbers, "
            "one for each stage after the first."
        )


def _check_device(device: str) -> None:
    try:
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        message = f"device {device!r} is not usable: {reason} cpu always is."
        raise ValueError(message) from error
