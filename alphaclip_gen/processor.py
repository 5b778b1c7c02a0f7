"""CLIP's image processor with a region: RGBA pictures become four channels, RGB ones three.

Color goes through transformers' own CLIPImageProcessor, so RGB pictures come out bit for bit as
without us. A fourth channel takes the same road, resized to the same size and cut at the same
place, and is stored as `alpha - 1` (see `vision`): zeros attend everywhere.
"""

from typing import Any, get_args, no_type_check

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torchvision.transforms.v2 import InterpolationMode
from torchvision.transforms.v2 import functional as tvf
from transformers import AutoImageProcessor, BatchFeature, CLIPImageProcessor
from transformers.image_utils import ChannelDimension
from transformers.processing_utils import ImagesKwargs

from .alpha import ROUNDING, check_values
from .framing import Geometry, preprocess, whole_geometry
from .vision import AlphaCLIPConfig, AlphaCLIPVisionConfig


class AlphaCLIPImagesKwargs(ImagesKwargs, total=False):
    """CLIP's settings and `geometry`."""

    geometry: str | None


class AlphaCLIPImageProcessor(CLIPImageProcessor):
    """pixel_values for an Alpha-CLIP tower: drop-in for CLIPImageProcessor in diffusers pipelines.

    A picture with transparency (RGBA, LA, a palette with a transparent color; array or tensor of
    four channels) gives (4, height, width): its color as it is under the transparency, not laid on
    white, and `alpha - 1`. Where pictures with and without alpha come together, those without
    attend everywhere. Pictures without alpha alone give three channels. A picture that is
    transparent all over attends nowhere.

    Args:
        geometry: "center" is CLIP's own resize and crop, exactly as in transformers. "pad",
            "squash" and "region" frame color and alpha by `preprocess` instead, unless do_resize is
            off; "region" cuts out each picture's region and pads pictures that have none.
        kwargs: settings of CLIPImageProcessor.

    >>> processor = AlphaCLIPImageProcessor(geometry="region")
    >>> pixel_values = processor(picture, return_tensors="pt").pixel_values
    """

    __module__ = __name__.rpartition(".")[0]  # saved pipelines record it: keep it short
    valid_kwargs = AlphaCLIPImagesKwargs
    geometry = "center"

    @no_type_check
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        _check_geometry(self.geometry)

    @classmethod
    def for_side(cls, side: int, **settings: Any) -> "AlphaCLIPImageProcessor":
        """The processor for a tower of input side `side`; settings such as geometry, image_mean."""
        size, crop = {"shortest_edge": side}, {"height": side, "width": side}
        return cls(size=size, crop_size=crop, **settings)

    @no_type_check
    def process_image(self, image, do_convert_rgb=None, input_data_format=None, **kwargs):
        """(channels, height, width) of one picture; four channels where it has transparency."""
        if isinstance(image, Image.Image) and image.has_transparency_data:
            image, input_data_format = np.array(image.convert("RGBA")), ChannelDimension.LAST
        if input_data_format is None:
            _check_channels(getattr(image, "shape", ()))
        return super().process_image(image, do_convert_rgb, input_data_format, **kwargs)

    @no_type_check
    def convert_to_rgb(self, image, input_data_format=None):
        """Gray repeated three times; a fourth channel stays what it is."""
        return tvf.grayscale_to_rgb(image[None] if image.ndim == 2 else image)

    @no_type_check
    def _preprocess(self, images, *, geometry=None, return_tensors=None, **settings):
        _check_geometry(geometry)
        if not images or any(image.numel() == 0 for image in images):
            raise ValueError("images holds no pixels; expected at least one picture, none empty.")
        for image in images:
            _check_values(image, settings)
        color = [image[:3] for image in images]
        alphas = [image[3:] if len(image) == 4 else None for image in images]
        has_alpha = any(alpha is not None for alpha in alphas)
        if geometry != "center" and settings["do_resize"]:
            color, alphas = _framed(color, alphas, geometry, settings)
            settings |= {"do_resize": False, "do_center_crop": False, "do_rescale": False}
        values = super()._preprocess(color, return_tensors=None, **settings).pixel_values
        if has_alpha:
            stored = self._stored_alpha(color, alphas, settings)
            values = [torch.cat(pair) for pair in zip(values, stored, strict=True)]
        return BatchFeature({"pixel_values": values}, tensor_type=return_tensors)

    def _stored_alpha(
        self, color: list[Tensor], alphas: list[Tensor | None], settings: dict
    ) -> list[Tensor]:
        """`alpha - 1` of each picture, through the same resize, crop and padding as its color."""
        scale = _scale(settings)
        channels = [
            torch.full_like(one[:1], round(1 / scale)) if alpha is None else alpha
            for one, alpha in zip(color, alphas, strict=True)
        ]
        settings = {**settings, "do_rescale": False, "do_normalize": False}
        settings["resample"] = InterpolationMode.BILINEAR
        resized = super()._preprocess(channels, return_tensors=None, **settings).pixel_values
        return [(one.float() * scale - 1).clamp(-1, 0) for one in resized]


