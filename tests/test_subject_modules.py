"""BLIP-Diffusion's towers against transformers' and diffusers' own classes, and by hand."""

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import (
    Blip2Config,
    Blip2QFormerModel,
    Blip2VisionConfig,
    CLIPTextConfig,
    CLIPTextModel,
    CLIPVisionModel,
)

from alphaclip_gen.subject import (
    AlphaBlip2QFormerModel,
    AlphaBlip2VisionModel,
    ContextCLIPTextModel,
    load_alpha_clip,
)
from alphaclip_gen.vision import AlphaCLIPVisionConfig, AlphaCLIPVisionModel

VISION = {
    "hidden_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 3,
    "image_size": 32,
    "patch_size": 8,
    "intermediate_size": 40,
    "hidden_act": "quick_gelu",
    "initializer_range": 0.1,
}
QFORMER = {
    "vocab_size": 20,
    "hidden_size": 32,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "intermediate_size": 48,
    "max_position_embeddings": 12,
    "cross_attention_frequency": 2,
    "encoder_hidden_size": 24,
}
TEXT = {
    "vocab_size": 30,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "max_position_embeddings": 16,
    "bos_token_id": 28,
    "eos_token_id": 29,
}


def shaken(model):
    """The model with random biases, norms and alpha weights too: nothing can be mixed up unseen."""
    generator = torch.Generator().manual_seed(3)
    for parameter in model.parameters():
        parameter.data += 0.1 * torch.randn(parameter.shape, generator=generator)
    return model.eval()


@pytest.fixture
def tower():
    torch.manual_seed(0)
    return shaken(AlphaBlip2VisionModel(Blip2VisionConfig(**VISION)))


@pytest.fixture
def qformer():
    torch.manual_seed(0)
    config = Blip2Config(vision_config=VISION, qformer_config=QFORMER, num_query_tokens=5)
    return shaken(AlphaBlip2QFormerModel(config))


@pytest.fixture
def text():
    torch.manual_seed(0)
    return shaken(ContextCLIPTextModel(CLIPTextConfig(**TEXT)))


@pytest.fixture
def pixels():
    return torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(1))


def stored(alpha):
    return alpha.expand(2, 1, 32, 32) - 1


def half():
    alpha = torch.zeros(1, 1, 32, 32)
    alpha[..., :16] = 1
    return alpha


# Vision


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


# An Alpha-CLIP in place of the published vision weights


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


# Q-Former

WORDS = torch.tensor([[2, 7, 3, 0], [2, 8, 9, 3]])
PRESENT = torch.tensor([[1, 1, 1, 0], [1, 1, 1, 1]])


def test_qformer_equals_transformers_layers(qformer, pixels):
    """transformers' layers get queries and words before their norm, then the projection by hand."""
    config = qformer.config.qformer_config
    config.use_qformer_text_input = True
    theirs = Blip2QFormerModel(config).eval()
    state = {k: v for k, v in qformer.state_dict().items() if k.startswith("encoder.")}
    state |= {
        f"layernorm.{kind}": getattr(qformer.embeddings.LayerNorm, kind)
        for kind in ("weight", "bias")
    }
    theirs.load_state_dict(state)
    embeddings = qformer.embeddings
    words = embeddings.word_embeddings(WORDS) + embeddings.position_embeddings.weight[:4]
    tokens = torch.cat([qformer.query_tokens.expand(2, -1, -1), words], dim=1)
    present = torch.cat([torch.ones(2, 5, dtype=torch.long), PRESENT], dim=1)
    with torch.no_grad():
        hidden = theirs(
            tokens,
            query_length=5,
            attention_mask=present,
            encoder_hidden_states=qformer.visual_encoder(pixels),
        ).last_hidden_state[:, :5]
        layer = qformer.proj_layer
        normed = torch.nn.functional.layer_norm(
            hidden, (32,), layer.LayerNorm.weight, layer.LayerNorm.bias, 1e-12
        )
        wide = layer.dense1(normed)
        expected = hidden + layer.dense2(wide * torch.sigmoid(1.702 * wide))
        got = qformer(pixels, WORDS, PRESENT)
    assert got.shape == (2, 5, 32)
    torch.testing.assert_close(got, expected, atol=1e-5, rtol=1e-5)


