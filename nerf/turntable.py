"""Pictures of the result: a contact sheet of views, animated turns, and how the object grew."""

import importlib.util
import io
import subprocess
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import torch
from jaxtyping import Float
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from cameras import HALF_TURN, Cameras, one_side, orbit, turntable
from colors import as_bytes, viridis
from field import Volume
from formats import png
from render import Rendering, Shape, occupancy, render_parts, shaded, studio_light
from session import Unprefixed

AnimationFormat = Literal["gif", "mp4", "webp"]
HIDDEN_BELOW = 1 / 255
"""Samples that less light than this reaches are skipped: all together they change a picture of 8
bits by a level."""


@dataclass(frozen=True)
class PictureSettings:
    """Turntable and preview."""

    turntable: Annotated[tuple[AnimationFormat, ...], Unprefixed] = ("gif",)
    """Files of the turning object; mp4 needs the extra "live"."""
    depth: Annotated[bool, Unprefixed] = False
    """Also turning depth, in the same formats: near is bright."""
    size: int = 192
    frames: int = 24
    elevation: float = 20.0
    milliseconds: int = 80
    step: float = 0.045
    """Length between samples, finer than while optimizing."""


@torch.no_grad()
def views(
    volume: Volume,
    cameras: Cameras,
    size: int,
    step: float = 0.025,
    before_each: Callable[[], None] = lambda: None,
) -> tuple[Float[Tensor, "views 3 size size"], Rendering]:
    """Lit premultiplied color from every camera, and the rendering it comes from, see
    `part_views`."""
    rendering, _ = part_views(volume, (), cameras, size, step, before_each)
    return shaded(rendering, *studio_light(cameras)), rendering


@torch.no_grad()
def part_views(
    volume: Volume,
    shapes: Sequence[Shape],
    cameras: Cameras,
    size: int,
    step: float = 0.025,
    before_each: Callable[[], None] = lambda: None,
) -> tuple[Rendering, list[Float[Tensor, "views 1 size size"]]]:
    """The rendering from every camera, and the opacity of what lies in each shape.

    One view at a time, so that memory stays small. What is called before each may raise, to stop.
    An object that looks the same from behind is rendered from one side only.
    """
    if not shapes and volume.is_same_from_behind():
        half = one_side(cameras)
        rendering, _ = _one_by_one(volume, (), half.cameras, size, step, before_each)
        color, opacity, depth, normal = (layer[half.which] for layer in rendering)
        turn = normal.new_tensor(HALF_TURN)[:, None, None]
        normal = torch.where(half.behind[:, None, None, None], turn * normal, normal)
        return Rendering(color, opacity, depth, normal), []
    return _one_by_one(volume, shapes, cameras, size, step, before_each)


def _one_by_one(
    volume: Volume,
    shapes: Sequence[Shape],
    cameras: Cameras,
    size: int,
    step: float,
    before_each: Callable[[], None],
) -> tuple[Rendering, list[Tensor]]:
    space = occupancy(volume.density(), step, threshold=0.01, margin=0.0)
    wholes, owned = [], []
    for camera in cameras.each():
        before_each()
        whole, parts = render_parts(volume, shapes, camera, size, space, step, HIDDEN_BELOW)
        wholes.append(whole)
        owned.append([part.own for part in parts])
    rendering = Rendering(*map(torch.cat, zip(*wholes, strict=True)))
    return rendering, [torch.cat(own) for own in zip(*owned, strict=True)]


def turn(
    volume: Volume, settings: PictureSettings, before_each: Callable[[], None] = lambda: None
) -> list[Image.Image]:
    """Pictures all around the object, on white; `before_each` as in `views`."""
    return on_white(*turn_views(volume, settings, before_each))


def turn_views(
    volume: Volume, settings: PictureSettings, before_each: Callable[[], None] = lambda: None
) -> tuple[Float[Tensor, "views 3 size size"], Rendering]:
    """Lit premultiplied color and rendering all around the object."""
    cameras = turntable(settings.frames, settings.elevation).to(volume.logits.device)
    return views(volume, cameras, settings.size, settings.step, before_each)


def on_white(
    color: Float[Tensor, "views 3 height width"], rendering: Rendering
) -> list[Image.Image]:
    """Premultiplied color over white."""
    return _images(color + 1 - rendering.opacity)


def depth_pictures(rendering: Rendering) -> list[Image.Image]:
    """Depth over white: dark far away, bright nearby, on one scale for all views.

    The scale spans what is seen; a pixel's depth is the mean along its ray.
    """
    opacity = rendering.opacity
    depth = rendering.depth / opacity.clamp(min=1e-6)
    seen = depth[opacity > 0.5]
    near, far = (float(seen.min()), float(seen.max())) if len(seen) else (0.0, 1.0)
    closeness = (far - depth[:, 0]) / max(far - near, 1e-6)
    color = torch.from_numpy(viridis(closeness.clamp(0, 1).cpu().numpy())).permute(0, 3, 1, 2)
    return _images(color.to(opacity) * opacity + 1 - opacity)


class VideoFailed(RuntimeError):
    """ffmpeg made no video; the message says why."""


def check_animation(formats: tuple[str, ...]) -> None:
    """Nothing.

    Raises:
        ValueError: a format needs a package that is not installed.
    """
    if "mp4" in formats and importlib.util.find_spec("imageio_ffmpeg") is None:
        raise ValueError(
            "turntable mp4 needs imageio-ffmpeg, which is not installed. "
            'Install it by pip install "alphaclip-gen[live]", or choose gif or webp.'
        )


