"""Training-free focus against stock CLIP and SigLIP and a written-out attention."""

import pytest
import torch
from safetensors.torch import save_file
from transformers import (
    AutoModel,
    CLIPVisionConfig,
    CLIPVisionModel,
    CLIPVisionModelWithProjection,
    SiglipVisionConfig,
    SiglipVisionModel,
)

from alphaclip_gen.attention_focus import (
    LEAST_SHARE,
    FocusedCLIPVisionModelWithProjection,
    FocusedSiglipVisionModel,
    attention_bias,
    focus_attention,
)
from alphaclip_gen.vision import AlphaCLIPVisionConfig, AlphaCLIPVisionModel

TINY = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 4,
    "num_attention_heads": 2,
    "image_size": 32,
    "patch_size": 8,
}
KINDS = [CLIPVisionModel, CLIPVisionModelWithProjection, SiglipVisionModel]


def stock(kind, **changes):
    torch.manual_seed(0)
    config = SiglipVisionConfig if kind is SiglipVisionModel else CLIPVisionConfig
    tower = kind(config(**TINY, **changes)).eval()
    for parameter in tower.parameters():  # trained attention is not near uniform
        if parameter.ndim == 2:
            parameter.data.mul_(2)
    return tower


def pooled(tower, pixels):
    output = tower(pixels)
    return output.image_embeds if "image_embeds" in output else output.pooler_output


@pytest.fixture
def pixels():
    return torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(1))


def with_alpha(pixels, alpha):
    return torch.cat([pixels, alpha.expand(len(pixels), -1, -1, -1) - 1], dim=1)


def left_half():
    alpha = torch.zeros(1, 1, 32, 32)
    alpha[..., :16] = 1
    return alpha


def test_bias_by_hand():
    """Two patches of 2 x 2: one half covered, one outside; at strength 0.5 they blend with 1."""
    stored = torch.tensor([[1.0, 1, 0, 0], [0, 0, 0, 0]])[None, None] - 1
    for strength, share in ((1.0, [0.5, LEAST_SHARE]), (0.5, [0.75, 0.5])):
        expected = torch.tensor([share]).log()
        got = attention_bias(stored, 2, strength)
        torch.testing.assert_close(got, expected, atol=1e-6, rtol=1e-5)
    assert attention_bias(torch.zeros(1, 1, 2, 2), 2) == 0


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_attending_everywhere_is_the_stock_tower_bit_for_bit(kind, attention, pixels):
    tower = stock(kind)
    tower.set_attn_implementation(attention)
    focused = focus_attention(tower)
    assert focused.config._attn_implementation == attention
    with torch.no_grad():
        expected = tower(pixels, output_hidden_states=True)
        for given in (pixels, with_alpha(pixels, torch.ones(1, 1, 32, 32))):
            got = focused(given, output_hidden_states=True)
            assert got.keys() == expected.keys()
            assert torch.equal(got[0], expected[0])
            assert torch.equal(got.last_hidden_state, expected.last_hidden_state)
            assert torch.equal(pooled(focused, given), pooled(tower, pixels))
            for a, b in zip(got.hidden_states, expected.hidden_states, strict=True):
                assert torch.equal(a, b)


@pytest.mark.parametrize("kind", KINDS)
def test_weights_are_shared_and_the_stock_tower_is_left_alone(kind, pixels):
    tower = stock(kind)
    before = pooled(tower, pixels)
    focused = focus_attention(tower)
    ours, theirs = dict(focused.named_parameters()), dict(tower.named_parameters())
    assert ours.keys() == theirs.keys()
    assert all(ours[name] is theirs[name] for name in theirs)
    pooled(focused, with_alpha(pixels, left_half()))
    assert torch.equal(pooled(tower, pixels), before)


@pytest.mark.parametrize("kind", KINDS)
def test_pixels_outside_no_longer_matter_to_pooled_and_inner_tokens(kind, pixels):
    """From the first layer on, a hard region cuts the outside off, up to the least share."""
    tower = stock(kind)
    focused = focus_attention(tower, from_layer=0)
    changed = pixels.clone()
    changed[..., 16:] = torch.randn(2, 3, 32, 16, generator=torch.Generator().manual_seed(2))

    def outputs(model, given):
        skip = 0 if kind is SiglipVisionModel else 1
        tokens = model(given).last_hidden_state[:, skip:].unflatten(1, (4, 4))
        return pooled(model, given), tokens[:, :, :2]

    with torch.no_grad():
        for plain, other, first, second in zip(
            outputs(tower, pixels),
            outputs(tower, changed),
            outputs(focused, with_alpha(pixels, left_half())),
            outputs(focused, with_alpha(changed, left_half())),
            strict=True,
        ):
            assert (first - second).abs().max() < 0.03 * (plain - other).abs().max()


