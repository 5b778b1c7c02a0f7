"""A stand-in for ComfyUI's core, by the contracts that real cores keep; no code of theirs.

`install(monkeypatch, folder)` puts its modules into `sys.modules` and returns a `Core`, which
remembers what was asked of it. Two flavors, "0.3" and "0.20", differ where cores differ.
"""

import json
import sys
import types
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import nn

MEAN = [0.48145466, 0.4578275, 0.40821073]
STD = [0.26862954, 0.26130258, 0.27577711]
WEIGHTS = {".safetensors", ".pth", ".pt", ".bin", ".ckpt"}


@dataclass
class Core:
    """The state of a core: its folders, and what the nodes did."""

    root: Path
    version: str
    device: torch.device = torch.device("cpu")
    interrupt_after: int | None = None
    """How many more times a node may ask whether it shall stop."""
    interrupt_when: Callable[[], bool] = lambda: False
    loaded: list = field(default_factory=list)
    loaded_fully: list = field(default_factory=list)
    """Patchers that may not be left in main memory in part."""
    progress: list = field(default_factory=list)
    """(done, total, preview) of every progress bar."""
    said: list = field(default_factory=list)
    interruption: type[BaseException] = Exception
    kinds: types.SimpleNamespace | None = None
    """MESH and File3D."""

    def folder(self, *parts: str) -> Path:
        path = self.root.joinpath(*parts)
        path.mkdir(parents=True, exist_ok=True)
        return path


def install(monkeypatch, root: Path, version: str = "0.20") -> Core:
    core = Core(root, version)
    modules = {
        "folder_paths": folder_paths(core),
        "comfy": types.ModuleType("comfy"),
        "comfy.model_management": model_management(core),
        "comfy.model_patcher": model_patcher(core),
        "comfy.clip_vision": clip_vision(core),
        "comfy.utils": utils(core),
        "server": server(core),
        **mesh_modules(core),
    }
    modules["comfy"].__path__ = [str(core.folder("comfy"))]
    for name, module in modules.items():
        monkeypatch.setitem(sys.modules, name, module)
        parent, _, child = name.rpartition(".")
        if parent:
            setattr(modules[parent], child, module)
    return core


def module(name: str, **content) -> types.ModuleType:
    made = types.ModuleType(name)
    vars(made).update(content)
    return made


def folder_paths(core: Core) -> types.ModuleType:
    def get_filename_list(kind):
        files = core.folder("models", kind).rglob("*")
        return sorted(f.relative_to(core.folder("models", kind)).as_posix()
                      for f in files if f.suffix in WEIGHTS)  # fmt: skip

    def get_full_path(kind, name):
        path = core.folder("models", kind) / name
        return str(path) if path.is_file() else None

    return module(
        "folder_paths",
        get_filename_list=get_filename_list,
        get_full_path=get_full_path,
        get_folder_paths=lambda kind: [str(core.folder("models", kind))],
        get_input_directory=lambda: str(core.folder("input")),
        get_output_directory=lambda: str(core.folder("output")),
    )


def model_management(core: Core) -> types.ModuleType:
    """Interrupts are an Exception up to 0.19 and a BaseException from 0.20 on."""
    base = Exception if core.version == "0.3" else BaseException
    core.interruption = type("InterruptProcessingException", (base,), {})

    def throw_exception_if_processing_interrupted():
        if core.interrupt_after is not None:
            core.interrupt_after -= 1
            if core.interrupt_after < 0:
                raise core.interruption
        if core.interrupt_when():
            raise core.interruption

    def load_models_gpu(patchers, memory_required=0, force_full_load=False):
        for patcher in patchers:
            patcher.model.to(patcher.load_device)
            patcher.model.device = patcher.load_device
            core.loaded.append(patcher)
            if force_full_load:
                core.loaded_fully.append(patcher)

    file = core.folder("comfy") / "model_management.py"
    return module(
        "comfy.model_management",
        __file__=str(file),
        InterruptProcessingException=core.interruption,
        throw_exception_if_processing_interrupted=throw_exception_if_processing_interrupted,
        get_torch_device=lambda: core.device,
        text_encoder_device=lambda: core.device,
        text_encoder_offload_device=lambda: torch.device("cpu"),
        text_encoder_dtype=lambda device=None: torch.float16,
        intermediate_device=lambda: torch.device("cpu"),
        load_models_gpu=load_models_gpu,
        load_model_gpu=lambda patcher: load_models_gpu([patcher]),
        free_memory=lambda size, device, keep_loaded=(): [],
        soft_empty_cache=lambda force=False: None,
        should_use_fp16=lambda device=None: True,
    )


