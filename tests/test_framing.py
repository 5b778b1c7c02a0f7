"""Preprocessing: one geometry for image and alpha, on any aspect and at any scale."""

import inspect

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision import transforms

from alphaclip_gen.alpha import feather
from alphaclip_gen.framing import as_image, preprocess, region_windows, resize
from alphaclip_gen.regions import alpha_from_box, alpha_from_points

GEOMETRIES = ("center", "pad", "squash", "region", "region-centered")
SHAPES = ((64, 128), (128, 64), (24, 48), (48, 24), (50, 50), (37, 91))


def encoded(height, width):
    """A picture whose red shows its own alpha map, off center; green is the complement."""
    alpha = alpha_from_points((0.55, 0.4), 0.2, (height, width), softness=1)
    alpha = feather(alpha, 2)
    return torch.cat([alpha, 1 - alpha, torch.zeros_like(alpha)], dim=1), alpha


def ramp(height, width):
    """A smooth picture in the middle of the range, so that nothing is cut off."""
    y = torch.linspace(0.25, 0.75, height, dtype=torch.float64)[:, None]
    x = torch.linspace(0.25, 0.75, width, dtype=torch.float64)
    return torch.stack([y.expand(height, width), x.expand(height, width), x * y + 0.2])[None]


# Image and alpha stay together


@pytest.mark.parametrize("geometry", GEOMETRIES)
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("size", [32, 96])
def test_image_and_alpha_stay_aligned(geometry, shape, size):
    image, alpha = encoded(*shape)
    framed, region = preprocess(image, alpha, size, geometry)
    assert framed.shape == (1, 3, size, size) and region.shape == (1, 1, size, size)
    picture = (framed[:, 0] + framed[:, 1] - 1).abs() < 0.01  # padding is red 0.5, green 0.5,
    picture &= framed[:, 2] < 0.01  # and blue 0.5; the picture has no blue
    assert picture.float().mean() > 0.4 and region.amax() > 0.9
    difference = (framed[:, 0] - region[:, 0]).abs()
    assert difference[picture].max() < 0.05
    assert (region[:, 0][~picture] == 0).all()


def test_the_published_example_would_fail_the_alignment_test():
    image, _ = encoded(64, 128)
    alpha = alpha_from_box((104, 0, 128, 64), (64, 128))
    framed, _ = preprocess(alpha.expand(-1, 3, -1, -1), None, 32, "center")
    _, squashed = preprocess(image, alpha, 32, "squash")
    assert (framed[:, 0] * squashed[:, 0]).sum() == 0 and squashed.sum() > 0


@pytest.mark.parametrize("geometry", GEOMETRIES[:3])
def test_one_pixel_is_found_where_arithmetic_says(geometry):
    alpha = torch.zeros(1, 1, 32, 64)
    alpha[..., 10, 40] = 1  # its center is x = 40.5, y = 10.5
    _, region = preprocess(torch.full((1, 3, 32, 64), 0.5), alpha, 128, geometry)
    x, y = {"center": (24.5 * 4, 42), "pad": (81, 32 + 21), "squash": (81, 42)}[geometry]
    weight = region[0, 0] / region.sum()
    centers = torch.arange(128) + 0.5
    assert (weight.sum(0) * centers).sum().item() == pytest.approx(x, abs=0.01)
    assert (weight.sum(1) * centers).sum().item() == pytest.approx(y, abs=0.01)


# Against other implementations


@pytest.mark.parametrize("shape", SHAPES)
def test_center_is_pillows_resize_and_crop(shape):
    noise = np.random.default_rng(0).integers(80, 176, (*shape, 3), dtype=np.uint8)
    side = transforms.InterpolationMode.BICUBIC
    clip = transforms.Compose([transforms.Resize(32, side), transforms.CenterCrop(32)])
    expected = as_image(clip(Image.fromarray(noise)))
    framed, _ = preprocess(as_image(noise), None, 32, "center")
    assert (framed - expected).abs().max() < 2.5 / 255  # Pillow rounds to 8 bits, twice


def test_squash_and_pad_are_pillows():
    noise = np.random.default_rng(0).integers(80, 176, (60, 40, 3), dtype=np.uint8)
    picture = Image.fromarray(noise)
    framed, _ = preprocess(as_image(noise), None, 30, "squash")
    expected = as_image(picture.resize((30, 30), Image.Resampling.BICUBIC))
    assert (framed - expected).abs().max() < 2.5 / 255
    framed, region = preprocess(as_image(noise), torch.ones(1, 1, 60, 40), 30, "pad")
    expected = as_image(picture.resize((20, 30), Image.Resampling.BICUBIC))
    assert (framed[..., 5:25] - expected).abs().max() < 2.5 / 255
    assert (framed[..., :5] == 0.5).all() and (framed[..., 25:] == 0.5).all()
    assert (region[..., :5] == 0).all() and (region[..., 25:] == 0).all()
    torch.testing.assert_close(region[..., 5:25], torch.ones(1, 1, 30, 20))


