"""Every pipeline that `focus` covers, of tiny random components (see tiny_parts.py).

Not a test: others load it with `runpy`. How each is run is in tiny_cases.py.
"""

import runpy
from pathlib import Path
from types import SimpleNamespace

import diffusers as d
import torch
import transformers as t
from diffusers.pipelines.deprecated.paint_by_example import PaintByExampleImageEncoder
from diffusers.pipelines.deprecated.unclip.text_proj import UnCLIPTextProjModel
from diffusers.pipelines.flux.modeling_flux import ReduxImageEncoder
from diffusers.pipelines.shap_e import ShapERenderer
from diffusers.pipelines.stable_diffusion import StableUnCLIPImageNormalizer

parts = SimpleNamespace(**runpy.run_path(str(Path(__file__).with_name("tiny_parts.py"))))
WIDTH = parts.WIDTH


# Image variation, unCLIP, priors


def image_variation():
    return d.StableDiffusionImageVariationPipeline(
        parts.vae(), parts.vision(), parts.unet(), d.DDIMScheduler(), None, parts.processor(), False
    )


def stable_unclip():
    return d.StableUnCLIPImg2ImgPipeline(
        feature_extractor=parts.processor(),
        image_encoder=parts.vision(),
        image_normalizer=StableUnCLIPImageNormalizer(embedding_dim=WIDTH),
        image_noising_scheduler=d.DDPMScheduler(),
        tokenizer=parts.tokenizer(),
        text_encoder=parts.text(),
        unet=parts.unet(
            class_embed_type="projection", projection_class_embeddings_input_dim=2 * WIDTH
        ),
        scheduler=d.DDIMScheduler(),
        vae=parts.vae(),
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
        return parts.livelier(
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
        decoder=parts.livelier(decoder),
        text_encoder=parts.text(t.CLIPTextModelWithProjection),
        tokenizer=parts.tokenizer(),
        text_proj=UnCLIPTextProjModel(
            clip_embeddings_dim=WIDTH, time_embed_dim=32, cross_attention_dim=WIDTH
        ),
        feature_extractor=parts.processor(),
        image_encoder=parts.vision(),
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
        prior=parts.livelier(prior),
        image_encoder=parts.vision(),
        text_encoder=parts.text(t.CLIPTextModelWithProjection),
        tokenizer=parts.tokenizer(),
        scheduler=d.UnCLIPScheduler(variance_type="fixed_small_log", prediction_type="sample"),
        image_processor=parts.processor(),
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
        prior=parts.livelier(prior),
        text_encoder=parts.text(t.CLIPTextModelWithProjection),
        tokenizer=parts.tokenizer(),
        scheduler=d.DDPMWuerstchenScheduler(),
        image_encoder=parts.vision(),
        feature_extractor=parts.processor(),
    )


# IP-Adapter (the adapters themselves are in tiny_adapters.py)


def stable_diffusion():
    return d.StableDiffusionPipeline(
        vae=parts.vae(),
        text_encoder=parts.text(),
        tokenizer=parts.tokenizer(),
        unet=parts.unet(),
        scheduler=d.DDIMScheduler(),
        safety_checker=None,
        feature_extractor=parts.processor(),
        image_encoder=parts.vision(),
        requires_safety_checker=False,
    )


def stable_diffusion_xl():
    return d.StableDiffusionXLPipeline(
        vae=parts.vae(),
        text_encoder=parts.text(),
        text_encoder_2=parts.text(t.CLIPTextModelWithProjection),
        tokenizer=parts.tokenizer(),
        tokenizer_2=parts.tokenizer(),
        unet=parts.unet(
            addition_embed_type="text_time",
            addition_time_embed_dim=8,
            projection_class_embeddings_input_dim=6 * 8 + WIDTH,
            cross_attention_dim=2 * WIDTH,
        ),
        scheduler=d.DDIMScheduler(),
        image_encoder=parts.vision(),
        feature_extractor=parts.processor(),
        add_watermarker=False,
    )


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
    return d.FluxPipeline(
        scheduler=d.FlowMatchEulerDiscreteScheduler(),
        vae=parts.vae(shift_factor=0.0, scaling_factor=1.0, use_quant_conv=False),
        text_encoder=None,
        tokenizer=None,
        text_encoder_2=None,
        tokenizer_2=None,
        transformer=parts.livelier(model),
        image_encoder=parts.vision(),
        feature_extractor=parts.processor(),
    )


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
        prior=parts.livelier(prior),
        image_encoder=parts.vision(t.CLIPVisionModel),
        image_processor=parts.processor(),
        scheduler=d.HeunDiscreteScheduler(
            beta_schedule="exp", prediction_type="sample", use_karras_sigmas=True
        ),
        shap_e_renderer=renderer,
    )


def paint_by_example():
    return d.PaintByExamplePipeline(
        vae=parts.vae(),
        image_encoder=parts.vision(PaintByExampleImageEncoder),
        unet=parts.unet(in_channels=9),
        scheduler=d.DDIMScheduler(),
        safety_checker=None,
        feature_extractor=parts.processor(),
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
        vae=parts.vae(d.AutoencoderKLTemporalDecoder, block_out_channels=(32, 32)),
        image_encoder=parts.vision(size=224, patch=56),
        unet=parts.livelier(model),
        scheduler=d.EulerDiscreteScheduler(prediction_type="v_prediction"),
        feature_extractor=parts.processor(224),
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
        image_processor=parts.processor(),
        image_encoder=parts.vision(t.CLIPVisionModel),
        transformer=parts.livelier(model),
    )


def redux():
    embedder = ReduxImageEncoder(redux_dim=WIDTH, txt_in_features=WIDTH)
    embedder.redux_down = torch.nn.Linear(3 * WIDTH, 4096)  # the pipeline insists on T5's width
    return d.FluxPriorReduxPipeline(
        image_encoder=parts.livelier(
            t.SiglipVisionModel(parts.vision_config(t.SiglipVisionConfig))
        ),
        feature_extractor=t.SiglipImageProcessor(size={"height": 32, "width": 32}),
        image_embedder=parts.livelier(embedder),
    )


def llava():
    text_config = t.LlamaConfig(
        vocab_size=len(parts.WORDS),
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
        vision_config=parts.vision_config(),
        text_config=text_config,
        image_token_id=parts.WORDS.index("<image>"),
    )
    return parts.livelier(t.LlavaForConditionalGeneration(config))


def llava_processor():
    words = parts.tokenizer(additional_special_tokens=["<image>"])
    return t.LlavaProcessor(
        parts.processor(),
        words,
        patch_size=8,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
    )
