"""Nodes that look at a region: load a tower, bind a region, encode it, name it, show the look."""

from typing import Any

from . import widgets as w


class LoadVision:
    """A tower as CLIP_VISION: mini, or a file of models/clip_vision."""

    CATEGORY = w.CATEGORY
    FUNCTION = "run"
    DESCRIPTION = (
        "A CLIP_VISION from a published Alpha-CLIP (.pth), OpenAI's CLIP, or mini, which is part "
        "of the pack and knows its own small world. ViT-H and bigG come by the core's Load CLIP "
        "Vision. Published Alpha-CLIP weights are for research only (CC BY-NC 4.0)."
    )
    RETURN_TYPES = ("CLIP_VISION",)
    RETURN_NAMES = ("clip_vision",)
    OUTPUT_TOOLTIPS = ("For every node that takes a CLIP_VISION of this size.",)

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        from .host import vision_files

        files = vision_files()
        return {
            "required": {
                "model": w.choice(["mini", *files], "mini, or a file of models/clip_vision."),
                "texts": w.choice(
                    ["its own", *files],
                    "Where the text tower comes from: the file of the whole CLIP that the model "
                    "was tuned from (with clip_l14_... goes ViT-L-14.pt). Only Score Region, "
                    "Region from Text, Text to 3D and the text of Attention Map need it.",
                ),
            }
        }

    def run(self, model: str, texts: str) -> tuple:
        from .vision import load_vision

        return (load_vision(model, texts),)


class Focus:
    """A CLIP_VISION that carries a region into every node that takes one."""

    CATEGORY = w.CATEGORY
    FUNCTION = "run"
    DESCRIPTION = (
        "Binds a region into a CLIP_VISION. Whatever node it goes to (CLIP Vision Encode, "
        "unCLIP, style models, StableZero123, Hunyuan3D, IPAdapter) then looks at that part of the "
        "reference. Not with tiled encoding."
    )
    RETURN_TYPES = ("CLIP_VISION",)
    RETURN_NAMES = ("clip_vision",)
    OUTPUT_TOOLTIPS = ("The same tower with the region; the one that came in is not changed.",)

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {
            "required": {
                "clip_vision": w.clip_vision(),
                "focus_mask": w.focus_mask(),
                "strength": w.strength(),
                "invert": w.invert(),
                "method": w.method(),
            },
            "hidden": w.NODE_ID,
        }

    def run(
        self,
        clip_vision: Any,
        focus_mask: Any,
        strength: float,
        invert: bool,
        method: str,
        node: str | None = None,
    ) -> tuple:
        from .focus import focus_vision
        from .host import warnings_on
        from .masks import region

        with warnings_on(node):
            alpha = region(focus_mask, strength, invert)
            return (focus_vision(clip_vision, alpha, method),)


class EncodeRegion:
    """A region of a picture as CLIP_VISION_OUTPUT and as EMBEDS."""

    CATEGORY = w.CATEGORY
    FUNCTION = "run"
    DESCRIPTION = (
        "Encodes a region, with a choice of how the picture becomes a square, and shows what the "
        "tower saw. EMBEDS go to IPAdapter Embeds: positive to pos_embed, negative to neg_embed."
    )
    RETURN_TYPES = ("CLIP_VISION_OUTPUT", "EMBEDS", "EMBEDS", "IMAGE")
    RETURN_NAMES = ("clip_vision_output", "positive", "negative", "preview")
    OUTPUT_TOOLTIPS = (
        "For unCLIPConditioning, StyleModelApply and others.",
        "For IPAdapter Embeds.",
        "What IPAdapter calls its negative: of no picture.",
        "What the tower saw: lit where it was attended to.",
    )

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {
            "required": {
                "clip_vision": w.clip_vision(),
                "image": w.image(),
                "focus_mask": w.focus_mask(),
                "geometry": w.geometry("center"),
                "strength": w.strength(),
                "invert": w.invert(),
                "method": w.method(),
                "embeds": w.choice(
                    [w.IMAGE_EMBEDS, w.TOKENS],
                    "What the EMBEDS are: image_embeds for plain IPAdapters, the tokens before the "
                    "last layer for 'plus' ones.",
                ),
            },
            "hidden": w.NODE_ID,
        }

    def run(
        self,
        clip_vision: Any,
        image: Any,
        focus_mask: Any,
        geometry: str,
        strength: float,
        invert: bool,
        method: str,
        embeds: str,
        node: str | None = None,
    ) -> tuple:
        from .encoding import encode_region
        from .host import warnings_on
        from .masks import reference

        with warnings_on(node):
            pictures, alpha = reference(image, focus_mask, strength, invert)
            return tuple(encode_region(clip_vision, pictures, alpha, geometry, method, embeds))


