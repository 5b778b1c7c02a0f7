"""Pictures for people: regions lit in their picture, and figures with captions."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from .alpha import check_alpha

INK, FAINT, PAPER = (40, 42, 48), (120, 124, 132), (255, 255, 255)
_MARGIN, _LINE = 10, 18


def lit_region(
    image: Float[Tensor, "1 3 height width"], alpha: Float[Tensor, "1 1 height width"] | None
) -> Image.Image:
    """The picture with everything but the region dimmed and drained of color."""
    if alpha is not None:
        check_alpha(alpha, image)
        dim = 0.25 * image.mean(1, keepdim=True) + 0.62
        image = torch.lerp(dim.expand_as(image), image, alpha)
    return to_pil(image)


def to_pil(image: Float[Tensor, "1 3 height width"]) -> Image.Image:
    """An 8-bit PIL picture."""
    pixels = (image[0].clamp(0, 1) * 255).round().byte()
    return Image.fromarray(pixels.permute(1, 2, 0).cpu().numpy())


def figure(
    pictures: Sequence[Image.Image],
    captions: Sequence[Sequence[str]],
    tile: int = 224,
    columns: int = 5,
) -> Image.Image:
    """The pictures in a grid; below each its lines, the first in ink and the rest fainter."""
    columns = min(columns, len(pictures))
    rows = -(-len(pictures) // columns)
    deep = max(len(lines) for lines in captions) * _LINE
    wide, high = tile + _MARGIN, tile + deep + 2 * _MARGIN
    sheet = Image.new("RGB", (columns * wide + _MARGIN, rows * high + _MARGIN), PAPER)
    pen = ImageDraw.Draw(sheet)
    for number, (picture, lines) in enumerate(zip(pictures, captions, strict=True)):
        left = _MARGIN + number % columns * wide
        top = _MARGIN + number // columns * high
        sheet.paste(fit(picture, tile), (left, top))
        for i, line in enumerate(lines):
            place = (left + tile // 2, top + tile + 5 + i * _LINE)
            font = ImageFont.load_default(size=14 if i == 0 else 12)
            pen.text(place, line, FAINT if i else INK, font, anchor="ma")
    return sheet


def fit(picture: Image.Image, tile: int) -> Image.Image:
    """The picture inside a square tile, aspect kept, small pictures enlarged with sharp pixels."""
    scale = tile / max(picture.size)
    size = [max(1, round(side * scale)) for side in picture.size]
    resample = Image.Resampling.NEAREST if scale >= 3 else Image.Resampling.LANCZOS
    square = Image.new("RGB", (tile, tile), PAPER)
    square.paste(
        picture.convert("RGB").resize((size[0], size[1]), resample),
        ((tile - size[0]) // 2, (tile - size[1]) // 2),
    )
    return square
