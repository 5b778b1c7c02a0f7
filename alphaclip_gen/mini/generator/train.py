"""Train mini's generator on lessons drawn on the fly; resumes where it stopped.

Usage: python -m alphaclip_gen.mini.generator.train --output runs/generator

The autoencoder (`python -m alphaclip_gen.mini.generator.autoencoder` trains one) stays as it is.
The first steps teach tower and Q-Former to read: a tower made for naming keeps little of how a
drawing looks. In the others all learn to paint what was read. A step of reading took 0.7 seconds on
two cores that have bfloat16, one of painting 1.2. Folder `generator` then holds the pipeline with
the weights of a running average.
"""

import copy
import random
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
import tyro
from diffusers import AutoencoderKL
from diffusers.models.attention_processor import AttnProcessor
from transformers import PreTrainedTokenizerBase

from ...checkpoints import load_tower
from ...show import figure, lit_region, to_pil
from ...sources import SHIPPED
from ...subject import AlphaBlipDiffusionPipeline
from ..emoji_world import HELD_OUT_STYLES, Cast, load_cast
from ..muon import Muon
from ..runs import (
    Stateful,
    follow,
    load_checkpoint,
    save_checkpoint,
    set_rate,
    settings,
    size_in_mb,
    step_generator,
    write_log,
)
from .lessons import Lesson, Lessons, make_lessons
from .model import Sizes, load_generator, new_generator, rebuilt, save_generator
from .objective import Learner, add_noise, generator_loss, reading_loss
from .placing import place_queries
from .prompts import UNNAMED, wording


@dataclass(frozen=True)
class Config:
    """How the generator is trained.

    Attributes:
        output: folder for the log, the checkpoint, samples, and the pipeline in `generator`.
        artwork: folder where the emoji are, or are fetched to.
        autoencoder: folder of the trained autoencoder; the shipped one if not given.
        tower: mini, or a folder that its training wrote.
        start: folder of a trained generator to go on from, with its own tower and autoencoder.
        seed: decides weights and lessons.
        reading: steps in which tower and Q-Former learn to read a region.
        steps: in all; after `reading` all learn to paint.
        scenes: of one step of painting; every visible subject is a lesson.
        reading_scenes: of one step of reading.
        draws: how many noises of each lesson; the regions are read once for all.
        learning_rate: peak of the warm-up and cosine schedule, for matrices between layers (Muon).
        edge_rate: the same for all other weights (AdamW).
        tower_share: of these rates for the tower.
        save_minutes: time between checkpoints.
        sample_minutes: time between held-out figures with their samples.
        sizes: of the networks.
        lesson: what the lessons hold.
    """

    output: Path = Path("runs/generator")
    artwork: Path = Path("runs/artwork")
    autoencoder: Path = SHIPPED / "generator" / "vae"
    tower: str = "mini"
    start: Path | None = None
    seed: int = 12
    reading: int = 800
    steps: int = 8000
    scenes: int = 10
    reading_scenes: int = 26
    draws: int = 2
    learning_rate: float = 2e-3
    edge_rate: float = 1e-3
    tower_share: float = 1.0
    save_minutes: float = 4.0
    sample_minutes: float = 10.0
    sizes: Sizes = Sizes()
    lesson: Lesson = Lesson()


def main(config: Config) -> None:
    """Run the training to its end."""
    pipe = _new_pipeline(config)
    learner = Learner(pipe)
    average = copy.deepcopy(learner).requires_grad_(False)
    muon, adam = new_optimizers(learner, config)
    parts: dict[str, Stateful] = {
        "learner": learner,
        "average": average,
        "muon": muon,
        "adam": adam,
    }
    checkpoint, log = config.output / "checkpoint.pt", config.output / "log.jsonl"
    start = load_checkpoint(checkpoint, **parts)
    size = size_in_mb(pipe.vae, learner.qformer, learner.text_encoder, learner.unet)
    write_log(
        log, step=start, config=settings(config), megabytes=size, unet=size_in_mb(learner.unet)
    )
    cast = load_cast(config.artwork)
    if start == 0:
        _begin_reading(learner, average, pipe.tokenizer, cast, config)
    saved = sampled = time.monotonic()
    for step in range(start, config.steps):
        part_step = plan((muon, adam), config, step)
        figures = train_step(pipe, learner, (muon, adam), cast, config, step)
        follow(average, learner, part_step, decay=0.998)
        if step % 20 == 0:
            write_log(log, step=step, **figures)
        if time.monotonic() - saved > 60 * config.save_minutes:
            save_checkpoint(checkpoint, step + 1, **parts)
            saved = time.monotonic()
        if time.monotonic() - sampled > 60 * config.sample_minutes:
            write_log(log, step=step, held_out=held_out(pipe, average, cast, config, step))
            sampled = time.monotonic()
    save_generator(trained(pipe, average), config.output / "generator")
    final = held_out(pipe, average, cast, config, config.steps)
    write_log(log, step=config.steps, held_out=final)


