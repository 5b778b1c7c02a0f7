"""Small runs of text to 3D, and what a resumed one must have in common with a whole one."""

import dataclasses
import runpy
from pathlib import Path

import optimize
from session import SessionSettings

ROOT = Path(__file__).resolve().parents[1]
STAND_IN = runpy.run_path(str(ROOT / "tests" / "stand_in_tower.py"))
Moments, SMALL, FLAGS = STAND_IN["Moments"], STAND_IN["SMALL"], STAND_IN["FLAGS"]
EVERY_STEP = SessionSettings(checkpoint_seconds=0, every=1)
RESUMED = SessionSettings(checkpoint_seconds=0, every=1, resume=True)


def made(folder: Path, config=SMALL, **tower) -> dict:
    folder.mkdir(exist_ok=True)
    return optimize.run(config, (Moments(**tower),), folder, quiet=True)


def replaced(config, **parts: dict):
    """The settings with some of their parts' changed."""
    changed = {name: dataclasses.replace(getattr(config, name), **p) for name, p in parts.items()}
    return dataclasses.replace(config, **changed)


def lasting(result: dict) -> dict:
    """What must not depend on how a result came about."""
    passing = {"resumed_from", "settings", "threads"}
    return {k: v for k, v in result.items() if k not in passing and "second" not in k}
