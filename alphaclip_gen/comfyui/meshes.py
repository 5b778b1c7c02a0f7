"""Meshes of our programs as ComfyUI's MESH and FILE_3D."""

from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from . import host
from .programs import program


def as_comfy_mesh(mesh: Any) -> Any:
    """The MESH of a trimesh.Trimesh: its surface, without colors."""
    vertices = torch.from_numpy(np.array(mesh.vertices, dtype=np.float32))
    return host.mesh(vertices, torch.from_numpy(np.array(mesh.faces, dtype=np.int64)))


def as_glb(mesh: Any) -> bytes:
    """A trimesh.Trimesh with sRGB vertex colors as a binary glTF."""
    return program("nerf").formats.write_glb(mesh)


def as_pictures(frames: list[Image.Image]) -> Float[Tensor, "frames 3 height width"]:
    """The frames of a turn as one batch in [0, 1]."""
    stacked = np.stack([np.array(frame.convert("RGB")) for frame in frames])
    return torch.from_numpy(stacked).movedim(-1, 1).float() / 255
