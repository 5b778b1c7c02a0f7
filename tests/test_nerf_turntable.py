"""Pictures of the result: turns of color and depth in every format, and the sheet over time."""

import importlib.util
import io
import subprocess

import numpy as np
import pytest
import torch
from PIL import Image, ImageSequence

from blobs import Proportion, blob_logits
from cameras import turntable
from field import FieldSettings, Volume, VoxelField
from render import Rendering
from turntable import (
    PictureSettings,
    VideoFailed,
    animation,
    check_animation,
    contact_sheet,
    depth_pictures,
    on_white,
    part_views,
    snapshot,
    timeline,
    turn,
    views,
)

FRAMES = [Image.new("RGB", (31, 20), (40 * i, 200, 90)) for i in range(5)]
SMALL = PictureSettings(size=32, frames=4, step=0.08)


def red_stick() -> Volume:
    """Tall along +Y, away from the middle: at x = 0.4."""
    logits = torch.roll(blob_logits(Proportion(0.2, 0.6, 0.2), 21), 4, dims=4)
    colors = torch.tensor([0.9, 0.1, 0.1]).logit().view(1, 3, 1, 1, 1).expand(1, 3, 2, 2, 2)
    settings = FieldSettings(density_sizes=(21,), color_sizes=(2,), smoothing=0, mirror="none")
    with torch.no_grad():
        return VoxelField(logits, colors, settings).volume(6.0)


def pixels(data: bytes) -> list[np.ndarray]:
    with Image.open(io.BytesIO(data)) as file:
        return [np.asarray(frame.convert("RGB")) for frame in ImageSequence.Iterator(file)]


# Turning


def test_a_turn_shows_the_object_from_all_sides_on_white() -> None:
    frames = [np.asarray(frame) for frame in turn(red_stick(), SMALL)]
    assert len(frames) == 4 and frames[0].shape == (32, 32, 3)
    assert frames[0][0, 0].tolist() == [255, 255, 255]
    columns = [np.flatnonzero((frame[:, :, 1] < 120).any(axis=0)).mean() for frame in frames]
    assert columns[0] > 18 and columns[2] < 13  # +X is right in front, left from behind
    assert abs(columns[1] - 15.5) < 1
    red = frames[0][16, round(columns[0])]
    assert red[0] > 100 and red[1] < 60


def test_near_is_bright_on_one_scale_for_all_views() -> None:
    """One pixel wide pictures at 2, 3 and 4 from the camera: yellow, green, purple."""
    opacity = torch.ones(3, 1, 1, 1)
    depth = torch.tensor([2.0, 3.0, 4.0]).view(3, 1, 1, 1)
    nothing = torch.zeros(3, 3, 1, 1)
    colors = [
        picture.getpixel((0, 0))
        for picture in depth_pictures(Rendering(nothing, opacity, depth, nothing))
    ]
    assert colors == [(0xFD, 0xE7, 0x25), (0x21, 0x91, 0x8C), (0x44, 0x01, 0x54)]
    opacity[0] = 0.6  # depth is premultiplied
    soft = depth_pictures(Rendering(nothing, opacity, opacity * depth, nothing))
    assert soft[0].getpixel((0, 0)) == pytest.approx((254, 241, 124), abs=1)
    empty = depth_pictures(Rendering(nothing, 0 * opacity, 0 * depth, nothing))
    assert empty[0].getpixel((0, 0)) == (255, 255, 255)


def test_premultiplied_color_over_white() -> None:
    opacity = torch.tensor([0.0, 0.5, 1.0]).view(3, 1, 1, 1)
    color = torch.tensor([0.0, 0.25, 0.4]).view(3, 1, 1, 1).expand(3, 3, 1, 1)
    empty = torch.zeros(3, 1, 1, 1)
    pictures = on_white(color, Rendering(color, opacity, empty, color))
    assert [picture.getpixel((0, 0))[0] for picture in pictures] == [255, 191, 102]


def test_what_looks_the_same_from_behind_is_rendered_from_one_side(monkeypatch) -> None:
    """The same pictures and normals as of all sides."""
    colors = torch.randn(1, 3, 4, 4, 4, generator=torch.Generator().manual_seed(0))
    logits = blob_logits(Proportion(0.7, 0.5, 0.3), 21)
    settings = FieldSettings(density_sizes=(21,), color_sizes=(4,))
    with torch.no_grad():
        volume = VoxelField(logits, colors, settings).volume(6.0)
    looks = []
    found = views(volume, turntable(6), 24, 0.06, lambda: looks.append(1))
    monkeypatch.setattr(Volume, "is_same_from_behind", lambda self: False)
    expected = views(volume, turntable(6), 24, 0.06, lambda: looks.append(1))
    assert len(looks) == 3 + 6
    for one, other in zip((found[0], *found[1]), (expected[0], *expected[1]), strict=True):
        assert (one - other).abs().mean() < 1e-3 < one.abs().mean()
    assert found[1].normal[1, 2].sum() * found[1].normal[4, 2].sum() < 0


