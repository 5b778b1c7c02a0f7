"""The context text encoder against CLIP's, and its files."""

import pytest
import torch
from accelerate import cpu_offload
from tiny_subject import TEXT, edited, tiny_text
from transformers import CLIPTextConfig, CLIPTextModel

from alphaclip_gen.subject import ContextCLIPTextModel

SENTENCE = torch.tensor([[28, 4, 5, 6, 7, 29], [28, 9, 8, 3, 29, 29]])


@pytest.fixture
def text():
    return tiny_text()


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


def test_weights_may_be_offloaded_layer_by_layer(text):
    with torch.no_grad():
        expected = text(SENTENCE)
        cpu_offload(text, torch.device("cpu"))
        torch.testing.assert_close(text(SENTENCE), expected)