def animation(frames: list[Image.Image], kind: AnimationFormat, milliseconds: int) -> bytes:
    """An endless animated file; an mp4 plays once unless its player repeats it.

    Raises:
        ValueError: mp4 without imageio-ffmpeg.
        VideoFailed: see `mp4`.
    """
    check_animation((kind,))
    make = {"gif": gif, "webp": webp, "mp4": mp4}[kind]
    return make(frames, milliseconds)


def gif(frames: list[Image.Image], milliseconds: int) -> bytes:
    """An endless animated GIF, each frame with colors of its own."""
    pixels = [frame.tobytes() for frame in frames]
    different = dict(zip(pixels, frames, strict=True))
    quantized = {p: f.quantize(256, dither=Image.Dither.NONE) for p, f in different.items()}
    colors = [quantized[each] for each in pixels]
    file = io.BytesIO()
    colors[0].save(
        file, "GIF", save_all=True, append_images=colors[1:], duration=milliseconds, loop=0
    )
    return file.getvalue()


def webp(frames: list[Image.Image], milliseconds: int) -> bytes:
    """An endless animated WebP: all colors, a fraction of a GIF's size."""
    file = io.BytesIO()
    frames[0].save(
        file, "WEBP", save_all=True, append_images=frames[1:], duration=milliseconds, loop=0,
        quality=90,
    )  # fmt: skip
    return file.getvalue()


def mp4(frames: list[Image.Image], milliseconds: int) -> bytes:
    """An H.264 video that browsers play: even sides, by a white line if need be, BT.709 colors.

    Raises:
        VideoFailed: ffmpeg ended with an error.
    """
    import imageio_ffmpeg

    width, height = (side + side % 2 for side in frames[0].size)
    even = [Image.new("RGB", (width, height), "white") for _ in frames]
    for larger, frame in zip(even, frames, strict=True):
        larger.paste(frame)
    raw = ["-f", "rawvideo", "-pix_fmt", "rgb24", "-s", f"{width}x{height}"]
    known = "color_primaries=bt709:color_trc=bt709:colorspace=bt709"
    colors = f"scale=out_color_matrix=bt709:out_range=tv,setparams={known}"
    codec = ["-c:v", "libx264", "-crf", "18", "-pix_fmt", "yuv420p", "-movflags", "+faststart"]
    pixels = b"".join(picture.tobytes() for picture in even)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "turn.mp4"
        rest = ["-r", f"{1000 / milliseconds:g}", "-i", "-", "-vf", colors, *codec, str(path)]
        try:
            command = [imageio_ffmpeg.get_ffmpeg_exe(), "-loglevel", "error", *raw, *rest]
            subprocess.run(command, input=pixels, check=True, capture_output=True)
            return path.read_bytes()
        except subprocess.CalledProcessError as error:
            said = error.stderr.decode(errors="replace").strip() or "nothing"
            raise VideoFailed(
                f"ffmpeg ended with exit code {error.returncode} and said: {said.splitlines()[-1]}"
            ) from error
        except (OSError, RuntimeError) as error:  # it is not there, or may not run
            raise VideoFailed(f"ffmpeg can't be run: {error}") from error


def contact_sheet(frames: list[Image.Image], columns: int = 4, rows: int = 2) -> bytes:
    """A PNG of frames evenly picked from a turn, row by row."""
    count = columns * rows
    return png(_sheet([frames[i * len(frames) // count] for i in range(count)], columns))


def snapshot(volume: Volume, size: int = 128, step: float = 0.06) -> Image.Image:
    """The object as it is now, on white: from the front right and from the back left."""
    cameras = orbit(torch.tensor([30.0, 240.0]), torch.full((2,), 20.0), torch.full((2,), 3.2))
    pictures = on_white(*views(volume, cameras.to(volume.logits.device), size, step))
    return _sheet(pictures, columns=2)


def timeline(pictures: Mapping[int, Image.Image], columns: int = 4) -> bytes:
    """A PNG of snapshots by step, in the order of steps, each with its step below."""
    labelled = [_labelled(pictures[step], f"step {step}") for step in sorted(pictures)]
    return png(_sheet(labelled, min(columns, len(labelled))))


def _labelled(picture: Image.Image, text: str) -> Image.Image:
    width, height = picture.size
    line = max(height // 8, 10)
    sheet = Image.new("RGB", (width, height + line + line // 2), "white")
    sheet.paste(picture)
    place = (width / 2, height + line / 4)
    ImageDraw.Draw(sheet).text(place, text, "black", ImageFont.load_default(line), anchor="ma")
    return sheet


def _sheet(pictures: list[Image.Image], columns: int) -> Image.Image:
    """Pictures of one size, row by row."""
    width, height = pictures[0].size
    rows = -(-len(pictures) // columns)
    sheet = Image.new("RGB", (columns * width, rows * height), "white")
    for i, picture in enumerate(pictures):
        sheet.paste(picture, (i % columns * width, i // columns * height))
    return sheet


def _images(color: Float[Tensor, "views 3 height width"]) -> list[Image.Image]:
    pixels = as_bytes(color.permute(0, 2, 3, 1).cpu().numpy())
    return [Image.fromarray(picture) for picture in pixels]
