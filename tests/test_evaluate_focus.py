"""The focus benchmark: ways to point, figures by hand, painters whose pictures are known, pages."""

import json

import pytest
import torch
from rich.console import Console
from test_generator_model import TINY
from tiny_cast import STYLES, tiny_cast

from alphaclip_gen import evaluate_focus as program
from alphaclip_gen.evaluate_focus import (
    EvaluateFocus,
    Pairs,
    evaluate_focus,
    focus_figures,
    focus_rows,
    markdown,
    pair_scenes,
    prompt_control,
)
from alphaclip_gen.focus_ways import (
    AttentionFocusedTower,
    pipeline_painter,
    training_free,
    ways_around,
)
from alphaclip_gen.mini.captions import COLORS, SHAPES
from alphaclip_gen.mini.emoji_world import Mix, render_world
from alphaclip_gen.mini.generator.model import new_autoencoder, new_generator, save_generator
from alphaclip_gen.mini.model import new_model, new_tokenizer
from alphaclip_gen.mini.picture_judge import PictureJudge, Verdict

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

LEFT, RIGHT = 3, 8  # what the halves of a scene show


@pytest.fixture(scope="module")
def pairs():
    """Scenes of two halves, the left one darker, with a region in each."""
    image = torch.full((5, 3, 64, 64), 0.2)
    image[..., 32:] = 0.8
    visible = torch.zeros(5, 2, 64, 64)
    visible[:, 0, 16:40, :24] = visible[:, 1, 16:40, 40:] = 1
    return Pairs(image, visible, torch.tensor([[LEFT, RIGHT]]).expand(5, -1).clone())


@pytest.fixture(scope="module")
def pipe():
    torch.manual_seed(0)
    model = new_model(new_tokenizer())
    torch.nn.init.normal_(model.vision_model.embeddings.patch_embedding_alpha.weight, std=0.1)
    tower = model.vision_model.eval()
    made = new_generator(new_autoencoder(TINY).eval(), tower, TINY)
    made.set_progress_bar_config(disable=True)
    return made


def mean_painter(image, alpha, prompts, seeds):
    """A painter that fills the picture with the mean of what alpha covers."""
    mean = (image * alpha).sum((2, 3), keepdim=True) / alpha.sum((2, 3), keepdim=True)
    return mean.expand(-1, -1, *image.shape[-2:])


def by_shade(pictures):
    """Names a picture by its mean: dark is LEFT, bright is RIGHT, between is neither."""
    mean = pictures.mean((1, 2, 3))
    return torch.where(mean < 0.35, LEFT, torch.where(mean > 0.65, RIGHT, 0))


def test_figures_by_hand():
    """Right on both; right on A, unchanged on B; B for A and nothing for B."""
    subject = torch.tensor([[1, 2], [1, 2], [1, 2]])
    named = torch.tensor([[1, 2], [1, 1], [2, 5]])
    figures = {name: figure["rate"] for name, figure in focus_figures(named, subject).items()}
    third = pytest.approx(1 / 3, abs=1e-3)
    assert figures == {
        "region on A, is A": pytest.approx(2 / 3, abs=1e-3),
        "region on A, is B": third,
        "region on B, is B": third,
        "region on B, is A": third,
        "is region": 0.5,
        "is other": third,
        "changed": third,
    }


def test_a_painter_that_heeds_alpha_is_right_and_without_alpha_lost(pairs):
    rows = focus_rows(ways_around(mean_painter), pairs, by_shade, seed=0)
    assert list(rows) == [
        *("alpha", "box", "point", "stroke"),
        *("all-one alpha", "crop", "blur outside", "gray outside", "red circle"),
    ]
    assert rows["alpha"]["is region"]["rate"] == 1 and rows["alpha"]["changed"]["rate"] == 1
    assert rows["all-one alpha"]["is region"]["rate"] == 0
    assert rows["alpha"]["is other"]["rate"] == 0
    assert rows["crop"]["is region"]["rate"] == 1  # a square around each lies in its half
    assert rows["gray outside"]["is region"]["rate"] == 0  # most of the picture is gray


def test_both_regions_of_a_scene_get_the_same_noise(pairs):
    seen = []

    def painter(image, alpha, prompts, seeds):
        seen.append((list(seeds), set(prompts)))
        return image

    focus_rows({"alpha": painter}, pairs, by_shade, seed=7, prompt="{subject} here")
    assert seen == [([7, 8, 9, 10, 11], {"{subject} here"})] * 2


