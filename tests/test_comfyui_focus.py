"""A region bound into a CLIP_VISION, both ways that nodes use one, against the library's towers."""

import comfy_stub as stub
import pytest
import torch
import torch.nn.functional as F
from comfy_probe import TINY, TOLERANCE, core_vision, tiny_tower

from alphaclip_gen import to_stock
from alphaclip_gen.attention_focus import focus_attention
from alphaclip_gen.baselines import blur_outside, crop_to_region
from alphaclip_gen.comfyui.focus import as_core_frames, chosen, focus_vision, unfocused
from alphaclip_gen.comfyui.vision import AlphaVision, CoreTower, output_of
from alphaclip_gen.processor import AlphaCLIPImageProcessor
from alphaclip_gen.vision import AlphaCLIPVisionConfig, AlphaCLIPVisionModelWithProjection

MEAN, STD = stub.MEAN, stub.STD


@pytest.fixture(params=["0.3", "0.20"])
def core(request, monkeypatch, tmp_path):
    return stub.install(monkeypatch, tmp_path, request.param)


def alpha_tower():
    torch.manual_seed(0)
    config = AlphaCLIPVisionConfig(**TINY, projection_dim=16)
    tower = AlphaCLIPVisionModelWithProjection(config).eval()
    torch.nn.init.normal_(tower.vision_model.embeddings.patch_embedding_alpha.weight, std=0.3)
    return tower.requires_grad_(False)


@pytest.fixture
def vision(core):
    return AlphaVision(CoreTower(alpha_tower()), MEAN, STD)


@pytest.fixture
def image():
    """Two pictures that are wider than high, of 8-bit values."""
    random = torch.Generator().manual_seed(2)
    small = torch.rand(2, 3, 6, 9, generator=random)
    pictures = F.interpolate(small, (40, 60), mode="bicubic").clamp(0, 1)
    return (pictures.movedim(1, -1) * 255).round() / 255


@pytest.fixture
def alpha():
    """The left half, which the middle square of the picture cuts in part."""
    alpha = torch.zeros(1, 1, 40, 60)
    alpha[..., :30] = 1
    return alpha


def library(tower, image, alpha):
    """What the library makes of the same pictures: RGBA through its own image processor."""
    alphas = alpha.expand(len(image), -1, -1, -1)
    rgba = torch.cat([image.movedim(-1, 1), alphas], dim=1)
    processor = AlphaCLIPImageProcessor.for_side(32)
    pixel_values = processor(list(rgba), do_rescale=False, return_tensors="pt").pixel_values
    return tower(pixel_values, output_hidden_states=True)


def check_equal(output, expected):
    pairs = {
        "image_embeds": expected.image_embeds,
        "last_hidden_state": expected.last_hidden_state,
        "penultimate_hidden_states": expected.hidden_states[-2],
    }
    for name, value in pairs.items():
        torch.testing.assert_close(output[name], value, atol=TOLERANCE, rtol=TOLERANCE)
        assert output[name] is getattr(output, name)


# Alpha weights


def test_encode_image_equals_the_librarys_tower(vision, image, alpha):
    focused = focus_vision(vision, alpha)
    output = focused.encode_image(image)
    check_equal(output, library(vision.model.clip, image, alpha))
    assert output.mm_projected is None and len(output.image_sizes) == 2


def test_patcher_and_model_equal_the_librarys_tower(core, vision, image, alpha):
    focused = focus_vision(vision, alpha)
    check_equal(stub.as_ipadapter(focused, image), library(vision.model.clip, image, alpha))
    assert core.loaded[-1] is vision.patcher and vision.patcher.model is vision.model


def test_without_a_region_it_is_the_plain_tower(vision, image, alpha):
    whole = library(vision.model.clip, image, torch.ones_like(alpha))
    check_equal(vision.encode_image(image), whole)
    check_equal(stub.as_ipadapter(vision, image), whole)
    assert focus_vision(vision, None) is vision


def test_the_region_matters_and_the_given_object_stays(vision, image, alpha):
    before = vision.encode_image(image).image_embeds
    focused = focus_vision(vision, alpha)
    assert (focused.encode_image(image).image_embeds - before).norm() > 0.02 * before.norm()
    assert torch.equal(vision.encode_image(image).image_embeds, before)
    assert focused is not vision and focused.patcher is vision.patcher
    assert unfocused(focused) is vision
    again = focus_vision(focused, 1 - alpha)
    assert unfocused(again) is vision


