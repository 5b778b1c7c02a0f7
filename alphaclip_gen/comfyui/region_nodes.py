"""Nodes that say what of a picture is meant, and one that brings a picture."""

from typing import Any

from . import widgets as w

UNITS = ["fractions", "pixels"]
UNIT_TOOLTIP = "Whether coordinates are fractions of the picture (0 to 1) or pixels."


class RegionFromBox:
    """A rectangle of a picture as a mask."""

    CATEGORY = w.CATEGORY
    FUNCTION = "run"
    DESCRIPTION = "A MASK of a rectangle, of the picture's size."
    RETURN_TYPES = ("MASK",)
    RETURN_NAMES = ("focus_mask",)
    OUTPUT_TOOLTIPS = ("White inside the box; a pixel that is covered in part is gray.",)

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        place = (0.0, 100000.0, 0.01)
        return {
            "required": {
                "image": w.image("The picture that the box is on."),
                "left": w.number(0.25, *place, "Left side."),
                "top": w.number(0.25, *place, "Upper side."),
                "right": w.number(0.75, *place, "Right side."),
                "bottom": w.number(0.75, *place, "Lower side."),
                "unit": w.choice(UNITS, UNIT_TOOLTIP),
            }
        }

    def run(
        self, image: Any, left: float, top: float, right: float, bottom: float, unit: str
    ) -> tuple:
        from ..regions import alpha_from_box
        from .entries import box_of
        from .masks import as_comfy_mask, size_of

        size = size_of(image)
        box = box_of(left, top, right, bottom, unit, size)
        return (as_comfy_mask(alpha_from_box(box, size, unit)),)


class RegionFromPoints:
    """Soft discs around points of a picture as a mask."""

    CATEGORY = w.CATEGORY
    FUNCTION = "run"
    DESCRIPTION = "A MASK of soft discs around points, of the picture's size."
    RETURN_TYPES = ("MASK",)
    RETURN_NAMES = ("focus_mask",)
    OUTPUT_TOOLTIPS = ("White around the points.",)

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {
            "required": {
                "image": w.image("The picture that the points are on."),
                "points": w.text(
                    "0.5, 0.5", "One point a line: x, y from the upper left corner.", True
                ),
                "radius": w.number(
                    0.15, 0.001, 100000.0, 0.01,
                    "Of the discs; fractions are of the shorter side.",
                ),
                "softness": w.number(0.5, 0.0, 2.0, 0.05, "0 is a sharp edge, 2 a cone."),
                "unit": w.choice(UNITS, UNIT_TOOLTIP),
            }
        }  # fmt: skip

    def run(self, image: Any, points: str, radius: float, softness: float, unit: str) -> tuple:
        from ..regions import alpha_from_points
        from .entries import points_of
        from .masks import as_comfy_mask, size_of

        size, places = size_of(image), points_of(points, unit)
        return (as_comfy_mask(alpha_from_points(places, radius, size, unit, softness)),)


class RegionFromText:
    """The region of a picture that a phrase fits best, as a mask."""

    CATEGORY = w.CATEGORY
    FUNCTION = "run"
    DESCRIPTION = (
        "A MASK of the region that a phrase fits best: of the candidates, or of windows of many "
        "sizes, the best of which is refined."
    )
    RETURN_TYPES = ("MASK", "FLOAT")
    RETURN_NAMES = ("focus_mask", "score")
    OUTPUT_TOOLTIPS = (
        "The best region, of the picture's size.",
        "The text's probability among the others; without others its cosine.",
    )

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {
            "required": {
                "clip_vision": w.clip_vision_with_texts(),
                "image": w.image("The picture to search; of several, the first."),
                "text": w.text("a red sphere", "What to look for."),
                "others": w.text("", "What else is to be seen, one text a line. Helps much.", True),
            },
            "optional": {
                "candidates": w.wire(
                    "MASK", "Regions to choose from, such as the masks of a segmenter."
                ),
            },
            "hidden": w.NODE_ID,
        }

    def run(
        self,
        clip_vision: Any,
        image: Any,
        text: str,
        others: str,
        candidates: Any = None,
        node: str | None = None,
    ) -> tuple:
        from . import masks
        from .entries import lines_of
        from .host import Progress, warnings_on
        from .locating import find_region, most_regions
        from .vision import encoder_of

        with warnings_on(node):
            encoder, picture = encoder_of(clip_vision), masks.picture(image[:1])
            size = masks.size_of(image)
            regions = None if candidates is None else masks.candidates(candidates, size)
            report = Progress(most_regions() if regions is None else len(regions))
            alpha, score = find_region(encoder, picture, text, lines_of(others), regions, report)
        return masks.as_comfy_mask(alpha), score


class ExamplePicture:
    """A picture that the pack brings."""

    CATEGORY = w.CATEGORY
    FUNCTION = "run"
    DESCRIPTION = "A picture that the pack brings, for workflows that run without downloads."
    RETURN_TYPES = ("IMAGE",)
    RETURN_NAMES = ("image",)
    OUTPUT_TOOLTIPS = ("The picture.",)

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        from .examples import names

        options = names() or [""]
        return {"required": {"picture": w.choice(options, "A picture of example_workflows.")}}

    def run(self, picture: str) -> tuple:
        from .examples import example
        from .masks import as_comfy_image

        return (as_comfy_image(example(picture)),)


NODES: dict[str, tuple[type, str]] = {
    "AlphaCLIPRegionFromBox": (RegionFromBox, "Region from Box"),
    "AlphaCLIPRegionFromPoints": (RegionFromPoints, "Region from Points"),
    "AlphaCLIPRegionFromText": (RegionFromText, "Region from Text"),
    "AlphaCLIPExamplePicture": (ExamplePicture, "Example Picture (Alpha-CLIP)"),
}
