"""The state of a run as a file: a run killed at any moment goes on from it as if never stopped.

The file holds the field, the optimizer, the generator, the step and the settings; all else follows
from these. It is written whole or not at all, and read without running anything in it.
"""

import io
import pickle
import re
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Protocol, TypeVar, get_origin

import torch
from torch import Tensor

from alphaclip_gen.whole_files import write_bytes
from warm_start import Start

FILE = "checkpoint.pt"
EDITION = 2
"""Of the file's layout."""
REMEDY = "Remove it, or begin anew without --resume."


class HasStep(Protocol):
    """What a keeper needs to know of a run's progress."""

    @property
    def step(self) -> int: ...


P = TypeVar("P", bound=HasStep)


@dataclass(frozen=True)
class Checkpoint:
    """A run after `step` steps."""

    step: int
    start: Start
    settings: dict
    """All that decides what is made, as nested dicts of plain values."""
    losses: dict[str, float]
    """Of the last step, by name."""
    seconds: dict[str, float]
    """Spent so far, by part."""
    elapsed: float
    field: dict[str, Tensor]
    optimizer: dict
    generator: Tensor

    def restore(
        self,
        field: torch.nn.Module,
        optimizer: torch.optim.Optimizer,
        generator: torch.Generator,
    ) -> None:
        """Nothing; field and optimizer, of the right sizes, and generator get its state.

        Raises:
            ValueError: they have other parts or sizes than the file says.
        """
        try:
            field.load_state_dict(self.field)
            optimizer.load_state_dict(self.optimizer)
            generator.set_state(self.generator)
        except (RuntimeError, KeyError, TypeError, ValueError) as error:
            message = f"{FILE} does not fit its own settings: {_first_line(error)}. {REMEDY}"
            raise ValueError(message) from error


def pack(checkpoint: Checkpoint) -> bytes:
    """The checkpoint as a file's content."""
    content = {name: getattr(checkpoint, name) for name in Checkpoint.__dataclass_fields__}
    file = io.BytesIO()
    torch.save({"edition": EDITION, **content, "start": asdict(checkpoint.start)}, file)
    return file.getvalue()


def write(folder: Path, checkpoint: Checkpoint) -> None:
    """Nothing; the folder holds the checkpoint."""
    write_bytes(folder / FILE, pack(checkpoint))


def unpack(data: bytes, path: Path = Path(FILE)) -> Checkpoint:
    """The checkpoint of a file's content, on the CPU.

    Raises:
        ValueError: it is damaged, or of another edition of this program; names the path.
    """
    try:
        content = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
        edition = content.pop("edition")
        if edition != EDITION:
            raise ValueError(f"it is of edition {edition}; expected {EDITION}")
        found = Checkpoint(**{**content, "start": Start.from_dict(content["start"])})
        _check_kinds(found)
    except (
        *(RuntimeError, EOFError, pickle.UnpicklingError),
        *(AttributeError, KeyError, TypeError, ValueError),  # readable, but something else
    ) as error:
        raise ValueError(f"{str(path)!r} can't be read: {_first_line(error)}. {REMEDY}") from error
    return found


def _check_kinds(checkpoint: Checkpoint) -> None:
    for part in fields(checkpoint):
        value, kind = getattr(checkpoint, part.name), get_origin(part.type) or part.type
        assert isinstance(kind, type)
        if not isinstance(value, (int, float) if kind is float else kind):
            raise TypeError(f"its {part.name} is a {type(value).__name__}, no {kind.__name__}")


def read(folder: Path, settings: dict) -> bytes | None:
    """The content of the folder's checkpoint, or None where there is none.

    Raises:
        ValueError: it can't be read, is damaged, or belongs to other settings.
    """
    path = folder / FILE
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise ValueError(f"{str(path)!r} can't be read: {error.strerror}. {REMEDY}") from error
    different = differences(settings, unpack(data, path).settings)
    if different:
        raise ValueError(
            f"{str(path)!r} is of other settings: {'; '.join(different)}. Use those to "
            "go on with it, give another folder with --output, or begin anew without --resume."
        )
    return data


def sweep(folder: Path) -> None:
    """Nothing; removes what a killed run left half written in the folder (see `whole_files`)."""
    names = "checkpoint|step|mesh|points|turntable|depth|preview|timeline|result"
    for path in folder.glob(".*"):
        if re.fullmatch(rf"\.({names})[-\d]*\.\w+\.\d+", path.name):
            path.unlink()


def found_in(folder: Path) -> Checkpoint | None:
    """The folder's checkpoint, None without a good one."""
    try:
        return unpack((folder / FILE).read_bytes())
    except (OSError, ValueError):
        return None


def step_in(folder: Path) -> int | None:
    """The step of the folder's checkpoint, None without a good one."""
    found = found_in(folder)
    return None if found is None else found.step


def keeper(
    folder: Path,
    seconds: float,
    steps: int,
    take: Callable[[P], Checkpoint],
    kept: int | None = None,
    stopping: Callable[[], bool] = lambda: False,
) -> Callable[[P], None]:
    """A function of progress that writes a checkpoint at first, as often as is due, and at last.

    Args:
        folder: of the file.
        seconds: between checkpoints.
        steps: of the whole run.
        take: makes the checkpoint of a progress.
        kept: the step of the checkpoint that is there already.
        stopping: whether this step is the last because the run is to stop.
    """
    due = -float("inf")

    def keep(now: P) -> None:
        nonlocal due
        if now.step != kept and (now.step == steps or stopping() or time.monotonic() >= due):
            write(folder, take(now))
            due = time.monotonic() + seconds

    return keep


def differences(wanted: dict, found: dict) -> list[str]:
    """What differs between two nested dicts of settings: "adam.eps is 0.5 there, 0.1 here"."""
    missing = object()
    left, right = dict(_flat(wanted)), dict(_flat(found))
    return [
        f"{name} is {_say(right.get(name, missing), missing)} there, "
        f"{_say(left.get(name, missing), missing)} here"
        for name in {**left, **right}
        if left.get(name, missing) != right.get(name, missing)
    ]


def _flat(settings: dict, prefix: str = "") -> Iterator[tuple[str, object]]:
    for name, value in settings.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def _say(value: object, missing: object) -> str:
    return "not set" if value is missing else repr(value)


def _first_line(error: Exception) -> str:
    return (str(error) or type(error).__name__).splitlines()[0].rstrip(".")