def test_squashed_pictures_have_a_squashed_region(vision, image, alpha):
    """crop=False, the core's other way: the whole picture, and all of the region."""
    output = focus_vision(vision, alpha).encode_image(image, crop=False)
    square = stub.clip_preprocess(image, 32, crop=False)
    stored = F.interpolate(alpha, (32, 32), mode="bilinear", antialias=True) - 1
    expected = vision.model.clip(
        torch.cat([square, stored.expand(2, -1, -1, -1)], 1), output_hidden_states=True
    )
    check_equal(output, expected)


@pytest.mark.parametrize(("height", "width"), [(40, 60), (61, 40), (33, 47), (20, 20)])
def test_the_region_is_cut_as_the_picture_is(height, width):
    """A mask that is the picture itself comes out as the picture does, but for the filter."""
    ramp = torch.linspace(0, 1, width)[None] * torch.linspace(0.2, 1, height)[:, None]
    cut = as_core_frames(ramp[None, None], 32)
    picture = stub.clip_preprocess(ramp[None, :, :, None].expand(-1, -1, -1, 3), 32)
    picture = picture * torch.tensor(STD).view(3, 1, 1) + torch.tensor(MEAN).view(3, 1, 1)
    assert (cut[0, 0] - picture[0, 0]).abs().max() < 0.03


def test_a_mask_of_another_size_and_one_each(vision, image, alpha):
    whole = focus_vision(vision, alpha).encode_image(image).image_embeds
    finer = F.interpolate(alpha, (80, 120), mode="nearest")
    close = focus_vision(vision, finer).encode_image(image).image_embeds
    torch.testing.assert_close(close, whole, atol=2e-2, rtol=2e-2)
    pair = torch.cat([alpha, 1 - alpha])
    each = focus_vision(vision, pair)
    for encode in (each.encode_image, lambda image: stub.as_ipadapter(each, image)):
        output = encode(image).image_embeds
        torch.testing.assert_close(output[:1], whole[:1])
        other = focus_vision(vision, 1 - alpha).encode_image(image[1:]).image_embeds
        torch.testing.assert_close(output[1:], other)
    with pytest.raises(ValueError, match=r"holds 2 regions and there are 1 pictures"):
        stub.as_ipadapter(each, image, batch_size=1)


def test_one_region_serves_an_encoding_in_parts(vision, image, alpha):
    focused = focus_vision(vision, alpha)
    parts = stub.as_ipadapter(focused, image, batch_size=1)
    torch.testing.assert_close(parts.image_embeds, stub.as_ipadapter(focused, image).image_embeds)


@pytest.mark.parametrize("method", ["auto", "training-free", "crop", "blur"])
def test_ipadapters_black_picture_is_seen_whole(vision, alpha, method):
    """Its negative embedding is of a picture of zeros: the region must not show in it."""
    black = torch.zeros(1, 32, 32, 3)
    focused = stub.as_ipadapter(focus_vision(vision, alpha, method), black)
    plain = stub.as_ipadapter(vision, black)
    torch.testing.assert_close(
        focused.penultimate_hidden_states, plain.penultimate_hidden_states, atol=1e-5, rtol=1e-5
    )


@pytest.mark.parametrize("method", ["auto", "training-free", "crop", "blur"])
@pytest.mark.parametrize("batch_size", [0, 2])
def test_ipadapter_with_one_region_each(vision, image, alpha, method, batch_size):
    """Its positive has a region for each picture, its negative is of one black picture."""
    focused = focus_vision(vision, torch.cat([alpha, 1 - alpha]), method)
    positive, negative = stub.ipadapter_plus_embeds(focused, image, batch_size=batch_size)
    assert torch.equal(negative, stub.ipadapter_plus_embeds(vision, image)[1])
    for number, region in enumerate((alpha, 1 - alpha)):
        one = image[number : number + 1]
        alone, _ = stub.ipadapter_plus_embeds(focus_vision(vision, region, method), one)
        torch.testing.assert_close(positive[number : number + 1], alone, atol=1e-4, rtol=1e-4)


