"""What of requirements.txt ComfyUI's Python lacks: a clone may be there without its packages."""

import re
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
    checked = [(line, unmet(line)) for line in lines if line and not line.startswith("#")]
    return [f"{line} ({reason})" for line, reason in checked if reason is not None]


def unmet(line: str) -> str | None:
    """Why a line such as "name>=1.2,<3" is not met; None where it is."""
    name, *bounds = re.split(r"(?=>=|<)|,", line)
    try:
        here = version(name.strip())
    except PackageNotFoundError:
        return "missing"
    for bound in filter(None, bounds):
        is_least = bound.startswith(">=")
        if (_numbers(here) >= _numbers(bound)) != is_least:
            return f"here: {here}"
    return None


def _numbers(text: str) -> list[int]:
    """The release of a version, or of a bound: [1, 2] of "1.2.dev0" and of ">=1.2"."""
    found = re.search(r"\d+(\.\d+)*", text)
    return [int(number) for number in found[0].split(".")] if found else []
