"""The generator's two trainings: losses by hand; that they learn, and resume exactly."""

import json
import random
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file
from test_generator_model import TINY
from tiny_cast import STYLES, tiny_cast

from alphaclip_gen.mini.generator import autoencoder, train
from alphaclip_gen.mini.generator.lessons import Lesson, make_lessons
from alphaclip_gen.mini.generator.model import new_autoencoder, new_generator
from alphaclip_gen.mini.generator.objective import (
    Learner,
    add_noise,
    generator_loss,
    loss_weight,
    reading_loss,
)
from alphaclip_gen.mini.model import new_model, new_tokenizer
from alphaclip_gen.subject.canvas import encoded

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
"""Of diffusers' scheduler on numpy 2."""

LESSON = Lesson(objects=(1, 2), styles=STYLES[:2], emoji=12)


@pytest.fixture(scope="module")
def cast():
    return tiny_cast()


@pytest.fixture
def pipe():
    torch.manual_seed(0)
    tower = new_model(new_tokenizer()).vision_model.eval()
    return new_generator(new_autoencoder(TINY).eval(), tower, TINY)


@pytest.fixture(scope="module")
def lessons(cast):
    generator = torch.Generator().manual_seed(0)
    return make_lessons(cast, 4, generator, random.Random(0), LESSON)


def noise_of(pipe, lessons, drop=0.0):
    return add_noise(pipe.vae, lessons.target, 1000, torch.Generator().manual_seed(1), drop)


def test_picture_loss_by_hand():
    """A constant error has no steps; a checkerboard of pixels has them at full size only."""
    flat = torch.full((1, 3, 16, 16), 0.25)
    squared = autoencoder.SQUARED * 0.25**2
    assert autoencoder.picture_loss(flat, 0 * flat).item() == pytest.approx(0.25 + squared)
    line = torch.arange(16)
    board = ((line[:, None] + line) % 2).float().expand(1, 3, 16, 16)
    full = 0.5 + 1 + 1  # mean, and a step of 1 to every neighbor
    halved = 0.5  # the mean of every 2 x 2 square
    loss = autoencoder.picture_loss(board, 0 * board).item()
    squared = autoencoder.SQUARED * 0.5
    assert loss == pytest.approx((full + halved + halved) / 3 + squared)


def test_pictures_are_told_apart_before_anything_is_learned(lessons):
    """The spread of latents' means over pictures, beside that of all latents."""
    torch.manual_seed(0)
    with torch.no_grad():
        posterior = new_autoencoder().encode(2 * lessons.target - 1).latent_dist
    over_pictures = posterior.mean.mean((2, 3)).std(0).mean()
    assert over_pictures > 0.3 * posterior.mean.std()
    assert posterior.std.max() < 0.06


def test_loss_weight_by_hand():
    """Signal-to-noise ratios 1, 9 and 1/9, held between 1 and 5, over ratio + 1."""
    weight = loss_weight(torch.tensor([0.5, 0.9, 0.1]))
    torch.testing.assert_close(weight, torch.tensor([1 / 2, 5 / 10, 1 / (10 / 9)]))


def test_timesteps_are_spread_evenly_and_conditions_dropped(pipe, lessons):
    noised = noise_of(pipe, lessons, drop=0.5)
    count = len(lessons.prompts)
    gaps = (1 - noised.timestep / 999).sqrt().sort().values.diff()  # even before they are squared
    assert (gaps - 1 / count).abs().max() < 0.03
    assert 0 < noised.dropped.sum() < count
    assert not noise_of(pipe, lessons).dropped.any()


class Exact(torch.nn.Module):
    """Stands for the UNet: gives the true velocity, and keeps what it was told."""

    def __init__(self, noised, signal):
        super().__init__()
        signal = signal.view(-1, 1, 1, 1)
        self.sample = signal.sqrt() * noised.noise - (1 - signal).sqrt() * noised.latents
        self.told = None

    def forward(self, mixed, timestep, encoder_hidden_states):
        self.told = encoder_hidden_states
        return self


def test_the_true_velocity_has_no_error_and_dropped_lessons_are_told_nothing(pipe, lessons):
    learner = Learner(pipe)
    noised = noise_of(pipe, lessons, drop=0.5)
    learner.unet = Exact(noised, pipe.scheduler.alphas_cumprod[noised.timestep])
    _, figures = generator_loss(learner, pipe.tokenizer, pipe.scheduler, lessons, noised)
    assert figures["velocity"] == 0
    told = learner.unet.told
    alike = [torch.equal(one, told[noised.dropped][0]) for one in told]
    assert alike == noised.dropped.tolist()


