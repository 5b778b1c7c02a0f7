"""Color and opacity change together: warps against known pictures, cuts and colors by hand."""

import pytest
import torch

from alphaclip_gen.augmentation import (
    augment,
    composite,
    cut_out,
    harden,
    jitter,
    random_homographies,
    warp,
)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def half_object(size: int = 16, batch: int = 64) -> tuple[torch.Tensor, torch.Tensor]:
    """A color of 0.2, 0.5, 0.9 at opacity 0.5 everywhere, premultiplied."""
    opacity = torch.full((batch, 1, size, size), 0.5)
    return opacity * torch.tensor([0.2, 0.5, 0.9]).view(1, 3, 1, 1), opacity


# Composites and warps


def test_composite_by_hand() -> None:
    color = torch.full((1, 3, 1, 1), 0.3)  # 0.6 at half opacity
    background = torch.tensor([1.0, 0.0, 0.5]).view(1, 3, 1, 1)
    image = composite(color, torch.full((1, 1, 1, 1), 0.5), background)
    assert torch.allclose(image.flatten(), torch.tensor([0.8, 0.3, 0.55]))


def test_warp_by_the_identity_and_by_a_shift_of_one_pixel() -> None:
    picture = torch.rand(1, 2, 6, 8, generator=seeded())
    identity = torch.eye(3)[None]
    assert torch.allclose(warp(picture, identity), picture, atol=1e-6)
    shift = identity.clone()
    shift[0, 0, 2] = 2 / 8  # one column: the output shows what is to its right
    moved = warp(picture, shift)
    assert torch.allclose(moved[..., :-1], picture[..., 1:], atol=1e-6)
    assert (moved[..., -1] == 0).all()


def test_warp_turns_without_stretching_a_wide_picture() -> None:
    """A quarter turn of a disk in a picture twice as wide as high leaves the disk."""
    y, x = torch.meshgrid(torch.arange(32) - 15.5, torch.arange(64) - 31.5, indexing="ij")
    disk = (x**2 + y**2 < 100).float()[None, None]
    turn = torch.tensor([[[0.0, -0.5, 0.0], [2.0, 0.0, 0.0], [0.0, 0.0, 1.0]]])
    assert torch.allclose(warp(disk, turn), disk, atol=1e-4)


def test_homographies_turn_like_that_too() -> None:
    matrix = random_homographies(64, seeded(), 0.0, 0.0, 90.0, 0.0, aspect=2.0)
    scale = torch.diag(torch.tensor([2.0, 1.0, 1.0]))  # to pixels of a wide picture
    turn = (scale @ matrix @ scale.inverse())[:, :2, :2]
    assert torch.allclose(turn @ turn.mT, torch.eye(2).expand(64, 2, 2), atol=1e-5)
    assert turn[:, 1, 0].abs().max() > 0.5


def test_warp_is_differentiable() -> None:
    picture = torch.rand(2, 1, 5, 5, generator=seeded(), dtype=torch.float64)
    homography = random_homographies(2, seeded(), 0.1, 0.1, 8.0, 0.1).double()
    assert torch.autograd.gradcheck(lambda p: warp(p, homography), picture.requires_grad_())


def test_augment_moves_color_and_opacity_together() -> None:
    opacity = (torch.rand(4, 1, 16, 16, generator=seeded()) > 0.5).float()
    color = opacity * torch.tensor([0.2, 0.5, 0.9]).view(1, 3, 1, 1)
    warped, alpha = augment(color, opacity, seeded(1))
    assert (warped - alpha * torch.tensor([0.2, 0.5, 0.9]).view(1, 3, 1, 1)).abs().max() < 1e-6
    assert (alpha - opacity).abs().max() > 0.1
    again, _ = augment(color, opacity, seeded(1))
    assert torch.equal(warped, again)
    same, _ = augment(color, opacity, seeded(1), strength=0.0)
    assert torch.equal(same, color)


# Hard alpha


