"""AlphaBlipDiffusionPipeline with tiny random components: regions, batches, callbacks, files."""

import json
import re
import shutil
import sys
from pathlib import Path

import diffusers
import numpy as np
import pytest
import torch
from diffusers import (
    AutoencoderKL,
    ControlNetModel,
    DDIMScheduler,
    DDPMScheduler,
    DiffusionPipeline,
    DPMSolverMultistepScheduler,
    EulerAncestralDiscreteScheduler,
    EulerDiscreteScheduler,
    FlowMatchEulerDiscreteScheduler,
    HeunDiscreteScheduler,
    LCMScheduler,
    PNDMScheduler,
    UNet2DConditionModel,
)
from PIL import Image
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import Blip2Config, CLIPTextConfig, PreTrainedTokenizerFast

from alphaclip_gen.subject import (
    AlphaBlip2QFormerModel,
    AlphaBlipDiffusionPipeline,
    AlphaBlipImageProcessor,
    ContextCLIPTextModel,
)
from alphaclip_gen.subject.denoising import check_run

CUSTOM = Path(__file__).parents[1] / "pipelines" / "blip_diffusion.py"
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


@pytest.fixture(scope="module")
def shared_pipe():
    return tiny_pipeline()


@pytest.fixture
def pipe(shared_pipe):
    shared_pipe.scheduler = PNDMScheduler(skip_prk_steps=True)
    return shared_pipe


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


# Regions


def test_a_half_mask_changes_the_picture_and_a_full_one_does_not(pipe):
    plain = run(pipe)
    assert plain.shape == (1, 3, 16, 16)
    full = np.ones((20, 24), dtype=bool)
    same(run(pipe, alpha_mask=full), plain)
    differ(run(pipe, alpha_mask=half()), plain)
    differ(run(pipe, alpha_mask=~half()), run(pipe, alpha_mask=half()))


def test_opaque_transparency_is_no_region(pipe):
    rgba = picture().convert("RGBA")
    same(run(pipe, rgba), run(pipe))


@pytest.mark.parametrize("kind", ["rgba", "pil", "array", "tensor", "float", "box", "fractions"])
def test_every_way_to_give_a_region_is_the_same(pipe, kind):
    mask, image = half(), picture()
    given = {
        "pil": Image.fromarray((mask * 255).astype(np.uint8)),
        "array": mask,
        "tensor": torch.from_numpy(mask),
        "float": torch.from_numpy(mask).float()[None, None],
        "box": (0, 0, 12, 20),
        "fractions": [0.0, 0.0, 0.5, 1.0],
    }
    if kind == "rgba":
        image = picture()
        image.putalpha(given["pil"])
        got = run(pipe, image)
    else:
        got = run(pipe, image, alpha_mask=given[kind])
    same(got, run(pipe, alpha_mask=half()))


@pytest.mark.parametrize("kind", ["array", "tensor", "path"])
def test_every_kind_of_picture_is_the_same(pipe, kind, tmp_path):
    picture().save(tmp_path / "dog.png")
    array = np.array(picture())
    tensor = torch.from_numpy(array).movedim(-1, 0) / 255
    given = {"array": array, "tensor": tensor, "path": tmp_path / "dog.png"}[kind]
    same(run(pipe, given), run(pipe))


def test_geometry_reaches_the_preprocessing(pipe):
    differ(run(pipe, geometry="pad"), run(pipe))
    differ(run(pipe, alpha_mask=half(), geometry="region"), run(pipe, alpha_mask=half()))


def test_published_color_statistics_replace_the_processors(pipe):
    changed = tiny_pipeline(mean=[0.1, 0.2, 0.3], std=[0.5, 0.5, 0.5])
    differ(run(changed), run(pipe))
    processor = AlphaBlipImageProcessor(
        size=16, image_mean=[0.1, 0.2, 0.3], image_std=[0.5, 0.5, 0.5]
    )
    same(run(tiny_pipeline(image_processor=processor)), run(changed))


# Several references, several prompts


def test_the_picture_and_its_subject_matter(pipe):
    differ(run(pipe, picture(1)), run(pipe))
    differ(run(pipe, subject="cat"), run(pipe))


def test_several_views_are_averaged(pipe):
    one, two = picture(0), picture(1)
    both = pipe.encode_subject([one, two], "dog")
    expected = (pipe.encode_subject(one, "dog") + pipe.encode_subject(two, "dog")) / 2
    same(both, expected)
    differ(run(pipe, [one, two]), run(pipe, one))
    same(run(pipe, [one, two]), run(pipe, [two, one]))


