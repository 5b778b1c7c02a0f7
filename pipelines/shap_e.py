"""A 3D object from the region of a picture, by Shap-E.

Usage:
    pipe = DiffusionPipeline.from_pretrained(
        "openai/shap-e-img2img",
        custom_pipeline="pipelines/shap_e.py",
        trust_remote_code=True,
    )
    frames = pipe(image, alpha_mask=mask).images[0]

Its tower is focused without training. With Alpha-CLIP weights, pass to from_pretrained
`image_encoder=load_tower("clip_l14_grit20m_fultune_2xe", projection=False)`.
"""

from typing import Any

from diffusers import ShapEImg2ImgPipeline

try:
    from alphaclip_gen import as_rgba, focus
except ModuleNotFoundError as error:
    if error.name != "alphaclip_gen":
        raise
    message = "this pipeline needs alphaclip_gen: pip install 'alphaclip-gen[diffusion]'"
    raise ImportError(message) from None


class AlphaShapEPipeline(ShapEImg2ImgPipeline):
    """Shap-E's image to 3D that looks at a region."""

    def __call__(self, image: Any, alpha_mask: Any = None, **arguments: Any) -> Any:
        """The pipeline's own result.

        Args:
            image: one picture, RGBA if its transparency is the region (ShapEImg2ImgPipeline uses
                only the first picture of a list).
            alpha_mask: its mask (PIL, numpy, tensor, path), or a box (x0, y0, x1, y1).
            arguments: those of ShapEImg2ImgPipeline.
        """
        focus(self)
        return super().__call__(as_rgba(image, alpha_mask), **arguments)
