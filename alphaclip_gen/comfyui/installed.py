"""What of requirements.txt ComfyUI's Python lacks: a clone may be there without its packages."""

import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from .programs import CLONE

REQUIREMENTS = CLONE / "requirements.txt"


def advice(requirements: Path = REQUIREMENTS) -> str | None:
    """What is missing and the command that installs it; None where nothing is."""
    lacking = missing(requirements)
    if not lacking:
        return None
    return (
        f"alphaclip-gen needs packages that ComfyUI's Python does not have, and some of its nodes "
        f"will fail: {', '.join(lacking)}. Install them: {sys.executable} -m pip install -r "
        f'"{requirements}"'
    )


def missing(requirements: Path) -> list[str]:
    """The lines of the file that are not met, with what is there instead."""
    if not requirements.is_file():  # installed from a wheel: pip has seen to it
        return []
    lines = [line.strip() for line in requirements.read_text(encoding="utf-8").splitlines()]
    checked = [(line, _unmet(line)) for line in lines if line and not line.startswith("#")]
    return [f"{line} ({reason})" for line, reason in checked if reason is not None]


def _unmet(line: str) -> str | None:
    try:
        from packaging.requirements import Requirement
    except ImportError:  # transformers and ComfyUI bring it
        return "not looked for, since packaging is missing"
    wanted = Requirement(line)
    try:
        here = version(wanted.name)
    except PackageNotFoundError:
        return "missing"
    return None if wanted.specifier.contains(here, prereleases=True) else f"here: {here}"