def test_several_subjects_stand_side_by_side(pipe):
    one, two = picture(0), picture(1)
    tokens = pipe.encode_subject([one, two], ["dog", "cat"], [half(), None], fusion="concatenate")
    assert tokens.shape == (1, 8, 32)
    same(tokens[:, :4], pipe.encode_subject(one, "dog", half()))
    same(tokens[:, 4:], pipe.encode_subject(two, "cat"))
    assert run(pipe, [one, two], reference_fusion="concatenate").shape == (1, 3, 16, 16)


def test_one_picture_looked_at_in_two_regions(pipe):
    both = pipe.encode_subject(picture(), "dog", [half(), ~half()])
    parts = [pipe.encode_subject(picture(), "dog", mask) for mask in (half(), ~half())]
    same(both, (parts[0] + parts[1]) / 2)


def test_a_batch_is_what_its_prompts_give_alone(pipe):
    latents = torch.randn(2, 4, 8, 8, generator=seeded(5))
    prompts, images = ["on the beach", "in the snow"], [picture(0), picture(1)]
    masks, subjects = [half(), None], ["dog", "cat"]
    together = run(
        pipe, images, prompts, subjects, alpha_mask=masks, target=subjects, latents=latents
    )
    for i in range(2):
        alone = run(
            pipe,
            images[i],
            prompts[i],
            subjects[i],
            alpha_mask=masks[i],
            target=subjects[i],
            latents=latents[i : i + 1],
        )
        same(together[i : i + 1], alone)


def test_one_reference_serves_all_prompts_and_is_looked_at_once(pipe):
    seen = []
    hook = pipe.qformer.visual_encoder.register_forward_hook(lambda *call: seen.append(call[1][0]))
    images = run(pipe, picture(), ["on the beach", "in the snow"], num_images_per_prompt=2)
    hook.remove()
    assert images.shape == (4, 3, 16, 16)
    assert [len(pixels) for pixels in seen] == [1]


def test_several_pictures_for_a_prompt_follow_each_other(pipe):
    latents = torch.randn(1, 4, 8, 8, generator=seeded(6)).repeat(4, 1, 1, 1)
    images = run(
        pipe,
        prompt=["on the beach", "in the snow"],
        latents=latents,
        num_images_per_prompt=2,
    )
    same(images[0], images[1])
    same(images[2], images[3])
    differ(images[0], images[2])


def test_references_of_each_prompt_nest(pipe):
    nested = [[picture(0), picture(1)], picture(2)]
    tokens = pipe.encode_subject(nested, "dog", prompts=2)
    same(tokens[:1], pipe.encode_subject(nested[0], "dog"))
    same(tokens[1:], pipe.encode_subject(picture(2), "dog"))


def test_a_batched_tensor_is_a_list(pipe):
    stack = torch.rand(2, 3, 16, 16, generator=seeded(1))
    same(pipe.encode_subject(stack, "dog"), pipe.encode_subject(list(stack), "dog"))


# Prompts


def prompts_of(pipe, monkeypatch, **options):
    """The texts that were tokenized, and how many tokens they were padded to."""
    seen = []
    encode = pipe.tokenizer

    def spy(texts, **given):
        seen.append((texts, given["max_length"]))
        return encode(texts, **given)

    monkeypatch.setattr(pipe, "tokenizer", spy)
    run(pipe, **options)
    return seen


def test_prompts_are_written_and_repeated_as_published(pipe, monkeypatch):
    (positive, room), (negative, whole) = prompts_of(
        pipe, monkeypatch, prompt=" on beach ", prompt_strength=0.5, prompt_reps=4
    )
    assert positive == ["a dog on beach, a dog on beach"]
    assert (room, whole) == (24 - 4, 24)
    assert negative == [""]


def test_published_folders_repeat_twenty_times(monkeypatch):
    components = {k: v for k, v in tiny_pipeline().components.items() if v is not None}
    pipe = AlphaBlipDiffusionPipeline(**components)
    pipe.set_progress_bar_config(disable=True)
    (positive, _), _ = prompts_of(pipe, monkeypatch)
    assert positive[0].count("a dog on the beach") == 20


def test_a_placeholder_puts_the_subject_anywhere(pipe, monkeypatch):
    (positive, _), _ = prompts_of(pipe, monkeypatch, prompt="two {subject} in snow")
    assert positive == ["two dog in snow"]


