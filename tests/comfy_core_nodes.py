"""What the example workflows use of ComfyUI's core and of IPAdapter_plus: declarations, and
small stand-ins for those that encode, show and save."""

import sys
from pathlib import Path

from comfy_graph import ANY_FILE, declare

FILE = ANY_FILE
SAMPLERS = ["euler", "euler_ancestral", "dpmpp_2m", "ddim", "uni_pc"]
SCHEDULERS = ["normal", "karras", "simple", "sgm_uniform"]
WEIGHT_TYPES = ["linear", "ease in", "ease out", "style transfer", "composition"]
SCALINGS = ["V only", "K+V", "K+V w/ C penalty", "K+mean(V) w/ C penalty"]


def node(outputs: str, optional: dict | None = None, **required) -> dict:
    kinds = outputs.split()
    return {
        "input": {"required": required, "optional": optional or {}},
        "output": kinds,
        "output_name": kinds,
    }


def number(kind, default, low, high):
    return kind, {"default": default, "min": low, "max": high}


FRACTION = number("FLOAT", 0.0, 0.0, 1.0)
CORE = {
    "CheckpointLoaderSimple": node("MODEL CLIP VAE", ckpt_name=(FILE,)),
    "unCLIPCheckpointLoader": node("MODEL CLIP VAE CLIP_VISION", ckpt_name=(FILE,)),
    "CLIPVisionLoader": node("CLIP_VISION", clip_name=(FILE,)),
    "CLIPTextEncode": node("CONDITIONING", text=("STRING", {"multiline": True}), clip=("CLIP",)),
    "unCLIPConditioning": node(
        "CONDITIONING",
        conditioning=("CONDITIONING",),
        clip_vision_output=("CLIP_VISION_OUTPUT",),
        strength=number("FLOAT", 1.0, -10.0, 10.0),
        noise_augmentation=FRACTION,
    ),
    "EmptyLatentImage": node(
        "LATENT",
        width=number("INT", 512, 16, 16384),
        height=number("INT", 512, 16, 16384),
        batch_size=number("INT", 1, 1, 4096),
    ),
    "KSampler": node(
        "LATENT",
        model=("MODEL",),
        seed=("INT", {"default": 0, "min": 0, "max": 2**64 - 1, "control_after_generate": True}),
        steps=number("INT", 20, 1, 10000),
        cfg=number("FLOAT", 8.0, 0.0, 100.0),
        sampler_name=(SAMPLERS,),
        scheduler=(SCHEDULERS,),
        positive=("CONDITIONING",),
        negative=("CONDITIONING",),
        latent_image=("LATENT",),
        denoise=number("FLOAT", 1.0, 0.0, 1.0),
    ),
    "VAEDecode": node("IMAGE", samples=("LATENT",), vae=("VAE",)),
    "LoadImage": node("IMAGE MASK", image=(FILE, {"image_upload": True})),
    "IPAdapterModelLoader": node("IPADAPTER", ipadapter_file=(FILE,)),
    "IPAdapterAdvanced": node(
        "MODEL",
        {"image_negative": ("IMAGE",), "attn_mask": ("MASK",), "clip_vision": ("CLIP_VISION",)},
        model=("MODEL",),
        ipadapter=("IPADAPTER",),
        image=("IMAGE",),
        weight=number("FLOAT", 1.0, -1, 5),
        weight_type=(WEIGHT_TYPES,),
        combine_embeds=(["concat", "add", "subtract", "average", "norm average"],),
        start_at=FRACTION,
        end_at=number("FLOAT", 1.0, 0.0, 1.0),
        embeds_scaling=(SCALINGS,),
    ),
}


class CLIPVisionEncode:
    RETURN_TYPES = ("CLIP_VISION_OUTPUT",)
    FUNCTION = "run"

    @classmethod
    def INPUT_TYPES(cls):
        wires = {"clip_vision": ("CLIP_VISION",), "image": ("IMAGE",)}
        return {"required": {**wires, "crop": (["center", "none"],)}}

    def run(self, clip_vision, image, crop):
        return (clip_vision.encode_image(image, crop=crop == "center"),)


class PreviewImage:
    RETURN_TYPES = ()
    FUNCTION = "run"

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"images": ("IMAGE",)}}

    def run(self, images):
        assert images.ndim == 4 and images.shape[-1] == 3 and images.dtype.is_floating_point
        assert images.min() >= 0 and images.max() <= 1
        files = [{"filename": f"{number}.png"} for number in range(len(images))]
        return {"ui": {"images": files}, "result": (images,)}


class SaveImage(PreviewImage):
    @classmethod
    def INPUT_TYPES(cls):
        prefix = ("STRING", {"default": "ComfyUI"})
        return {"required": {"images": ("IMAGE",), "filename_prefix": prefix}}


class PreviewAny:
    RETURN_TYPES = ()
    FUNCTION = "run"

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"source": ("*", {})}}

    def run(self, source):
        return {"ui": {"text": [str(source)]}, "result": (str(source),)}


class SaveGLB:
    """Saves a MESH."""

    RETURN_TYPES = ()
    FUNCTION = "run"

    @classmethod
    def INPUT_TYPES(cls):
        prefix = ("STRING", {"default": "3d/ComfyUI"})
        return {"required": {"mesh": ("MESH",), "filename_prefix": prefix}}

    def run(self, mesh, filename_prefix):
        assert mesh.vertices.ndim == mesh.faces.ndim == 3
        assert int(mesh.faces.max()) < mesh.vertices.shape[1]
        folder = Path(sys.modules["folder_paths"].get_output_directory())
        path = folder / f"{filename_prefix}_00001_.glb"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"glTF")
        return {"ui": {"3d": [path.name]}, "result": (path,)}


class SaveGLBOrFile(SaveGLB):
    """The core's of 2026, which takes a file too."""

    @classmethod
    def INPUT_TYPES(cls):
        declared = super().INPUT_TYPES()
        return {"required": {**declared["required"], "mesh": ("MESH,FILE_3D_GLB,FILE_3D",)}}

    def run(self, mesh, filename_prefix):
        if hasattr(mesh, "vertices"):
            return super().run(mesh, filename_prefix)
        folder = Path(sys.modules["folder_paths"].get_output_directory())
        path = folder / f"{filename_prefix}_00001_.{mesh.format}"
        path.parent.mkdir(parents=True, exist_ok=True)
        mesh.save_to(path)
        return {"ui": {"3d": [path.name]}, "result": (path,)}


RUNNABLE = (CLIPVisionEncode, PreviewImage, SaveImage, PreviewAny, SaveGLB)
CLASSES = {kind.__name__: kind for kind in RUNNABLE}
DECLARATIONS = {**CORE, **{name: declare(kind) for name, kind in CLASSES.items()}}
