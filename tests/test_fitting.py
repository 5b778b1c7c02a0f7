"""Which towers a pipeline takes: the sizes it is tied to, and what would fit instead."""

import runpy
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from transformers import CLIPModel, CLIPVisionConfig, CLIPVisionModel, CLIPVisionModelWithProjection

pytest.importorskip("diffusers")

from alphaclip_gen.attention_focus import FOCUSED
from alphaclip_gen.conditioning import focus, unfocus
from alphaclip_gen.fitting import PUBLISHED
from alphaclip_gen.vision import AlphaCLIPVisionModel

HERE = Path(__file__).resolve().parent
cases = SimpleNamespace(**runpy.run_path(str(HERE / "tiny_cases.py")))
VARIATION = cases.BY_NAME["StableDiffusionImageVariationPipeline"]

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
]


@pytest.fixture(name="image")
def picture():
    return cases.noise_picture()


def test_a_stock_tower_of_another_input_size_is_made_to_follow_alpha(image):
    """Only the projection ties an image variation to its tower, so 64 pixels are fine."""
    pipe = cases.build(VARIATION)
    focus(pipe, cases.parts.vision(size=64))
    assert type(pipe.image_encoder) is FOCUSED[CLIPVisionModelWithProjection]
    assert pipe.feature_extractor.crop_size.height == 64
    changed = cases.run(VARIATION, pipe, cases.with_region(image)) - cases.run(
        VARIATION, pipe, image
    )
    assert changed.norm() > 1e-3


def test_a_plain_clip_with_alpha_weights_of_zero_is_made_to_follow_alpha(image):
    """What load_tower makes of a plain CLIP heeds no region by itself."""
    pipe = cases.build(VARIATION)
    plain = cases.run(VARIATION, pipe, image)
    focus(pipe, cases.alpha_tower(pipe.image_encoder, std=0.0))
    assert type(pipe.image_encoder) is FOCUSED[CLIPVisionModelWithProjection]
    torch.testing.assert_close(cases.run(VARIATION, pipe, image), plain, atol=1e-4, rtol=1e-4)
    assert (cases.run(VARIATION, pipe, cases.with_region(image)) - plain).norm() > 1e-3


def test_a_safety_checker_ties_the_pipeline_to_the_size_of_its_own_tower(image):
    """It is shown the pictures by the same processor."""
    pipe = cases.build(VARIATION)
    pipe.safety_checker = torch.nn.Identity()
    with pytest.raises(ValueError, match="needs the projection and tokens of its own"):
        focus(pipe, cases.parts.vision(size=64))
    focus(pipe, cases.alpha_tower(pipe.image_encoder))


def test_a_tower_of_another_projection_is_refused():
    pipe = cases.build(VARIATION)
    own = pipe.image_encoder
    with pytest.raises(
        ValueError,
        match=r"has width 16, 17 tokens and projection 12; StableDiffusionImageVariationPipeline "
        r"needs the projection of its own CLIPVisionModelWithProjection, which has width 16, 17 "
        r"tokens and projection 16. No published Alpha-CLIP would fit; focus\(pipe\) without",
    ):
        focus(pipe, cases.parts.vision(projection_dim=12))
    assert pipe.image_encoder is own
    with pytest.raises(ValueError, match="is not focused"):
        unfocus(pipe)


def test_width_and_tokens_are_checked_where_tokens_are_read():
    pipe = cases.build(cases.BY_NAME["WanImageToVideoPipeline"])
    with pytest.raises(ValueError, match=r"5 tokens .* needs the width and tokens of its own"):
        focus(pipe, cases.parts.vision(patch=16))
    focus(pipe, cases.alpha_tower(cases.parts.vision(), std=0.5))
    assert type(pipe.image_encoder) is AlphaCLIPVisionModel, "its projection is left out"
    plus = cases.build(cases.BY_NAME["IP-Adapter Plus, SD 1.5"])
    wider = vision_config(hidden_size=32, image_size=32, patch_size=8, projection_dim=16)
    with pytest.raises(ValueError, match=r"width 32.* needs the projection and width of its own"):
        focus(plus, CLIPVisionModelWithProjection(wider))
    video = cases.build(cases.BY_NAME["StableVideoDiffusionPipeline"])
    with pytest.raises(ValueError, match="needs the projection and tokens of its own"):
        focus(video, cases.parts.vision(size=32, patch=16))


def test_published_towers_that_would_fit_are_named():
    """ShapE's pipeline at its true size has an L/14; a B/16 is offered."""
    with torch.device("meta"):
        sizes = {"num_hidden_layers": 1, "image_size": 224}
        large = CLIPVisionModel(vision_config(hidden_size=1024, patch_size=14, **sizes))
        base = CLIPVisionModel(vision_config(hidden_size=768, patch_size=16, **sizes))
    pipe = cases.build(cases.BY_NAME["ShapEImg2ImgPipeline"])
    pipe.image_encoder = large
    with pytest.raises(ValueError, match=r"\. Alpha-CLIP ViT-L/14 would fit; focus\(pipe\)"):
        focus(pipe, base)


def vision_config(**changes):
    return CLIPVisionConfig(intermediate_size=8, num_attention_heads=8, **changes)


def test_what_is_no_tower_is_refused():
    pipe = cases.build(VARIATION)
    config = {"vision_config": cases.parts.vision_config().to_dict()}
    with pytest.raises(TypeError, match=r"tower is a CLIPModel; expected an Alpha-CLIP vision"):
        focus(pipe, CLIPModel(CLIPModel.config_class(**config)))


def test_sizes_of_published_towers_by_hand():
    assert PUBLISHED == {
        "Alpha-CLIP ViT-B/16": (768, 197, 512),
        "Alpha-CLIP ViT-L/14": (1024, 257, 768),
        "Alpha-CLIP ViT-L/14@336px": (1024, 577, 768),
    }