def test_one_layer_against_a_written_out_attention(pixels):
    """Softmax weights times coverage, normalized again: the definition, for every query."""
    tower = stock(CLIPVisionModel)
    focused = focus_attention(tower, from_layer=-1)
    alpha = torch.rand(1, 1, 32, 32, generator=torch.Generator().manual_seed(3))
    coverage = alpha.unfold(2, 8, 8).unfold(3, 8, 8).mean((-1, -2)).flatten(1)
    share = torch.cat([torch.ones(1, 1), coverage], dim=1).clamp(min=LEAST_SHARE)
    with torch.no_grad():
        tokens = tower(pixels, output_hidden_states=True).hidden_states[-2]
        layer = tower.encoder.layers[-1]
        normed = layer.layer_norm1(tokens)
        q, k, v = (
            getattr(layer.self_attn, f"{name}_proj")(normed).unflatten(2, (2, 16)).transpose(1, 2)
            for name in "qkv"
        )
        weights = (q @ k.mT / 4).softmax(-1) * share[:, None, None]
        mixed = (weights / weights.sum(-1, keepdim=True)) @ v
        tokens = tokens + layer.self_attn.out_proj(mixed.transpose(1, 2).flatten(2))
        expected = tokens + layer.mlp(layer.layer_norm2(tokens))
        got = focused(with_alpha(pixels, alpha)).last_hidden_state
    torch.testing.assert_close(got, expected, atol=1e-5, rtol=1e-4)


def test_siglip_pooling_against_a_written_out_attention(pixels):
    tower = stock(SiglipVisionModel)
    focused = focus_attention(tower)
    coverage = torch.zeros(4, 4)
    coverage[:, :2] = 1
    share = coverage.flatten().clamp(min=LEAST_SHARE)
    head = tower.head
    with torch.no_grad():
        got = focused(with_alpha(pixels, left_half()))
        weight, bias = head.attention.in_proj_weight, head.attention.in_proj_bias
        q = torch.nn.functional.linear(head.probe, weight[:32], bias[:32])
        k, v = torch.nn.functional.linear(got.last_hidden_state, weight[32:], bias[32:]).chunk(
            2, dim=-1
        )
        q, k, v = (part.unflatten(2, (2, 16)).transpose(1, 2) for part in (q, k, v))
        weights = (q @ k.mT / 4).softmax(-1) * share
        mixed = (weights / weights.sum(-1, keepdim=True)) @ v
        state = head.attention.out_proj(mixed.transpose(1, 2).flatten(2))
        expected = (state + head.mlp(head.layernorm(state)))[:, 0]
        unbiased = head(got.last_hidden_state)
    torch.testing.assert_close(got.pooler_output, expected, atol=1e-3, rtol=1e-3)
    assert (unbiased - expected).abs().max() > 1e-3


@pytest.mark.parametrize("kind", KINDS)
def test_layers_before_the_chosen_one_are_untouched(kind, pixels):
    tower = stock(kind)
    focused = focus_attention(tower, from_layer=2)
    with torch.no_grad():
        expected = tower(pixels, output_hidden_states=True).hidden_states
        got = focused(with_alpha(pixels, left_half()), output_hidden_states=True).hidden_states
    assert [torch.equal(a, b) for a, b in zip(got, expected, strict=True)][:4] == [True] * 3 + [
        False
    ]


def test_the_default_layer_reaches_the_second_to_last_hidden_state():
    firsts = []
    for depth in (1, 2, 3, 4, 9):
        tower = CLIPVisionModel(CLIPVisionConfig(**TINY | {"num_hidden_layers": depth}))
        firsts.append(focus_attention(tower).encoder.first)
    assert firsts == [0, 0, 1, 2, 4]


def test_strength_zero_has_no_effect_and_more_strength_has_more(pixels):
    tower = stock(CLIPVisionModelWithProjection)
    given = with_alpha(pixels, left_half())
    with torch.no_grad():
        moved = [
            (pooled(focus_attention(tower, strength=s), given) - pooled(tower, pixels)).norm()
            for s in (0.0, 0.5, 1.0)
        ]
    assert moved[0] < 1e-5
    assert moved[0] < moved[1] < moved[2]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("value", [0.0, 0.5, 1.0])
