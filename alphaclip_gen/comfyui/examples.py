"""Pictures that the pack brings, so that its workflows run without downloads."""

from pathlib import Path

from torch import Tensor

from .programs import CLONE

FOLDER = CLONE / "example_workflows"


def names(folder: Path = FOLDER) -> list[str]:
    """The pictures that are there."""
    return sorted(path.name for path in folder.glob("*.png"))


def example(name: str, folder: Path = FOLDER) -> Tensor:
    """One of them, (1, 3, height, width) in [0, 1]."""
    from ..framing import as_image

    if name not in names(folder):
        raise FileNotFoundError(
            f"picture {name!r} is not in example_workflows; expected one of "
            f"{', '.join(names(folder)) or 'the pictures of a whole clone'}."
        )
    return as_image(folder / name)
