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
from typing import Any, NamedTuple

import torch
from PIL import Image
from torch import Tensor, nn
from torchvision.transforms.functional import to_pil_image
from transformers import PreTrainedModel

from .baselines import Baseline, BaselineImageProcessor
from .families import Place, further_changes, is_llava, processor_place, resizes_itself, tower_place
from .fitting import fitting, taking_alpha
from .pictures import picture_channels
from .processor import AlphaCLIPFrameProcessor, AlphaCLIPImageProcessor
from .regions import alpha_from_box, as_alpha_map

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
        if not image:
            raise ValueError("image is an empty list; expected at least one picture.")
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
        if len(transparency) != 1:
            raise ValueError(
                f"alpha_mask has batch {len(transparency)}; expected one mask for one picture, or "
                f"a list of pictures with a list of masks. union(masks) makes one of several."
            )
    pixels = torch.cat([color, transparency.to(color)], dim=1)[0]
    return to_pil_image((pixels * 255).round().byte().cpu())


# Focus and back


def focus(pipe: Any, tower: Tower | None = None, processor: Any = None) -> "Focus":
    """Makes the pipeline take RGBA pictures, alpha = 1 where it shall look; returns the way back.

    RGB pictures attend everywhere, and one that is transparent all over attends nowhere: what then
    comes out is about nothing in it (`as_rgba` refuses an empty mask). Tensors pass through some
    pipelines as they are: `pixel_values(image, alpha)` makes them.

    Focusing a focused pipeline replaces the tower; its own is kept for `unfocus`. CPU offload stays
    as it was. A focused pipeline can be saved, and loaded wherever alphaclip_gen is imported.
    Videos and LLaVA then need focus(pipe) again, Paint by Example with its tower, pipelines behind
    a baseline with that (it is a function and not saved), and IP-Adapters are loaded again as ever.

    Args:
        pipe: a diffusers pipeline with an image encoder, or transformers' LLaVA.
        tower: an Alpha-CLIP vision model, or the name or path of one for `load_tower`; a stock CLIP
            or SigLIP vision model, which `focus_attention` makes follow alpha without training; one
            of `baselines`, before the pipeline's own tower; None takes the pipeline's own tower, by
            `focus_attention` unless it takes alpha already (as after reloading a focused pipeline).
            It is moved to the device and dtype of the one that it replaces.
        processor: an AlphaCLIPImageProcessor; by default one with the settings of the pipeline's
            own. For LLaVA, the LlavaProcessor in use, whose image processor is replaced.

    Raises:
        TypeError: pipe, tower or processor is nothing that could take RGBA pictures.
        ValueError: the tower's width, token count or projection is not what the pipeline was
            trained with.

    >>> with focus(pipe, tower):
    ...     images = pipe(image=rgba).images
    """
    place, slot = tower_place(pipe), processor_place(pipe, processor)
    if processor is not None and not is_llava(pipe):
        _check_processor(processor)
    done = _focus_of(pipe) or Focus(pipe)
    own, stock_tower = place.value, done.before(place)
    if isinstance(tower, str | os.PathLike):
        from .checkpoints import load_tower

        tower = load_tower(tower)
    baseline = None if isinstance(tower, nn.Module | type) or not callable(tower) else tower
    with _offload_paused(pipe):
        chosen = stock_tower
        if baseline is None:
            given = taking_alpha(own if tower is None else tower)
            chosen = fitting(pipe, place, stock_tower, given)
        if chosen is not own and any(hasattr(m, "_diffusers_hook") for m in own.modules()):
            raise ValueError(
                "the image encoder of pipe is group offloaded; call focus(pipe, tower) before "
                "enable_group_offload()."
            )
        pipe.__dict__["_alpha_focus"] = done
        if chosen is not own:
            done.replace(place, chosen.to(own.device, own.dtype).eval())
        if processor is None or is_llava(pipe):
            processor = _processor_for(pipe, slot, done.before(slot), chosen, baseline)
        if processor is not slot.value:
            done.replace(slot, processor)
        for further, value in further_changes(pipe, slot):
            done.replace(further, value)
    return done


def unfocus(pipe: Any) -> None:
    """Gives the pipeline its own image encoder, processor and settings back.

    What somebody else has replaced since, such as another IP-Adapter's tower, is left as it is.
    """
    done = _focus_of(pipe)
    if done is None:
        raise ValueError(f"pipe ({type(pipe).__name__}) is not focused; focus(pipe) comes first.")
    with _offload_paused(pipe):
        done.restore()
        del pipe.__dict__["_alpha_focus"]


def _focus_of(pipe: Any) -> "Focus | None":
    return getattr(pipe, "__dict__", {}).get("_alpha_focus")


@dataclass
class Focus:
    """What `focus` replaced; as a context manager it ends in `unfocus`."""

    pipe: Any
    replaced: list["Change"] = field(default_factory=list)

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
        return [change.place.name for change in self.replaced]

    def before(self, place: Place) -> Any:
        """What was there before focus, or is there still."""
        standing = (one.before for one in self.replaced if one.is_at(place) and one.stands)
        return next(standing, place.value)

    def replace(self, place: Place, value: Any) -> None:
        """Puts the value there; what was there first is kept for the way back."""
        before = self.before(place)
        place.put(value)
        self.replaced = [one for one in self.replaced if not one.is_at(place)]
        self.replaced.append(Change(place, before, value))

    def restore(self) -> None:
        """Puts everything back that is still as `focus` left it."""
        for change in self.replaced:
            if change.stands:
                change.undo()
        self.replaced.clear()


class Change(NamedTuple):
    """What was at a place before focus, and what focus put there."""

    place: Place
    before: Any
    after: Any

    def is_at(self, place: Place) -> bool:
        """Whether it is about that place."""
        return self.place.owner is place.owner and self.place.name == place.name

    @property
    def stands(self) -> bool:
        """Whether nobody else has replaced it since."""
        return self.place.value is self.after

    def undo(self) -> None:
        """Puts back what was there; a tower comes back where its successor was."""
        if isinstance(self.before, nn.Module):
            self.before.to(self.after.device, self.after.dtype)
        if isinstance(self.before, MethodType):
            delattr(self.place.owner, self.place.name)  # its class's own comes to light
        else:
            self.place.put(self.before)


# Processors


def _processor_for(
    pipe: Any, slot: Place, stock: Any, tower: Any, baseline: Baseline | None
) -> Any:
    """The processor that is there if it suits the tower, else one for RGBA with stock settings."""
    if baseline is not None:
        return BaselineImageProcessor(stock, baseline)
    if _suits(slot.value, tower):
        return slot.value
    kind = AlphaCLIPFrameProcessor if resizes_itself(pipe) else AlphaCLIPImageProcessor
    return _alpha_processor(kind, stock, tower)


def _check_processor(processor: Any) -> None:
    if not isinstance(processor, AlphaCLIPImageProcessor):
        raise TypeError(
            f"processor is a {type(processor).__name__}, which would lose alpha; expected an "
            f"AlphaCLIPImageProcessor, or None for one with the settings of the pipeline's own."
        )


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