def test_the_negative_prompt_has_no_subject_and_counts_with_guidance_only(pipe):
    differ(run(pipe, negative_prompt="the cat"), run(pipe))
    unguided = run(pipe, guidance_scale=1.0)
    assert torch.equal(run(pipe, guidance_scale=1.0, negative_prompt="the cat"), unguided)
    differ(unguided, run(pipe))


def test_guidance_by_hand(pipe):
    """One DDIM step from noise at timestep 1: unguided + scale x (guided - unguided)."""
    pipe.scheduler = DDIMScheduler(set_alpha_to_one=False, steps_offset=1)
    noise = torch.randn(1, 4, 8, 8, generator=seeded(2))
    context = pipe.encode_subject(picture(), "dog")
    with torch.no_grad():
        negative, positive = (
            pipe.unet(noise, torch.tensor(1), encoder_hidden_states=text).sample
            for text in (
                pipe.encode_prompt(["the cat"]),
                pipe.encode_prompt(["a dog in snow"], context),
            )
        )
    alphas = pipe.scheduler.alphas_cumprod
    predicted = negative + 3 * (positive - negative)
    clean = (noise - (1 - alphas[1]).sqrt() * predicted) / alphas[1].sqrt()
    expected = alphas[0].sqrt() * clean.clamp(-1, 1) + (1 - alphas[0]).sqrt() * predicted
    got = run(
        pipe,
        prompt="in snow",
        negative_prompt="the cat",
        guidance_scale=3.0,
        latents=noise,
        num_inference_steps=1,
        output_type="latent",
    )
    same(got, expected)


# Schedulers, latents, callbacks


@pytest.mark.filterwarnings("ignore:__array__ implementation")  # diffusers with numpy 2
@pytest.mark.parametrize(
    "kind",
    [
        DDIMScheduler,
        DDPMScheduler,
        DPMSolverMultistepScheduler,
        EulerAncestralDiscreteScheduler,
        EulerDiscreteScheduler,
        FlowMatchEulerDiscreteScheduler,
        HeunDiscreteScheduler,
        LCMScheduler,
    ],
)
def test_any_scheduler_generates_and_inpaints(pipe, kind):
    pipe.scheduler = kind()
    first, again = run(pipe), run(pipe)
    assert torch.equal(first, again) and torch.isfinite(first).all()
    mask = half((16, 16))
    painted = run(
        pipe, inpaint_image=picture(7, (16, 16)), inpaint_mask=mask, strength=0.5,
        num_inference_steps=4,
    )  # fmt: skip
    original = torch.from_numpy(np.array(picture(7, (16, 16)))).movedim(-1, 0) / 255
    same(painted[0, :, :, 8:], original[:, :, 8:])
    differ(painted[0, :, :, :8], original[:, :, :8])


def test_latents_go_in_and_come_out(pipe):
    noise = torch.randn(1, 4, 8, 8, generator=seeded())
    latents = run(pipe, latents=noise, generator=None, output_type="latent")
    assert latents.shape == (1, 4, 8, 8)
    same(run(pipe, latents=noise, generator=None), run(pipe))
    same(pipe.decode(latents, output_type="pt"), run(pipe))


@torch.no_grad()
def test_output_types(pipe):
    options = {"num_inference_steps": 1}
    tensor = run(pipe, **options)
    array = run(pipe, output_type="np", **options)
    (image,) = run(pipe, output_type="pil", **options)
    assert array.shape == (1, 16, 16, 3) and image.size == (16, 16)
    assert np.allclose(array[0], tensor[0].movedim(0, -1).numpy())
    assert np.abs(np.array(image) / 255 - array[0]).max() <= 0.5 / 255 + 1e-6
    (tupled,) = pipe("on the beach", picture(), "dog", "dog", generator=seeded(),
                     output_type="pt", return_dict=False, **options)  # fmt: skip
    assert torch.equal(tupled, tensor)


def test_a_generator_for_each_result(pipe):
    images = run(pipe, prompt=["on the beach"] * 2, generator=[seeded(0), seeded(1)])
    same(images[:1], run(pipe, generator=seeded(0)))
    same(images[1:], run(pipe, generator=seeded(1)))