def test_a_negative_with_a_picture_has_the_region_too(vision, image, alpha):
    """So it is documented: Encode Region gives a negative without region."""
    noise = torch.rand(1, 40, 60, 3, generator=torch.Generator().manual_seed(3))
    focused = focus_vision(vision, alpha)
    _, negative = stub.ipadapter_plus_embeds(focused, image, noise)
    _, whole = stub.ipadapter_plus_embeds(vision, image, noise)
    assert (negative - whole).norm() > 0.01 * whole.norm()
    pair = focus_vision(vision, torch.cat([alpha, 1 - alpha]))
    with pytest.raises(ValueError, match=r"holds 2 regions and there are 1 pictures"):
        stub.ipadapter_plus_embeds(pair, image, noise)


@pytest.mark.parametrize("method", ["auto", "crop"])
def test_pictures_of_one_color_need_no_regions_of_their_own(vision, alpha, method):
    """Also where resizing to 8 bit leaves two neighboring grays."""
    three = torch.cat([alpha, 1 - alpha, alpha])
    gray = torch.full((1, 40, 60, 3), 0.5)
    found = focus_vision(vision, three, method).encode_image(gray).image_embeds
    assert torch.equal(found, vision.encode_image(gray).image_embeds)


# Training-free, on the core's own towers


@pytest.mark.parametrize("kind", ["clip", "siglip"])
def test_the_cores_tower_focuses_as_the_librarys_does(core, image, alpha, kind):
    theirs = tiny_tower(kind)
    vision = core_vision(theirs)
    focused = focus_vision(vision, alpha)
    pixel_values = stub.clip_preprocess(image, 32, vision.image_mean, vision.image_std)
    stored = as_core_frames(alpha, 32).expand(2, -1, -1, -1) - 1
    expected = focus_attention(theirs)(
        torch.cat([pixel_values, stored], dim=1), output_hidden_states=True
    )
    output = focused.encode_image(image)
    last = expected.last_hidden_state
    torch.testing.assert_close(output.last_hidden_state, last, atol=TOLERANCE, rtol=TOLERANCE)
    if kind == "clip":
        check_equal(output, expected)
        check_equal(stub.as_ipadapter(focused, image), expected)
    plain = vision.encode_image(image)
    assert (plain.last_hidden_state - output.last_hidden_state).norm() > 0.01 * last.norm()
    assert not any(layer._forward_pre_hooks for layer in vision.model.vision_model.encoder.layers)


def test_training_free_focus_of_our_own_tower(vision, image, alpha):
    """Without alpha weights the same tower focuses as its stock twin does."""
    theirs = to_stock(vision.model.clip)
    pixel_values = stub.clip_preprocess(image, 32)
    stored = as_core_frames(alpha, 32).expand(2, -1, -1, -1) - 1
    expected = focus_attention(theirs)(
        torch.cat([pixel_values, stored], dim=1), output_hidden_states=True
    )
    with torch.no_grad():
        output = focus_vision(vision, alpha, "training-free").encode_image(image)
    check_equal(output, expected)


def test_hooks_are_gone_after_a_failure(core, image, alpha):
    vision = core_vision(tiny_tower("clip"))
    focused = focus_vision(vision, alpha)
    with pytest.raises(RuntimeError):
        focused.model(pixel_values=torch.rand(1, 3, 40, 40))
    assert not any(layer._forward_pre_hooks for layer in vision.model.vision_model.encoder.layers)


# Methods that change the picture


@pytest.mark.parametrize(("method", "change"), [("crop", crop_to_region), ("blur", blur_outside)])
@pytest.mark.parametrize("kind", ["ours", "core"])
def test_changed_pictures(core, vision, image, alpha, method, change, kind):
    vision = vision if kind == "ours" else core_vision(tiny_tower("clip", scale=1))
    focused = focus_vision(vision, alpha, method)
    changed = change(image.movedim(-1, 1), alpha.expand(2, -1, -1, -1)).movedim(1, -1)
    torch.testing.assert_close(
        focused.encode_image(image).image_embeds, vision.encode_image(changed).image_embeds
    )
    square = image[:, :32, :32].contiguous()
    region = alpha[..., 4:36, 10:42]
    seen = stub.as_ipadapter(focus_vision(vision, region, method), square).image_embeds
    expected = change(square.movedim(-1, 1), region.expand(2, -1, -1, -1)).movedim(1, -1)
    torch.testing.assert_close(
        seen, vision.encode_image(expected).image_embeds, atol=5e-3, rtol=5e-3
    )


