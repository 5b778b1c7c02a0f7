"""A region bound into a CLIP_VISION: every node that takes one then looks at the region.

Nodes encode by `encode_image`, or by `.model(pixel_values=...)` after a preprocessing of their own.
So the region sits in the model: it is framed as the core frames pictures, and joins the pixel
values on their way in. The CLIP_VISION that was given stays as it is.
"""

import copy
import hashlib
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn

from ..alpha import ROUNDING
from ..attention_focus import attention_bias
from ..baselines import Baseline, blur_outside, crop_to_region
from ..framing import resize
from . import host
from .masks import check_count, fitted
from .vision import CoreTower
from .widgets import METHODS

PICTURE_METHODS: dict[str, Baseline] = {"crop": crop_to_region, "blur": blur_outside}
"""Methods that change the picture, and leave the tower alone."""

REMEMBERED = 4
"""Results that a focused model keeps, where the core keeps its own: a graph asks for the same
pictures again and again."""

FLAT = 0.02
"""Pixel values that nowhere differ by more: a step of 8 bit, normalized as CLIP's, is 0.015."""


class Picture(NamedTuple):
    """The picture that pixel values come from: size, whether it is cropped, whether changed."""

    size: tuple[int, int]
    is_cropped: bool
    is_changed: bool
    """By the method already, so that nothing is left to do."""


def focus_vision(vision: Any, alpha: Tensor | None, method: str = "auto") -> Any:
    """A CLIP_VISION that looks at the region; the given one itself where all of it counts.

    A focused one gets the new region in place of its own.

    Args:
        vision: a CLIP_VISION of ours or of the core.
        alpha: one region for all pictures, or one for each.
        method: "alpha weights" of a tower trained with them; "training-free", a bias in the
            attention of any CLIP or SigLIP; "crop" and "blur" change the picture; "auto" is alpha
            weights where the tower has them, else training-free.

    Raises:
        ValueError: the tower cannot do that.
    """
    plain = unfocused(vision)
    if alpha is None:
        return plain
    focused = copy.copy(plain)
    focused.unfocused = plain
    focused.model = FocusedModel(plain, alpha, chosen(plain, method))
    focused.encode_image = partial(_encode_image, focused)
    return focused


def unfocused(vision: Any) -> Any:
    """The CLIP_VISION without region that a focused one was made from; else the one itself."""
    return getattr(vision, "unfocused", vision)


def chosen(vision: Any, method: str) -> str:
    """The method that is meant by "auto", or the given one, if the tower can do it."""
    if method not in METHODS:
        raise ValueError(f"method is {method!r}; expected one of {METHODS}.")
    tower = unfocused(vision).model
    knows_alpha = isinstance(tower, CoreTower) and tower.knows_alpha
    found = method
    if method == "auto":
        found = "alpha weights" if knows_alpha else "training-free"
    if found == "alpha weights" and not knows_alpha:
        raise ValueError(
            "method 'alpha weights' needs a tower that was trained with alpha, and this one was "
            "not. Load Alpha-CLIP Vision opens one; method 'training-free' works with every CLIP."
        )
    if found == "training-free" and _patch(tower) is None:
        raise ValueError(
            f"method {method!r} needs a CLIP or SigLIP tower that takes square pictures, not "
            f"{getattr(vision, 'model_type', type(tower).__name__)}; 'crop' and 'blur' work with "
            f"all towers."
        )
    return found


