"""Every door into the alpha map: masks, transparency, ComfyUI masks, boxes, points and strokes.

Coordinates are (x, y) from the upper left corner of the picture; the center of the first pixel is
(0.5, 0.5). `size` is always (height, width). Coordinates are pixels or fractions of the picture:
with `unit="auto"` integers are pixels, floats up to 1 are fractions and floats from 2 on are
pixels; whatever could be both, such as the integer box (0, 0, 1, 1), is an error.
Regions from a door are never empty.
"""

import logging
import math
from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from .alpha import Number, check_region, check_size, empty_regions, shown_extent
from .pictures import FULL_SCALE, Picture, as_array, picture_channels, to_floats

logger = logging.getLogger(__name__)

Coordinates = Sequence | np.ndarray | Tensor


# Doors: masks


def as_alpha_map(
    mask: Picture, size: tuple[int, int] | None = None
) -> Float[Tensor, "batch 1 height width"]:
    """The alpha map of a mask, 1 = attend.

    Args:
        mask: gray PIL picture or file; numpy array or tensor (height, width), (batch, height,
            width), (height, width, 1) or (batch, 1, height, width). bool, uint8 (0..255), uint16
            (0..65535) or float (0..1); in-between values are kept.
        size: (height, width) that the mask must have, for example its picture's.

    Raises:
        ValueError: wrong shape, size, range or channels, NaN, an empty region, or integers that
            are only 0 and 1, which count as 1/255: pass those as bool.
    """
    values = mask if isinstance(mask, Tensor) else _mask_values(mask)
    scale = FULL_SCALE.get(values.dtype, 1)
    alpha = to_floats(_one_channel(values), "mask")
    if scale > 1 and round(alpha.amax().item() * scale) == 1:
        raise ValueError(
            f"mask has only 0 and 1 as integers; expected 0..{scale} for {values.dtype}. "
            f"Pass it as bool: mask > 0."
        )
    if size is not None and alpha.shape[-2:] != check_size(size):
        raise ValueError(
            f"mask is {shown_extent(alpha.shape)}; expected {shown_extent(size)}. "
            f"framing.resize(as_alpha_map(mask), size) helps if both show the same view."
        )
    return check_region(alpha, "mask")


def _mask_values(mask: object) -> Tensor:
    """The numbers of a mask; a picture file's equal channels become one."""
    array = as_array(mask, "mask")
    if not isinstance(mask, np.ndarray) and array.ndim == 3:
        gray = (array[..., :3] == array[..., :1]).all() and (array[..., 3:] == 255).all()
        array = array[..., 0] if gray else array
    return torch.from_numpy(array)


def _one_channel(values: Tensor) -> Tensor:
    shape = tuple(values.shape)
    if values.ndim == 3 and shape[-1] == 1:
        values = values.movedim(-1, 0)
    if values.ndim == 4 and shape[1] == 1:
        return values
    if values.ndim == 3 and shape[-1] not in (3, 4):
        return values[:, None]
    if values.ndim == 2:
        return values[None, None]
    raise ValueError(
        f"mask has shape {shape}; expected one channel: (height, width), (batch, height, width), "
        f"(height, width, 1) or (batch, 1, height, width). Pick a channel, mask[..., 0], or use "
        f"alpha_from_rgba() for a picture with transparency."
    )


def alpha_from_rgba(
    picture: Picture,
) -> tuple[Float[Tensor, "batch 3 height width"], Float[Tensor, "batch 1 height width"]]:
    """The image of a picture with transparency, and its opacity as the alpha map.

    Args:
        picture: anything of picture_channels() with four channels; alpha is straight, so that
            the colors under transparent pixels are kept as they are.
    """
    channels = picture_channels(picture, "picture")
    if channels.shape[1] != 4:
        raise ValueError(
            f"picture has {channels.shape[1]} channels; expected 4 (RGB and transparency). "
            f"as_image() reads pictures without transparency."
        )
    return channels[:, :3], check_region(channels[:, 3:], "the picture's transparency")


