"""Region focus for generative models: Alpha-CLIP in diffusers pipelines, text-to-3D and ComfyUI.

Names are loaded when they are first used, so `import alphaclip_gen` takes no time.
"""

from importlib import import_module
from typing import TYPE_CHECKING

__version__ = "0.1.0"

if TYPE_CHECKING:
    from .alpha import check_alpha as check_alpha
    from .alpha import feather as feather
    from .alpha import grow as grow
    from .alpha import invert as invert
    from .alpha import union as union
    from .alpha import with_strength as with_strength
    from .encoder import RegionEncoder as RegionEncoder
    from .encoder import RegionFeatures as RegionFeatures
    from .guidance import Guidance as Guidance
    from .preprocess import as_image as as_image
    from .preprocess import preprocess as preprocess
    from .regions import alpha_from_box as alpha_from_box
    from .regions import alpha_from_comfy_mask as alpha_from_comfy_mask
    from .regions import alpha_from_points as alpha_from_points
    from .regions import alpha_from_rgba as alpha_from_rgba
    from .regions import alpha_from_strokes as alpha_from_strokes
    from .regions import as_alpha_map as as_alpha_map
    from .vision import AlphaCLIPConfig as AlphaCLIPConfig
    from .vision import AlphaCLIPModel as AlphaCLIPModel
    from .vision import AlphaCLIPVisionConfig as AlphaCLIPVisionConfig
    from .vision import AlphaCLIPVisionModel as AlphaCLIPVisionModel
    from .vision import AlphaCLIPVisionModelWithProjection as AlphaCLIPVisionModelWithProjection
    from .vision import pixel_values as pixel_values

_HOME = {
    "alpha": ("check_alpha", "feather", "grow", "invert", "union", "with_strength"),
    "encoder": ("RegionEncoder", "RegionFeatures"),
    "guidance": ("Guidance",),
    "preprocess": ("as_image", "preprocess"),
    "regions": (
        "alpha_from_box",
        "alpha_from_comfy_mask",
        "alpha_from_points",
        "alpha_from_rgba",
        "alpha_from_strokes",
        "as_alpha_map",
    ),
    "vision": (
        "AlphaCLIPConfig",
        "AlphaCLIPModel",
        "AlphaCLIPVisionConfig",
        "AlphaCLIPVisionModel",
        "AlphaCLIPVisionModelWithProjection",
        "pixel_values",
    ),
}
__all__ = sorted(name for names in _HOME.values() for name in names)


def __getattr__(name: str) -> object:
    for module, names in _HOME.items():
        if name in names:
            return getattr(import_module(f".{module}", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
