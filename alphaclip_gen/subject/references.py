"""What the pipeline is told about references, arranged: pictures, regions, subjects, prompts."""

import os
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from ..alpha import check_alpha
from ..framing import as_image
from ..pictures import Picture, picture_channels
from ..regions import alpha_from_box, alpha_from_rgba, as_alpha_map

FILES = str | os.PathLike


class References(NamedTuple):
    """The pictures to look at, and for each prompt which of them, with the name of each subject."""

    pictures: list[tuple[Picture, Any]]
    rows: list[list[tuple[int, str]]]


def as_reference(
    picture: Picture, mask: Any = None
) -> tuple[Float[Tensor, "1 3 height width"], Float[Tensor, "1 1 height width"] | None]:
    """The image of a reference and its alpha map, None without a region.

    Args:
        picture: anything of as_image(). Transparency is the region when there is no mask.
        mask: a mask of the picture's size (anything of as_alpha_map()), or a box (x0, y0, x1, y1)
            in pixels or fractions. With a mask, transparency is dropped.
    """
    channels = picture_channels(picture, "image")
    image = as_image(channels)
    if len(image) != 1:
        raise ValueError(f"image is a batch of {len(image)}; expected one picture for each entry.")
    if mask is None:
        return image, alpha_from_rgba(channels)[1] if channels.shape[1] == 4 else None
    size = (image.shape[-2], image.shape[-1])
    alpha = alpha_from_box(mask, size) if is_box(mask) else as_alpha_map(mask, size)
    return image, check_alpha(alpha.to(image.device), image)


def arrange(image: Any, alpha_mask: Any, subject: Any, prompts: int | None) -> References:
    """The references of every prompt.

    Args:
        image: one picture for every prompt; else a list (or batched tensor), see `_rows`.
        alpha_mask: one region, or a list like `image`'s; None for none.
        subject: name of the references' subject, or a list like `image`'s.
        prompts: how many prompts there are, None when one was given as a string.
    """
    images = _rows(image, prompts, _is_picture, "image", "a picture")
    masks = _rows(alpha_mask, prompts, _is_mask, "alpha_mask", "a mask or box")
    names = _rows(subject, prompts, _is_name, "source_subject_category", "a name")
    shared = max(len(images), len(masks))
    pictures: list[tuple[Picture, Any]] = []
    places: list[list[int]] = []
    for row in range(shared):
        seen = _pairs(images[row % len(images)], masks[row % len(masks)])
        places.append(list(range(len(pictures), len(pictures) + len(seen))))
        pictures += seen
    rows = []
    for row in range(prompts or 1):
        indices, called = places[row % shared], names[row % len(names)]
        if len(called) not in (1, len(indices)):
            raise ValueError(
                f"source_subject_category has {len(called)} names for {len(indices)} references; "
                f"expected one name, or one for each."
            )
        called = called * (len(indices) // len(called))
        rows.append(list(zip(indices, called, strict=True)))
    return References(pictures, rows)


def per_prompt(value: Any, prompts: int, name: str) -> list[str]:
    """One string for each prompt; a single string serves all of them."""
    values = [value] if isinstance(value, str) else value
    if not isinstance(values, Sequence) or not all(isinstance(entry, str) for entry in values):
        raise TypeError(f"{name} is {value!r}; expected a string, or a list of strings.")
    if len(values) not in (1, prompts):
        raise ValueError(
            f"{name} has {len(values)} entries for {prompts} prompts; expected 1 or {prompts}."
        )
    return list(values) * (prompts // len(values))


def is_box(mask: Any) -> bool:
    """Whether a region is given by four numbers."""
    if isinstance(mask, np.ndarray | Tensor):
        return tuple(mask.shape) == (4,)
    return (
        isinstance(mask, Sequence)
        and len(mask) == 4
        and all(isinstance(number, int | float | np.number) for number in mask)
    )


def _rows(
    value: Any, prompts: int | None, is_one: Callable[[Any], bool], name: str, what: str
) -> list[list[Any]]:
    """One row for all prompts, or one for each.

    With one prompt, given as a string, a list is that prompt's references. With a list of prompts,
    a list has one entry for each of them: a single one, or a list of several.
    """
    if is_one(value):
        return [[value]]
    if not isinstance(value, list | tuple | np.ndarray | Tensor) or len(value) == 0:
        raise TypeError(f"{name} is a {type(value).__name__}; expected {what}, or a list of them.")
    entries = list(value)
    if prompts is not None and len(entries) != prompts:
        raise ValueError(
            f"{name} has {len(entries)} entries for {prompts} prompts; expected one entry, or one "
            f"for each prompt (a list in it gives one prompt several references)."
        )
    rows = [entries]
    if prompts is not None:
        rows = [[entry] if is_one(entry) else entry for entry in entries]
    for entry in (entry for row in rows for entry in row):
        if not is_one(entry):
            raise TypeError(f"{name} has a {type(entry).__name__} in it; expected {what}.")
    return [list(row) for row in rows]


def _pairs(images: list[Any], masks: list[Any]) -> list[tuple[Any, Any]]:
    """Each picture with its region; one picture may have several, a region only one picture."""
    if len(images) == 1:
        images = images * len(masks)
    if len(masks) == 1 and masks[0] is None:
        masks = masks * len(images)
    if len(images) != len(masks):
        raise ValueError(
            f"alpha_mask has {len(masks)} regions for {len(images)} pictures; expected one for "
            f"each. None in the list stands for no region."
        )
    return list(zip(images, masks, strict=True))


def _is_picture(value: Any) -> bool:
    if isinstance(value, np.ndarray | Tensor):
        return value.ndim <= 3 or len(value) == 1
    return isinstance(value, Image.Image | FILES)


def _is_mask(value: Any) -> bool:
    if isinstance(value, np.ndarray | Tensor):
        single = value.ndim == 3 and (value.shape[0] == 1 or value.shape[-1] <= 4)
        return value.ndim <= 2 or single or (value.ndim == 4 and len(value) == 1)
    return value is None or is_box(value) or isinstance(value, Image.Image | FILES)


def _is_name(value: Any) -> bool:
    return isinstance(value, str)
