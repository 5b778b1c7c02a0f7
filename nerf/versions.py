"""The versions that a result depends on."""

import functools
import hashlib
import importlib.metadata
import platform
from pathlib import Path

import alphaclip_gen

PACKAGES = (
    *("alphaclip-gen", "torch", "transformers", "numpy"),
    *("scikit-image", "trimesh", "fast-simplification", "xatlas"),
)


def versions() -> dict[str, str]:
    """Of Python and of the packages that a result depends on; and what tells this code from other
    code of the same version."""
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = "not installed"
    return {**found, "code": code()}


@functools.cache
def code() -> str:
    """The start of the SHA-256 of this program's and the package's source files."""
    found = hashlib.sha256()
    for folder in (Path(__file__).parent, Path(alphaclip_gen.__file__).parent):
        for path in sorted(folder.rglob("*.py")):
            found.update(path.relative_to(folder).as_posix().encode() + path.read_bytes())
    return found.hexdigest()[:16]
