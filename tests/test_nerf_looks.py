"""Looks: their number, that color and opacity stay together, and what alpha is made of them."""

import torch

from looks import AugmentSettings, looks

STILL = AugmentSettings(strength=0.0)
HARSH = AugmentSettings(
    copies=8, shift=0.25, zoom=0.2, rotation=20.0, perspective=0.2, cutout=0.5,
    brightness=0.5, saturation=1.0, contrast=0.5, background="dream",
)  # fmt: skip


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def two_views(size: int = 16) -> tuple[torch.Tensor, torch.Tensor]:
    """A red disk and a larger blue one, premultiplied color and opacity."""
    axis = torch.linspace(-1, 1, size)
    distance = (axis.square() + axis.square()[:, None]).sqrt()
    opacity = torch.stack([(distance < 0.4).float(), (distance < 0.7).float()])[:, None]
    paint = torch.tensor([[1.0, 0, 0], [0, 0, 1.0]]).view(2, 3, 1, 1)
    return opacity * paint, opacity


def test_without_changes_it_is_the_object_on_a_flat_color() -> None:
    color, opacity = two_views()
    image, alpha = looks(color, opacity, STILL, seeded())
    assert torch.equal(alpha, opacity)
    assert torch.allclose(image * opacity, color)
    outside = image[0, :, opacity[0, 0] == 0]
    assert outside.std(dim=1).max() < 1e-6 and outside.min() >= 0 and outside.max() <= 1


def test_copies_are_of_each_view_in_turn_and_all_different() -> None:
    color, opacity = two_views()
    image, alpha = looks(color, opacity, AugmentSettings(copies=3), seeded())
    assert image.shape == (6, 3, 16, 16) and alpha.shape == (6, 1, 16, 16)
    area = alpha.mean(dim=(1, 2, 3))
    assert area[:3].max() < area[3:].min()  # the small disk first
    assert len({round(x, 6) for x in area.tolist()}) == 6
    assert len({tuple(corner.tolist()) for corner in image[:, :, 0, 0]}) == 6


def test_every_change_at_once_keeps_color_and_opacity_together() -> None:
    """Pictures and alphas are in range; where nothing is opaque, nothing of the object shows."""
    color, opacity = two_views()
    image, alpha = looks(color, opacity, HARSH, seeded())
    assert image.shape == (16, 3, 16, 16)
    assert image.min() >= 0 and image.max() <= 1 and alpha.min() >= 0 and alpha.max() <= 1 + 1e-5
    bare = AugmentSettings(**{**vars(HARSH), "brightness": 0.0, "saturation": 0.0, "contrast": 0.0})
    red, _ = looks(color, opacity, bare, seeded())
    green, alpha = looks(color.roll(1, dims=1), opacity, bare, seeded())
    empty = alpha[:, 0] == 0
    assert 0.2 < empty.float().mean() < 0.98
    differs = (red - green).abs().amax(dim=1)
    assert (differs[empty] < 1e-6).all() and (differs[alpha[:, 0] > 0.5] > 0.4).all()


def test_looks_repeat_with_the_seed() -> None:
    pictures = two_views()
    first, again, other = (looks(*pictures, HARSH, seeded(s))[0] for s in (0, 0, 1))
    assert torch.equal(first, again) and not torch.equal(first, other)


def test_gradients_reach_color_and_opacity() -> None:
    color, opacity = (x.clone().requires_grad_() for x in two_views())
    image, alpha = looks(color, opacity, HARSH, seeded())
    (image.square().sum() + alpha.square().sum()).backward()
    assert color.grad.abs().max() > 0.1 and opacity.grad.abs().max() > 0.1


def test_a_second_layer_is_what_the_picture_is_about() -> None:
    """It moves as the opacity does and comes back alone; the background goes by the opacity."""
    color, opacity = two_views()
    own = opacity * 0.25
    plain, alpha = looks(color, opacity, HARSH, seeded())
    image, part = looks(color, torch.cat([opacity, own], dim=1), HARSH, seeded())
    assert torch.equal(image, plain) and part.shape == alpha.shape
    assert torch.allclose(part, alpha * 0.25, atol=1e-6)
