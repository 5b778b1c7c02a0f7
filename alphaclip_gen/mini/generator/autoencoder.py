"""Train the generator's autoencoder: 64 x 64 pictures to 8 x 8 latents and back; it resumes.

Usage: python -m alphaclip_gen.mini.generator.autoencoder --output runs/autoencoder

Planned for 16 minutes on two cores: a third of a second a step. The weights are those of a running
average; their scaling factor makes latents of about unit deviation. With `--decoder-of FOLDER` the
decoder of a trained one goes on learning, and the latents stay what they were: a generator that
learned them can take it.
"""

import copy
import random
import time
from dataclasses import dataclass, replace
from pathlib import Path

import torch
import torch.nn.functional as F
import tyro
from diffusers import AutoencoderKL
from jaxtyping import Float
from torch import Tensor

from ...show import figure, to_pil
from ..emoji_world import HELD_OUT_STYLES, Cast, load_cast
from ..runs import (
    Stateful,
    autocast,
    follow,
    load_checkpoint,
    save_checkpoint,
    set_rate,
    settings,
    step_generator,
    write_log,
)
from .lessons import Lesson, make_lessons
from .model import Sizes, new_autoencoder

SQUARED = 8.0
"""Weight of the squared difference in `picture_loss`."""


@dataclass(frozen=True)
class Config:
    """How the autoencoder is trained.

    Attributes:
        output: folder for the log, the checkpoint, samples, and the weights in `autoencoder`.
        artwork: folder where the emoji are, or are fetched to.
        seed: decides weights and pictures.
        steps: optimizer steps.
        batch: pictures a step; a quarter of them are scenes, the others what prompts ask for.
        learning_rate: peak of the warm-up and cosine schedule.
        kl: weight of the latents' mean divergence from a unit normal.
        save_minutes: time between checkpoints.
        sample_minutes: time between held-out figures with their samples.
        sizes: of the network.
        lesson: what the pictures hold.
        decoder_of: folder of a trained autoencoder, whose decoder alone is trained on.
    """

    output: Path = Path("runs/autoencoder")
    artwork: Path = Path("runs/artwork")
    seed: int = 11
    steps: int = 3000
    batch: int = 32
    learning_rate: float = 1e-3
    kl: float = 1e-4
    save_minutes: float = 3.0
    sample_minutes: float = 5.0
    sizes: Sizes = Sizes()
    lesson: Lesson = Lesson(objects=(1, 2))
    decoder_of: Path | None = None


def main(config: Config) -> None:
    """Run the training to its end."""
    model = _begin(config)
    average = copy.deepcopy(model)
    learned = [value for value in model.parameters() if value.requires_grad]
    optimizer = torch.optim.AdamW(
        learned, config.learning_rate, betas=(0.9, 0.99), weight_decay=0.01
    )
    parts: dict[str, Stateful] = {"model": model, "average": average, "optimizer": optimizer}
    checkpoint, log = config.output / "checkpoint.pt", config.output / "log.jsonl"
    start = load_checkpoint(checkpoint, **parts)
    write_log(log, step=start, config=settings(config))
    cast = load_cast(config.artwork)
    saved = sampled = time.monotonic()
    for step in range(start, config.steps):
        set_rate(optimizer, step / config.steps, step, warm_up=100)
        figures = train_step(model, optimizer, cast, config, step)
        follow(average, model, step)
        if step % 20 == 0:
            write_log(log, step=step, **figures)
        if time.monotonic() - saved > 60 * config.save_minutes:
            save_checkpoint(checkpoint, step + 1, **parts)
            saved = time.monotonic()
        if time.monotonic() - sampled > 60 * config.sample_minutes:
            write_log(log, step=step, held_out=held_out(average, cast, config, step))
            sampled = time.monotonic()
    if config.decoder_of is None:
        set_scale(average, cast, config)
    average.save_pretrained(config.output / "autoencoder")
    write_log(log, step=config.steps, held_out=held_out(average, cast, config, config.steps))


def _begin(config: Config) -> AutoencoderKL:
    """Random weights, or trained ones of which the decoder's learn."""
    torch.manual_seed(config.seed)
    if config.decoder_of is None:
        return new_autoencoder(config.sizes)
    model: AutoencoderKL = AutoencoderKL.from_pretrained(config.decoder_of)
    model.encoder.requires_grad_(False)
    return model


