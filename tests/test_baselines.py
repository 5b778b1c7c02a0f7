"""The baselines on pictures small enough to work out by hand."""

import copy

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import CLIPImageProcessor

from alphaclip_gen.baselines import (
    BASELINES,
    BaselineImageProcessor,
    attends_everywhere,
    blur_outside,
    crop_to_region,
    flatten,
    gray_outside,
    red_circle,
)


@pytest.fixture
def image():
    return torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def alpha():
    alpha = torch.zeros(2, 1, 16, 16)
    alpha[0, :, 4:8, 4:8] = 1
    alpha[1, :, 8:12, 10:14] = 1
    return alpha


@pytest.mark.parametrize("name", BASELINES)
def test_attending_everywhere_returns_the_image_itself(name, image):
    assert BASELINES[name](image, torch.ones(2, 1, 16, 16)) is image


@pytest.mark.parametrize("name", BASELINES)
def test_a_region_changes_the_image_within_range(name, image, alpha):
    changed = BASELINES[name](image, alpha)
    assert changed.shape == image.shape
    assert changed.min() >= 0 and changed.max() <= 1
    assert (changed - image).abs().max() > 0.1


def test_crop_by_hand(image, alpha):
    """Without margin the two 4 x 4 regions, four times as large; their means are kept."""
    cropped = crop_to_region(image, alpha, margin=0)
    wanted = torch.stack([image[0, :, 4:8, 4:8], image[1, :, 8:12, 10:14]])
    from_large = torch.nn.functional.interpolate(
        wanted, (16, 16), mode="bicubic", antialias=True
    ).clamp(0, 1)
    torch.testing.assert_close(cropped, from_large)


@pytest.mark.parametrize("baseline", [blur_outside, gray_outside, red_circle])
def test_the_region_keeps_its_pixels(baseline, image, alpha):
    changed = baseline(image, alpha)
    inside = alpha.expand(-1, 3, -1, -1) == 1
    torch.testing.assert_close(changed[inside], image[inside])


def test_gray_by_hand():
    image = torch.full((1, 3, 1, 2), 0.9)
    alpha = torch.tensor([0.25, 0.0]).view(1, 1, 1, 2)
    by_hand = [0.25 * 0.9 + 0.75 * 0.5, 0.5]
    assert gray_outside(image, alpha)[0, 0, 0].tolist() == pytest.approx(by_hand)


def test_blur_evens_out_what_is_outside(image, alpha):
    blurred = blur_outside(image, alpha, radius=0.4)
    outside = alpha.expand(-1, 3, -1, -1) == 0
    assert blurred[outside].std() < 0.4 * image[outside].std()
    assert blurred[outside].mean() == pytest.approx(image[outside].mean().item(), abs=0.03)


def test_the_red_circle_runs_through_the_corners_of_the_region():
    """The region is the square (8, 8) to (24, 24): center 16, radius 8 sqrt 2 = 11.3."""
    alpha = torch.zeros(1, 1, 32, 32)
    alpha[..., 8:24, 8:24] = 1
    changed = red_circle(torch.zeros(1, 3, 32, 32), alpha, thickness=2 / 32)
    y, x = (changed[0, 0] > 0.5).nonzero(as_tuple=True)
    distance = torch.hypot(x + 0.5 - 16, y + 0.5 - 16)
    assert distance.min() >= 8 * 2**0.5 - 0.8 and distance.max() <= 8 * 2**0.5 + 2.8
    assert (
        len({int(torch.atan2(a - 15.5, b - 15.5) // 0.4) for a, b in zip(y, x, strict=True)}) == 16
    )
    assert not changed[:, 1:].any()


def test_flatten_takes_pictures_tensors_and_lists():
    pixels = np.full((4, 4, 4), 200, dtype=np.uint8)
    pixels[..., 3] = [255, 255, 0, 0]
    picture = Image.fromarray(pixels, "RGBA")
    plain = Image.new("RGB", (4, 4))
    flat, same = flatten([picture, plain], gray_outside)
    assert same is plain and flat.mode == "RGB"
    assert [flat.getpixel((x, 0))[0] for x in range(4)] == [200, 200, 128, 128]
    tensor = torch.from_numpy(pixels).movedim(-1, 0) / 255
    assert flatten(tensor, gray_outside)[0, 0].tolist() == pytest.approx(
        [200 / 255] * 2 + [0.5] * 2
    )


def test_a_processor_behind_a_baseline():
    stock = CLIPImageProcessor(size={"shortest_edge": 8}, crop_size={"height": 8, "width": 8})
    wrapped = BaselineImageProcessor(stock, gray_outside)
    picture = Image.effect_noise((16, 16), 90).convert("RGBA")
    expected = stock(picture.convert("RGB"), return_tensors="pt").pixel_values
    assert torch.equal(wrapped(picture, return_tensors="pt").pixel_values, expected)
    picture.putalpha(Image.linear_gradient("L").resize((16, 16)))
    focused = copy.copy(wrapped).preprocess(picture, return_tensors="pt").pixel_values
    assert (focused - expected).abs().max() > 0.1
    assert wrapped.crop_size == stock.crop_size


def test_alpha_of_another_size_is_refused(image):
    with pytest.raises(ValueError, match=r"alpha is 8 high .* image is 16 high"):
        attends_everywhere(image, torch.ones(1, 1, 8, 8))
