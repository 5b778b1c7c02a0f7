"""Components of pipelines, tiny and random. Not a test: others load it with `runpy`."""

import diffusers as d
import torch
import transformers as t

WIDTH = 16
WORDS = ["<|startoftext|>", "<|endoftext|>", "a</w>", "b</w>", "<image>"]


def livelier(model):
    """Random weights large enough that every input is felt at the output."""
    for parameter in model.parameters():
        if parameter.ndim == 2:
            parameter.data.mul_(2)
    return model.eval()


def vision_config(kind=t.CLIPVisionConfig, size=32, patch=8, **changes):
    return kind(
        hidden_size=WIDTH,
        intermediate_size=2 * WIDTH,
        num_hidden_layers=4,
        num_attention_heads=2,
        image_size=size,
        patch_size=patch,
        **({} if kind is t.SiglipVisionConfig else {"projection_dim": WIDTH}) | changes,
    )


def vision(kind=t.CLIPVisionModelWithProjection, **changes):
    return livelier(kind(vision_config(**changes)))


def processor(size=32):
    return t.CLIPImageProcessor(
        size={"shortest_edge": size}, crop_size={"height": size, "width": size}
    )


def text(kind=t.CLIPTextModel):
    config = t.CLIPTextConfig(
        vocab_size=len(WORDS),
        hidden_size=WIDTH,
        intermediate_size=2 * WIDTH,
        num_hidden_layers=1,
        num_attention_heads=2,
        max_position_embeddings=32,
        projection_dim=WIDTH,
        bos_token_id=0,
        eos_token_id=1,
        pad_token_id=1,
    )
    return kind(config).eval()


def tokenizer(**changes):
    vocab = {word: index for index, word in enumerate(WORDS)}
    return t.CLIPTokenizer(vocab=vocab, merges=[], model_max_length=32, **changes)


def unet(**changes):
    sizes = {
        "sample_size": 8,
        "block_out_channels": (8, 8),
        "norm_num_groups": 4,
        "layers_per_block": 1,
        "attention_head_dim": 4,
        "cross_attention_dim": WIDTH,
        "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"),
        "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D"),
    }
    return livelier(d.UNet2DConditionModel(**sizes | changes))


def vae(kind=d.AutoencoderKL, **changes):
    blocks = {"down_block_types": ("DownEncoderBlock2D",) * 2, "block_out_channels": (8, 8)}
    if kind is d.AutoencoderKL:
        blocks |= {"up_block_types": ("UpDecoderBlock2D",) * 2, "norm_num_groups": 4}
    return kind(**blocks | changes).eval()


def generator():
    return torch.Generator().manual_seed(0)


def noise(*shape):
    return torch.randn(shape, generator=generator())


def weight(*shape):
    return torch.randn(shape) * shape[-1] ** -0.5
