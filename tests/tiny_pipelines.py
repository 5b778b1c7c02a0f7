"""Every pipeline that `focus` covers, with tiny random components, and how to run each.

Not a test: test_conditioning.py and test_pipelines.py load it with `runpy`.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import diffusers as d
import torch
import transformers as t
from diffusers.pipelines.deprecated.paint_by_example import PaintByExampleImageEncoder
from diffusers.pipelines.deprecated.unclip.text_proj import UnCLIPTextProjModel
from diffusers.pipelines.flux.modeling_flux import ReduxImageEncoder
from diffusers.pipelines.shap_e import ShapERenderer
from diffusers.pipelines.stable_diffusion import StableUnCLIPImageNormalizer
from PIL import Image

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


# Image variation, unCLIP, priors


def image_variation():
    return d.StableDiffusionImageVariationPipeline(
        vae(), vision(), unet(), d.DDIMScheduler(), None, processor(), False
    )


def stable_unclip():
    return d.StableUnCLIPImg2ImgPipeline(
        feature_extractor=processor(),
        image_encoder=vision(),
        image_normalizer=StableUnCLIPImageNormalizer(embedding_dim=WIDTH),
        image_noising_scheduler=d.DDPMScheduler(),
        tokenizer=tokenizer(),
        text_encoder=text(),
        unet=unet(class_embed_type="projection", projection_class_embeddings_input_dim=2 * WIDTH),
        scheduler=d.DDIMScheduler(),
        vae=vae(),
    )


def unclip_image_variation():
    blocks = {
        "sample_size": 8,
        "layers_per_block": 1,
        "block_out_channels": (8, 8),
        "norm_num_groups": 4,
    }
    down, up = ("ResnetDownsampleBlock2D",) * 2, ("ResnetUpsampleBlock2D",) * 2

    def super_resolution():
        return livelier(
            d.UNet2DModel(
                in_channels=6, out_channels=3, down_block_types=down, up_block_types=up, **blocks
            )
        )

    decoder = d.UNet2DConditionModel(
        in_channels=3,
        out_channels=6,
        down_block_types=("ResnetDownsampleBlock2D", "SimpleCrossAttnDownBlock2D"),
        up_block_types=("SimpleCrossAttnUpBlock2D", "ResnetUpsampleBlock2D"),
        mid_block_type="UNetMidBlock2DSimpleCrossAttn",
        cross_attention_dim=WIDTH,
        attention_head_dim=4,
        resnet_time_scale_shift="scale_shift",
        class_embed_type="identity",
        **blocks,
    )
    return d.UnCLIPImageVariationPipeline(
        decoder=livelier(decoder),
        text_encoder=text(t.CLIPTextModelWithProjection),
        tokenizer=tokenizer(),
        text_proj=UnCLIPTextProjModel(
            clip_embeddings_dim=WIDTH, time_embed_dim=32, cross_attention_dim=WIDTH
        ),
        feature_extractor=processor(),
        image_encoder=vision(),
        super_res_first=super_resolution(),
        super_res_last=super_resolution(),
        decoder_scheduler=d.UnCLIPScheduler(variance_type="learned_range"),
        super_res_scheduler=d.UnCLIPScheduler(variance_type="fixed_small_log"),
    )


def kandinsky_prior(kind):
    prior = d.PriorTransformer(
        num_attention_heads=2,
        attention_head_dim=8,
        num_layers=1,
        embedding_dim=WIDTH,
        num_embeddings=32,
    )
    prior.clip_std = torch.nn.Parameter(torch.ones(1, WIDTH))
    return kind(
        prior=livelier(prior),
        image_encoder=vision(),
        text_encoder=text(t.CLIPTextModelWithProjection),
        tokenizer=tokenizer(),
        scheduler=d.UnCLIPScheduler(variance_type="fixed_small_log", prediction_type="sample"),
        image_processor=processor(),
    )


def cascade_prior():
    prior = d.StableCascadeUNet(
        conditioning_dim=16,
        block_out_channels=(16, 16),
        num_attention_heads=(2, 2),
        down_num_layers_per_block=(1, 1),
        up_num_layers_per_block=(1, 1),
        clip_image_in_channels=WIDTH,
        clip_text_in_channels=WIDTH,
        clip_text_pooled_in_channels=WIDTH,
        switch_level=(False,),
    )
    return d.StableCascadePriorPipeline(
        prior=livelier(prior),
        text_encoder=text(t.CLIPTextModelWithProjection),
        tokenizer=tokenizer(),
        scheduler=d.DDPMWuerstchenScheduler(),
        image_encoder=vision(),
        feature_extractor=processor(),
    )


# IP-Adapter


def adapter_weights(model, image_proj, bias=False):
    """An IP-Adapter's state dict for a U-Net or a Flux transformer."""
    ours = {}
    names = [name for name in model.attn_processors if not name.startswith("single_")]
    cross = [name for name in names if name.endswith("attn2.processor")] or names
    for index, name in enumerate(cross):
        attention = model.get_submodule(name.removesuffix(".processor"))
        inner = attention.to_q.out_features
        key = 2 * index + 1 if bias is False else index
        for part in "kv":
            ours[f"{key}.to_{part}_ip.weight"] = weight(inner, WIDTH)
            if bias:
                ours[f"{key}.to_{part}_ip.bias"] = torch.zeros(inner)
    return {"image_proj": image_proj, "ip_adapter": ours}


