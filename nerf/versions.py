"""The versions that a result depends on."""

import importlib.metadata
import platform

PACKAGES = (
    *("alphaclip-gen", "torch", "transformers", "numpy"),
    *("scikit-image", "trimesh", "fast-simplification", "xatlas"),
)


def versions() -> dict[str, str]:
    """Of Python and of the packages that a result depends on."""
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = "not installed"
    return found