def train_step(
    model: AutoencoderKL,
    optimizer: torch.optim.Optimizer,
    cast: Cast,
    config: Config,
    step: int,
) -> dict[str, float]:
    """One optimizer step on fresh pictures; returns figures for the log."""
    began = time.monotonic()
    generator = step_generator(config.seed, step)
    rng = random.Random(config.seed * 1_000_003 + step)
    image = draw_batch(cast, config.batch, generator, rng, config.lesson)
    rendered = time.monotonic()
    with autocast():
        posterior = model.encode(2 * image - 1).latent_dist
        made = model.decode(posterior.sample(generator)).sample
    divergence = _divergence(posterior.mean.float(), posterior.logvar.float())
    difference = picture_loss(made.float() / 2 + 0.5, image)
    loss = difference + config.kl * divergence
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    return {
        "loss": round(loss.item(), 4),
        "picture": round(difference.item(), 4),
        "divergence": round(divergence.item(), 3),
        "render_seconds": round(rendered - began, 3),
        "seconds": round(time.monotonic() - began, 3),
    }


def draw_batch(
    cast: Cast, count: int, generator: torch.Generator, rng: random.Random, lesson: Lesson
) -> Float[Tensor, "count 3 64 64"]:
    """Pictures that prompts ask for, and a quarter of scenes."""
    asked = count - count // 4
    lessons = make_lessons(cast, asked, generator, rng, lesson)
    return torch.cat([lessons.image[: count - asked], lessons.target[-asked:]])


def picture_loss(
    made: Float[Tensor, "batch 3 height width"], wanted: Float[Tensor, "batch 3 height width"]
) -> Float[Tensor, ""]:
    """Mean difference of pixels and of their steps to the right and down, at three scales.

    The squared difference is added: absolute ones alone are content with a gray picture for long.
    """
    loss = 3 * SQUARED * (made - wanted).square().mean()
    for scale in range(3):
        if scale:
            made, wanted = F.avg_pool2d(made, 2), F.avg_pool2d(wanted, 2)
        error = made - wanted
        loss = loss + error.abs().mean()
        loss = loss + error.diff(dim=-1).abs().mean() + error.diff(dim=-2).abs().mean()
    return loss / 3


def _divergence(mean: Tensor, log_variance: Tensor) -> Tensor:
    """Kullback and Leibler's, of normals from the unit normal, a latent's mean."""
    return 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance).mean()


@torch.no_grad()
def set_scale(model: AutoencoderKL, cast: Cast, config: Config, pictures: int = 512) -> None:
    """Nothing; the model's scaling and shift make latents of deviation 1 around 0."""
    generator = step_generator(config.seed + 1, 0)
    image = draw_batch(cast, pictures, generator, random.Random(config.seed), config.lesson)
    latents = torch.cat([model.encode(2 * part - 1).latent_dist.mode() for part in image.split(64)])
    model.register_to_config(
        scaling_factor=1 / latents.std().item(), shift_factor=latents.mean().item()
    )


@torch.no_grad()
def held_out(model: AutoencoderKL, cast: Cast, config: Config, step: int) -> dict[str, float]:
    """Peak signal-to-noise ratio in decibels on fresh pictures; writes a sheet of some."""
    figures, sheet = {}, list[Tensor]()
    kinds = {"seen": config.lesson.styles, "held_out_style": HELD_OUT_STYLES}
    for name, styles in kinds.items():
        generator = step_generator(config.seed + 2, 0)
        lesson = replace(config.lesson, styles=styles, looks=0.0)
        image = make_lessons(cast, 24, generator, random.Random(0), lesson).target
        made = reconstructed(model, image)
        error = (made - image).square().mean((1, 2, 3))
        figures[name] = round((-10 * error.log10()).mean().item(), 2)
        sheet += [one[None] for pair in zip(image[:10], made[:10], strict=True) for one in pair]
    pictures = [to_pil(one) for one in sheet]
    captions = [[("as drawn", "decoded")[i % 2]] for i in range(len(sheet))]
    figure(pictures, captions, tile=128, columns=10).save(config.output / f"sample-{step:06}.png")
    return figures


def reconstructed(
    model: AutoencoderKL, image: Float[Tensor, "batch 3 height width"]
) -> Float[Tensor, "batch 3 height width"]:
    """The pictures encoded and decoded, in [0, 1]."""
    latents = model.encode(2 * image - 1).latent_dist.mode()
    return (model.decode(latents).sample / 2 + 0.5).clamp(0, 1)


if __name__ == "__main__":
    main(tyro.cli(Config))
