"""Random backgrounds for pictures that a tower guides: none of them may be part of the object.

Behind an object of unknown outline, a background that changes with every look keeps the tower's
praise from depending on it (Dream Fields, arXiv 2112.01455, section 3.4).
"""

import math
from typing import Literal, get_args

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

BackgroundStyle = Literal["flat", "checker", "noise", "mixed", "pixels", "texture", "dream"]

LARGEST_BLUR = 10 / 224
"""Dream Fields' largest standard deviation, as a share of the picture's side."""
NATURAL_COLORS = ((0.26, 0.09, 0.02), (0.27, 0.0, -0.05), (0.27, -0.09, 0.03))
"""Square root of the color covariance of natural pictures (Lucid, Apache-2.0), rows red, green,
blue; to be divided by its longest column."""


def random_backgrounds(
    count: int,
    size: tuple[int, int],
    generator: torch.Generator | None = None,
    style: BackgroundStyle | str = "flat",
    avoid: Float[Tensor, "3"] | None = None,
) -> Float[Tensor, "count 3 height width"]:
    """Random backgrounds in [0, 1], made on the generator's device.

    Args:
        count: how many.
        size: (height, width).
        generator: of the random numbers.
        style: two colors, as "flat" (one of them), "checker", soft "noise", or "mixed" (one of the
            three for each picture); "pixels" of independent color; "texture", smooth and of natural
            color; "dream", one of checkerboard, pixels and texture, blurred, as in Dream Fields.
        avoid: a color to keep away from: of three random colors the farthest from it is taken. It
            counts for the styles of two colors.

    Raises:
        ValueError: an unknown style.
    """
    if style not in get_args(BackgroundStyle):
        raise ValueError(f"style is {style!r}; expected one of {get_args(BackgroundStyle)}.")
    device = generator.device if generator else None
    if style == "pixels":
        return torch.rand(count, 3, *size, generator=generator, device=device)
    if style == "texture":
        return _texture(count, size, generator, device)
    if style == "dream":
        return _dream(count, size, generator, device)
    colors = _random_colors(2 * count, generator, device, avoid).view(2, count, 3, 1, 1)
    first, second = colors.expand(2, count, 3, *size)
    if style == "flat":
        return first.contiguous()
    pattern = _pattern(count, size, generator, device, style)
    return pattern * first + (1 - pattern) * second


def blurred(
    pictures: Float[Tensor, "batch channels height width"], deviation: Float[Tensor, " batch"]
) -> Float[Tensor, "batch channels height width"]:
    """The pictures under one Gaussian each; `deviation` in pixels, borders repeated."""
    batch, channels, height, width = pictures.shape
    reach = max(math.ceil(3 * float(deviation.max())), 1)
    steps = torch.arange(-reach, reach + 1, device=pictures.device)
    bell = (-((steps / deviation.clamp(min=0.05)[:, None]) ** 2) / 2).exp()
    bell = (bell / bell.sum(dim=1, keepdim=True)).to(pictures.dtype)
    kernel = bell.repeat_interleave(channels, dim=0)
    padded = F.pad(pictures, [reach] * 4, mode="replicate").flatten(0, 1)[None]
    rows = F.conv2d(padded, kernel[:, None, None, :], groups=batch * channels)
    columns = F.conv2d(rows, kernel[:, None, :, None], groups=batch * channels)
    return columns.view(batch, channels, height, width)


def _pattern(
    count: int,
    size: tuple[int, int],
    generator: torch.Generator | None,
    device: torch.device | None,
    style: str,
) -> Tensor:
    """Where the first of two colors shows: 1 or 0, or in between where both do."""
    if style == "checker":
        return _checkers(count, size, generator, device)
    if style == "noise":
        return _soft_noise(count, size, generator, device)
    kind = torch.randint(3, (count, 1, 1, 1), generator=generator, device=device)
    checkers = _checkers(count, size, generator, device)
    pattern = torch.where(kind == 1, checkers, _soft_noise(count, size, generator, device))
    return torch.where(kind == 0, torch.ones_like(pattern), pattern)


def _dream(
    count: int,
    size: tuple[int, int],
    generator: torch.Generator | None,
    device: torch.device | None,
) -> Tensor:
    """One of three kinds each, with equal chance, under a blur of random width."""
    kind = torch.randint(3, (count, 1, 1, 1), generator=generator, device=device)
    width = torch.rand(count, generator=generator, device=device) * LARGEST_BLUR * max(size)
    first, second = torch.rand(2, count, 3, 1, 1, generator=generator, device=device)
    board = _board(size, torch.full((count, 1, 1, 1), math.ceil(max(size) / 8), device=device))
    pixels = torch.rand(count, 3, *size, generator=generator, device=device)
    texture = _texture(count, size, generator, device)
    picture = torch.where(kind == 0, torch.where(board > 0, first, second), pixels)
    return blurred(torch.where(kind == 2, texture, picture), width).clamp(0, 1)


def _texture(
    count: int,
    size: tuple[int, int],
    generator: torch.Generator | None,
    device: torch.device | None,
    deviation: float = 0.2,
    decay: float = 1.5,
) -> Tensor:
    """Random Fourier amplitudes that fall as frequency^-decay, in natural colors.

    Dream Fields' background of Mordvintsev et al., Differentiable Image Parameterizations
    (Distill, 2018), with their constants.
    """
    height, width = size
    down = torch.fft.fftfreq(height, device=device)[:, None]
    across = torch.fft.rfftfreq(width, device=device)
    frequency = torch.hypot(down, across).clamp(min=1 / max(size))
    shape = (2, count, 3, *frequency.shape)
    real, imaginary = deviation * torch.randn(shape, generator=generator, device=device)
    amplitude = torch.complex(real, imaginary) * frequency**-decay
    waves = torch.fft.irfft2(amplitude * math.sqrt(height * width), s=size) / 4
    mixing = torch.tensor(NATURAL_COLORS, device=device)
    mixing = mixing / mixing.norm(dim=0).max()
    return torch.einsum("rc,bchw->brhw", mixing, waves).sigmoid()


def _random_colors(
    count: int,
    generator: torch.Generator | None,
    device: torch.device | None,
    avoid: Tensor | None,
) -> Tensor:
    candidates = torch.rand(count, 3, 3, generator=generator, device=device)
    if avoid is None:
        return candidates[:, 0]
    distance = (candidates - avoid.detach().to(candidates)).square().sum(dim=2)
    return candidates[torch.arange(count, device=device), distance.argmax(dim=1)]


def _checkers(
    count: int,
    size: tuple[int, int],
    generator: torch.Generator | None,
    device: torch.device | None,
) -> Tensor:
    cell = torch.randint(4, 17, (count, 1, 1, 1), generator=generator, device=device)
    return _board(size, cell)


def _board(size: tuple[int, int], cell: Tensor) -> Tensor:
    """1 and 0 in turn, in squares of `cell` pixels."""
    rows = torch.arange(size[0], device=cell.device).view(1, 1, -1, 1) // cell
    columns = torch.arange(size[1], device=cell.device).view(1, 1, 1, -1) // cell
    return ((rows + columns) % 2).float()


def _soft_noise(
    count: int,
    size: tuple[int, int],
    generator: torch.Generator | None,
    device: torch.device | None,
) -> Tensor:
    noise = torch.rand(count, 1, 6, 6, generator=generator, device=device)
    return F.interpolate(noise, size=size, mode="bicubic", align_corners=False).clamp(0, 1)
