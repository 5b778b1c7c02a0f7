"""Judges that name meshes: the shipped one of mini's solids, or any CLIP that did not guide."""

import json
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
import trimesh
from jaxtyping import Float
from torch import Tensor

from .encoder import RegionEncoder
from .made_meshes import words
from .mini.captions import COLOR_WORDS, COLORS, SHAPES, all_captions, caption
from .mini.judge import WEIGHTS, Judge, judge_mesh, turntable
from .mini.splat import ColorSpace

SOLIDS = "solids"
"""The shipped judge's name."""

PUBLISHED = (
    "Published for the 153 prompts of Dream Fields, guided by B/16 at 168 pixels for 10 000 steps "
    "and scored by B/32: CLIP 85.62, Alpha-CLIP 88.89 (arXiv 2312.03818).\n"
)


class MeshJudge(NamedTuple):
    """Names meshes among captions."""

    captions: Sequence[str]
    probability: Callable[[trimesh.Trimesh], Float[Tensor, " captions"]]
    """How likely each caption names a mesh."""
    about: str = ""
    """How good it is: a line of a page."""

    def asked(self, prompt: str) -> str:
        """The caption that a prompt asks for."""
        return prompt if prompt in self.captions else caption(*target(prompt))


def open_judge(
    name: str, pretrained: str | None, prompts: Sequence[str], color_space: ColorSpace
) -> MeshJudge:
    """The judge of solids, or a CLIP that looks for captions among the prompts.

    Raises:
        ValueError: the judge of solids has no caption for a prompt.
        FileNotFoundError: there is no such CLIP.
    """
    if name == SOLIDS:
        for prompt in prompts:
            target(prompt)
        judge = solid_judge(Judge.from_pretrained(), color_space)
    else:
        encoder = RegionEncoder.from_pretrained(name, pretrained)
        judge = retrieval_judge(encoder, prompts, color_space)
    return judge._replace(about=about(name, pretrained))


def solid_judge(judge: Judge, color_space: ColorSpace = "linear") -> MeshJudge:
    """Names meshes among mini's captions."""

    def probability(mesh: trimesh.Trimesh) -> Tensor:
        return judge_mesh(judge, mesh, color_space=color_space).log_probabilities.exp()

    return MeshJudge(all_captions(), probability)


def retrieval_judge(
    encoder: RegionEncoder, prompts: Sequence[str], color_space: ColorSpace = "linear"
) -> MeshJudge:
    """Names meshes among the prompts: softmax of similarities, the mean of 8 views over white.

    Args:
        encoder: a CLIP that did not guide; the whole picture counts, no alpha map.
        prompts: all of the evaluation.
        color_space: how meshes store their vertex colors.
    """
    texts = encoder.embed_texts(list(prompts))

    @torch.no_grad()
    def probability(mesh: trimesh.Trimesh) -> Tensor:
        views = turntable(mesh, color_space=color_space, size=encoder.size).over(1.0)
        similarity = encoder.embed(views.to(texts)) @ texts.T
        return (encoder.logit_scale * similarity).softmax(1).mean(0).cpu()

    return MeshJudge(prompts, probability)


def target(prompt: str) -> tuple[str, str]:
    """The solid and the color that a prompt names.

    Raises:
        ValueError: it names none, or several.
    """
    said = set(words(prompt))
    shapes = [shape for shape, names in SHAPES.items() if said & set(names)]
    colors = [color for color, names in COLOR_WORDS.items() if said & set(names)]
    if len(shapes) != 1 or len(colors) != 1:
        raise ValueError(
            f"prompt {prompt!r} names the solids {shapes} and the colors {colors}; expected one of "
            f"each. The judge knows {', '.join(SHAPES)} in {', '.join(COLORS)}; --judge takes any "
            "CLIP for other prompts."
        )
    return shapes[0], colors[0]


def about(judge: str, pretrained: str | None = None) -> str:
    """How good the judge of solids is on its own held-out meshes; of a CLIP, what is published."""
    if judge != SOLIDS:
        name = f"{judge} ({pretrained})" if pretrained else judge
        return f"Judge: {name}, which must not have guided. {PUBLISHED}"
    figures = json.loads((WEIGHTS / "judge.json").read_text())["held_out"]
    parts = (
        f"{part['one_view']:.2f} of single views and {part['eight_views']:.2f} of objects from "
        f"eight sides ({kind})"
        for kind, part in figures.items()
    )
    return (
        "Judge: a network that guided nothing, trained on other meshes by another renderer; on "
        f"meshes held out from that it names {', '.join(parts)}.\n"
    )
