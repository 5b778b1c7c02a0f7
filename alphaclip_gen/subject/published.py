"""The class names of saved pipelines, and how diffusers is told where they are."""

from contextlib import AbstractContextManager
from types import SimpleNamespace

import diffusers

from .context_text import ContextCLIPTextModel
from .loading import names_in_diffusers
from .processor import AlphaBlipImageProcessor
from .qformer import AlphaBlip2QFormerModel

LIBRARY = "blip_diffusion"  # of a published model_index.json
PUBLISHED = SimpleNamespace(
    BlipImageProcessor=AlphaBlipImageProcessor,
    Blip2QFormerModel=AlphaBlip2QFormerModel,
    ContextCLIPTextModel=ContextCLIPTextModel,
)
OURS = SimpleNamespace(
    AlphaBlipImageProcessor=AlphaBlipImageProcessor,
    AlphaBlip2QFormerModel=AlphaBlip2QFormerModel,
    ContextCLIPTextModel=ContextCLIPTextModel,
)


def register_blip_diffusion() -> None:
    """Makes `["blip_diffusion", "Class"]` in a model_index.json find this package's classes.

    Only `DiffusionPipeline.from_pretrained(..., custom_pipeline=...)` needs it, and
    pipelines/blip_diffusion.py does it; AlphaBlipDiffusionPipeline.from_pretrained() does it for
    the time of the call.
    """
    setattr(diffusers.pipelines, LIBRARY, PUBLISHED)


def known_to_diffusers() -> AbstractContextManager[None]:
    """While inside, published folders and those saved by this package can be loaded."""
    return names_in_diffusers(**{LIBRARY: PUBLISHED, "alphaclip_gen": OURS})