def plain_projection():
    return {
        "proj.weight": weight(4 * WIDTH, WIDTH),
        "proj.bias": torch.zeros(4 * WIDTH),
        "norm.weight": torch.ones(WIDTH),
        "norm.bias": torch.zeros(WIDTH),
    }


def plus_projection():
    """The weights of IP-Adapter Plus' resampler, one layer, under their published names."""
    inner = 64  # one head
    weights = {
        "latents": torch.randn(1, 4, WIDTH),
        "proj_in.weight": weight(WIDTH, WIDTH),
        "proj_in.bias": torch.zeros(WIDTH),
        "proj_out.weight": weight(WIDTH, WIDTH),
        "proj_out.bias": torch.zeros(WIDTH),
        "norm_out.weight": torch.ones(WIDTH),
        "norm_out.bias": torch.zeros(WIDTH),
    }
    for layer in range(4):
        for norm in ("0.norm1", "0.norm2", "1.0"):
            weights[f"layers.{layer}.{norm}.weight"] = torch.ones(WIDTH)
            weights[f"layers.{layer}.{norm}.bias"] = torch.zeros(WIDTH)
        weights[f"layers.{layer}.0.to_q.weight"] = weight(inner, WIDTH)
        weights[f"layers.{layer}.0.to_kv.weight"] = weight(2 * inner, WIDTH)
        weights[f"layers.{layer}.0.to_out.weight"] = weight(WIDTH, inner)
        weights[f"layers.{layer}.1.1.weight"] = weight(4 * WIDTH, WIDTH)
        weights[f"layers.{layer}.1.3.weight"] = weight(WIDTH, 4 * WIDTH)
    return weights


def with_adapter(pipe, image_proj=plain_projection):
    pipe.load_ip_adapter(adapter_weights(pipe.unet, image_proj()), subfolder=None, weight_name=None)
    return pipe


def stable_diffusion(image_proj=plain_projection):
    return with_adapter(
        d.StableDiffusionPipeline(
            vae=vae(),
            text_encoder=text(),
            tokenizer=tokenizer(),
            unet=unet(),
            scheduler=d.DDIMScheduler(),
            safety_checker=None,
            feature_extractor=processor(),
            image_encoder=vision(),
            requires_safety_checker=False,
        ),
        image_proj,
    )


