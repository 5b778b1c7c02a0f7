"""Region focus in CLIP-conditioned pipelines: `focus(pipe, tower)`, then RGBA pictures just work.

Works on diffusers pipelines with an image encoder and on transformers' LLaVA. Image encoder and
processor are replaced together (one alone would lose alpha silently), and what a family needs
besides is done and undone with them. See docs/pipelines.md, which the tests write.
"""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import MethodType, TracebackType
from typing import Any, NamedTuple, no_type_check

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torchvision.transforms.functional import to_pil_image
from transformers import PreTrainedModel

from .attention_focus import FOCUSED, focus_attention
from .baselines import Baseline, BaselineImageProcessor
from .pictures import picture_channels
from .processor import AlphaCLIPImageProcessor
from .regions import alpha_from_box, as_alpha_map
from .vision import AlphaCLIPVisionModel, AlphaCLIPVisionModelWithProjection

TAKE_ALPHA = (AlphaCLIPVisionModel, AlphaCLIPVisionModelWithProjection, *FOCUSED.values())

Tower = PreTrainedModel | Baseline | str | os.PathLike


# Doors


def as_rgba(image: Any, alpha_mask: Any = None) -> Any:
    """The picture with its region as transparency: what a focused pipeline takes.

    Args:
        image: a picture (PIL, numpy, tensor, path), or lists of them, nested as a pipeline wants.
        alpha_mask: its mask of the same size (PIL, numpy, tensor, path), or a box (x0, y0, x1, y1)
            in pixels or fractions; None keeps the picture as it is. One for each picture of a list.
    """
    if isinstance(image, list | tuple):
        masks = [None] * len(image) if alpha_mask is None else alpha_mask
        if not isinstance(masks, list | tuple) or len(masks) != len(image):
            got = len(masks) if isinstance(masks, list | tuple) else type(masks).__name__
            raise ValueError(
                f"image is a list of {len(image)} and alpha_mask is {got}; expected a list of one "
                f"mask, box or None for each picture."
            )
        return [as_rgba(one, mask) for one, mask in zip(image, masks, strict=True)]
    if alpha_mask is None and isinstance(image, Image.Image):
        return image
    channels = picture_channels(image, "image")
    if len(channels) != 1:
        raise ValueError(f"image has batch {len(channels)}; expected one picture, or a list.")
    return _rgba(channels, alpha_mask)


def _rgba(channels: Tensor, mask: Any) -> Image.Image:
    color, transparency = channels[:, :3].expand(-1, 3, -1, -1), channels[:, 3:]
    if mask is not None:
        if transparency.numel() and transparency.min() < 1:
            raise ValueError(
                "image has transparency and alpha_mask was given too; expected one region. "
                "image.convert('RGB') drops the transparency."
            )
        size = (color.shape[-2], color.shape[-1])
        is_box = isinstance(mask, list | tuple) or getattr(mask, "shape", None) == (4,)
        transparency = alpha_from_box(mask, size) if is_box else as_alpha_map(mask, size)
    pixels = torch.cat([color, transparency.to(color)], dim=1)[0]
    return to_pil_image((pixels * 255).round().byte().cpu())


# Focus and back


def focus(pipe: Any, tower: Tower | None = None, processor: Any = None) -> "Focus":
    """Makes the pipeline take RGBA pictures, alpha = 1 where it shall look; returns the way back.

    RGB pictures attend everywhere. Focusing a focused pipeline replaces the tower; its own is kept
    for `unfocus`. CPU offload stays as it was. A focused pipeline can be saved; once loaded again,
    focus(pipe) gives it back what is not saved (Paint by Example needs its tower again too).

    Args:
        pipe: a diffusers pipeline with an image encoder, or transformers' LLaVA.
        tower: an Alpha-CLIP vision model, or the name or path of one for `load_tower`; a stock CLIP
            or SigLIP vision model, which `focus_attention` makes follow alpha without training; one
            of `baselines`, before the pipeline's own tower; None takes the pipeline's own tower, by
            `focus_attention` unless it takes alpha already (as after reloading a focused pipeline).
            It is moved to the device and dtype of the one that it replaces.
        processor: an image processor for RGBA pictures; by default one with the settings of the
            pipeline's own. For LLaVA, the LlavaProcessor in use, whose image processor is replaced.

    Raises:
        ValueError: the tower's width, token count or projection is not what the pipeline was
            trained with.

    >>> with focus(pipe, tower):
    ...     images = pipe(image=rgba).images
    """
    place, slot = _tower_place(pipe), _processor_place(pipe, processor)
    own, stock_tower = place.value, _original(pipe, place)
    if any(hasattr(module, "_diffusers_hook") for module in own.modules()):
        raise ValueError(
            "the image encoder of pipe is group offloaded; call focus(pipe, tower) before "
            "enable_group_offload()."
        )
    if isinstance(tower, str | os.PathLike):
        from .checkpoints import load_tower

        tower = load_tower(tower)
    baseline = tower if callable(tower) and not isinstance(tower, nn.Module) else None
    with _offload_paused(pipe):
        if baseline is not None:
            chosen = stock_tower
        else:
            chosen = _that_takes_alpha(own if tower is None else tower)
            chosen = _fitting(pipe, place, stock_tower, chosen)
        done = _focus_of(pipe) or Focus(pipe)
        pipe.__dict__["_alpha_focus"] = done
        if chosen is not own:
            done.replace(place, chosen.to(own.device, own.dtype).eval())
        if processor is None or _is_llava(pipe):
            processor = _processor_for(pipe, slot, chosen, baseline)
        if processor is not slot.value:
            done.replace(slot, processor)
        _settle_family(pipe, done, slot)
    return done


