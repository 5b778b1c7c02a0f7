"""Training: it learns, it resumes exactly, and its adversary does what it says."""

import dataclasses
import json
import random

import pytest
import torch
from tiny_cast import STYLES, tiny_cast

from alphaclip_gen.mini import train
from alphaclip_gen.mini.concepts import vocabulary
from alphaclip_gen.mini.emoji_world import Mix, render_world
from alphaclip_gen.mini.examples import make_examples, shown, thinned
from alphaclip_gen.mini.model import new_model, new_tokenizer, plane_waves
from alphaclip_gen.mini.objective import Learner, contrast, embed_pictures, graded_loss, perturb
from alphaclip_gen.mini.train import Config, lesson, main, new_optimizers
from alphaclip_gen.vision import AlphaCLIPModel


@pytest.fixture(scope="module")
def task():
    """A model, its tokenizer and a batch of examples."""
    torch.manual_seed(0)
    tokenizer = new_tokenizer()
    generator = torch.Generator().manual_seed(1)
    scenes = render_world(tiny_cast(), 10, generator, Mix(styles=STYLES, solids=0.5))
    examples = make_examples(scenes, generator, random.Random(0))
    return Learner(new_model(tokenizer)), tokenizer, examples


def test_loss_falls_on_a_batch_that_repeats(task):
    learner, tokenizer, examples = task
    optimizers = new_optimizers(learner, Config())
    losses = []
    for _ in range(6):
        loss, _ = contrast(learner, tokenizer, examples, random.Random(0))
        learner.zero_grad()
        loss.backward()
        for optimizer in optimizers:
            optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0] - 0.5
    alpha = learner.model.vision_model.embeddings.patch_embedding_alpha.weight
    assert alpha.abs().max() > 1e-4


def test_graded_loss_is_cross_entropy_and_leaves_rows_of_zero_out():
    logits = torch.tensor([[1.0, 2.0, 0.0], [5.0, -1.0, 3.0], [0.0, 0.0, 0.0]])
    target = torch.tensor([[0.0, 1.0, 0.0], [0.5, 0.0, 0.5], [0.0, 0.0, 0.0]])
    expected = torch.nn.functional.cross_entropy(logits[:2], target[:2])
    torch.testing.assert_close(graded_loss(logits, target), expected)
    assert graded_loss(logits, torch.zeros(3, 3)) == 0


def test_a_thinned_example_keeps_the_patches_of_its_region(task):
    _, _, examples = task
    thin = thinned(examples, 32, torch.Generator().manual_seed(0))
    assert thin.patches.shape == (len(examples.image), 32)
    assert all(len(row.unique()) == 32 for row in thin.patches)
    inside = torch.nn.functional.max_pool2d(examples.alpha, 8).flatten(1) > 0.1
    kept = inside.gather(1, thin.patches).sum(1)
    assert torch.equal(kept, inside.sum(1).clamp(max=32)) and (inside.sum(1) < 32).any()
    torch.testing.assert_close(thin.cover[3, 5], examples.cover[3, thin.patches[3, 5]])


@torch.no_grad()
def test_the_tower_sees_just_the_kept_patches(task):
    learner, _, examples = task
    thin = thinned(examples, 32, torch.Generator().manual_seed(0))
    shuffled = dataclasses.replace(
        examples, patches=torch.arange(64).flip(0).expand(len(examples.image), -1)
    )
    whole, tokens = embed_pictures(learner.model, examples)
    torch.testing.assert_close(embed_pictures(learner.model, shuffled)[0], whole, atol=2e-2, rtol=0)
    torch.testing.assert_close(
        embed_pictures(learner.model, shuffled)[1][:, 1:].flip(1), tokens[:, 1:], atol=0.2, rtol=0
    )
    seen = torch.zeros(len(thin.image), 64).scatter(1, thin.patches, 1.0)
    hidden = torch.nn.functional.interpolate(seen.view(-1, 1, 8, 8), scale_factor=8) == 0
    altered = dataclasses.replace(thin, image=torch.where(hidden, 0.0, thin.image))
    torch.testing.assert_close(
        embed_pictures(learner.model, altered)[0], embed_pictures(learner.model, thin)[0]
    )
    assert shown(tokens, thin.patches).shape == (len(thin.image), 32, tokens.shape[2])


def test_the_adversary_stays_in_its_ball_and_raises_the_loss(task):
    learner, tokenizer, examples = task
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


def test_an_interrupted_run_ends_as_an_uninterrupted_one(tmp_path, monkeypatch):
    def config(name):
        return Config(
            output=tmp_path / name, steps=4, adversarial_steps=1, examples=12, save_minutes=0.0
        )

    monkeypatch.setattr(train, "load_cast", lambda *_: tiny_cast())
    monkeypatch.setattr(train, "held_out", lambda *_: {})
    monkeypatch.setattr(train, "lesson", lambda _: (Mix(styles=STYLES, solids=0.5), 0.2))
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
    starts = [(line["step"], line["config"]["steps"]) for line in log if "config" in line]
    assert starts == [(0, "4"), (2, "4")]


