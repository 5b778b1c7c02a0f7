"""Variations of the region of a picture, by Stable Diffusion Image Variations.

Usage:
    pipe = DiffusionPipeline.from_pretrained(
        "lambdalabs/sd-image-variations-diffusers",
        custom_pipeline="pipelines/image_variation.py",
        trust_remote_code=True,
    )
    picture = pipe(image, alpha_mask=mask).images[0]

Its tower is focused without training. With Alpha-CLIP weights, pass to from_pretrained
`image_encoder=load_tower("clip_l14_grit20m_fultune_2xe")`.
"""

from typing import Any

from diffusers import StableDiffusionImageVariationPipeline

try:
    from alphaclip_gen import as_rgba, focus
except ModuleNotFoundError as error:
    if error.name != "alphaclip_gen":
        raise
    message = "this pipeline needs alphaclip_gen: pip install 'alphaclip-gen[diffusion]'"
    raise ImportError(message) from None


class AlphaImageVariationPipeline(StableDiffusionImageVariationPipeline):
    """Stable Diffusion Image Variations that looks at a region."""

    def __call__(self, image: Any, alpha_mask: Any = None, **arguments: Any) -> Any:
        """The pipeline's own result.

        Args:
            image: a picture, RGBA if its transparency is the region, or a list of pictures.
            alpha_mask: its mask (PIL, numpy, tensor, path), or a box (x0, y0, x1, y1); one for each
                picture of a list.
            arguments: those of StableDiffusionImageVariationPipeline.
        """
        focus(self)
        return super().__call__(as_rgba(image, alpha_mask), **arguments)