def unfocus(pipe: Any) -> None:
    """Gives the pipeline its own image encoder, processor and settings back."""
    done = _focus_of(pipe)
    if done is None:
        raise ValueError(f"pipe ({type(pipe).__name__}) is not focused; focus(pipe) comes first.")
    with _offload_paused(pipe):
        done.restore()
        del pipe.__dict__["_alpha_focus"]


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


@dataclass
class Focus:
    """What `focus` replaced; as a context manager it ends in `unfocus`."""

    pipe: Any
    replaced: list[tuple[Place, Any]] = field(default_factory=list)

    def __enter__(self) -> Any:
        return self.pipe

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        unfocus(self.pipe)

    @property
    def changes(self) -> list[str]:
        """Names of what was replaced, in the pipeline's own words."""
        return [place.name for place, _ in self.replaced]

    def before(self, place: Place) -> Any:
        """What was there before focus, or is there still."""
        known = (value for other, value in self.replaced if _same(other, place))
        return next(known, place.value)

    def replace(self, place: Place, value: Any) -> None:
        """Puts the value there; what was there first is kept for the way back."""
        if not any(_same(other, place) for other, _ in self.replaced):
            self.replaced.append((place, place.value))
        place.put(value)

    def restore(self) -> None:
        """Puts everything back; a tower comes back where its successor was."""
        for place, value in self.replaced:
            if isinstance(value, nn.Module):
                value.to(place.value.device, place.value.dtype)
            if isinstance(value, MethodType):
                delattr(place.owner, place.name)  # its class's own comes to light
            else:
                place.put(value)
        self.replaced.clear()


def _same(one: Place, other: Place) -> bool:
    return one.owner is other.owner and one.name == other.name


def _focus_of(pipe: Any) -> Focus | None:
    return getattr(pipe, "__dict__", {}).get("_alpha_focus")


def _original(pipe: Any, place: Place) -> Any:
    done = _focus_of(pipe)
    return done.before(place) if done else place.value


# What a pipeline has, and what it needs


def _tower_place(pipe: Any) -> Place:
    if _is_llava(pipe):
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
    if _is_paint_by_example(encoder):
        return Place(encoder, "model")
    return Place(pipe, "image_encoder")


def _processor_place(pipe: Any, processor: Any) -> Place:
    if not _is_llava(pipe):
        has = "feature_extractor" in pipe.components
        return Place(pipe, "feature_extractor" if has else "image_processor")
    if processor is None:
        raise ValueError(
            "processor is missing; expected the LlavaProcessor in use, whose image processor must "
            "take RGBA too: focus(model, tower, processor=processor)."
        )
    return Place(processor, "image_processor")


def _is_llava(pipe: Any) -> bool:
    return hasattr(getattr(pipe, "model", None), "vision_tower")


def _is_paint_by_example(owner: Any) -> bool:
    return hasattr(owner, "uncond_vector") and hasattr(owner, "model")


class Shape(NamedTuple):
    """The sizes of a tower that a pipeline may be tied to; projection 0 is none."""

    width: int
    tokens: int
    projection: int

    def __str__(self) -> str:
        last = f"projection {self.projection}" if self.projection else "no projection"
        return f"width {self.width}, {self.tokens} tokens and {last}"


PUBLISHED = {
    "Alpha-CLIP ViT-B/16": Shape(768, 197, 512),
    "Alpha-CLIP ViT-L/14": Shape(1024, 257, 768),
    "Alpha-CLIP ViT-L/14@336px": Shape(1024, 577, 768),
}


def _shape(tower: Any) -> Shape:
    embeddings = getattr(tower, "vision_model", tower).embeddings
    projection = getattr(tower, "visual_projection", None)
    return Shape(
        tower.config.hidden_size,
        embeddings.num_positions,
        0 if projection is None else projection.out_features,
    )


