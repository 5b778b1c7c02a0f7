"""Where each family of pipelines keeps its tower and processor, and what else RGBA needs there."""

from collections.abc import Iterator
from types import MethodType
from typing import Any, NamedTuple

import numpy as np
from PIL import Image
from torch import Tensor


class Place(NamedTuple):
    """An attribute of a pipeline, or of a part of it."""

    owner: Any
    name: str

    @property
    def value(self) -> Any:
        return getattr(self.owner, self.name)

    def put(self, value: Any) -> None:
        if self.name in getattr(self.owner, "components", {}):
            self.owner.register_modules(**{self.name: value})  # saving records the new class
        else:
            setattr(self.owner, self.name, value)


def tower_place(pipe: Any) -> Place:
    """Where the vision tower is."""
    if is_llava(pipe):
        return Place(pipe.model, "vision_tower")
    if "image_encoder" not in getattr(pipe, "components", {}):
        raise TypeError(
            f"pipe is a {type(pipe).__name__}; expected a diffusers pipeline with an image_encoder "
            f"or transformers' LLaVA."
        )
    encoder = pipe.image_encoder
    if encoder is None:
        raise ValueError(
            "pipe has no image encoder yet; pipe.load_ip_adapter(...) loads one, or pass "
            "image_encoder= when loading the pipeline."
        )
    if wraps_its_tower(encoder):
        return Place(encoder, "model")
    return Place(pipe, "image_encoder")


def processor_place(pipe: Any, processor: Any = None) -> Place:
    """Where the image processor is; LLaVA's is in its LlavaProcessor, which is not in the model."""
    if not is_llava(pipe):
        has = "feature_extractor" in pipe.components
        return Place(pipe, "feature_extractor" if has else "image_processor")
    if processor is None:
        raise ValueError(
            "processor is missing; expected the LlavaProcessor in use, whose image processor must "
            "take RGBA too: focus(model, tower, processor=processor)."
        )
    if not hasattr(processor, "image_processor"):
        raise TypeError(
            f"processor is a {type(processor).__name__}; expected the LlavaProcessor in use."
        )
    return Place(processor, "image_processor")


def is_llava(pipe: Any) -> bool:
    """Whether it is transformers' LLaVA."""
    return hasattr(getattr(pipe, "model", None), "vision_tower")


def wraps_its_tower(encoder: Any) -> bool:
    """Whether the image encoder is Paint by Example's, which has the tower inside."""
    return hasattr(encoder, "uncond_vector") and hasattr(encoder, "model")


def resizes_itself(pipe: Any) -> bool:
    """Whether the pipeline resizes pictures for the tower itself: Stable Video Diffusion does."""
    return hasattr(pipe, "video_processor") and "feature_extractor" in pipe.components


def further_changes(pipe: Any, slot: Place) -> Iterator[tuple[Place, Any]]:
    """What else RGBA needs, once tower and processor (at `slot`) are in place."""
    video = Place(pipe, "video_processor")
    if hasattr(*video) and not isinstance(video.value, ColorProcessor):
        yield video, ColorProcessor(video.value)
    if is_llava(pipe):
        yield Place(pipe.config, "vision_config"), pipe.model.vision_tower.config
        count = MethodType(_count_color_tokens, slot.owner)
        yield Place(slot.owner, "replace_image_token"), count


class ColorProcessor:
    """A video processor whose first frame is the picture's color, as it is under transparency.

    The same RGBA picture goes to the vision tower, with alpha, and to the VAE, which takes color.
    """

    def __init__(self, processor: Any):
        self.processor = processor

    def preprocess(self, image: Any, *args: Any, **kwargs: Any) -> Tensor:
        """The processor's result for the color of the picture or pictures."""
        return self.processor.preprocess(_color(image), *args, **kwargs)

    def __getattr__(self, name: str) -> Any:
        if name == "processor":  # not yet set, while being copied
            raise AttributeError(name)
        return getattr(self.processor, name)


def _color(image: Any) -> Any:
    if isinstance(image, list | tuple):
        return [_color(one) for one in image]
    if isinstance(image, Image.Image):
        return image.convert("RGB")
    if isinstance(image, np.ndarray) and image.ndim > 2:
        return image[..., :3]
    if isinstance(image, Tensor) and image.ndim > 2 and image.shape[-3] == 4:
        return image[..., :3, :, :]
    return image


def _count_color_tokens(processor: Any, image_inputs: Any, image_idx: int, **kwargs: Any) -> str:
    """LlavaProcessor.replace_image_token, which cannot tell the size of four channels."""
    color = [values[:3] for values in image_inputs["pixel_values"]]
    inputs = {**image_inputs, "pixel_values": color}
    return type(processor).replace_image_token(processor, inputs, image_idx, **kwargs)
