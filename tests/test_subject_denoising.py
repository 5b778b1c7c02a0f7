"""AlphaBlipDiffusionPipeline's loop: schedulers, latents, callbacks, control, inpainting."""

import numpy as np
import pytest
import torch
from diffusers import (
    DDIMScheduler,
    DDPMScheduler,
    DPMSolverMultistepScheduler,
    EulerAncestralDiscreteScheduler,
    EulerDiscreteScheduler,
    FlowMatchEulerDiscreteScheduler,
    HeunDiscreteScheduler,
    LCMScheduler,
)
from PIL import Image
from tiny_blip_diffusion import (
    controlled,
    differ,
    half,
    picture,
    run,
    same,
    seeded,
    tiny_pipeline,
    tiny_unet,
)

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