def test_callbacks_see_and_replace_tensors(pipe):
    seen = []

    def watch(pipeline, index, timestep, tensors):
        assert pipeline is pipe
        seen.append((index, int(timestep), sorted(tensors)))
        return {"latents": torch.zeros_like(tensors["latents"])} if index == 2 else {}

    names = ["latents", "prompt_embeds"]
    latents = run(
        pipe,
        output_type="latent",
        callback_on_step_end=watch,
        callback_on_step_end_tensor_inputs=names,
    )
    assert [index for index, _, _ in seen] == list(range(len(pipe.scheduler.timesteps)))
    assert [timestep for _, timestep, _ in seen] == pipe.scheduler.timesteps.tolist()
    assert seen[0][2] == names
    assert not latents.any()


def test_a_callback_can_change_the_prompt(pipe):
    def forget(pipeline, index, timestep, tensors):
        return {"prompt_embeds": torch.zeros_like(tensors["prompt_embeds"])}

    changed = run(
        pipe, callback_on_step_end=forget, callback_on_step_end_tensor_inputs=["prompt_embeds"]
    )
    differ(changed, run(pipe))


def test_a_callback_can_stop_the_run(pipe):
    seen = []

    def stop(pipeline, index, timestep, tensors):
        seen.append(tensors["latents"])
        pipeline.interrupt = index == 1

    latents = run(pipe, num_inference_steps=5, output_type="latent", callback_on_step_end=stop)
    assert len(seen) == 2 and torch.equal(latents, seen[-1])
    assert torch.isfinite(run(pipe)).all()


def test_the_progress_bar_counts_steps(pipe, capsys):
    pipe.set_progress_bar_config(disable=False)
    run(pipe, num_inference_steps=4)
    pipe.set_progress_bar_config(disable=True)
    assert "5/5" in capsys.readouterr().err  # PNDM repeats one step


def test_sizes(pipe):
    assert run(pipe, height=32, width=24).shape == (1, 3, 32, 24)
    assert tiny_pipeline().latent_scale == 2
    assert tiny_pipeline(scale_down_factor=4).latent_scale == 4


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision(dtype):
    pipe = tiny_pipeline()
    full = run(pipe, alpha_mask=half())
    low = run(pipe.to(dtype), alpha_mask=half())
    assert low.dtype == dtype
    assert (low.float() - full).abs().mean() < 0.02


# Control and inpainting


def controlled():
    pipe = tiny_pipeline()
    torch.manual_seed(1)
    controlnet = ControlNetModel.from_unet(pipe.unet, conditioning_embedding_out_channels=(8, 16))
    for parameter in controlnet.parameters():
        parameter.data += 0.05 * torch.randn_like(parameter)
    pipe.register_modules(controlnet=controlnet.eval())
    return pipe


def test_a_control_picture_steers(pipe):
    steered = controlled()
    same(run(steered), run(pipe))
    same(run(steered, control_image=picture(3), controlnet_conditioning_scale=0.0), run(pipe))
    first, second = (run(steered, control_image=picture(seed, (16, 16))) for seed in (3, 4))
    differ(first, second)
    both = run(
        steered,
        prompt=["on the beach"] * 2,
        control_image=[picture(3, (16, 16)), picture(4, (16, 16))],
        latents=torch.randn(1, 4, 8, 8, generator=seeded()).repeat(2, 1, 1, 1),
    )
    same(both, torch.cat([first, second]))


def test_inpainting_puts_a_subject_into_a_picture(pipe):
    scene = picture(7, (24, 32))
    mask = half((24, 32))
    original = torch.from_numpy(np.array(scene)).movedim(-1, 0)[None] / 255
    options = {"inpaint_image": scene, "inpaint_mask": mask}
    painted = run(pipe, **options)
    assert painted.shape == (1, 3, 24, 32)
    assert torch.equal(painted[..., 16:], original[..., 16:])
    differ(painted[..., :16], original[..., :16])
    differ(run(pipe, alpha_mask=half(), **options), painted)
    boxed = run(pipe, inpaint_image=scene, inpaint_mask=(0, 0, 16, 24))
    same(boxed, painted)


def test_latents_outside_the_mask_end_as_the_picture(pipe):
    scene = picture(7, (16, 16))
    latents = run(pipe, inpaint_image=scene, inpaint_mask=half((16, 16)), output_type="latent")
    values = torch.from_numpy(np.array(scene)).movedim(-1, 0)[None] / 255
    with torch.no_grad():
        mode = pipe.vae.encode(2 * values - 1).latent_dist.mode()
    expected = mode * pipe.vae.config.scaling_factor
    same(latents[..., 5:], expected[..., 5:])  # the mask's edge is soft between
    differ(latents[..., :4], expected[..., :4])


