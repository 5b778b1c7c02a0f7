"""A custom node for the tests on a real core: it encodes in both ways that nodes use."""

import json


class Probe:
    """How far `encode_image` and `.model(...)` are apart, and how much a region changes."""

    CATEGORY = "AlphaCLIP tests"
    FUNCTION = "run"
    RETURN_TYPES = ()
    OUTPUT_NODE = True

    @classmethod
    def INPUT_TYPES(cls):
        wires = {"clip_vision": ("CLIP_VISION",), "plain": ("CLIP_VISION",), "image": ("IMAGE",)}
        return {"required": wires}

    def run(self, clip_vision, plain, image):
        theirs = clip_vision.encode_image(image)
        last, between, embedding = by_model(clip_vision, image)
        names = ("last_hidden_state", "penultimate_hidden_states", "image_embeds")
        ways = [
            (value.cpu() - theirs[name].cpu()).abs().max().item()
            for name, value in zip(names, (last, between, embedding), strict=True)
        ]
        whole = plain.encode_image(image).image_embeds
        region = ((theirs.image_embeds - whole).norm() / whole.norm()).item()
        found = {"between the ways": max(ways), "by the region": region}
        return {"ui": {"text": [json.dumps(found)]}}


def by_model(vision, image):
    """The three results that IPAdapter_plus takes of `.model`."""
    import comfy.clip_vision
    import comfy.model_management

    comfy.model_management.load_model_gpu(vision.patcher)
    pixel_values = comfy.clip_vision.clip_preprocess(
        image.to(vision.load_device), size=vision.image_size, mean=vision.image_mean,
        std=vision.image_std,
    )  # fmt: skip
    return vision.model(pixel_values=pixel_values.float(), intermediate_output=-2)[:3]


NODE_CLASS_MAPPINGS = {"AlphaCLIPTestProbe": Probe}
