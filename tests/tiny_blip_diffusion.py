"""AlphaBlipDiffusionPipeline with tiny random components, and short runs of it."""

import numpy as np
import torch
from diffusers import AutoencoderKL, ControlNetModel, PNDMScheduler, UNet2DConditionModel
from PIL import Image
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import Blip2Config, CLIPTextConfig, PreTrainedTokenizerFast

from alphaclip_gen.subject import (
    AlphaBlip2QFormerModel,
    AlphaBlipDiffusionPipeline,
    AlphaBlipImageProcessor,
    ContextCLIPTextModel,
)

WORDS = [
    "[PAD]",
    "[UNK]",
    "<s>",
    "</s>",
    ",",
    "a",
    "the",
    "dog",
    "cat",
    "on",
    "in",
    "beach",
    "snow",
]


def word_tokenizer():
    inner = Tokenizer(models.WordLevel({w: i for i, w in enumerate(WORDS)}, unk_token="[UNK]"))
    inner.pre_tokenizer = pre_tokenizers.Whitespace()
    inner.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", 2), ("</s>", 3)]
    )
    return PreTrainedTokenizerFast(tokenizer_object=inner, pad_token="[PAD]", unk_token="[UNK]")


def tiny_unet(in_channels=4):
    return UNet2DConditionModel(
        sample_size=8,
        in_channels=in_channels,
        block_out_channels=(8, 16),
        layers_per_block=1,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        norm_num_groups=4,
        attention_head_dim=4,
        cross_attention_dim=32,
    )


def tiny_pipeline(**changes):
    torch.manual_seed(0)
    text = CLIPTextConfig(
        vocab_size=len(WORDS),
        hidden_size=32,
        intermediate_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        max_position_embeddings=24,
        bos_token_id=2,
        eos_token_id=3,
    )
    vision = {
        "hidden_size": 16,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "image_size": 16,
        "patch_size": 8,
        "intermediate_size": 32,
        "initializer_range": 0.1,
    }
    inner = {
        "vocab_size": len(WORDS),
        "hidden_size": 32,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "intermediate_size": 32,
        "max_position_embeddings": 12,
        "cross_attention_frequency": 1,
        "initializer_range": 0.2,
    }
    config = Blip2Config(
        vision_config=vision, qformer_config=inner, num_query_tokens=4, initializer_range=0.5
    )
    qformer = AlphaBlip2QFormerModel(config).eval()
    alpha = qformer.visual_encoder.embeddings.patch_embedding_alpha.weight
    torch.nn.init.normal_(alpha, std=0.3)
    components = {
        "tokenizer": word_tokenizer(),
        "text_encoder": ContextCLIPTextModel(text).eval(),
        "vae": AutoencoderKL(
            down_block_types=("DownEncoderBlock2D",) * 2,
            up_block_types=("UpDecoderBlock2D",) * 2,
            block_out_channels=(4, 8),
            norm_num_groups=4,
        ).eval(),
        "unet": tiny_unet().eval(),
        "scheduler": PNDMScheduler(skip_prk_steps=True),
        "qformer": qformer,
        "image_processor": AlphaBlipImageProcessor(size=16),
        "qformer_tokenizer": word_tokenizer(),
        "prompt_reps": 1,
    }
    pipe = AlphaBlipDiffusionPipeline(**(components | changes))
    pipe.set_progress_bar_config(disable=True)
    return pipe


def controlled():
    pipe = tiny_pipeline()
    torch.manual_seed(1)
    controlnet = ControlNetModel.from_unet(pipe.unet, conditioning_embedding_out_channels=(8, 16))
    for parameter in controlnet.parameters():
        parameter.data += 0.05 * torch.randn_like(parameter)
    pipe.register_modules(controlnet=controlnet.eval())
    return pipe


def picture(seed=0, size=(20, 24)):
    values = np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8)
    return Image.fromarray(values)


def half(size=(20, 24)):
    mask = np.zeros(size, dtype=bool)
    mask[:, : size[1] // 2] = True
    return mask


def seeded(number=0):
    return torch.Generator().manual_seed(number)


def run(pipe, image=None, prompt="on the beach", subject="dog", **options):
    """Pictures (batch, 3, height, width) of a short run."""
    image = picture() if image is None else image
    options = {"num_inference_steps": 2, "generator": seeded(), "output_type": "pt"} | options
    target = options.pop("target", "dog")
    return pipe(prompt, image, subject, target, **options).images


def same(one, other):
    torch.testing.assert_close(one, other, atol=3e-5, rtol=1e-5)  # sums in another order


def differ(one, other):
    assert (one - other).abs().max() > 1e-4
