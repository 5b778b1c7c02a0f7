"""Runs BLIP-Diffusion on the stack it was published for; a program for the parity test only.

The old packages are found first through PYTHONPATH. Everything has tiny random weights. What it
writes: a folder `pipeline` as published, and the inputs and outputs of each part.

Usage: PYTHONPATH=old_packages python oracle_blip_diffusion.py OUTPUT_FOLDER
"""

import importlib.metadata
import json
import sys
from pathlib import Path

installed_version = importlib.metadata.version
# The old transformers refuses a newer tokenizers, of which it uses nothing that has changed.
importlib.metadata.version = lambda name: (
    "0.19.1" if name == "tokenizers" else installed_version(name)
)

import diffusers  # noqa: E402
import numpy as np  # noqa: E402
import torch  # noqa: E402
import transformers  # noqa: E402
from diffusers import (  # noqa: E402
    AutoencoderKL,
    BlipDiffusionControlNetPipeline,
    BlipDiffusionPipeline,
    ControlNetModel,
    PNDMScheduler,
    UNet2DConditionModel,
)
from diffusers.pipelines.blip_diffusion import (  # noqa: E402
    Blip2QFormerModel,
    BlipImageProcessor,
    ContextCLIPTextModel,
)
from PIL import Image  # noqa: E402
from safetensors.numpy import save_file  # noqa: E402
from transformers import BertTokenizer, Blip2Config, CLIPTextConfig, CLIPTokenizer  # noqa: E402

WORDS = ("dog", "cat", "on", "a", "beach", "in", "the", "snow", "blurry")


def tokenizers(folder: Path) -> tuple[CLIPTokenizer, BertTokenizer]:
    """A byte-pair tokenizer of whole words and a word-piece tokenizer of the same words."""
    folder.mkdir(parents=True)
    pieces = sorted({piece for word in (*WORDS, ",") for piece in (*word, word[-1] + "</w>")})
    merges, whole = [], []
    for word in WORDS:
        parts = [*word[:-1], word[-1] + "</w>"]
        while len(parts) > 1:
            merges.append(f"{parts[0]} {parts[1]}")
            parts[:2] = ["".join(parts[:2])]
            whole.append(parts[0])
    vocabulary = [*pieces, *dict.fromkeys(whole), "<|startoftext|>", "<|endoftext|>"]
    vocabulary = list(dict.fromkeys(vocabulary))
    (folder / "vocab.json").write_text(json.dumps({w: i for i, w in enumerate(vocabulary)}))
    merges = list(dict.fromkeys(merges))
    (folder / "merges.txt").write_text("#version: 0.2\n" + "\n".join(merges) + "\n")
    special = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
    (folder / "vocab.txt").write_text("\n".join((*special, *WORDS)) + "\n")
    clip = CLIPTokenizer(str(folder / "vocab.json"), str(folder / "merges.txt"))
    return clip, BertTokenizer(str(folder / "vocab.txt"))


def pipeline(folder: Path) -> BlipDiffusionPipeline:
    clip, bert = tokenizers(folder / "tokenizers")
    bert.save_pretrained(folder / "bert")
    text = CLIPTextConfig(
        vocab_size=len(clip),
        hidden_size=32,
        intermediate_size=37,
        num_hidden_layers=3,
        num_attention_heads=4,
        max_position_embeddings=77,
    )
    qformer = Blip2Config(
        vision_config={
            "hidden_size": 24,
            "num_hidden_layers": 3,
            "num_attention_heads": 3,
            "image_size": 32,
            "patch_size": 8,
            "intermediate_size": 40,
            "hidden_act": "quick_gelu",
            "initializer_range": 0.05,
        },
        qformer_config={
            "vocab_size": len(bert) + 1,
            "hidden_size": 32,
            "num_hidden_layers": 3,
            "num_attention_heads": 4,
            "intermediate_size": 37,
            "max_position_embeddings": 40,
            "cross_attention_frequency": 2,
            "encoder_hidden_size": 24,
        },
        num_query_tokens=16,
        tokenizer=str(folder / "bert"),
    )
    vae = AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        block_out_channels=(16, 16),
        norm_num_groups=8,
        latent_channels=4,
    )
    unet = UNet2DConditionModel(
        sample_size=16,
        block_out_channels=(16, 32),
        layers_per_block=1,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        norm_num_groups=8,
        attention_head_dim=4,
        cross_attention_dim=32,
    )
    return BlipDiffusionPipeline(
        tokenizer=clip,
        text_encoder=ContextCLIPTextModel(text),
        vae=vae,
        unet=unet,
        scheduler=PNDMScheduler(
            beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", skip_prk_steps=True
        ),
        qformer=Blip2QFormerModel(qformer),
        image_processor=BlipImageProcessor(size={"height": 32, "width": 32}),
        mean=[0.48145466, 0.4578275, 0.40821073],
        std=[0.26862954, 0.26130258, 0.27577711],
    )


