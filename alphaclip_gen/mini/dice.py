"""Random tensors of every kind from one generator: same state, same tensors."""

import torch
import torch.nn.functional as F
from torch import Tensor

from ..alpha import Number


class Dice:
    """Draws from a `torch.Generator`; the order of the draws decides what they give."""

    def __init__(self, generator: torch.Generator):
        self.generator = generator

    def uniform(self, low: Number, high: Number, *shape: int) -> Tensor:
        return low + (high - low) * torch.rand(shape, generator=self.generator)

    def normal(self, *shape: int) -> Tensor:
        return torch.randn(shape, generator=self.generator)

    def integers(self, low: int, high: int, *shape: int) -> Tensor:
        return torch.randint(low, high, shape, generator=self.generator)

    def chance(self, probability: float, *shape: int) -> Tensor:
        return torch.rand(shape, generator=self.generator) < probability

    def choice(self, weights: Tensor, count: int) -> Tensor:
        """Indices drawn in proportion to the weights, with replacement."""
        return torch.multinomial(weights, count, True, generator=self.generator)

    def smooth(self, count: int, channels: int, cells: int, size: int) -> Tensor:
        """Smooth maps (count, channels, size, size) in [0, 1], `cells` bumps across."""
        small = self.uniform(0, 1, count, channels, cells, cells)
        return F.interpolate(small, size=(size, size), mode="bicubic").clamp(0, 1)
