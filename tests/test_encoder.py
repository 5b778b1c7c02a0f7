"""RegionEncoder: batching, differentiability, lost words, every checkpoint, and refusals."""

import dataclasses
import logging
import shutil

import pytest
import torch
import torch.nn.functional as F
from small_runs import SMALL

from alphaclip_gen.checkpoints import load_tower
from alphaclip_gen.conversion import convert
from alphaclip_gen.encoder import RegionEncoder
from alphaclip_gen.exporting import export
from alphaclip_gen.framing import preprocess
from alphaclip_gen.mini.model import CONTEXT, new_model, new_tokenizer
from alphaclip_gen.mini.train import save
from alphaclip_gen.processor import AlphaCLIPImageProcessor
from alphaclip_gen.published import Architecture, Published
from alphaclip_gen.regions import alpha_from_box
from alphaclip_gen.vision import IMAGE_MEAN, IMAGE_STD, pixel_values
from guides import load_encoders, make_guides
from loop import Clock, optimize
from settings import TowerSettings


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
        torch.testing.assert_close(encoder.embed(image, LEFT, "squash"), expected)
    assert encoder.size == 64
    assert encoder.logit_scale == pytest.approx(14)


def test_another_side_has_fewer_patches_and_the_own_one_changes_nothing(encoder, image):
    alpha = torch.rand(1, 1, *image.shape[2:], generator=torch.Generator().manual_seed(0))
    own = encoder.embed(image, alpha)
    assert torch.equal(encoder.embed(image, alpha, side=encoder.size), own)
    half = encoder.size // 2
    framed, region = preprocess(image, alpha, half, encoder.geometry)
    values = encoder._pixel_values(framed, region)
    output = encoder.model.get_image_features(values, interpolate_pos_encoding=True)
    small = encoder.embed(image, alpha, side=half)
    assert torch.allclose(small, F.normalize(output.pooler_output, dim=-1), atol=1e-6)
    assert not torch.allclose(small, own, atol=1e-3)


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


def test_many_unknown_words_are_counted(encoder, caplog):
    with caplog.at_level(logging.WARNING):
        encoder.embed_texts([f"a qq{letter}qq" for letter in "abcdefghijk"])
    assert len(caplog.messages) == 9
    assert caplog.messages[-1] == "3 more words are unknown or cut off."


def test_long_texts_are_shortened_in_warnings_and_words_are_named_once(encoder, caplog):
    with caplog.at_level(logging.WARNING):
        encoder.embed_texts(["a red zonk " * 200])
    long, unknown = caplog.messages
    assert unknown.startswith("'zonk' in 'a red zonk a red") and " ... " in unknown
    assert "longer than the model's" in long and max(map(len, caplog.messages)) < 400


def test_what_is_cut_off_is_said(encoder, caplog):
    text = " ".join(["red"] * (CONTEXT - 1)) + " cone"
    with caplog.at_level(logging.WARNING):
        long = encoder.embed_texts([text])
    assert f"longer than the model's {CONTEXT} tokens; cut off: 'red cone'." in caplog.text
    torch.testing.assert_close(long, encoder.embed_texts([" ".join(["red"] * (CONTEXT - 2))]))


def test_what_is_cut_off_is_said_however_many_words_are_unknown(encoder, caplog):
    unknown = " ".join(f"qq{letter}qq" for letter in "abcdefghij")
    with caplog.at_level(logging.WARNING):
        encoder.embed_texts([" ".join([unknown] * 5)])
    assert "longer than the model's" in caplog.messages[0]


def test_a_model_without_alpha_weights_is_named_as_it_is_opened(encoder, tmp_path, caplog):
    save(encoder.model, encoder.tokenizer, tmp_path)
    RegionEncoder.from_pretrained(tmp_path)
    assert "regions change nothing" not in caplog.text
    convert(tmp_path, tmp_path / "folded", fold=True)
    RegionEncoder.from_pretrained(tmp_path / "folded")
    assert "folded has no alpha weights: regions change nothing." in caplog.text


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


