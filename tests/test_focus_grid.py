"""The grid of the focus: its tiles, and its command."""

import pytest
import torch
from PIL import Image
from rich.console import Console
from tiny_cast import tiny_cast

from alphaclip_gen import focus_grid as program
from alphaclip_gen.focus_grid import FocusGrid, draw_grid, focus_grid
from alphaclip_gen.mini import generator
from alphaclip_gen.mini.emoji_world import Mix, render_world
from alphaclip_gen.mini.kept_scenes import save_scenes


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


def test_the_command_draws_scenes_of_a_file(scenes, tmp_path, monkeypatch):
    monkeypatch.setattr(generator, "load_generator", lambda *_: None)
    monkeypatch.setattr(program, "pipeline_painter", lambda *_, **__: lambda image, *_: image)
    save_scenes(scenes, tmp_path / "kept.safetensors")
    config = FocusGrid(tmp_path / "new" / "focus.png", 2, scenes=tmp_path / "kept.safetensors")
    focus_grid(config, Console(quiet=True))
    with Image.open(config.output) as picture:
        assert 2 * 128 < picture.height < 3 * 128
