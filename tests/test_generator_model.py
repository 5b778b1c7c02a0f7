"""mini's generator as a pipeline: it reads as it was trained to, samples, is saved and loaded."""

import random
from dataclasses import replace

import pytest
import torch
from tiny_cast import STYLES, tiny_cast

from alphaclip_gen.mini.generator.lessons import Lesson, make_lessons
from alphaclip_gen.mini.generator.model import (
    Sizes,
    load_generator,
    new_autoencoder,
    new_generator,
    new_scheduler,
    save_generator,
)
from alphaclip_gen.mini.generator.objective import Learner
from alphaclip_gen.mini.model import new_model, new_tokenizer
from alphaclip_gen.mini.runs import size_in_mb

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
"""Of diffusers' scheduler on numpy 2."""

TINY = Sizes(
    width=32,
    heads=2,
    queries=4,
    qformer_layers=1,
    text_layers=1,
    unet=(16, 32),
    latents=4,
    autoencoder=(8, 8, 16, 16),
)


@pytest.fixture(scope="module")
def tower():
    """mini's tower with random weights, the alpha convolution's included."""
    torch.manual_seed(0)
    model = new_model(new_tokenizer()).vision_model.eval()
    torch.nn.init.normal_(model.embeddings.patch_embedding_alpha.weight, std=0.1)
    return model


@pytest.fixture(scope="module")
def pipe(tower):
    torch.manual_seed(1)
    made = new_generator(new_autoencoder(TINY).eval(), tower, TINY)
    made.set_progress_bar_config(disable=True)
    return made


@pytest.fixture(scope="module")
def lessons():
    lesson = Lesson(objects=(2, 3), styles=STYLES, emoji=12, whole=0.3, named=0.5)
    generator = torch.Generator().manual_seed(0)
    return make_lessons(tiny_cast(), 3, generator, random.Random(0), lesson)


def draw(pipe, lessons, alpha=None, rows=2, **options):
    settings = {"guidance_scale": 2.0, "num_inference_steps": 3, "output_type": "pt"}
    return pipe(
        ["{subject} on a blue background"] * rows,
        list(lessons.image[:rows]),
        "thing",
        "thing",
        alpha_mask=list((lessons.alpha if alpha is None else alpha)[:rows]),
        generator=torch.Generator().manual_seed(4),
        **{**settings, **options},
    ).images


@torch.no_grad()
def test_training_reads_subjects_and_prompts_as_the_pipeline_does(pipe, lessons):
    learner = Learner(pipe)
    context = learner.read_subject(pipe.tokenizer, lessons)
    count = len(lessons.prompts)
    theirs = pipe.encode_subject(
        list(lessons.image), lessons.sources, list(lessons.alpha), prompts=count
    )
    torch.testing.assert_close(context, theirs, atol=1e-5, rtol=1e-4)
    ours = learner.read_prompts(pipe.tokenizer, lessons.prompts, context)
    torch.testing.assert_close(
        ours, pipe.encode_prompt(lessons.prompts, theirs), atol=1e-5, rtol=1e-4
    )
    nothing = learner.read_prompts(pipe.tokenizer, [""])
    torch.testing.assert_close(nothing, pipe.encode_prompt([""]))
    assert nothing.shape[1:] == ours.shape[1:]


def test_the_tower_is_mini_s_first_layers(pipe, tower):
    theirs = tower.embeddings.patch_embedding_alpha.weight
    ours = pipe.qformer.visual_encoder.embeddings.patch_embedding_alpha.weight
    assert torch.equal(ours, theirs)
    layers = pipe.qformer.visual_encoder.encoder.layers
    assert len(layers) == Sizes().tower_layers < len(tower.encoder.layers)
    assert torch.equal(layers[0].mlp.fc2.weight, tower.encoder.layers[0].mlp.fc2.weight)


def test_pictures_follow_region_and_seed(pipe, lessons):
    first, again = draw(pipe, lessons), draw(pipe, lessons)
    assert first.shape == (2, 3, 64, 64) and torch.equal(first, again)
    assert first.min() >= 0 and first.max() <= 1
    whole = draw(pipe, lessons, torch.ones_like(lessons.alpha))
    assert (first - whole).abs().max() > 1e-5


def test_save_and_load_round_trip(pipe, lessons, tmp_path):
    save_generator(pipe, tmp_path / "generator")
    loaded = load_generator(tmp_path / "generator")
    assert {loaded.unet.dtype, loaded.vae.dtype, loaded.qformer.dtype} == {torch.float32}
    assert loaded.config.prompt_reps == 1 and loaded.latent_scale == 8
    difference = draw(loaded, lessons) - draw(pipe, lessons)
    assert difference.abs().max() < 0.02  # weights were halved in between
    stored = sum(path.stat().st_size for path in tmp_path.rglob("*.safetensors"))
    parts = (pipe.vae, pipe.unet, pipe.qformer, pipe.text_encoder)
    assert stored / 1e6 == pytest.approx(size_in_mb(*parts), abs=0.2)
    assert pipe.unet.dtype == torch.float32


def test_a_missing_generator_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no model_index.json .* trains one"):
        load_generator(tmp_path)


def test_its_weights_are_at_most_30_megabytes(tower):
    pipe = new_generator(new_autoencoder(), tower)
    assert 20 < size_in_mb(pipe.vae, pipe.unet, pipe.qformer, pipe.text_encoder) <= 30
    linear = sum(p.numel() for p in pipe.unet.parameters() if p.ndim == 2)
    assert linear > 0.4 * sum(p.numel() for p in pipe.unet.parameters())


def test_other_sizes_need_other_latents(tower):
    with pytest.raises(RuntimeError, match="channels"):
        odd = new_generator(new_autoencoder(replace(TINY, latents=8)).eval(), tower, TINY)
        odd.set_progress_bar_config(disable=True)
        odd("{subject}", torch.zeros(3, 64, 64), "thing", "thing", num_inference_steps=1)


def test_the_scheduler_samples_a_known_distribution():
    """With the exact velocity of a normal distribution, 20 steps end at its mean and deviation."""
    mean, deviation = torch.tensor([1.5, -0.7, 0.2]), torch.tensor([0.4, 1.0, 0.7])
    scheduler = new_scheduler()
    scheduler.set_timesteps(20)
    sample = torch.randn(4000, 3, generator=torch.Generator().manual_seed(0))
    for timestep in scheduler.timesteps:
        signal = scheduler.alphas_cumprod[int(timestep)]
        amplitude, noise_level = signal.sqrt(), (1 - signal).sqrt()
        spread = signal * deviation**2 + 1 - signal
        clean = mean + amplitude * deviation**2 / spread * (sample - amplitude * mean)
        noise = (sample - amplitude * clean) / noise_level
        velocity = amplitude * noise - noise_level * clean
        sample = scheduler.step(velocity, timestep, sample, return_dict=False)[0]
    torch.testing.assert_close(sample.mean(0), mean, atol=0.05, rtol=0)
    torch.testing.assert_close(sample.std(0), deviation, atol=0.05, rtol=0)
