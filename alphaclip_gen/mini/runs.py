"""What every training of mini's parts keeps and follows: log, checkpoint, average, learning rate.

Steps draw from generators seeded by (seed, step), so a run that was stopped and resumed from its
checkpoint ends with the same weights as one that was not.
"""

import hashlib
import json
import math
import time
from dataclasses import fields
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import torch
from torch import nn

from ..precision import has_bfloat16
from ..whole_files import whole_file


@runtime_checkable
class Stateful(Protocol):
    """A module, an optimizer: anything with a state."""

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state_dict: dict[str, Any], /) -> Any: ...


def settings(config: Any) -> dict[str, str]:
    """What a training's dataclass says, for its log; folders as `_of_folder` says them."""
    named = ((field.name, getattr(config, field.name)) for field in fields(config))
    return {
        name: _of_folder(value) if isinstance(value, Path) else str(value) for name, value in named
    }


def _of_folder(folder: Path) -> str:
    """Its name, not where it lies; and a hash of the weights in it, which tells editions apart."""
    digest = hashlib.sha256()
    weights = sorted(folder.rglob("*.safetensors"))
    for path in weights:
        digest.update(path.read_bytes())
    return f"{folder.name} sha256:{digest.hexdigest()[:16]}" if weights else folder.name


def autocast(device: torch.device | str = "cpu") -> torch.autocast:
    """bfloat16 for products and convolutions, where that is faster than float32."""
    kind = torch.device(device).type
    return torch.autocast(kind, torch.bfloat16, enabled=has_bfloat16(device))


def write_log(path: Path, **figures: object) -> None:
    """Nothing; appends one line of JSON, with the time of day."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as file:
        file.write(json.dumps({"time": time.strftime("%H:%M:%S"), **figures}) + "\n")


def save_checkpoint(path: Path, step: int, **parts: Stateful) -> None:
    """Nothing; writes the step to go on with and the parts' states, all or nothing."""
    states = {name: part.state_dict() for name, part in parts.items()}
    with whole_file(path) as part:
        torch.save({"step": step, "states": states}, part)


def load_checkpoint(path: Path, **parts: Stateful) -> int:
    """The step to go on with, the parts' states restored; 0 if there is no checkpoint.

    Raises:
        ValueError: the checkpoint is of other parts.
    """
    if not path.is_file():
        return 0
    saved = torch.load(path, weights_only=True)
    if saved["states"].keys() != parts.keys():
        raise ValueError(
            f"{path.name} holds {', '.join(saved['states'])}; expected {', '.join(parts)}. It is "
            f"of another training: choose another output folder, or delete it."
        )
    for name, part in parts.items():
        part.load_state_dict(saved["states"][name])
    return saved["step"]


def step_generator(seed: int, step: int) -> torch.Generator:
    """The generator of one step of one training."""
    return torch.Generator().manual_seed(seed * 1_000_003 + step)


@torch.no_grad()
def follow(average: nn.Module, model: nn.Module, step: int, decay: float = 0.999) -> None:
    """Nothing; moves the running average toward the model, faster in the first steps."""
    share = 1 - min(decay, (1 + step) / (10 + step))
    for mean, value in zip(average.parameters(), model.parameters(), strict=True):
        mean.lerp_(value.to(mean.dtype), share)


def set_rate(optimizer: torch.optim.Optimizer, progress: float, step: int, warm_up: int) -> None:
    """Nothing; each group's rate is its first one times a warm-up, then a cosine down to 1 %."""
    cosine = 0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * progress))
    for group in optimizer.param_groups:
        peak = group.setdefault("peak", group["lr"])
        group["lr"] = peak * min((step + 1) / warm_up, cosine)


def size_in_mb(*modules: nn.Module) -> float:
    """Megabytes of the modules' parameters in half precision."""
    return round(sum(p.numel() for module in modules for p in module.parameters()) * 2e-6, 2)