def test_lessons_go_from_one_solid_to_crowds_with_emoji():
    first, rough = lesson(0.0)
    assert first.objects == (1, 1) and first.solids == 1 and first.solid.rough == rough == 0
    last, rough = lesson(1.0)
    assert last.objects == (1, 4) and last.solids < 0.5 and last.solid.rough > 0 < rough
    assert [lesson(p / 10)[0].objects[1] for p in range(11)] == [1, 1, 1, 1, 2, 3, 3, 4, 4, 4, 4]


def test_an_earlier_mini_is_where_training_begins(tmp_path, monkeypatch):
    torch.manual_seed(3)
    tokenizer = new_tokenizer()
    earlier = new_model(tokenizer)
    train.save(earlier, tokenizer, tmp_path / "earlier")
    seen = {}

    def look(learner, *_):
        seen.update(learner.model.state_dict())
        raise KeyboardInterrupt

    monkeypatch.setattr(train, "load_cast", lambda *_: tiny_cast())
    monkeypatch.setattr(train, "train_step", look)
    with pytest.raises(KeyboardInterrupt):
        main(Config(output=tmp_path / "run", start=tmp_path / "earlier", steps=1))
    for name, value in earlier.state_dict().items():
        torch.testing.assert_close(seen[name], value.half().float())
    other = new_tokenizer()
    other.add_tokens(["quokka"])
    other.save_pretrained(tmp_path / "earlier")
    with pytest.raises(KeyboardInterrupt):
        main(Config(output=tmp_path / "other", start=tmp_path / "earlier", steps=1, seed=1))
    text = "text_projection.weight"
    assert not torch.equal(seen[text], earlier.state_dict()[text].half().float())
    for name, value in earlier.vision_model.state_dict().items():
        torch.testing.assert_close(seen[f"vision_model.{name}"], value.half().float())


def test_the_finished_weights_may_be_blended_with_the_start(tmp_path, monkeypatch):
    torch.manual_seed(3)
    tokenizer = new_tokenizer()
    earlier = new_model(tokenizer)
    train.save(earlier, tokenizer, tmp_path / "earlier")

    def move(learner, *_):
        with torch.no_grad():
            for parameter in learner.model.parameters():
                parameter.add_(1.0)
        return {}

    monkeypatch.setattr(train, "load_cast", lambda *_: tiny_cast())
    monkeypatch.setattr(train, "held_out", lambda *_: {})
    monkeypatch.setattr(train, "train_step", move)
    weights = []
    for blend in (1.0, 0.25):
        output = tmp_path / f"{blend}"
        main(Config(output=output, start=tmp_path / "earlier", steps=2, blend=blend))
        weights.append(AlphaCLIPModel.from_pretrained(output / "mini", dtype=torch.float32))
    trained, blended = (dict(model.named_parameters()) for model in weights)
    for name, value in earlier.named_parameters():
        expected = value + 0.25 * (trained[name] - value)
        torch.testing.assert_close(blended[name], expected, atol=2e-3, rtol=2e-3)
        assert (trained[name] - value).abs().min() > 0.1
    with pytest.raises(ValueError, match=r"blend is 0\.5 and start None; expected a share above 0"):
        main(Config(output=tmp_path / "none", blend=0.5))


def test_every_weight_is_trained_by_one_optimizer():
    learner = Learner(new_model(new_tokenizer()))
    muon, adam = new_optimizers(learner, Config())
    owned = [p for o in (muon, adam) for group in o.param_groups for p in group["params"]]
    assert sorted(map(id, owned)) == sorted(map(id, learner.parameters()))
    assert all(p.ndim == 2 for p in muon.param_groups[0]["params"])


def test_words_of_the_vocabulary_are_one_token_each():
    tokenizer = new_tokenizer()
    whole = [word for word in vocabulary() if "-" not in word]
    assert {len(tokenizer(word).input_ids) for word in whole} == {3}
    assert len(tokenizer("zebrafish").input_ids) > 3
    assert tokenizer.unk_token_id not in tokenizer("zebrafish").input_ids
    assert tokenizer("A Red Cone").input_ids == tokenizer("a red cone").input_ids


def test_plane_waves_tell_every_patch_apart():
    waves = plane_waves(8, 192)
    assert waves.shape == (64, 192)
    assert torch.pdist(waves).min() > 0.5
    torch.testing.assert_close(waves[9, 96:144], waves[1, 96:144])  # same column