def _begin_reading(
    learner: Learner,
    average: Learner,
    tokenizer: PreTrainedTokenizerBase,
    cast: Cast,
    config: Config,
) -> None:
    """Nothing; queries that were never trained read their own places, and so does the cells' head.

    The average begins where the learner does.
    """
    generator = step_generator(config.seed + 2, 0)
    lessons = make_lessons(cast, 100, generator, random.Random(0), config.lesson)
    if config.start is None:
        place_queries(learner.qformer, learner.look_at(lessons))
    learner.fit_cells(tokenizer, lessons)
    average.load_state_dict(learner.state_dict())


def plan(optimizers: tuple[torch.optim.Optimizer, ...], config: Config, step: int) -> int:
    """The step within its part of the training, reading or painting.

    Each has a warm-up and a cosine of its own.
    """
    reads = step < config.reading
    began, end = (0, config.reading) if reads else (config.reading, config.steps)
    for optimizer in optimizers:
        set_rate(optimizer, (step - began) / (end - began), step - began, warm_up=100)
    return step - began


def _new_pipeline(config: Config) -> AlphaBlipDiffusionPipeline:
    """The pipeline to train: one that is trained, or of random weights with autoencoder and tower.

    Random weights are the seed's.
    """
    if config.start is not None:
        return _to_train(load_generator(config.start))
    if not (config.autoencoder / "config.json").is_file():
        raise FileNotFoundError(
            f"autoencoder: there is no config.json in {str(config.autoencoder)!r}. "
            f"python -m alphaclip_gen.mini.generator.autoencoder trains one."
        )
    autoencoder = AutoencoderKL.from_pretrained(config.autoencoder).eval()
    tower = load_tower(config.tower, projection=False)
    torch.manual_seed(config.seed)
    return _to_train(new_generator(autoencoder, tower, config.sizes))


def _to_train(pipe: AlphaBlipDiffusionPipeline) -> AlphaBlipDiffusionPipeline:
    """The pipeline itself, its autoencoder fixed, its U-Net with the attention that trains faster.

    Forward and back it takes 0.7 of the time of SDPA's on two cores.
    """
    pipe.vae.requires_grad_(False)
    pipe.unet.set_attn_processor(AttnProcessor())
    return pipe


def train_step(
    pipe: AlphaBlipDiffusionPipeline,
    learner: Learner,
    optimizers: tuple[torch.optim.Optimizer, ...],
    cast: Cast,
    config: Config,
    step: int,
) -> dict[str, float]:
    """One optimizer step on fresh lessons; returns figures for the log."""
    began = time.monotonic()
    generator = step_generator(config.seed, step)
    rng = random.Random(config.seed * 1_000_003 + step)
    reads = step < config.reading
    scenes = config.reading_scenes if reads else config.scenes
    lessons = make_lessons(cast, scenes, generator, rng, config.lesson)
    rendered = time.monotonic()
    if reads:
        loss, figures, _ = reading_loss(learner, pipe.tokenizer, lessons)
    else:
        timesteps = pipe.scheduler.config.num_train_timesteps
        noised = add_noise(pipe.vae, lessons.target, timesteps, generator, draws=config.draws)
        loss, figures = generator_loss(learner, pipe.tokenizer, pipe.scheduler, lessons, noised)
    learner.zero_grad(set_to_none=True)
    loss.backward()
    norm = torch.nn.utils.clip_grad_norm_(learner.parameters(), 1.0)
    for optimizer in optimizers:
        optimizer.step()
    return {
        "loss": round(loss.item(), 4),
        **figures,
        "norm": round(norm.item(), 3),
        "lessons": len(lessons.prompts),
        "render_seconds": round(rendered - began, 3),
        "seconds": round(time.monotonic() - began, 3),
    }