def test_harden_by_hand_and_straight_through() -> None:
    opacity = torch.tensor([0.0, 0.2, 0.5, 0.9]).view(1, 1, 1, 4).requires_grad_()
    hard = harden(opacity)
    assert hard.flatten().tolist() == [0, 0, 1, 1]
    assert harden(opacity, threshold=0.1).flatten().tolist() == [0, 1, 1, 1]
    weight = torch.tensor([3.0, -1.0, 2.0, 5.0]).view(1, 1, 1, 4)
    (hard * weight).sum().backward()
    assert torch.equal(opacity.grad, weight)


# Cutout


def test_a_cut_takes_color_and_opacity_alike() -> None:
    color, opacity = half_object()
    cut, alpha = cut_out(color, opacity, seeded(), side=0.5)
    gone = alpha == 0
    assert (cut[gone.expand_as(cut)] == 0).all()
    kept = (~gone).expand_as(cut)
    assert torch.equal(cut[kept], color[kept]) and torch.equal(alpha[~gone], opacity[~gone])
    shown = composite(cut, alpha, torch.ones(1, 3, 1, 1))
    assert (shown[gone.expand_as(cut)] == 1).all()  # the background, not black


def test_a_cut_is_one_rectangle_of_its_size_or_less() -> None:
    """Centers are even over the picture, so of each side 7/16 is inside on average, not 1/2."""
    color, opacity = half_object(size=20, batch=400)
    gone = cut_out(color, opacity, seeded(), side=0.5)[1][:, 0] == 0
    height, width = gone.any(dim=2).sum(dim=1), gone.any(dim=1).sum(dim=1)
    assert torch.equal(gone.sum(dim=(1, 2)), height * width)  # filled
    assert height.max() == width.max() == 10 and height.min() >= 5
    assert gone.float().mean().item() == pytest.approx((7 / 16) ** 2, abs=0.02)


def test_no_cut_draws_nothing() -> None:
    color, opacity = half_object(batch=2)
    generator = seeded()
    before = generator.get_state()
    same = cut_out(color, opacity, generator, side=0.0)
    assert same[0] is color and same[1] is opacity
    assert torch.equal(generator.get_state(), before)


# Color


def test_brightness_adds_one_number_a_picture() -> None:
    image = torch.full((200, 3, 2, 2), 0.5)
    added = jitter(image, seeded(), brightness=0.3, saturation=0.0, contrast=0.0) - image
    assert added.flatten(1).std(dim=1).max() < 1e-6
    assert 0.28 < added.max() <= 0.3 and -0.3 <= added.min() < -0.28


def test_saturation_moves_along_the_way_to_gray() -> None:
    image = torch.tensor([0.3, 0.4, 0.5]).view(1, 3, 1, 1).expand(200, 3, 2, 2)
    changed = jitter(image, seeded(), brightness=0.0, saturation=1.0, contrast=0.0)
    assert torch.allclose(changed.mean(dim=1), torch.tensor(0.4), atol=1e-6)  # gray stays
    factor = (changed[:, 2] - 0.4) / 0.1
    assert factor.min() >= -1e-5 and factor.max() <= 2.0001 and factor.std() > 0.4


def test_contrast_moves_away_from_the_mean_of_the_picture() -> None:
    image = torch.tensor([0.4, 0.6]).view(1, 1, 1, 2).expand(200, 3, 2, 2)
    changed = jitter(image, seeded(), brightness=0.0, saturation=0.0, contrast=0.5)
    assert torch.allclose(changed.mean(dim=(1, 2, 3)), torch.tensor(0.5), atol=1e-6)
    factor = (changed[..., 1] - 0.5) / 0.1
    assert factor.min() >= 0.499 and factor.max() <= 1.501 and factor.std() > 0.2


def test_colors_stay_in_range_and_go_on_learning() -> None:
    image = torch.full((8, 3, 2, 2), 0.95, requires_grad=True)
    changed = jitter(image, seeded(), brightness=0.5, saturation=0.0, contrast=0.0)
    assert changed.min() >= 0 and changed.max() == 1
    changed.sum().backward()
    assert torch.allclose(image.grad, torch.ones(()))  # where it is cut off at 1, too


def test_no_change_draws_nothing() -> None:
    generator = seeded()
    before = generator.get_state()
    image = torch.rand(2, 3, 4, 4)
    assert jitter(image, generator, 0.0, 0.0, 0.0) is image
    assert torch.equal(generator.get_state(), before)
