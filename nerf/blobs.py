"""Simple solids to begin with, as grids of logits."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor

from grids import vertices

SLOPE = 12.0
"""By how much density logits fall a unit of length across a surface, to begin with."""


@dataclass(frozen=True)
class Proportion:
    """A blob to start from: a superellipsoid, tapered along its height, or a ring.

    `taper` 0.5 halves the width at the top and widens the bottom by as much; `roundness` 2 is an
    ellipsoid, large is a box; `hole` above 0 makes a lying ring, that share of the width empty.
    """

    width: float = 0.5
    height: float = 0.5
    depth: float = 0.5
    taper: float = 0.0
    roundness: float = 2.0
    hole: float = 0.0

    def at_least(self, least: float) -> "Proportion":
        """The same, no half side smaller than that; rings stay as they are."""
        if self.hole > 0:
            return self
        sides = {name: max(getattr(self, name), least) for name in ("width", "height", "depth")}
        return replace(self, **sides)


def blob_logits(
    proportion: Proportion,
    size: int,
    slope: float = SLOPE,
    center: Sequence[float] = (0.0, 0.0, 0.0),
    scale: float = 1.0,
) -> Float[Tensor, "1 1 size size size"]:
    """Density logits of a blob: 0 on its surface, falling by about `slope` a unit of length.

    It is `scale` times as large as its proportion says, around `center`.
    """
    x, y, z = ((vertices(size) - torch.tensor(center)) / scale).unbind(dim=-1)
    widening = 1 - proportion.taper * (y / proportion.height).clamp(-1, 1)
    across = [x / (proportion.width * widening), z / (proportion.depth * widening)]
    smallest = min(proportion.width, proportion.height, proportion.depth)
    if proportion.hole > 0:
        rim = (1 - proportion.hole) / 2
        across = [(torch.hypot(*across) - (1 - rim)) / rim]
        smallest = min(proportion.height, rim * proportion.width, rim * proportion.depth)
    scaled = [part.abs() + 1e-6 for part in (*across, y / proportion.height)]
    radius = sum(s**proportion.roundness for s in scaled) ** (1 / proportion.roundness)
    return (slope * scale * smallest * (1 - radius)).view(1, 1, size, size, size)