def stable_diffusion_xl():
    model = unet(
        addition_embed_type="text_time",
        addition_time_embed_dim=8,
        projection_class_embeddings_input_dim=6 * 8 + WIDTH,
        cross_attention_dim=2 * WIDTH,
    )
    pipe = d.StableDiffusionXLPipeline(
        vae=vae(),
        text_encoder=text(),
        text_encoder_2=text(t.CLIPTextModelWithProjection),
        tokenizer=tokenizer(),
        tokenizer_2=tokenizer(),
        unet=model,
        scheduler=d.DDIMScheduler(),
        image_encoder=vision(),
        feature_extractor=processor(),
        add_watermarker=False,
    )

    def wider():
        wide = plain_projection()
        wide["proj.weight"], wide["proj.bias"] = weight(8 * WIDTH, WIDTH), torch.zeros(8 * WIDTH)
        wide["norm.weight"], wide["norm.bias"] = torch.ones(2 * WIDTH), torch.zeros(2 * WIDTH)
        return wide

    weights = adapter_weights(model, wider())
    for name, value in weights["ip_adapter"].items():
        weights["ip_adapter"][name] = weight(len(value), 2 * WIDTH)
    pipe.load_ip_adapter(weights, subfolder=None, weight_name=None)
    return pipe


def flux():
    model = d.FluxTransformer2DModel(
        in_channels=16,
        num_layers=1,
        num_single_layers=1,
        attention_head_dim=16,
        num_attention_heads=2,
        joint_attention_dim=WIDTH,
        pooled_projection_dim=WIDTH,
        axes_dims_rope=(4, 4, 8),
    )
    pipe = d.FluxPipeline(
        scheduler=d.FlowMatchEulerDiscreteScheduler(),
        vae=vae(shift_factor=0.0, scaling_factor=1.0, use_quant_conv=False),
        text_encoder=None,
        tokenizer=None,
        text_encoder_2=None,
        tokenizer_2=None,
        transformer=livelier(model),
        image_encoder=vision(),
        feature_extractor=processor(),
    )
    pipe.load_ip_adapter(
        adapter_weights(model, plain_projection(), bias=True),
        weight_name=None,
        subfolder=None,
        image_encoder_pretrained_model_name_or_path=None,
    )
    return pipe


# 3D, inpainting, video, SigLIP, LLaVA


def shap_e():
    prior = d.PriorTransformer(
        num_attention_heads=2,
        attention_head_dim=8,
        num_layers=1,
        embedding_dim=16,
        num_embeddings=16,
        embedding_proj_dim=WIDTH,
        time_embed_dim=32,
        clip_embed_dim=32,
        additional_embeddings=0,
        time_embed_act_fn="gelu",
        norm_in_type="layer",
        embedding_proj_norm_type="layer",
        encoder_hid_proj_type=None,
        added_emb_type=None,
    )
    renderer = ShapERenderer(
        param_shapes=((8, 93), (8, 8), (8, 8), (8, 8)), d_latent=16, d_hidden=8
    )
    return d.ShapEImg2ImgPipeline(
        prior=livelier(prior),
        image_encoder=vision(t.CLIPVisionModel),
        image_processor=processor(),
        scheduler=d.HeunDiscreteScheduler(
            beta_schedule="exp", prediction_type="sample", use_karras_sigmas=True
        ),
        shap_e_renderer=renderer,
    )


def paint_by_example():
    return d.PaintByExamplePipeline(
        vae=vae(),
        image_encoder=vision(PaintByExampleImageEncoder),
        unet=unet(in_channels=9),
        scheduler=d.DDIMScheduler(),
        safety_checker=None,
        feature_extractor=processor(),
        requires_safety_checker=False,
    )


def stable_video():
    model = d.UNetSpatioTemporalConditionModel(
        sample_size=8,
        block_out_channels=(32, 32),
        layers_per_block=1,
        down_block_types=("CrossAttnDownBlockSpatioTemporal", "DownBlockSpatioTemporal"),
        up_block_types=("UpBlockSpatioTemporal", "CrossAttnUpBlockSpatioTemporal"),
        cross_attention_dim=WIDTH,
        num_attention_heads=(4, 4),
        addition_time_embed_dim=8,
        projection_class_embeddings_input_dim=24,
        num_frames=2,
    )
    return d.StableVideoDiffusionPipeline(
        vae=vae(d.AutoencoderKLTemporalDecoder, block_out_channels=(32, 32)),
        image_encoder=vision(size=224, patch=56),
        unet=livelier(model),
        scheduler=d.EulerDiscreteScheduler(prediction_type="v_prediction"),
        feature_extractor=processor(224),
    )


