"""Train mini from scratch on scenes rendered on the fly; resumes where it stopped.

Usage: python -m alphaclip_gen.mini.train --output runs/mini

Every step draws from a generator seeded by (seed, step), so an interrupted run continues exactly.
The last part of the schedule is mildly adversarial: pictures are perturbed toward a wrong reading
within a small L2 ball, which aligns gradients with perception (Santurkar et al. 2019,
arXiv 1906.09453) and so makes the tower a better guide.
"""

import copy
import json
import math
import os
import random
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch
import torch.nn.functional as F
import tyro
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import PreTrainedTokenizerFast

from ..vision import AlphaCLIPModel, pixel_values
from .captions import COLORS, SHAPES, all_captions, say, say_scene
from .model import new_model, new_tokenizer
from .solids import SpriteBank, build_bank
from .world import PLAIN, Scenes, Style, render_scenes

_SHAPES, _COLORS = list(SHAPES), list(COLORS)


@dataclass(frozen=True)
class Config:
    """How mini is trained.

    Attributes:
        output: folder for the log, checkpoints and finished weights.
        seed: decides weights, scenes and captions.
        steps: optimizer steps.
        adversarial_steps: how many of them, at the end, see perturbed pictures.
        radius: largest perturbation, as the L2 norm over a picture's pixels in [0, 1].
        examples: about how many regions a step; every visible object of a scene is one.
        ease: fraction of the steps over which scenes go from one plain solid each to the full mix.
        learning_rate: peak of the warm-up and cosine schedule, for matrices between layers (Muon).
        edge_rate: the same for all other weights (AdamW).
        save_minutes: time between checkpoints.
    """

    output: Path = Path("runs/mini")
    seed: int = 0
    steps: int = 3600
    adversarial_steps: int = 250
    radius: float = 1.5
    examples: int = 150
    ease: float = 0.21
    learning_rate: float = 2e-3
    edge_rate: float = 1e-3
    save_minutes: float = 4.0


@dataclass(frozen=True)
class Examples:
    """Pictures with regions, and what each should be called: a solid, or several."""

    image: Tensor
    alpha: Tensor
    joint: Tensor  # (single, shapes * colors) graded targets of the leading examples
    scene_captions: list[str]  # captions of the remaining examples
    patch_shapes: Tensor  # (examples, patches, shapes): how much of each solid covers a patch


class Learner(torch.nn.Module):
    """The model, and a linear head that names solids while it learns; only the model is kept."""

    def __init__(self, model: AlphaCLIPModel):
        super().__init__()
        self.model = model
        self.head = torch.nn.Linear(model.visual_projection.in_features, len(_SHAPES))


def main(config: Config) -> None:
    """Run the training to its end."""
    config.output.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(config.seed)
    tokenizer = new_tokenizer()
    model = new_model(tokenizer)
    model.set_attn_implementation("eager")  # two thirds of SDPA's step time here
    learner, average = Learner(model), copy.deepcopy(model)
    optimizers = new_optimizers(learner, config)
    checkpoint = config.output / "checkpoint.pt"
    start = _resume(checkpoint, learner, average, optimizers) if checkpoint.exists() else 0
    bank = _cached_bank(config)
    log = _Log(config.output / "log.jsonl")
    if start == 0:
        log.write(config={**asdict(config), "output": str(config.output)})
    saved = time.monotonic()
    for step in range(start, config.steps):
        for group in (group for optimizer in optimizers for group in optimizer.param_groups):
            group["lr"] = group["peak"] * _schedule(step, config.steps)
        figures = train_step(learner, tokenizer, optimizers, bank, config, step)
        _follow(average, model)
        if step % 20 == 0:
            log.write(step=step, **figures)
        if step % 400 == 399:
            log.write(step=step, held_out=quick_accuracy(average, tokenizer, config.seed + 1))
        if step == config.steps - config.adversarial_steps - 1:
            save(average, tokenizer, config.output / "before-adversarial")
        if time.monotonic() - saved > 60 * config.save_minutes:
            _save_checkpoint(checkpoint, step + 1, learner, average, optimizers)
            saved = time.monotonic()
    save(average, tokenizer, config.output / "mini")
    log.write(step=config.steps, held_out=quick_accuracy(average, tokenizer, config.seed + 1))