def shake(pipe: BlipDiffusionPipeline) -> None:
    """Random biases, norms and queries too, so that no key can be mixed up unseen."""
    generator = torch.Generator().manual_seed(5)
    for name in ("qformer", "text_encoder"):
        for parameter in getattr(pipe, name).eval().parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            parameter.data += 0.1 * noise
    pipe.qformer.query_tokens.data += torch.randn(
        pipe.qformer.query_tokens.shape, generator=generator
    )


@torch.no_grad()
def outputs(pipe: BlipDiffusionPipeline, folder: Path) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    pixels = torch.randn(2, 3, 32, 32, generator=generator)
    picture = np.random.default_rng(2).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    edges = np.random.default_rng(3).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    latents = torch.randn(2, 4, 16, 16, generator=generator)
    queries = pipe.qformer(image_input=pixels, text_input=["dog", "the cat"], return_dict=False)
    arguments = {
        "prompt": ["on a beach", "in the snow"],
        "reference_image": Image.fromarray(picture),
        "source_subject_category": ["dog", "the cat"],
        "target_subject_category": ["dog", "cat"],
        "height": 32,
        "width": 32,
        "num_inference_steps": 4,
        "neg_prompt": "blurry",
        "output_type": "pt",
    }
    found = {
        "pixels": pixels,
        "picture": torch.from_numpy(picture),
        "edges": torch.from_numpy(edges),
        "latents": latents,
        "vision": pipe.qformer.visual_encoder(pixels).last_hidden_state,
        "queries": queries,
        "text": pipe.encode_prompt(queries, ["a dog on a beach", "cat"], "cpu"),
        "image": pipe(**arguments, latents=latents).images,
        "image_unguided": pipe(**arguments, latents=latents, guidance_scale=1.0).images,
    }
    torch.manual_seed(7)
    controlnet = ControlNetModel.from_unet(pipe.unet, conditioning_embedding_out_channels=(16, 32))
    for parameter in controlnet.parameters():
        parameter.data += 0.02 * torch.randn(parameter.shape, generator=generator)
    controlled = BlipDiffusionControlNetPipeline(
        **pipe.components,
        controlnet=controlnet,
        mean=pipe.config.mean,
        std=pipe.config.std,
    )
    controlled.save_pretrained(folder / "controlled")
    found["image_controlled"] = controlled(
        **arguments, condtioning_image=Image.fromarray(edges), latents=latents
    ).images
    wide = np.random.default_rng(4).integers(0, 256, (12, 9, 3), dtype=np.uint8)
    wide = Image.fromarray(wide).resize((90, 60), Image.Resampling.BICUBIC)
    found["wide"] = torch.from_numpy(np.array(wide))
    found["wide_pixels"] = pipe.image_processor.preprocess(wide, return_tensors="pt").pixel_values
    return found


def main() -> None:
    folder = Path(sys.argv[1])
    torch.set_num_threads(1)
    torch.manual_seed(0)
    pipe = pipeline(folder)
    shake(pipe)
    pipe.set_progress_bar_config(disable=True)
    pipe.save_pretrained(folder / "pipeline")
    found = {name: value.contiguous().numpy() for name, value in outputs(pipe, folder).items()}
    save_file(found, folder / "oracle.safetensors")
    print(f"transformers {transformers.__version__}, diffusers {diffusers.__version__}")


if __name__ == "__main__":
    main()
