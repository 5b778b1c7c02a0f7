"""The network of the judge, and its word on pictures and on meshes."""

from pathlib import Path
from typing import NamedTuple

import torch
import trimesh
from jaxtyping import Float
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from ...whole_files import whole_file
from ..captions import COLORS, SHAPES, caption
from ..solid_meshes import fit_unit_ball
from ..splat import ColorSpace, Light, Render, render_mesh

WEIGHTS = Path(__file__).parents[2] / "weights" / "judge"
SIZE = 64
TURNTABLE = tuple(45.0 * view for view in range(8))


class Verdict(NamedTuple):
    """What the judge says: a name, and the log-probability of each of `captions.all_captions()`."""

    shape: str
    color: str
    log_probabilities: Float[Tensor, " captions"]

    @property
    def caption(self) -> str:
        """For example "a red cone"."""
        return caption(self.shape, self.color)


class Judge(nn.Module):
    """Shape and color logits of 64-pixel pictures in [0, 1]."""

    def __init__(self, width: int = 32) -> None:
        super().__init__()
        self.body = nn.Sequential(
            _block(3, width // 2, 2),
            _block(width // 2, width, 2),
            _block(width, width, 1),
            _block(width, 2 * width, 2),
            _block(2 * width, 2 * width, 1),
            _block(2 * width, 4 * width, 2),
            _block(4 * width, 4 * width, 1),
        )
        self.shape_head = nn.Linear(8 * width, len(SHAPES))
        self.color_head = nn.Linear(8 * width, len(COLORS))

    @classmethod
    def from_pretrained(cls, folder: str | Path = WEIGHTS) -> "Judge":
        """The trained judge, in evaluation mode; without an argument the one that is shipped.

        Raises:
            FileNotFoundError: no weights in the folder.
            RuntimeError: weights of something else.
        """
        path = Path(folder) / "judge.safetensors"
        if not path.is_file():
            raise FileNotFoundError(
                f"no judge.safetensors in {Path(folder)}; "
                "python -m alphaclip_gen.mini.judge trains one."
            )
        weights = load_file(path)
        judge = cls(width=len(weights["body.1.0.weight"]))
        judge.load_state_dict(weights)
        return judge.eval()

    def save_pretrained(self, folder: str | Path) -> Path:
        """The file with the weights, in half precision."""
        path = Path(folder) / "judge.safetensors"
        weights = {
            name: value.half() if value.is_floating_point() else value
            for name, value in self.state_dict().items()
        }
        with whole_file(path) as part:
            save_file(weights, part)
        return path

    def forward(
        self, images: Float[Tensor, "views 3 64 64"]
    ) -> tuple[Float[Tensor, "views shapes"], Float[Tensor, "views colors"]]:
        features = self.body(images * 2 - 1)
        pooled = torch.cat([features.mean(dim=(2, 3)), features.amax(dim=(2, 3))], dim=1)
        return self.shape_head(pooled), self.color_head(pooled)

    @torch.no_grad()
    def name(self, images: Float[Tensor, "..."]) -> Verdict:
        """The verdict on one object; the log-probabilities of its views are averaged.

        Args:
            images: (views, 3, 64, 64), values in [0, 1].

        Raises:
            ValueError: pictures of another shape.
        """
        if images.ndim != 4 or images.shape[1:] != (3, SIZE, SIZE) or len(images) == 0:
            raise ValueError(
                f"images have shape {tuple(images.shape)}; expected (views, 3, {SIZE}, {SIZE}). "
                "judge_mesh() renders them from a mesh."
            )
        shapes, colors = (logits.log_softmax(dim=1).mean(dim=0) for logits in self(images))
        joint = (shapes[:, None] + colors[None, :]).flatten().log_softmax(dim=0)
        best = int(joint.argmax())
        return Verdict(list(SHAPES)[best // len(COLORS)], list(COLORS)[best % len(COLORS)], joint)


def judge_mesh(
    judge: Judge,
    mesh: trimesh.Trimesh,
    *,
    color_space: ColorSpace = "srgb",
    elevation: float = 25.0,
) -> Verdict:
    """The verdict on a mesh of any size and place (+Y up), from 8 turntable views.

    Args:
        judge: see `Judge.from_pretrained`.
        mesh: with vertex colors.
        color_space: how the mesh stores them, see `render_mesh`.
        elevation: of the camera, in degrees.
    """
    views = turntable(mesh, color_space=color_space, elevation=elevation)
    return judge.name(views.over(0.72))


def turntable(
    mesh: trimesh.Trimesh,
    *,
    color_space: ColorSpace = "srgb",
    elevation: float = 25.0,
    light: Light | None = Light(),  # noqa: B008 (frozen)
    size: int = SIZE,
) -> Render:
    """The 8 views that `judge_mesh` shows to the judge; for another judge, of another size."""
    return render_mesh(
        fit_unit_ball(mesh),
        TURNTABLE,
        elevation,
        (size, size),
        distance=3.7,
        light=light,
        color_space=color_space,
    )


def _block(inputs: int, outputs: int, stride: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False),
        nn.BatchNorm2d(outputs),
        nn.SiLU(),
    )
