"""Every door into the alpha map, and every refusal."""

import inspect
import logging

import numpy as np
import pytest
import torch
from PIL import Image

from alphaclip_gen.alpha import union
from alphaclip_gen.pictures import open_picture
from alphaclip_gen.regions import (
    alpha_from_box,
    alpha_from_comfy_mask,
    alpha_from_points,
    alpha_from_rgba,
    alpha_from_strokes,
    as_alpha_map,
)

GRADED = np.array([[0, 51, 255], [0, 102, 0]], dtype=np.uint8)
EXPECTED = torch.tensor([[[[0, 0.2, 1], [0, 0.4, 0]]]])


def supersampled(inside, size, times=64):
    """Share of each pixel's sub-samples inside a shape: an independent, brute-force coverage."""
    height, width = size
    y = (torch.arange(height * times) + 0.5)[:, None] / times
    x = (torch.arange(width * times) + 0.5) / times
    return inside(x, y).float().reshape(height, times, width, times).mean((1, 3))


# Masks


@pytest.mark.parametrize(
    "mask",
    [
        GRADED,
        GRADED[:, :, None],
        GRADED[None, None],
        GRADED.astype(np.uint16) * 257,
        (GRADED.astype(np.uint16) * 257).astype(">u2"),
        (GRADED / 255).astype(np.float64),
        GRADED[::-1].copy()[::-1],
        torch.from_numpy(GRADED),
        torch.from_numpy(GRADED)[..., None],
        torch.from_numpy(GRADED / 255),
        Image.fromarray(GRADED),
        Image.fromarray(GRADED).convert("RGB"),
        Image.fromarray(GRADED).convert("RGBA"),
        Image.fromarray((GRADED / 255).astype(np.float32)),
        Image.fromarray(GRADED.astype(np.uint16) * 257),
    ],
)
def test_every_mask_door_gives_the_same_graded_map(mask):
    alpha = as_alpha_map(mask, size=(2, 3))
    assert alpha.dtype == torch.float32
    torch.testing.assert_close(alpha, EXPECTED)


@pytest.mark.parametrize("mode", ["1", "L", "RGB", "P"])
def test_a_mask_file_is_read(tmp_path, mode):
    Image.fromarray(GRADED).point(lambda v: 255 * (v > 99)).convert(mode).save(tmp_path / "m.png")
    expected = torch.tensor([[[[0.0, 0, 1], [0, 1, 0]]]])
    torch.testing.assert_close(as_alpha_map(tmp_path / "m.png"), expected)
    torch.testing.assert_close(as_alpha_map(str(tmp_path / "m.png")), expected)


