"""Towers loaded from files, regions encoded, and where they look, by the nodes."""

import dataclasses
import json
import logging
from pathlib import Path

import comfy_stub as stub
import pytest
import torch
from comfy_probe import core_vision
from transformers import CLIPTextConfig, CLIPVisionConfig, CLIPVisionModelWithProjection

from alphaclip_gen import RegionEncoder, alpha_from_box, as_image, export, load_tower
from alphaclip_gen.comfyui import NODE_CLASS_MAPPINGS, host, vision_files
from alphaclip_gen.comfyui.encoding import encode_region, framed, normalized, preview
from alphaclip_gen.comfyui.looking import heated, look_at
from alphaclip_gen.comfyui.masks import as_comfy_image, as_comfy_mask, reference
from alphaclip_gen.comfyui.vision import CoreTower, encoder_of, load_vision
from alphaclip_gen.comfyui.widgets import GEOMETRIES, IMAGE_EMBEDS, TOKENS
from alphaclip_gen.framing import preprocess
from alphaclip_gen.recognition import Checkpoint
from alphaclip_gen.vision import (
    AlphaCLIPVisionConfig,
    AlphaCLIPVisionModelWithProjection,
    pixel_values,
)

SCENE = Path(__file__).resolve().parents[1] / "docs" / "scene.png"
SPHERE = (102, 82, 208, 190)
TOLERANCE = 1.2e-3


@pytest.fixture
def core(monkeypatch, tmp_path):
    return stub.install(monkeypatch, tmp_path)


@pytest.fixture
def vision(core):
    return load_vision("mini")


@pytest.fixture
def scene():
    return as_image(SCENE)


@pytest.fixture
def sphere():
    return alpha_from_box(SPHERE, (224, 224))


def node(name):
    return NODE_CLASS_MAPPINGS[f"AlphaCLIP{name}"]()


# Load Alpha-CLIP Vision


@pytest.fixture
def published(core):
    """A small tower in the layout of the published files, heads of 64."""
    torch.manual_seed(0)
    config = AlphaCLIPVisionConfig(
        hidden_size=128, intermediate_size=512, num_hidden_layers=2, num_attention_heads=2,
        image_size=32, patch_size=8, projection_dim=16, hidden_act="quick_gelu",
    )  # fmt: skip
    tower = AlphaCLIPVisionModelWithProjection(config)
    torch.nn.init.normal_(tower.vision_model.embeddings.patch_embedding_alpha.weight, std=0.3)
    path = export(tower, core.folder("models", "clip_vision"), "alpha-clip")
    return path.rename(path.with_name("clip_tiny.pth"))


def test_a_published_file_is_loaded_from_models(core, published):
    options = NODE_CLASS_MAPPINGS["AlphaCLIPLoadVision"].INPUT_TYPES()["required"]["model"][0]
    assert options == ["mini", "clip_tiny.pth"]
    (vision,) = node("LoadVision").run("clip_tiny.pth", "its own")
    assert isinstance(vision.model, CoreTower) and vision.model.knows_alpha
    assert vision.encoder is None and vision.image_size == 32
    ours = load_tower(published)
    for name, value in vision.model.clip.state_dict().items():
        assert torch.equal(value, ours.state_dict()[name])


def test_texts_need_a_text_tower(core, published):
    vision = load_vision("clip_tiny.pth")
    with pytest.raises(ValueError, match="clip_vision has no text tower"):
        encoder_of(vision)
    with pytest.raises(ValueError, match=r"texts is 'clip_tiny.pth', which has no text tower"):
        load_vision("clip_tiny.pth", "clip_tiny.pth")
    for arguments, name in ((("gone.pth",), "model"), (("mini", "gone.pth"), "texts")):
        with pytest.raises(FileNotFoundError, match=rf"{name} is 'gone.pth', and there is no such"):
            load_vision(*arguments)


def test_a_file_that_is_no_tower_is_said(core):
    folder = core.folder("models", "clip_vision")
    (folder / "page.pth").write_text("<!DOCTYPE html><html>not found</html>")
    (folder / "half.safetensors").write_bytes(bytes(100))
    for name in ("page.pth", "half.safetensors"):
        with pytest.raises(ValueError, match=rf"model: .*{name}"):
            load_vision(name)


