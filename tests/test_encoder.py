"""RegionEncoder: batching, differentiability, lost words, and refusals."""

import logging

import pytest
import torch
from transformers import CLIPVisionModelWithProjection

from alphaclip_gen.encoder import RegionEncoder
from alphaclip_gen.framing import preprocess
from alphaclip_gen.mini.model import CONTEXT, new_model, new_tokenizer
from alphaclip_gen.mini.train import save
from alphaclip_gen.regions import alpha_from_box
from alphaclip_gen.vision import pixel_values


@pytest.fixture(scope="module")
def encoder():
    """mini's architecture with random weights, the alpha convolution's included."""
    torch.manual_seed(0)
    tokenizer = new_tokenizer()
    model = new_model(tokenizer)
    torch.nn.init.normal_(model.vision_model.embeddings.patch_embedding_alpha.weight, std=0.1)
    return RegionEncoder(model, tokenizer)


@pytest.fixture
def image():
    return torch.rand(1, 3, 48, 80, generator=torch.Generator().manual_seed(0))


LEFT = alpha_from_box((0, 0, 30, 48), (48, 80))
RIGHT = alpha_from_box((50, 0, 80, 48), (48, 80))


def test_embed_is_the_tower_behind_preprocess(encoder, image):
    framed, alpha = preprocess(image, LEFT, 64, "squash")
    with torch.no_grad():
        output = encoder.model.get_image_features(pixel_values(framed, alpha)).pooler_output
        expected = output / output.norm(dim=-1, keepdim=True)
        torch.testing.assert_close(encoder.embed(image, LEFT), expected)
    assert encoder.size == 64
    assert encoder.logit_scale == pytest.approx(14)


def test_embed_passes_gradients_to_image_and_alpha(encoder, image):
    image, alpha = image.clone().requires_grad_(), LEFT.clone().requires_grad_()
    encoder.embed(image, alpha)[0, 0].backward()
    assert image.grad.abs().mean() > 0
    assert alpha.grad.abs().mean() > 0
    assert all(p.grad is None for p in encoder.model.parameters())


def test_regions_of_one_picture_in_one_call_equal_one_call_each(encoder, image):
    together = encoder.encode(image, [None, LEFT, torch.cat([LEFT, RIGHT])])
    one_by_one = [encoder.encode(image, alpha) for alpha in (None, LEFT, LEFT, RIGHT)]
    assert together.tokens.shape == (4, 64, 192)
    for part in ("embedding", "tokens"):
        expected = torch.cat([getattr(features, part) for features in one_by_one])
        torch.testing.assert_close(getattr(together, part), expected, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(together.embedding.norm(dim=1), torch.ones(4))
    assert (together.embedding[0] - together.embedding[1]).abs().max() > 1e-4


def test_several_pictures_of_different_size_have_one_region_each(encoder, image):
    other = torch.rand(1, 3, 30, 30)
    features = encoder.encode([image, other], [LEFT, None])
    expected = torch.cat([encoder.encode(image, LEFT).embedding, encoder.encode(other).embedding])
    torch.testing.assert_close(features.embedding, expected, atol=1e-5, rtol=1e-5)


def test_scores_are_a_softmax_of_scaled_cosines(encoder, image):
    texts = ["a red cone", "a blue torus", "a cube"]
    scores = encoder.score(image, texts, [LEFT, RIGHT])
    cosines = encoder.encode(image, [LEFT, RIGHT]).embedding @ encoder.embed_texts(texts).T
    torch.testing.assert_close(scores, (encoder.logit_scale * cosines).softmax(-1))


def test_a_text_means_the_same_alone_and_padded(encoder):
    alone = encoder.embed_texts(["a red cone"])
    padded = encoder.embed_texts(["a red cone", "a picture of an orange toadstool that is red"])
    torch.testing.assert_close(alone[0], padded[0], atol=1e-5, rtol=1e-5)


def test_unknown_words_are_named_with_the_closest_known_ones(encoder, caplog):
    with caplog.at_level(logging.WARNING):
        encoder.embed_texts(["a redd conee"])
    assert "'redd' in 'a redd conee' is not a word of this model" in caplog.text
    assert "the closest known words are red" in caplog.text
    assert "cone" in caplog.text.split("'conee' in")[1]


def test_what_is_cut_off_is_said(encoder, caplog):
    text = " ".join(["red"] * (CONTEXT - 1)) + " cone"
    with caplog.at_level(logging.WARNING):
        long = encoder.embed_texts([text])
    assert f"longer than the model's {CONTEXT} tokens; cut off: 'red cone'." in caplog.text
    torch.testing.assert_close(long, encoder.embed_texts([" ".join(["red"] * (CONTEXT - 2))]))


def test_a_saved_folder_loads_as_it_was_saved(encoder, image, tmp_path):
    save(encoder.model, encoder.tokenizer, tmp_path)
    again = RegionEncoder.from_pretrained(tmp_path)
    torch.testing.assert_close(
        again.embed(image, LEFT), encoder.embed(image, LEFT), atol=5e-3, rtol=5e-3
    )
    texts = ["a violet donut"]
    torch.testing.assert_close(
        again.embed_texts(texts), encoder.embed_texts(texts), atol=5e-3, rtol=5e-3
    )


def test_the_shipped_mini_loads_quietly(capfd):
    encoder = RegionEncoder.from_pretrained("mini")
    assert encoder.size == 64
    assert capfd.readouterr().err == ""


def test_refusals(encoder, image, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"guidance model 'nothing' is neither a shipped"):
        RegionEncoder.from_pretrained("nothing")
    with pytest.raises(ValueError, match="a text is empty"):
        encoder.embed_texts(["a red cone", " "])
    with pytest.raises(ValueError, match="got 3 regions for 2 pictures"):
        encoder.encode([image, image], [LEFT, LEFT, RIGHT])
    with pytest.raises(ValueError, match="alpha is 48 high and 80 wide but its image"):
        encoder.encode(torch.rand(1, 3, 20, 20), LEFT)
    CLIPVisionModelWithProjection(encoder.model.config.vision_config).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="does not hold an Alpha-CLIP with a text tower"):
        RegionEncoder.from_pretrained(tmp_path)