def train_step(
    learner: Learner,
    tokenizer: PreTrainedTokenizerFast,
    optimizers: Sequence[torch.optim.Optimizer],
    bank: SpriteBank,
    config: Config,
    step: int,
) -> dict[str, float]:
    """One optimizer step on fresh scenes; returns figures for the log."""
    began = time.monotonic()
    generator = torch.Generator().manual_seed(config.seed * 1_000_003 + step)
    rng = random.Random(config.seed * 1_000_003 + step)
    style, loose = lesson(step / (config.ease * config.steps))
    most = style.objects[1]
    count = round(config.examples / (0.82 * (1 + most) / 2 if most > 1 else 1))
    scenes = render_scenes(bank, count, generator, style)
    examples = make_examples(scenes, generator, rng, loose)
    rendered = time.monotonic()
    if step >= config.steps - config.adversarial_steps:
        image = perturb(learner, tokenizer, examples, rng, config.radius, generator)
        examples = replace(examples, image=image)
    loss, accuracy = contrast(learner, tokenizer, examples, rng)
    learner.zero_grad(set_to_none=True)
    loss.backward()
    torch.nn.utils.clip_grad_norm_(learner.parameters(), 1.0)
    for optimizer in optimizers:
        optimizer.step()
    scale = learner.model.logit_scale
    with torch.no_grad():
        scale.clamp_(max=math.log(30))
    return {
        "loss": round(loss.item(), 4),
        "objects": most,
        "accuracy": round(accuracy, 4),
        "examples": len(examples.image),
        "scale": round(scale.exp().item(), 2),
        "render_seconds": round(rendered - began, 3),
        "seconds": round(time.monotonic() - began, 3),
    }


def lesson(progress: float) -> tuple[Style, float]:
    """What scenes hold, and the share of loosely given regions, while training gets harder.

    From one plain solid to the full mix at progress 1, so that shapes come before crowds.
    """
    full, share = Style(), min(max((progress - 0.5) / 0.5, 0), 1)
    most = 1 + sum(progress >= start for start in (0.45, 0.6, 0.75))
    style = Style(
        objects=(1, most),
        named=1 - (1 - full.named) * share,
        blended=full.blended * share,
        rough=full.rough * share,
    )
    return style, 0.24 * share