def test_a_text_tower_of_another_file(core, published, tmp_path):
    """The text side of a whole CLIP; its words are the core's where the file brings none."""
    mini = RegionEncoder.from_pretrained("mini")
    folder = core.folder("models", "clip_vision", "whole")
    mini.model.save_pretrained(folder)
    mini.tokenizer.save_pretrained(folder)
    vision = load_vision("mini", "whole/model.safetensors")
    texts = ["a red cone", "a blue torus"]
    torch.testing.assert_close(
        encoder_of(vision).embed_texts(texts), mini.embed_texts(texts), atol=1e-5, rtol=1e-5
    )
    with pytest.raises(ValueError, match=r"texts: .* has 128 channels, .* has 16; expected the"):
        load_vision("clip_tiny.pth", "whole/model.safetensors")


@pytest.mark.parametrize(
    "stray",
    [
        {"model_type": "clip_vision_model", "hidden_size": 64, "patch_size": 16},
        {"model_type": "clip", "vision_config": {"num_hidden_layers": 3}},
        {"model_type": "siglip_vision_model"},
        {"architectures": ["Other"]},
    ],
)
def test_a_stray_configuration_is_not_obeyed(core, tmp_path, caplog, stray):
    """The folder is flat: what lies beside a file may be another model's."""
    torch.manual_seed(0)
    config = CLIPVisionConfig(
        hidden_size=128, intermediate_size=512, num_hidden_layers=2, num_attention_heads=2,
        image_size=32, patch_size=8, projection_dim=16, hidden_act="gelu",
    )  # fmt: skip
    CLIPVisionModelWithProjection(config).save_pretrained(tmp_path / "saved")
    folder = core.folder("models", "clip_vision")
    (tmp_path / "saved" / "model.safetensors").rename(folder / "plain.safetensors")
    alone = load_vision("plain.safetensors").model.clip
    (folder / "config.json").write_text(json.dumps(stray))
    with caplog.at_level(logging.WARNING):
        beside = load_vision("plain.safetensors").model.clip
    assert "config.json lies beside" in caplog.text and beside.config == alone.config
    (tmp_path / "saved" / "config.json").rename(folder / "config.json")
    caplog.clear()
    own = load_vision("plain.safetensors").model.clip
    assert "lies beside" not in caplog.text and own.config.hidden_act == "gelu"


def test_a_stray_vocabulary_is_not_obeyed(core, monkeypatch, tmp_path):
    """A tower of CLIP's words reads them by CLIP's tokenizer, which the core brings."""
    mini = RegionEncoder.from_pretrained("mini")
    mini.tokenizer.save_pretrained(tmp_path)
    clips, read = mini.tokenizer, []
    monkeypatch.setattr(
        vision_files.CLIPTokenizer, "from_pretrained", lambda place: read.append(place) or clips
    )
    texts = CLIPTextConfig()
    clip = Checkpoint("whole", "transformers", {}, AlphaCLIPVisionConfig(), texts, None, tmp_path)
    assert vision_files.tokenizer_of(clip) is clips and read == [host.clip_words()]
    (tmp_path / "tokenizer.json").write_text("[")
    assert vision_files.tokenizer_of(clip) is clips
    ours = dataclasses.replace(clip, text=CLIPTextConfig(vocab_size=len(mini.tokenizer)))
    with pytest.raises(ValueError, match="cannot be read"):
        vision_files.tokenizer_of(ours)
    mini.tokenizer.save_pretrained(tmp_path)
    assert len(vision_files.tokenizer_of(ours)) == len(mini.tokenizer)


def test_mini_is_the_librarys_mini(vision, scene, sphere):
    """Loaded under ComfyUI's inference mode, and trainable after it."""
    with torch.inference_mode():
        loaded = load_vision("mini")
    assert not any(p.is_inference() for p in loaded.model.parameters())
    ours = RegionEncoder.from_pretrained("mini")
    texts = ["a red sphere", "a cyan cube"]
    torch.testing.assert_close(
        encoder_of(loaded).score(scene, texts, sphere), ours.score(scene, texts, sphere)
    )


# Encode Region


def expected_of(image, alpha):
    """The library's own numbers for a square picture and its region."""
    clip = load_tower("mini")
    rounded = (image * 255).round() / 255
    output = clip(pixel_values(rounded, alpha), output_hidden_states=True)
    return output.image_embeds, output.hidden_states[-2], output.last_hidden_state


