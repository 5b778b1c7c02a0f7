"""Everything that can be set, as one frozen dataclass: the command line, its help, its defaults."""

import dataclasses
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
import tyro

from adam import AdamSettings
from alphaclip_gen.guidance import LossName
from alphaclip_gen.precision import has_bfloat16
from cameras import CameraSettings
from field import FieldSettings
from looks import AlphaMode, AugmentSettings
from losses import LossSettings
from parts import parse_part
from render import RenderSettings
from results import MeshSettings
from schedule import stage
from session import SessionSettings, Unprefixed
from turntable import PictureSettings
from warm_start import WarmStartSettings

Repeated = Annotated[tuple[str, ...], tyro.conf.UseAppendAction]
PresetName = Literal["default", "pureclipnerf-explicit", "pureclipnerf-implicit", "parts"]


@dataclass(frozen=True)
class GuideSettings:
    """One tower that guides; see `parse_guide`."""

    model: str
    """Anything that RegionEncoder opens."""
    text: str | None = None
    """The CLIP that brings the text tower, where the model has none."""
    pretrained: str | None = None
    """open_clip's tag or file."""
    weight: float = 1.0
    start: float = 0.0
    """Progress of the run, 0 to 1, from which it counts."""
    end: float = 1.0
    """Progress up to which it counts."""

    @property
    def name(self) -> str:
        """What its loss is called: the model without its folder."""
        return Path(self.model).name


@dataclass(frozen=True)
class TowerSettings:
    """How large the pictures are, and how the towers are run."""

    scales: tuple[float, ...] = (0.625, 0.75, 1.0)
    """Sides of the pictures, stage by stage: as shares of `resolution` where they are rendered, and
    of the side that the towers were trained at where they are seen."""
    grow_at: tuple[float, ...] = (0.35, 0.7)
    """Progress at which each further stage begins."""
    precision: Literal["auto", "single", "bfloat16"] = "auto"
    """bfloat16 runs the towers under autocast: about twice as fast where the hardware has it, far
    slower where it does not. auto: bfloat16 on CPUs and NVIDIA GPUs that have it."""
    batch: int = 64
    """Pictures that pass through a tower at once."""

    def scale(self, progress: float) -> float:
        """The one of `scales` that is due at this moment of the run."""
        return self.scales[stage(self.grow_at, progress)]

    def in_bfloat16(self, device: torch.device | str) -> bool:
        """Whether towers on this device run in bfloat16."""
        if self.precision == "auto":
            return torch.device(device).type in ("cpu", "cuda") and has_bfloat16(device)
        return self.precision == "bfloat16"


FULL_SIZE = TowerSettings(scales=(1.0,), grow_at=())
"""Pictures that are as large at first as at last."""


@dataclass(frozen=True)
class StartSettings:
    """A mesh of one's own, or an earlier result, in place of the warm start."""

    start: Annotated[Path | None, Unprefixed] = None
    """A mesh file, or the folder of an earlier result. Its colors need fine ones in the field: all
    stages have the largest of field.color_sizes, 12 at least."""
    fit: bool = True
    """Move and scale a mesh file into a ball of radius 0.85; else it is taken where it is. Results
    stay where they are."""
    repaint: Annotated[bool, Unprefixed] = False
    """Keep the start's shape everywhere; only colors change."""
    keep: Annotated[Repeated, Unprefixed] = ()
    """Keep the start as it is in this shape ("bottom", see --part). Repeat it for several."""


