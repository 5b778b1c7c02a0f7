"""ComfyUI's own modules, each imported when it is needed: the only file that names them.

Everything that a node wants of the core goes through here: files, devices, progress, interrupts,
and the core's own classes.
"""

import io
import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor

CLIP_VISION_FOLDER = "clip_vision"
PREVIEW_SIDE = 512


# Files


def vision_files() -> list[str]:
    """Names of the files in models/clip_vision."""
    import folder_paths

    return list(folder_paths.get_filename_list(CLIP_VISION_FOLDER))


def vision_path(name: str, input_name: str = "model") -> Path:
    """The file of a name in models/clip_vision; `input_name` is the node's input that gave it."""
    import folder_paths

    path = folder_paths.get_full_path(CLIP_VISION_FOLDER, name)
    if path is None:
        raise FileNotFoundError(
            f"{input_name} is {name!r}, and there is no such file in models/{CLIP_VISION_FOLDER}; "
            f"put it there and press R, or choose another one."
        )
    return Path(path)


def input_path(name: str, input_name: str) -> Path:
    """A file in the core's input folder; `input_name` is the node's input that names it."""
    import folder_paths

    folder = Path(folder_paths.get_input_directory()).resolve()
    path = (folder / name).resolve()
    if not (path.is_relative_to(folder) and path.is_file()):
        raise FileNotFoundError(
            f"{input_name} names the file {name!r}, which is not in ComfyUI's input folder; put it "
            f"there: {folder}"
        )
    return path


def diffusers_folders() -> list[Path]:
    """The places of models/diffusers."""
    import folder_paths

    return [Path(place) for place in folder_paths.get_folder_paths("diffusers")]


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
    """Nothing; all of the patcher's model is where the core computes then."""
    import comfy.model_management

    comfy.model_management.load_models_gpu([patcher], force_full_load=True)


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
    try:
        if device.type != "cpu":
            pipe.to(device)
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


class _OnNode(logging.Handler):
    """Shows warnings on a node, where the core can do that."""

    def __init__(self, node: str | None):
        super().__init__(logging.WARNING)
        self.node = node
        self.lines: dict[str, None] = {}

    def emit(self, record: logging.LogRecord) -> None:
        self.lines[record.getMessage()] = None
        server = getattr(sys.modules.get("server"), "PromptServer", None)
        instance: Any = getattr(server, "instance", None)
        if self.node is not None and hasattr(instance, "send_progress_text"):
            instance.send_progress_text("\n".join(self.lines), self.node)


@contextmanager
def warnings_on(node: str | None) -> Iterator[None]:
    """While this holds, what the library warns of is shown on the node, beside the log."""
    handler = _OnNode(node)
    library = logging.getLogger(__name__.partition(".")[0])
    library.addHandler(handler)
    try:
        yield
    finally:
        library.removeHandler(handler)


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