def new_optimizers(
    learner: Learner, config: Config
) -> tuple[torch.optim.Optimizer, torch.optim.Optimizer]:
    """Muon for matrices between layers, AdamW for the rest."""
    between = (".layer.", ".layers.", "transformer_blocks.")
    hidden, edges = list[dict](), list[dict]()
    for in_tower, share in ((False, 1.0), (True, config.tower_share)):
        named = [
            (name, value)
            for name, value in learner.named_parameters()
            if value.requires_grad and (".visual_encoder." in name) == in_tower
        ]
        matrices = [p for name, p in named if p.ndim == 2 and any(part in name for part in between)]
        chosen = {id(p) for p in matrices}
        rest = [p for _, p in named if id(p) not in chosen]
        rate = share * config.edge_rate
        hidden.append({"params": matrices, "lr": share * config.learning_rate})
        edges.append({"params": [p for p in rest if p.ndim >= 2], "lr": rate})
        edges.append({"params": [p for p in rest if p.ndim < 2], "lr": rate, "weight_decay": 0.0})
    hidden, edges = ([group for group in groups if group["params"]] for groups in (hidden, edges))
    muon = Muon(hidden, weight_decay=0.02)
    adam = torch.optim.AdamW(edges, betas=(0.9, 0.99), weight_decay=0.02, fused=True)
    return muon, adam


def trained(pipe: AlphaBlipDiffusionPipeline, learner: Learner) -> AlphaBlipDiffusionPipeline:
    """The pipeline with a learner's parts."""
    return rebuilt(
        pipe, qformer=learner.qformer, text_encoder=learner.text_encoder, unet=learner.unet
    )


@torch.no_grad()
def held_out(
    pipe: AlphaBlipDiffusionPipeline, average: Learner, cast: Cast, config: Config, step: int
) -> dict[str, dict[str, float]]:
    """Losses on lessons never trained on, in both kinds of style; writes a sheet of samples."""
    figures, shown = {}, list[Lessons]()
    for name, styles in (("seen", config.lesson.styles), ("held_out_style", HELD_OUT_STYLES)):
        lesson = replace(config.lesson, objects=(2, 2), styles=styles, whole=0.0, named=0.0)
        lesson = replace(lesson, solids=0.0, looks=0.0, rough=0.0, loose=0.0)
        generator = step_generator(config.seed + 1, 0)
        lessons = make_lessons(cast, config.scenes, generator, random.Random(0), lesson)
        timesteps = pipe.scheduler.config.num_train_timesteps
        noised = add_noise(pipe.vae, lessons.target, timesteps, generator, drop=0.0)
        _, figures[name] = generator_loss(average, pipe.tokenizer, pipe.scheduler, lessons, noised)
        shown.append(lessons)
    path = config.output / f"sample-{step:06}.png"
    sample_sheet(trained(pipe, average), shown, path)
    return figures


def sample_sheet(
    pipe: AlphaBlipDiffusionPipeline, shown: list[Lessons], path: Path, each: int = 9
) -> None:
    """Nothing; writes a picture of regions, what was made of them, and what was asked for."""
    pipe.set_progress_bar_config(disable=True)
    pictures, captions = [], []
    for lessons in shown:
        count = min(each, len(lessons.prompts))
        made: Any = pipe(
            [wording(instruction) for instruction in lessons.instructions[:count]],
            list(lessons.image[:count]),
            UNNAMED,
            UNNAMED,
            alpha_mask=list(lessons.alpha[:count]),
            guidance_scale=1.5,
            num_inference_steps=4,
            generator=torch.Generator().manual_seed(0),
            output_type="pt",
        )
        for row in range(count):
            one = slice(row, row + 1)
            pictures += [lit_region(lessons.image[one], lessons.alpha[one])]
            pictures += [to_pil(made.images[one]), to_pil(lessons.target[one])]
            captions += [["region"], ["made"], ["asked for"]]
    figure(pictures, captions, tile=112, columns=9).save(path)


if __name__ == "__main__":
    main(tyro.cli(Config))
