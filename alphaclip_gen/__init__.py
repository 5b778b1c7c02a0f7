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
    from .attention_focus import FocusedCLIPVisionConfig as FocusedCLIPVisionConfig
    from .attention_focus import FocusedCLIPVisionModel as FocusedCLIPVisionModel
    from .attention_focus import (
        FocusedCLIPVisionModelWithProjection as FocusedCLIPVisionModelWithProjection,
    )
    from .attention_focus import FocusedSiglipVisionConfig as FocusedSiglipVisionConfig
    from .attention_focus import FocusedSiglipVisionModel as FocusedSiglipVisionModel
    from .attention_focus import focus_attention as focus_attention
    from .baselines import blur_outside as blur_outside
    from .baselines import crop_to_region as crop_to_region
    from .baselines import gray_outside as gray_outside
    from .baselines import red_circle as red_circle
    from .checkpoints import load_model as load_model
    from .checkpoints import load_processor as load_processor
    from .checkpoints import load_tower as load_tower
    from .conditioning import as_rgba as as_rgba
    from .conditioning import focus as focus
    from .conditioning import unfocus as unfocus
    from .conversion import convert as convert
    from .encoder import RegionEncoder as RegionEncoder
    from .encoder import RegionFeatures as RegionFeatures
    from .exporting import export as export
    from .exporting import to_stock as to_stock
    from .framing import as_image as as_image
    from .framing import preprocess as preprocess
    from .guidance import Guidance as Guidance
    from .processor import AlphaCLIPFrameProcessor as AlphaCLIPFrameProcessor
    from .processor import AlphaCLIPImageProcessor as AlphaCLIPImageProcessor
    from .published import weights_folder as weights_folder
    from .regions import alpha_from_box as alpha_from_box
    from .regions import alpha_from_comfy_mask as alpha_from_comfy_mask
    from .regions import alpha_from_points as alpha_from_points
    from .regions import alpha_from_rgba as alpha_from_rgba
    from .regions import alpha_from_strokes as alpha_from_strokes
    from .regions import as_alpha_map as as_alpha_map
    from .subject import AlphaBlip2QFormerModel as AlphaBlip2QFormerModel
    from .subject import AlphaBlip2VisionModel as AlphaBlip2VisionModel
    from .subject import AlphaBlipDiffusionPipeline as AlphaBlipDiffusionPipeline
    from .subject import AlphaBlipImageProcessor as AlphaBlipImageProcessor
    from .subject import ContextCLIPTextModel as ContextCLIPTextModel
    from .subject import load_alpha_clip as load_alpha_clip
    from .subject import register_blip_diffusion as register_blip_diffusion
    from .vision import AlphaCLIPConfig as AlphaCLIPConfig
    from .vision import AlphaCLIPModel as AlphaCLIPModel
    from .vision import AlphaCLIPVisionConfig as AlphaCLIPVisionConfig
    from .vision import AlphaCLIPVisionModel as AlphaCLIPVisionModel
    from .vision import AlphaCLIPVisionModelWithProjection as AlphaCLIPVisionModelWithProjection
    from .vision import pixel_values as pixel_values

_HOME = {
    "alpha": (
        "check_alpha",
        "feather",
        "grow",
        "invert",
        "union",
        "with_strength",
    ),
    "attention_focus": (
        "FocusedCLIPVisionConfig",
        "FocusedCLIPVisionModel",
        "FocusedCLIPVisionModelWithProjection",
        "FocusedSiglipVisionConfig",
        "FocusedSiglipVisionModel",
        "focus_attention",
    ),
    "baselines": (
        "blur_outside",
        "crop_to_region",
        "gray_outside",
        "red_circle",
    ),
    "checkpoints": (
        "load_model",
        "load_processor",
        "load_tower",
    ),
    "conditioning": (
        "as_rgba",
        "focus",
        "unfocus",
    ),
    "conversion": ("convert",),
    "encoder": (
        "RegionEncoder",
        "RegionFeatures",
    ),
    "exporting": (
        "export",
        "to_stock",
    ),
    "framing": (
        "as_image",
        "preprocess",
    ),
    "guidance": ("Guidance",),
    "processor": (
        "AlphaCLIPFrameProcessor",
        "AlphaCLIPImageProcessor",
    ),
    "published": ("weights_folder",),
    "regions": (
        "alpha_from_box",
        "alpha_from_comfy_mask",
        "alpha_from_points",
        "alpha_from_rgba",
        "alpha_from_strokes",
        "as_alpha_map",
    ),
    "subject": (
        "AlphaBlip2QFormerModel",
        "AlphaBlip2VisionModel",
        "AlphaBlipDiffusionPipeline",
        "AlphaBlipImageProcessor",
        "ContextCLIPTextModel",
        "load_alpha_clip",
        "register_blip_diffusion",
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
_BASES = {
    "PreTrainedModel": "transformers",
    "ImageProcessingMixin": "transformers",
}
"""What diffusers looks for in a library whose classes a saved pipeline names."""

__all__ = sorted(name for names in _HOME.values() for name in names)


def __getattr__(name: str) -> object:
    for module, names in _HOME.items():
        if name in names:
            return getattr(import_module(f".{module}", __name__), name)
    if name in _BASES:
        return getattr(import_module(_BASES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
