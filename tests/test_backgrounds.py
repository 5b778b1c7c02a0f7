"""Backgrounds: in range, repeatable, of the kind asked for; the blur against a hand-made one."""

import pytest
import torch

from alphaclip_gen.backgrounds import blurred, random_backgrounds

STYLES = ["flat", "checker", "noise", "mixed", "pixels", "texture", "dream"]


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("style", STYLES)
def test_backgrounds_are_colors_and_repeat_with_the_seed(style) -> None:
    pictures = random_backgrounds(6, (12, 16), seeded(), style)
    assert pictures.shape == (6, 3, 12, 16)
    assert pictures.min() >= 0 and pictures.max() <= 1
    assert torch.equal(pictures, random_backgrounds(6, (12, 16), seeded(), style))
    spread = pictures.flatten(2).std(dim=2).amax(dim=1)
    assert (spread < 1e-6).all() if style == "flat" else (spread > 1e-3).any()
    assert (pictures[0] - pictures[1]).abs().max() > 1e-2


def test_backgrounds_keep_away_from_a_color() -> None:
    white = torch.ones(3)
    near = random_backgrounds(200, (1, 1), seeded()).flatten(1)
    far = random_backgrounds(200, (1, 1), seeded(), avoid=white).flatten(1)
    assert (far - white).norm(dim=1).mean() > (near - white).norm(dim=1).mean() + 0.15


def test_pixels_are_independent_and_even() -> None:
    pixels = random_backgrounds(4, (32, 32), seeded(), "pixels")
    assert pixels.mean().item() == pytest.approx(0.5, abs=0.02)
    assert pixels.std().item() == pytest.approx(12**-0.5, abs=0.02)
    assert correlation_of_neighbors(pixels) == pytest.approx(0.0, abs=0.05)


def test_textures_are_smooth_and_of_natural_color() -> None:
    """Neighbors are alike, and channels vary together, as in photographs."""
    texture = random_backgrounds(16, (32, 32), seeded(), "texture")
    assert correlation_of_neighbors(texture) > 0.8
    red, blue = texture[:, 0].logit().flatten(), texture[:, 2].logit().flatten()
    assert torch.corrcoef(torch.stack([red, blue]))[0, 1] > 0.5


def test_textures_have_the_power_of_their_frequency() -> None:
    """Power falls as frequency^-3: amplitude^2 with decay 1.5 (independent estimate by FFT)."""
    waves = random_backgrounds(200, (32, 32), seeded(), "texture").logit()
    power = torch.fft.rfft2(waves).abs().square().mean(dim=(0, 1))
    assert (power[0, 2] / power[0, 8]).item() == pytest.approx(4.0**3, rel=0.3)


def test_dreams_are_of_three_kinds_under_blur() -> None:
    dreams = random_backgrounds(60, (32, 32), seeded(), "dream")
    roughness = dreams.diff(dim=-1).abs().mean(dim=(1, 2, 3))
    assert roughness.max() > 5 * roughness.min()  # pixels hardly blurred, and smooth textures
    assert torch.equal(dreams, random_backgrounds(60, (32, 32), seeded(), "dream"))


def test_blur_spreads_a_point_by_its_own_deviation() -> None:
    point = torch.zeros(2, 3, 33, 33)
    point[:, :, 16, 16] = 1
    deviation = torch.tensor([1.0, 2.5])
    spread = blurred(point, deviation)
    assert torch.allclose(spread.sum(dim=(2, 3)), torch.ones(2, 3), atol=1e-5)
    place = torch.arange(33.0) - 16
    for axis in (2, 3):
        profile = spread.sum(dim=5 - axis)
        variance = (profile * place.square()).sum(dim=2)
        expected = deviation.square()[:, None].expand(2, 3)
        assert torch.allclose(variance, expected, rtol=0.03)


def test_blur_of_nothing_and_of_even_color_changes_nothing() -> None:
    pictures = torch.rand(2, 3, 9, 7, generator=seeded())
    assert torch.allclose(blurred(pictures, torch.zeros(2)), pictures, atol=1e-6)
    even = torch.full((1, 3, 6, 6), 0.3)
    assert torch.allclose(blurred(even, torch.tensor([4.0])), even, atol=1e-6)


def test_unknown_styles_are_named() -> None:
    with pytest.raises(ValueError, match="style is 'stars'"):
        random_backgrounds(1, (4, 4), seeded(), "stars")


def correlation_of_neighbors(pictures: torch.Tensor) -> float:
    left, right = pictures[..., :-1].flatten(), pictures[..., 1:].flatten()
    return torch.corrcoef(torch.stack([left, right]))[0, 1].item()
