"""Pictures of every kind as floating-point channels: the boundary to PIL, numpy and files."""

import os
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image, ImageOps
from torch import Tensor

from .alpha import check_values

Picture = Image.Image | np.ndarray | Tensor | str | os.PathLike

FULL_SCALE = {torch.bool: 1, torch.uint8: 255, torch.uint16: 65535}


def open_picture(path: str | os.PathLike) -> Image.Image:
    """The loaded picture of a file.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is no picture that Pillow can read, or is damaged.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(f"no picture file at {str(path)!r}; check the path.")
    try:
        with Image.open(path) as picture:
            picture.load()
            return picture
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise ValueError(
            f"cannot read {str(path)!r} as a picture ({error}); expected a whole PNG, "
            f"JPEG, WebP or other file that Pillow opens."
        ) from error


def picture_channels(picture: Picture, name: str) -> Float[Tensor, "batch channels height width"]:
    """Every channel of a picture in [0, 1]: 1 (gray), 3 (RGB) or 4 (RGB and straight alpha).

    Args:
        picture: PIL picture or file (turned upright by its EXIF entry); numpy HW, HWC or BHWC;
            tensor HW, CHW or BCHW. bool, uint8 (0..255), uint16 (0..65535) or float (0..1).
        name: what to call it in an error.
    """
    if isinstance(picture, Tensor):
        layout, pixels = "(batch, channels, height, width)", picture
        pixels = pixels[None] if pixels.ndim == 2 else pixels
    else:
        layout, pixels = (
            "(batch, height, width, channels)",
            torch.from_numpy(as_array(picture, name)),
        )
        pixels = pixels[..., None] if pixels.ndim == 2 else pixels
        pixels = pixels.movedim(-1, -3)
    pixels = pixels[None] if pixels.ndim == 3 else pixels
    if pixels.ndim != 4 or pixels.shape[1] not in (1, 3, 4):
        shape = tuple(getattr(picture, "shape", pixels.shape))
        raise ValueError(
            f"{name} has shape {shape}; expected {layout} with 1, 3 or 4 channels. "
            f"Tensors have channels first, numpy arrays last; movedim() moves them."
        )
    return to_floats(pixels, name)


def as_array(picture: object, name: str) -> np.ndarray:
    """A writable, native-endian array HW or HWC of a PIL picture, file or array."""
    if isinstance(picture, str | os.PathLike):
        picture = open_picture(picture)
    if isinstance(picture, Image.Image):
        picture = ImageOps.exif_transpose(picture)
        if picture.has_transparency_data:
            picture = picture.convert("RGBA")
        elif picture.mode not in ("1", "L", "I", "F") and not picture.mode.startswith("I;16"):
            picture = picture.convert("RGB")
    elif not isinstance(picture, np.ndarray):
        raise TypeError(
            f"{name} is a {type(picture).__name__}; expected a PIL picture, numpy "
            f"array, tensor or path of a picture file."
        )
    array = np.array(picture)
    return array.astype(array.dtype.newbyteorder("="))


def to_floats(values: Tensor, name: str) -> Tensor:
    """bool, uint8 and uint16 scaled to [0, 1]; floats checked to be there already."""
    if values.dtype in FULL_SCALE:
        values = values.float() / FULL_SCALE[values.dtype]
    elif not values.is_floating_point():
        raise TypeError(
            f"{name} has dtype {values.dtype}; expected bool, uint8 (0..255), uint16 (0..65535) "
            f"or float (0..1). `labels == 3` picks one label of a label map."
        )
    check_values(values, name)
    return values.float() if values.dtype == torch.float64 else values