def test_baselines_show_the_painter_a_changed_picture_and_all_of_it(pairs):
    seen = {}

    def painter(image, alpha, prompts, seeds):
        seen[name] = image, alpha
        return image

    for name, way in ways_around(painter).items():
        way(pairs.image, pairs.visible[:, :1], ["{subject}"] * 5, [0] * 5)
        image, alpha = seen[name]
        assert image.shape == (5, 3, 64, 64)
        heeded = name in ("alpha", "box", "point", "stroke")
        assert (alpha == 1).all() != heeded
        assert torch.equal(image, pairs.image) == (heeded or name == "all-one alpha")
    regions = {name: seen[name][1] for name in ("alpha", "box", "point", "stroke")}
    assert torch.equal(regions["box"], regions["alpha"])  # the regions are boxes
    for name in ("point", "stroke"):
        assert 0 < regions[name].sum() < regions["alpha"].sum()
        assert (regions[name] * regions["alpha"]).amax((1, 2, 3)).min() > 0.9
    assert seen["gray outside"][0][0, 0, 5, 50] == 0.5


def test_the_painter_of_a_pipeline_repeats_by_seed_in_any_batch(pipe, pairs):
    arguments = pairs.image[:3], pairs.visible[:3, :1], ["{subject} on grass"] * 3, [5, 6, 5]
    small, large = (pipeline_painter(pipe, steps=2, batch=batch) for batch in (2, 8))
    made, again = small(*arguments), large(*arguments)
    assert made.shape == (3, 3, 64, 64)
    torch.testing.assert_close(made, again, atol=1e-4, rtol=1e-3)
    torch.testing.assert_close(made[0], made[2], atol=1e-4, rtol=1e-3)
    assert (made[0] - made[1]).abs().max() > 1e-3


@torch.no_grad()
def test_the_attention_focused_tower_is_the_tower_where_all_counts(pipe, pairs):
    """With all-one alpha both agree; with a region it hides what lies outside, from the middle."""
    tower = pipe.qformer.visual_encoder
    focused = AttentionFocusedTower(tower)
    everywhere = torch.cat([pairs.image[:1], torch.zeros(1, 1, 64, 64)], dim=1)
    torch.testing.assert_close(focused(everywhere), tower(everywhere), atol=1e-4, rtol=1e-3)
    region = torch.cat([pairs.image[:1], pairs.visible[:1, :1] - 1], dim=1)
    assert (focused(region) - tower(everywhere)).abs().max() > 1e-3


def test_training_free_leaves_the_pipeline_as_it_was(pipe, pairs):
    changed = training_free(pipe)
    assert isinstance(changed.qformer.visual_encoder, AttentionFocusedTower)
    assert not isinstance(pipe.qformer.visual_encoder, AttentionFocusedTower)
    arguments = pairs.image[:1], pairs.visible[:1, :1], ["{subject}"], [1]
    ours, theirs = (pipeline_painter(one, steps=2)(*arguments) for one in (changed, pipe))
    assert (ours - theirs).abs().max() > 1e-5


def test_scenes_hold_two_subjects_that_can_be_seen_and_repeat_by_seed():
    cast = tiny_cast()
    first, again = (pair_scenes(cast, 6, 3, ("plain",)) for _ in range(2))
    assert torch.equal(first.image, again.image) and first.image.shape == (6, 3, 64, 64)
    assert (first.visible.sum((-2, -1)) > 20).all()
    assert (first.subject[:, 0] != first.subject[:, 1]).all()


def test_each_region_lies_on_its_subject_and_either_is_in_front():
    """tiny_cast's plain emoji are of one gray each, rising with the concept's number."""
    cast, mix = (
        tiny_cast(),
        Mix(objects=(2, 2), styles=("plain",), solids=0.0, looks=0.0, rough=0.0),
    )
    many = pair_scenes(cast, 40, 3, ("plain",))
    luma, core = many.image.mean(1, keepdim=True), (many.visible > 0.95).float()
    shade = (luma * core).sum((2, 3)) / core.sum((2, 3))
    assert (shade - (20 * (many.subject - len(SHAPES)) + 10) / 255).abs().max() < 0.03
    drawn = render_world(cast, 40, torch.Generator().manual_seed(3), mix)
    behind = drawn.concept[drawn.present.sum(1) == 2, 0]
    is_behind = many.subject[: len(behind), 0] == behind
    assert 0.2 < is_behind.float().mean() < 0.8


