"""Scenes that are kept: chosen by seed, written, read, refused."""

import pytest
import torch
from tiny_cast import tiny_cast

from alphaclip_gen.mini import kept_scenes
from alphaclip_gen.mini.concepts import EMOJI, NAMES
from alphaclip_gen.mini.kept_scenes import KEPT, clear_scenes, load_scenes, save_scenes


@pytest.fixture(scope="module")
def scenes():
    return clear_scenes(tiny_cast(), ("plain", "faint", "plain"), 2, 32, seed=1)


def test_scenes_repeat_by_seed_and_show_their_subjects_well(scenes):
    again = clear_scenes(tiny_cast(), ("plain", "faint", "plain"), 2, 32, seed=1)
    assert torch.equal(again.image, scenes.image)
    assert scenes.image.shape == (3, 3, 32, 32) and scenes.present.sum() == 6
    assert scenes.visible.sum((-2, -1)).min() > 60  # of 1024 pixels; the smallest have 40


def test_kept_scenes_are_read_again(scenes, tmp_path):
    save_scenes(scenes, tmp_path / "scenes.safetensors")
    again = load_scenes(tmp_path / "scenes.safetensors", 2)
    assert (again.image - scenes.image[:2]).abs().max() <= 0.5 / 255 + 1e-6
    assert (again.visible - scenes.visible[:2]).abs().max() <= 0.5 / 255 + 1e-6
    assert torch.equal(again.concept, scenes.concept[:2])
    assert torch.equal(again.present, scenes.present[:2])


def test_scenes_of_another_world_are_refused(scenes, tmp_path, monkeypatch):
    monkeypatch.setattr(kept_scenes, "NAMES", ["gryphon"] * len(NAMES))
    save_scenes(scenes, tmp_path / "scenes.safetensors")
    monkeypatch.undo()
    with pytest.raises(ValueError, match=r"scenes.safetensors shows gryphon; expected names of"):
        load_scenes(tmp_path / "scenes.safetensors")


def test_the_shipped_scenes_show_three_emoji_each():
    scenes = load_scenes(KEPT)
    assert len(scenes.image) >= 4
    assert scenes.present.sum(1).eq(3).all()
    assert scenes.concept.min() >= len(NAMES) - len(EMOJI)
