"""AlphaBlipDiffusionPipeline refuses bad input, and says what it expected."""

import re

import numpy as np
import pytest
import torch
from PIL import Image
from tiny_blip_diffusion import controlled, half, picture, run, seeded, tiny_pipeline

from alphaclip_gen.subject import AlphaBlipImageProcessor
from alphaclip_gen.subject.denoising import check_run


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