def model_patcher(core: Core) -> types.ModuleType:
    class ModelPatcher:
        """Writes to its model what the core writes: a read-only `device` would raise."""

        def __init__(self, model, load_device, offload_device, size=0, weight_inplace_update=False):
            self.model, self.load_device, self.offload_device = model, load_device, offload_device
            if getattr(model, "device", None) is None:
                model.device = offload_device
            model.model_loaded_weight_memory = 0
            model.current_weight_patches_uuid = None

    return module("comfy.model_patcher", ModelPatcher=ModelPatcher)


def utils(core: Core) -> types.ModuleType:
    class ProgressBar:
        def __init__(self, total, node_id=None):
            self.total = total

        def update_absolute(self, value, total=None, preview=None):
            core.progress.append((value, total, preview))

    return module("comfy.utils", ProgressBar=ProgressBar)


def server(core: Core) -> types.ModuleType:
    instance = types.SimpleNamespace(
        send_progress_text=lambda text, node_id, sid=None: core.said.append((node_id, text))
    )
    return module("server", PromptServer=types.SimpleNamespace(instance=instance))


def mesh_modules(core: Core) -> dict[str, types.ModuleType]:
    class MESH:
        def __init__(self, vertices, faces):
            self.vertices, self.faces = vertices, faces

    class File3D:
        def __init__(self, source, file_format=""):
            self.source, self.format = source, file_format

        def save_to(self, path):
            self.source.seek(0)
            Path(path).write_bytes(self.source.read())

    core.kinds = types.SimpleNamespace(MESH=MESH, File3D=File3D)
    if core.version == "0.3":
        hunyuan = module("comfy_extras.nodes_hunyuan3d", MESH=MESH)
        return {
            "comfy_extras": types.ModuleType("comfy_extras"),
            "comfy_extras.nodes_hunyuan3d": hunyuan,
        }
    latest = module("comfy_api.latest", Types=core.kinds)
    return {"comfy_api": types.ModuleType("comfy_api"), "comfy_api.latest": latest}


# CLIP vision


def clip_preprocess(image, size=224, mean=MEAN, std=STD, crop=True):
    """Bicubic, the middle square or squashed, rounded to 8 bit, normalized."""
    pixels = image[..., :3].movedim(-1, 1)
    height, width = pixels.shape[2:]
    if (height, width) != (size, size):
        scale = size / min(height, width)
        inner = (round(scale * height), round(scale * width)) if crop else (size, size)
        pixels = F.interpolate(pixels, size=inner, mode="bicubic", antialias=True)
        top, left = (inner[0] - size) // 2, (inner[1] - size) // 2
        pixels = pixels[:, :, top : top + size, left : left + size]
    pixels = (pixels * 255).clamp(0, 255).round() / 255
    return (pixels - torch.tensor(mean).view(3, 1, 1)) / torch.tensor(std).view(3, 1, 1)


class Output:
    """Attributes that double as keys."""

    def __getitem__(self, key):
        return getattr(self, key)

    def __setitem__(self, key, value):
        setattr(self, key, value)


