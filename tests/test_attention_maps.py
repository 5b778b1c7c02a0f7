"""Where towers look: numbers by hand, the paper's recursion, transformers' own attention."""

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from transformers import (
    CLIPVisionConfig,
    CLIPVisionModel,
    CLIPVisionModelWithProjection,
    SiglipVisionConfig,
    SiglipVisionModel,
)

from alphaclip_gen import RegionEncoder, alpha_from_box, as_image
from alphaclip_gen.attention_focus import attention_bias, focus_attention
from alphaclip_gen.attention_maps import (
    _body,
    _run,
    attention_map,
    differentiable_copy,
    relevance,
)
from alphaclip_gen.framing import preprocess
from alphaclip_gen.vision import (
    AlphaCLIPVisionConfig,
    AlphaCLIPVisionModelWithProjection,
    pixel_values,
)

TINY = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "image_size": 32,
    "patch_size": 8,
}
SIDE = 4
SCENE = Path(__file__).resolve().parents[1] / "docs" / "scene.png"
SOLIDS = [(60, 48, 114, 114), (104, 83, 207, 188), (50, 140, 136, 190)]  # cube, sphere, torus


def lively(model):
    """Random weights whose attention is not almost even."""
    for name, parameter in model.named_parameters():
        if ("proj" in name or "embedding" in name) and "head" not in name:
            parameter.data.mul_(4)
    return model.eval()


def clip(kind=CLIPVisionModelWithProjection, config=CLIPVisionConfig):
    torch.manual_seed(0)
    return lively(kind(config(**TINY, projection_dim=16)))


def siglip():
    torch.manual_seed(0)
    return lively(SiglipVisionModel(SiglipVisionConfig(**TINY)))


@pytest.fixture
def pixels():
    return torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(1))


def test_relevance_by_hand():
    """One layer, one head: R = I + (A * gradient)+, and the row of the first token."""
    attention = torch.tensor([[[[0.5, 0.25, 0.25], [0.2, 0.8, 0.0], [0.1, 0.1, 0.8]]]])
    gradient = torch.tensor([[[[1.0, 2.0, -4.0], [5.0, 1.0, 1.0], [1.0, 1.0, 1.0]]]])
    start = torch.tensor([[1.0, 0.0, 0.0]])
    found = relevance(start, [attention], [gradient])
    torch.testing.assert_close(found, torch.tensor([[1.5, 0.5, 0.0]]))


def test_relevance_is_the_papers_recursion():
    """Eq. 6: R <- R + A R from the first layer on, R the identity at first."""
    random = torch.Generator().manual_seed(0)
    attentions = [torch.rand(2, 3, 5, 5, generator=random).softmax(-1) for _ in range(4)]
    gradients = [torch.randn(2, 3, 5, 5, generator=random) for _ in range(4)]
    start = torch.rand(2, 5, generator=random)
    whole = torch.eye(5).expand(2, 5, 5)
    for weights, gradient in zip(attentions, gradients, strict=True):
        whole = whole + (weights * gradient).clamp(min=0).mean(1) @ whole
    expected = torch.einsum("bi,bij->bj", start, whole)
    torch.testing.assert_close(relevance(start, attentions, gradients), expected)


@pytest.mark.parametrize("make", [clip, siglip])
def test_the_written_out_layers_are_the_towers_own(make, pixels):
    """Tokens and attention weights of transformers with eager attention."""
    tower = make()
    tower.set_attn_implementation("eager")
    with torch.no_grad():
        stock = tower(pixels, output_attentions=True)
    body = _body(tower)
    tokens, weights = _run(body, pixels, None, 0)
    stock_tokens = stock.last_hidden_state
    tokens = tokens if make is clip else body.post_layernorm(tokens)
    torch.testing.assert_close(tokens.detach(), stock_tokens, atol=2e-5, rtol=1e-4)
    for mine, theirs in zip(weights, stock.attentions, strict=True):
        torch.testing.assert_close(mine.detach(), theirs, atol=1e-5, rtol=1e-4)


def test_map_against_gradients_through_transformers(pixels):
    """The whole, by transformers' eager attention and its own graph."""
    tower = clip()
    tower.set_attn_implementation("eager")
    output = tower(pixels.clone().requires_grad_(), output_attentions=True)
    embedding = output.image_embeds
    score = (embedding * embedding.detach()).sum()
    gradients = torch.autograd.grad(score, output.attentions)
    whole = torch.eye(SIDE**2 + 1).expand(2, -1, -1)
    for weights, gradient in zip(output.attentions, gradients, strict=True):
        whole = whole + (weights * gradient).clamp(min=0).mean(1) @ whole
    row = whole[:, 0, 1:].detach()
    expected = (row / row.amax(1, keepdim=True)).view(2, SIDE, SIDE)
    torch.testing.assert_close(attention_map(tower, pixels), expected, atol=1e-4, rtol=1e-3)