def make_examples(
    scenes: Scenes, generator: torch.Generator, rng: random.Random, loose: float = 0.24
) -> Examples:
    """Regions of single objects first, then whole scenes (a tenth) and pairs of objects."""
    scene, slot = scenes.present.nonzero().T
    alpha = _region(scenes.visible[scene, slot, None], generator, loose)
    joint = _joint(scenes, scene, slot)
    several = (scenes.present.sum(1) >= 2).nonzero()[:, 0].tolist()
    alone = (scenes.present.sum(1) == 1).nonzero()[:, 0][: len(scene) // 25]
    alone_slot = scenes.present[alone].argmax(1)

    captions, alphas, rows = [], [alpha, torch.ones_like(scenes.visible[alone, :1])], []
    for row in rng.sample(several, min(len(several), len(scene) // 7)):
        slots = scenes.present[row].nonzero()[:, 0].tolist()
        whole = len(slots) == 2 or rng.random() < 0.6
        chosen = slots if whole else rng.sample(slots, 2)
        region = scenes.visible[row, chosen].sum(0, keepdim=True).clamp(max=1)
        captions.append(say_scene(rng, [_name(scenes, row, s) for s in chosen]))
        alphas.append((torch.ones_like(region) if whole else region)[None])
        rows.append(row)
    source = torch.cat([scene, alone, torch.tensor(rows, dtype=torch.long)])
    return Examples(
        image=scenes.image[source],
        alpha=torch.cat(alphas),
        joint=torch.cat([joint, _joint(scenes, alone, alone_slot)]),
        scene_captions=captions,
        patch_shapes=_patch_shapes(scenes)[source],
    )


def _patch_shapes(scenes: Scenes, patch: int = 8) -> Tensor:
    """How much of each solid covers each patch of each scene."""
    return F.avg_pool2d(scenes.visible, patch).flatten(2).mT @ scenes.shape_weights


def _joint(scenes: Scenes, scene: Tensor, slot: Tensor) -> Tensor:
    shape, color = scenes.shape_weights[scene, slot], scenes.color_weights[scene, slot]
    return (shape[:, :, None] * color[:, None, :]).flatten(1)


def _name(scenes: Scenes, row: int, slot: int) -> tuple[str, str]:
    return (
        _SHAPES[int(scenes.shape_weights[row, slot].argmax())],
        _COLORS[int(scenes.color_weights[row, slot].argmax())],
    )


def _region(visible: Tensor, generator: torch.Generator, loose: float) -> Tensor:
    """Alphas as people give them: exact, wide, a box, a disc; graded inside, sometimes outside."""
    count, _, height, width = visible.shape
    dice = torch.rand(5, count, 1, 1, 1, generator=generator)
    wide = F.avg_pool2d(F.max_pool2d(visible, 5, 1, 2), 3, 1, 1, count_include_pad=False)
    inside = (visible > 0.15).float()
    down, right = inside.amax(3, keepdim=True), inside.amax(2, keepdim=True)
    box = _span(down, 2) * _span(right, 3)
    spot = torch.multinomial(visible.flatten(1) + 1e-6, 1, generator=generator)[:, 0]
    y, x = (spot // width).view(-1, 1, 1, 1), (spot % width).view(-1, 1, 1, 1)
    grid_y, grid_x = torch.arange(height).view(1, 1, -1, 1), torch.arange(width).view(1, 1, 1, -1)
    radius = (0.08 + 0.1 * dice[1]) * width
    disc = (radius - torch.hypot((grid_y - y).float(), (grid_x - x).float()) + 0.5).clamp(0, 1)
    kind = dice[0]
    alpha = torch.where(kind < loose, wide, visible)
    alpha = torch.where(kind < loose * 2 / 3, box, alpha)
    alpha = torch.where(kind < loose / 3, disc, alpha)
    strength = torch.where(dice[2] < 0.5, torch.ones(()), 0.5 + 0.5 * dice[3])
    floor = torch.where(dice[4] < 0.85, torch.zeros(()), (dice[4] - 0.85) * 2)
    return torch.maximum(alpha * strength, floor.expand_as(alpha)).clamp(0, 1)


def _span(line: Tensor, axis: int) -> Tensor:
    """1 from the first to the last nonzero entry along the axis."""
    after = line.cummax(axis).values
    before = line.flip(axis).cummax(axis).values.flip(axis)
    return after * before


def contrast(
    learner: Learner,
    tokenizer: PreTrainedTokenizerFast,
    examples: Examples,
    rng: random.Random,
) -> tuple[Tensor, float]:
    """Cross-entropy of regions against all captions, solids alone and colors alone; and of scenes.

    Returns the loss and the share of regions whose likeliest caption is right.
    """
    wordings = [say(rng, shape, color) for shape in _SHAPES for color in _COLORS]
    wordings += [say(rng, shape=shape) for shape in _SHAPES]
    wordings += [say(rng, color=color) for color in _COLORS]
    model = learner.model
    text = embed_texts(model, tokenizer, [*wordings, *examples.scene_captions])
    picture, tokens = embed_pictures(model, examples.image, examples.alpha)
    logits = model.logit_scale.exp() * picture @ text.T

    single, pairs = len(examples.joint), len(_SHAPES) * len(_COLORS)
    ends = pairs, pairs + len(_SHAPES), pairs + len(_SHAPES) + len(_COLORS)
    grid = examples.joint.view(single, len(_SHAPES), len(_COLORS))
    loss = F.cross_entropy(logits[:single, :pairs], examples.joint)
    loss = loss + F.cross_entropy(logits[:single, ends[0] : ends[1]], grid.sum(2))
    loss = loss + 0.3 * F.cross_entropy(logits[:single, ends[1] : ends[2]], grid.sum(1))
    loss = loss + name_shapes(learner, tokens, examples)
    if examples.scene_captions:
        candidates = torch.cat([logits[single:, ends[2] :], logits[single:, :pairs]], dim=1)
        share = (len(logits) - single) / len(logits)
        loss = loss + 2 * share * F.cross_entropy(candidates, torch.arange(len(candidates)))
    right = logits[:single, :pairs].argmax(1) == examples.joint.argmax(1)
    return loss, right.float().mean().item()


def perturb(
    learner: Learner,
    tokenizer: PreTrainedTokenizerFast,
    examples: Examples,
    rng: random.Random,
    radius: float,
    generator: torch.Generator,
) -> Tensor:
    """The pictures moved one gradient step toward a wrong reading, at most `radius` far."""
    count = len(examples.image)
    noise = torch.randn(examples.image.shape, generator=generator)
    start = examples.image + _unit(noise) * 0.3 * radius
    start.requires_grad_(True)
    moved = replace(examples, image=start)
    loss, _ = contrast(learner, tokenizer, moved, random.Random(rng.random()))
    (gradient,) = torch.autograd.grad(loss, start)
    reach = radius * torch.rand(count, 1, 1, 1, generator=generator)
    return (examples.image + _unit(gradient) * reach).clamp(0, 1).detach()


def _unit(tensor: Tensor) -> Tensor:
    return F.normalize(tensor.flatten(1), dim=1).view_as(tensor)


def embed_pictures(model: AlphaCLIPModel, image: Tensor, alpha: Tensor) -> tuple[Tensor, Tensor]:
    """Unit embeddings of pictures of the tower's size, and their normalized tokens; bfloat16."""
    with torch.autocast(image.device.type, torch.bfloat16):
        output = model.get_image_features(pixel_values(image, alpha))
        tokens = model.vision_model.post_layernorm(output.last_hidden_state)
    return F.normalize(output.pooler_output.float(), dim=-1), tokens.float()


def name_shapes(learner: Learner, tokens: Tensor, examples: Examples) -> Tensor:
    """Cross-entropy of a linear head that names solids, from the class token and from patches."""
    single = len(examples.joint)
    grid = examples.joint.view(single, len(_SHAPES), len(_COLORS))
    pooled = F.cross_entropy(learner.head(tokens[:single, 0]), grid.sum(2))
    patches = learner.head(tokens[:, 1:]).log_softmax(-1)
    covered = examples.patch_shapes
    return pooled - (covered * patches).sum() / covered.sum().clamp(min=1)


def embed_texts(
    model: AlphaCLIPModel, tokenizer: PreTrainedTokenizerFast, texts: list[str]
) -> Tensor:
    """Unit embeddings of captions."""
    tokens = tokenizer(texts, padding=True, truncation=True, return_tensors="pt")
    with torch.autocast(model.device.type, torch.bfloat16):
        output = model.get_text_features(tokens.input_ids, attention_mask=tokens.attention_mask)
    return F.normalize(output.pooler_output.float(), dim=-1)


@torch.no_grad()
def quick_accuracy(
    model: AlphaCLIPModel, tokenizer: PreTrainedTokenizerFast, seed: int
) -> dict[str, float]:
    """Top-1 among all captions on held-out plain scenes, with the alpha and with all-one alpha."""
    generator = torch.Generator().manual_seed(seed)
    bank = build_bank(generator, views=24, blends=0, rippled=0.0)
    scenes = render_scenes(bank, 128, generator, PLAIN)
    scene, slot = scenes.present.nonzero().T
    truth = _joint(scenes, scene, slot).argmax(1)
    text = embed_texts(model, tokenizer, all_captions())
    image, alpha = scenes.image[scene], scenes.visible[scene, slot, None]
    named = [
        (embed_pictures(model, image, a)[0] @ text.T).argmax(1)
        for a in (alpha, torch.ones_like(alpha))
    ]
    colors = len(_COLORS)
    return {
        "alpha": round((named[0] == truth).float().mean().item(), 4),
        "shape": round((named[0] // colors == truth // colors).float().mean().item(), 4),
        "color": round((named[0] % colors == truth % colors).float().mean().item(), 4),
        "ones": round((named[1] == truth).float().mean().item(), 4),
        "examples": len(truth),
    }


def save(model: AlphaCLIPModel, tokenizer: PreTrainedTokenizerFast, folder: Path) -> None:
    """Write model (fp16 safetensors) and tokenizer as a transformers folder."""
    half = AlphaCLIPModel(model.config).half()
    half.load_state_dict(model.state_dict())
    half.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def new_optimizers(learner: Learner, config: Config) -> tuple[torch.optim.Optimizer, ...]:
    """Muon for matrices between layers, AdamW for the rest; each group knows its peak rate.

    Muon: Jordan et al. 2024, kellerjordan.github.io/posts/muon; part of torch since 2.9.
    """
    named = list(learner.named_parameters())
    hidden = [p for name, p in named if p.ndim == 2 and ".layers." in name]
    chosen = {id(p) for p in hidden}
    rest = [p for _, p in named if id(p) not in chosen]
    groups = [
        {"params": [p for p in rest if p.ndim >= 2], "weight_decay": 0.05},
        {"params": [p for p in rest if p.ndim < 2], "weight_decay": 0.0},
    ]
    muon = torch.optim.Muon(
        hidden, lr=config.learning_rate, weight_decay=0.05, adjust_lr_fn="match_rms_adamw"
    )
    adam = torch.optim.AdamW(groups, lr=config.edge_rate, betas=(0.9, 0.98), fused=True)
    for group in (*muon.param_groups, *adam.param_groups):
        group["peak"] = group["lr"]
    return muon, adam


def _schedule(step: int, steps: int, warm_up: int = 60) -> float:
    """Share of the peak rate: a warm-up, then a cosine down to a fiftieth."""
    return min((step + 1) / warm_up, 0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * step / steps)))


@torch.no_grad()
def _follow(average: AlphaCLIPModel, model: AlphaCLIPModel, decay: float = 0.998) -> None:
    """Move the running average of the weights a little toward the model."""
    for mean, value in zip(average.parameters(), model.parameters(), strict=True):
        mean.lerp_(value, 1 - decay)


def _save_checkpoint(
    path: Path,
    step: int,
    learner: Learner,
    average: AlphaCLIPModel,
    optimizers: Sequence[torch.optim.Optimizer],
) -> None:
    state = {
        "step": step,
        "learner": learner.state_dict(),
        "average": average.state_dict(),
        "optimizers": [optimizer.state_dict() for optimizer in optimizers],
    }
    torch.save(state, path.with_suffix(".part"))
    os.replace(path.with_suffix(".part"), path)


def _resume(
    path: Path,
    learner: Learner,
    average: AlphaCLIPModel,
    optimizers: Sequence[torch.optim.Optimizer],
) -> int:
    state = torch.load(path, weights_only=True)
    learner.load_state_dict(state["learner"])
    average.load_state_dict(state["average"])
    for optimizer, part in zip(optimizers, state["optimizers"], strict=True):
        optimizer.load_state_dict(part)
    return state["step"]


def _cached_bank(config: Config) -> SpriteBank:
    """The training sprites, built once and kept beside the checkpoint."""
    path = config.output / f"bank-{config.seed}.safetensors"
    if not path.exists():
        bank = build_bank(torch.Generator().manual_seed(config.seed))
        save_file(vars(bank), path.with_suffix(".part"))
        os.replace(path.with_suffix(".part"), path)
    return SpriteBank(**load_file(path))


class _Log:
    def __init__(self, path: Path):
        self.path = path

    def write(self, **figures: object) -> None:
        line = json.dumps({"time": time.strftime("%H:%M:%S"), **figures})
        with self.path.open("a") as file:
            file.write(line + "\n")


if __name__ == "__main__":
    main(tyro.cli(Config))