class Cast(nn.Module):
    """A layer kept in half precision that computes in the precision of its input."""

    def __init__(self, layer):
        super().__init__()
        self.kind = [layer]
        self.weight = nn.Parameter(layer.weight.detach().half())
        bias = getattr(layer, "bias", None)
        self.bias = None if bias is None else nn.Parameter(bias.detach().half())
        self.kernel_size = getattr(layer, "kernel_size", None)

    def forward(self, x):
        layer, weight = self.kind[0], self.weight.to(x)
        bias = None if self.bias is None else self.bias.to(x)
        if isinstance(layer, nn.Conv2d):
            return F.conv2d(x, weight, bias, stride=layer.stride)
        if isinstance(layer, nn.LayerNorm):
            return F.layer_norm(x, layer.normalized_shape, weight, bias, layer.eps)
        return F.linear(x, weight, bias)


class Attention(nn.Module):
    def __init__(self, theirs):
        super().__init__()
        self.heads = theirs.num_heads
        for name in ("q_proj", "k_proj", "v_proj", "out_proj"):
            setattr(self, name, Cast(getattr(theirs, name)))

    def forward(self, x, mask=None, optimized_attention=None):
        return self.out_proj(
            optimized_attention(self.q_proj(x), self.k_proj(x), self.v_proj(x), self.heads, mask)
        )


class MLP(nn.Module):
    def __init__(self, theirs):
        super().__init__()
        self.fc1, self.fc2 = Cast(theirs.fc1), Cast(theirs.fc2)
        self.activation = theirs.activation_fn

    def forward(self, x):
        return self.fc2(self.activation(self.fc1(x)))


class Layer(nn.Module):
    """Sums in place, as the core's does."""

    def __init__(self, theirs):
        super().__init__()
        self.layer_norm1, self.layer_norm2 = Cast(theirs.layer_norm1), Cast(theirs.layer_norm2)
        self.self_attn, self.mlp = Attention(theirs.self_attn), MLP(theirs.mlp)

    def forward(self, x, mask=None, optimized_attention=None):
        x += self.self_attn(self.layer_norm1(x), mask, optimized_attention)
        x += self.mlp(self.layer_norm2(x))
        return x


class Encoder(nn.Module):
    def __init__(self, theirs):
        super().__init__()
        self.layers = nn.ModuleList([Layer(layer) for layer in theirs.layers])

    def forward(self, x, mask=None, intermediate_output=None):
        def attention(q, k, v, heads, mask=None):
            q, k, v = (t.unflatten(2, (heads, -1)).transpose(1, 2) for t in (q, k, v))
            return F.scaled_dot_product_attention(q, k, v, mask).transpose(1, 2).flatten(2)

        outputs = []
        for layer in self.layers:
            x = layer(x, mask, attention)
            outputs.append(x.clone())
        if intermediate_output == "all":
            return x, torch.stack(outputs, dim=1)
        return x, None if intermediate_output is None else outputs[intermediate_output]


class Embeddings(nn.Module):
    def __init__(self, theirs):
        super().__init__()
        self.patch_embedding = Cast(theirs.patch_embedding)
        self.position_embedding = Cast(theirs.position_embedding)
        given = getattr(theirs, "class_embedding", None)
        self.class_embedding = None if given is None else nn.Parameter(given.detach().half())

    def forward(self, pixel_values):
        x = self.patch_embedding(pixel_values).flatten(2).transpose(1, 2)
        if self.class_embedding is not None:
            x = torch.cat([self.class_embedding.to(x).expand(len(x), 1, -1), x], dim=1)
        return x + self.position_embedding.weight.to(x)


class VisionModel(nn.Module):
    def __init__(self, theirs):
        super().__init__()
        self.embeddings, self.encoder = Embeddings(theirs.embeddings), Encoder(theirs.encoder)
        if hasattr(theirs, "pre_layrnorm"):
            self.pre_layrnorm = Cast(theirs.pre_layrnorm)
        else:
            self.pre_layrnorm = lambda x: x
        self.post_layernorm = Cast(theirs.post_layernorm)

    def forward(self, pixel_values, attention_mask=None, intermediate_output=None):
        x = self.pre_layrnorm(self.embeddings(pixel_values))
        x, between = self.encoder(x, None, intermediate_output)
        if self.embeddings.class_embedding is None:
            x = self.post_layernorm(x)
            return x, between, x
        return x, between, self.post_layernorm(x[:, 0])