@pytest.mark.parametrize("make", [clip, siglip, lambda: clip(CLIPVisionModel)])
def test_map_is_positive_with_maximum_one_and_leaves_the_tower_alone(make, pixels):
    tower, before = make(), pixels.clone()
    heat = attention_map(tower, pixels)
    assert heat.shape == (2, SIDE, SIDE) and heat.min() >= 0
    torch.testing.assert_close(heat.amax((1, 2)), torch.ones(2))
    assert torch.equal(pixels, before)
    assert all(parameter.grad is None for parameter in tower.parameters())


@pytest.mark.parametrize("make", [clip, siglip])
def test_a_region_without_alpha_weights_draws_the_eye(make, pixels):
    """Training-free focus, as a bias or by a focused tower, on the half that was looked at less."""
    tower, alpha = make(), torch.zeros(1, 1, 32, 32)
    free = attention_map(tower, pixels).sum((0, 1))
    right = bool(free[2:].sum() < free[:2].sum())
    alpha[..., 16 * right : 16 * right + 16] = 1
    bias = attention_bias(alpha - 1, 8)
    heat = attention_map(tower, pixels, bias=bias, from_layer=0)
    columns = heat.sum((0, 1)) / heat.sum()
    assert columns[2 * right : 2 * right + 2].sum() > 0.9
    focused = focus_attention(tower, from_layer=0)
    four = torch.cat([pixels, (alpha - 1).expand(2, -1, -1, -1)], dim=1)
    torch.testing.assert_close(attention_map(focused, four), heat, atol=1e-5, rtol=1e-3)


def test_mini_looks_into_the_region():
    """The alpha moves the map to the solid that it is on."""
    encoder, image = RegionEncoder.from_pretrained("mini"), as_image(SCENE)
    alphas = torch.cat([alpha_from_box(box, (224, 224)) for box in SOLIDS])
    framed, alpha = preprocess(image, alphas, encoder.size, "squash")
    heat = attention_map(encoder.model, pixel_values(framed, alpha))
    region = F.interpolate(alpha, heat.shape[1:], mode="area")[:, 0]
    inside = (heat * region).sum((1, 2)) / heat.sum((1, 2))
    assert (inside > 2 * region.mean((1, 2))).all()  # twice as dense as evenly spread


def test_toward_a_text_differs_from_another_text():
    encoder = RegionEncoder.from_pretrained("mini")
    image, _ = preprocess(as_image(SCENE), None, encoder.size, "squash")
    texts = encoder.embed_texts(["a red sphere", "a cyan cube"])
    one, other = (attention_map(encoder.model, pixel_values(image), t[None]) for t in texts)
    assert (one - other).abs().max() > 0.05


def test_works_under_inference_mode_and_copies_weights_only_where_needed(pixels):
    tower = clip()
    expected = attention_map(tower, pixels)
    with torch.inference_mode():
        torch.testing.assert_close(attention_map(tower, pixels * 1), expected)
        made_inside = clip()
        copied = differentiable_copy(made_inside)
        found = attention_map(copied, pixels)
    torch.testing.assert_close(found, expected)
    assert differentiable_copy(tower) is tower
    assert next(copied.parameters()) is not next(made_inside.parameters())
    half = differentiable_copy(clip().half())
    assert next(half.parameters()).dtype == torch.float32


def test_alpha_towers_take_four_channels(pixels):
    torch.manual_seed(0)
    tower = lively(
        AlphaCLIPVisionModelWithProjection(AlphaCLIPVisionConfig(**TINY, projection_dim=16))
    )
    torch.nn.init.normal_(tower.vision_model.embeddings.patch_embedding_alpha.weight, std=0.5)
    alpha = alpha_from_box((0, 0, 16, 32), (32, 32))
    four = torch.cat([pixels, (alpha - 1).expand(2, -1, -1, -1)], dim=1)
    assert (attention_map(tower, four) - attention_map(tower, pixels)).abs().max() > 0.01


def test_other_towers_are_refused(pixels):
    with pytest.raises(TypeError, match=r"tower is a Linear without embeddings, encoder"):
        attention_map(torch.nn.Linear(3, 3), pixels)


def test_a_copy_is_without_what_the_core_attached():
    """Copying that would run; freeing the copy would free what the core keeps for the original."""

    class Attached:
        def __deepcopy__(self, memo):
            raise AssertionError("copied")

    model = clip().half().vision_model
    linear = model.encoder.layers[0].mlp.fc1
    linear._v = kept = Attached()
    copied = differentiable_copy(model)
    assert copied is not model and linear._v is kept
    assert not hasattr(copied.encoder.layers[0].mlp.fc1, "_v")
    assert torch.equal(copied.encoder.layers[0].mlp.fc1.weight, linear.weight.float())
