"""Several towers: how they are named, when they count, and that batches and scales add up."""

import dataclasses

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

import guides
from alphaclip_gen import RegionEncoder
from alphaclip_gen.guidance import Guidance
from guides import WeightedGuide, embed, load_encoders, make_guides, pull, scaled_side
from settings import Config, GuideSettings, TowerSettings, parse_guide

WHOLE = TowerSettings()


class MeanColor:
    """A tower that sees the region's mean color; its texts are colors."""

    logit_scale = 5.0

    def embed(self, image: Tensor, alpha: Tensor | None = None) -> Tensor:
        weight = torch.ones_like(image[:, :1]) if alpha is None else alpha
        mean = (image * weight).sum(dim=(2, 3)) / weight.sum(dim=(2, 3)).clamp(min=1e-6)
        return F.normalize(mean + 1e-3, dim=1)

    def embed_texts(self, texts: list[str]) -> Tensor:
        words = {"red": [1.0, 0, 0], "green": [0, 1.0, 0], "blue": [0, 0, 1.0]}
        return F.normalize(torch.tensor([words[text] for text in texts]), dim=1)


def guide_of(text: str, model: str = "tower", **settings: float) -> WeightedGuide:
    return WeightedGuide(Guidance(MeanColor(), text), GuideSettings(model, **settings))


def pictures(count: int = 5) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    image = torch.rand(count, 3, 8, 8, generator=generator)
    return image, torch.rand(count, 1, 8, 8, generator=generator)


# Names


@pytest.mark.parametrize(
    ("text", "guide"),
    [
        ("mini", GuideSettings("mini")),
        ("mini:weight=0.5:start=0.3:end=0.9", GuideSettings("mini", None, None, 0.5, 0.3, 0.9)),
        (r"C:\towers\b16:start=0.25", GuideSettings(r"C:\towers\b16", start=0.25)),
        ("a.pth:text=b.pt:weight=2", GuideSettings("a.pth", text="b.pt", weight=2.0)),
        ("hf-hub:some/where", GuideSettings("hf-hub:some/where")),
        ("ViT-B-32:pretrained=tag", GuideSettings("ViT-B-32", pretrained="tag")),
    ],
)
def test_guides_by_name(text, guide) -> None:
    assert parse_guide(text) == guide


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "names no model"),
        (":weight=1", "names no model"),
        ("mini:wieght=1", "'wieght'; expected MODEL, then each of text, pretrained, weight"),
        ("mini:weight=1:weight=2", "at most once"),
        ("mini:weight=much", "weight=much; expected a number"),
        ("mini:weight=0", "weight 0 from 0 to 1; expected a weight above 0"),
        ("mini:weight=nan", "expected a weight above 0"),
        ("mini:start=0.6:end=0.5", "expected a weight above 0, and a window"),
        ("mini:end=5000", "0 <= start < end <= 1"),
    ],
)
def test_wrong_names_are_explained(text, message) -> None:
    with pytest.raises(ValueError, match=message):
        parse_guide(text)


def test_each_checkpoint_is_opened_once_with_what_it_takes(monkeypatch) -> None:
    opened = []

    def open_one(name, pretrained=None, *, text=None, device="cpu"):
        opened.append((name, pretrained, text, device))
        return MeanColor()

    monkeypatch.setattr(guides.RegionEncoder, "from_pretrained", open_one)
    names = ("mini:end=0.5", "a.pth:text=b.pt", "mini:weight=2:start=0.5")
    encoders = load_encoders(Config(prompt="red", guidance=names))
    assert opened == [("mini", None, None, "cpu"), ("a.pth", None, "b.pt", "cpu")]
    assert encoders[0] is encoders[2] is not encoders[1]


def test_mini_is_held_against_its_own_world_and_others_are_not() -> None:
    class Everything(MeanColor):
        def embed_texts(self, texts: list[str]) -> Tensor:
            return F.normalize(torch.randn(len(texts), 64), dim=1)

    config = Config(prompt="a red cone", guidance=("mini", "elsewhere:weight=0.5"))
    first, second = make_guides(config, (Everything(), Everything()))
    assert len(first.guide.texts) == 144 and first.guide.loss == "contrastive"
    assert second.guide.texts == ["a red cone"] and second.guide.loss == "cosine"
    assert second.settings.weight == 0.5
    given = dataclasses.replace(config, negatives=("a ball",))
    assert all(len(one.guide.texts) == 2 for one in make_guides(given, (Everything(),) * 2))


# What they say


def test_weights_and_windows() -> None:
    one = guide_of("red", weight=0.5, start=0.25, end=0.75)
    assert [one.weight(p) for p in (0.0, 0.25, 0.5, 0.75, 0.8)] == [0, 0.5, 0.5, 0.5, 0]


