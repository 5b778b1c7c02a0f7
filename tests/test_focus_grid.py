"""The grid of the focus: its tiles, and scenes that are kept for where there is no artwork."""

import pytest
import torch
from PIL import Image
from rich.console import Console
from tiny_cast import tiny_cast

from alphaclip_gen import focus_grid as program
from alphaclip_gen.focus_grid import FocusGrid, draw_grid, focus_grid, load_scenes, save_scenes
from alphaclip_gen.mini import generator
from alphaclip_gen.mini.emoji_world import Mix, render_world


@pytest.fixture(scope="module")
def scenes():
    mix = Mix(objects=(2, 2), styles=("plain",), solids=0.0, looks=0.0, rough=0.0)
    return render_world(tiny_cast(), 3, torch.Generator().manual_seed(1), mix)


def test_a_row_has_every_region_and_the_whole(scenes):
    """The painter is shown each scene with both regions, then with all-one alpha, in one noise."""
    seen = {}

    def painter(image, alpha, prompts, seeds):
        seen.update(image=image, alpha=alpha, prompts=prompts, seeds=seeds)
        return torch.zeros_like(image)

    columns = int(scenes.present.sum(1).min())
    sheet = draw_grid(painter, scenes, seed=4, tile=32)
    assert len(seen["image"]) == 3 * (columns + 1)
    whole = (seen["alpha"] == 1).flatten(1).all(1)
    assert whole.tolist() == ([False] * columns + [True]) * 3
    assert seen["seeds"] == [4 + row for row in range(3) for _ in range(columns + 1)]
    assert len(set(seen["prompts"][: columns + 1])) == 1
    assert sheet.width == 2 * (columns + 1) * 42 + 10


def test_kept_scenes_are_read_again(scenes, tmp_path):
    save_scenes(scenes, tmp_path / "scenes.safetensors")
    again = load_scenes(tmp_path / "scenes.safetensors", 2)
    assert (again.image - scenes.image[:2]).abs().max() <= 0.5 / 255 + 1e-6
    assert (again.visible - scenes.visible[:2]).abs().max() <= 0.5 / 255 + 1e-6
    assert torch.equal(again.concept, scenes.concept[:2])
    assert torch.equal(again.present, scenes.present[:2])


def test_kept_scenes_of_another_world_are_refused(scenes, tmp_path, monkeypatch):
    monkeypatch.setattr(program, "NAMES", ["gryphon"] * len(program.NAMES))
    save_scenes(scenes, tmp_path / "scenes.safetensors")
    monkeypatch.undo()
    with pytest.raises(ValueError, match=r"scenes.safetensors shows gryphon; expected names of"):
        load_scenes(tmp_path / "scenes.safetensors")


def test_the_command_draws_kept_scenes_where_there_is_no_artwork(scenes, tmp_path, monkeypatch):
    def paint(image, alpha, prompts, seeds):
        return image

    monkeypatch.setattr(program, "KEPT", tmp_path / "kept.safetensors")
    monkeypatch.setattr(generator, "load_generator", lambda *_: None)
    monkeypatch.setattr(program, "pipeline_painter", lambda *_, **__: paint)
    config = FocusGrid(tmp_path / "new" / "focus.png", artwork=tmp_path / "nowhere", scenes=2)
    with pytest.raises(FileNotFoundError, match=r"no artwork.safetensors"):
        focus_grid(config, Console(quiet=True))
    save_scenes(scenes, tmp_path / "kept.safetensors")
    focus_grid(config, Console(quiet=True))
    with Image.open(config.output) as picture:
        assert picture.height > 2 * 128


def test_scenes_come_from_the_artwork_and_may_be_kept(tmp_path, monkeypatch):
    monkeypatch.setattr(program, "read_cast", lambda *_: tiny_cast())
    config = FocusGrid(scenes=2, subjects=2, style="plain", artwork=tmp_path)
    first, again = (program._find_scenes(config) for _ in range(2))
    assert torch.equal(first.image, again.image) and first.image.shape == (2, 3, 64, 64)
    assert first.present.sum() == 4
