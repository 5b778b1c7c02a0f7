"""BLIP-Diffusion with regions: generation about the subject that a region points at."""

from .context_text import ContextCLIPTextModel as ContextCLIPTextModel
from .pipeline import AlphaBlipDiffusionPipeline as AlphaBlipDiffusionPipeline
from .processor import AlphaBlipImageProcessor as AlphaBlipImageProcessor
from .published import register_blip_diffusion as register_blip_diffusion
from .qformer import AlphaBlip2QFormerModel as AlphaBlip2QFormerModel
from .vision import AlphaBlip2VisionModel as AlphaBlip2VisionModel
from .vision import load_alpha_clip as load_alpha_clip