class Tower(nn.Module):
    """The core's CLIP or SigLIP tower, with the weights of a tower of transformers."""

    def __init__(self, theirs):
        super().__init__()
        self.vision_model = VisionModel(getattr(theirs, "vision_model", theirs))
        projection = getattr(theirs, "visual_projection", None)
        self.visual_projection = (lambda x: x) if projection is None else Cast(projection)

    def forward(self, *args, **kwargs):
        last, between, pooled = self.vision_model(*args, **kwargs)
        return last, between, self.visual_projection(pooled), None


def tower_of(config):
    """A tower of transformers by the core's configuration, of weights to be replaced."""
    from transformers import (
        CLIPVisionConfig,
        CLIPVisionModelWithProjection,
        SiglipVisionConfig,
        SiglipVisionModel,
    )

    if config["model_type"] == "siglip_vision_model":
        return SiglipVisionModel(SiglipVisionConfig(**config, vision_use_head=False))
    return CLIPVisionModelWithProjection(CLIPVisionConfig(**config))


class ClipVisionModel:
    """The core's CLIP_VISION, of a file with its configuration."""

    def __init__(self, json_config):
        self.config = json.loads(Path(json_config).read_text())
        self.model_type = self.config["model_type"]
        is_siglip, theirs = self.model_type == "siglip_vision_model", tower_of(self.config)
        management = sys.modules["comfy.model_management"]
        self.image_size = self.config["image_size"]
        self.image_mean = self.config.get("image_mean", MEAN)
        self.image_std = self.config.get("image_std", STD)
        self.return_all_hidden_states = is_siglip
        self.load_device, self.dtype = management.text_encoder_device(), torch.float16
        self.model = Tower(theirs).eval()
        self.patcher = sys.modules["comfy.model_patcher"].ModelPatcher(
            self.model, self.load_device, management.text_encoder_offload_device()
        )

    def load_sd(self, sd):
        return self.model.load_state_dict(sd, strict=False)

    def encode_image(self, image, crop=True):
        management = sys.modules["comfy.model_management"]
        management.load_model_gpu(self.patcher)
        pixel_values = clip_preprocess(
            image.to(self.load_device), self.image_size, self.image_mean, self.image_std, crop
        ).float()
        everything = self.return_all_hidden_states
        out = self.model(pixel_values=pixel_values, intermediate_output="all" if everything else -2)
        outputs = Output()
        outputs["last_hidden_state"], outputs["image_embeds"] = out[0], out[2]
        outputs["image_sizes"] = [pixel_values.shape[1:]] * len(pixel_values)
        outputs["penultimate_hidden_states"] = out[1][:, -2] if everything else out[1]
        outputs["mm_projected"] = out[3]
        return outputs


def clip_vision(core: Core) -> types.ModuleType:
    return module(
        "comfy.clip_vision",
        Output=Output,
        clip_preprocess=clip_preprocess,
        ClipVisionModel=ClipVisionModel,
    )


def as_ipadapter(vision, image, batch_size=0):
    """How IPAdapter_plus encodes: by patcher and model, never by encode_image."""
    sys.modules["comfy.model_management"].load_model_gpu(vision.patcher)
    outputs = Output()
    for part in image.split(batch_size or len(image)):
        pixel_values = clip_preprocess(part.to(vision.load_device), vision.image_size).float()
        out = vision.model(pixel_values=pixel_values, intermediate_output=-2)
        names = ("last_hidden_state", "penultimate_hidden_states", "image_embeds")
        for name, value in zip(names, out[:3], strict=True):
            before = [outputs[name]] if hasattr(outputs, name) else []
            outputs[name] = torch.cat([*before, value])
    return outputs


def ipadapter_plus_embeds(vision, image, image_negative=None, batch_size=0):
    """Positive and negative of a "plus" adapter: a black picture, where no negative is given."""
    if image_negative is None:
        image_negative = torch.zeros([1, vision.image_size, vision.image_size, 3])
    pair = (as_ipadapter(vision, pictures, batch_size) for pictures in (image, image_negative))
    return [encoded.penultimate_hidden_states for encoded in pair]