# The object


@pytest.mark.parametrize("method", ["alpha weights", "training-free", "crop", "blur"])
def test_results_are_remembered_and_cannot_be_spoiled(vision, image, alpha, method):
    focused, calls = focus_vision(vision, alpha, method), []
    counted = vision.model.vision_model.register_forward_pre_hook(lambda *_: calls.append(1))
    for encode in (focused.encode_image, lambda image: stub.as_ipadapter(focused, image)):
        calls.clear()
        first = encode(image).image_embeds
        kept = first.clone()
        first.zero_()
        assert torch.equal(encode(image).image_embeds, kept) and len(calls) == 1
        encode(image * 0.5)
        assert len(calls) == 2
    counted.remove()


def test_our_towers_are_never_on_the_device_in_part(core, vision, image, alpha):
    """IPAdapter lets the core choose how much it moves; layers of ours do not fetch the rest."""
    stub.as_ipadapter(focus_vision(vision, alpha), image)
    assert core.loaded_fully == [vision.patcher]
    core.loaded_fully.clear()
    stub.as_ipadapter(focus_vision(core_vision(tiny_tower("clip")), alpha), image)
    assert core.loaded_fully == []


def test_inputs_are_not_modified(vision, image, alpha):
    copies = image.clone(), alpha.clone()
    for method in ("auto", "training-free", "crop", "blur"):
        focused = focus_vision(vision, alpha, method)
        focused.encode_image(image)
        stub.as_ipadapter(focused, image)
    assert torch.equal(image, copies[0]) and torch.equal(alpha, copies[1])


def test_everything_works_under_inference_mode(core, image, alpha):
    with torch.inference_mode():
        vision = AlphaVision(CoreTower(alpha_tower()), MEAN, STD)
        focused = focus_vision(vision, alpha).encode_image(image).image_embeds
    assert torch.isfinite(focused).all()


def test_other_packs_find_the_towers_parts(core, vision, alpha):
    """Some read sizes off the model's weights, by the core's names."""
    for focused in (
        focus_vision(vision, alpha),
        focus_vision(core_vision(tiny_tower("clip")), alpha),
    ):
        assert focused.model.vision_model.embeddings.position_embedding.weight.shape[0] == 17
        assert focused.image_size == 32 and len(focused.image_mean) == 3
        assert focused.load_device == core.device and focused.dtype.is_floating_point
        assert focused.config["model_type"] == focused.model_type == "clip_vision_model"


def test_all_hidden_states_as_siglip_wants_them(vision):
    pixel_values = torch.randn(1, 3, 32, 32)
    last, between, _, _ = vision.model(pixel_values=pixel_values, intermediate_output="all")
    assert between.shape == (1, 4, 17, 32)
    torch.testing.assert_close(between[:, -1], last)
    vision.return_all_hidden_states = True
    output = output_of(vision, pixel_values)
    torch.testing.assert_close(output.penultimate_hidden_states, between[:, -2])


def test_what_a_tower_cannot_do_is_said(core, vision, alpha):
    plain = core_vision(tiny_tower("clip"))
    assert (chosen(vision, "auto"), chosen(plain, "auto")) == ("alpha weights", "training-free")
    with pytest.raises(ValueError, match="'alpha weights' needs a tower that was trained with"):
        focus_vision(plain, alpha, "alpha weights")
    with pytest.raises(ValueError, match="method is 'magic'; expected one of"):
        focus_vision(plain, alpha, "magic")
    plain.model, plain.model_type = torch.nn.Linear(2, 2), "dinov2"
    with pytest.raises(ValueError, match=r"needs a CLIP or SigLIP tower .* not dinov2"):
        focus_vision(plain, alpha, "training-free")
    fresh = alpha_tower()
    torch.nn.init.zeros_(fresh.vision_model.embeddings.patch_embedding_alpha.weight)
    assert chosen(AlphaVision(CoreTower(fresh), MEAN, STD), "auto") == "training-free"