def test_low_strength_stays_close_to_the_old_content(pipe):
    pipe.scheduler = DDIMScheduler()
    scene = Image.fromarray(np.full((16, 16, 3), 128, dtype=np.uint8))
    full = np.ones((16, 16), dtype=bool)
    with torch.no_grad():
        latents = pipe.vae.encode(torch.full((1, 3, 16, 16), 2 * 128 / 255 - 1)).latent_dist.mode()
    latents = latents * pipe.vae.config.scaling_factor
    far, near = (
        run(pipe, inpaint_image=scene, inpaint_mask=full, strength=strength,
            num_inference_steps=20, output_type="latent", guidance_scale=1.0)
        for strength in (1.0, 0.1)
    )  # fmt: skip
    assert (near - latents).abs().mean() < 0.5 * (far - latents).abs().mean()


def test_an_inpainting_unet_sees_mask_and_picture():
    torch.manual_seed(2)
    pipe = tiny_pipeline(unet=tiny_unet(in_channels=9).eval())
    seen = []
    pipe.unet.register_forward_pre_hook(lambda module, given: seen.append(given[0]))
    run(pipe, inpaint_image=picture(7, (16, 16)), inpaint_mask=half((16, 16)))
    assert seen[0].shape == (2, 9, 8, 8)
    assert torch.equal(seen[0][0, 4, 0], torch.tensor([1.0] * 4 + [0.0] * 4))
    assert torch.equal(seen[0][:, 4:], seen[-1][:, 4:])


# Files


def test_save_and_load(pipe, tmp_path):
    pipe.save_pretrained(tmp_path)
    index = json.loads((tmp_path / "model_index.json").read_text())
    assert index["qformer"] == ["alphaclip_gen", "AlphaBlip2QFormerModel"]
    assert index["text_encoder"] == ["alphaclip_gen", "ContextCLIPTextModel"]
    assert index["image_processor"] == ["alphaclip_gen", "AlphaBlipImageProcessor"]
    assert index["_class_name"] == "AlphaBlipDiffusionPipeline"
    loaded = AlphaBlipDiffusionPipeline.from_pretrained(tmp_path)
    loaded.set_progress_bar_config(disable=True)
    assert torch.equal(run(loaded, alpha_mask=half()), run(pipe, alpha_mask=half()))


def published(pipe, folder):
    """The folder of a pipeline as it was published: old class names, no alpha weights."""
    pipe.save_pretrained(folder)
    path = folder / "model_index.json"
    index = json.loads(path.read_text())
    index |= {
        "_class_name": "BlipDiffusionPipeline",
        "image_processor": ["blip_diffusion", "BlipImageProcessor"],
        "qformer": ["blip_diffusion", "Blip2QFormerModel"],
        "text_encoder": ["blip_diffusion", "ContextCLIPTextModel"],
    }
    for name in ("controlnet", "qformer_tokenizer", "prompt_reps", "scale_down_factor"):
        index.pop(name, None)
    path.write_text(json.dumps(index))
    return folder


def test_a_published_folder_loads_and_leaves_diffusers_alone(pipe, tmp_path):
    before = dict(vars(diffusers.pipelines))
    folder = published(pipe, tmp_path)
    loaded = AlphaBlipDiffusionPipeline.from_pretrained(
        folder, qformer_tokenizer=pipe.qformer_tokenizer
    )
    loaded.set_progress_bar_config(disable=True)
    assert loaded.config.prompt_reps == 20
    same(run(loaded, prompt_reps=1), run(pipe))
    assert vars(diffusers.pipelines).get("blip_diffusion") is before.get("blip_diffusion")
    assert "alphaclip_gen" not in vars(diffusers.pipelines)


def test_a_hub_id_passes_the_check_of_class_names(pipe, tmp_path, monkeypatch):
    """What diffusers does with a Hub's model_index.json before it downloads the rest."""
    from diffusers.pipelines.pipeline_loading_utils import _get_custom_components_and_folders

    index = json.loads((published(pipe, tmp_path) / "model_index.json").read_text())
    with pytest.raises(ValueError, match="not a module in 'diffusers/pipelines'"):
        _get_custom_components_and_folders("hub/id", index, [])

    def check(cls, name, **options):
        _get_custom_components_and_folders(name, index, [])
        return str(tmp_path)

    monkeypatch.setattr(DiffusionPipeline, "download", classmethod(check))
    loaded = AlphaBlipDiffusionPipeline.from_pretrained(
        "hub/id", qformer_tokenizer=pipe.qformer_tokenizer
    )
    assert AlphaBlipDiffusionPipeline.download("hub/id") == str(tmp_path)
    assert isinstance(loaded.qformer, AlphaBlip2QFormerModel)