NORMALIZED = {"image_mean": (0.5, 0.4, 0.3), "image_std": (0.5, 0.25, 0.2)}
EXACT = {"size": {"height": 64, "width": 64}, "do_center_crop": False}


def test_normalization_is_the_processors(encoder, image):
    """Squares of the tower's own size, so that nothing is resized: by hand."""
    other = RegionEncoder(
        encoder.model, encoder.tokenizer, AlphaCLIPImageProcessor.for_side(64, **NORMALIZED)
    )
    square = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(2))
    alpha = alpha_from_box((0, 0, 32, 64), (64, 64))
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in NORMALIZED.values())
    values = torch.cat([(square - mean) / std, alpha - 1], 1)
    expected = encoder.model.get_image_features(values).pooler_output
    expected = expected / expected.norm(dim=-1, keepdim=True)
    torch.testing.assert_close(other.embed(square, alpha), expected)
    torch.testing.assert_close(other.encode(square, alpha).embedding, expected)
    assert (encoder.embed(square, alpha) - expected).norm() > 1e-3


@pytest.mark.parametrize("geometry", ["region", "region-centered"])
def test_a_whole_picture_has_nothing_to_cut_out(encoder, image, geometry):
    torch.testing.assert_close(encoder.embed(image, None, geometry), encoder.embed(image))


@pytest.mark.parametrize(
    ("settings", "geometry"),
    [
        ({}, "pad"),
        (EXACT, "squash"),
        ({"geometry": "squash"}, "squash"),
        ({"geometry": "pad"}, "pad"),
    ],
)
def test_pictures_are_framed_as_in_training_but_whole(encoder, image, settings, geometry):
    processor = AlphaCLIPImageProcessor(**settings)
    other = RegionEncoder(encoder.model, encoder.tokenizer, processor)
    assert other.geometry == geometry
    for method in (other.embed, lambda *given: other.encode(*given).embedding):
        torch.testing.assert_close(method(image, LEFT), method(image, LEFT, geometry))
    other_one = {"pad": "squash", "squash": "pad"}[geometry]
    assert (other.embed(image, LEFT) - other.embed(image, LEFT, other_one)).norm() > 1e-4


def test_a_whole_picture_is_padded_where_regions_are_cut_out(encoder, image):
    features = encoder.encode(image, [None, LEFT], "region").embedding
    torch.testing.assert_close(features[:1], encoder.encode(image, None, "pad").embedding)
    torch.testing.assert_close(encoder.embed(image, LEFT, "region"), features[1:])


def test_an_empty_region_is_a_region(encoder, image):
    """Alpha 0 everywhere attends nowhere: defined, and not the same as attending everywhere."""
    empty = encoder.encode(image, torch.zeros_like(LEFT)).embedding
    assert empty.isfinite().all()
    assert (empty - encoder.encode(image).embedding).norm() > 1e-4


@pytest.mark.parametrize(
    ("alpha", "message"),
    [
        (torch.ones(1, 1, 20, 20), "alpha is 20 high and 20 wide but its image is 48 high and 80"),
        (torch.full((1, 1, 48, 80), torch.nan), "alpha .*NaN"),
        (torch.full((1, 1, 48, 80), 255.0), "alpha .*255.*expected"),
        (-torch.ones(1, 1, 48, 80), "alpha .*-1.*expected"),
        (
            torch.ones(1, 3, 48, 80),
            r"alpha has shape \(1, 3, 48, 80\); expected \(batch, 1, height",
        ),
        (torch.ones(48, 80), r"alpha has shape \(48, 80\); expected \(batch, 1, height, width\)"),
    ],
    ids=["size", "NaN", "range", "negative", "channels", "dimensions"],
)
def test_bad_regions_are_refused(encoder, image, alpha, message):
    with pytest.raises(ValueError, match=message):
        encoder.encode(image, alpha)


