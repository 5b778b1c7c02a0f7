"""mini's generator: a small BLIP-Diffusion of the real one's classes, new, saved and loaded."""

import copy
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL, DPMSolverMultistepScheduler, UNet2DConditionModel
from diffusers.utils import logging as diffusers_logging
from tokenizers import AddedToken
from torch import nn
from transformers import Blip2Config, CLIPTextConfig, CLIPVisionConfig, PreTrainedTokenizerFast

from ...checkpoints import no_progress_bar
from ...sources import SHIPPED
from ...subject import (
    AlphaBlip2QFormerModel,
    AlphaBlipDiffusionPipeline,
    AlphaBlipImageProcessor,
    ContextCLIPTextModel,
    load_alpha_clip,
)
from ...subject.vision import SHARED
from ...vision import AlphaCLIPVisionModel, AlphaCLIPVisionModelWithProjection
from ..model import new_tokenizer
from .prompts import vocabulary

PIXELS = 64
LATENT_SCALE = 8
"""Pixels to a latent, along each side."""
CONTEXT_POSITION = 2
"""Tokens before the subject's: begin and article (`ContextCLIPTextModel.forward`)."""
WORDS = 24
"""Longest prompt in tokens: begin, words and end; the subject's tokens come on top."""


@dataclass(frozen=True)
class Sizes:
    """How large the generator is.

    Attributes:
        width: of text encoder and Q-Former.
        heads: of their attention.
        queries: the subject's tokens, a square number: each comes to hold a cell of its picture.
        tower_layers: how many of mini's layers read a region: the later ones keep what names it,
            and little of how it looks.
        qformer_layers, text_layers: how deep the two are.
        unet: channels at the latents' size, and at half of it.
        latents: channels of the latents.
        autoencoder: channels from 64 pixels down to 8.
    """

    width: int = 192
    heads: int = 6
    queries: int = 64
    tower_layers: int = 1
    qformer_layers: int = 1
    text_layers: int = 2
    unet: tuple[int, ...] = (96, 160)
    latents: int = 16
    autoencoder: tuple[int, ...] = (16, 32, 64, 128)


def new_prompt_tokenizer() -> PreTrainedTokenizerFast:
    """mini's tokenizer, in which every word of a prompt is one token too."""
    tokenizer = new_tokenizer()
    unknown = tokenizer.unk_token
    for word in vocabulary():
        tokens = tokenizer.tokenize(word)
        if len(tokens) > 1 or tokens == [unknown]:
            tokenizer.add_tokens([AddedToken(word, single_word=True, normalized=True)])
    return tokenizer


def new_autoencoder(sizes: Sizes | None = None) -> AutoencoderKL:
    """The autoencoder with random weights (from the global generator)."""
    sizes = sizes or Sizes()
    levels = len(sizes.autoencoder)
    model = AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * levels,
        up_block_types=("UpDecoderBlock2D",) * levels,
        block_out_channels=sizes.autoencoder,
        layers_per_block=1,
        latent_channels=sizes.latents,
        norm_num_groups=8,
        sample_size=PIXELS,
        use_quant_conv=False,
        use_post_quant_conv=False,
        mid_block_add_attention=False,
    )
    return _let_pictures_through(model, sizes.latents)


@torch.no_grad()
def _let_pictures_through(model: AutoencoderKL, latents: int) -> AutoencoderKL:
    """The autoencoder itself, its first weights such that pictures pass without fading.

    With PyTorch's own, each convolution outside the residual branches shrinks what distinguishes
    pictures, and hundreds of steps go by before anything is learned. The branches begin at zero,
    and latents with little noise.
    """
    for name, module in model.named_modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, nonlinearity="linear")
            if name.endswith("conv2"):
                nn.init.zeros_(module.weight)
    final = model.encoder.conv_out
    nn.init.zeros_(final.weight[latents:])
    nn.init.constant_(final.bias[latents:], -6.0)  # log variances
    return model


def new_generator(
    autoencoder: AutoencoderKL,
    tower: AlphaCLIPVisionModel | AlphaCLIPVisionModelWithProjection,
    sizes: Sizes | None = None,
) -> AlphaBlipDiffusionPipeline:
    """The pipeline with mini's tower and the autoencoder; the rest has random weights.

    Args:
        autoencoder: trained, its scaling factor set.
        tower: mini's; its weights are copied.
        sizes: of the rest; they must fit the autoencoder's latents.
    """
    sizes = sizes or Sizes()
    tokenizer = new_prompt_tokenizer()
    vision: Any = getattr(tower, "vision_model", tower).config
    qformer = _new_qformer(vision, len(tokenizer), sizes)
    load_alpha_clip(qformer.visual_encoder, tower)
    return AlphaBlipDiffusionPipeline(
        tokenizer=tokenizer,
        text_encoder=_new_text_encoder(tokenizer, sizes),
        vae=autoencoder,
        unet=_new_unet(sizes),
        scheduler=new_scheduler(),
        qformer=qformer,
        image_processor=AlphaBlipImageProcessor(vision.image_size, geometry="region-centered"),
        qformer_tokenizer=tokenizer,
        prompt_reps=1,
        scale_down_factor=LATENT_SCALE,
    )