def alpha_from_comfy_mask(
    mask: Tensor, size: tuple[int, int] | None = None
) -> Float[Tensor, "batch 1 height width"]:
    """The alpha map of a ComfyUI MASK, (height, width) or (batch, height, width), 1 = selected.

    An all-zero MASK is how ComfyUI says that no region was given (LoadImage makes 64 x 64 zeros
    for a file without transparency): it attends everywhere, at `size`, and a warning is logged.
    """
    if mask.ndim not in (2, 3):
        raise ValueError(
            f"mask has shape {tuple(mask.shape)}; expected a ComfyUI MASK: (height, width) or "
            f"(batch, height, width). as_alpha_map() converts other layouts."
        )
    alpha = to_floats(mask[:, None] if mask.ndim == 3 else mask[None, None], "mask")
    empty = empty_regions(alpha)
    if empty.any():
        logger.warning("the mask is all zeros: no region given, so all of the picture counts.")
        alpha = torch.where(empty[:, None, None, None], 1.0, alpha)
    if empty.all() and size is not None:
        return alpha.new_ones(len(alpha), 1, *check_size(size))
    return as_alpha_map(alpha, size)


# Doors: drawn regions


def alpha_from_box(
    box: Coordinates, size: tuple[int, int], unit: str = "auto"
) -> Float[Tensor, "1 1 height width"]:
    """A rectangle; a pixel that the box covers in part gets that part of 1.

    Args:
        box: (x0, y0, x1, y1), left, top, right, bottom.
        size: (height, width) of the picture.
        unit: "pixels", "fractions" or "auto" (see above).
    """
    height, width = check_size(size)
    corners, unit = _to_pixels(_numbers(box, "box", (4,)).reshape(2, 2), unit, size, "box")
    (x0, y0), (x1, y1) = corners.tolist()
    if x1 <= x0 or y1 <= y0:
        raise ValueError(
            f"box {_shown(box)} has no area; expected (x0, y0, x1, y1) with x0 < x1 and y0 < y1, "
            f"not (x, y, width, height)."
        )
    if min(x0, y0) < 0 or x1 > width or y1 > height:
        raise ValueError(
            f"box {_shown(box)} in {unit} leaves the picture, which is {shown_extent(size)}; "
            f"clip it to the picture."
        )
    coverage = [
        torch.arange(1.0, side + 1).clamp(max=stop) - torch.arange(float(side)).clamp(min=start)
        for start, stop, side in ((y0, y1, height), (x0, x1, width))
    ]
    rows, columns = (part.clamp(0, 1) for part in coverage)
    return (rows[:, None] * columns)[None, None]


def alpha_from_points(
    points: Coordinates,
    radius: Number,
    size: tuple[int, int],
    unit: str = "auto",
    softness: Number = 0.5,
) -> Float[Tensor, "1 1 height width"]:
    """Soft discs: 1 inside, one half at `radius` from a point, 0 outside; the largest counts.

    Args:
        points: one (x, y), or (points, 2).
        radius: in pixels, or in fractions of the picture's shorter side, like the points.
        size: (height, width) of the picture.
        unit: "pixels", "fractions" or "auto" (see above).
        softness: width of the falloff in radii, 0 (antialiased edge) to 2 (a cone).
    """
    if not 0 <= softness <= 2:
        raise ValueError(f"softness is {softness}; expected a number of radii from 0 to 2.")
    centers = np.atleast_2d(_numbers(points, "points", (2,), (None, 2)))
    centers, unit = _to_pixels(centers, unit, size, "points")
    _check_inside(centers, size, "point")
    radius = _length(radius, unit, size, "radius")
    return _discs(np.hstack([centers, centers]), radius, max(1.0, softness * radius), size)


def alpha_from_strokes(
    strokes: Coordinates, width: Number, size: tuple[int, int], unit: str = "auto"
) -> Float[Tensor, "1 1 height width"]:
    """Polylines drawn with a round pen, antialiased.

    Args:
        strokes: one polyline (points, 2) of (x, y), or a list of them.
        width: of the pen, in pixels or in fractions of the shorter side, like the points.
        size: (height, width) of the picture.
        unit: "pixels", "fractions" or "auto" (see above).
    """
    lines = _polylines(strokes)
    points, unit = _to_pixels(np.concatenate(lines), unit, size, "strokes")
    _check_inside(points, size, "stroke point")
    lines = np.split(points, np.cumsum([len(line) for line in lines])[:-1])
    segments = [np.hstack([line[[0, *range(len(line) - 1)]], line]) for line in lines]
    radius = _length(width, unit, size, "width") / 2
    return _discs(np.concatenate(segments), radius, 1.0, size)