@pytest.mark.parametrize("geometry", GEOMETRIES)
def test_encoding_equals_the_librarys(vision, scene, sphere, geometry):
    wide, region = scene[..., 20:200, :], sphere[..., 20:200, :]
    image, alpha = preprocess(wide, region, 64, GEOMETRIES[geometry])
    embeds, tokens, last = expected_of(image, alpha)
    found = encode_region(vision, wide, region, geometry)
    near = {"atol": TOLERANCE, "rtol": TOLERANCE}
    torch.testing.assert_close(found.output.image_embeds, embeds, **near)
    torch.testing.assert_close(found.output.penultimate_hidden_states, tokens, **near)
    torch.testing.assert_close(found.output.last_hidden_state, last, **near)
    assert torch.equal(found.positive, found.output.image_embeds)
    assert not found.negative.any() and found.negative.shape == found.positive.shape
    assert found.preview.shape == (1, 64, 64, 3)


def test_plus_embeds_are_ipadapters(vision, scene, sphere):
    """Positive and negative as IPAdapter_plus makes them of the focused object."""
    found = encode_region(vision, scene, sphere, "center", embeds=TOKENS)
    (focused,) = node("Focus").run(vision, as_comfy_mask(sphere), 1.0, False, "auto")
    theirs = stub.as_ipadapter(focused, as_comfy_image(scene))
    black = stub.as_ipadapter(focused, torch.zeros(1, 64, 64, 3))
    near = {"atol": 5e-2, "rtol": 5e-2}  # their bicubic picture is rounded once, ours too
    torch.testing.assert_close(found.positive, theirs.penultimate_hidden_states, **near)
    torch.testing.assert_close(
        found.negative, black.penultimate_hidden_states, atol=TOLERANCE, rtol=TOLERANCE
    )


def test_several_regions_of_one_picture_and_one_each(vision, scene, sphere):
    both = torch.cat([sphere, 1 - sphere])
    many = encode_region(vision, scene, both).positive
    each = encode_region(vision, scene.expand(2, -1, -1, -1), both).positive
    torch.testing.assert_close(many, each)
    torch.testing.assert_close(many[:1], encode_region(vision, scene, sphere).positive)
    pair, three = as_comfy_image(scene.expand(2, -1, -1, -1)), torch.cat([both, sphere])[:, 0]
    with pytest.raises(ValueError, match="holds 3 regions and there are 2 pictures"):
        reference(pair, three)
    assert reference(pair[:1], three).alpha.shape == (3, 1, 224, 224)


def test_training_free_focus_moves_the_embedding_to_the_region(vision, scene, sphere):
    """Toward what the tower says of the region alone."""
    alone = encode_region(vision, scene, sphere, "squash", "crop").positive
    whole = encode_region(vision, scene, None, "squash").positive
    region = encode_region(vision, scene, sphere, "squash", "training-free").positive
    closeness = [torch.cosine_similarity(e, alone).item() for e in (whole, region)]
    assert closeness[1] > closeness[0]


def test_blur_encodes_the_blurred_picture(vision, scene, sphere):
    blurred, _ = framed(scene, sphere, 64, "squash", "blur")
    expected = encode_region(vision, blurred, None, "squash").positive
    region = encode_region(vision, scene, sphere, "squash", "blur").positive
    assert torch.cosine_similarity(region, expected) > 0.999
    whole = encode_region(vision, scene, None, "squash").positive
    assert torch.cosine_similarity(region, whole) < 0.99


def test_crop_is_the_region_alone(scene, sphere):
    cut, alpha = framed(scene, sphere, 64, "center", "crop")
    expected, _ = preprocess(scene, sphere, 64, "region")
    assert torch.equal(cut, expected) and alpha.shape == (1, 1, 64, 64)
    blurred, _ = framed(scene, sphere, 64, "squash", "blur")
    plain, _ = preprocess(scene, sphere, 64, "squash")
    inside, outside = (blurred - plain).abs()[..., 30:50, 35:50], (blurred - plain).abs()[..., :20]
    assert inside.max() < 1e-3 < outside.mean()


def test_no_region(vision, scene):
    whole = encode_region(vision, scene, None)
    seen = as_comfy_image(preprocess(scene, None, 64, "center")[0])
    assert (whole.preview - seen).abs().max() < 1 / 255
    with pytest.raises(ValueError, match="'crop to region' needs a region"):
        encode_region(vision, scene, None, "crop to region")


def test_a_region_that_was_bound_before_is_put_aside(vision, scene, sphere):
    (focused,) = node("Focus").run(vision, as_comfy_mask(1 - sphere), 1.0, False, "auto")
    torch.testing.assert_close(
        encode_region(focused, scene, sphere).positive,
        encode_region(vision, scene, sphere).positive,
    )


