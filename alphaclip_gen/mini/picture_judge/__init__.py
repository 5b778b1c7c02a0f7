"""The judge of pictures: a small convolutional network that names what a picture shows, and counts.

It trains nothing and guides nothing: it has its own architecture, seed, drawing and flaws, so that
its word on a generated picture is independent of the model that made it. It knows every concept of
mini's world in every style, the held-out one too.

    judge = PictureJudge.from_pretrained()
    verdict = judge.name(pictures)
    NAMES[verdict.concept[0]], verdict.number[0], ground_colors(pictures)[0]
"""

from .model import SIZE, WEIGHTS, PictureJudge, Verdict, ground_colors

__all__ = ["SIZE", "WEIGHTS", "PictureJudge", "Verdict", "ground_colors"]
