"""The making of the judge: its views, its training, and its held-out accuracy.

The normals and the coverage of all views are rendered once and kept; each step then draws some,
and gives them colors, light, a background and flaws of its own. Most meshes are roughened, so that
the judge tolerates what an optimisation returns without ever having seen it.
"""

import hashlib
import json
import logging
import math
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
import trimesh
from jaxtyping import Float, Int, UInt8
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn import functional

from ...whole_files import whole_file, write_json
from ..captions import COLORS, SHAPES
from ..solid_meshes import blotch, fit_unit_ball, roughen, solid_mesh
from ..splat import Light, lambert, render_mesh
from .model import SIZE, Judge, turntable

logger = logging.getLogger(__name__)

ANCHORS = torch.tensor(list(COLORS.values()))


@dataclass(frozen=True)
class JudgeTraining:
    """How the judge is made. One command; a second start goes on where the first one stopped."""

    work: Path = Path("runs/judge")
    """Folder of the rendered views, the checkpoint and the log."""
    output: Path = Path("runs/judge/judge")
    """Folder of the weights and of judge.json."""
    seed: int = 77
    meshes: int = 64
    """Meshes of each solid."""
    views: int = 12
    """Views of each mesh."""
    steps: int = 2400
    batch: int = 128
    learning_rate: float = 3e-3
    width: int = 32
    keep_every: int = 50
    """Steps between two checkpoints."""
    held_out: int = 12
    """Held-out meshes of each solid, one of each color if 12."""


def run(config: JudgeTraining) -> dict:
    """Trains, measures on held-out solids and saves the judge; returns what judge.json holds."""
    started = time.process_time()
    data = _views(config)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        judge = Judge(config.width)
    curve = _train(judge, data, config)
    path = judge.eval().save_pretrained(config.output)
    summary = {
        "settings": {
            name: value for name, value in asdict(config).items() if name not in ("work", "output")
        },
        "parameters": sum(value.numel() for value in judge.parameters()),
        "cpu_seconds_of_last_start": round(time.process_time() - started, 1),
        "held_out": held_out(Judge.from_pretrained(config.output), config),
        "curve": curve,
    }
    write_json(path.with_name("judge.json"), summary)
    return summary


def _train(judge: Judge, data: tuple[Tensor, Tensor], config: JudgeTraining) -> list[dict]:
    """Trains in place; returns the log. Every step draws from a generator of its own, so that a
    training that was interrupted ends like one that was not."""
    optimizer = torch.optim.AdamW(judge.parameters(), config.learning_rate, weight_decay=0.05)
    first, curve = _resume(judge, optimizer, config)
    judge.train()
    for step in range(first, config.steps):
        for group in optimizer.param_groups:
            group["lr"] = config.learning_rate * schedule(step / config.steps)
        generator = torch.Generator().manual_seed(config.seed * 100_003 + step)
        images, shapes, colors = draw(data, config.batch, generator)
        shape_logits, color_logits = judge(images.contiguous(memory_format=torch.channels_last))
        loss = functional.cross_entropy(shape_logits, shapes, label_smoothing=0.05)
        loss = loss + 0.5 * functional.cross_entropy(color_logits, colors, label_smoothing=0.05)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if (step + 1) % config.keep_every == 0 or step + 1 == config.steps:
            accuracies = {
                "shape": (shape_logits.argmax(1) == shapes).float().mean().item(),
                "color": (color_logits.argmax(1) == colors).float().mean().item(),
            }
            curve.append({"step": step + 1, "loss": round(loss.item(), 3), **accuracies})
            logger.info("%s", json.dumps(curve[-1]))
            _keep(judge, optimizer, curve, config)
    return curve


def _keep(
    judge: Judge, optimizer: torch.optim.Optimizer, curve: list[dict], config: JudgeTraining
) -> None:
    """Writes the checkpoint; an interrupted write leaves the one before."""
    state = {
        "key": _key(config),
        "curve": curve,
        "judge": judge.state_dict(),
        "optimizer": optimizer.state_dict(),
    }
    with whole_file(config.work / "checkpoint.pt") as part:
        torch.save(state, part)


def _resume(
    judge: Judge, optimizer: torch.optim.Optimizer, config: JudgeTraining
) -> tuple[int, list[dict]]:
    """The step to go on with, and the log so far: zero and none without a fitting checkpoint."""
    path = config.work / "checkpoint.pt"
    state = torch.load(path, weights_only=True) if path.is_file() else {}
    if state.get("key") != _key(config):
        return 0, []
    judge.load_state_dict(state["judge"])
    optimizer.load_state_dict(state["optimizer"])
    return state["curve"][-1]["step"], state["curve"]


def schedule(progress: float) -> float:
    """Learning rate factor: up over 5 % of the steps, then down along a cosine."""
    return min(progress / 0.05 + 0.02, 0.5 + 0.5 * math.cos(math.pi * progress))