def test_downscaling_is_antialiased():
    stripes = (torch.arange(128) % 2).float().expand(1, 1, 128, 128)
    _, region = preprocess(stripes.expand(1, 3, -1, -1), stripes, 16, "squash")
    assert (region - 0.5).abs().max() < 0.05


def test_graded_alpha_keeps_its_levels():
    alpha = torch.tensor([0.2, 0.7, 1.0]).repeat_interleave(30).expand(1, 1, 90, 90)
    _, region = preprocess(torch.zeros(1, 3, 90, 90), alpha, 30, "squash")
    torch.testing.assert_close(region[0, 0, 15, [5, 15, 25]], torch.tensor([0.2, 0.7, 1.0]))


def test_graded_alpha_does_not_ring():
    alpha = torch.tensor([0.2, 0.7]).repeat_interleave(8).expand(1, 1, 16, 16)
    _, region = preprocess(torch.zeros(1, 3, 16, 16), alpha, 40, "squash")
    assert region.min() > 0.2 - 1e-6 and region.max() < 0.7 + 1e-6


@pytest.mark.parametrize("geometry", GEOMETRIES[:3])
def test_a_picture_of_the_right_size_is_left_alone(geometry):
    image, alpha = torch.rand(2, 3, 16, 16), torch.rand(2, 1, 16, 16)
    framed, region = preprocess(image, alpha, 16, geometry)
    assert torch.equal(framed, image) and torch.equal(region, alpha)


@pytest.mark.parametrize("geometry", GEOMETRIES[:3])
@pytest.mark.parametrize("shape", [(1, 1), (1, 300), (300, 1), (3, 400), (7, 5)])
def test_any_aspect_gives_a_square(geometry, shape):
    framed, region = preprocess(torch.rand(1, 3, *shape), torch.ones(1, 1, *shape), 16, geometry)
    assert framed.shape == (1, 3, 16, 16) and region.amax() > 0.99


# Attending everywhere


@pytest.mark.parametrize("geometry", GEOMETRIES[:3])
def test_no_alpha_attends_everywhere_exactly(geometry):
    framed, region = preprocess(torch.rand(2, 3, 20, 50), None, 16, geometry)
    assert torch.equal(region, torch.ones(2, 1, 16, 16)) and framed.shape == (2, 3, 16, 16)


@pytest.mark.parametrize("geometry", GEOMETRIES)
def test_a_full_alpha_map_shows_the_square_picture_as_it_is(geometry):
    image = torch.rand(1, 3, 32, 32)
    framed, region = preprocess(image, torch.ones(1, 1, 32, 32), 32, geometry)
    assert torch.equal(framed, image) and torch.equal(region, torch.ones(1, 1, 32, 32))


# Regions


def test_region_windows_by_hand():
    alpha = alpha_from_box((40, 20, 56, 28), (64, 128))  # 16 wide: 16 + 2 * 2 square at (48, 24)
    assert region_windows(alpha) == [(38, 14, 58, 34)]
    assert region_windows(alpha, margin=0) == [(40, 16, 56, 32)]
    corner = alpha_from_box((120, 0, 128, 8), (64, 128))
    assert region_windows(corner, margin=0.5) == [(112, 0, 128, 16)]  # moved inside
    wide = alpha_from_box((0, 30, 128, 34), (64, 128))
    assert region_windows(wide) == [(0, 0, 128, 64)]  # cut: nothing is left outside to show


def test_a_region_is_cut_out_and_enlarged():
    alpha = alpha_from_box((40, 16, 56, 32), (64, 128))
    framed, region = preprocess(alpha.expand(-1, 3, -1, -1), alpha, 16, "region", margin=0)
    assert torch.equal(framed, torch.ones(1, 3, 16, 16)) and (region == 1).all()


def test_a_wide_region_is_padded_not_squashed():
    alpha = alpha_from_box((0, 0, 64, 16), (16, 64))
    framed, region = preprocess(torch.ones(1, 3, 16, 64), alpha, 16, "region")
    assert (framed[..., :6, :] == 0.5).all() and (region[..., :6, :] == 0).all()
    torch.testing.assert_close(region[..., 6:10, :], torch.ones(1, 1, 4, 16))


