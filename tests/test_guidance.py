"""Losses by hand, warps against known pictures, and guides that pull the right way."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from alphaclip_gen.guidance import (
    Guidance,
    augment,
    composite,
    contrastive_loss,
    cosine_loss,
    random_backgrounds,
    random_homographies,
    spherical_loss,
    warp,
    weighted,
)


class RegionColor:
    """A tower that sees the mean color of the region; its texts are red, green, blue, gray."""

    logit_scale = 5.0
    words = {  # noqa: RUF012 (a constant)
        "red": [1.0, 0.0, 0.0],
        "green": [0.0, 1.0, 0.0],
        "blue": [0.0, 0.0, 1.0],
        "crimson": [1.0, 0.01, 0.0],
    }

    def embed(self, image: Tensor, alpha: Tensor | None = None) -> Tensor:
        weight = torch.ones_like(image[:, :1]) if alpha is None else alpha
        mean = (image * weight).sum(dim=(2, 3)) / weight.sum(dim=(2, 3)).clamp(min=1e-6)
        return F.normalize(mean + 1e-3, dim=1)

    def embed_texts(self, texts: list[str]) -> Tensor:
        return F.normalize(torch.tensor([self.words[text] for text in texts]), dim=1)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


# Losses


def test_losses_at_known_angles() -> None:
    target = torch.tensor([[1.0, 0.0]])
    right_angle = torch.tensor([[0.0, 1.0]])
    sixty = torch.tensor([[0.5, math.sqrt(0.75)]])
    assert cosine_loss(target, target).item() == 0
    assert cosine_loss(right_angle, target).item() == 1
    assert cosine_loss(torch.cat([target, sixty]), target).item() == pytest.approx(0.25)
    assert spherical_loss(right_angle, target).item() == pytest.approx(math.pi**2 / 8)
    assert spherical_loss(sixty, target).item() == pytest.approx((math.pi / 3) ** 2 / 2)


def test_contrastive_loss_by_hand_and_as_cross_entropy() -> None:
    embedding, target = torch.tensor([[1.0, 0.0]]), torch.tensor([[1.0, 0.0]])
    opposite = torch.tensor([[-1.0, 0.0]])
    assert contrastive_loss(embedding, target, target, 3.0).item() == pytest.approx(math.log(2))
    expected = math.log(1 + math.exp(-2 * 3))
    loss = contrastive_loss(embedding, target, opposite, 3.0).item()
    assert loss == pytest.approx(expected, rel=1e-3)

    random = F.normalize(torch.randn(9, 4, generator=seeded()), dim=1)
    ours = contrastive_loss(random[:3], random[3:4], random[4:], 7.0)
    theirs = F.cross_entropy(7.0 * random[:3] @ random[3:].T, torch.zeros(3, dtype=torch.long))
    assert ours.item() == pytest.approx(theirs.item(), rel=1e-5)


@pytest.mark.parametrize("loss", [cosine_loss, spherical_loss])
def test_losses_have_right_finite_gradients(loss) -> None:
    random = torch.randn(3, 4, generator=seeded(), dtype=torch.float64)
    embedding, target = F.normalize(random[:2], dim=1), F.normalize(random[2:], dim=1)
    assert torch.autograd.gradcheck(lambda e: loss(e, target), embedding.requires_grad_())
    for at in (target, -target):
        at = at.clone().requires_grad_()
        loss(at, target).backward()
        assert at.grad.isfinite().all()


# Pictures


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


@pytest.mark.parametrize("style", ["flat", "checker", "noise", "mixed"])
def test_backgrounds_are_colors_and_repeat_with_the_seed(style) -> None:
    pictures = random_backgrounds(6, (12, 16), seeded(), style)
    assert pictures.shape == (6, 3, 12, 16)
    assert pictures.min() >= 0 and pictures.max() <= 1
    assert torch.equal(pictures, random_backgrounds(6, (12, 16), seeded(), style))
    spread = pictures.flatten(2).std(dim=2).amax(dim=1)
    assert (spread < 1e-6).all() if style == "flat" else (spread > 1e-3).any()


def test_backgrounds_keep_away_from_a_color() -> None:
    white = torch.ones(3)
    near = random_backgrounds(200, (1, 1), seeded()).flatten(1)
    far = random_backgrounds(200, (1, 1), seeded(), avoid=white).flatten(1)
    assert (far - white).norm(dim=1).mean() > (near - white).norm(dim=1).mean() + 0.15


# Guides


def test_a_step_against_the_gradient_lowers_the_loss() -> None:
    guide = Guidance(RegionColor(), "red", ["green", "blue"])
    image = torch.rand(2, 3, 8, 8, generator=seeded()).requires_grad_()
    loss = guide(image)
    loss.backward()
    with torch.no_grad():
        assert guide(image - 5 * image.grad) < loss
    assert (image.grad[:, 0] < 0).all() and (image.grad[:, 1:] > 0).all()


def test_alpha_gets_a_gradient_toward_the_right_region() -> None:
    """Left half red, right half green: attention must move to the left."""
    image = torch.zeros(1, 3, 4, 8)
    image[:, 0, :, :4] = image[:, 1, :, 4:] = 1
    alpha = torch.full((1, 1, 4, 8), 0.5, requires_grad=True)
    Guidance(RegionColor(), "red")(image, alpha).backward()
    assert (alpha.grad[..., :4] < 0).all() and (alpha.grad[..., 4:] > 0).all()


def test_a_picture_in_five_lines_becomes_what_is_asked() -> None:
    picture = torch.zeros(1, 4, 8, 8, requires_grad=True)
    optimizer = torch.optim.Adam([picture], lr=0.3)
    guide = Guidance(RegionColor(), "blue", ["red", "green"])
    before = guide.score(torch.full((1, 3, 8, 8), 0.5)).item()
    for _ in range(20):
        color, opacity = picture[:, :3].sigmoid(), picture[:, 3:].sigmoid()
        loss = guide(composite(color * opacity, opacity, torch.ones(1, 3, 1, 1)), opacity)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    red, green, blue = picture.detach()[0, :3].sigmoid().mean(dim=(1, 2))
    assert blue > 0.9 and red < 0.2 and green < 0.2
    assert guide.score(picture[:, :3].sigmoid()).item() > before + 0.3


def test_which_loss_auto_is() -> None:
    assert Guidance(RegionColor(), "red").loss == "cosine"
    assert Guidance(RegionColor(), "red", ["blue"]).loss == "contrastive"
    image = torch.rand(2, 3, 4, 4, generator=seeded())
    encoder, texts = RegionColor(), ["red", "blue"]
    target, negative = encoder.embed_texts(texts).split(1)
    embedding = encoder.embed(image)
    both = contrastive_loss(embedding, target, negative, 5.0) + 0.5 * cosine_loss(embedding, target)
    guide = Guidance(encoder, "red", ["blue"], cosine_weight=0.5)
    assert guide(image).item() == pytest.approx(both.item())
    spherical = Guidance(encoder, "red", loss="spherical")
    assert spherical(image).item() == pytest.approx(spherical_loss(embedding, target).item())


def test_score_is_a_probability_with_negatives_and_a_cosine_without() -> None:
    red = torch.zeros(1, 3, 2, 2)
    red[:, 0] = 1
    assert Guidance(RegionColor(), "red").score(red).item() == pytest.approx(1.0, abs=1e-4)
    score = Guidance(RegionColor(), "red", ["green", "blue"]).score(red).item()
    assert score == pytest.approx(math.exp(5) / (math.exp(5) + 2), abs=1e-4)


def test_negatives_that_say_the_same_are_left_out() -> None:
    assert Guidance(RegionColor(), "red", ["red", "crimson", "blue"]).texts == ["red", "blue"]


def test_weighted_guides_add_up() -> None:
    red, blue = Guidance(RegionColor(), "red"), Guidance(RegionColor(), "blue")
    image = torch.rand(1, 3, 4, 4, generator=seeded())
    both = weighted([red, blue], [1.0, 0.5])(image, None)
    assert both.item() == pytest.approx((red(image) + 0.5 * blue(image)).item())


# Bad input


def test_bad_arguments_are_named() -> None:
    with pytest.raises(ValueError, match="prompt is empty"):
        Guidance(RegionColor(), "  ")
    with pytest.raises(ValueError, match="without negatives"):
        Guidance(RegionColor(), "red", loss="contrastive")
    with pytest.raises(ValueError, match="loss is 'l2'"):
        Guidance(RegionColor(), "red", loss="l2")
    with pytest.raises(ValueError, match="style is 'stars'"):
        random_backgrounds(1, (4, 4), seeded(), "stars")
    with pytest.raises(ValueError, match="weights has 2 values for 1 guides"):
        weighted([Guidance(RegionColor(), "red")], [1.0, 2.0])
