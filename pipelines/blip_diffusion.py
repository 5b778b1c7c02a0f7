"""BLIP-Diffusion with regions, as a diffusers custom pipeline.

Usage: DiffusionPipeline.from_pretrained(
    "folder", custom_pipeline="pipelines/blip_diffusion.py", trust_remote_code=True
)
"""

try:
    from alphaclip_gen import AlphaBlipDiffusionPipeline as AlphaBlipDiffusionPipeline
    from alphaclip_gen import register_blip_diffusion
except ModuleNotFoundError as error:
    if error.name != "alphaclip_gen":
        raise
    message = "this pipeline needs alphaclip_gen: pip install 'alphaclip-gen[diffusion]'"
    raise ImportError(message) from None

register_blip_diffusion()