def test_a_part_is_looked_for_from_all_sides() -> None:
    """A shape to the right, in an object that looks the same from behind."""
    settings = FieldSettings(density_sizes=(21,), color_sizes=(2,))
    logits, colors = blob_logits(Proportion(0.5, 0.5, 0.5), 21), torch.zeros(1, 3, 2, 2, 2)
    with torch.no_grad():
        volume = VoxelField(logits, colors, settings).volume(6.0)
    assert volume.is_same_from_behind()
    _, (own,) = part_views(volume, [lambda points: (points[:, 0] > 0).float()], turntable(2), 16)
    left, right = own[:, 0, :, :8].sum(dim=(1, 2)), own[:, 0, :, 8:].sum(dim=(1, 2))
    assert right[0] > 5 * left[0] and left[1] > 5 * right[1]


# Files


def test_a_gif_turns_for_ever() -> None:
    data = animation(FRAMES, "gif", 50)
    with Image.open(io.BytesIO(data)) as file:
        assert file.format == "GIF" and file.n_frames == 5
        assert file.info["duration"] == 50 and file.info["loop"] == 0
    assert [frame[10, 10].tolist() for frame in pixels(data)] == [
        [40 * i, 200, 90] for i in range(5)
    ]


def test_a_webp_turns_for_ever() -> None:
    data = animation(FRAMES, "webp", 50)
    with Image.open(io.BytesIO(data)) as file:
        assert file.format == "WEBP" and file.n_frames == 5 and file.info["loop"] == 0
    for i, frame in enumerate(pixels(data)):
        assert frame[10, 10].astype(int) == pytest.approx([40 * i, 200, 90], abs=4)


def test_an_mp4_has_even_sides_and_the_right_colors(tmp_path) -> None:
    imageio_ffmpeg = pytest.importorskip("imageio_ffmpeg")
    data = animation(FRAMES, "mp4", 50)
    assert data[4:8] == b"ftyp" and data.find(b"moov") < data.find(b"mdat")  # plays while loading
    path = tmp_path / "turn.mp4"
    path.write_bytes(data)
    read = [imageio_ffmpeg.get_ffmpeg_exe(), "-i", str(path), "-f", "rawvideo"]
    done = subprocess.run([*read, "-pix_fmt", "rgb24", "-"], capture_output=True, check=True)
    about = done.stderr.decode()
    assert "yuv420p(tv, bt709" in about and "32x20" in about and "20 fps" in about
    frames = np.frombuffer(done.stdout, np.uint8).reshape(5, 20, 32, 3).astype(int)
    for i, frame in enumerate(frames):
        assert frame[10, 10] == pytest.approx([40 * i, 200, 90], abs=6)


def test_what_ffmpeg_says_is_passed_on(monkeypatch) -> None:
    pytest.importorskip("imageio_ffmpeg")

    def fail(command: list[str], **options) -> None:
        raise subprocess.CalledProcessError(8, command, stderr=b"first\nno such codec\n")

    monkeypatch.setattr(subprocess, "run", fail)
    with pytest.raises(VideoFailed, match="exit code 8 and said: no such codec"):
        animation(FRAMES, "mp4", 50)


def test_mp4_without_its_package_is_named(monkeypatch) -> None:
    real = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == "imageio_ffmpeg" else real(name)
    )
    check_animation(("gif", "webp"))
    for use in (lambda: check_animation(("gif", "mp4")), lambda: animation(FRAMES, "mp4", 50)):
        with pytest.raises(ValueError, match=r"imageio-ffmpeg.*alphaclip-gen\[live\]"):
            use()


def test_a_sheet_picks_frames_evenly() -> None:
    frames = [Image.new("RGB", (4, 4), (10 * i, 0, 0)) for i in range(16)]
    (sheet,) = pixels(contact_sheet(frames, columns=2, rows=2))
    assert sheet.shape == (8, 8, 3)
    assert [sheet[at][0] for at in ((0, 0), (0, 4), (4, 0), (4, 4))] == [0, 40, 80, 120]


# Over time


def test_a_snapshot_shows_two_sides() -> None:
    picture = snapshot(red_stick(), size=40, step=0.08)
    assert picture.size == (80, 40)
    dark = np.asarray(picture)[:, :, 1] < 120
    left, right = (np.flatnonzero(half.any(axis=0)).mean() for half in (dark[:, :40], dark[:, 40:]))
    assert left > 21 and right < 19  # x = 0.4 is right from the front right, left from behind


def test_the_timeline_is_in_order_of_steps_with_the_step_below() -> None:
    colors = {100: (0, 0, 255), 0: (255, 0, 0), 50: (0, 255, 0)}
    pictures = {step: Image.new("RGB", (64, 40), color) for step, color in colors.items()}
    (sheet,) = pixels(timeline(pictures, columns=2))
    assert sheet.shape == (2 * 55, 2 * 64, 3)
    assert sheet[20, 32].tolist() == [255, 0, 0] and sheet[20, 96].tolist() == [0, 255, 0]
    assert sheet[75, 32].tolist() == [0, 0, 255] and sheet[75, 96].tolist() == [255, 255, 255]
    texts = [sheet[40:55, :64], sheet[40:55, 64:], sheet[95:, :64]]
    assert all((text < 128).any() for text in texts)
    assert not np.array_equal(texts[0], texts[1])  # "step 0" is not "step 50"


def test_a_timeline_of_one_picture_is_as_wide_as_that() -> None:
    (sheet,) = pixels(timeline({7: Image.new("RGB", (64, 40))}))
    assert sheet.shape[1] == 64