def _needs(pipe: Any, place: Place, own: Any) -> list[str]:
    """Which fields of its own tower's Shape the pipeline is tied to."""
    if _is_paint_by_example(place.owner):
        return ["width"]
    if not hasattr(own, "visual_projection"):
        return ["width", "tokens"]
    needs = ["projection"]
    adapters = getattr(getattr(pipe, "unet", None), "encoder_hid_proj", None)
    layers = getattr(adapters, "image_projection_layers", [])
    if any(not hasattr(layer, "image_embeds") for layer in layers):
        needs.append("width")  # IP-Adapter Plus reads the tokens
    if _fixes_size(pipe):
        needs.append("tokens")
    return needs


def _fixes_size(pipe: Any) -> bool:
    """Whether the pipeline resizes pictures for the tower itself: Stable Video Diffusion does."""
    return hasattr(pipe, "video_processor") and "feature_extractor" in pipe.components


def _fitting(pipe: Any, place: Place, own: Any, tower: Any) -> Any:
    """The tower, without its projection where the pipeline wants none; raises if it cannot fit."""
    if not hasattr(own, "visual_projection"):
        tower = getattr(tower, "vision_model", tower)
    needs, wanted, got = _needs(pipe, place, own), _shape(own), _shape(tower)

    def fits(shape: Shape) -> bool:
        return all(getattr(shape, need) == getattr(wanted, need) for need in needs)

    if fits(got):
        return tower
    known = [name for name, shape in PUBLISHED.items() if fits(shape)]
    raise ValueError(
        f"tower ({type(tower).__name__}) has {got}; {type(pipe).__name__} needs the "
        f"{' and '.join(needs)} of its own {type(own).__name__}, which has {wanted}. "
        f"{' and '.join(known) or 'No published Alpha-CLIP'} would fit; focus(pipe) without a "
        f"tower focuses its own, without training."
    )


def _that_takes_alpha(tower: Any) -> Any:
    if isinstance(tower, TAKE_ALPHA):
        return tower
    if type(tower) in FOCUSED:
        return focus_attention(tower)
    raise TypeError(
        f"tower is a {type(tower).__name__}; expected an Alpha-CLIP vision model, a baseline "
        f"or one of {', '.join(kind.__name__ for kind in FOCUSED)}."
    )


# Processors and families


def _processor_for(pipe: Any, slot: Place, tower: Any, baseline: Baseline | None) -> Any:
    stock = _original(pipe, slot)
    if baseline is not None:
        return BaselineImageProcessor(stock, baseline)
    if _suits(slot.value, tower):
        return slot.value
    kind = AlphaCLIPFrameProcessor if _fixes_size(pipe) else AlphaCLIPImageProcessor
    return _alpha_processor(kind, stock, tower)


def _suits(processor: Any, tower: Any) -> bool:
    side = tower.config.image_size
    return isinstance(processor, AlphaCLIPImageProcessor) and _output_side(processor) == side


def _output_side(processor: Any) -> int | None:
    size = processor.crop_size if processor.do_center_crop else processor.size
    return (size.height or size.shortest_edge) if size is not None else None


def _alpha_processor(
    kind: type[AlphaCLIPImageProcessor], stock: Any, tower: Any
) -> AlphaCLIPImageProcessor:
    """The processor for RGBA with the stock one's settings, at the tower's input size."""
    settings = {name: getattr(stock, name, None) for name in kind.valid_kwargs.__annotations__}
    settings = {name: value for name, value in settings.items() if value is not None}
    side = tower.config.image_size
    square = {"height": side, "width": side}
    if stock is None or _output_side(stock) != side:
        return kind(**settings | {"size": {"shortest_edge": side}, "crop_size": square})
    without_crop = {"do_center_crop": False, "crop_size": square}  # SigLIP's have no such settings
    return kind(**without_crop | settings)


def _settle_family(pipe: Any, done: Focus, slot: Place) -> None:
    """What a family needs besides tower and processor."""
    video = Place(pipe, "video_processor")
    if hasattr(*video) and not isinstance(video.value, ColorProcessor):
        done.replace(video, ColorProcessor(video.value))
    if _is_llava(pipe):
        done.replace(Place(pipe.config, "vision_config"), pipe.model.vision_tower.config)
        count = MethodType(_count_color_tokens, slot.owner)
        done.replace(Place(slot.owner, "replace_image_token"), count)


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


# Offload


@contextmanager
def _offload_paused(pipe: Any) -> Iterator[None]:
    """CPU offload taken off for a moment, so that a new tower gets its hooks too."""
    enable = _offload_of(pipe)
    if enable is not None:
        pipe.remove_all_hooks()
    try:
        yield
    finally:
        if enable is not None:
            enable(device=pipe._offload_device)


def _offload_of(pipe: Any) -> Callable[..., None] | None:
    """The pipeline's method that set up its present offload."""
    if not hasattr(pipe, "_offload_device"):
        return None
    if getattr(pipe, "_all_hooks", None):
        return pipe.enable_model_cpu_offload
    parts = getattr(pipe, "components", {}).values()
    hooked = any(isinstance(part, nn.Module) and hasattr(part, "_hf_hook") for part in parts)
    return pipe.enable_sequential_cpu_offload if hooked else None