def test_each_draw_of_a_lesson_has_its_own_noise_and_is_told_the_same(pipe, lessons):
    learner, count = Learner(pipe), len(lessons.prompts)
    generator = torch.Generator().manual_seed(1)
    noised = add_noise(pipe.vae, lessons.target, 1000, generator, drop=0.0, draws=3)
    learner.unet = Exact(noised, pipe.scheduler.alphas_cumprod[noised.timestep])
    _, figures = generator_loss(learner, pipe.tokenizer, pipe.scheduler, lessons, noised)
    assert figures["velocity"] == 0
    told, latents = (x.unflatten(0, (count, 3)) for x in (learner.unet.told, noised.latents))
    for same in (told, latents):
        assert torch.equal(same[:, 0], same[:, 1]) and torch.equal(same[:, 0], same[:, 2])
        assert not torch.equal(same[0, 0], same[1, 0])
    assert len({noise.sum().item() for noise in noised.noise}) == 3 * count


def test_a_fifth_of_the_timesteps_leaves_next_to_nothing_of_the_picture(pipe, lessons):
    generator = torch.Generator().manual_seed(1)
    noised = add_noise(pipe.vae, lessons.target[:4], 1000, generator, draws=100)
    timestep = noised.timestep.sort().values
    assert timestep[0] < 20 and timestep[-1] == 999
    share = [(timestep >= 999 * (1 - part)).float().mean().item() for part in (0.04, 0.5)]
    assert share == pytest.approx([0.2, 0.5**0.5], abs=0.01)
    assert (noised.timestep[1:] < noised.timestep[:-1]).float().mean() == pytest.approx(
        0.5, abs=0.1
    )


def test_each_token_draws_its_cell_of_the_thumbnail(pipe):
    """Of 2 x 2 tokens the third is the lower left cell, 16 x 16 pixels of RGBA."""
    learner = Learner(pipe)
    subject = torch.zeros(1, 4, pipe.qformer.query_tokens.shape[2])
    torch.nn.init.ones_(learner.cell_head.weight)
    still = learner.draw_thumbnail(subject)
    subject[:, 2] = 1
    changed = (learner.draw_thumbnail(subject) != still).all(1)[0]
    assert changed[16:, :16].all() and changed.sum() == 256
    pipe.qformer.query_tokens = torch.nn.Parameter(torch.zeros(1, 5, subject.shape[2]))
    with pytest.raises(ValueError, match="queries are 5; expected a square number"):
        Learner(pipe)


def test_the_region_reaches_the_loss_s_gradient(pipe, lessons):
    """Q-Former and tower learn from the UNet's error."""
    learner = Learner(pipe)
    loss, figures = generator_loss(
        learner, pipe.tokenizer, pipe.scheduler, lessons, noise_of(pipe, lessons)
    )
    loss.backward()
    assert learner.qformer.query_tokens.grad.abs().max() > 0
    assert learner.text_encoder.text_model.embeddings.token_embedding.weight.grad.abs().max() > 0
    alpha = learner.qformer.visual_encoder.embeddings.patch_embedding_alpha.weight
    assert alpha.grad.abs().max() > 0
    assert loss.item() > figures["velocity"] > 0.2


def test_loss_falls_on_lessons_that_repeat(pipe, lessons):
    learner = Learner(pipe)
    muon, adam = train.new_optimizers(learner, train.Config(learning_rate=0.003, edge_rate=0.003))
    noised, losses = noise_of(pipe, lessons), []
    for _ in range(12):
        loss, _ = generator_loss(learner, pipe.tokenizer, pipe.scheduler, lessons, noised)
        learner.zero_grad()
        loss.backward()
        muon.step()
        adam.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0] - 0.15


def test_every_weight_that_learns_has_one_optimizer(pipe):
    learner = Learner(pipe)
    muon, adam = train.new_optimizers(learner, train.Config())
    owned = [p for o in (muon, adam) for group in o.param_groups for p in group["params"]]
    learning = [p for p in learner.parameters() if p.requires_grad]
    assert sorted(map(id, owned)) == sorted(map(id, learning))
    assert all(p.ndim == 2 for p in muon.param_groups[0]["params"])
    embedding = learner.text_encoder.text_model.embeddings.token_embedding.weight
    assert id(embedding) not in {id(p) for p in muon.param_groups[0]["params"]}