def _key(config: JudgeTraining) -> str:
    """Changes with every setting, so that no other training's files are resumed."""
    settings = {name: str(value) for name, value in asdict(config).items()}
    kept = {name: settings[name] for name in settings if name not in ("output", "held_out")}
    return hashlib.sha256(json.dumps(kept).encode()).hexdigest()[:12]


def _views(config: JudgeTraining) -> tuple[Tensor, Tensor]:
    """Normals and coverage of rendered views, as bytes, solid by solid; from the cache if there."""
    folder = config.work / f"views-{config.seed}-{config.meshes}x{config.views}"
    folder.mkdir(parents=True, exist_ok=True)
    parts = []
    for index, shape in enumerate(SHAPES):
        path = folder / f"{shape}.safetensors"
        if not path.is_file():
            rng = np.random.default_rng([config.seed, index])
            renders = [_view(mesh, rng) for mesh in _meshes(shape, config, rng)]
            with whole_file(path) as part:
                save_file({"views": torch.cat(renders).contiguous()}, part)
            logger.info("rendered %d views of the %s", len(renders), shape)
        parts.append(load_file(path)["views"])
    labels = torch.arange(len(SHAPES)).repeat_interleave(torch.tensor([len(p) for p in parts]))
    return torch.cat(parts), labels


def _meshes(
    shape: str, config: JudgeTraining, rng: np.random.Generator
) -> Iterator[trimesh.Trimesh]:
    """Every mesh of a solid, as often as it is viewed: a third clean, the others lumpy."""
    for number in range(config.meshes):
        mesh = solid_mesh(shape, rng, jitter=0.25)
        if number % 3:
            softness, lumps = rng.uniform(0.4, 1.6), 0.25 * rng.uniform() ** 1.5
            mesh = fit_unit_ball(roughen(mesh, rng, 40, softness, lumps))
        yield from [mesh] * config.views


def _view(mesh: trimesh.Trimesh, rng: np.random.Generator) -> UInt8[Tensor, "1 4 height width"]:
    """Normals and coverage of one view, somewhat tilted and off center."""
    axis = [rng.normal(), 0, rng.normal()]
    tilted = mesh.copy()
    tilted.apply_transform(
        trimesh.transformations.rotation_matrix(np.radians(rng.uniform(-8, 8)), axis)
    )
    tilted.apply_translation(rng.uniform(-0.08, 0.08, 3))
    fov, fill = rng.uniform(22, 50), rng.uniform(0.6, 1.0)
    render = render_mesh(
        tilted,
        rng.uniform(0, 360),
        rng.uniform(-20, 70) if rng.uniform() < 0.6 else rng.uniform(5, 40),
        (SIZE, SIZE),
        distance=1 / np.sin(np.radians(fov * fill / 2)),
        fov=fov,
    )
    buffers = torch.cat([render.normals / 2 + 0.5, render.coverage], dim=1)
    return (buffers * 255).round().to(torch.uint8)


def draw(
    data: tuple[UInt8[Tensor, "views 4 height width"], Int[Tensor, " views"]],
    count: int,
    generator: torch.Generator,
) -> tuple[Tensor, Int[Tensor, " {count}"], Int[Tensor, " {count}"]]:
    """Random views, colored, lit and set before a background: images, shapes, colors."""
    views, labels = data
    chosen = torch.randint(len(views), (count,), generator=generator)
    colors = torch.randint(len(COLORS), (count,), generator=generator)
    buffers = views[chosen].float() / 255
    normals, coverage = buffers[:, :3] * 2 - 1, buffers[:, 3:]
    mirrored = torch.rand(count, generator=generator) < 0.5
    normals[mirrored] = normals[mirrored].flip(3) * torch.tensor([-1.0, 1, 1])[:, None, None]
    coverage[mirrored] = coverage[mirrored].flip(3)
    light = _uniform((count, 3), generator, -1.0, 1.0) * torch.tensor([0.9, 0.6, 0.4])
    brightness = lambert(
        normals,
        light + torch.tensor([0.0, 0.4, 0.9]),
        _uniform((count,), generator, 0.45, 0.85),
    )
    exposure = _uniform((count, 1, 1, 1), generator, 0.9, 1.1)
    surface = _paint(colors, generator) * brightness * exposure
    images = surface * coverage + _backgrounds(count, generator) * (1 - coverage)
    grain = _uniform((count, 1, 1, 1), generator, 0.0, 0.03)
    images = images + grain * torch.randn(images.shape, generator=generator)
    soft = torch.rand((count, 1, 1, 1), generator=generator) < 0.3
    images = torch.where(soft, functional.avg_pool2d(images, 3, 1, 1, False, False), images)
    return images.clamp(0, 1), labels[chosen], colors