def new_scheduler() -> DPMSolverMultistepScheduler:
    """Cosine noise with v-prediction; 4 to 20 steps of DPM-Solver++ do (arXiv 2211.01095)."""
    return DPMSolverMultistepScheduler(
        num_train_timesteps=1000,
        beta_schedule="squaredcos_cap_v2",
        prediction_type="v_prediction",
        timestep_spacing="trailing",
        lambda_min_clipped=-5.1,
    )


def _new_qformer(vision: CLIPVisionConfig, words: int, sizes: Sizes) -> AlphaBlip2QFormerModel:
    qformer_config = {
        "vocab_size": words,
        "hidden_size": sizes.width,
        "num_hidden_layers": sizes.qformer_layers,
        "num_attention_heads": sizes.heads,
        "intermediate_size": 4 * sizes.width,
        "initializer_range": sizes.width**-0.5,
        "max_position_embeddings": WORDS,
        "cross_attention_frequency": 1,
        "encoder_hidden_size": vision.hidden_size,
        "hidden_dropout_prob": 0.0,
        "attention_probs_dropout_prob": 0.0,
        "pad_token_id": 0,
    }
    config = Blip2Config(
        vision_config={name: getattr(vision, name) for name in SHARED}
        | {"num_hidden_layers": sizes.tower_layers},
        qformer_config=qformer_config,
        num_query_tokens=sizes.queries,
    )
    return AlphaBlip2QFormerModel(config).eval()


def _new_text_encoder(tokenizer: PreTrainedTokenizerFast, sizes: Sizes) -> ContextCLIPTextModel:
    config = CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=sizes.width,
        intermediate_size=2 * sizes.width,
        num_hidden_layers=sizes.text_layers,
        num_attention_heads=sizes.heads,
        max_position_embeddings=WORDS + sizes.queries,
        hidden_act="gelu",
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )
    encoder = ContextCLIPTextModel(config).eval()
    mark_cells(encoder.text_model.embeddings.position_embedding.weight, sizes.queries)
    return encoder


@torch.no_grad()
def mark_cells(positions: torch.Tensor, queries: int) -> None:
    """Nothing; writes the row and column of each subject's token into its position's embedding.

    So the U-Net can tell from the first step on which token holds what belongs at a place.
    """
    side = math.isqrt(queries)
    number = torch.arange(queries)
    ones = [F.one_hot(number // side, side), F.one_hot(number % side, side)]
    positions[CONTEXT_POSITION : CONTEXT_POSITION + queries, : 2 * side] += 3 * torch.cat(ones, 1)


def _new_unet(sizes: Sizes) -> UNet2DConditionModel:
    levels = len(sizes.unet)
    return UNet2DConditionModel(
        sample_size=PIXELS // LATENT_SCALE,
        in_channels=sizes.latents,
        out_channels=sizes.latents,
        block_out_channels=sizes.unet,
        layers_per_block=1,
        down_block_types=("CrossAttnDownBlock2D",) * levels,
        up_block_types=("CrossAttnUpBlock2D",) * levels,
        mid_block_type=None,  # a fifth of the weights, for latents that are already small
        cross_attention_dim=sizes.width,
        # diffusers' name for how many heads there are; each has 32 channels
        attention_head_dim=tuple(max(1, channels // 32) for channels in sizes.unet),
        use_linear_projection=True,
        time_embedding_dim=sizes.width,
        norm_num_groups=16,
    ).eval()


def rebuilt(pipe: AlphaBlipDiffusionPipeline, **parts: nn.Module) -> AlphaBlipDiffusionPipeline:
    """A pipeline of the same settings with those parts in place of its own."""
    kept = {name: pipe.config[name] for name in ("prompt_reps", "scale_down_factor")}
    return AlphaBlipDiffusionPipeline(**{**pipe.components, **parts}, **kept)


def save_generator(pipe: AlphaBlipDiffusionPipeline, folder: Path) -> None:
    """Nothing; writes the pipeline as a diffusers folder with weights in half precision."""
    halves = {
        name: copy.deepcopy(part).half()
        for name, part in pipe.components.items()
        if isinstance(part, nn.Module)
    }
    rebuilt(pipe, **halves).save_pretrained(folder)


def load_generator(
    name_or_path: str | Path = "mini",
    dtype: torch.dtype = torch.float32,
) -> AlphaBlipDiffusionPipeline:
    """The pipeline that is shipped, or one that `save_generator` wrote; without a progress bar.

    Raises:
        FileNotFoundError: there is none.

    >>> pipe = load_generator()
    >>> pipe("{subject} on a blue background", picture, "thing", "thing", alpha_mask=box,
    ...      guidance_scale=1.5, num_inference_steps=4)
    """
    folder = SHIPPED / "generator" if name_or_path == "mini" else Path(name_or_path)
    if not (folder / "model_index.json").is_file():
        raise FileNotFoundError(
            f"there is no model_index.json in {str(folder)!r}; expected 'mini' or a folder that "
            f"save_generator() wrote. python -m alphaclip_gen.mini.generator.train trains one."
        )
    with no_progress_bar(), no_progress_bar(diffusers_logging):
        pipe = AlphaBlipDiffusionPipeline.from_pretrained(folder, local_files_only=True)
    for part in pipe.components.values():
        if isinstance(part, nn.Module):
            nn.Module.to(part, dtype)  # diffusers' own would warn of modules that are not there
    pipe.set_progress_bar_config(disable=True)
    return pipe