def test_the_qformers_tokenizer_is_loaded_on_first_use(tmp_path):
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    (tmp_path / "vocab.txt").write_text("\n".join([*special, "dog", "cat"]) + "\n")
    pipe = tiny_pipeline(qformer_tokenizer=None)
    pipe.qformer.config.tokenizer = str(tmp_path)
    run(pipe)
    assert pipe.qformer_tokenizer("dog").input_ids == [2, 5, 3]
    assert pipe.qformer_tokenizer.bos_token == "[DEC]"
    pipe.save_pretrained(tmp_path / "saved")
    loaded = AlphaBlipDiffusionPipeline.from_pretrained(tmp_path / "saved")
    assert loaded.qformer_tokenizer("dog").input_ids == [2, 5, 3]


def test_a_qformer_tokenizer_that_cannot_be_had(tmp_path):
    pipe = tiny_pipeline(qformer_tokenizer=None)
    pipe.qformer.config.tokenizer = str(tmp_path / "nothing" / "here" / "deep")
    with pytest.raises(ValueError, match="Pass qformer_tokenizer=BertTokenizer"):
        run(pipe)


@pytest.mark.parametrize("kind", ["own", "published"])
def test_custom_pipeline_file(pipe, tmp_path, kind, monkeypatch):
    monkeypatch.delattr(diffusers.pipelines, "blip_diffusion", raising=False)
    if kind == "own":
        pipe.save_pretrained(tmp_path)
    else:
        published(pipe, tmp_path)
    loaded = DiffusionPipeline.from_pretrained(
        str(tmp_path),
        custom_pipeline=str(CUSTOM),
        trust_remote_code=True,
        qformer_tokenizer=pipe.qformer_tokenizer,
    )
    monkeypatch.delattr(diffusers.pipelines, "blip_diffusion", raising=False)
    assert isinstance(loaded, AlphaBlipDiffusionPipeline)
    loaded.set_progress_bar_config(disable=True)
    same(run(loaded, alpha_mask=(0, 0, 12, 20), prompt_reps=1), run(pipe, alpha_mask=half()))


def test_custom_pipeline_without_the_package_says_so_in_one_line(pipe, tmp_path, monkeypatch):
    pipe.save_pretrained(tmp_path)
    shutil.copy(CUSTOM, tmp_path / "pipeline.py")
    monkeypatch.setitem(sys.modules, "alphaclip_gen", None)
    with pytest.raises(ImportError, match=r"^this pipeline needs alphaclip_gen: pip install .*$"):
        DiffusionPipeline.from_pretrained(
            str(tmp_path), custom_pipeline=str(tmp_path), trust_remote_code=True
        )