def test_a_centered_region_is_in_the_middle_of_gray():
    """In the corner: a quarter of the window, twice as wide as the region, lies in the picture."""
    alpha = alpha_from_box((0, 0, 16, 16), (64, 64))
    framed, region = preprocess(torch.ones(1, 3, 64, 64), alpha, 32, "region-centered", margin=0.5)
    assert (region[..., 8:24, 8:24] == 1).all() and region.sum() == 256
    assert (framed[..., :8, :] == 0.5).all() and (framed[..., :, :8] == 0.5).all()
    assert (framed[..., 8:, 8:] == 1).all()
    inside = alpha_from_box((20, 24, 36, 40), (64, 64))
    image = torch.rand(1, 3, 64, 64)
    for one, other in zip(
        *(preprocess(image, inside, 16, name) for name in ("region", "region-centered")),
        strict=True,
    ):
        assert torch.equal(one, other)


def test_weak_regions_are_part_of_the_window():
    strong, weak = (alpha_from_box((x, 8, x + 8, 16), (64, 64)) for x in (8, 40))
    assert region_windows((strong + 0.2 * weak), margin=0) == [(8, 0, 48, 40)]


def test_several_regions_of_one_picture():
    image = torch.rand(1, 3, 40, 60)
    boxes = torch.cat([alpha_from_box(box, (40, 60)) for box in ((0, 0, 20, 20), (30, 10, 50, 30))])
    framed, region = preprocess(image, boxes, 20, "region", margin=0)
    torch.testing.assert_close(framed, torch.cat([image[..., :20, :20], image[..., 10:30, 30:50]]))
    framed, region = preprocess(image, boxes, 16)
    assert framed.shape == (2, 3, 16, 16) and region.shape == (2, 1, 16, 16)
    assert torch.equal(framed[0], framed[1]) and not torch.equal(region[0], region[1])
    framed, region = preprocess(image.repeat(2, 1, 1, 1), boxes[:1], 16)
    assert torch.equal(region[0], region[1]) and len(framed) == 2


# Gradients


@pytest.mark.parametrize("geometry", GEOMETRIES)
def test_gradients_are_right_for_image_and_alpha(geometry):
    image = ramp(6, 10).requires_grad_()
    alpha = ramp(6, 10)[:, 2:].clone().requires_grad_()
    for size in (4, 9):
        assert torch.autograd.gradcheck(
            lambda i, a, size=size: preprocess(i, a, size, geometry), (image, alpha)
        )


def test_gradients_reach_only_what_is_seen():
    image = torch.full((1, 3, 8, 32), 0.5, requires_grad=True)
    alpha = torch.full((1, 1, 8, 32), 0.5, requires_grad=True)
    framed, region = preprocess(image, alpha, 8, "center")
    (framed.sum() + region.sum()).backward()
    for gradient in (image.grad, alpha.grad):
        assert (gradient[..., 12:20] == 1).all()
        assert (gradient[..., :12] == 0).all() and (gradient[..., 20:] == 0).all()


@pytest.mark.parametrize("value", [0.0, 1.0])
def test_saturated_pixels_still_learn(value):
    image = torch.full((1, 3, 12, 12), value, requires_grad=True)
    framed, _ = preprocess(image, None, 7, "squash")
    framed.mean().backward()
    assert image.grad.sum().item() == pytest.approx(1, abs=1e-5)


def test_bicubic_overshoot_is_cut_off():
    edge = (torch.arange(16) >= 8).float().expand(1, 3, 16, 16)
    framed = resize(edge, (40, 40), "bicubic")
    assert framed.amin() == 0 and framed.amax() == 1


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_follows_the_image(dtype):
    image, alpha = encoded(24, 48)
    framed, region = preprocess(image.to(dtype), alpha, 16)
    expected = preprocess(image, alpha, 16)
    assert framed.dtype == region.dtype == dtype
    torch.testing.assert_close((framed.float(), region.float()), expected, atol=1e-2, rtol=0)


# Pictures


COLORS = np.arange(24, dtype=np.uint8).reshape(2, 4, 3) * 10
PIXELS = torch.from_numpy(COLORS / 255).float().movedim(-1, 0)[None]


@pytest.mark.parametrize(
    "picture",
    [
        COLORS,
        COLORS[None],
        COLORS / 255,
        Image.fromarray(COLORS),
        Image.fromarray(COLORS).convert("RGBA"),
        torch.from_numpy(COLORS).movedim(-1, 0),
        PIXELS,
        PIXELS[0],
        np.dstack([COLORS, np.zeros((2, 4), np.uint8)]),
    ],
)
def test_every_picture_door_gives_the_same_image(picture):
    image = as_image(picture)
    assert image.dtype == torch.float32
    torch.testing.assert_close(image, PIXELS)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "CMYK", "YCbCr", "HSV", "LAB", "F", "I;16"])
