"""What is shipped truly works: scenes, the judge of pictures, mini's generator, the demo's end."""

import io

import pytest
import torch
from rich.console import Console

from alphaclip_gen import demo
from alphaclip_gen.focus_ways import pipeline_painter
from alphaclip_gen.framing import preprocess
from alphaclip_gen.mini.kept_scenes import load_scenes
from alphaclip_gen.mini.picture_judge import PictureJudge, ground_colors
from alphaclip_gen.pictures import open_picture
from alphaclip_gen.sources import SHIPPED

pytest.importorskip("diffusers")
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")


@pytest.fixture(scope="module")
def subjects():
    """Each subject of the shipped scenes: the scene, the region, what it is."""
    scenes = load_scenes()
    scene, slot = scenes.present.nonzero().T
    return scenes.image[scene], scenes.visible[scene, slot][:, None], scenes.concept[scene, slot]


@pytest.fixture(scope="module")
def judge():
    return PictureJudge.from_pretrained()


@pytest.fixture(scope="module")
def painter():
    from alphaclip_gen.mini.generator import load_generator

    return pipeline_painter(load_generator("mini"))


def test_mini_and_its_generator_take_forty_megabytes_at_most():
    files = [path for name in ("mini", "generator") for path in (SHIPPED / name).rglob("*")]
    assert 20e6 < sum(path.stat().st_size for path in files if path.is_file()) <= 40e6


def test_the_judge_names_subjects_that_are_cut_out(subjects, judge):
    image, alpha, concept = subjects
    seen, region = preprocess(image, alpha, 64, "region-centered")
    named = judge.name(seen * region + 1 - region).concept
    assert (named == concept).float().mean() > 0.8


def test_the_region_decides_what_is_generated(subjects, judge, painter):
    """Of 18 regions; the same noise for all. Without a region all pictures of a scene are one."""
    image, alpha, concept = subjects
    prompts, seeds = ["a large {subject} on a white background"] * len(image), [3] * len(image)
    named = judge.name(painter(image, alpha, prompts, seeds)).concept
    assert (named == concept).float().mean() > 0.7
    everywhere = judge.name(painter(image, torch.ones_like(alpha), prompts, seeds)).concept
    assert (everywhere == concept).float().mean() < 0.2


def test_the_prompt_decides_ground_and_count(subjects, judge, painter):
    image, alpha, _ = (part[:6] for part in subjects)
    prompts = [f"{count} {{subject}} on a {color} background" for count in ("a", "two", "three")
               for color in ("blue", "yellow")]  # fmt: skip
    made = painter(image, alpha, prompts, [5] * 6)
    blue_and_yellow = ground_colors(made).view(3, 2)
    assert (blue_and_yellow == blue_and_yellow[0]).float().mean() > 0.8
    assert (judge.name(made).number == torch.tensor([1, 1, 2, 2, 3, 3])).float().mean() > 0.6


def test_the_demo_ends_with_the_grid(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(demo, "name_regions", lambda folder, seed: folder / "regions.png")
    monkeypatch.setattr(demo, "make_mesh", lambda config: None)
    console = Console(record=True, width=200, file=io.StringIO())
    demo.demo(demo.Demo(tmp_path), console)
    assert open_picture(tmp_path / "focus.png").width > 1000
    assert capsys.readouterr() == ("", "")  # no progress bar of the libraries
    said = console.export_text()
    assert "3. The region decides what is generated" in said and "focus.png" in said