class AlphaCLIPFrameProcessor(AlphaCLIPImageProcessor):
    """AlphaCLIPImageProcessor for pictures that the pipeline has resized, RGBA floats.

    Bicubic resizing overshoots [0, 1]; alpha is cut there, color stays as it is.
    """

    __module__ = __name__.rpartition(".")[0]

    @no_type_check
    def process_image(self, image, *args, **kwargs):
        """(channels, height, width) of one picture."""
        image = super().process_image(image, *args, **kwargs)
        if image.is_floating_point() and len(image) == 4:
            return torch.cat([image[:3], image[3:].clamp(0, 1)])
        return image


def _check_geometry(geometry: str) -> None:
    if geometry not in get_args(Geometry):
        raise ValueError(f"geometry is {geometry!r}; expected one of {get_args(Geometry)}.")


def _check_channels(shape: tuple[int, ...]) -> None:
    """Refuses arrays and tensors that are no picture."""
    if len(shape) == 3 and not {shape[0], shape[-1]} & {1, 3, 4}:
        raise ValueError(
            f"images holds shape {tuple(shape)}; expected 1 (gray), 3 (RGB) or 4 (RGBA) channels, "
            f"first or last."
        )


def _scale(settings: dict) -> float:
    return settings["rescale_factor"] if settings["do_rescale"] else 1.0


def _check_values(image: Tensor, settings: dict) -> None:
    """Refuses NaN, and an alpha channel that is not in [0, 1] once rescaled, or rescaled twice."""
    scale = _scale(settings)
    if image.dtype == torch.uint8 and 255 * scale <= 1 + ROUNDING:
        return  # nothing to look for
    if image.is_floating_point() and image.isnan().any():
        raise ValueError("images holds NaN; expected numbers. torch.nan_to_num() removes NaN.")
    if len(image) != 4:
        return
    if settings["do_rescale"] and image.is_floating_point() and 0 < image.max() <= 1:
        raise ValueError(
            "images holds floats in [0, 1] with an alpha channel, but do_rescale would divide them "
            "by 255 again. Pass do_rescale=False."
        )
    check_values(image[3:].float() * scale, "alpha (the fourth channel of images)")


def _framed(
    color: list[Tensor], alphas: list[Tensor | None], geometry: str, settings: dict
) -> tuple[list[Tensor], list[Tensor | None]]:
    """Color in [0, 1] and alpha of each picture, as `preprocess` frames them."""
    scale = _scale(settings)
    side = _side(settings["crop_size"])
    framed: list[tuple[Tensor, Tensor | None]] = []
    for image, alpha in zip(color, alphas, strict=True):
        whole = whole_geometry(geometry) if alpha is None else geometry
        given = None if alpha is None else (alpha[None].float() * scale).clamp(0, 1)
        pixels, region = preprocess(image[None].float() * scale, given, side, whole)
        framed.append((pixels[0], None if alpha is None else region[0]))
    return [pixels for pixels, _ in framed], [region for _, region in framed]


def _side(crop_size: Any) -> int:
    if crop_size.height != crop_size.width:
        raise ValueError(f"crop_size is {dict(crop_size)}; geometry needs a square.")
    return crop_size.height


for _config in (AlphaCLIPVisionConfig, AlphaCLIPConfig):
    AutoImageProcessor.register(
        _config, image_processor_classes={"torchvision": AlphaCLIPImageProcessor}, exist_ok=True
    )
