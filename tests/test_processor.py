"""The image processor: CLIP's own bits for RGB, a region for RGBA, safe in pipelines."""

import pickle

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import AutoImageProcessor, CLIPImageProcessor

from alphaclip_gen.framing import preprocess
from alphaclip_gen.processor import AlphaCLIPImageProcessor
from alphaclip_gen.vision import pixel_values

SMALL = {"size": {"shortest_edge": 32}, "crop_size": {"height": 32, "width": 32}}


def picture(height, width, channels=3, seed=0):
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, channels), np.uint8)
    return Image.fromarray(pixels)


def with_region(height, width, box=None):
    """A picture whose alpha is 255 inside the box and 0 outside, or 255 everywhere."""
    rgb = picture(height, width)
    alpha = Image.new("L", rgb.size, 255 if box is None else 0)
    if box is not None:
        alpha.paste(255, box)
    rgb.putalpha(alpha)
    return rgb


def values(images, processor=None, **settings):
    processor = processor or AlphaCLIPImageProcessor(**SMALL)
    return processor(images, return_tensors="pt", **settings).pixel_values


@pytest.mark.parametrize("size", [(300, 224), (301, 411), (97, 640), (20, 31), (32, 32)])
def test_rgb_is_bit_for_bit_the_stock_processors(size):
    stock = CLIPImageProcessor(**SMALL)
    for image in (picture(*size), picture(*size).convert("L"), np.array(picture(*size))):
        assert torch.equal(values(image), stock(image, return_tensors="pt").pixel_values)


@pytest.mark.parametrize("size", [(301, 411), (97, 640), (20, 31)])
def test_a_full_alpha_is_the_rgb_picture_and_zeros(size):
    got, rgb = values(with_region(*size)), values(picture(*size))
    assert got.shape == (1, 4, 32, 32)
    assert torch.equal(got[:, :3], rgb) and not got[:, 3].any()


def test_color_under_transparency_is_kept():
    region = with_region(64, 64, (0, 0, 32, 64))
    assert torch.equal(values(region)[:, :3], values(picture(64, 64)))


def test_alpha_goes_where_its_color_goes():
    """Red exactly where alpha is 1, on a wide picture that is cropped: both edges must agree."""
    pixels = np.zeros((64, 160, 4), np.uint8)
    pixels[:, 71:] = (255, 0, 0, 255)
    got = values(Image.fromarray(pixels))[0]
    red = (got[0] - got[0].min()) / (got[0].max() - got[0].min())
    assert torch.equal(got[3] > -0.5, red > 0.5)
    assert got[3].min() == -1 and got[3].max() == 0


def test_alpha_by_hand():
    """224 to 32 by sevens: a region on the grid stays sharp away from its edge."""
    stored = values(with_region(224, 224, (56, 0, 168, 224)))[0, 3]
    assert (stored[:, 10:22] == 0).all()
    assert (stored[:, :6] == -1).all() and (stored[:, 26:] == -1).all()


@pytest.mark.parametrize("mode", ["LA", "P", "PA"])
def test_every_kind_of_transparency_counts(mode):
    image = with_region(32, 32, (0, 0, 16, 32)).convert("LA" if mode == "PA" else mode)
    if mode == "P":
        image.info["transparency"] = image.getpixel((20, 5))
    if mode == "PA":
        image = image.convert("PA")
    assert values(image).shape == (1, 4, 32, 32)


def test_pictures_with_and_without_alpha_share_a_batch():
    got = values([picture(40, 60), with_region(60, 40, (0, 0, 40, 20))])
    assert got.shape == (2, 4, 32, 32)
    assert not got[0, 3].any() and got[1, 3].min() == -1
    assert values([picture(40, 60), picture(60, 40)]).shape == (2, 3, 32, 32)


@pytest.mark.parametrize("kind", ["tensor", "array", "list"])
def test_floats_as_stable_video_diffusion_gives_them(kind):
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(2, 4, 32, 32, generator=generator)
    given = {"tensor": images, "array": images.numpy(), "list": list(images)}[kind]
    got = values(given, do_normalize=True, do_center_crop=False, do_resize=False, do_rescale=False)
    torch.testing.assert_close(got, pixel_values(images[:, :3], images[:, 3:]))


def test_uint8_arrays_and_tensors_equal_pictures():
    region = with_region(50, 70, (0, 0, 30, 30))
    array = np.array(region)
    expected = values(region)
    assert torch.equal(values(array), expected)
    assert torch.equal(values(torch.from_numpy(array).permute(2, 0, 1)), expected)


