"""ComfyUI's own modules, each imported when it is needed: the only file that names them.

Everything that a node wants of the core goes through here: files, devices, progress, interrupts,
and the core's own classes.
"""

import io
import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor

logger = logging.getLogger(__name__)

CLIP_VISION_FOLDER = "clip_vision"
PIPELINES_FOLDER = "diffusers"
PREVIEW_SIDE = 512


# Files


def vision_files() -> list[str]:
    """Names of the files in models/clip_vision."""
    import folder_paths

    return list(folder_paths.get_filename_list(CLIP_VISION_FOLDER))


def vision_path(name: str) -> Path:
    """The file of a name in models/clip_vision."""
    import folder_paths

    path = folder_paths.get_full_path(CLIP_VISION_FOLDER, name)
    if path is None:
        raise FileNotFoundError(
            f"there is no {name!r} in models/{CLIP_VISION_FOLDER}; put the file there, or choose "
            f"another one."
        )
    return Path(path)


def pipeline_folders() -> list[str]:
    """Names of the diffusers pipelines in models/diffusers: folders with a model_index.json."""
    import folder_paths

    found: set[str] = set()
    for root in folder_paths.get_folder_paths(PIPELINES_FOLDER):
        for folder, below, files in os.walk(root, followlinks=True):
            if "model_index.json" in files:
                found.add(Path(folder).relative_to(root).as_posix())
                below.clear()
    return sorted(found)


def pipeline_path(name: str) -> Path:
    """The folder of a diffusers pipeline in models/diffusers."""
    import folder_paths

    roots = [Path(root) for root in folder_paths.get_folder_paths(PIPELINES_FOLDER)]
    for root in roots:
        if name and (root / name / "model_index.json").is_file():
            return root / name
    raise FileNotFoundError(
        f"there is no pipeline {name!r} in models/{PIPELINES_FOLDER}; expected a folder with a "
        f"model_index.json, as save_pretrained() or a download of the whole repository makes it."
    )


def clip_words() -> Path:
    """The folder of CLIP's vocabulary that the core brings."""
    import comfy.model_management

    return Path(comfy.model_management.__file__).parent / "sd1_tokenizer"


# Devices


def compute_device() -> torch.device:
    """Where the core computes."""
    import comfy.model_management

    return comfy.model_management.get_torch_device()


def vision_devices() -> tuple[torch.device, torch.device]:
    """Where the core computes with vision towers, and where it keeps them meanwhile."""
    import comfy.model_management as management

    return management.text_encoder_device(), management.text_encoder_offload_device()


def vision_dtype(device: torch.device) -> torch.dtype:
    """The precision of a tower's weights: the core's choice, but single on a CPU.

    The core keeps half precision on a CPU too and converts layer by layer; our towers compute in
    the precision that they are kept in.
    """
    import comfy.model_management

    if device.type == "cpu":
        return torch.float32
    dtype = comfy.model_management.text_encoder_dtype(device)
    return dtype if dtype in (torch.float32, torch.bfloat16) else torch.float16


def pipeline_dtype(device: torch.device) -> torch.dtype:
    """The precision of a diffusers pipeline there."""
    import comfy.model_management

    half = device.type != "cpu" and comfy.model_management.should_use_fp16(device)
    return torch.float16 if half else torch.float32


def patcher_of(model: torch.nn.Module) -> Any:
    """What the core moves the model by."""
    import comfy.model_patcher

    load, offload = vision_devices()
    return comfy.model_patcher.ModelPatcher(model, load_device=load, offload_device=offload)


def load(patcher: Any) -> None:
    """Nothing; the model of the patcher is where the core computes then."""
    import comfy.model_management

    comfy.model_management.load_model_gpu(patcher)


def to_host(tensor: Tensor) -> Tensor:
    """The tensor where the core keeps what passes from node to node."""
    import comfy.model_management

    return tensor.to(comfy.model_management.intermediate_device())


@contextmanager
def on_device(pipe: Any) -> Iterator[torch.device]:
    """The device on which the pipeline is meanwhile; before and after, it is in main memory."""
    import comfy.model_management as management

    device = compute_device()
    if device.type != "cpu":
        modules = [m for m in pipe.components.values() if isinstance(m, torch.nn.Module)]
        size = sum(p.numel() * p.element_size() for m in modules for p in m.parameters())
        management.free_memory(1.5 * size, device)
        pipe.to(device)
    try:
        yield device
    finally:
        if device.type != "cpu":
            pipe.to("cpu")
            management.soft_empty_cache()


# Progress


def stop_if_interrupted() -> None:
    """Nothing; raises the core's own exception if the user has pressed Cancel."""
    import comfy.model_management

    comfy.model_management.throw_exception_if_processing_interrupted()


class Progress:
    """The node's progress bar: call it with what is done; raises where the user has cancelled."""

    def __init__(self, total: int):
        import comfy.utils

        self.total = total
        self.bar = comfy.utils.ProgressBar(total)

    def __call__(self, done: int, picture: Image.Image | None = None) -> None:
        stop_if_interrupted()
        preview = None if picture is None else ("JPEG", picture, PREVIEW_SIDE)
        self.bar.update_absolute(done, self.total, preview)


def tell(message: str, node: str | None = None) -> None:
    """Nothing; a warning goes into the log, and onto the node where the core can show it."""
    logger.warning(message)
    server = getattr(sys.modules.get("server"), "PromptServer", None)
    instance: Any = getattr(server, "instance", None)
    if node is not None and hasattr(instance, "send_progress_text"):
        instance.send_progress_text(message, node)


# The core's classes


def preprocessed(
    image: Tensor, side: int, mean: list[float], std: list[float], crop: bool
) -> Tensor:
    """The pixel values that the core makes of an IMAGE for a vision tower."""
    import comfy.clip_vision

    return comfy.clip_vision.clip_preprocess(image, size=side, mean=mean, std=std, crop=crop)


def vision_output(**values: Any) -> Any:
    """A CLIP_VISION_OUTPUT with these values, which are its attributes and its keys."""
    import comfy.clip_vision

    output = comfy.clip_vision.Output()
    for name, value in values.items():
        output[name] = value
    return output


def mesh(vertices: Tensor, faces: Tensor) -> Any:
    """A MESH of (vertices, 3) positions and (faces, 3) indices."""
    try:
        from comfy_api.latest import Types

        kind: Any = Types.MESH
    except (ImportError, AttributeError):
        from comfy_extras import nodes_hunyuan3d

        kind = nodes_hunyuan3d.MESH
    return kind(vertices[None], faces[None])


def glb_file(data: bytes) -> Any:
    """A FILE_3D that holds a binary glTF; None on a core that has no such type."""
    try:
        from comfy_api.latest import Types

        kind = Types.File3D
    except (ImportError, AttributeError):
        return None
    return kind(io.BytesIO(data), "glb")
