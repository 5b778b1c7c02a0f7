"""AlphaBlipDiffusionPipeline with tiny random components: regions, references, prompts."""

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler
from PIL import Image
from tiny_blip_diffusion import differ, half, picture, run, same, seeded, tiny_pipeline

from alphaclip_gen.subject import AlphaBlipDiffusionPipeline, AlphaBlipImageProcessor

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


def test_a_saved_geometry_is_the_pipeline_s(pipe, tmp_path):
    """A processor that cuts regions out; without a region it shows the whole picture."""
    AlphaBlipImageProcessor(size=16, geometry="region").save_pretrained(tmp_path)
    cutting = tiny_pipeline()
    cutting.image_processor = AlphaBlipImageProcessor.from_pretrained(tmp_path)
    same(run(cutting, alpha_mask=half()), run(pipe, alpha_mask=half(), geometry="region"))
    same(run(cutting, alpha_mask=half(), geometry="squash"), run(pipe, alpha_mask=half()))
    same(run(cutting), run(cutting, alpha_mask=np.ones_like(half())))
    with pytest.raises(ValueError, match="geometry is 'round'; expected one of"):
        AlphaBlipImageProcessor(geometry="round")


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
