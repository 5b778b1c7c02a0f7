"""Which vision towers a pipeline can work with, and a tower made to fit where it can be."""

from typing import Any, NamedTuple

from transformers import PreTrainedModel

from .attention_focus import FOCUSED, focus_attention
from .exporting import to_stock
from .families import Place, resizes_itself, wraps_its_tower
from .published import B16, L14, L14_336
from .vision import (
    AlphaCLIPVisionModel,
    AlphaCLIPVisionModelWithProjection,
    heeds_alpha,
)

TAKE_ALPHA = (AlphaCLIPVisionModel, AlphaCLIPVisionModelWithProjection, *FOCUSED.values())


class Shape(NamedTuple):
    """The sizes of a tower that a pipeline may be tied to; projection 0 is none."""

    width: int
    tokens: int
    projection: int

    def __str__(self) -> str:
        last = f"projection {self.projection}" if self.projection else "no projection"
        return f"width {self.width}, {self.tokens} tokens and {last}"


PUBLISHED = {
    f"Alpha-CLIP {one.name}": Shape(one.width, one.tokens, one.projection)
    for one in (B16, L14, L14_336)
}


def shape_of(tower: Any) -> Shape:
    """The sizes of a CLIP or SigLIP vision tower."""
    embeddings = getattr(tower, "vision_model", tower).embeddings
    projection = getattr(tower, "visual_projection", None)
    return Shape(
        tower.config.hidden_size,
        embeddings.num_positions,
        0 if projection is None else projection.out_features,
    )


def taking_alpha(tower: Any) -> PreTrainedModel:
    """The tower itself if it heeds alpha, else one made to follow it without training.

    A plain CLIP that `load_tower` gave alpha weights has them all zero: it heeds nothing yet.
    """
    if isinstance(tower, TAKE_ALPHA):
        return tower if heeds_alpha(tower) else focus_attention(to_stock(tower))
    if type(tower) in FOCUSED:
        return focus_attention(tower)
    raise TypeError(
        f"tower is a {type(tower).__name__}; expected an Alpha-CLIP vision model, a baseline "
        f"or one of {', '.join(kind.__name__ for kind in FOCUSED)}."
    )


def fitting(pipe: Any, place: Place, own: Any, tower: Any) -> Any:
    """The tower, without its projection where the pipeline wants none; raises if it cannot fit.

    Args:
        pipe: as in `focus`.
        place: of its tower.
        own: the tower that it came with.
        tower: one that takes alpha.
    """
    if not hasattr(own, "visual_projection"):
        tower = getattr(tower, "vision_model", tower)
    needs, wanted, got = _needs(pipe, place, own), shape_of(own), shape_of(tower)

    def fits(shape: Shape) -> bool:
        return all(getattr(shape, need) == getattr(wanted, need) for need in needs)

    if fits(got):
        return tower
    known = [name for name, shape in PUBLISHED.items() if fits(shape)]
    raise ValueError(
        f"tower ({type(tower).__name__}) has {got}; {type(pipe).__name__} needs the "
        f"{' and '.join(needs)} of its own {type(own).__name__}, which has {wanted}. "
        f"{' and '.join(known) or 'No published Alpha-CLIP'} would fit; focus(pipe) without a "
        f"tower focuses its own, without training."
    )


def _needs(pipe: Any, place: Place, own: Any) -> list[str]:
    """Which fields of its own tower's Shape the pipeline is tied to."""
    if wraps_its_tower(place.owner):
        return ["width"]
    if not hasattr(own, "visual_projection"):
        return ["width", "tokens"]
    needs = ["projection"]
    adapters = getattr(getattr(pipe, "unet", None), "encoder_hid_proj", None)
    layers = getattr(adapters, "image_projection_layers", [])
    if any(not hasattr(layer, "image_embeds") for layer in layers):
        needs.append("width")  # IP-Adapter Plus reads the tokens
    if resizes_itself(pipe) or getattr(pipe, "safety_checker", None) is not None:
        needs.append("tokens")  # a safety checker shares the processor, and has a size of its own
    return needs
