"""Name the parts of a picture: a box, a point, a stroke, and all of it.

Usage: python examples/01_name_regions.py [picture] [figure.png]
"""

import sys

from alphaclip_gen import (
    RegionEncoder,
    alpha_from_box,
    alpha_from_points,
    alpha_from_strokes,
    as_image,
)
from alphaclip_gen.mini.captions import all_captions
from alphaclip_gen.show import figure, lit_region


def main(picture: str = "docs/scene.png", target: str = "regions.png") -> None:
    image = as_image(picture)
    size = (image.shape[-2], image.shape[-1])
    regions = {
        "whole picture": None,
        "left half": alpha_from_box((0.0, 0.0, 0.5, 1.0), size),
        "center": alpha_from_points((0.5, 0.5), radius=0.15, size=size),
        "diagonal": alpha_from_strokes([(0.1, 0.9), (0.9, 0.1)], width=0.1, size=size),
    }
    texts = all_captions()
    scores = RegionEncoder.from_pretrained("mini").score(image, texts, list(regions.values()))
    captions = []
    for name, row in zip(regions, scores, strict=True):
        probability, best = row.max(0)
        captions.append([name, f"{texts[int(best)]}  {probability:.2f}"])
    figure([lit_region(image, alpha) for alpha in regions.values()], captions).save(target)


if __name__ == "__main__":
    main(*sys.argv[1:])
