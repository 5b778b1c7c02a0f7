"""The implicit field: two small networks decode the voxels, so nearby voxels learn together.

Positions of the grid's vertices, encoded by sines and cosines (NeRF, arXiv 2003.08934, equation 4),
pass through one network for density and one for color, three layers each; the decoded grids are
rendered as those of the explicit field (PureCLIPNeRF, arXiv 2209.15172). What the networks say is
added to a blob, or to haze; at the beginning they say nothing.
"""

import copy
import math

import torch
from jaxtyping import Float
from torch import Tensor, nn

from blobs import Proportion, blob_logits
from field import FieldSettings, Volume, as_volume, color_logits
from grids import vertices


class ImplicitField(nn.Module):
    """A field whose parameters are two networks, `density` and `color`.

    Args:
        settings: of the field.
        proportion: of the blob that the networks change; None for haze.
        base_color: of the blob or the haze.
        generator: of the networks' first weights, on the CPU.
    """

    def __init__(
        self,
        settings: FieldSettings,
        proportion: Proportion | None,
        base_color: Float[Tensor, "3"],
        generator: torch.Generator,
    ) -> None:
        super().__init__()
        inputs = 3 + 6 * settings.frequencies
        self.density = network(inputs, settings.width, 1, generator).to(base_color.device)
        self.color = network(inputs, settings.width, 3, generator).to(base_color.device)
        self.settings = settings
        self.proportion = proportion
        self.base_color = base_color
        self.sizes = settings.density_sizes[0], settings.color_sizes[0]

    def parts(self) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
        """The parameters of density and those of color."""
        return list(self.density.parameters()), list(self.color.parameters())

    def volume(self, sharpness: float = 1.0) -> Volume:
        """The decoded grids, smoothed and mirrored; differentiable in the parameters."""
        size, color_size = self.sizes
        base = torch.zeros(1, 1, size, size, size, device=self.base_color.device)
        if self.proportion is not None:
            blob = blob_logits(self.proportion, size).to(base) - self.settings.shift
            base = blob.clamp(-self.settings.limit, self.settings.limit)
        density = base + self._decoded(self.density, size)
        color = color_logits(self.base_color) + self._decoded(self.color, color_size)
        return as_volume(density, color, self.settings, sharpness)

    def grown(self, density_size: int, color_size: int) -> "ImplicitField":
        """The same networks, decoded on finer grids, less the settings' drop."""
        finer = copy.copy(self)
        finer.sizes = density_size, color_size
        last = self.density[-1]
        assert isinstance(last, nn.Linear)
        with torch.no_grad():
            last.bias.sub_(self.settings.growth_drop)
        return finer

    def clamp(self) -> None:
        """Nothing: networks need no limit."""

    def _decoded(self, decoder: nn.Module, size: int) -> Float[Tensor, "1 channels z y x"]:
        """What a network says at the vertices of the ball that is rendered, 0 elsewhere.

        It is held within the settings' limit, smoothly: a density beyond all measure would have no
        gradient to come back by.
        """
        places = vertices(size, self.base_color.device)
        inside = places.square().sum(dim=-1).sqrt() <= 1 + 2 * 3**0.5 / (size - 1)
        limit = self.settings.limit
        values = decoder(encoded(places[inside], self.settings.frequencies))
        values = limit * (values / limit).tanh()
        grid = values.new_zeros(size, size, size, values.shape[1])
        grid[inside] = values
        return grid.permute(3, 0, 1, 2)[None]


def encoded(
    points: Float[Tensor, "points 3"], frequencies: int
) -> Float[Tensor, "points features"]:
    """The points, and sin and cos of their coordinates times pi, 2 pi, 4 pi ..."""
    scales = math.pi * 2.0 ** torch.arange(frequencies, device=points.device)
    angles = (points[:, None, :] * scales[:, None]).flatten(1)
    return torch.cat([points, angles.sin(), angles.cos()], dim=1)


def network(inputs: int, width: int, outputs: int, generator: torch.Generator) -> nn.Sequential:
    """Three layers with ReLU between them (He et al. weights); the last one begins as zeros."""
    sizes = ((inputs, width), (width, width), (width, outputs))
    layers = [nn.utils.skip_init(nn.Linear, before, after) for before, after in sizes]
    with torch.no_grad():
        for layer in layers:
            nn.init.zeros_(layer.bias)
        for layer in layers[:2]:
            nn.init.kaiming_uniform_(layer.weight, nonlinearity="relu", generator=generator)
        nn.init.zeros_(layers[2].weight)
    return nn.Sequential(layers[0], nn.ReLU(), layers[1], nn.ReLU(), layers[2])