def test_losses_add_up_as_weighted() -> None:
    image, opacity = pictures()
    both = [guide_of("red", "a"), guide_of("blue", "b", weight=0.5, start=0.5)]
    alone = pull(both, image, opacity, "opacity", WHOLE, 0.0)
    together = pull(both, image, opacity, "opacity", WHOLE, 0.7)
    red, blue = (one.guide(image, opacity) for one in both)
    assert alone.losses == pytest.approx({"a": red.item()})
    assert together.losses == pytest.approx({"a": red.item(), "b": 0.5 * blue.item()})
    assert together.score == pytest.approx(both[0].guide.score(image, opacity).mean().item())
    inputs = image.clone().requires_grad_(), opacity.clone().requires_grad_()
    expected = torch.autograd.grad(both[0].guide(*inputs) + 0.5 * both[1].guide(*inputs), inputs)
    assert torch.allclose(together.in_image, expected[0], atol=1e-7)
    assert torch.allclose(together.in_alpha, expected[1], atol=1e-7)


def test_losses_are_called_without_folders() -> None:
    image, opacity = pictures()
    said = pull([guide_of("red", "some/where/b16")], image, opacity, "opacity", WHOLE, 0.0)
    assert list(said.losses) == ["b16"]


def test_a_model_that_is_there_twice_is_one_loss() -> None:
    image, opacity = pictures()
    twice = [guide_of("red", weight=0.25), guide_of("red", weight=0.75)]
    once = pull([guide_of("red")], image, opacity, "opacity", WHOLE, 0.0)
    assert pull(twice, image, opacity, "opacity", WHOLE, 0.0).losses == pytest.approx(once.losses)


def test_batches_change_nothing_but_memory() -> None:
    image, opacity = pictures(5)
    small = pull([guide_of("red")], image, opacity, "opacity", TowerSettings(batch=2), 0.0)
    large = pull([guide_of("red")], image, opacity, "opacity", WHOLE, 0.0)
    assert small.losses == pytest.approx(large.losses)
    assert small.score == pytest.approx(large.score)
    assert torch.allclose(small.in_image, large.in_image, atol=1e-7)
    assert torch.allclose(small.in_alpha, large.in_alpha, atol=1e-7)


def test_alpha_modes() -> None:
    """Left red, right green: attention must move left, by its opacity or as if it were hard."""
    image = torch.zeros(1, 3, 4, 8)
    image[:, 0, :, :4] = image[:, 1, :, 4:] = 1
    opacity = torch.full((1, 1, 4, 8), 0.6)
    for mode in ("opacity", "hard"):
        said = pull([guide_of("red")], image, opacity, mode, WHOLE, 0.0)
        assert (said.in_alpha[..., :4] < 0).all() and (said.in_alpha[..., 4:] > 0).all()
    soft, hard = (
        pull([guide_of("red")], image, torch.cat([opacity[..., :4], opacity[..., 4:] / 3], dim=3),
             mode, WHOLE, 0.0)
        for mode in ("opacity", "hard")
    )  # fmt: skip
    assert hard.losses["tower"] < 1e-4 < soft.losses["tower"]  # the right half is cut off
    plain = pull([guide_of("red")], image, opacity, "ones", WHOLE, 0.0)
    assert (plain.in_alpha == 0).all() and plain.in_image.abs().max() > 0


# How the towers are run


@pytest.fixture(scope="module")
def mini() -> RegionEncoder:
    return RegionEncoder.from_pretrained("mini")


def test_a_scale_shows_the_tower_smaller_pictures_with_alpha(mini) -> None:
    assert [scaled_side(mini, s) for s in (0.01, 0.5, 0.6, 1.0)] == [8, 32, 40, 64]
    tower = TowerSettings(scales=(0.5, 1.0), grow_at=(0.5,))
    image, opacity = pictures(2)
    image, opacity = (F.interpolate(x, size=(64, 64)) for x in (image, opacity))
    tokens = []
    hook = mini.model.vision_model.embeddings.register_forward_hook(
        lambda module, inputs, output: tokens.append(output.shape[1])
    )
    small, full = (embed(mini, image, opacity, tower, p) for p in (0.0, 0.5))
    other = embed(mini, image, 1 - opacity, tower, 0.0)
    hook.remove()
    assert tokens == [1 + 4 * 4, 1 + 8 * 8, 1 + 4 * 4]
    assert torch.allclose(full, mini.embed(image, opacity))
    assert torch.allclose(small.norm(dim=1), torch.ones(2), atol=1e-5)
    assert (other - small).abs().max() > 1e-2


def test_the_full_scale_by_interpolation_is_the_tower_itself(mini) -> None:
    image, opacity = (F.interpolate(x, size=(64, 64)) for x in pictures(1))
    expected = mini.embed(image, opacity)
    assert torch.allclose(guides.embed_at(mini, image, opacity, 64), expected, atol=1e-5)
    plain = guides.embed_at(mini, image, None, 64)
    assert torch.allclose(plain, mini.embed(image), atol=1e-5)


def test_half_precision_is_near_and_returns_single(mini) -> None:
    image, opacity = (F.interpolate(x, size=(64, 64)) for x in pictures(2))
    half = embed(mini, image, opacity, TowerSettings(precision="bfloat16"), 0.0)
    full = embed(mini, image, opacity, WHOLE, 0.0)
    assert half.dtype == torch.float32
    assert (half * full).sum(dim=1).min() > 0.995 and not torch.equal(half, full)


def test_scales_need_a_tower_that_has_a_size() -> None:
    with pytest.raises(TypeError, match=r"tower.scales has 0.5 for a MeanColor; expected"):
        embed(MeanColor(), *pictures(1), TowerSettings(scales=(0.5,)), 0.0)