def test_pictures_of_any_mode(mode):
    gray = Image.new("L", (4, 2), 255)
    picture = {
        "F": lambda: Image.fromarray(np.ones((2, 4), np.float32)),
        "I;16": lambda: Image.fromarray(np.full((2, 4), 65535, np.uint16)),
        "HSV": lambda: gray.convert("RGB").convert("HSV"),
        "LAB": lambda: Image.new("LAB", (4, 2), (255, 128, 128)),
        "CMYK": lambda: gray.convert("RGB").convert("CMYK"),
        "YCbCr": lambda: gray.convert("RGB").convert("YCbCr"),
    }.get(mode, lambda: gray.convert(mode))()
    assert picture.mode == mode
    torch.testing.assert_close(as_image(picture), torch.ones(1, 3, 2, 4), atol=1 / 255, rtol=0)


def test_a_picture_file_is_turned_upright(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(COLORS).save(tmp_path / "turned.png", exif=exif)
    torch.testing.assert_close(as_image(tmp_path / "turned.png"), PIXELS.rot90(-1, (2, 3)))


def test_a_batch_and_its_gradient_pass_the_door():
    pixels = torch.full((2, 1, 3, 3), 0.5, requires_grad=True)
    as_image(pixels).sum().backward()
    assert (pixels.grad == 3).all()


@pytest.mark.parametrize(
    ("picture", "error", "message"),
    [
        (np.ones((4, 5, 2)), ValueError, r"shape \(4, 5, 2\); expected .* 1, 3 or 4 channels"),
        (torch.ones(1, 8, 8, 3), ValueError, r"\(1, 8, 8, 3\); expected \(batch, channels"),
        (torch.ones(7), ValueError, r"picture has shape \(7,\)"),
        (np.full((4, 5, 3), 200.0), ValueError, "values from 200 to 200"),
        (np.full((4, 5, 3), np.inf), ValueError, "picture has NaN or infinite"),
        (np.ones((4, 5, 3), np.int32), TypeError, "picture has dtype torch.int32"),
        ("nowhere.png", FileNotFoundError, "no picture file at 'nowhere.png'"),
    ],
)
def test_a_bad_picture_is_refused(picture, error, message):
    with pytest.raises(error, match=message):
        as_image(picture)


# Refusals


IMAGE, ALPHA = torch.rand(2, 3, 8, 12), torch.rand(2, 1, 8, 12)


@pytest.mark.parametrize(
    ("image", "alpha", "options", "message"),
    [
        (IMAGE[0], None, {}, r"image has shape \(3, 8, 12\); expected \(batch, 3, height, width\)"),
        (IMAGE.mT[:, :1], None, {}, r"image has shape \(2, 1, 12, 8\)"),
        (IMAGE * 255, None, {}, "image has values from .* Divide 0..255 by 255"),
        (IMAGE * 2 - 1, None, {}, "image has values from -"),
        (IMAGE * float("nan"), None, {}, "image has NaN"),
        (IMAGE, ALPHA[..., :8], {}, "alpha is 8 high and 8 wide but its image is 8 high and 12"),
        (IMAGE, ALPHA.repeat(2, 1, 1, 1)[:3], {}, "alpha has batch 3 but its image has batch 2"),
        (IMAGE, ALPHA[:, 0], {}, "as_alpha_map"),
        (IMAGE[:1], ALPHA[0, 0, 0, 0], {}, r"alpha has shape \(\)"),
        (IMAGE, ALPHA, {"size": 0}, "expected .* both at least 1"),
        (IMAGE, ALPHA, {"geometry": "zoom"}, "geometry is 'zoom'; expected one of .*'center'"),
        (IMAGE, None, {"geometry": "region"}, "'region' needs an alpha map to cut out"),
        (IMAGE, ALPHA * 0, {"geometry": "region"}, "alpha is empty: geometry 'region'"),
        (IMAGE, ALPHA, {"geometry": "region", "margin": -1}, "margin is -1; expected"),
    ],
)
def test_bad_input_is_refused(image, alpha, options, message):
    with pytest.raises(ValueError, match=message):
        preprocess(image, alpha, **options)


def test_what_is_no_tensor_is_refused():
    as_written = inspect.unwrap(preprocess)  # without the tests' type checker, as users call it
    with pytest.raises(TypeError, match=r"image is a Image; expected a tensor. as_image\(\)"):
        as_written(Image.new("RGB", (4, 4)))
    with pytest.raises(TypeError, match=r"alpha is a ndarray; expected a tensor. as_alpha_map\(\)"):
        as_written(IMAGE[:1], np.ones((8, 12)))
