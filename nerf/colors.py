"""What numbers mean as colors: sRGB and linear light, bytes, and a scale for depth."""

import numpy as np
import trimesh
from jaxtyping import Float

VIRIDIS = bytes.fromhex(
    "440154 48186a 472d7b 424086 3b528b 33638d 2c728e 26828e 21918c"
    "1f9f88 27ad81 3dbc74 5cc863 81d34d aadc32 d5e21a fde725"
)
"""Seventeen even steps of matplotlib's viridis (CC0): dark to bright, evenly to the eye."""


def as_bytes(color: Float[np.ndarray, "*shape"]) -> np.ndarray:
    """Numbers in [0, 1] as bytes, rounded."""
    return (np.clip(color, 0, 1) * 255).round().astype(np.uint8)


def to_linear(srgb: Float[np.ndarray, "*shape"]) -> Float[np.ndarray, "*shape"]:
    """Linear light of sRGB values in [0, 1] (IEC 61966-2-1)."""
    return np.where(srgb <= 0.04045, srgb / 12.92, ((srgb + 0.055) / 1.055) ** 2.4)


def to_srgb(linear: Float[np.ndarray, "*shape"]) -> Float[np.ndarray, "*shape"]:
    """sRGB values of linear light in [0, 1]."""
    bent = 1.055 * np.maximum(linear, 0.0031308) ** (1 / 2.4) - 0.055
    return np.where(linear <= 0.0031308, 12.92 * linear, bent)


def vertex_colors(mesh: trimesh.Trimesh) -> Float[np.ndarray, "vertices 3"]:
    """The colors of a mesh's vertices, in [0, 1]."""
    assert isinstance(mesh.visual, trimesh.visual.ColorVisuals)
    return np.asarray(mesh.visual.vertex_colors)[:, :3] / 255


def viridis(value: Float[np.ndarray, "*shape"]) -> Float[np.ndarray, "*shape 3"]:
    """sRGB colors in [0, 1] of numbers in [0, 1], linear between the steps of the scale."""
    steps = np.frombuffer(VIRIDIS, np.uint8).reshape(-1, 3) / 255
    place = np.linspace(0, 1, len(steps))
    return np.stack([np.interp(value, place, channel) for channel in steps.T], axis=-1)