class FocusedModel:
    """The model of a CLIP_VISION with a region; everything else about it is the model's own.

    It does not know which picture its pixel values come from: it takes them for the picture's
    middle square, as the core cuts it, unless `_encode_image` tells more. A picture of one color
    has nothing to look at (IPAdapter's black one, for its negative embedding): it is seen whole,
    and where all are, there may be any number of regions.
    """

    def __init__(self, vision: Any, alpha: Tensor, method: str):
        self.vision = vision
        self.alpha = alpha
        self.method = method
        self.picture: Picture | None = None
        self.results: OrderedDict[str, tuple] = OrderedDict()

    def __call__(self, pixel_values: Tensor, **settings: Any) -> tuple:
        """What the model returns for these pixel values, focused on the region."""
        key = _fingerprint(pixel_values, self.picture, settings)
        if key not in self.results:
            if isinstance(self.vision.model, CoreTower):  # the core's can be there in part
                host.load(self.vision.patcher)
            alpha = self._framed(pixel_values)
            run = partial(self.vision.model, **settings)
            found = look(self.vision, pixel_values, alpha, self.method, run)
            self.results[key] = tuple(_moved(value, host.to_host) for value in found)
            while len(self.results) > REMEMBERED:
                self.results.popitem(last=False)
        self.results.move_to_end(key)
        device = pixel_values.device
        return tuple(_moved(v, lambda v: v.to(device, copy=True)) for v in self.results[key])

    def __getattr__(self, name: str) -> Any:
        if name == "vision":  # not yet set, while being copied
            raise AttributeError(name)
        return getattr(self.vision.model, name)

    @contextmanager
    def seeing(self, picture: Picture) -> Iterator[None]:
        """While this holds, pixel values come from such a picture."""
        self.picture = picture
        try:
            yield
        finally:
            self.picture = None

    def _framed(self, pixel_values: Tensor) -> Tensor | None:
        """The alpha map of each picture, ones for pictures of one color; None where all are."""
        flat = are_flat(pixel_values)
        if flat.all() or (self.picture and self.picture.is_changed):
            return None
        check_count(self.alpha, len(pixel_values))
        alpha, is_cropped = self.alpha, True
        if self.picture:
            alpha, is_cropped = fitted(alpha, self.picture.size), self.picture.is_cropped
        alpha = as_core_frames(alpha, pixel_values.shape[-1], is_cropped).to(pixel_values)
        return torch.where(flat.view(-1, 1, 1, 1), 1.0, alpha)


def are_flat(pixel_values: Float[Tensor, "batch 3 height width"]) -> Bool[Tensor, " batch"]:
    """Which pictures are of one color, but for rounding to 8 bit."""
    return (pixel_values.amax((2, 3)) - pixel_values.amin((2, 3))).amax(1) < FLAT


def look(
    vision: Any,
    pixel_values: Float[Tensor, "batch 3 size size"],
    alpha: Float[Tensor, "batch 1 size size"] | None,
    method: str,
    run: Callable[..., tuple] | None = None,
) -> tuple:
    """What the vision's model makes of pixel values and their alpha map, by one of the methods.

    Args:
        vision: a CLIP_VISION without region.
        pixel_values: normalized color.
        alpha: of the same size; None attends everywhere.
        method: as `chosen` returns it.
        run: the model, with other arguments filled in.
    """
    run = run or partial(vision.model, intermediate_output=-2)
    if alpha is None:
        return run(pixel_values=pixel_values)
    if method in PICTURE_METHODS:
        return run(pixel_values=_changed(vision, pixel_values, alpha, PICTURE_METHODS[method]))
    if method == "alpha weights":
        return run(pixel_values=torch.cat([pixel_values, alpha - 1], dim=1))
    with biased(vision.model, bias_of(vision.model, alpha)):
        return run(pixel_values=pixel_values)


def bias_of(tower: Any, alpha: Float[Tensor, "batch 1 size size"]) -> Float[Tensor, "batch tokens"]:
    """What is added to the attention logits of a tower's tokens; a class token always counts."""
    patch = _patch(tower)
    assert patch is not None
    bias = attention_bias(alpha - 1, patch)
    has_class = getattr(tower.vision_model.embeddings, "class_embedding", None) is not None
    return F.pad(bias, (int(has_class), 0))