def test_a_mask_file_is_turned_upright(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was held so that the picture must be turned clockwise
    Image.fromarray(GRADED).save(tmp_path / "m.png", exif=exif)
    expected = EXPECTED.rot90(-1, (2, 3))
    torch.testing.assert_close(as_alpha_map(tmp_path / "m.png"), expected)


def test_bool_masks_and_batches():
    masks = np.array([[[True, False]], [[True, True]]])
    expected = torch.tensor([[[[1.0, 0]]], [[[1, 1]]]])
    torch.testing.assert_close(as_alpha_map(masks), expected)
    torch.testing.assert_close(as_alpha_map(torch.from_numpy(masks)), expected)


def test_the_mask_of_a_tensor_keeps_its_gradient():
    mask = torch.full((2, 2), 0.5, requires_grad=True)
    as_alpha_map(mask).sum().backward()
    torch.testing.assert_close(mask.grad, torch.ones(2, 2))


@pytest.mark.parametrize(
    ("mask", "error", "message"),
    [
        (np.zeros((4, 5), bool), ValueError, "mask is empty: all zeros leave nothing to attend to"),
        (np.zeros((4, 5), bool), ValueError, "attend everywhere, pass alpha=None"),
        (torch.zeros(2, 4, 5), ValueError, r"empty \(number \[0, 1\]"),
        (np.ones((4, 5), np.uint8), ValueError, "only 0 and 1 as integers; expected 0..255"),
        (np.ones((4, 5), np.uint16), ValueError, "only 0 and 1 as integers; expected 0..65535"),
        (np.ones((4, 5), np.int64), TypeError, "mask has dtype torch.int64; expected bool"),
        (np.full((4, 5), 255.0), ValueError, r"values from 255 to 255; .* Divide 0..255 by 255"),
        (np.full((4, 5), np.nan), ValueError, "mask has NaN or infinite"),
        (np.ones((4, 5, 3)), ValueError, r"shape \(4, 5, 3\); expected one channel"),
        (torch.ones(2, 3, 4, 5), ValueError, r"shape \(2, 3, 4, 5\); expected one channel"),
        (torch.ones(5), ValueError, r"shape \(5,\); expected one channel"),
        (np.ones((0, 5)), ValueError, "expected at least one pixel"),
        (Image.new("RGB", (5, 4), (255, 0, 0)), ValueError, r"\(4, 5, 3\); expected one channel"),
        (Image.new("RGBA", (5, 4)), ValueError, "alpha_from_rgba"),
        (np.ones((5, 4)), ValueError, "mask is 5 high and 4 wide; expected 4 high and 5 wide"),
    ],
)
def test_a_bad_mask_is_refused(mask, error, message):
    with pytest.raises(error, match=message):
        as_alpha_map(mask, size=(4, 5))


def test_what_is_no_mask_at_all_is_refused():
    as_written = inspect.unwrap(as_alpha_map)  # without the tests' type checker, as users call it
    with pytest.raises(TypeError, match="mask is a list; expected a PIL picture, numpy array"):
        as_written([[0, 1]])


@pytest.mark.parametrize("size", [(0, 4), (4, -1)])
def test_a_bad_size_is_refused(size):
    with pytest.raises(ValueError, match=r"expected \(height, width\), both at least 1"):
        alpha_from_box((0.0, 0.0, 0.5, 0.5), size)


def test_missing_and_unreadable_pictures(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no picture file at .*nothing\.png"):
        open_picture(tmp_path / "nothing.png")
    with pytest.raises(FileNotFoundError, match="no picture file at"):
        open_picture(tmp_path)
    (tmp_path / "text.png").write_text("not a picture")
    with pytest.raises(ValueError, match=r"cannot read .*text\.png"):
        open_picture(tmp_path / "text.png")
    noise = np.random.default_rng(0).integers(0, 256, (64, 64), dtype=np.uint8)
    Image.fromarray(noise).save(tmp_path / "whole.png")
    (tmp_path / "cut.png").write_bytes((tmp_path / "whole.png").read_bytes()[:2000])
    with pytest.raises(ValueError, match=r"cannot read .*cut\.png"):
        as_alpha_map(tmp_path / "cut.png")


# RGBA and ComfyUI


@pytest.mark.parametrize("kind", ["array", "tensor", "picture", "file"])
def test_alpha_from_rgba_keeps_colors_and_grades(tmp_path, kind):
    rgba = np.dstack([np.full((2, 3), 255, np.uint8), GRADED, GRADED // 2, GRADED])
    Image.fromarray(rgba).save(tmp_path / "p.png")
    picture = {
        "array": rgba,
        "tensor": torch.from_numpy(rgba).movedim(-1, 0),
        "picture": Image.fromarray(rgba),
        "file": tmp_path / "p.png",
    }[kind]
    image, alpha = alpha_from_rgba(picture)
    torch.testing.assert_close(alpha, EXPECTED)
    torch.testing.assert_close(image[:, 1:2], EXPECTED)
    assert image.shape == (1, 3, 2, 3) and (image[:, 0] == 1).all()


def test_alpha_from_rgba_refuses():
    with pytest.raises(ValueError, match=r"3 channels; expected 4 \(RGB and transparency\)"):
        alpha_from_rgba(Image.new("RGB", (4, 4)))
    with pytest.raises(ValueError, match="the picture's transparency is empty"):
        alpha_from_rgba(Image.new("RGBA", (4, 4)))


def test_a_comfy_mask_is_an_alpha_map():
    torch.testing.assert_close(alpha_from_comfy_mask(EXPECTED[0, 0]), EXPECTED)
    torch.testing.assert_close(alpha_from_comfy_mask(EXPECTED[0], size=(2, 3)), EXPECTED)


def test_an_all_zero_comfy_mask_means_no_region_given(caplog):
    with caplog.at_level(logging.WARNING):
        alpha = alpha_from_comfy_mask(torch.zeros(1, 64, 64), size=(30, 40))
    assert alpha.shape == (1, 1, 30, 40) and (alpha == 1).all()
    assert "no region given" in caplog.text


def test_one_all_zero_comfy_mask_of_a_batch(caplog):
    masks = torch.stack([torch.zeros(2, 3), EXPECTED[0, 0]])
    alpha = alpha_from_comfy_mask(masks, size=(2, 3))
    torch.testing.assert_close(alpha, torch.cat([torch.ones(1, 1, 2, 3), EXPECTED]))
    assert "no region given" in caplog.text and masks[0].sum() == 0


def test_a_bad_comfy_mask_is_refused():
    with pytest.raises(ValueError, match="mask is 2 high and 3 wide; expected 4 high and 4 wide"):
        alpha_from_comfy_mask(EXPECTED[0], size=(4, 4))
    with pytest.raises(ValueError, match="expected a ComfyUI MASK"):
        alpha_from_comfy_mask(EXPECTED)
    with pytest.raises(ValueError, match="mask has NaN"):
        alpha_from_comfy_mask(EXPECTED[0] * float("nan"))


# Boxes


def test_a_box_by_hand():
    alpha = alpha_from_box((1, 0, 3, 1), (2, 4))
    torch.testing.assert_close(alpha, torch.tensor([[[[0.0, 1, 1, 0], [0, 0, 0, 0]]]]))
    alpha = alpha_from_box((0.25, 0.0, 0.6875, 0.75), (2, 4))  # pixels (1, 0, 2.75, 1.5)
    expected = torch.tensor([[[[0, 1, 0.75, 0], [0, 0.5, 0.375, 0]]]])
    torch.testing.assert_close(alpha, expected)


def test_a_box_covers_as_much_as_brute_force_says():
    x0, y0, x1, y1 = 2.25, 1.5, 2.75, 6.125
    inside = supersampled(lambda x, y: (x > x0) & (x < x1) & (y > y0) & (y < y1), (8, 9))
    torch.testing.assert_close(alpha_from_box((x0, y0, x1, y1), (8, 9))[0, 0], inside)


@pytest.mark.parametrize(
    "box",
    [
        (2, 1, 6, 3),
        [2.0, 1.0, 6.0, 3.0],
        np.array([2, 1, 6, 3], dtype=np.uint8),
        torch.tensor([2.0, 1.0, 6.0, 3.0]),
        (0.25, 0.25, 0.75, 0.75),
        torch.tensor([0.25, 0.25, 0.75, 0.75]),
    ],
)
def test_pixels_and_fractions_are_told_apart(box):
    alpha = alpha_from_box(box, (4, 8))
    assert alpha.sum() == 8 and (alpha[0, 0, 1:3, 2:6] == 1).all()


def test_the_unit_can_be_said():
    assert alpha_from_box((0, 0, 1, 1), (4, 8), unit="pixels").sum() == 1
    assert alpha_from_box((0, 0, 1, 1), (4, 8), unit="fractions").sum() == 32
    assert alpha_from_box((0.0, 0.0, 0.5, 1.0), (4, 8), unit="pixels").sum() == 0.5


@pytest.mark.parametrize(
    ("box", "error", "message"),
    [
        ((0, 0, 1, 1), ValueError, "could be pixels or fractions of the picture; say unit="),
        ((0.1, 0.1, 1.2, 0.9), ValueError, "could be pixels or fractions"),
        ((2, 2, 9, 4), ValueError, r"box \(2, 2, 9, 4\) in pixels leaves the picture"),
        ((-1, 0, 3, 3), ValueError, "leaves the picture, which is 4 high and 8 wide"),
        ((-0.1, 0.0, 0.5, 0.5), ValueError, "in fractions leaves the picture"),
        ((6, 1, 2, 3), ValueError, "has no area; .* x0 < x1 and y0 < y1"),
        ((0.2, 0.9, 0.4, 0.1), ValueError, "has no area"),
        ((3, 1, 3, 4), ValueError, "has no area"),
        ((0.1, float("nan"), 0.5, 0.5), ValueError, "box has NaN or infinite"),
        ((1, 2, 3), ValueError, r"box has shape \(3,\); expected \(4,\)"),
        ([[0, 0, 2, 2], [2, 2, 4, 4]], ValueError, r"box has shape \(2, 4\)"),
        (("a", "b", "c", "d"), TypeError, "expected numbers in pixels or fractions"),
        ([(0, 1), (2,)], TypeError, "expected numbers in pixels or fractions"),
    ],
)
def test_a_bad_box_is_refused(box, error, message):
    with pytest.raises(error, match=message):
        alpha_from_box(box, (4, 8))


def test_an_unknown_unit_is_refused():
    with pytest.raises(ValueError, match="unit is 'percent'; expected 'pixels', 'fractions'"):
        alpha_from_box((0, 0, 50, 50), (4, 8), unit="percent")


# Points and strokes


def test_a_soft_disc_by_hand():
    alpha = alpha_from_points((5.5, 5.5), 4, (11, 11), softness=1)[0, 0]  # 1 to 2 px, 0 from 6 px
    torch.testing.assert_close(alpha[5, 5:], torch.tensor([1, 1, 1, 0.75, 0.5, 0.25]))
    torch.testing.assert_close(alpha, alpha.T)
    torch.testing.assert_close(alpha, alpha.flip(0))


def test_a_hard_disc_covers_as_much_as_brute_force_says():
    disc = alpha_from_points((7.3, 6.1), 4.6, (13, 15), softness=0)[0, 0]
    inside = supersampled(lambda x, y: (x - 7.3) ** 2 + (y - 6.1) ** 2 < 4.6**2, (13, 15))
    assert (disc - inside).abs().max() < 0.06
    assert disc.sum().item() == pytest.approx(np.pi * 4.6**2, rel=1e-2)


def test_several_points_in_pixels_and_fractions():
    alpha = alpha_from_points([(4, 4), (16, 4)], 2, (8, 20))
    assert alpha[0, 0, 4, 4] == alpha[0, 0, 4, 16] == 1 and alpha[0, 0, 4, 10] == 0
    fractions = alpha_from_points(torch.tensor([[0.2, 0.5], [0.8, 0.5]]), 0.25, (8, 20))
    torch.testing.assert_close(fractions, alpha)


def test_a_point_in_the_corner_is_cut_by_the_border():
    alpha = alpha_from_points((0.0, 0.0), 0.5, (10, 10), softness=0)
    assert alpha.sum().item() == pytest.approx(np.pi * 25 / 4, rel=0.02)


@pytest.mark.parametrize(
    ("points", "radius", "message"),
    [
        ((12, 3), 2, r"point \(12, 3\) is outside the picture, which is 8 high and 10 wide"),
        ([(2, 2), (-1, 3)], 2, r"point \(-1, 3\) is outside"),
        ((0.5, float("nan")), 0.1, "points has NaN"),
        ((0, 0), 2, "could be pixels or fractions"),
        ((1, 2, 3), 2, r"points has shape \(3,\); expected \(2,\) or \(points, 2\)"),
        ([], 2, r"points has shape \(0,\)|points has shape \(1, 0\)"),
        ((5, 5), 0, "radius is 0 in pixels, .* expected 1 to 20 pixels"),
        ((5, 5), -3, "radius is -3 in pixels"),
        ((5, 5), float("nan"), "radius is nan in pixels"),
        ((5, 5), 0.2, "radius is 0.2 in pixels, the unit of its points"),
        ((0.5, 0.5), 4, "radius is 4 in fractions, the unit of its points: 32 pixels"),
    ],
)
def test_bad_points_are_refused(points, radius, message):
    with pytest.raises(ValueError, match=message):
        alpha_from_points(points, radius, (8, 10))


def test_a_bad_softness_is_refused():
    with pytest.raises(ValueError, match="softness is 3; expected a number of radii from 0 to 2"):
        alpha_from_points((5, 5), 2, (8, 10), softness=3)


def test_a_stroke_by_hand():
    alpha = alpha_from_strokes([(2, 2.5), (7, 2.5)], 3, (6, 10))[0, 0]
    assert (alpha[1:4, 2:7] == 1).all() and (alpha[[0, 4], 2:7] == 0).all()
    assert (alpha[:, [0, 9]] < 1).all()


def test_a_stroke_covers_as_much_as_brute_force_says():
    a, b = torch.tensor([3.2, 3.7]), torch.tensor([12.4, 8.9])

    def inside(x, y):
        along = ((x - a[0]) * (b - a)[0] + (y - a[1]) * (b - a)[1]) / (b - a).square().sum()
        along = along.clamp(0, 1)
        nearest = a[0] + along * (b - a)[0], a[1] + along * (b - a)[1]
        return (x - nearest[0]) ** 2 + (y - nearest[1]) ** 2 < 2.5**2

    alpha = alpha_from_strokes(torch.stack([a, b]), 5, (13, 16))[0, 0]
    assert (alpha - supersampled(inside, (13, 16))).abs().max() < 0.09


def test_several_strokes_of_unequal_length_are_not_joined():
    alpha = alpha_from_strokes([[(2, 2), (2, 8)], [(8, 2), (8, 5), (8, 8)], [(5, 18)]], 2, (20, 10))
    one_by_one = [
        alpha_from_strokes([(2, 2), (2, 8)], 2, (20, 10)),
        alpha_from_strokes([(8, 2), (8, 8)], 2, (20, 10)),
        alpha_from_points((5, 18), 1, (20, 10), softness=0),
    ]
    torch.testing.assert_close(alpha, union(one_by_one))
    assert alpha[0, 0, 5, 5] == 0


@pytest.mark.parametrize(
    ("strokes", "width", "error", "message"),
    [
        ([], 2, ValueError, r"strokes has shape \(0,\); expected \(points, 2\)"),
        ([[]], 2, ValueError, "strokes has shape"),
        ([(1, 2, 3), (4, 5, 6)], 2, ValueError, r"strokes has shape \(2, 3\)"),
        ([(2, 2), (3,)], 2, TypeError, "strokes is .*; expected numbers"),
        ([(2, 2), (30, 3)], 2, ValueError, r"stroke point \(30, 3\) is outside the picture"),
        ([(2, 2), (3, 3)], 0.5, ValueError, "width is 0.5 in pixels, the unit of its points"),
    ],
)
def test_bad_strokes_are_refused(strokes, width, error, message):
    with pytest.raises(error, match=message):
        alpha_from_strokes(strokes, width, (8, 10))