def wan():
    model = d.WanTransformer3DModel(
        num_attention_heads=2,
        attention_head_dim=12,
        in_channels=36,
        out_channels=16,
        text_dim=WIDTH,
        freq_dim=16,
        ffn_dim=16,
        num_layers=1,
        image_dim=WIDTH,
        added_kv_proj_dim=24,
        rope_max_seq_len=32,
    )
    return d.WanImageToVideoPipeline(
        tokenizer=None,
        text_encoder=None,
        vae=d.AutoencoderKLWan(
            base_dim=4,
            dim_mult=[1, 1, 1, 1],
            num_res_blocks=1,
            temperal_downsample=[False, True, True],
        ).eval(),
        scheduler=d.FlowMatchEulerDiscreteScheduler(),
        image_processor=processor(),
        image_encoder=vision(t.CLIPVisionModel),
        transformer=livelier(model),
    )


def redux():
    embedder = ReduxImageEncoder(redux_dim=WIDTH, txt_in_features=WIDTH)
    embedder.redux_down = torch.nn.Linear(3 * WIDTH, 4096)  # the pipeline insists on T5's width
    return d.FluxPriorReduxPipeline(
        image_encoder=livelier(t.SiglipVisionModel(vision_config(t.SiglipVisionConfig))),
        feature_extractor=t.SiglipImageProcessor(size={"height": 32, "width": 32}),
        image_embedder=livelier(embedder),
    )


def llava():
    text_config = t.LlamaConfig(
        vocab_size=len(WORDS),
        hidden_size=WIDTH,
        intermediate_size=WIDTH,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=2,
        bos_token_id=0,
        eos_token_id=1,
        pad_token_id=1,
    )
    config = t.LlavaConfig(
        vision_config=vision_config(),
        text_config=text_config,
        image_token_id=WORDS.index("<image>"),
    )
    return livelier(t.LlavaForConditionalGeneration(config))


def llava_processor():
    words = tokenizer(additional_special_tokens=["<image>"])
    return t.LlavaProcessor(
        processor(),
        words,
        patch_size=8,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
    )


# How each is run: a pipeline and a picture in, a tensor out


@dataclass(frozen=True)
class Case:
    name: str
    build: Callable[[], Any]
    run: Callable[[Any, Any], torch.Tensor]
    alpha_weights: bool = True  # whether Alpha-CLIP has this kind of tower


def latents(pipe, first, **arguments):
    steps = {"num_inference_steps": 2, "generator": generator(), "output_type": "latent"}
    return pipe(first, **steps | arguments)[0]


def adapted(pipe, image, **arguments):
    words = {"prompt_embeds": noise(1, 8, WIDTH), "negative_prompt_embeds": noise(1, 8, WIDTH)}
    return latents(pipe, None, ip_adapter_image=image, **words | arguments)


def adapted_xl(pipe, image):
    return adapted(
        pipe,
        image,
        prompt_embeds=noise(1, 8, 2 * WIDTH),
        negative_prompt_embeds=noise(1, 8, 2 * WIDTH),
        pooled_prompt_embeds=noise(1, WIDTH),
        negative_pooled_prompt_embeds=noise(1, WIDTH),
    )


def output_mask():
    mask = torch.zeros(1, 1, 16, 16)
    mask[..., 8:] = 1
    return mask


def masked_adapter(pipe, image):
    return adapted(pipe, image, cross_attention_kwargs={"ip_adapter_masks": [output_mask()]})


def several_references(pipe, image):
    """Two references of one adapter, each with the region of its own."""
    mirrored = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    return adapted(pipe, [[image, mirrored]])


def cached_embeddings(pipe, image):
    embeds = pipe.prepare_ip_adapter_image_embeds([image], None, "cpu", 1, True)
    return adapted(pipe, None, ip_adapter_image_embeds=embeds)