def test_a_tower_that_learns_has_its_share_of_the_rates(pipe):
    learner = Learner(pipe)
    config = train.Config(tower_share=0.25, learning_rate=0.002, edge_rate=0.001)
    optimizers = train.new_optimizers(learner, config)
    tower = {id(p) for p in learner.qformer.visual_encoder.parameters()}
    for optimizer, rate in zip(optimizers, (0.002, 0.001), strict=True):
        for group in optimizer.param_groups:
            inside = {id(p) in tower for p in group["params"]}
            assert len(inside) == 1 and group["lr"] == rate * (0.25 if True in inside else 1)


def test_reading_teaches_the_tower_and_leaves_the_painter(pipe, lessons):
    learner = Learner(pipe)
    loss, figures, subject = reading_loss(learner, pipe.tokenizer, lessons)
    loss.backward()
    alpha = learner.qformer.visual_encoder.embeddings.patch_embedding_alpha.weight
    assert alpha.grad.abs().max() > 0
    painter = (*learner.unet.parameters(), *learner.text_encoder.parameters())
    assert all(p.grad is None for p in painter)
    blank = lessons.thumbnail  # what a head of zeros is wrong by
    steps = blank.diff(dim=-1).square().mean() + blank.diff(dim=-2).square().mean()
    wanted = 0.01 * figures["name"] + 2 * figures["thumbnail"] + steps.item()
    assert steps > 0.01 and loss.item() == pytest.approx(wanted, abs=1e-3)
    assert subject.shape[:2] == (len(lessons.prompts), TINY.queries)


def test_both_parts_warm_up_and_end_at_a_hundredth(pipe):
    learner = Learner(pipe)
    config = train.Config(reading=300, steps=900, learning_rate=1.0)
    optimizers = train.new_optimizers(learner, config)
    rates, steps = [], (0, 99, 299, 300, 399, 899)
    within = []
    for step in steps:
        within.append(train.plan(optimizers, config, step))
        rates.append(optimizers[0].param_groups[0]["lr"])
    assert within == [0, 99, 299, 0, 99, 599]
    assert rates[0] == rates[3] == 0.01
    assert rates[2] == pytest.approx(0.01, abs=1e-4) and rates[5] == pytest.approx(0.01, abs=1e-4)
    assert rates[1] == pytest.approx(0.76, abs=0.01) and rates[4] == pytest.approx(0.93, abs=0.01)


def stop_in_third_step(monkeypatch, module):
    """The module's train_step raises once, in its third call."""
    real, calls = module.train_step, []

    def stopping(*arguments):
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return real(*arguments)

    monkeypatch.setattr(module, "train_step", stopping)


def test_an_interrupted_autoencoder_ends_as_an_uninterrupted_one(cast, tmp_path, monkeypatch):
    monkeypatch.setattr(autoencoder, "load_cast", lambda *_: cast)
    monkeypatch.setattr(autoencoder, "HELD_OUT_STYLES", STYLES[1:2])
    config = autoencoder.Config(
        tmp_path / "whole", steps=4, batch=4, save_minutes=0.0, sizes=TINY, lesson=LESSON
    )
    autoencoder.main(config)
    stop_in_third_step(monkeypatch, autoencoder)
    parts = replace(config, output=tmp_path / "parts")
    with pytest.raises(KeyboardInterrupt):
        autoencoder.main(parts)
    autoencoder.main(parts)
    name = "autoencoder/diffusion_pytorch_model.safetensors"
    whole, resumed = ((tmp_path / kind / name).read_bytes() for kind in ("whole", "parts"))
    assert whole == resumed
    log = [json.loads(line) for line in (tmp_path / "parts/log.jsonl").read_text().splitlines()]
    assert log[0]["config"]["steps"] == "4" and log[0]["config"]["output"] == "parts"
    assert log[-1]["held_out"].keys() == {"seen", "held_out_style"}
    assert (tmp_path / "whole" / "sample-000004.png").is_file()


def test_a_decoder_goes_on_while_latents_stay(cast, tmp_path, monkeypatch):
    """Encoder and scale are the trained autoencoder's to the bit; the decoder is not."""
    monkeypatch.setattr(autoencoder, "load_cast", lambda *_: cast)
    monkeypatch.setattr(autoencoder, "HELD_OUT_STYLES", STYLES[1:2])
    model = new_autoencoder(TINY)
    model.register_to_config(scaling_factor=1.5, shift_factor=0.25)
    model.save_pretrained(tmp_path / "trained")
    config = autoencoder.Config(
        tmp_path, steps=2, batch=4, sizes=TINY, lesson=LESSON, decoder_of=tmp_path / "trained"
    )
    autoencoder.main(config)
    after = type(model).from_pretrained(tmp_path / "autoencoder")
    assert (after.config.scaling_factor, after.config.shift_factor) == (1.5, 0.25)
    state, before = after.state_dict(), model.state_dict()
    same = {name: torch.equal(state[name], before[name]) for name in before}
    assert all(same[name] for name in same if name.startswith("encoder."))
    assert not same["decoder.conv_in.weight"]


