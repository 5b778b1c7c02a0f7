"""Files that appear whole or not at all: whoever is interrupted leaves what was there before."""

import json
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """A path to write to, in the same folder; when all went well it takes the place of `path`.

    The folder is made where it is missing. After an error nothing is left of what was written.

    >>> with whole_file(folder / "model.safetensors") as part:
    ...     save_file(state, part)
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        yield part
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)


def write_bytes(path: Path, data: bytes) -> None:
    """Nothing; the file is there."""
    with whole_file(path) as part:
        part.write_bytes(data)


def write_text(path: Path, text: str) -> None:
    """Nothing; the file is there, in UTF-8."""
    with whole_file(path) as part:
        part.write_text(text, encoding="utf-8")


def write_json(path: Path, content: Any) -> None:
    """Nothing; the file is there, in UTF-8, indented by one."""
    write_text(path, json.dumps(content, indent=1, ensure_ascii=False) + "\n")


def make_writable(folder: Path, argument: str = "output") -> None:
    """Nothing; makes the folder where it is missing and tries to write in it.

    Args:
        folder: where results are to be written after minutes of work.
        argument: what the user gave it as.

    Raises:
        ValueError: that is not possible.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise ValueError(
            f"{argument} {str(folder)!r} can't be written: {error.strerror or error}. "
            f"Give another folder with --{argument}."
        ) from error