def _polylines(strokes: Coordinates) -> list[np.ndarray]:
    try:
        several = np.ndim(strokes[0][0]) > 0
    except (IndexError, TypeError):
        several = False
    return [_numbers(line, "strokes", (None, 2)) for line in (strokes if several else [strokes])]


def _discs(segments: np.ndarray, radius: float, ramp: float, size: tuple[int, int]) -> Tensor:
    """Coverage by a round pen on every segment (x0, y0, x1, y1); it falls over `ramp` pixels."""
    alpha = torch.zeros(size)
    reach = radius + ramp / 2
    for x0, y0, x1, y1 in segments.tolist():
        top, left = (max(0, math.floor(low - reach)) for low in (min(y0, y1), min(x0, x1)))
        window = alpha[top : math.ceil(max(y0, y1) + reach), left : math.ceil(max(x0, x1) + reach)]
        y = torch.arange(window.shape[0])[:, None] + (top + 0.5 - y0)
        x = torch.arange(window.shape[1]) + (left + 0.5 - x0)
        dx, dy = x1 - x0, y1 - y0
        along = ((x * dx + y * dy) / ((dx * dx + dy * dy) or 1.0)).clamp(0, 1)
        distance = torch.hypot(x - along * dx, y - along * dy)
        window.copy_(window.maximum((0.5 + (radius - distance) / ramp).clamp(0, 1)))
    return alpha[None, None]


# Coordinates


def _shown(values: Coordinates) -> str:
    return str(tuple(np.asarray(values).tolist()))


def _numbers(values: Coordinates, name: str, *shapes: tuple[int | None, ...]) -> np.ndarray:
    """The values as an array of one of the shapes (None is any positive length)."""
    try:
        array = np.asarray(values.tolist() if isinstance(values, Tensor) else values)
    except ValueError:
        array = np.asarray(None)
    if array.dtype.kind not in "iuf":
        raise TypeError(f"{name} is {values!r}; expected numbers in pixels or fractions.")
    if not any(
        array.ndim == len(shape)
        and all(
            got > 0 if side is None else got == side
            for got, side in zip(array.shape, shape, strict=True)
        )
        for shape in shapes
    ):
        wanted = " or ".join(str(shape).replace("None", "points") for shape in shapes)
        raise ValueError(f"{name} has shape {array.shape}; expected {wanted}.")
    if not np.isfinite(array).all():
        raise ValueError(f"{name} has NaN or infinite values: {_shown(values)}.")
    return array


def _to_pixels(
    points: np.ndarray, unit: str, size: tuple[int, int], name: str
) -> tuple[np.ndarray, str]:
    """Points (x, y) in pixels, and the unit that they came in."""
    height, width = check_size(size)
    if unit == "auto":
        unit = _unit_of(points, name)
    if unit not in ("pixels", "fractions"):
        raise ValueError(f"unit is {unit!r}; expected 'pixels', 'fractions' or 'auto'.")
    return points * ((width, height) if unit == "fractions" else (1.0, 1.0)), unit


def _unit_of(points: np.ndarray, name: str) -> str:
    whole, largest = points.dtype.kind in "iu", points.max()
    if not whole and largest <= 1:
        return "fractions"
    if largest >= 2:
        return "pixels"
    raise ValueError(
        f"{name} {points.flatten().tolist()} could be pixels or fractions of the picture; "
        f"say unit='pixels' or unit='fractions'."
    )


def _length(value: Number, unit: str, size: tuple[int, int], name: str) -> float:
    """A length in pixels; fractions are of the shorter side."""
    pixels = value * min(size) if unit == "fractions" else value
    most = min(size) if unit == "fractions" else 2 * max(size)
    if not 1 <= pixels <= most:
        raise ValueError(
            f"{name} is {value} in {unit}, the unit of its points: {pixels:g} pixels; expected 1 "
            f"to {most} pixels. unit='pixels' or unit='fractions' says what is meant."
        )
    return float(pixels)


def _check_inside(points: np.ndarray, size: tuple[int, int], name: str) -> None:
    for point in points:
        if (point < 0).any() or (point > size[::-1]).any():
            raise ValueError(
                f"{name} ({point[0]:g}, {point[1]:g}) is outside the picture, which is "
                f"{shown_extent(size)}; expected (x, y) in it."
            )
