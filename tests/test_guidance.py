"""Losses by hand, and guides that pull the right way."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from alphaclip_gen.augmentation import composite
from alphaclip_gen.guidance import (
    Guidance,
    contrastive_loss,
    cosine_loss,
    spherical_loss,
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


def test_negatives_that_say_the_same_are_left_out(caplog) -> None:
    assert Guidance(RegionColor(), "red", ["red", "crimson", "blue"]).texts == ["red", "blue"]
    assert not caplog.records


def test_what_is_named_and_left_out_is_said(caplog) -> None:
    guide = Guidance(RegionColor(), "red", ["crimson"], avoid=["crimson", "blue"])
    assert guide.texts == ["red", "blue"]
    (said,) = [record.message for record in caplog.records]
    assert said.startswith("'crimson' can't be told from the prompt 'red' by this model (cosine")


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
    with pytest.raises(ValueError, match="weights has 2 values for 1 guides"):
        weighted([Guidance(RegionColor(), "red")], [1.0, 2.0])


def test_a_target_may_stand_for_the_prompt() -> None:
    """As for a view from behind; negatives stay."""
    guide = Guidance(RegionColor(), "red", ["green"])
    blue = RegionColor().embed_texts(["blue"])
    seen = RegionColor().embed_texts(["blue", "red"])
    assert guide.loss_of(seen[:1], blue) < guide.loss_of(seen[1:], blue)
    assert guide.loss_of(seen, torch.cat([blue, guide.embeddings[:1]])) == pytest.approx(
        guide.loss_of(seen[1:]).item(), abs=1e-6
    )
