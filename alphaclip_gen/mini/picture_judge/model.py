"""The network of the judge of pictures, its word (what, how many), and the color of a ground."""

from pathlib import Path
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from ...whole_files import whole_file
from ..captions import COLORS
from ..concepts import NAMES
from ..world import oklab

WEIGHTS = Path(__file__).parents[2] / "weights" / "picture-judge"
SIZE = 64
COUNTS = (1, 2, 3)
_BORDER = 3  # pixels along the edge that show the ground


class Verdict(NamedTuple):
    """What the judge says of each picture.

    Attributes:
        concept: what it shows most likely, an index into `concepts.NAMES`.
        number: how many of it, 1 to 3.
        probability: of each of `concepts.NAMES`.
    """

    concept: Int[Tensor, " pictures"]
    number: Int[Tensor, " pictures"]
    probability: Float[Tensor, "pictures concepts"]


class PictureJudge(nn.Module):
    """Logits of concepts and of counts for 64-pixel pictures in [0, 1]."""

    def __init__(self, width: int = 32) -> None:
        super().__init__()
        self.stem = _normed(3, width, 3, 2)
        self.body = nn.Sequential(
            Residual(width, 2 * width, 2),
            Residual(2 * width, 2 * width),
            Residual(2 * width, 4 * width, 2),
            Residual(4 * width, 4 * width),
            Residual(4 * width, 6 * width, 2),
        )
        self.concept_head = nn.Linear(12 * width, len(NAMES))
        self.count_head = nn.Linear(12 * width, len(COUNTS))

    @classmethod
    def from_pretrained(cls, folder: str | Path = WEIGHTS) -> "PictureJudge":
        """The trained judge, in evaluation mode; without an argument the one that is shipped.

        Raises:
            FileNotFoundError: no weights in the folder.
            RuntimeError: weights of something else.
        """
        path = Path(folder) / "judge.safetensors"
        if not path.is_file():
            raise FileNotFoundError(
                f"there is no judge.safetensors in {str(folder)!r}; "
                f"python -m alphaclip_gen.mini.picture_judge trains one."
            )
        weights = load_file(path)
        judge = cls(width=len(weights["stem.0.weight"]))
        judge.load_state_dict(weights)
        return judge.eval()

    def save_pretrained(self, folder: str | Path) -> Path:
        """The file with the weights, in half precision."""
        path = Path(folder) / "judge.safetensors"
        state = self.state_dict().items()
        halves = {k: v.half() if v.is_floating_point() else v for k, v in state}
        with whole_file(path) as part:
            save_file(halves, part)
        return path

    def forward(
        self, images: Float[Tensor, "pictures 3 64 64"]
    ) -> tuple[Float[Tensor, "pictures concepts"], Float[Tensor, "pictures counts"]]:
        features = self.body(torch.relu(self.stem(images * 2 - 1)))
        pooled = torch.cat([features.mean((2, 3)), features.amax((2, 3))], dim=1)
        return self.concept_head(pooled), self.count_head(pooled)

    @torch.no_grad()
    def name(self, images: Float[Tensor, "..."]) -> Verdict:
        """The verdict on each picture.

        Args:
            images: (pictures, 3, 64, 64), values in [0, 1].

        Raises:
            ValueError: pictures of another shape.
        """
        if images.ndim != 4 or images.shape[1:] != (3, SIZE, SIZE) or len(images) == 0:
            raise ValueError(
                f"images have shape {tuple(images.shape)}; expected (pictures, 3, {SIZE}, {SIZE}). "
                f"framing.resize() makes them of that size."
            )
        parts = [self(part) for part in images.split(256)]
        concepts, counts = (torch.cat(logits) for logits in zip(*parts, strict=True))
        return Verdict(concepts.argmax(1), 1 + counts.argmax(1), concepts.softmax(1))


class Residual(nn.Module):
    """Two convolutions beside a shorter way."""

    def __init__(self, inputs: int, outputs: int, stride: int = 1) -> None:
        super().__init__()
        self.first = _normed(inputs, outputs, 3, stride)
        self.second = _normed(outputs, outputs, 3)
        same = inputs == outputs and stride == 1
        self.shorter = nn.Identity() if same else _normed(inputs, outputs, 1, stride)

    def forward(self, features: Tensor) -> Tensor:
        change = self.second(torch.relu(self.first(features)))
        return torch.relu(change + self.shorter(features))


def _normed(inputs: int, outputs: int, side: int, stride: int = 1) -> nn.Sequential:
    convolution = nn.Conv2d(inputs, outputs, side, stride, padding=side // 2, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(outputs))


def ground_colors(
    images: Float[Tensor, "pictures 3 height width"],
) -> Int[Tensor, " pictures"]:
    """The color of each picture's ground, an index into `captions.COLORS`; nothing is learned.

    It is the name nearest in OKLab to the median of the pixels along the edge.
    """
    inner = torch.ones(images.shape[-2:], dtype=torch.bool)
    inner[_BORDER:-_BORDER, _BORDER:-_BORDER] = False
    median = images[:, :, inner].median(dim=2).values.float().clamp(0, 1)
    names = oklab(torch.tensor(list(COLORS.values())))
    return torch.cdist(oklab(median), names).argmin(1)
