"""Stable Diffusion with IP-Adapter, whose references are regions of pictures.

Usage:
    pipe = DiffusionPipeline.from_pretrained(
        "stable-diffusion-v1-5/stable-diffusion-v1-5",
        custom_pipeline="pipelines/ip_adapter.py",
        trust_remote_code=True,
    )
    pipe.load_ip_adapter("h94/IP-Adapter", subfolder="models", weight_name="ip-adapter_sd15.bin")
    picture = pipe("in the snow", image=reference, alpha_mask=mask).images[0]

IP-Adapter's ViT-H has no Alpha-CLIP weights: its tower is focused without training. Where the
result shall appear is said by diffusers' own `cross_attention_kwargs={"ip_adapter_masks": ...}`.
"""

from typing import Any

from diffusers import StableDiffusionPipeline

try:
    from alphaclip_gen import as_rgba, focus
except ModuleNotFoundError as error:
    if error.name != "alphaclip_gen":
        raise
    message = "this pipeline needs alphaclip_gen: pip install 'alphaclip-gen[diffusion]'"
    raise ImportError(message) from None


class AlphaIPAdapterPipeline(StableDiffusionPipeline):
    """Stable Diffusion with IP-Adapter that looks at a region of each reference."""

    def __call__(
        self, prompt: Any = None, image: Any = None, alpha_mask: Any = None, **arguments: Any
    ) -> Any:
        """The pipeline's own result.

        Args:
            prompt: as in StableDiffusionPipeline.
            image: the reference, RGBA if its transparency is the region; a list of references of
                one adapter; a list of lists, one for each adapter. None generates from the prompt,
                or from `ip_adapter_image_embeds`.
            alpha_mask: its mask (PIL, numpy, tensor, path), or a box (x0, y0, x1, y1); nested like
                `image`.
            arguments: those of StableDiffusionPipeline.
        """
        if alpha_mask is not None and image is None:
            raise ValueError("alpha_mask is given without image; expected both, or image alone.")
        if arguments.get("ip_adapter_image") is not None:
            raise ValueError("ip_adapter_image is called image here, and takes its alpha_mask.")
        if image is not None:
            focus(self)
            references = as_rgba(image, alpha_mask)
            is_flat = isinstance(references, list) and not isinstance(references[0], list)
            arguments["ip_adapter_image"] = [references] if is_flat else references
        return super().__call__(prompt, **arguments)