# Bad input


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        (
            {"alpha_mask": np.ones((8, 8), bool)},
            ValueError,
            "mask is 8 high and 8 wide; expected 20",
        ),
        ({"alpha_mask": np.zeros((20, 24), bool)}, ValueError, "mask is empty"),
        ({"alpha_mask": torch.full((20, 24), float("nan"))}, ValueError, "NaN or infinite"),
        ({"alpha_mask": torch.full((20, 24), 3.0)}, ValueError, r"expected \[0, 1\]"),
        ({"alpha_mask": np.ones((20, 24, 3), bool)}, ValueError, "expected one channel"),
        ({"alpha_mask": (0, 0, 99, 20)}, ValueError, "leaves the picture"),
        ({"alpha_mask": 3}, TypeError, "alpha_mask is a int; expected a mask or box"),
        (
            {"image": np.zeros((20, 24, 2))},
            ValueError,
            "image has shape .* with 1, 3 or 4 channels",
        ),
        ({"image": torch.full((3, 8, 8), float("nan"))}, ValueError, "NaN"),
        ({"image": Image.new("RGBA", (8, 8))}, ValueError, "transparency is empty"),
        ({"image": 5}, TypeError, "image is a int; expected a picture"),
        ({"image": [picture(), 5]}, TypeError, "image has a int in it"),
        ({"image": []}, TypeError, "expected a picture, or a list"),
        ({"image": [picture()] * 3, "prompt": ["a", "b"]}, ValueError, "3 entries for 2 prompts"),
        (
            {"alpha_mask": [half()] * 3, "prompt": ["a", "b"]},
            ValueError,
            "alpha_mask has 3 entries for 2 prompts",
        ),
        (
            {"image": [picture()] * 3, "alpha_mask": [half()] * 2},
            ValueError,
            "alpha_mask has 2 regions for 3 pictures",
        ),
        (
            {"image": [picture()] * 3, "subject": ["dog", "cat"]},
            ValueError,
            "source_subject_category has 2 names for 3 references",
        ),
        ({"target": ["dog", "cat"]}, ValueError, "target_subject_category has 2 entries"),
        ({"negative_prompt": ["a", "b"]}, ValueError, "negative_prompt has 2 entries for 1"),
        ({"prompt": []}, TypeError, r"prompt is \[\]; expected a string"),
        ({"num_inference_steps": 0}, ValueError, "num_inference_steps is 0; expected at least 1"),
        ({"reference_fusion": "sum"}, ValueError, "reference_fusion is 'sum'; expected one of"),
        ({"geometry": "round"}, ValueError, "geometry is 'round'; expected one of"),
        ({"prompt_strength": 0.0}, ValueError, "0 repetitions; expected at least 1"),
        ({"num_images_per_prompt": 0}, ValueError, "num_images_per_prompt is 0"),
        ({"output_type": "jpg"}, ValueError, "output_type is 'jpg'; expected one of"),
        ({"strength": 0.0}, ValueError, "strength is 0.0; expected above 0"),
        ({"strength": 0.5}, ValueError, "strength is 0.5 without inpaint_image"),
        ({"height": 15}, ValueError, r"\(15, 16\); expected multiples of 2"),
        ({"latents": torch.zeros(1, 4, 4, 4)}, ValueError, r"expected \(1, 4, 8, 8\)"),
        ({"generator": [seeded()] * 2}, ValueError, "generator is a list of 2"),
        ({"control_image": picture()}, ValueError, "has no controlnet"),
        ({"inpaint_mask": half()}, ValueError, "without inpaint_image; expected both"),
        ({"inpaint_image": picture()}, ValueError, "inpaint_mask is None"),
        (
            {"inpaint_image": picture(), "inpaint_mask": half((8, 8))},
            ValueError,
            "mask is 8 high and 8 wide; expected 20 high",
        ),
        (
            {"callback_on_step_end_tensor_inputs": ["noise"]},
            ValueError,
            r"\['noise'\]; expected some of",
        ),
        (
            {"image": [picture(i) for i in range(6)], "reference_fusion": "concatenate"},
            ValueError,
            "take 24 of the prompt's 24 tokens, which leaves no room",
        ),
    ],
)
def test_bad_input_is_refused(pipe, options, error, message):
    with pytest.raises(error, match=message):
        run(pipe, **options)


def test_a_prompt_that_is_no_text_is_refused():
    """Without the tests' own check of types, which comes first in the pipeline's call."""
    for prompts in (5, [5], None):
        with pytest.raises(
            TypeError, match=f"prompt is {re.escape(repr(prompts))}; expected a str"
        ):
            check_run(prompts, 1, 1, 1.0, False, "pil")


def test_a_tokenizer_of_other_words_is_refused():
    pipe = tiny_pipeline()
    pipe.qformer_tokenizer.add_tokens(["wombat"])
    with pytest.raises(ValueError, match="makes word 13; expected at most 12"):
        run(pipe, subject="wombat")


def test_control_pictures_for_other_prompts_are_refused():
    with pytest.raises(ValueError, match="3 pictures for 2 prompts; expected 1 or 2"):
        run(controlled(), prompt=["a", "b"], control_image=[picture()] * 3)


def test_inpainting_on_two_scales_is_refused():
    pipe = tiny_pipeline(scale_down_factor=4)
    with pytest.raises(ValueError, match="inpainting needs one scale"):
        run(pipe, inpaint_image=picture(7, (32, 32)), inpaint_mask=half((32, 32)))


def test_a_processor_for_oblong_pictures_is_refused():
    with pytest.raises(ValueError, match="expected the same height and width"):
        AlphaBlipImageProcessor(size={"height": 16, "width": 8})