@pytest.mark.parametrize("geometry", ["pad", "squash", "region"])
def test_other_geometries_are_those_of_preprocess(geometry):
    region = with_region(40, 80, (50, 10, 70, 30))
    got = values(region, AlphaCLIPImageProcessor(**SMALL, geometry=geometry))
    pixels = torch.from_numpy(np.array(region)).permute(2, 0, 1)[None] / 255
    image, alpha = preprocess(pixels[:, :3], pixels[:, 3:], 32, geometry)
    torch.testing.assert_close(got, pixel_values(image, alpha), atol=1e-6, rtol=1e-5)


def test_pictures_without_a_region_are_padded_by_geometry_region():
    processor = AlphaCLIPImageProcessor(**SMALL, geometry="region")
    padded = AlphaCLIPImageProcessor(**SMALL, geometry="pad")
    assert torch.equal(values(picture(40, 80), processor), values(picture(40, 80), padded))


def test_settings_are_saved_and_found_by_the_auto_class(tmp_path):
    processor = AlphaCLIPImageProcessor.for_side(48, geometry="pad", image_mean=[0.5, 0.5, 0.5])
    processor.save_pretrained(tmp_path)
    for again in (
        AlphaCLIPImageProcessor.from_pretrained(tmp_path),
        AutoImageProcessor.from_pretrained(tmp_path),
        pickle.loads(pickle.dumps(processor)),
    ):
        assert type(again) is AlphaCLIPImageProcessor
        assert again.to_dict() == processor.to_dict()
        assert (again.geometry, dict(again.size)) == ("pad", {"shortest_edge": 48})
        assert values(picture(60, 50), again).shape == (1, 3, 48, 48)


def test_a_stock_folder_loads_as_ours(tmp_path):
    CLIPImageProcessor(**SMALL).save_pretrained(tmp_path)
    assert values(with_region(40, 40), AlphaCLIPImageProcessor.from_pretrained(tmp_path)).shape == (
        1,
        4,
        32,
        32,
    )


def test_the_recorded_module_is_short():
    assert AlphaCLIPImageProcessor.__module__ == "alphaclip_gen"
    assert isinstance(AlphaCLIPImageProcessor(), CLIPImageProcessor)


def test_other_outputs_and_devices_of_the_call():
    processor = AlphaCLIPImageProcessor(**SMALL)
    image = with_region(40, 40)
    assert isinstance(processor(image)["pixel_values"], list)
    assert processor(image, return_tensors="np").pixel_values.shape == (1, 4, 32, 32)
    moved = processor.preprocess(images=image, return_tensors="pt").to("cpu", torch.float16)
    assert moved.pixel_values.dtype == torch.float16


@pytest.mark.parametrize(
    ("images", "settings", "message"),
    [
        (torch.rand(1, 4, 32, 32), {}, r"floats in \[0, 1\] .* do_rescale=False"),
        (torch.full((1, 4, 32, 32), 3.0), {"do_rescale": False}, "alpha .* 3 to 3; expected"),
        (np.full((32, 32, 4), 2, np.uint8), {"do_rescale": False}, "alpha .* 2 to 2; expected"),
        (torch.full((4, 32, 32), torch.nan), {"do_rescale": False}, "images holds NaN; expected"),
        (np.full((32, 32, 3), np.nan), {"do_rescale": False}, "images holds NaN; expected"),
        (np.zeros((32, 32, 2), np.uint8), {}, r"shape \(32, 32, 2\); expected 1 .* 3 .* or 4"),
        (torch.zeros(1, 5, 32, 32), {}, r"shape \(5, 32, 32\); expected 1 .* 3 .* or 4"),
        ([], {}, "images holds no pixels; expected at least one picture"),
        (Image.new("RGBA", (0, 5)), {}, "images holds no pixels; expected at least one picture"),
        (torch.rand(1, 3, 32, 32), {"geometry": "stretch"}, "geometry is 'stretch'; expected one"),
    ],
)
def test_bad_input_is_refused(images, settings, message):
    with pytest.raises(ValueError, match=message):
        values(images, **settings)


def test_an_empty_alpha_means_attend_nowhere():
    assert (values(with_region(40, 40, (0, 0, 0, 0)))[:, 3] == -1).all()


def test_settings_that_make_no_sense_are_refused():
    with pytest.raises(ValueError, match="geometry is 'zoom'; expected one of"):
        AlphaCLIPImageProcessor(geometry="zoom")
    oblong = AlphaCLIPImageProcessor(geometry="pad", crop_size={"height": 32, "width": 16})
    with pytest.raises(ValueError, match="geometry needs a square"):
        values(picture(20, 20), oblong)
