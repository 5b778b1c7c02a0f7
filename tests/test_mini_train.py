"""Training: it learns, it resumes exactly, and its adversary does what it says."""

import dataclasses
import json
import random

import pytest
import torch

from alphaclip_gen.mini import train
from alphaclip_gen.mini.model import new_model, new_tokenizer, plane_waves
from alphaclip_gen.mini.solids import build_bank
from alphaclip_gen.mini.train import Config, Learner, contrast, main, make_examples, perturb
from alphaclip_gen.mini.world import render_scenes


@pytest.fixture
def small_bank(monkeypatch):
    """A few sprites, so that a run starts at once."""
    bank = build_bank(torch.Generator().manual_seed(0), views=2, blends=1, side=32)
    monkeypatch.setattr(train, "_cached_bank", lambda config: bank)
    return bank


@pytest.fixture
def lesson(small_bank):
    """A model, its tokenizer and a batch of examples."""
    torch.manual_seed(0)
    tokenizer = new_tokenizer()
    generator = torch.Generator().manual_seed(1)
    scenes = render_scenes(small_bank, 10, generator)
    return (
        Learner(new_model(tokenizer)),
        tokenizer,
        make_examples(scenes, generator, random.Random(0)),
    )


def test_loss_starts_at_chance_and_falls_on_a_batch_that_repeats(lesson):
    learner, tokenizer, examples = lesson
    optimizer = torch.optim.Adam(learner.parameters(), 1e-3)
    losses = []
    for _ in range(8):
        loss, _ = contrast(learner, tokenizer, examples, random.Random(0))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0] - 0.5
    alpha = learner.model.vision_model.embeddings.patch_embedding_alpha.weight
    assert alpha.abs().max() > 1e-4


def test_the_adversary_stays_in_its_ball_and_raises_the_loss(lesson):
    learner, tokenizer, examples = lesson
    for radius in (0.5, 2.0):
        moved = perturb(
            learner, tokenizer, examples, random.Random(0), radius, torch.Generator().manual_seed(0)
        )
        distance = (moved - examples.image).flatten(1).norm(dim=1)
        assert distance.max() <= radius + 1e-4 and distance.mean() > 0.2 * radius
        assert moved.min() >= 0 and moved.max() <= 1
    harder = dataclasses.replace(examples, image=moved)
    with torch.no_grad():
        before, _ = contrast(learner, tokenizer, examples, random.Random(3))
        after, _ = contrast(learner, tokenizer, harder, random.Random(3))
    assert after > before


def test_an_interrupted_run_ends_as_an_uninterrupted_one(small_bank, tmp_path, monkeypatch):
    def config(name):
        return Config(
            output=tmp_path / name, steps=4, adversarial_steps=1, examples=12, save_minutes=0.0
        )

    monkeypatch.setattr(train, "quick_accuracy", lambda *_: {})
    main(config("whole"))
    real, calls = train.train_step, []

    def stopping(*arguments):
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return real(*arguments)

    monkeypatch.setattr(train, "train_step", stopping)
    with pytest.raises(KeyboardInterrupt):
        main(config("parts"))
    monkeypatch.setattr(train, "train_step", real)
    main(config("parts"))
    whole, parts = (
        (tmp_path / name / "mini" / "model.safetensors").read_bytes() for name in ("whole", "parts")
    )
    assert whole == parts
    log = [json.loads(line) for line in (tmp_path / "parts" / "log.jsonl").read_text().splitlines()]
    assert log[0]["config"]["steps"] == 4


def test_plane_waves_tell_every_patch_apart():
    waves = plane_waves(8, 192)
    assert waves.shape == (64, 192)
    assert torch.pdist(waves).min() > 0.5
    torch.testing.assert_close(waves[9, 96:144], waves[1, 96:144])  # same column