def test_scaled_latents_have_mean_0_and_deviation_1(cast):
    torch.manual_seed(0)
    model = new_autoencoder(TINY).eval()
    config = autoencoder.Config(sizes=TINY, lesson=LESSON)
    autoencoder.set_scale(model, cast, config, pictures=8)
    image = autoencoder.draw_batch(
        cast, 8, autoencoder.step_generator(12, 0), random.Random(11), LESSON
    )
    with torch.no_grad():
        latents = encoded(model, image)
    assert latents.std().item() == pytest.approx(1, abs=1e-3)
    assert latents.mean().item() == pytest.approx(0, abs=1e-3)


def test_an_interrupted_generator_ends_as_an_uninterrupted_one(cast, tmp_path, monkeypatch):
    monkeypatch.setattr(train, "load_cast", lambda *_: cast)
    monkeypatch.setattr(train, "HELD_OUT_STYLES", STYLES[1:2])
    monkeypatch.setattr(train, "sample_sheet", lambda *_: None)
    torch.manual_seed(0)
    new_autoencoder(TINY).save_pretrained(tmp_path / "autoencoder")
    config = train.Config(
        tmp_path / "whole",
        autoencoder=tmp_path / "autoencoder",
        reading=2,
        steps=4,
        scenes=3,
        save_minutes=0.0,
        sizes=TINY,
        lesson=LESSON,
    )
    train.main(config)
    stop_in_third_step(monkeypatch, train)
    parts = replace(config, output=tmp_path / "parts")
    with pytest.raises(KeyboardInterrupt):
        train.main(parts)
    train.main(parts)
    for name in ("unet/diffusion_pytorch_model", "qformer/model", "text_encoder/model"):
        whole, resumed = (
            (tmp_path / kind / "generator" / f"{name}.safetensors").read_bytes()
            for kind in ("whole", "parts")
        )
        assert whole == resumed
    log = [json.loads(line) for line in (tmp_path / "parts/log.jsonl").read_text().splitlines()]
    assert log[-1]["held_out"]["seen"].keys() >= {"velocity", "name", "thumbnail", "named"}
    goes_on_from_where_it_was(config, tmp_path / "whole" / "generator", tmp_path / "on")


def goes_on_from_where_it_was(config, start, output):
    """One step at no rate ends with the weights that it began with."""
    still = replace(config, output=output, start=start, reading=0, steps=1)
    still = replace(still, learning_rate=0.0, edge_rate=0.0)
    train.main(replace(still, autoencoder=output / "not needed"))
    for name in ("unet/diffusion_pytorch_model", "qformer/model", "vae/diffusion_pytorch_model"):
        first, last = (
            load_file(folder / f"{name}.safetensors") for folder in (start, output / "generator")
        )
        assert all(torch.equal(first[key], last[key]) for key in first)


def test_a_missing_autoencoder_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"autoencoder: there is no config.json .* trains"):
        train.main(train.Config(tmp_path, autoencoder=tmp_path / "nowhere"))


def test_the_sample_sheet_shows_region_result_and_target(pipe, lessons, tmp_path):
    path = tmp_path / "sample.png"
    train.sample_sheet(pipe, [lessons], path, each=2)
    assert path.stat().st_size > 1000


def test_the_cells_head_is_fitted_to_what_the_tokens_hold(pipe, lessons):
    """Better than the best constant, and no gradient is left of the fitted weight."""
    learner = Learner(pipe)
    constant = lessons.thumbnail.unfold(2, 16, 16).unfold(3, 16, 16)
    constant = (constant - constant.mean(0)).square().mean().item()
    learner.fit_cells(pipe.tokenizer, lessons)
    learner.cell_head.requires_grad_(True)
    _, figures, subject = reading_loss(learner, pipe.tokenizer, lessons)
    assert figures["thumbnail"] < 0.9 * constant
    drawn = learner.draw_thumbnail(subject.detach().float())
    (slope,) = torch.autograd.grad(
        torch.nn.functional.mse_loss(drawn, lessons.thumbnail), [learner.cell_head.bias]
    )
    assert slope.abs().max() < 1e-5
