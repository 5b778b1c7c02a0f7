"""BLIP-Diffusion's vision tower against diffusers' own class, and by hand."""

import pytest
import torch
from tiny_subject import VISION, half, shaken, stored, tiny_pixels, tiny_tower
from transformers import Blip2VisionConfig, CLIPVisionModel

from alphaclip_gen.subject import AlphaBlip2VisionModel, load_alpha_clip
from alphaclip_gen.vision import AlphaCLIPVisionConfig, AlphaCLIPVisionModel


@pytest.fixture
def tower():
    return tiny_tower()


@pytest.fixture
def pixels():
    return tiny_pixels()


def test_fresh_alpha_weights_are_zero_and_change_nothing(pixels):
    tower = AlphaBlip2VisionModel(Blip2VisionConfig(**VISION)).eval()
    assert not tower.embeddings.patch_embedding_alpha.weight.any()
    with torch.no_grad():
        masked = tower(torch.cat([pixels, stored(half())], dim=1))
        assert torch.equal(tower(pixels), masked)


def test_three_channels_and_a_full_mask_are_the_same(tower, pixels):
    with torch.no_grad():
        full = tower(torch.cat([pixels, stored(torch.ones(1, 1, 32, 32))], dim=1))
        masked = tower(torch.cat([pixels, stored(half())], dim=1))
        assert torch.equal(tower(pixels), full)
    assert (full - masked).abs().mean() > 0.01


def test_alpha_enters_as_published(tower, pixels):
    """conv(rgb) + conv_alpha((alpha - 0.5) / 0.26), then the positions: SunzeY/AlphaCLIP."""
    alpha = torch.rand(2, 1, 32, 32)
    embeddings = tower.embeddings
    patches = torch.nn.functional.conv2d(pixels, embeddings.patch_embedding.weight, stride=8)
    weight = embeddings.patch_embedding_alpha.weight
    patches = patches + torch.nn.functional.conv2d((alpha - 0.5) / 0.26, weight, stride=8)
    expected = patches.flatten(2).mT + embeddings.position_embedding[:, 1:]
    got = embeddings(torch.cat([pixels, alpha - 1], dim=1))[:, 1:]
    torch.testing.assert_close(got, expected, atol=2e-6, rtol=1e-5)


def test_alpha_gets_a_gradient_at_every_pixel(tower, pixels):
    alpha = torch.zeros(2, 1, 32, 32, requires_grad=True)
    tower(torch.cat([pixels, alpha - 1], dim=1))[:, 0, :4].sum().backward()
    assert (alpha.grad.abs() > 0).all()


@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_vision_equals_diffusers_class_with_the_same_keys(tower, pixels):
    """diffusers' deprecated Blip2VisionModel still runs; its two other models do not."""
    from diffusers.pipelines.deprecated.blip_diffusion.modeling_blip2 import Blip2VisionModel

    theirs = Blip2VisionModel(Blip2VisionConfig(**VISION)).eval()
    ours = tower.state_dict()
    assert ours.pop("embeddings.patch_embedding_alpha.weight").shape == (24, 1, 8, 8)
    theirs.load_state_dict(ours)
    tower.embeddings.patch_embedding_alpha.weight.data.zero_()
    with torch.no_grad():
        torch.testing.assert_close(
            tower(pixels), theirs(pixels).last_hidden_state, atol=2e-6, rtol=1e-5
        )


@pytest.mark.parametrize("shape", [(1, 2, 32, 32), (1, 5, 32, 32), (1, 3, 32, 24)])
def test_wrong_pixel_values_are_refused(tower, shape):
    with pytest.raises(ValueError, match=r"expected \(batch, 3 or 4, 32, 32\)"):
        tower(torch.zeros(shape))


def test_gradient_checkpointing_gives_the_same_gradients(tower, pixels):
    def gradient():
        tower.zero_grad()
        tower(pixels).square().sum().backward()
        return tower.embeddings.class_embedding.grad.clone()

    tower.train()
    plain = gradient()
    tower.activation_checkpointing_enable()
    torch.testing.assert_close(gradient(), plain)


def clip_tower(kind, blocks=3, **changes):
    options = VISION | {"num_hidden_layers": blocks, "layer_norm_eps": 1e-5} | changes
    torch.manual_seed(4)
    return shaken(kind(AlphaCLIPVisionConfig(**options)))


@pytest.mark.parametrize("kind", [AlphaCLIPVisionModel, CLIPVisionModel])
def test_alpha_clip_moves_into_the_tower(tower, pixels, kind):
    """The tower reads what enters CLIP's last block, through its own last norm."""
    source = clip_tower(kind)
    values = pixels
    if kind is AlphaCLIPVisionModel:
        values = torch.cat([pixels, stored(half())], dim=1)
    kept = tower.post_layernorm.weight.clone()
    load_alpha_clip(tower, source)
    assert torch.equal(tower.post_layernorm.weight, kept)
    with torch.no_grad():
        entering = source(values, output_hidden_states=True).hidden_states[-2]
        expected = tower.post_layernorm(entering)
        torch.testing.assert_close(tower(values), expected, atol=1e-5, rtol=1e-5)
    assert tower.config.layer_norm_eps == tower.pre_layernorm.eps == 1e-5


def test_a_tower_of_another_size_is_refused(tower):
    source = clip_tower(AlphaCLIPVisionModel, blocks=1, hidden_size=48, hidden_act="gelu")
    before = tower.state_dict()["pre_layernorm.weight"].clone()
    with pytest.raises(
        ValueError,
        match=r"hidden_size 48 instead of 24, hidden_act gelu .*, 1 blocks instead of 2 .*L/14",
    ):
        load_alpha_clip(tower, source)
    assert torch.equal(tower.pre_layernorm.weight, before)
