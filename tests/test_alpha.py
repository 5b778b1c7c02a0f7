"""The alpha map: its contract and every operation on it."""

import inspect

import numpy as np
import pytest
import torch
from PIL import Image, ImageFilter

from alphaclip_gen.alpha import check_alpha, feather, grow, invert, union, with_strength
from alphaclip_gen.regions import alpha_from_box, as_alpha_map

GRADED = torch.tensor([[[[0, 0.2, 1], [0, 0.4, 0]]]])

# The contract


def test_check_alpha_returns_the_same_tensor():
    alpha = torch.rand(2, 1, 4, 5)
    assert check_alpha(alpha, torch.rand(2, 3, 4, 5)) is alpha
    assert check_alpha(alpha[:1], torch.rand(2, 3, 4, 5)).shape == (1, 1, 4, 5)


def test_check_alpha_allows_rounding_but_no_more():
    assert check_alpha(torch.full((1, 1, 2, 2), 1.0 + 1e-6)).max() > 1
    with pytest.raises(ValueError, match=r"values from 1.01 to 1.01; expected \[0, 1\]"):
        check_alpha(torch.full((1, 1, 2, 2), 1.01))


@pytest.mark.parametrize(
    ("alpha", "error", "message"),
    [
        (np.ones((1, 1, 2, 2)), TypeError, "alpha is a ndarray; expected a tensor"),
        (torch.ones(2, 4, 4), ValueError, r"\(2, 4, 4\); expected \(batch, 1, height, width\)"),
        (torch.ones(1, 3, 4, 4), ValueError, r"alpha has shape \(1, 3, 4, 4\)"),
        (torch.ones(1, 1, 4, 4, dtype=torch.uint8), TypeError, "alpha has dtype torch.uint8"),
        (torch.ones(1, 1, 0, 4), ValueError, "expected at least one pixel"),
        (torch.full((1, 1, 2, 2), float("nan")), ValueError, "alpha has NaN or infinite values"),
        (torch.full((1, 1, 2, 2), -0.5), ValueError, "values from -0.5 to -0.5"),
        (torch.ones(1, 1, 4, 6), ValueError, "alpha is 4 high and 6 wide but its image is 4 high"),
        (torch.ones(3, 1, 4, 4), ValueError, "alpha has batch 3 but its image has batch 2"),
        (torch.ones(1, 1, 4, 4).to("meta"), ValueError, "alpha is on meta but its image is on cpu"),
    ],
)
def test_check_alpha_refuses(alpha, error, message, monkeypatch):
    if isinstance(alpha, torch.Tensor) and alpha.is_meta:  # a device that has no values to check
        monkeypatch.setitem(
            inspect.unwrap(check_alpha).__globals__, "check_values", lambda *_: None
        )
    with pytest.raises(error, match=message):
        check_alpha(alpha, torch.rand(2, 3, 4, 4))


# Operations


def test_regions_of_different_weight_give_graded_values():
    boxes = alpha_from_box((0, 0, 2, 2), (2, 4)), alpha_from_box((1, 0, 3, 1), (2, 4))
    expected = torch.tensor([[[[1, 1, 0.3, 0], [1, 1, 0, 0]]]])
    torch.testing.assert_close(union(boxes, weights=(1, 0.3)), expected)
    torch.testing.assert_close(union(torch.cat(boxes), weights=[1, 0.3]), expected)
    torch.testing.assert_close(
        union(boxes, weights=(0.2, 0.5)),
        torch.tensor([[[[0.2, 0.5, 0.5, 0], [0.2, 0.2, 0, 0]]]]),
    )


def test_union_keeps_grades_batches_and_gradients():
    one, many = GRADED.clone().requires_grad_(), torch.full((2, 1, 2, 3), 0.3)
    both = union([one, many])
    torch.testing.assert_close(both, GRADED.clamp(min=0.3).expand(2, -1, -1, -1))
    both.sum().backward()
    torch.testing.assert_close(one.grad, 2.0 * (GRADED > 0.3))