def _paint(
    colors: Int[Tensor, " count"], generator: torch.Generator
) -> Float[Tensor, "count 3 64 64"]:
    """Surface colors around the named ones: shifted, washed out, blotchy, a third with patches."""
    count = len(colors)
    base = ANCHORS[colors] + 0.04 * torch.randn((count, 3), generator=generator)
    wash = _uniform((count, 1), generator, -0.1, 0.25)
    base = base + wash * (base.mean(dim=1, keepdim=True) - base)
    amount = _uniform((count, 1, 1, 1), generator, 0.0, 0.1)
    paint = base[:, :, None, None] + amount * _smooth(count, 3, 7, generator)
    other = ANCHORS[torch.randint(len(COLORS), (count,), generator=generator)][:, :, None, None]
    patch = torch.sigmoid(8 * (_smooth(count, 1, 5, generator) - 0.8))
    strength = _uniform((count, 1, 1, 1), generator, -1.5, 0.8).clamp_min(0)
    return (paint + strength * patch * (other - paint)).clamp(0, 1)


def _backgrounds(count: int, generator: torch.Generator) -> Float[Tensor, "count 3 64 64"]:
    """Half of them gray, the others colored; flat, graded or cloudy."""
    gray = _uniform((count, 1, 1, 1), generator, 0.15, 1.0).expand(-1, 3, -1, -1)
    color = torch.rand((count, 3, 1, 1), generator=generator)
    colored = torch.rand((count, 1, 1, 1), generator=generator) < 0.5
    flat = torch.where(colored, color, gray)
    amount = _uniform((count, 1, 1, 1), generator, -0.2, 0.2).clamp_min(0)
    clouds = _smooth(count, 3, 3, generator) + 0.5 * _smooth(count, 1, 9, generator)
    return (flat + amount * clouds).clamp(0, 1)


def _smooth(
    count: int, channels: int, cells: int, generator: torch.Generator
) -> Float[Tensor, "count channels 64 64"]:
    """Noise of about unit deviation that varies over 1 / cells of the picture."""
    noise = torch.randn((count, channels, cells, cells), generator=generator)
    return functional.interpolate(noise, (SIZE, SIZE), mode="bicubic", align_corners=False)


def _uniform(size: tuple[int, ...], generator: torch.Generator, low: float, high: float) -> Tensor:
    return low + (high - low) * torch.rand(size, generator=generator)


def held_out(judge: Judge, config: JudgeTraining) -> dict[str, dict]:
    """Accuracies on fresh meshes, from single views and from 8 views of one object.

    The colors vary on the surface itself, the light and the elevation differ from object to object,
    and the background is of a kind not trained on: a horizon between two tones. "clean" are the
    solids as built, "lumpy" their roughened versions.
    """
    return {
        kind: _accuracy(judge, [*_held_out_objects(config, kind == "lumpy")])
        for kind in ("clean", "lumpy")
    }


def _held_out_objects(
    config: JudgeTraining, lumpy: bool
) -> Iterator[tuple[int, int, Float[Tensor, "8 3 64 64"]]]:
    """Shape index, color index and pictures of each held-out object."""
    rng = np.random.default_rng([config.seed, 999, lumpy])
    for shape, solid in enumerate(SHAPES):
        for number in range(config.held_out):
            mesh = solid_mesh(solid, rng, jitter=0.2)
            if lumpy:
                mesh = roughen(mesh, rng, 48, rng.uniform(0.6, 1.4), rng.uniform(0.03, 0.16))
            color = number % len(COLORS)
            near = np.clip(np.add(list(COLORS.values())[color], rng.normal(0, 0.03, 3)), 0, 1)
            mesh = blotch(mesh, tuple(near), rng, rng.uniform(0, 0.08))
            light = Light((*rng.uniform(-0.6, 0.6, 2), 0.8), rng.uniform(0.5, 0.75))
            views = turntable(mesh, elevation=rng.uniform(10, 40), light=light)
            yield shape, color, views.over(_horizon(rng))


def _horizon(rng: np.random.Generator) -> Float[Tensor, "1 3 64 64"]:
    picture = torch.full((1, 3, SIZE, SIZE), rng.uniform(0.55, 0.95))
    picture[:, :, rng.integers(20, 60) :] = rng.uniform(0.4, 0.9)
    return picture


def _accuracy(judge: Judge, objects: list[tuple[int, int, Tensor]]) -> dict:
    hits: dict[str, list[float]] = {}
    for shape, color, images in objects:
        with torch.no_grad():
            right = [
                logits.argmax(dim=1) == label
                for logits, label in zip(judge(images), (shape, color), strict=True)
            ]
        verdict = judge.name(images)
        named = (verdict.shape == list(SHAPES)[shape], verdict.color == list(COLORS)[color])
        for key, value in {
            "one_view_shape": right[0].float().mean().item(),
            "one_view_color": right[1].float().mean().item(),
            "one_view": (right[0] & right[1]).float().mean().item(),
            "eight_views_shape": named[0],
            "eight_views_color": named[1],
            "eight_views": all(named),
        }.items():
            hits.setdefault(key, []).append(float(value))
    accuracies = {key: round(sum(values) / len(values), 4) for key, values in hits.items()}
    return {"objects": len(objects), **accuracies}