def test_alpha_gets_a_gradient_at_every_value(kind, value, pixels):
    alpha = torch.full((1, 1, 32, 32), value, requires_grad=True)
    focused = focus_attention(stock(kind), from_layer=0)
    pooled(focused, with_alpha(pixels, alpha))[:, 0].sum().backward()
    assert (alpha.grad != 0).all()


def test_an_empty_region_leaves_the_patches_equal_among_themselves(pixels):
    focused = focus_attention(stock(SiglipVisionModel))
    with torch.no_grad():
        empty = focused(with_alpha(pixels, torch.zeros(1, 1, 32, 32)))
        everywhere = focused(pixels)
    torch.testing.assert_close(
        empty.last_hidden_state, everywhere.last_hidden_state, atol=1e-4, rtol=1e-4
    )


@pytest.mark.parametrize("kind", [CLIPVisionModelWithProjection, SiglipVisionModel])
def test_files_are_the_stock_ones_and_load_both_ways(kind, pixels, tmp_path):
    tower = stock(kind)
    tower.save_pretrained(tmp_path / "stock")
    focused_kind = (
        FocusedSiglipVisionModel
        if kind is SiglipVisionModel
        else FocusedCLIPVisionModelWithProjection
    )
    loaded = focused_kind.from_pretrained(tmp_path / "stock", focus_from_layer=1)
    given = with_alpha(pixels, left_half())
    with torch.no_grad():
        expected = pooled(focus_attention(tower, from_layer=1), given)
        assert torch.equal(pooled(loaded, given), expected)
        loaded.save_pretrained(tmp_path / "focused")
        again = focused_kind.from_pretrained(tmp_path / "focused")
        assert again.config.focus_from_layer == 1
        assert torch.equal(pooled(again, given), expected)
        back = kind.from_pretrained(tmp_path / "focused")
        assert torch.equal(pooled(back, pixels), pooled(tower, pixels))


@pytest.mark.parametrize("kind", [CLIPVisionModel, SiglipVisionModel])
def test_files_of_transformers_4_load_too(kind, pixels, tmp_path):
    """Their names begin with "vision_model.": unmapped, every weight would stay random."""
    tower = stock(kind)
    tower.save_pretrained(tmp_path)
    weights = {f"vision_model.{name}": value for name, value in tower.state_dict().items()}
    save_file(weights, tmp_path / "model.safetensors", {"format": "pt"})
    loaded = type(focus_attention(tower)).from_pretrained(tmp_path)
    with torch.no_grad():
        assert torch.equal(pooled(loaded, pixels), pooled(tower, pixels))


def test_auto_class_finds_the_focused_tower(tmp_path):
    focus_attention(stock(SiglipVisionModel)).save_pretrained(tmp_path)
    assert type(AutoModel.from_pretrained(tmp_path)) is FocusedSiglipVisionModel


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("kind", [CLIPVisionModelWithProjection, SiglipVisionModel])
def test_half_precision(kind, dtype, pixels):
    tower = stock(kind)
    given = with_alpha(pixels, left_half())
    with torch.no_grad():
        full = pooled(focus_attention(tower), given)
        half = pooled(focus_attention(tower.to(dtype)), given.to(dtype))
    assert half.dtype == dtype
    assert (half.float() - full).norm() < 0.1 * full.norm()


def test_positions_interpolate_to_other_sizes():
    focused = focus_attention(stock(CLIPVisionModel))
    wide = torch.cat([torch.randn(1, 3, 32, 48), -torch.rand(1, 1, 32, 48)], dim=1)
    assert focused(wide, interpolate_pos_encoding=True).last_hidden_state.shape == (1, 25, 32)


def test_tuples_on_request(pixels):
    focused = focus_attention(stock(SiglipVisionModel))
    given = with_alpha(pixels, left_half())
    with torch.no_grad():
        tokens, vector = focused(given, return_dict=False)
        assert torch.equal(vector, focused(given).pooler_output)
    assert tokens.shape == (2, 16, 32)


def test_what_does_not_fit_is_refused(pixels):
    tower = stock(CLIPVisionModel)
    with pytest.raises(TypeError, match=r"AlphaCLIPVisionModel; expected one of CLIPVisionModel,"):
        focus_attention(AlphaCLIPVisionModel(AlphaCLIPVisionConfig(**TINY)))
    with pytest.raises(ValueError, match="from_layer is 4; expected -4 to 3: it has 4"):
        focus_attention(tower, from_layer=4)
    with pytest.raises(ValueError, match=r"strength is 1.5; expected 0 .* to 1"):
        focus_attention(tower, strength=1.5)
    with pytest.raises(ValueError, match=r"2 channels; expected 3 .* or 4 .*pixel_values\("):
        focus_attention(tower)(pixels[:, :2])
