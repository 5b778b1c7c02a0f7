"""BLIP-Diffusion with regions, as a diffusers custom pipeline.

Usage: DiffusionPipeline.from_pretrained(
    "folder", custom_pipeline="pipelines/blip_diffusion.py", trust_remote_code=True
)

For a published model by its Hub id, call alphaclip_gen.register_blip_diffusion() before: diffusers
looks up the classes that its model_index.json names before it reads this file.
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
