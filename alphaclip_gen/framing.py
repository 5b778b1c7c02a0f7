"""From pictures to what a tower sees: image and alpha map framed and resized together.

This is the only code that resizes. Image and alpha pass through one function, `_frame`, whose
geometry depends on their common size alone, so they cannot drift apart.
"""

from typing import Literal, get_args

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor
from torchvision.transforms.functional import center_crop

from .alpha import Number, check_alpha, check_size, check_values
from .pictures import Picture, picture_channels

Geometry = Literal["center", "pad", "squash", "region", "region-centered"]

Window = tuple[int, int, int, int]

CUT_OUT = ("region", "region-centered")
PADDING_GRAY = 0.5
MARGIN = 0.125
"""Of a region's longer side, kept around it."""
VISIBLE = 0.05  # of the largest alpha: what counts as part of a region's extent


def as_image(picture: Picture) -> Float[Tensor, "batch 3 height width"]:
    """The picture as RGB in [0, 1].

    Args:
        picture: PIL picture of any mode or file (turned upright by its EXIF entry); numpy HW, HWC
            or BHWC; tensor HW, CHW or BCHW. bool, uint8, uint16 or float (0..1). Gray becomes RGB;
            transparency is dropped, alpha_from_rgba() keeps it.
    """
    channels = picture_channels(picture, "picture")
    if channels.shape[1] == 1:
        return channels.repeat(1, 3, 1, 1)
    return channels[:, :3]


def check_image(image: object) -> Float[Tensor, "batch 3 height width"]:
    """The image itself, unchanged, when it is (batch, 3, height, width), finite and in [0, 1]."""
    if not isinstance(image, Tensor):
        raise TypeError(
            f"image is a {type(image).__name__}; expected a tensor. as_image() converts a picture."
        )
    if image.ndim != 4 or image.shape[1] != 3:
        raise ValueError(
            f"image has shape {tuple(image.shape)}; expected (batch, 3, height, width). "
            f"as_image() converts a picture."
        )
    check_values(image, "image")
    return image


def resize(
    pixels: Float[Tensor, "batch channels height width"],
    size: tuple[int, int],
    mode: Literal["bilinear", "bicubic"] = "bilinear",
) -> Float[Tensor, "batch channels new_height new_width"]:
    """The same view at another (height, width), antialiased, in [0, 1].

    Bicubic overshoot is cut off; the gradient passes the cut unchanged, so that saturated pixels
    still learn. Half precision is computed in single precision.
    """
    size = check_size(size)
    if pixels.shape[-2:] == size:
        return pixels
    half = pixels.dtype in (torch.float16, torch.bfloat16)
    resized = F.interpolate(pixels.float() if half else pixels, size, mode=mode, antialias=True)
    return (resized + (resized.clamp(0, 1) - resized).detach()).to(pixels.dtype)


def check_geometry(geometry: str) -> str:
    """The name itself, unchanged, when it is one of `Geometry`."""
    if geometry not in get_args(Geometry):
        raise ValueError(f"geometry is {geometry!r}; expected one of {get_args(Geometry)}.")
    return geometry


def whole_geometry(geometry: str) -> str:
    """The geometry for a whole picture beside regions of that geometry: none is cut out of it."""
    return "pad" if geometry in CUT_OUT else geometry


