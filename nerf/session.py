"""How a run is watched and kept; nothing here changes what is made."""

import importlib.util
from dataclasses import dataclass
from typing import Annotated

import tyro

Unprefixed = tyro.conf.arg(prefix_name=False)
"""The flag is --resume, not --session.resume."""
EXTRAS = {"viewer": "viser", "tensorboard": "tensorboard"}
"""Setting -> the package that it needs, which the extra "live" installs."""


@dataclass(frozen=True)
class SessionSettings:
    """Checkpoints, previews, and windows on a run."""

    resume: Annotated[bool, Unprefixed] = False
    """Go on from the checkpoint in the output folder; begin where there is none."""
    render_only: Annotated[bool, Unprefixed] = False
    """Make the files of a finished run again, with other formats, sizes or frames; no steps."""
    checkpoint_seconds: Annotated[float, Unprefixed] = 30.0
    """Time between checkpoints; 0 for one after every step."""
    every: Annotated[int | None, Unprefixed] = None
    """Steps between previews; a seventh of the run if not given, 0 for no previews."""
    viewer: Annotated[bool, Unprefixed] = False
    """Show the object as it grows, in a browser on this machine; needs viser."""
    viewer_port: Annotated[int, Unprefixed] = 8080
    tensorboard: Annotated[bool, Unprefixed] = False
    """Write losses, score and pictures for TensorBoard into the output folder."""

    def interval(self, steps: int) -> int:
        """Steps between previews, 0 for none."""
        return -(-steps // 7) if self.every is None else self.every


def check_session(settings: SessionSettings) -> None:
    """Nothing; raises ValueError for a setting that can't be used, naming it and the remedy."""
    if settings.every is not None and settings.every < 0:
        raise ValueError(f"every is {settings.every}; expected 0 (no previews) or more steps.")
    if not settings.checkpoint_seconds >= 0:
        raise ValueError(
            f"checkpoint_seconds is {settings.checkpoint_seconds}; expected 0 (every step) or more."
        )
    if not 1 <= settings.viewer_port <= 65535:
        raise ValueError(f"viewer_port is {settings.viewer_port}; expected 1 to 65535.")
    for name, package in EXTRAS.items():
        if getattr(settings, name) and importlib.util.find_spec(package) is None:
            raise ValueError(
                f"{name} needs the package {package}, which is not installed. Install it with "
                f'pip install "alphaclip-gen[live]", or leave --{name} out.'
            )