def test_bad_batches_and_pictures_are_refused(encoder, image):
    with pytest.raises(ValueError, match="got 3 regions for 2 pictures"):
        encoder.encode([image, image], [LEFT, LEFT, RIGHT])
    with pytest.raises(ValueError, match="alpha has batch 3 but its image has batch 2"):
        encoder.embed(image.repeat(2, 1, 1, 1), LEFT.repeat(3, 1, 1, 1))
    with pytest.raises(ValueError, match=r"picture .*NaN"):
        encoder.encode(image * torch.nan)


def test_bad_texts_are_refused(encoder):
    with pytest.raises(ValueError, match="a text is empty"):
        encoder.embed_texts(["a red cone", " "])
    with pytest.raises(ValueError, match="texts is 'a red cone'; expected a list"):
        encoder.embed_texts("a red cone")
    with pytest.raises(ValueError, match=r"texts is \[\]; expected a list of one text"):
        encoder.score("scene.png", [])


# from_pretrained


SIZES = {"image_size": 32, "layers": 2, "width": 128, "patch_size": 8}
WORDS = {"context_length": 77, "vocab_size": 49408, "width": 64, "heads": 1, "layers": 2}
CONFIG = {"embed_dim": 16, "quick_gelu": True, "vision_cfg": SIZES, "text_cfg": WORDS}
TEXTS = ["a red cone", "it's a photo of the café, 2nd of 3!", "very " * 100]
ROW = Published("clip_tiny", Architecture("ViT-T/8", 128, 2, 8, 32, 16, "o/clip"), "scenes", "0")


@pytest.fixture(scope="module")
def clip():
    """A CLIP of open_clip's, with OpenAI's words and random weights."""
    open_clip = pytest.importorskip("open_clip")
    torch.manual_seed(0)
    return open_clip.model.CLIP(**CONFIG).eval()


@pytest.fixture
def files(clip, tmp_path, monkeypatch):
    """The same CLIP in every way that people have it: arguments of from_pretrained."""
    import open_clip

    monkeypatch.setitem(open_clip.factory._MODEL_CONFIGS, "ViT-tiny", CONFIG)
    monkeypatch.setenv("ALPHACLIP_GEN_WEIGHTS", str(tmp_path / "downloads"))
    monkeypatch.setattr("alphaclip_gen.published.PUBLISHED", (ROW,))
    (tmp_path / "downloads").mkdir()
    openai = tmp_path / "downloads" / ROW.architecture.clip_file
    torch.save(clip.state_dict(), openai)
    convert(openai, tmp_path / "ours")
    convert(openai, tmp_path / "transformers", fold=True)
    convert(openai, tmp_path / "open_clip", layout="open_clip")
    tower = export(load_tower(openai), tmp_path, "alpha-clip")
    tower.rename(tmp_path / "tuned.pth")
    shutil.copy(tmp_path / "tuned.pth", tmp_path / "downloads" / ROW.file)
    return {
        "OpenAI": {"name_or_path": openai},
        "open_clip, name and file": {"name_or_path": "ViT-tiny", "pretrained": openai},
        "open_clip, folder": {"name_or_path": tmp_path / "open_clip"},
        "transformers": {"name_or_path": tmp_path / "transformers"},
        "ours": {"name_or_path": tmp_path / "ours"},
        "own Alpha-CLIP": {"name_or_path": tmp_path / "tuned.pth", "text": tmp_path / "ours"},
        "published": {"name_or_path": "clip_tiny"},
    }


