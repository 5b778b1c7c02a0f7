"""Folders of results: their names, and what lies in them."""

import importlib.metadata
import json
import platform
from pathlib import Path

RESULT = "result.json"
PACKAGES = (
    *("alphaclip-gen", "torch", "transformers", "numpy"),
    *("scikit-image", "trimesh", "fast-simplification", "xatlas"),
)


def read_prompts(path: Path) -> list[str]:
    """The prompts of a file, one a line; blank lines and repeated ones are left out.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is not text, or holds no prompt.
    """
    if not path.is_file():
        raise FileNotFoundError(f"prompts {str(path)!r} not found; expected one prompt a line.")
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise ValueError(f"prompts {str(path)!r} is not UTF-8 text: {error}.") from error
    prompts = list(dict.fromkeys(line.strip() for line in lines if line.strip()))
    if not prompts:
        raise ValueError(f"prompts {str(path)!r} is empty; expected one prompt a line.")
    return prompts


def read_result(folder: Path) -> dict | None:
    """The result of a folder, or None where there is none that can be read."""
    try:
        content = json.loads((folder / RESULT).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return content if isinstance(content, dict) else None


def versions() -> dict[str, str]:
    """Python and the packages that a result depends on."""
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = "not installed"
    return found
