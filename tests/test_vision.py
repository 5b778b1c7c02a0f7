"""Alpha-CLIP's tower against transformers' CLIP and a written-out reference."""

import pytest
import torch
from transformers import AutoModel, CLIPModel, CLIPVisionModel, CLIPVisionModelWithProjection

from alphaclip_gen.vision import (
    ALPHA_MEAN,
    ALPHA_STD,
    AlphaCLIPConfig,
    AlphaCLIPModel,
    AlphaCLIPVisionConfig,
    AlphaCLIPVisionModel,
    AlphaCLIPVisionModelWithProjection,
    heeds_alpha,
    pixel_values,
)

TINY = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "image_size": 32,
    "patch_size": 8,
    "projection_dim": 16,
}
TEXT = {
    "vocab_size": 20,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "max_position_embeddings": 8,
    "projection_dim": 16,
}


@pytest.fixture
def tower():
    torch.manual_seed(0)
    return AlphaCLIPVisionModelWithProjection(AlphaCLIPVisionConfig(**TINY)).eval()


@pytest.fixture
def trained(tower):
    """A tower whose alpha weights are no longer zero."""
    torch.nn.init.normal_(tower.vision_model.embeddings.patch_embedding_alpha.weight, std=0.05)
    return tower


@pytest.fixture
def pixels():
    return torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("kind", [AlphaCLIPVisionModel, AlphaCLIPVisionModelWithProjection])
def test_fresh_alpha_weights_are_zero_and_have_no_bias(kind):
    model = kind(AlphaCLIPVisionConfig(**TINY))
    alpha = [(name, p) for name, p in model.named_parameters() if "alpha" in name]
    assert [p.shape for _, p in alpha] == [(32, 1, 8, 8)]
    assert not alpha[0][1].any()
    color = dict(model.named_parameters())[alpha[0][0].replace("_alpha", "")]
    assert color.std() > 0.01


def test_fresh_alpha_weights_leave_clip_unchanged_bit_for_bit(pixels):
    torch.manual_seed(0)
    base = CLIPVisionModel(AlphaCLIPVisionConfig(**TINY)).eval()
    ours = AlphaCLIPVisionModel(AlphaCLIPVisionConfig(**TINY)).eval()
    report = ours.load_state_dict(base.state_dict(), strict=False)
    assert report.missing_keys == ["embeddings.patch_embedding_alpha.weight"]
    assert not report.unexpected_keys
    with_alpha = torch.cat([pixels, -torch.rand(2, 1, 32, 32)], dim=1)
    for given in (pixels, with_alpha):
        with torch.no_grad():
            expected, got = base(pixels), ours(given)
        assert torch.equal(expected.last_hidden_state, got.last_hidden_state)
        assert torch.equal(expected.pooler_output, got.pooler_output)


def test_three_channels_and_stored_zeros_both_attend_everywhere(trained, pixels):
    stored = torch.cat([pixels, torch.zeros(2, 1, 32, 32)], dim=1)
    with torch.no_grad():
        assert torch.equal(trained(pixels).image_embeds, trained(stored).image_embeds)


def test_alpha_enters_as_published(trained, pixels):
    """conv1(rgb) + conv1_alpha((alpha - 0.5) / 0.26), then the positions: SunzeY/AlphaCLIP."""
    alpha = torch.rand(2, 1, 32, 32)
    embeddings = trained.vision_model.embeddings
    patches = torch.nn.functional.conv2d(pixels, embeddings.patch_embedding.weight, stride=8)
    normalized = (alpha - ALPHA_MEAN) / ALPHA_STD
    patches = patches + torch.nn.functional.conv2d(
        normalized, embeddings.patch_embedding_alpha.weight, stride=8
    )
    expected = patches.flatten(2).mT + embeddings.position_embedding.weight[1:]
    with torch.no_grad():
        got = embeddings(torch.cat([pixels, alpha - 1], dim=1))[:, 1:]
    torch.testing.assert_close(got, expected, atol=2e-6, rtol=1e-5)


def test_a_region_changes_the_embedding_and_gets_a_gradient(trained, pixels):
    image = torch.rand(1, 3, 32, 32)
    alpha = torch.zeros(1, 1, 32, 32, requires_grad=True)
    half = torch.zeros(1, 1, 32, 32)
    half[..., :16] = 1
    everywhere = trained(pixel_values(image)).image_embeds
    left = trained(pixel_values(image, half)).image_embeds
    assert (everywhere - left).abs().max() > 1e-3
    trained(pixel_values(image, alpha)).image_embeds.sum().backward()
    assert (alpha.grad.abs() > 0).all()


def test_pixel_values_by_hand():
    image = torch.full((1, 3, 1, 1), 0.5)
    values = pixel_values(image, torch.full((1, 1, 1, 1), 0.25))
    by_hand = [(0.5 - 0.48145466) / 0.26862954, (0.5 - 0.4578275) / 0.26130258]
    assert values.flatten().tolist() == pytest.approx(
        [*by_hand, (0.5 - 0.40821073) / 0.27577711, -0.75]
    )
    assert pixel_values(image).shape == (1, 3, 1, 1)


def test_wrong_channel_count_is_refused(tower):
    with pytest.raises(ValueError, match=r"2 channels; expected 3 .* or 4 .*pixel_values\("):
        tower(torch.rand(1, 2, 32, 32))