@pytest.mark.parity
def test_every_checkpoint_opens_with_its_tokenizer(clip, files, caplog):
    """Pictures and texts, cut off and padded ones too, are what open_clip makes of them."""
    import open_clip

    image = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (IMAGE_MEAN, IMAGE_STD))
    with torch.no_grad():
        pictures = clip.encode_image((image - mean) / std, normalize=True)
        texts = clip.encode_text(open_clip.tokenize(TEXTS), normalize=True)
    for name, given in files.items():
        encoder = RegionEncoder.from_pretrained(**given)
        caplog.clear()
        got = encoder.embed_texts(TEXTS)
        assert f"longer than the model's 77 tokens; cut off: '{'very ' * 24}very'" in caplog.text
        figures = [(got - texts).abs().max(), (encoder.embed(image) - pictures).abs().max()]
        print(f"\nparity  RegionEncoder / open_clip, {name:<26} {max(figures):.1e}")
        assert max(figures) < 2e-6
        assert encoder.logit_scale == pytest.approx(1 / 0.07)


def test_every_checkpoint_guides_text_to_3d(files):
    """Two steps by each: pictures of half its side, then of its own, with alpha of 0 and 1."""
    for given in files.values():
        places = [f":{key}={given[key]}" for key in ("text", "pretrained") if key in given]
        config = dataclasses.replace(
            SMALL,
            guidance=(f"{given['name_or_path']}{''.join(places)}",),
            alpha="hard",
            tower=TowerSettings(scales=(0.5, 1.0), grow_at=(0.5,), precision="single"),
            steps=2,
        )
        guides = make_guides(config, load_encoders(config))
        generator, clock = torch.Generator().manual_seed(0), Clock(torch.device("cpu"))
        seen = [
            (now.step, now.loss, now.field.density.detach().clone())
            for now in optimize(config, guides, generator, clock)
        ]
        (_, _, before), *_, (step, loss, after) = seen
        assert step == 2 and 0 < loss < 20 and not torch.equal(before, after)


def test_a_published_alpha_clip_without_its_text_tower(files, tmp_path, monkeypatch):
    (tmp_path / "downloads" / ROW.architecture.clip_file).unlink()
    asked = []

    def fetch(repository, _):
        asked.append(repository)
        raise FileNotFoundError(f"{repository!r} is not on the Hub.")

    monkeypatch.setattr("alphaclip_gen.sources.fetch", fetch)
    told = (
        r"no text tower; its own is that of OpenAI's ViT-T/8.* not on .* put OpenAI's ViT-T-8\.pt"
    )
    with pytest.raises(FileNotFoundError, match=told):
        RegionEncoder.from_pretrained("clip_tiny")
    assert asked == ["o/clip"]
    with pytest.raises(ValueError, match=r"tuned\.pth has no text tower.*Pass text="):
        RegionEncoder.from_pretrained(tmp_path / "tuned.pth")


def test_device_and_dtype_can_be_chosen(files, image):
    given = files["ours"]
    half = RegionEncoder.from_pretrained(**given, device="cpu", dtype=torch.bfloat16)
    assert half.model.dtype == torch.bfloat16
    expected = RegionEncoder.from_pretrained(**given).embed(image, LEFT)
    torch.testing.assert_close(half.embed(image, LEFT).float(), expected, atol=0.03, rtol=0)


def test_names_of_nothing_and_towers_without_texts_are_refused(files, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"'nothing' is no file, .*shipped model \(mini\)"):
        RegionEncoder.from_pretrained("nothing")
    tower = load_tower(tmp_path / "ours", projection=False)
    tower.save_pretrained(tmp_path / "bare")
    with pytest.raises(ValueError, match=r"bare has no text tower of CLIP\. Pass text="):
        RegionEncoder.from_pretrained(tmp_path / "bare")


def test_a_cut_off_file_and_one_of_another_size_are_refused(files, tmp_path):
    whole = (tmp_path / "ours" / "model.safetensors").read_bytes()
    (tmp_path / "ours" / "model.safetensors").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match=r"is damaged, cut off .* download it again"):
        RegionEncoder.from_pretrained(tmp_path / "ours")
    path = tmp_path / "transformers" / "config.json"
    path.write_text(path.read_text().replace('"image_size": 32', '"image_size": 64'))
    with pytest.raises(ValueError, match=r"of another size: .*position_embedding.* \(65, 128\)"):
        RegionEncoder.from_pretrained(tmp_path / "transformers")