def first_layer(depth: int) -> int:
    """The first layer whose attention is biased, as `focus_attention` chooses it."""
    return min(depth // 2, max(depth - 2, 0))


@contextmanager
def biased(tower: Any, bias: Float[Tensor, "batch tokens"]) -> Iterator[None]:
    """While this holds, the later layers of the tower add the bias to their attention logits.

    In the core's towers, in transformers' and in ours a layer takes (tokens, mask, ...).
    """
    layers = tower.vision_model.encoder.layers
    tokens = bias.shape[1]
    mask = bias[:, None, None].expand(-1, 1, tokens, tokens)

    def with_mask(layer: nn.Module, args: tuple, kwargs: dict) -> tuple[tuple, dict]:
        return (args[0], mask.to(args[0]), *args[2:]), kwargs

    with ExitStack() as hooks:
        for layer in layers[first_layer(len(layers)) :]:
            handle = layer.register_forward_pre_hook(with_mask, with_kwargs=True)
            hooks.callback(handle.remove)
        yield


def as_core_frames(
    alpha: Float[Tensor, "batch 1 height width"], size: int, crop: bool = True
) -> Float[Tensor, "batch 1 size size"]:
    """The alpha map resized and cut as the core's `clip_preprocess` does with the picture."""
    height, width = alpha.shape[-2:]
    if (height, width) == (size, size):
        return alpha
    scale = size / min(height, width)
    inner = (round(scale * height), round(scale * width)) if crop else (size, size)
    top, left = (inner[0] - size) // 2, (inner[1] - size) // 2
    return resize(alpha, inner)[..., top : top + size, left : left + size]


def _encode_image(vision: Any, image: Tensor, crop: bool = True) -> Any:
    """The CLIP_VISION_OUTPUT of an IMAGE, by the class's own encode_image and the focused model."""
    focused, size = vision.model, (image.shape[1], image.shape[2])
    change = PICTURE_METHODS.get(focused.method)
    if change is not None:  # the whole picture is at hand: better than its square
        image = _changed_whole(image, focused.alpha, change)
    options = {} if crop else {"crop": False}  # old cores do not know it
    with focused.seeing(Picture(size, crop, change is not None)):
        return type(vision).encode_image(vision, image, **options)


def _changed_whole(image: Tensor, alpha: Tensor, baseline: Baseline) -> Tensor:
    """The IMAGE after the baseline; of one color it stays as it is."""
    pictures = image[..., :3].movedim(-1, 1).float().clamp(0, 1)
    if are_flat(pictures).all():
        return image
    check_count(alpha, len(pictures))
    alpha = fitted(alpha, (image.shape[1], image.shape[2])).to(pictures)
    return baseline(pictures, alpha.expand(len(pictures), -1, -1, -1)).movedim(1, -1)


def _changed(vision: Any, pixel_values: Tensor, alpha: Tensor, baseline: Baseline) -> Tensor:
    """The pixel values of the pictures after the baseline."""
    mean = pixel_values.new_tensor(vision.image_mean).view(3, 1, 1)
    std = pixel_values.new_tensor(vision.image_std).view(3, 1, 1)
    pictures = (pixel_values * std + mean).clamp(0, 1)
    whole = alpha.flatten(1).amin(1) >= 1 - ROUNDING
    changed = [
        picture if is_whole else baseline(picture, one)
        for picture, one, is_whole in zip(
            pictures.split(1), alpha.split(1), whole.tolist(), strict=True
        )
    ]
    return (torch.cat(changed) - mean) / std


def _patch(tower: Any) -> tuple[int, int] | None:
    """The size of a tower's patches in pixels; None where it has no layers that take a bias."""
    body = getattr(tower, "vision_model", None)
    layers = getattr(getattr(body, "encoder", None), "layers", None)
    convolution = getattr(getattr(body, "embeddings", None), "patch_embedding", None)
    return None if layers is None else getattr(convolution, "kernel_size", None)


def _moved(value: Any, move: Callable[[Tensor], Tensor]) -> Any:
    return move(value) if isinstance(value, Tensor) else value


def _fingerprint(pixel_values: Tensor, *settings: Any) -> str:
    data = pixel_values.detach().float().cpu().contiguous()
    digest = hashlib.blake2b(data.numpy().tobytes(), digest_size=16)
    digest.update(repr((tuple(data.shape), settings)).encode())
    return digest.hexdigest()