@pytest.mark.parametrize(
    ("stored", "told"), [(1.0, "1 to 1"), (-1.5, "-1.5 to -1.5"), (torch.nan, "nan to nan")]
)
def test_a_fourth_channel_that_is_no_stored_alpha_is_refused(tower, pixels, stored, told):
    """RGBA in [0, 1] would attend somewhere else, in silence."""
    wrong = torch.cat([pixels, torch.full((2, 1, 32, 32), stored)], dim=1)
    with pytest.raises(ValueError, match=rf"pixel_values has {told} in its fourth channel; exp"):
        tower(wrong)


def test_wrong_size_is_refused(tower, pixels):
    with pytest.raises(ValueError, match="doesn't match model"):
        tower(pixels[..., :24])


def test_positions_interpolate_to_other_sizes(trained):
    wide = torch.cat([torch.randn(1, 3, 32, 48), -torch.rand(1, 1, 32, 48)], dim=1)
    output = trained(wide, interpolate_pos_encoding=True)
    assert output.last_hidden_state.shape == (1, 1 + 4 * 6, 32)


def test_eager_attention_gives_the_same_and_its_weights(trained, pixels):
    stored = torch.cat([pixels, -torch.rand(2, 1, 32, 32)], dim=1)
    with torch.no_grad():
        fused = trained(stored).image_embeds
        trained.set_attn_implementation("eager")
        output = trained(stored, output_attentions=True)
    torch.testing.assert_close(output.image_embeds, fused, atol=1e-5, rtol=1e-5)
    assert [one.shape for one in output.attentions] == 2 * [(2, 2, 17, 17)]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision(trained, pixels, dtype):
    stored = torch.cat([pixels, -torch.rand(2, 1, 32, 32)], dim=1)
    with torch.no_grad():
        full = trained(stored).image_embeds
        half = trained.to(dtype)(stored.to(dtype)).image_embeds
    assert half.dtype == dtype
    torch.testing.assert_close(half.float(), full, atol=0.03, rtol=0.03)


def test_save_and_load_by_class_and_by_auto_class(trained, pixels, tmp_path):
    trained.save_pretrained(tmp_path)
    stored = torch.cat([pixels, -torch.rand(2, 1, 32, 32)], dim=1)
    loaded = AlphaCLIPVisionModelWithProjection.from_pretrained(tmp_path)
    with torch.no_grad():
        expected = trained(stored)
        assert torch.equal(loaded(stored).image_embeds, expected.image_embeds)
        auto = AutoModel.from_pretrained(tmp_path)
        assert type(auto) is AlphaCLIPVisionModel
        assert torch.equal(auto(stored).last_hidden_state, expected.last_hidden_state)
    model = AlphaCLIPModel(AlphaCLIPConfig(vision_config=TINY, text_config=TEXT, projection_dim=16))
    model.save_pretrained(tmp_path / "both")
    again = AutoModel.from_pretrained(tmp_path / "both")
    assert type(again) is AlphaCLIPModel
    for name, value in model.state_dict().items():
        assert torch.equal(value, again.state_dict()[name]), name


def test_weights_that_a_file_lacks_are_refused(trained, tmp_path):
    """transformers would draw them; only alpha weights may be missing, and are zero then."""
    tower = AlphaCLIPVisionModel(trained.config)
    tower.save_pretrained(tmp_path / "no-projection")
    with pytest.raises(ValueError, match=r"1 missing keys for .*: visual_projection\.weight"):
        AlphaCLIPVisionModelWithProjection.from_pretrained(tmp_path / "no-projection")
    plain = CLIPVisionModelWithProjection(trained.config)
    plain.save_pretrained(tmp_path / "plain")
    opened = AlphaCLIPVisionModelWithProjection.from_pretrained(tmp_path / "plain")
    assert not opened.vision_model.embeddings.patch_embedding_alpha.weight.any()
    assert torch.equal(opened.visual_projection.weight, plain.visual_projection.weight)
    narrow = type(trained.config)(**{**trained.config.to_dict(), "projection_dim": 8})
    with pytest.raises(ValueError, match=r"1 mismatched keys for .*projection.* instead of \(8, "):
        AlphaCLIPVisionModelWithProjection.from_pretrained(tmp_path / "plain", config=narrow)


def test_heeding_alpha_is_having_alpha_weights(trained):
    assert heeds_alpha(trained) and heeds_alpha(trained.vision_model)
    assert not heeds_alpha(AlphaCLIPVisionModel(trained.config))


def test_the_text_side_is_clip_itself(pixels):
    config = AlphaCLIPConfig(vision_config=TINY, text_config=TEXT, projection_dim=16)
    torch.manual_seed(0)
    base, ours = CLIPModel(config).eval(), AlphaCLIPModel(config).eval()
    ours.load_state_dict(base.state_dict(), strict=False)
    inputs = {"input_ids": torch.randint(0, 20, (2, 8)), "pixel_values": pixels}
    with torch.no_grad():
        assert torch.equal(base(**inputs).logits_per_image, ours(**inputs).logits_per_image)


def test_gradient_checkpointing_gives_the_same_gradients(trained, pixels):
    def gradient():
        trained.zero_grad()
        trained(pixels).image_embeds.sum().backward()
        return trained.vision_model.embeddings.class_embedding.grad.clone()

    trained.train()
    plain = gradient()
    trained.activation_checkpointing_enable()
    torch.testing.assert_close(gradient(), plain)