def interpolated(pipe, image):
    return pipe.interpolate(
        [image, "a"], [0.7, 0.3], num_inference_steps=2, generator=generator()
    ).image_embeds


def inpainted(pipe, image):
    scene = Image.linear_gradient("L").resize((16, 16)).convert("RGB")
    hole = Image.new("L", (16, 16))
    hole.paste(255, (4, 4, 12, 12))
    return latents(pipe, image, image=scene, mask_image=hole, height=16, width=16)


def animated(pipe, image):
    return latents(pipe, image, height=16, width=16, num_frames=2, max_guidance_scale=1.5)


def filmed(pipe, image):
    words = {"prompt_embeds": noise(1, 8, WIDTH), "negative_prompt_embeds": noise(1, 8, WIDTH)}
    return latents(pipe, image, height=32, width=32, num_frames=5, **words)


def described(model, image):
    processor = model.processor_in_use
    inputs = processor(images=image, text="a <image> b", return_tensors="pt")
    return model(**inputs).logits


def flux_adapted(pipe, image):
    words = {"prompt_embeds": noise(1, 4, WIDTH), "pooled_prompt_embeds": noise(1, WIDTH)}
    return latents(pipe, None, ip_adapter_image=image, height=16, width=16, **words)


CASES = [
    Case("StableDiffusionImageVariationPipeline", image_variation, latents),
    Case(
        "StableUnCLIPImg2ImgPipeline",
        stable_unclip,
        lambda pipe, image: latents(pipe, image, prompt="a"),
        alpha_weights=False,
    ),
    Case(
        "UnCLIPImageVariationPipeline",
        unclip_image_variation,
        lambda pipe, image: torch.from_numpy(
            pipe(
                image,
                decoder_num_inference_steps=2,
                super_res_num_inference_steps=2,
                generator=generator(),
                output_type="np",
            ).images
        ),
    ),
    Case("KandinskyPriorPipeline", lambda: kandinsky_prior(d.KandinskyPriorPipeline), interpolated),
    Case(
        "KandinskyV22PriorPipeline",
        lambda: kandinsky_prior(d.KandinskyV22PriorPipeline),
        interpolated,
        alpha_weights=False,
    ),
    Case(
        "KandinskyV22PriorEmb2EmbPipeline",
        lambda: kandinsky_prior(d.KandinskyV22PriorEmb2EmbPipeline),
        lambda pipe, image: (
            pipe(
                "a", image, num_inference_steps=4, strength=0.5, generator=generator()
            ).image_embeds
        ),
        alpha_weights=False,
    ),
    Case(
        "StableCascadePriorPipeline",
        cascade_prior,
        lambda pipe, image: (
            pipe(
                "a",
                images=[image],
                height=64,
                width=64,
                num_inference_steps=2,
                generator=generator(),
            ).image_embeddings
        ),
    ),
    Case("IP-Adapter, SD 1.5", stable_diffusion, adapted, alpha_weights=False),
    Case("IP-Adapter, SDXL", stable_diffusion_xl, adapted_xl, alpha_weights=False),
    Case("IP-Adapter, Flux", flux, flux_adapted),
    Case(
        "IP-Adapter Plus, SD 1.5",
        lambda: stable_diffusion(plus_projection),
        adapted,
        alpha_weights=False,
    ),
    Case("IP-Adapter with `ip_adapter_masks`", stable_diffusion, masked_adapter, False),
    Case("IP-Adapter, several references", stable_diffusion, several_references, False),
    Case("IP-Adapter, `ip_adapter_image_embeds`", stable_diffusion, cached_embeddings, False),
    Case("ShapEImg2ImgPipeline", shap_e, latents),
    Case("PaintByExamplePipeline", paint_by_example, inpainted),
    Case("StableVideoDiffusionPipeline", stable_video, animated, alpha_weights=False),
    Case("WanImageToVideoPipeline", wan, filmed, alpha_weights=False),
    Case(
        "FluxPriorReduxPipeline",
        redux,
        lambda pipe, image: pipe(image).prompt_embeds,
        alpha_weights=False,
    ),
    Case("LlavaForConditionalGeneration", llava, described),
]