class ScoreRegion:
    """Which of some texts names a region best."""

    CATEGORY = w.CATEGORY
    FUNCTION = "run"
    DESCRIPTION = "Which of some texts names a region best, and how likely each one is."
    RETURN_TYPES = ("STRING", "STRING", "FLOAT")
    RETURN_NAMES = ("best_text", "table", "score")
    OUTPUT_TOOLTIPS = (
        "The best text; of several regions one a line.",
        "All texts with their probabilities, as Markdown.",
        "The best text's probability; of several regions the first one's.",
    )

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {
            "required": {
                "clip_vision": w.clip_vision_with_texts(),
                "image": w.image("The picture, or several."),
                "focus_mask": w.focus_mask(),
                "texts": w.text(
                    "a red sphere\na cyan cube\na yellow torus", "Two or more, one a line.", True
                ),
                "strength": w.strength(),
                "invert": w.invert(),
            },
            "hidden": w.NODE_ID,
        }

    def run(
        self,
        clip_vision: Any,
        image: Any,
        focus_mask: Any,
        texts: str,
        strength: float,
        invert: bool,
        node: str | None = None,
    ) -> tuple:
        from .entries import lines_of
        from .host import warnings_on
        from .masks import reference
        from .scoring import name_regions
        from .vision import encoder_of

        with warnings_on(node):
            pictures, alpha = reference(image, focus_mask, strength, invert)
            named = name_regions(encoder_of(clip_vision), pictures, alpha, lines_of(texts))
        return "\n".join(named.best), named.table, named.score


class AttentionMap:
    """Where a tower looks."""

    CATEGORY = w.CATEGORY
    FUNCTION = "run"
    DESCRIPTION = (
        "Where the tower looks: how much each place of the picture counts for what it says "
        "(gradient-weighted attention, Chefer et al. 2021). The whole picture is squashed to a "
        "square for it."
    )
    RETURN_TYPES = ("IMAGE", "MASK")
    RETURN_NAMES = ("heat", "mask")
    OUTPUT_TOOLTIPS = ("The picture under a heat map.", "The heat map: the hottest place is 1.")

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {
            "required": {
                "clip_vision": w.clip_vision(),
                "image": w.image(),
                "focus_mask": w.focus_mask(),
                "strength": w.strength(),
                "invert": w.invert(),
                "method": w.choice(w.METHODS[:3], w.method()[1]["tooltip"]),
                "text": w.text(
                    "",
                    "Shows where this is seen. Empty: where the tower looks by itself. Needs a "
                    "tower that reads texts.",
                ),
            },
            "hidden": w.NODE_ID,
        }

    def run(
        self,
        clip_vision: Any,
        image: Any,
        focus_mask: Any,
        strength: float,
        invert: bool,
        method: str,
        text: str,
        node: str | None = None,
    ) -> tuple:
        from .host import Progress, warnings_on
        from .looking import heated, look_at
        from .masks import as_comfy_image, as_comfy_mask, reference
        from .vision import encoder_of

        with warnings_on(node):
            pictures, alpha = reference(image, focus_mask, strength, invert)
            encoder = encoder_of(clip_vision) if text.strip() else None
            progress = Progress(len(pictures))
            heat = look_at(clip_vision, pictures, alpha, method, text, encoder, progress)
        return as_comfy_image(heated(pictures, heat)), as_comfy_mask(heat)


NODES: dict[str, tuple[type, str]] = {
    "AlphaCLIPLoadVision": (LoadVision, "Load Alpha-CLIP Vision"),
    "AlphaCLIPFocus": (Focus, "Focus CLIP Vision"),
    "AlphaCLIPEncodeRegion": (EncodeRegion, "Encode Region"),
    "AlphaCLIPScoreRegion": (ScoreRegion, "Score Region"),
    "AlphaCLIPAttentionMap": (AttentionMap, "Attention Map"),
}
