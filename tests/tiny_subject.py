"""BLIP-Diffusion's towers, tiny and random."""

import torch
from safetensors.torch import load_file, save_file
from transformers import Blip2Config, Blip2VisionConfig, CLIPTextConfig

from alphaclip_gen.subject import (
    AlphaBlip2QFormerModel,
    AlphaBlip2VisionModel,
    ContextCLIPTextModel,
)

VISION = {
    "hidden_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 3,
    "image_size": 32,
    "patch_size": 8,
    "intermediate_size": 40,
    "hidden_act": "quick_gelu",
    "initializer_range": 0.1,
}
QFORMER = {
    "vocab_size": 20,
    "hidden_size": 32,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "intermediate_size": 48,
    "max_position_embeddings": 12,
    "cross_attention_frequency": 2,
    "encoder_hidden_size": 24,
}
TEXT = {
    "vocab_size": 30,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "max_position_embeddings": 16,
    "bos_token_id": 28,
    "eos_token_id": 29,
}


def shaken(model):
    """The model with random biases, norms and alpha weights too: nothing can be mixed up unseen."""
    generator = torch.Generator().manual_seed(3)
    for parameter in model.parameters():
        parameter.data += 0.1 * torch.randn(parameter.shape, generator=generator)
    return model.eval()


def tiny_tower():
    torch.manual_seed(0)
    return shaken(AlphaBlip2VisionModel(Blip2VisionConfig(**VISION)))


def tiny_qformer():
    torch.manual_seed(0)
    config = Blip2Config(vision_config=VISION, qformer_config=QFORMER, num_query_tokens=5)
    return shaken(AlphaBlip2QFormerModel(config))


def tiny_text():
    torch.manual_seed(0)
    return shaken(ContextCLIPTextModel(CLIPTextConfig(**TEXT)))


def tiny_pixels():
    return torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(1))


def stored(alpha):
    return alpha.expand(2, 1, 32, 32) - 1


def half():
    alpha = torch.zeros(1, 1, 32, 32)
    alpha[..., :16] = 1
    return alpha


def edited(folder, change):
    """Rewrites a saved model's weights."""
    path = folder / "model.safetensors"
    save_file(change(load_file(path)), path, metadata={"format": "pt"})