@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_qformer_has_the_published_keys(qformer, tmp_path):
    from diffusers.pipelines.deprecated.blip_diffusion.modeling_blip2 import (
        Blip2QFormerModel as Published,
    )

    (tmp_path / "vocab.txt").write_text("\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]))
    qformer.config.tokenizer = str(tmp_path)
    published = {k: v.shape for k, v in Published(qformer.config).state_dict().items()}
    ours = {k: v.shape for k, v in qformer.state_dict().items()}
    assert ours.pop("visual_encoder.embeddings.patch_embedding_alpha.weight")
    published.pop("embeddings.position_ids", None)
    assert ours == published


def test_padding_counts_for_nothing(qformer, pixels):
    other = WORDS.clone()
    other[0, 3] = 11
    with torch.no_grad():
        first = qformer(pixels, WORDS, PRESENT)
        torch.testing.assert_close(qformer(pixels, other, PRESENT), first)
        assert (qformer(pixels, other) - first)[0].abs().max() > 1e-3


def test_one_picture_serves_all_texts_and_an_index_says_which(qformer, pixels):
    with torch.no_grad():
        each = qformer(pixels, WORDS, PRESENT)
        swapped = qformer(pixels.flip(0), WORDS, PRESENT, torch.tensor([1, 0]))
        shared = qformer(pixels[:1], WORDS, PRESENT)
    torch.testing.assert_close(swapped, each)
    torch.testing.assert_close(shared[0], each[0])
    assert (shared[1] - each[1]).abs().max() > 1e-3


def test_wrong_qformer_inputs_are_refused(qformer, pixels):
    with pytest.raises(ValueError, match="2 pictures for 3 texts; expected 1 or 3"):
        qformer(pixels, WORDS[[0, 1, 0]])
    with pytest.raises(ValueError, match="13 words; expected at most 12"):
        qformer(pixels, torch.ones(2, 13, dtype=torch.long))


def test_a_region_changes_what_the_queries_say(qformer, pixels):
    with torch.no_grad():
        everywhere = qformer(pixels, WORDS, PRESENT)
        region = qformer(torch.cat([pixels, stored(half())], dim=1), WORDS, PRESENT)
    assert (everywhere - region).abs().mean() > 1e-3


# Text

SENTENCE = torch.tensor([[28, 4, 5, 6, 7, 29], [28, 9, 8, 3, 29, 29]])


def test_without_context_it_is_clip(text):
    theirs = CLIPTextModel(CLIPTextConfig(**TEXT)).eval()
    prefix = "" if "embeddings.token_embedding.weight" in theirs.state_dict() else "text_model."
    state = {prefix + k: v for k, v in text.text_model.state_dict().items()}
    missing, unexpected = theirs.load_state_dict(state, strict=False)
    assert not unexpected and all("position_ids" in key for key in missing)
    with torch.no_grad():
        expected = theirs(SENTENCE).last_hidden_state
        torch.testing.assert_close(text(SENTENCE), expected, atol=2e-6, rtol=1e-5)


def test_context_is_as_if_its_tokens_had_been_written(text):
    """Word embeddings passed as context, at the place where the words were, change nothing."""
    words = text.text_model.embeddings.token_embedding
    context = words(SENTENCE[:, 2:4])
    rest = torch.cat([SENTENCE[:, :2], SENTENCE[:, 4:]], dim=1)
    with torch.no_grad():
        torch.testing.assert_close(text(rest, context, 2), text(SENTENCE))
        assert (text(rest, context, 1) - text(SENTENCE)).abs().max() > 1e-3


def test_text_attention_is_causal_over_the_context_too(text):
    context = torch.randn(2, 3, 32, requires_grad=True)
    text(SENTENCE, context, 2)[:, 3].sum().backward()  # the second of three context tokens
    assert context.grad[:, :2].abs().amin(-1).gt(0).all()
    assert not context.grad[:, 2].any()


def test_a_prompt_without_room_is_refused(text):
    with pytest.raises(ValueError, match=r"17 tokens together; expected at most 16.*max_length=5"):
        text(SENTENCE, torch.zeros(2, 11, 32))


# Files


@pytest.mark.parametrize("name", ["qformer", "text"])
def test_save_and_load(name, request, tmp_path):
    model = request.getfixturevalue(name)
    model.save_pretrained(tmp_path)
    loaded = type(model).from_pretrained(tmp_path)
    assert loaded.state_dict().keys() == model.state_dict().keys()
    for key, value in model.state_dict().items():
        assert torch.equal(value, loaded.state_dict()[key]), key
    assert not loaded.training


def edited(folder, change):
    path = folder / "model.safetensors"
    save_file(change(load_file(path)), path, metadata={"format": "pt"})


def test_published_weights_have_position_ids_and_no_alpha(qformer, tmp_path):
    qformer.save_pretrained(tmp_path)

    def as_published(state):
        state.pop("visual_encoder.embeddings.patch_embedding_alpha.weight")
        return state | {"embeddings.position_ids": torch.arange(12)[None]}

    edited(tmp_path, as_published)
    loaded = AlphaBlip2QFormerModel.from_pretrained(tmp_path)
    assert not loaded.visual_encoder.embeddings.patch_embedding_alpha.weight.any()
    assert torch.equal(loaded.query_tokens, qformer.query_tokens)


@pytest.mark.parametrize("prefix", ["", "text_model."])
def test_text_weights_load_with_and_without_prefix(text, tmp_path, prefix):
    text.save_pretrained(tmp_path)
    edited(
        tmp_path,
        lambda state: {prefix + k.removeprefix("text_model."): v for k, v in state.items()},
    )
    loaded = ContextCLIPTextModel.from_pretrained(tmp_path)
    with torch.no_grad():
        assert torch.equal(loaded(SENTENCE), text(SENTENCE))


def test_missing_and_foreign_weights_are_refused(text, tmp_path):
    text.save_pretrained(tmp_path)
    edited(tmp_path, lambda state: {k: v for k, v in state.items() if "fc1" not in k})
    with pytest.raises(ValueError, match=r"6 missing keys for ContextCLIP.*layers\.0\.mlp\.fc1"):
        ContextCLIPTextModel.from_pretrained(tmp_path)
    text.save_pretrained(tmp_path)
    edited(tmp_path, lambda state: state | {"visual.proj": torch.zeros(2)})
    with pytest.raises(ValueError, match=r"1 unexpected keys for ContextCLIP.*visual\.proj"):
        ContextCLIPTextModel.from_pretrained(tmp_path)


def test_weights_of_another_size_are_refused(text, tmp_path):
    text.save_pretrained(tmp_path)
    edited(
        tmp_path,
        lambda state: state | {"text_model.final_layer_norm.bias": torch.zeros(7)},
    )
    with pytest.raises(
        ValueError, match=r"1 mismatched keys .*layer_norm\.bias \(7,\) instead of \(32,\)"
    ):
        ContextCLIPTextModel.from_pretrained(tmp_path)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision(qformer, pixels, dtype):
    with torch.no_grad():
        full = qformer(pixels, WORDS, PRESENT)
        low = qformer.to(dtype)(pixels.to(dtype), WORDS, PRESENT)
    assert low.dtype == dtype
    assert (low.float() - full).abs().mean() < 0.03 * full.abs().mean()