def test_the_cores_own_tower_and_its_normalization(core, scene, sphere):
    torch.manual_seed(0)
    config = CLIPVisionConfig(
        hidden_size=32, intermediate_size=64, num_hidden_layers=3, num_attention_heads=2,
        image_size=32, patch_size=8, projection_dim=16,
    )  # fmt: skip
    vision = core_vision(CLIPVisionModelWithProjection(config).eval())
    squares, _ = preprocess(scene, None, 32, "center")
    with torch.no_grad():
        theirs = vision.encode_image(as_comfy_image(squares))
        whole = encode_region(vision, scene, None)
        half = encode_region(vision, scene, sphere)
    torch.testing.assert_close(whole.positive, theirs.image_embeds)
    assert (half.positive - whole.positive).norm() > 1e-3
    vision.image_mean = vision.image_std = [0.5] * 3
    assert normalized(vision, torch.ones(1, 3, 2, 2)).eq(1).all()


def test_the_preview_is_lit_where_it_was_looked_at():
    picture = torch.zeros(1, 3, 2, 4)
    picture[:, 0] = 1
    alpha = torch.tensor([[[[1.0, 1.0, 0.0, 0.0]] * 2]])
    seen = preview(picture, alpha)
    assert seen[0, 0, 0].tolist() == [1, 0, 0]
    assert seen[0, 0, 3].max() - seen[0, 0, 3].min() < 1e-6


def test_the_node_returns_four_things_and_changes_nothing(vision, scene, sphere):
    image, mask = as_comfy_image(scene), as_comfy_mask(sphere)
    copies = image.clone(), mask.clone()
    settings = ("center", 1.0, False, "auto", IMAGE_EMBEDS)
    output, positive, negative, seen = node("EncodeRegion").run(vision, image, mask, *settings)
    assert positive.shape == negative.shape == (1, 128) and seen.shape == (1, 64, 64, 3)
    assert hasattr(output, "last_hidden_state")
    assert torch.equal(image, copies[0]) and torch.equal(mask, copies[1])


# Attention Map


def test_the_heat_follows_the_region(core, vision, scene, sphere):
    """Under inference mode, as the core runs nodes; more heat inside than evenly spread."""
    with torch.inference_mode():
        image, heat = node("AttentionMap").run(
            vision, as_comfy_image(scene), as_comfy_mask(sphere), 1.0, False, "auto", ""
        )
    assert image.shape == (1, 224, 224, 3) and heat.shape == (1, 224, 224)
    share = (heat * sphere[:, 0]).sum() / heat.sum()
    assert share > 2 * sphere.mean() and 0.5 < heat.max() <= 1
    assert core.progress[-1][:2] == (1, 1)


def test_the_heat_of_a_word(vision, scene):
    texts = {"a red sphere": SPHERE, "a cyan cube": (58, 46, 116, 116)}
    shares = {}
    for text in texts:
        heat = look_at(vision, scene, None, text=text, encoder=encoder_of(vision))
        shares[text] = [
            (heat * alpha_from_box(box, (224, 224))).sum() / heat.sum() for box in texts.values()
        ]
    assert shares["a red sphere"][0] > shares["a cyan cube"][0]
    assert shares["a cyan cube"][1] > shares["a red sphere"][1]


def test_the_cores_tower_has_a_heat_map_under_inference_mode(core, scene, sphere):
    """Its weights are inference tensors of half precision, and its layers sum in place."""
    with torch.inference_mode():
        torch.manual_seed(0)
        config = CLIPVisionConfig(
            hidden_size=32, intermediate_size=64, num_hidden_layers=3, num_attention_heads=2,
            image_size=32, patch_size=8, projection_dim=16,
        )  # fmt: skip
        vision = core_vision(CLIPVisionModelWithProjection(config).eval())
        heat = look_at(vision, scene, sphere)
    assert heat.shape == (1, 1, 224, 224)
    assert (heat * sphere).sum() / heat.sum() > sphere.mean()
    with pytest.raises(ValueError, match="method 'blur' changes the picture"):
        look_at(vision, scene, sphere, "blur")


def test_heat_colors():
    gray = torch.zeros(1, 3, 1, 3)
    colors = heated(gray, torch.tensor([[[[0.0, 0.5, 1.0]]]]))[0, :, 0].T
    assert colors[0].max() < 0.05 and colors[2].min() > 0.4
    assert colors[1].argmax() == 0 and torch.all(colors.sum(1).diff() > 0)


def test_licence_is_said_where_published_weights_are_loaded(core, published, caplog):
    name = "clip_b16_grit1m_fultune_8xe.pth"
    published.rename(published.with_name(name))
    with caplog.at_level(logging.WARNING), pytest.raises(ValueError, match="of another size"):
        load_vision(name)
