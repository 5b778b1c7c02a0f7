"""A run as it is watched: progress bar, pictures on disk, TensorBoard.

Each is a function of `Progress`, called after every step; none changes the run.
"""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from tqdm import tqdm

from alphaclip_gen.pictures import open_picture
from alphaclip_gen.whole_files import write_bytes
from formats import png
from loop import Progress
from turntable import snapshot, timeline

Watch = Callable[[Progress], None]
PREVIEWS = "previews"
TIMELINE = "timeline.png"


@contextmanager
def progress_bar(prompt: str, steps: int, first: int = 0, hidden: bool = False) -> Iterator[Watch]:
    """Steps, time to go, score and losses, on one line of the terminal."""
    with tqdm(total=steps, initial=first, desc=prompt[:40], unit="step", disable=hidden) as bar:

        def watch(now: Progress) -> None:
            if now.losses:
                bar.set_postfix(figures(now), refresh=False)
            bar.update(now.step - bar.n)

        yield watch


def figures(now: Progress) -> dict[str, str]:
    """Score and losses of a step, to be read by people; losses that are nothing are left out."""
    losses = {name: f"{loss:.3f}" for name, loss in now.losses.items()}
    shown = {name: text for name, text in losses.items() if float(text) != 0}
    return {"score": f"{now.score:.3f}", **shown}


def previews(folder: Path, every: int, steps: int) -> Watch:
    """Writes a picture of the object every so many steps, and after the last of `steps`."""

    def watch(now: Progress) -> None:
        if now.step % every == 0 or now.step == steps:
            path = folder / PREVIEWS / f"step-{now.step:06d}.png"
            write_bytes(path, png(snapshot(now.volume())))

    return watch


def forget_previews(folder: Path) -> None:
    """Nothing; removes the previews of an earlier run."""
    for path in _previews(folder).values():
        path.unlink()


def write_timeline(folder: Path, most: int = 24) -> str | None:
    """The name of a contact sheet of the previews over time, evenly picked; None without any."""
    paths = _previews(folder)
    if not paths:
        return None
    steps = sorted(paths)
    count = min(most, len(steps))
    picked = [steps[round(i * (len(steps) - 1) / max(count - 1, 1))] for i in range(count)]
    write_bytes(folder / TIMELINE, timeline({step: open_picture(paths[step]) for step in picked}))
    return TIMELINE


@contextmanager
def tensorboard(folder: Path, first: int, every: int) -> Iterator[Watch]:
    """Writes scalars of every step, and a picture every so many, into folder/tensorboard."""
    from torch.utils.tensorboard import SummaryWriter

    with SummaryWriter(folder / "tensorboard", purge_step=first + 1) as board:

        def watch(now: Progress) -> None:
            scalars = {f"losses/{name}": loss for name, loss in now.losses.items()}
            for name, value in {"score": now.score, "loss": now.loss, **scalars}.items():
                if not math.isnan(value):
                    board.add_scalar(name, value, now.step)
            if every and now.step % every == 0:
                picture = np.asarray(snapshot(now.volume()))
                board.add_image("object", picture, now.step, dataformats="HWC")

        yield watch


def _previews(folder: Path) -> dict[int, Path]:
    found = (folder / PREVIEWS).glob("step-*.png")
    return {int(path.stem.removeprefix("step-")): path for path in found}
