"""What a run ends in, on a stand-in tower: the colors and shapes that were asked for."""

import dataclasses
from pathlib import Path

import numpy as np
import trimesh
from small_runs import SMALL, made

import run as running
from formats import read_glb
from settings import StartSettings
from warm_start import WarmStartSettings


def test_it_becomes_what_is_asked(tmp_path) -> None:
    """From a gray ball, without warm start: red, and taller than wide."""
    config = dataclasses.replace(
        SMALL, steps=40, warm_start=WarmStartSettings(shades=0), views=4, resolution=24
    )
    result = made(tmp_path, config)
    mesh = read_glb((tmp_path / "mesh.glb").read_bytes())
    red, green, blue = np.asarray(mesh.visual.vertex_colors)[:, :3].mean(axis=0) / 255
    assert red > 0.7 and max(green, blue) < red - 0.3
    assert mesh.extents[1] > 1.2 * mesh.extents[0]
    assert result["scores"]["named"] == "a red stick"
    assert result["silhouette_iou"] >= running.ALIKE
    low = {**result, "silhouette_iou": 0.5}
    assert "outline only 0.50 like" in running.summary(low, tmp_path)
    assert "outline" not in running.summary(result, tmp_path)


def test_two_parts_become_what_is_asked_of_each(tmp_path) -> None:
    """Red to the right and blue to the left, each from its own text, with no prompt for both."""
    parts = ("a red stick @ right", "a blue disk @ left")
    field = dataclasses.replace(SMALL.field, mirror="none", color_sizes=(4, 5, 6))
    config = dataclasses.replace(
        SMALL, prompt=None, parts=parts, field=field, steps=40, views=4, resolution=24,
        warm_start=WarmStartSettings(shades=0),
    )  # fmt: skip
    made(tmp_path, config)
    mesh = read_glb((tmp_path / "mesh.glb").read_bytes())
    color = np.asarray(mesh.visual.vertex_colors)[:, :3] / 255
    right, left = (
        color[side].mean(axis=0) for side in (mesh.vertices[:, 0] > 0.2, mesh.vertices[:, 0] < -0.2)
    )
    assert right[0] > right[2] + 0.2 and left[2] > left[0] + 0.2


def colors_and_places(folder: Path) -> tuple[np.ndarray, np.ndarray]:
    mesh = read_glb((folder / "mesh.glb").read_bytes())
    return np.asarray(mesh.visual.vertex_colors)[:, :3] / 255, np.asarray(mesh.vertices)


def test_a_part_has_its_own_color_on_the_whole(tmp_path) -> None:
    """Blue by the prompt, but red above by a part's text."""
    field = dataclasses.replace(SMALL.field, mirror="none", color_sizes=(4, 5, 6))
    config = dataclasses.replace(
        SMALL, prompt="a blue stick", parts=("a red stick @ top",), field=field, steps=80, views=4,
        resolution=24, warm_start=WarmStartSettings(shades=0),
    )  # fmt: skip
    made(tmp_path, config)
    color, place = colors_and_places(tmp_path)
    top, bottom = color[place[:, 1] > 0.2].mean(axis=0), color[place[:, 1] < -0.2].mean(axis=0)
    assert top[0] > top[2] + 0.2 and bottom[2] > bottom[0] + 0.2


def test_a_repainted_start_keeps_its_shape(tmp_path) -> None:
    """A blue block becomes red, and no taller, although a stick is asked for."""
    block = trimesh.creation.box((0.8, 0.6, 0.8)).subdivide()
    block.visual.vertex_colors = [20, 20, 230, 255]
    block.export(tmp_path / "block.ply")
    start = StartSettings(tmp_path / "block.ply", fit=False, repaint=True)
    adam = dataclasses.replace(SMALL.adam, color_rate=0.3)
    config = dataclasses.replace(SMALL, start=start, adam=adam, steps=40, views=4, resolution=24)
    made(tmp_path / "made", config)
    color, place = colors_and_places(tmp_path / "made")
    red, green, blue = color.mean(axis=0)
    assert red > max(green, blue) + 0.3
    assert np.allclose(np.ptp(place, axis=0), block.extents, atol=0.15)


def test_views_from_behind_have_a_text_of_their_own(tmp_path) -> None:
    field = dataclasses.replace(SMALL.field, mirror="x", color_sizes=(4, 5, 6))
    config = dataclasses.replace(
        SMALL, view_prompts=("{}", "a blue stick"), field=field, steps=120, views=4, resolution=24,
        warm_start=WarmStartSettings(shades=0), negatives=("a green disk",),
    )  # fmt: skip
    made(tmp_path, config)
    color, place = colors_and_places(tmp_path)
    front, back = color[place[:, 2] > 0.15].mean(axis=0), color[place[:, 2] < -0.15].mean(axis=0)
    assert front[0] > front[2] + 0.1 and back[2] > back[0] + 0.1
