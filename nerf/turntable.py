"""Pictures of the result: a contact sheet of views, and an animated turn."""

import io
from dataclasses import dataclass

import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from cameras import Cameras, turntable
from field import Volume
from render import Rendering, occupancy, render, shaded, studio_light


@dataclass(frozen=True)
class PictureSettings:
    """Turntable and preview."""

    size: int = 192
    frames: int = 24
    elevation: float = 20.0
    milliseconds: int = 80
    step: float = 0.025
    """Length between samples, finer than while optimizing."""


@torch.no_grad()
def views(
    volume: Volume, cameras: Cameras, size: int, step: float = 0.025
) -> tuple[Float[Tensor, "views 3 size size"], Rendering]:
    """Lit premultiplied color from every camera, and the rendering it comes from.

    One view at a time, so that memory stays small.
    """
    space = occupancy(volume.density(), step, threshold=0.01, margin=0.0)
    position, rotation, field_of_view = cameras
    parts = [
        render(volume, Cameras(p[None], r[None], field_of_view), size, space, step)
        for p, r in zip(position, rotation, strict=True)
    ]
    rendering = Rendering(*(torch.cat(pictures) for pictures in zip(*parts, strict=True)))
    return shaded(rendering, *studio_light(cameras)), rendering


def turn(volume: Volume, settings: PictureSettings) -> list[Image.Image]:
    """Pictures all around the object, on white."""
    cameras = turntable(settings.frames, settings.elevation).to(volume.logits.device)
    color, rendering = views(volume, cameras, settings.size, settings.step)
    pixels = (color + 1 - rendering.opacity).clamp(0, 1).mul(255).round().byte()
    return [Image.fromarray(p.permute(1, 2, 0).cpu().numpy()) for p in pixels]


def gif(frames: list[Image.Image], milliseconds: int) -> bytes:
    """An endless animated GIF, each frame with colors of its own."""
    colors = [frame.quantize(256, dither=Image.Dither.NONE) for frame in frames]
    file = io.BytesIO()
    colors[0].save(
        file, "GIF", save_all=True, append_images=colors[1:], duration=milliseconds, loop=0
    )
    return file.getvalue()


def contact_sheet(frames: list[Image.Image], columns: int = 4, rows: int = 2) -> bytes:
    """A PNG of frames evenly picked from a turn, row by row."""
    width, height = frames[0].size
    sheet = Image.new("RGB", (columns * width, rows * height), "white")
    count = columns * rows
    for i in range(count):
        frame = frames[i * len(frames) // count]
        sheet.paste(frame, (i % columns * width, i // columns * height))
    file = io.BytesIO()
    sheet.save(file, "PNG")
    return file.getvalue()