@pytest.mark.parametrize(
    ("alphas", "weights", "message"),
    [
        ([], None, "got 0 alphas and 0 weights"),
        ([GRADED], [1, 1], "got 1 alphas and 2 weights"),
        ([GRADED], [1.5], r"weights are \[1.5\]; expected numbers in \[0, 1\], not all 0"),
        ([GRADED], [0], "not all 0"),
        ([GRADED, GRADED.mT], None, "expected one size and equal batches"),
        ([GRADED.repeat(2, 1, 1, 1), GRADED.repeat(3, 1, 1, 1)], None, "equal batches"),
    ],
)
def test_a_bad_union_is_refused(alphas, weights, message):
    with pytest.raises(ValueError, match=message):
        union(alphas, weights)


def test_feather_is_the_gaussian_of_numpy():
    alpha = torch.rand(2, 1, 20, 24, generator=torch.Generator().manual_seed(0))
    taps = np.exp(-0.5 * (np.arange(-3, 4) / 1.5) ** 2)
    padded = np.pad(alpha.numpy()[:, 0], ((0, 0), (3, 3), (3, 3)), mode="edge")
    windows = np.lib.stride_tricks.sliding_window_view(padded, (7, 7), axis=(1, 2))
    expected = (windows * np.outer(taps, taps) / taps.sum() ** 2).sum((-1, -2))
    blurred = feather(alpha, 3)[:, 0]
    torch.testing.assert_close(blurred, torch.from_numpy(expected).float())


def test_feather_reaches_its_radius_and_no_further():
    row = feather(alpha_from_box((0, 0, 10, 1), (1, 20)), 4)[0, 0, 0]
    assert row[10 - 5] == 1 and row[10 + 4] == 0 and 0 < row[13] < row[12] < row[7] < 1
    assert (row[9] + row[10]).item() == pytest.approx(1, abs=1e-6)
    torch.testing.assert_close(feather(GRADED, 0), GRADED)
    assert feather(GRADED, 50).shape == GRADED.shape  # wider than the picture


def test_grow_and_shrink_by_hand_and_by_pillow():
    alpha = alpha_from_box((4, 3, 6, 5), (9, 12))
    torch.testing.assert_close(grow(alpha, 2), alpha_from_box((2, 1, 8, 7), (9, 12)))
    torch.testing.assert_close(grow(grow(alpha, 2), -2), alpha)
    noise = np.random.default_rng(0).integers(0, 256, (20, 30), dtype=np.uint8)
    picture = Image.fromarray(noise)
    for pixels, kind in ((2, ImageFilter.MaxFilter), (-2, ImageFilter.MinFilter)):
        expected = as_alpha_map(picture.filter(kind(5)))[..., 2:-2, 2:-2]
        torch.testing.assert_close(grow(as_alpha_map(noise), pixels)[..., 2:-2, 2:-2], expected)


def test_shrinking_spares_the_border_and_never_empties():
    whole = torch.ones(1, 1, 6, 6)
    torch.testing.assert_close(grow(whole, -2), whole)
    with pytest.raises(ValueError, match="alpha narrowed by 3 pixels is empty"):
        grow(alpha_from_box((1, 1, 4, 4), (6, 6)), -3)


def test_invert_and_strength_by_hand():
    torch.testing.assert_close(invert(GRADED), torch.tensor([[[[1, 0.8, 0], [1, 0.6, 1]]]]))
    assert (with_strength(GRADED, 0) == 1).all()
    torch.testing.assert_close(with_strength(GRADED, 1), GRADED)
    half = torch.tensor([[[[0.5, 0.6, 1], [0.5, 0.7, 0.5]]]])
    torch.testing.assert_close(with_strength(GRADED, 0.5), half)


def test_operations_pass_gradients():
    alpha = torch.rand(1, 1, 8, 8, dtype=torch.float64).mul(0.8).add(0.1).requires_grad_()
    for operation in (
        invert,
        lambda a: feather(a, 2),
        lambda a: grow(a, 1),
        lambda a: grow(a, -1),
        lambda a: with_strength(a, 0.3),
    ):
        assert torch.autograd.gradcheck(operation, alpha)


def test_bad_operations_are_refused():
    with pytest.raises(ValueError, match="radius is -1; expected 0 or more pixels"):
        feather(GRADED, -1)
    with pytest.raises(ValueError, match="strength is 2; expected 0"):
        with_strength(GRADED, 2)
    for operation in (invert, lambda a: feather(a, 1), lambda a: grow(a, 1)):
        with pytest.raises(ValueError, match="alpha has NaN"):
            operation(GRADED * float("nan"))
