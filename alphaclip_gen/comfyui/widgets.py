"""How inputs are declared: each has a tooltip, and the same name means the same everywhere."""

from collections.abc import Iterable
from typing import Any

Widget = tuple[Any, dict[str, Any]]

CATEGORY = "AlphaCLIP"
NODE_ID = {"node": "UNIQUE_ID"}
"""The hidden input of nodes that tell the user something."""

METHODS = ("auto", "alpha weights", "training-free", "crop", "blur")
GEOMETRIES = {"center": "center", "pad": "pad", "squash": "squash", "crop to region": "region"}
"""What a user chooses, and what `preprocess` calls it."""
AS_TRAINED = "as trained"
"""The geometry that a model's own settings name."""
MODEL_GEOMETRIES = {AS_TRAINED: None, **GEOMETRIES}
IMAGE_EMBEDS, TOKENS = "image_embeds", "penultimate tokens (plus)"


def wire(kind: str, tooltip: str) -> Widget:
    """An input that only takes a wire."""
    return kind, {"tooltip": tooltip}


def number(default: float, low: float, high: float, step: float, tooltip: str) -> Widget:
    """A number with decimals."""
    limits = {"default": default, "min": low, "max": high, "step": step}
    return "FLOAT", {**limits, "tooltip": tooltip}


def whole(default: int, low: int, high: int, tooltip: str, step: int = 1) -> Widget:
    """A whole number."""
    limits = {"default": default, "min": low, "max": high, "step": step}
    return "INT", {**limits, "tooltip": tooltip}


def text(default: str, tooltip: str, several_lines: bool = False) -> Widget:
    """A text."""
    return "STRING", {"default": default, "multiline": several_lines, "tooltip": tooltip}


def choice(options: Iterable[str], tooltip: str, default: str | None = None) -> Widget:
    """One of some options."""
    listed = list(options)
    return listed, {"default": default or listed[0], "tooltip": tooltip}


def switch(tooltip: str) -> Widget:
    """Off at first."""
    return "BOOLEAN", {"default": False, "tooltip": tooltip}


def image(tooltip: str = "The reference picture, or several.") -> Widget:
    return wire("IMAGE", tooltip)


def clip_vision() -> Widget:
    return wire(
        "CLIP_VISION",
        "The tower that looks: from Load Alpha-CLIP Vision, or ComfyUI's own loaders.",
    )


def clip_vision_with_texts() -> Widget:
    return wire(
        "CLIP_VISION",
        "A tower that also reads texts, from Load Alpha-CLIP Vision: mini, a whole CLIP, or an "
        "Alpha-CLIP with the CLIP that it was tuned from under `texts`.",
    )


def focus_mask() -> Widget:
    return wire(
        "MASK",
        "What of the reference to look at: white = look here. It selects and does not blacken, and "
        "has nothing to do with where in the result something appears. All black means no region. "
        "One mask for all pictures, or one each.",
    )


def strength() -> Widget:
    return number(
        1.0, 0.0, 1.0, 0.05,
        "1 looks at the region only, 0 at all of the picture. Published Alpha-CLIP weights know "
        "only 0 and 1 well.",
    )  # fmt: skip


def invert() -> Widget:
    return switch(
        "Look at what the mask leaves out. LoadImage's mask of a cut-out subject is its background."
    )


def method() -> Widget:
    return choice(
        METHODS,
        "alpha weights: of an Alpha-CLIP. training-free: a bias in the attention of any CLIP or "
        "SigLIP. crop, blur: the picture is changed instead. auto: alpha weights where the tower "
        "has them, else training-free.",
    )


def geometry(default: str) -> Widget:
    tooltip = (
        "How the picture becomes the square that the tower sees. center cuts off the longer side's "
        "ends, pad adds gray, squash changes the aspect, crop to region cuts out the region."
    )
    if default != AS_TRAINED:
        return choice(GEOMETRIES, tooltip, default)
    own = " as trained: as the model's own settings say."
    return choice(MODEL_GEOMETRIES, tooltip + own, default)


def seed() -> Widget:
    return whole(0, 0, 2**53, "Same seed, same result.")
