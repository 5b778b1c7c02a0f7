"""The judge of pictures: its views, its word, its files, and a training that resumes exactly."""

import json
from dataclasses import replace

import pytest
import torch
from tiny_cast import STYLES, tiny_cast

from alphaclip_gen.mini.captions import COLORS, SHAPES
from alphaclip_gen.mini.concepts import NAMES
from alphaclip_gen.mini.picture_judge import PictureJudge, ground_colors, training
from alphaclip_gen.mini.picture_judge.training import (
    PictureJudgeTraining,
    accuracies,
    run,
    schedule,
)
from alphaclip_gen.mini.picture_judge.views import Views, draw_views


@pytest.fixture(scope="module")
def cast():
    return tiny_cast()


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def small_judge():
    torch.manual_seed(0)
    return PictureJudge(width=8).eval()


def test_views_show_what_they_say(cast):
    """A gray square of its own shade for every emoji: without flaws the shade tells the concept."""
    views = draw_views(cast, 200, generator(), ("plain",), flaws=0.0)
    assert views.image.shape == (200, 3, 64, 64)
    assert views.image.min() >= 0 and views.image.max() <= 1
    for image, concept in zip(views.image, views.concept.tolist(), strict=True):
        if concept >= len(SHAPES):
            shade = (20 * (concept - len(SHAPES)) + 10) / 255
            assert ((image - shade).abs().amax(0) < 0.01).sum() > 150
    solids = (views.concept < len(SHAPES)).float().mean()
    assert 0.01 < solids < 0.15
    assert set(views.number.tolist()) == {1, 2, 3}


def test_more_copies_cover_more_of_the_picture(cast):
    views = draw_views(cast, 300, generator(), ("faint",), flaws=0.0)
    emoji = views.concept >= len(SHAPES)
    covered = ((views.image - 10 / 255).abs().amax(1) < 0.01).flatten(1).float().mean(1)
    areas = [covered[emoji & (views.number == number)].max() for number in (2, 3)]
    assert areas[0] < 2 * 0.55**2 and areas[1] < 3 * 0.5**2


def test_same_generator_same_views(cast):
    first, again = (draw_views(cast, 8, generator(5)) for _ in range(2))
    assert torch.equal(first.image, again.image) and torch.equal(first.concept, again.concept)


def test_colors_of_grounds_by_hand():
    """The edge decides, and the nearest name: a large subject in the middle changes nothing."""
    colors = torch.tensor(list(COLORS.values()))
    images = colors[:, :, None, None].expand(-1, -1, 64, 64).clone()
    images[:, :, 8:56, 8:56] = colors.roll(1, 0)[:, :, None, None]
    assert ground_colors(images).tolist() == list(range(12))
    nearly = images + torch.tensor([0.03, -0.03, 0.02])[None, :, None, None]
    assert ground_colors(nearly).tolist() == list(range(12))


def test_wrong_pictures_are_named():
    with pytest.raises(ValueError, match=r"images have shape .* expected \(pictures, 3, 64, 64\)"):
        small_judge().name(torch.zeros(3, 64, 64))


def test_verdicts_are_the_most_likely(cast):
    judge, views = small_judge(), draw_views(cast, 5, generator())
    verdict = judge.name(views.image)
    concepts, numbers = judge(views.image)
    assert verdict.concept.tolist() == concepts.argmax(1).tolist()
    assert verdict.number.tolist() == (numbers.argmax(1) + 1).tolist()
    assert verdict.probability.shape == (5, len(NAMES))
    torch.testing.assert_close(verdict.probability.sum(1), torch.ones(5))


def test_accuracies_by_hand():
    class Sure(PictureJudge):
        def forward(self, images):
            concepts = torch.zeros(len(images), len(NAMES))
            concepts[:, 20] = 1
            return concepts, torch.tensor([[0.0, 1, 0]]).expand(len(images), -1)

    images = torch.zeros(4, 3, 64, 64)
    views = Views(images, torch.tensor([20, 20, 3, 21]), torch.tensor([2, 1, 2, 2]))
    assert accuracies(Sure(8), views) == {"concept": 0.5, "solid": 0.0, "count": 0.75}


def test_save_and_load_round_trip(tmp_path):
    judge = small_judge()
    judge.save_pretrained(tmp_path)
    images = torch.rand(3, 3, 64, 64, generator=generator())
    again = PictureJudge.from_pretrained(tmp_path)
    for first, second in zip(judge(images), again(images), strict=True):
        torch.testing.assert_close(first, second, atol=2e-2, rtol=1e-2)
    with pytest.raises(FileNotFoundError, match=r"no judge.safetensors .* trains one"):
        PictureJudge.from_pretrained(tmp_path / "nowhere")


def test_its_weights_are_small():
    parameters = sum(value.numel() for value in PictureJudge().parameters())
    assert parameters > 1e6 and 2 * parameters < 4e6


def test_an_interrupted_training_ends_as_an_uninterrupted_one(cast, tmp_path, monkeypatch):
    monkeypatch.setattr(training, "load_cast", lambda *_: cast)
    monkeypatch.setattr(training, "TRAINING_STYLES", STYLES[:1])
    monkeypatch.setattr(training, "HELD_OUT_STYLES", STYLES[1:2])
    config = PictureJudgeTraining(
        tmp_path / "a", tmp_path / "a-out", steps=4, batch=8, width=8, keep_minutes=0.0, held_out=64
    )
    run(config)
    real, calls = training.train_step, []

    def stopping(*arguments):
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return real(*arguments)

    monkeypatch.setattr(training, "train_step", stopping)
    other = replace(config, work=tmp_path / "b", output=tmp_path / "b-out")
    with pytest.raises(KeyboardInterrupt):
        run(other)
    assert len(calls) == 3
    run(other)
    assert len(calls) == 5  # two were done, two remained
    weights = [(tmp_path / f"{name}-out" / "judge.safetensors").read_bytes() for name in "ab"]
    assert weights[0] == weights[1]
    summary = json.loads((tmp_path / "a-out" / "judge.json").read_text())
    assert set(summary["held_out"]) == {
        "training styles",
        "training styles, flawed",
        "held-out style",
        "held-out style, flawed",
    }


def test_learning_rate_rises_then_falls_to_nothing():
    assert schedule(0.0) == pytest.approx(0.02)
    assert schedule(0.5) == pytest.approx(0.5)
    assert schedule(1.0) == pytest.approx(0.0)
    assert schedule(0.04) < schedule(0.049) < 1
