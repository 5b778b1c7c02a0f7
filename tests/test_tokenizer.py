"""The tokenizer of a text tower: CLIP's own, one in a folder, and what is refused."""

import json
from pathlib import Path

import pytest
import torch
from transformers import CLIPTextConfig, PreTrainedTokenizerFast

import alphaclip_gen.tokenizer as tokenizer_module
from alphaclip_gen.mini.model import new_tokenizer
from alphaclip_gen.recognition import Checkpoint
from alphaclip_gen.tokenizer import CLIP_WORDS, clip_tokenizer, find_tokenizer, load_tokenizer
from alphaclip_gen.vision import AlphaCLIPVisionConfig

TEXTS = [
    "a photo of a cat",
    "  A RED\tcone \n",
    "it's the dog's bone; they're, I'll, we'd",
    "!",
    "123 4th 2.5mm, 1/2 and ½",
    "café naïve, cafe\u0301 and schön, İstanbul",
    "emoji 😀👍🏽 and 日本語",
    "a_b c-d ... don't!!!",
    "supercalifragilisticexpialidocious",
    "a red cone " * 40,
]


def checkpoint(words=CLIP_WORDS, folder=None):
    """What a tokenizer is chosen by."""
    text = CLIPTextConfig(vocab_size=words, max_position_embeddings=77)
    return Checkpoint("clip.pt", "openai", {}, AlphaCLIPVisionConfig(), text, folder=folder)


def test_token_ids_are_those_of_open_clip():
    open_clip = pytest.importorskip("open_clip")
    expected = open_clip.tokenize(TEXTS)
    tokenizer = load_tokenizer(checkpoint())
    ids = tokenizer(
        TEXTS, padding="max_length", truncation=True, max_length=77, return_tensors="pt"
    )
    assert (len(tokenizer), tokenizer.bos_token_id, tokenizer.eos_token_id) == (49408, 49406, 49407)
    assert torch.equal(ids.input_ids * ids.attention_mask, expected)  # open_clip pads with zeros
    assert torch.equal(ids.attention_mask.sum(1), expected.argmax(1) + 1)  # up to the end of text
    assert ids.attention_mask.sum(1)[-1] == 77 and ids.input_ids[-1, -1] == 49407


def test_clip_tokenizer_by_hand():
    open_clip = pytest.importorskip("open_clip")
    tokenizer = clip_tokenizer(Path(open_clip.tokenizer.default_bpe()), context=16)
    assert tokenizer("a photo of a cat").input_ids == [49406, 320, 1125, 539, 320, 2368, 49407]
    assert tokenizer.convert_ids_to_tokens([0, 255, 256]) == ["!", "Ń", "!</w>"]
    assert tokenizer.model_max_length == 16


def test_a_tokenizer_in_the_folder_comes_first(tmp_path):
    new_tokenizer().save_pretrained(tmp_path)
    found = load_tokenizer(checkpoint(folder=tmp_path))
    assert isinstance(found, PreTrainedTokenizerFast)
    assert found("a red cone").input_ids == new_tokenizer()("a red cone").input_ids


def test_without_open_clip_the_hub_is_asked(tmp_path, monkeypatch):
    new_tokenizer().save_pretrained(tmp_path)
    asked = []
    monkeypatch.setattr(tokenizer_module, "find_spec", lambda _: None)
    monkeypatch.setattr(tokenizer_module, "fetch", lambda *what: asked.append(what) or tmp_path)
    assert find_tokenizer(checkpoint()) is None and not asked
    assert len(load_tokenizer(checkpoint())) == len(new_tokenizer())
    [(repository, files)] = asked
    assert repository == "openai/clip-vit-base-patch32" and "merges.txt" in files


def test_no_tokenizer_anywhere_says_what_to_do(monkeypatch):
    def offline(*_):
        raise FileNotFoundError("The Hub is not reached.")

    monkeypatch.setattr(tokenizer_module, "find_spec", lambda _: None)
    monkeypatch.setattr(tokenizer_module, "fetch", offline)
    with pytest.raises(
        FileNotFoundError, match=r"clip\.pt has no tokenizer .* not reached\. pip install 'alphacli"
    ):
        load_tokenizer(checkpoint())


def test_words_that_are_not_clips_need_their_tokenizer(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"of 20 words, not CLIP's 49408, and no tokenizer"):
        load_tokenizer(checkpoint(20, tmp_path))
    new_tokenizer().save_pretrained(tmp_path)
    words = len(new_tokenizer())
    with pytest.raises(ValueError, match=rf"has {words} words, its text tower 20; expected the"):
        load_tokenizer(checkpoint(20, tmp_path))
    (tmp_path / "tokenizer.json").write_text(json.dumps({"model": {}}))
    with pytest.raises(ValueError, match=r"has tokenizer files that cannot be read .* Save the"):
        load_tokenizer(checkpoint(20, tmp_path))
