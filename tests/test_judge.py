"""The judge: what it says of solids it has not seen, and that its training repeats and resumes."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from alphaclip_gen.mini.captions import COLORS, SHAPES, all_captions
from alphaclip_gen.mini.judge import WEIGHTS, Judge, judge_mesh, training, turntable
from alphaclip_gen.mini.judge.training import JudgeTraining, draw, run, schedule
from alphaclip_gen.mini.solid_meshes import blotch, roughen, solid_mesh


@pytest.fixture(scope="module")
def judge() -> Judge:
    return Judge.from_pretrained()


def small_judge() -> Judge:
    torch.manual_seed(0)
    return Judge(width=8).eval()


def test_shipped_judge_names_solids_it_has_not_seen(judge: Judge) -> None:
    """24 captions: every solid twice, every color twice; a third of the solids roughened."""
    rng = np.random.default_rng(2024)
    shapes, colors = list(SHAPES), list(COLORS)
    right = 0
    for number in range(24):
        shape, color = shapes[number % 12], colors[(5 * number + number // 12) % 12]
        mesh = solid_mesh(shape, rng)
        if number % 3 == 0:
            mesh = roughen(mesh, rng, softness=1.0, lumps=0.08)
        verdict = judge_mesh(judge, blotch(mesh, COLORS[color], rng, 0.04))
        right += (verdict.shape, verdict.color) == (shape, color)
    assert right >= 22


def test_verdict_does_not_depend_on_size_or_place(judge: Judge) -> None:
    mesh = blotch(solid_mesh("pyramid"), COLORS["orange"], np.random.default_rng(0))
    moved = mesh.copy()
    moved.apply_scale(7.0)
    moved.apply_translation([10, -4, 3])
    here, there = judge_mesh(judge, mesh), judge_mesh(judge, moved)
    assert here.caption == there.caption == "an orange pyramid"
    assert torch.allclose(here.log_probabilities, there.log_probabilities, atol=0.05)


def test_verdict_is_the_best_of_all_captions(judge: Judge) -> None:
    mesh = blotch(solid_mesh("torus"), COLORS["cyan"], np.random.default_rng(0))
    verdict = judge_mesh(judge, mesh)
    assert verdict.log_probabilities.exp().sum().item() == pytest.approx(1, abs=1e-4)
    assert all_captions()[int(verdict.log_probabilities.argmax())] == verdict.caption


def test_views_are_averaged_by_hand() -> None:
    judge = small_judge()
    images = torch.rand((3, 3, 64, 64), generator=torch.Generator().manual_seed(1))
    shapes, colors = judge(images)
    mean = shapes.log_softmax(1).mean(0)[:, None] + colors.log_softmax(1).mean(0)[None, :]
    expected = mean.flatten() - mean.exp().sum().log()
    assert torch.allclose(judge.name(images).log_probabilities, expected, atol=1e-5)


def test_turntable_makes_the_views_that_the_judge_takes() -> None:
    views = turntable(solid_mesh("stick"))
    assert views.color.shape == (8, 3, 64, 64)
    assert (views.coverage.sum(dim=(1, 2, 3)) > 100).all()


@pytest.mark.parametrize("shape", [(3, 64, 64), (8, 3, 32, 32), (8, 4, 64, 64), (0, 3, 64, 64)])
def test_wrong_pictures_are_named(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"images have shape .* expected \(views, 3, 64, 64\)"):
        small_judge().name(torch.zeros(shape))


def test_save_and_load_round_trip(tmp_path: Path) -> None:
    judge = small_judge()
    for module in judge.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            torch.nn.init.uniform_(module.running_mean, -0.1, 0.1)
            torch.nn.init.uniform_(module.running_var, 0.5, 1.5)
    path = judge.save_pretrained(tmp_path)
    images = torch.rand((2, 3, 64, 64), generator=torch.Generator().manual_seed(1))
    loaded = Judge.from_pretrained(tmp_path)
    assert not loaded.training and path.stat().st_size < 200_000
    for before, after in zip(judge(images), loaded(images), strict=True):
        assert torch.allclose(before, after, atol=5e-3)


def test_missing_weights_are_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"judge.safetensors .* python -m"):
        Judge.from_pretrained(tmp_path)


def test_damaged_weights_are_refused(tmp_path: Path) -> None:
    judge = small_judge()
    judge.shape_head = torch.nn.Identity()
    judge.save_pretrained(tmp_path)
    with pytest.raises(RuntimeError, match="shape_head"):
        Judge.from_pretrained(tmp_path)


def test_shipped_weights_are_small() -> None:
    assert (WEIGHTS / "judge.safetensors").stat().st_size < 2_000_000
    parameters = sum(value.numel() for value in Judge.from_pretrained().parameters())
    assert 200_000 < parameters < 500_000


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> JudgeTraining:
    """A training of seconds, with its views rendered."""
    folder = tmp_path_factory.mktemp("judge")
    small = {"meshes": 1, "views": 2, "steps": 4, "batch": 8, "width": 8}
    config = JudgeTraining(folder / "work", folder / "out", **small, keep_every=2, held_out=1)
    run(config)
    return config


def test_training_writes_weights_and_figures(tiny: JudgeTraining) -> None:
    assert (tiny.output / "judge.safetensors").is_file()
    summary = run(tiny)
    assert summary["held_out"]["clean"]["objects"] == len(SHAPES)
    assert {"one_view", "eight_views"} <= summary["held_out"]["lumpy"].keys()
    assert summary["curve"][-1]["step"] == 4


def test_resumed_training_equals_an_uninterrupted_one(
    tiny: JudgeTraining, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Interrupted in the fourth step; the checkpoint is from the second."""
    (tiny.work / "checkpoint.pt").unlink()
    whole = Judge.from_pretrained(tiny.output).state_dict()
    again = replace(tiny, output=tiny.output.with_name("again"))
    drawn = iter(range(3))

    def interrupted(*arguments):
        if next(drawn, None) is None:
            raise KeyboardInterrupt
        return draw(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(training, "draw", interrupted)
        with pytest.raises(KeyboardInterrupt):
            run(again)
    assert not (again.output / "judge.safetensors").exists()
    run(again)
    resumed = Judge.from_pretrained(again.output).state_dict()
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)


def test_drawn_views_are_pictures_of_their_label() -> None:
    """A fully covered, unlit-looking view shows its color; a mirrored normal stays a normal."""
    flat = torch.tensor([128, 128, 255, 255], dtype=torch.uint8)
    views = flat[None, :, None, None].expand(5, -1, 64, 64)
    labels = torch.arange(5)
    images, shapes, colors = draw((views, labels), 64, torch.Generator().manual_seed(0))
    assert images.shape == (64, 3, 64, 64) and images.min() >= 0 and images.max() <= 1
    assert set(shapes.tolist()) <= set(range(5))
    names = list(COLORS)
    red, blue = (
        images[colors == names.index(name)].mean(dim=(0, 2, 3)) for name in ("red", "blue")
    )
    assert red[0] > red[1:].max() + 0.2 and blue[2] > blue[:2].max() + 0.2


def test_learning_rate_rises_then_falls_to_zero() -> None:
    rates = [schedule(step / 100) for step in range(101)]
    assert rates[0] < 0.1 and max(rates) > 0.95 and rates[100] == pytest.approx(0, abs=1e-9)
    assert rates[5:] == sorted(rates[5:], reverse=True)
