"""BLIP-Diffusion's Q-Former against transformers' layers, and its published files."""

import pytest
import torch
from accelerate import cpu_offload
from tiny_subject import edited, half, stored, tiny_pixels, tiny_qformer, tiny_text
from transformers import Blip2QFormerModel

from alphaclip_gen.subject import AlphaBlip2QFormerModel

WORDS = torch.tensor([[2, 7, 3, 0], [2, 8, 9, 3]])
PRESENT = torch.tensor([[1, 1, 1, 0], [1, 1, 1, 1]])


@pytest.fixture
def qformer():
    return tiny_qformer()


@pytest.fixture
def pixels():
    return tiny_pixels()


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


def test_published_weights_have_position_ids_and_no_alpha(qformer, tmp_path):
    qformer.save_pretrained(tmp_path)

    def as_published(state):
        state.pop("visual_encoder.embeddings.patch_embedding_alpha.weight")
        return state | {"embeddings.position_ids": torch.arange(12)[None]}

    edited(tmp_path, as_published)
    loaded = AlphaBlip2QFormerModel.from_pretrained(tmp_path)
    assert not loaded.visual_encoder.embeddings.patch_embedding_alpha.weight.any()
    assert torch.equal(loaded.query_tokens, qformer.query_tokens)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision(qformer, pixels, dtype):
    with torch.no_grad():
        full = qformer(pixels, WORDS, PRESENT)
        low = qformer.to(dtype)(pixels.to(dtype), WORDS, PRESENT)
    assert low.dtype == dtype
    assert (low.float() - full).abs().mean() < 0.03 * full.abs().mean()


@pytest.mark.parametrize("tiny", [tiny_qformer, tiny_text])
def test_save_and_load(tiny, tmp_path):
    model = tiny()
    model.save_pretrained(tmp_path)
    loaded = type(model).from_pretrained(tmp_path)
    assert loaded.state_dict().keys() == model.state_dict().keys()
    for key, value in model.state_dict().items():
        assert torch.equal(value, loaded.state_dict()[key]), key
    assert not loaded.training


def test_weights_may_be_offloaded_layer_by_layer(qformer, pixels):
    with torch.no_grad():
        expected = qformer(pixels, WORDS, PRESENT)
        cpu_offload(qformer, torch.device("cpu"))
        assert qformer.embeddings.position_embeddings.weight.is_meta
        torch.testing.assert_close(qformer(pixels, WORDS, PRESENT), expected)