@dataclass(frozen=True)
class Config:
    """A mesh from a prompt, by guidance of a region-aware CLIP alone."""

    prompt: str | None = None
    """What to make: "a red cone"."""
    prompts: Path | None = None
    """A file with one prompt a line instead: a folder for each, finished ones are skipped. Parts of
    its own may stand behind a prompt: "a snowman | a red cone @ top 0.4"; there need not be any
    prompt before the first |."""
    output: Path | None = None
    """Folder of the results; outputs/<prompt>, or outputs for a file of prompts."""
    preset: PresetName = "default"
    """Where all settings come from that are not given."""
    seed: int = 0
    """Same seed, same mesh (on a CPU)."""
    steps: int = 100
    views: int = 2
    """Pictures rendered a step."""
    split_views: int = 1
    """Shares that the views of a step go in, one after the other (less memory), or, under
    `accelerate launch`, spread over the processes. `views` must be a multiple."""
    resolution: int = 64
    """Side of the guidance pictures in pixels, where tower.scales is 1."""
    guidance: tuple[str, ...] = ("mini",)
    """The towers: mini, or any checkpoint that RegionEncoder opens. Each may have a weight, a
    window of the run, and what it takes to open it: "MODEL:weight=0.5:start=0.3:end=1",
    "alpha-clip.pth:text=ViT-L-14.pt", "ViT-B-32:pretrained=laion2b_s34b_b79k"."""
    alpha: AlphaMode = "opacity"
    """What the towers are told to attend to: the rendered opacity, the opacity made 0 or 1 (for
    weights trained on hard maps), or everything (plain CLIP)."""
    loss: LossName = "auto"
    """auto: contrastive where there are negatives, else cosine."""
    negatives: tuple[str, ...] = ()
    """What it should not be; mini knows by itself all that it could be."""
    cosine_weight: float = 1.0
    """Of the cosine loss beside the contrastive one."""
    parts: Annotated[Repeated, tyro.conf.arg(name="part")] = ()
    """A text and the shape where it holds: "a red cone @ top", "a hat @ ball 0 0.7 0 0.3:weight=2".
    Repeat it for several parts, with a prompt for the whole or without. +X is right, +Y up, +Z
    front; the ball of radius 1 is rendered. Shapes: top, bottom, left, right, front or back, each
    with the distance from the middle at which it begins ("top 0.4"); "box x0 y0 z0 x1 y1 z1";
    "ball x y z radius"; "half x y z offset" (direction and distance of the border); a mesh file in
    these coordinates. Behind the shape ":weight=2" counts more than the prompt, ":avoid=TEXT" says
    what the part should not be."""
    prompt_weight: float = 1.0
    """Of the prompt, beside parts."""
    prompt_in_parts: float = 0.25
    """How much the prompt moves what lies in a part's shape, as a share of what it moves
    elsewhere."""
    avoid: Repeated = ()
    """What neither the whole nor a part should be, beside the negatives. Repeat it for several."""
    view_prompts: tuple[str, ...] = ()
    """The prompt as it is from evenly spaced directions, counterclockwise from the front; {} stands
    for it: "{}, front view" "{}, side view" "{}, back view" "{}, side view". In between they are
    mixed. Against several faces, with towers that know such words."""
    start: StartSettings = StartSettings()
    device: str = "cpu"
    field: FieldSettings = FieldSettings()
    cameras: CameraSettings = CameraSettings()
    render: RenderSettings = RenderSettings()
    losses: LossSettings = LossSettings()
    adam: AdamSettings = AdamSettings()
    augment: AugmentSettings = AugmentSettings()
    tower: TowerSettings = TowerSettings()
    warm_start: WarmStartSettings = WarmStartSettings()
    pictures: PictureSettings = PictureSettings()
    mesh: MeshSettings = MeshSettings()
    session: Annotated[SessionSettings, tyro.conf.arg(prefix_name=False)] = SessionSettings()

    def side(self, progress: float) -> int:
        """Of the guidance pictures at this moment of the run, in pixels."""
        return round(self.resolution * self.tower.scale(progress))


def title(config: Config) -> str:
    """What is made, in words: the prompt, or the texts of all parts."""
    return config.prompt or " and ".join(parse_part(text).text for text in config.parts)


def of_line(config: Config, line: str) -> Config:
    """The settings for one line of a file of prompts: its prompt, and its parts behind a |."""
    prompt, *parts = (text.strip() for text in line.split("|"))
    return dataclasses.replace(
        config,
        prompt=None if parts and not prompt else prompt,
        prompts=None,
        parts=(*config.parts, *parts),
    )


def parse_guide(text: str) -> GuideSettings:
    """The guide that "MODEL" or "MODEL:weight=0.5:start=0.3:end=1" names.

    Raises:
        ValueError: there is no model, an unknown setting, or a number out of its range.
    """
    model, *pairs = re.split(r":(?=\w+=)", text)
    types = {field.name: field.type for field in dataclasses.fields(GuideSettings)[1:]}
    given: dict[str, Any] = {}
    for name, value in (pair.split("=", 1) for pair in pairs):
        if name not in types or name in given:
            raise ValueError(
                f"guidance {text!r} has {name!r}; expected MODEL, then each of {', '.join(types)} "
                'at most once, as in "mini:weight=0.5:start=0.3".'
            )
        try:
            given[name] = float(value) if types[name] is float else value
        except ValueError as error:
            message = f"guidance {text!r} has {name}={value}; expected a number."
            raise ValueError(message) from error
    guide = GuideSettings(model.strip(), **given)
    if not guide.model:
        raise ValueError(f"guidance {text!r} names no model; expected mini or a checkpoint.")
    if not (guide.weight > 0 and 0 <= guide.start < guide.end <= 1):
        raise ValueError(
            f"guidance {text!r} has weight {guide.weight:g} from {guide.start:g} to "
            f"{guide.end:g}; expected a weight above 0, and a window of the run's progress with "
            "0 <= start < end <= 1."
        )
    return guide
