"""mini's generator: pictures of the subject that a region of a scene points at, 64 pixels wide.

    pipe = load_generator("mini")
    pipe("two {subject} on grass", "scene.png", "thing", "thing", alpha_mask=(10, 8, 40, 44))

It is run by the pipeline class of the real BLIP-Diffusion. `lessons` are what it learns from,
`autoencoder` and `train` the two trainings, each one command.
"""

from .model import load_generator

__all__ = ["load_generator"]