class Sure(PictureJudge):
    """A judge that counts the prompt's dots: it reads the first pixel of the second row."""

    def name(self, images):
        number = (images[:, 0, 20, 20] * 3).round().long()
        return Verdict(torch.full_like(number, LEFT), number, torch.zeros(len(images), 1))


def test_prompt_control_by_a_painter_that_obeys_in_part(pairs):
    """It paints the ground that is asked for, and always two: right in the second of three."""

    def painter(image, alpha, prompts, seeds):
        pictures = torch.zeros(len(prompts), 3, 64, 64)
        for row, prompt in enumerate(prompts):
            color = next(name for name in COLORS if f" {name} " in prompt)
            pictures[row] = torch.tensor(COLORS[color])[:, None, None]
        pictures[:, :, 10:50, 10:50] = 2 / 3
        return pictures

    rows = torch.arange(36) % 5
    many = Pairs(pairs.image[rows], pairs.visible[rows], pairs.subject[rows])
    control = prompt_control(painter, many, Sure(8), seed=0)
    assert control["color"]["rate"] == 1 and control["subject"]["rate"] == 1
    assert control["count"]["rate"] == control["both"]["rate"] == pytest.approx(1 / 3, abs=1e-3)


def test_the_command_needs_scenes():
    with pytest.raises(ValueError, match="scenes is 0; expected 1 or more"):
        evaluate_focus(EvaluateFocus(scenes=0), Console())


def test_the_command_says_that_the_artwork_is_missing(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no artwork.safetensors in .* python -m"):
        evaluate_focus(EvaluateFocus(artwork=tmp_path), Console())


def test_the_command_writes_tables(pipe, tmp_path, monkeypatch):
    monkeypatch.setattr(program, "read_cast", lambda *_: tiny_cast())
    kinds = {"training styles": STYLES[:1], "held-out style": STYLES[1:2]}
    monkeypatch.setattr(program, "STYLES", kinds)
    save_generator(pipe, tmp_path / "generator")
    PictureJudge(8).save_pretrained(tmp_path / "judge")
    summary = {"held_out": {"training styles": {"concept": 0.93, "count": 0.98}}}
    (tmp_path / "judge" / "judge.json").write_text(json.dumps(summary))
    config = EvaluateFocus(
        scenes=2,
        prompts=2,
        steps=1,
        generator=str(tmp_path / "generator"),
        judge=tmp_path / "judge",
        output=tmp_path / "out",
    )
    result = evaluate_focus(config, Console(quiet=True))
    assert json.loads((tmp_path / "out" / "focus.json").read_text()) == result
    page = (tmp_path / "out" / "focus.md").read_text()
    assert page == markdown(result)
    for text in ("## held-out style", "training-free focus", "seed 2000003", "0.93 of subjects"):
        assert text in page
    assert f'by the prompt "{program.PROMPT}"' in page and "one lesson of twenty" in page


def test_any_pipeline_can_be_measured(tmp_path, monkeypatch):
    """A painter of one's own: it fills the picture with the color of the region."""
    monkeypatch.setattr(program, "read_cast", lambda *_: tiny_cast())
    monkeypatch.setattr(program, "STYLES", {"training styles": STYLES[:1]})
    file = tmp_path / "mine.py"
    file.write_text(
        "def make():\n"
        "    def paint(image, alpha, prompts, seeds):\n"
        "        mean = (image * alpha).sum((2, 3), True) / alpha.sum((2, 3), True)\n"
        "        return mean.expand_as(image)\n"
        "    return paint\n"
    )
    config = EvaluateFocus(scenes=2, prompts=2, generator=f"{file}:make", output=tmp_path / "out")
    result = evaluate_focus(config, Console(quiet=True))
    ways = result["kinds"]["training styles"]["ways"]
    assert "alpha" in ways and "training-free focus" not in ways
    page = (tmp_path / "out" / "focus.md").read_text()
    assert "mine.py:make" in page and "guidance" not in page
    for name, error in (
        (f"{file}:other", ValueError),
        (f"{tmp_path}/no.py:make", FileNotFoundError),
    ):
        with pytest.raises(error, match="generator is"):
            program.load_painter(name)
