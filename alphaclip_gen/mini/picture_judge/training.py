"""The making of the judge of pictures: its training, and its accuracy on views it has not seen."""

import logging
import math
import time
from dataclasses import dataclass
from pathlib import Path

import torch
from torch.nn import functional

from ...whole_files import write_json
from ..artwork import HELD_OUT_STYLES, TRAINING_STYLES
from ..captions import SHAPES
from ..emoji_world import Cast, load_cast
from ..runs import autocast, load_checkpoint, save_checkpoint, settings, step_generator, write_log
from .model import PictureJudge
from .views import Views, draw_views

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class PictureJudgeTraining:
    """How the judge is made. One command; a second start goes on where the first one stopped.

    Planned for 22 minutes on two cores: a sixth of a second a step.
    """

    work: Path = Path("runs/picture-judge")
    """Folder of the checkpoint and the log."""
    output: Path = Path("runs/picture-judge/judge")
    """Folder of the weights and of judge.json."""
    artwork: Path = Path("runs/artwork")
    """Folder where the emoji are, or are fetched to."""
    seed: int = 707
    steps: int = 8000
    batch: int = 128
    learning_rate: float = 3e-3
    width: int = 32
    keep_minutes: float = 2.0
    """Time between two checkpoints."""
    held_out: int = 2000
    """Held-out views of each kind."""


def run(config: PictureJudgeTraining) -> dict:
    """Trains, measures on views not seen and saves the judge; returns what judge.json holds."""
    cast = load_cast(config.artwork)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        judge = PictureJudge(config.width)
    _train(judge, cast, config)
    path = judge.eval().save_pretrained(config.output)
    summary = {
        "settings": settings(config),
        "parameters": sum(value.numel() for value in judge.parameters()),
        "held_out": held_out(PictureJudge.from_pretrained(config.output), cast, config),
    }
    write_json(path.with_name("judge.json"), summary)
    return summary


def _train(judge: PictureJudge, cast: Cast, config: PictureJudgeTraining) -> None:
    """Trains in place, from the last checkpoint on."""
    optimizer = torch.optim.AdamW(judge.parameters(), config.learning_rate, weight_decay=0.05)
    checkpoint, log = config.work / "checkpoint.pt", config.work / "log.jsonl"
    start = load_checkpoint(checkpoint, judge=judge, optimizer=optimizer)
    write_log(log, step=start, config=settings(config))
    judge.train()
    kept = time.monotonic()
    for step in range(start, config.steps):
        for group in optimizer.param_groups:
            group["lr"] = config.learning_rate * schedule(step / config.steps)
        figures = train_step(judge, optimizer, cast, config, step)
        if step % 20 == 0:
            write_log(log, step=step, **figures)
            logger.info("step %d: %s", step, figures)
        if time.monotonic() - kept > 60 * config.keep_minutes:
            save_checkpoint(checkpoint, step + 1, judge=judge, optimizer=optimizer)
            kept = time.monotonic()


def train_step(
    judge: PictureJudge,
    optimizer: torch.optim.Optimizer,
    cast: Cast,
    config: PictureJudgeTraining,
    step: int,
) -> dict[str, float]:
    """One optimizer step on fresh views; returns figures for the log."""
    began = time.monotonic()
    views = draw_views(cast, config.batch, step_generator(config.seed, step))
    with autocast():
        concepts, counts = judge(views.image)
    loss = functional.cross_entropy(concepts.float(), views.concept, label_smoothing=0.05)
    loss = loss + 0.3 * functional.cross_entropy(counts.float(), views.number - 1)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    return {
        "loss": round(loss.item(), 3),
        "concept": round((concepts.argmax(1) == views.concept).float().mean().item(), 3),
        "count": round((counts.argmax(1) + 1 == views.number).float().mean().item(), 3),
        "seconds": round(time.monotonic() - began, 3),
    }


def schedule(progress: float) -> float:
    """Learning rate factor: up over 5 % of the steps, then down along a cosine."""
    return min(progress / 0.05 + 0.02, 0.5 + 0.5 * math.cos(math.pi * progress))


def held_out(
    judge: PictureJudge, cast: Cast, config: PictureJudgeTraining
) -> dict[str, dict[str, float]]:
    """Accuracies on fresh views: as drawn, and with the flaws of the training, in both styles."""
    kinds = {
        "training styles": (TRAINING_STYLES, 0.0),
        "training styles, flawed": (TRAINING_STYLES, 1.0),
        "held-out style": (HELD_OUT_STYLES, 0.0),
        "held-out style, flawed": (HELD_OUT_STYLES, 1.0),
    }
    figures = {}
    for number, (kind, (styles, flaws)) in enumerate(kinds.items()):
        generator = step_generator(config.seed + 1, number)
        views = draw_views(cast, config.held_out, generator, styles, flaws)
        figures[kind] = accuracies(judge, views)
    return figures


def accuracies(judge: PictureJudge, views: Views) -> dict[str, float]:
    """How often concepts (of all, of solids) and counts are right."""
    verdict = judge.name(views.image)
    right = (verdict.concept == views.concept).float()
    solid = views.concept < len(SHAPES)
    return {
        "concept": round(right.mean().item(), 4),
        "solid": round(right[solid].mean().item(), 4),
        "count": round((verdict.number == views.number).float().mean().item(), 4),
    }
