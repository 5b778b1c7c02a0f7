"""The picture side of BLIP-Diffusion's settings: from a reference to what its tower sees."""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from transformers import ImageProcessingMixin
from transformers.processing_utils import ImagesKwargs

from ..framing import CUT_OUT, check_geometry, preprocess
from ..pictures import Picture
from ..vision import IMAGE_MEAN, IMAGE_STD
from .references import as_reference


class AlphaBlipImageProcessor(ImageProcessingMixin):
    """Turns a picture and its region into four-channel pixel values.

    It reads the settings of a published BlipImageProcessor, and keeps those that it has no use for
    when it is saved. Pictures are resized in floating point, not rounded to 8 bits on the way.
    """

    __module__ = "alphaclip_gen"
    model_input_names = ("pixel_values",)
    valid_kwargs = ImagesKwargs

    def __init__(
        self,
        size: dict[str, int] | int | None = None,
        image_mean: list[float] | None = None,
        image_std: list[float] | None = None,
        geometry: str = "squash",
        **others: Any,
    ):
        super().__init__(**others)
        size = {"height": 224, "width": 224} if size is None else size
        self.size = {"height": size, "width": size} if isinstance(size, int) else dict(size)
        if self.size.get("height") != self.size.get("width") or "height" not in self.size:
            raise ValueError(f"size is {size}; expected the same height and width.")
        self.image_mean = list(IMAGE_MEAN if image_mean is None else image_mean)
        self.image_std = list(IMAGE_STD if image_std is None else image_std)
        self.geometry = check_geometry(geometry)

    def __call__(
        self,
        picture: Picture,
        alpha_mask: Any = None,
        *,
        image_mean: list[float] | None = None,
        image_std: list[float] | None = None,
        geometry: str | None = None,
    ) -> Float[Tensor, "1 4 size size"]:
        """Normalized color and `alpha - 1` of one reference.

        Args:
            picture: anything of as_image(); transparency is the region when there is no mask.
            alpha_mask: mask of the picture's size, or box; None for no region.
            image_mean, image_std: in place of the processor's own.
            geometry: how the picture becomes a square, see preprocess(); if None the processor's
                own, which is "squash" where nothing else was saved.
        """
        image, alpha = self.frame(*as_reference(picture, alpha_mask), geometry)
        mean = image.new_tensor(image_mean or self.image_mean).view(3, 1, 1)
        std = image.new_tensor(image_std or self.image_std).view(3, 1, 1)
        return torch.cat([(image - mean) / std, alpha - 1], dim=1)

    def frame(
        self,
        image: Float[Tensor, "batch 3 height width"],
        alpha: Float[Tensor, "batch 1 height width"] | None,
        geometry: str | None = None,
    ) -> tuple[Float[Tensor, "batch 3 size size"], Float[Tensor, "batch 1 size size"]]:
        """Squares of the processor's size; to cut out no region is to cut out the whole picture."""
        geometry = self.geometry if geometry is None else geometry
        if alpha is None and geometry in CUT_OUT:
            alpha = torch.ones_like(image[:, :1])
        return preprocess(image, alpha, self.size["height"], geometry)