def preprocess(
    image: Tensor,
    alpha: Tensor | None = None,
    size: int = 224,
    geometry: str = "center",
    *,
    margin: Number = MARGIN,
) -> tuple[Float[Tensor, "batch 3 size size"], Float[Tensor, "batch 1 size size"]]:
    """The square image and alpha map that a tower of input side `size` takes.

    Differentiable in image and alpha; the window of geometry "region" is not.

    Args:
        image: (batch, 3, height, width) in [0, 1].
        alpha: alpha map of the same height and width, batch equal or one of them 1; the result has
            the larger batch. None attends everywhere: exactly ones, on any padding too.
        size: side of the result in pixels.
        geometry: "center" cuts off the longer side's ends as CLIP does, "pad" adds mid-gray with
            alpha 0, "squash" changes the aspect, "region" cuts out a square around each alpha map's
            region (moved to lie inside, padded where the picture is too narrow for it),
            "region-centered" has the region in its middle always, padded where it leaves the
            picture.
        margin: of a region's longer side, kept on each of its sides by the last two; a region
            that is the whole picture has none, so that all of it fits exactly.
    """
    check_image(image)
    check_size((size, size))
    check_geometry(geometry)
    if alpha is None:
        if geometry in CUT_OUT:
            raise ValueError(
                f"geometry {geometry!r} needs an alpha map to cut out. Pass alpha, or use 'pad'."
            )
        framed = _frame(image, size, geometry)
        return framed, torch.ones_like(framed[:, :1])
    check_alpha(alpha)
    check_alpha(alpha, image.expand(len(alpha), -1, -1, -1) if len(image) == 1 else image)
    alpha = alpha.to(image.dtype)
    if geometry in CUT_OUT:
        image, alpha = _same_batch(image, alpha)
        windows = region_windows(alpha, margin, inside=geometry == "region")
        image, alpha = _cut(image, windows, size), _cut(alpha, windows, size)
    else:
        image, alpha = _frame(image, size, geometry), _frame(alpha, size, geometry)
    return _same_batch(image, alpha)


def _same_batch(image: Tensor, alpha: Tensor) -> tuple[Tensor, Tensor]:
    batch = max(len(image), len(alpha))
    return image.expand(batch, -1, -1, -1), alpha.expand(batch, -1, -1, -1)


def _padding(pixels: Tensor) -> float:
    """What lies outside an image (three channels), or an alpha map (one)."""
    return PADDING_GRAY if pixels.shape[1] == 3 else 0.0


def _frame(pixels: Tensor, size: int, geometry: str) -> Tensor:
    """A square of image (three channels) or alpha map (one), both by the same geometry."""
    is_image = pixels.shape[1] == 3
    height, width = pixels.shape[-2:]
    if geometry == "squash":
        inner = (size, size)
    else:
        fitted = min(height, width) if geometry == "center" else max(height, width)
        inner = (max(1, size * height // fitted), max(1, size * width // fitted))
    resized = resize(pixels, inner, "bicubic" if is_image else "bilinear")
    if geometry == "pad":
        missing = size - inner[0], size - inner[1]
        top, left = missing[0] // 2, missing[1] // 2
        edges = (left, missing[1] - left, top, missing[0] - top)
        return F.pad(resized, edges, value=_padding(pixels))
    return center_crop(resized, [size, size])


def _cut(layer: Tensor, windows: list[Window], size: int) -> Tensor:
    """A square of each window; what of a window leaves the picture is padding."""
    height, width = layer.shape[-2:]
    parts = [
        F.pad(one[None], (-x0, x1 - width, -y0, y1 - height), value=_padding(layer))
        for one, (x0, y0, x1, y1) in zip(layer, windows, strict=True)
    ]
    return torch.cat([_frame(part, size, "pad") for part in parts])


def region_windows(
    alpha: Float[Tensor, "batch 1 height width"], margin: Number = MARGIN, inside: bool = True
) -> list[Window]:
    """The square (x0, y0, x1, y1) in pixels around each region.

    Args:
        alpha: alpha maps; what exceeds 0.05 of the largest value is the region.
        margin: of the region's longer side, added on each side.
        inside: move or cut it to lie inside the picture; else it may leave it.
    """
    check_alpha(alpha)
    if not 0 <= margin <= 10:
        raise ValueError(f"margin is {margin}; expected a fraction of the region, 0 to 10.")
    return [_window(one[0].detach(), margin, inside) for one in alpha]


def _window(alpha: Tensor, margin: Number, inside: bool) -> Window:
    if alpha.amax() <= 0:
        raise ValueError("alpha is empty: geometry 'region' has nothing to cut out. Use 'pad'.")
    region = alpha > VISIBLE * alpha.amax()
    spans = [region.any(axis).nonzero().flatten()[[0, -1]].tolist() for axis in (0, 1)]
    side = max(last + 1 - first for first, last in spans)
    if not region.all():
        side += 2 * round(side * margin)
    starts, stops = [], []
    for (first, last), extent in zip(spans, reversed(alpha.shape), strict=True):
        start = (first + last + 1 - side) // 2
        start = max(0, min(start, extent - side)) if inside else start
        starts.append(start)
        stops.append(min(extent, start + side) if inside else start + side)
    return (*starts, *stops)
