"""Several towers: how they are named, when they count, and that batches and scales add up."""

import dataclasses
from dataclasses import replace
from pathlib import Path
from typing import Literal

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

import guides
from alphaclip_gen import RegionEncoder
from alphaclip_gen.guidance import Guidance
from guides import (
    Aim,
    WeightedGuide,
    between,
    embed,
    load_encoders,
    make_guides,
    pull,
    scaled_side,
)
from settings import Config, GuideSettings, TowerSettings, of_line, parse_guide, title

WHOLE = TowerSettings(scales=(1.0,), grow_at=(), precision="single")


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
    single = TowerSettings(precision="single")
    encoders = load_encoders(Config(prompt="red", guidance=names, tower=single))
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


def test_a_line_of_a_file_may_bring_parts() -> None:
    config = Config(prompts=Path("prompts.txt"), parts=("a hat @ top",), steps=7)
    one = of_line(config, "a snowman | a red cone @ top | a disk @ bottom")
    assert (one.prompt, one.prompts, one.steps) == ("a snowman", None, 7)
    assert one.parts == ("a hat @ top", "a red cone @ top", "a disk @ bottom")
    assert of_line(config, "| a disk @ bottom").prompt is None
    assert of_line(config, "a snowman") == dataclasses.replace(
        config, prompt="a snowman", prompts=None
    )


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
    small = pull(
        [guide_of("red")],
        image,
        opacity,
        "opacity",
        TowerSettings(batch=2, precision="single"),
        0.0,
    )
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
    tower = TowerSettings(scales=(0.5, 1.0), grow_at=(0.5,), precision="single")
    image, opacity = pictures(2)
    image, opacity = (F.interpolate(x, size=(64, 64)) for x in (image, opacity))
    tokens = []
    hook = mini.model.vision_model.embeddings.register_forward_hook(
        lambda module, inputs, output: tokens.append(output.shape[1])
    )
    small, full = (embed(mini, image, opacity, "opacity", tower, p) for p in (0.0, 0.5))
    other = embed(mini, image, 1 - opacity, "opacity", tower, 0.0)
    hook.remove()
    assert tokens == [1 + 4 * 4, 1 + 8 * 8, 1 + 4 * 4]
    assert torch.allclose(full, mini.embed(image, opacity))
    assert torch.allclose(small.norm(dim=1), torch.ones(2), atol=1e-5)
    assert (other - small).abs().max() > 1e-2


def test_ones_show_no_alpha() -> None:
    image, opacity = pictures()
    plain, masked = (embed(MeanColor(), image, opacity, m, WHOLE, 0.0) for m in ("ones", "opacity"))
    assert torch.equal(plain, MeanColor().embed(image)) and not torch.allclose(plain, masked)


def test_half_precision_is_near_and_returns_single(mini) -> None:
    image, opacity = (F.interpolate(x, size=(64, 64)) for x in pictures(2))
    tower = replace(WHOLE, precision="bfloat16")
    half = embed(mini, image, opacity, "opacity", tower, 0.0)
    full = embed(mini, image, opacity, "opacity", WHOLE, 0.0)
    assert half.dtype == torch.float32
    assert (half * full).sum(dim=1).min() > 0.995 and not torch.equal(half, full)


@pytest.mark.parametrize(
    ("capability", "precision", "bfloat16"),
    [
        ("AVX512", "auto", True),
        ("AVX2", "auto", False),
        ("AVX512", "single", False),
        ("AVX512", "bfloat16", True),
    ],
)
def test_precision_is_what_the_cpu_is_fast_in(
    monkeypatch, capability: str, precision: Literal["auto", "single", "bfloat16"], bfloat16: bool
) -> None:
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: capability)
    tower = replace(WHOLE, precision=precision)
    assert tower.in_bfloat16("cpu") == bfloat16
    (mini,) = load_encoders(Config(prompt="a red cone", tower=tower))
    picture, opacity = (F.interpolate(x, size=(64, 64)) for x in pictures(1))
    seen = embed(mini, picture, opacity, "opacity", tower, 0.0)
    exact = torch.equal(seen, mini.embed(picture, opacity))
    assert exact != bfloat16


def test_auto_leaves_other_devices_in_single_precision() -> None:
    assert not TowerSettings().in_bfloat16("mps")


def test_other_towers_see_the_pictures_as_they_are() -> None:
    image, opacity = pictures(1)
    seen = embed(MeanColor(), image, opacity, "opacity", replace(WHOLE, scales=(0.5,)), 0.0)
    assert torch.equal(seen, MeanColor().embed(image, opacity))


# Parts


def aimed(*texts: str, parts: bool = True, **weights: float) -> WeightedGuide:
    aims = [Aim(Guidance(MeanColor(), text), weights.get(text, 1.0), text) for text in texts]
    if not parts:
        aims = [dataclasses.replace(aim, part="") for aim in aims]
    return WeightedGuide(aims[0].guide, GuideSettings("tower"), tuple(aims))


def test_each_aim_has_pictures_of_its_own() -> None:
    """Two of five for "red", the rest for "blue", twice as heavy: the sum of what each says."""
    image, opacity = pictures(4)
    one = aimed("red", "blue", blue=2.0)
    said = pull([one], image, opacity, "opacity", WHOLE, 0.0)
    red, blue = (aim.guide for aim in one.aims)
    inputs = image.clone().requires_grad_(), opacity.clone().requires_grad_()
    first, second = red(inputs[0][:2], inputs[1][:2]), blue(inputs[0][2:], inputs[1][2:])
    assert said.losses == pytest.approx(
        {"tower: red": first.item(), "tower: blue": 2 * second.item()}
    )
    expected = torch.autograd.grad(first + 2 * second, inputs)
    assert torch.allclose(said.in_image, expected[0], atol=1e-7)
    assert torch.allclose(said.in_alpha, expected[1], atol=1e-7)
    small = pull([one], image, opacity, "opacity", TowerSettings(batch=3, precision="single"), 0.0)
    assert small.losses == pytest.approx(said.losses)
    assert small.score == pytest.approx(said.score)
    assert torch.allclose(small.in_image, said.in_image, atol=1e-7)


def test_all_aims_go_through_a_tower_at_once() -> None:
    counts = []

    class Counting(MeanColor):
        def embed(self, image, alpha=None):
            counts.append(len(image))
            return super().embed(image, alpha)

    encoder = Counting()
    aims = tuple(Aim(Guidance(encoder, text), 1.0, text) for text in ("red", "blue"))
    one = WeightedGuide(aims[0].guide, GuideSettings("tower"), aims)
    pull([one], *pictures(6), "opacity", WHOLE, 0.0)
    assert counts == [6]


def test_pictures_that_do_not_show_a_part_are_left_out() -> None:
    image, opacity = pictures(4)
    opacity[3] = 0.001
    said = pull([aimed("red", "blue")], image, opacity, "opacity", WHOLE, 0.0)
    blue = Guidance(MeanColor(), "blue")(image[2:3], opacity[2:3]).item()
    assert said.losses["tower: blue"] == pytest.approx(blue / 2)  # the other says nothing
    assert (said.in_image[3] == 0).all() and (said.in_alpha[3] == 0).all()
    whole = pull([aimed("red", "blue", parts=False)], image, opacity, "opacity", WHOLE, 0.0)
    assert (whole.in_alpha[3] != 0).any()  # of the whole, all are shown
    hidden = pull([aimed("red", "blue")], image, 0 * opacity, "opacity", WHOLE, 0.0)
    assert hidden.losses == {"tower: red": 0, "tower: blue": 0} and hidden.score == 0
    assert (hidden.in_image == 0).all()


def test_parts_and_prompt_become_aims_with_what_to_avoid() -> None:
    config = Config(
        prompt="red", parts=("green @ top:weight=3:avoid=blue",), guidance=("elsewhere",),
        prompt_weight=0.5, avoid=("green",),
    )  # fmt: skip
    (one,) = make_guides(config, [MeanColor()])
    assert [(aim.part, aim.weight) for aim in one.aims] == [("", 0.5), ("green", 3.0)]
    assert one.aims[0].guide.texts == ["red", "green"] and one.aims[0].guide is one.guide
    assert one.aims[1].guide.texts == ["green", "blue"]  # never to avoid itself
    assert one.guide.loss == "contrastive"


def test_parts_alone_are_the_only_aims() -> None:
    class Any(MeanColor):
        def embed_texts(self, texts: list[str]) -> Tensor:
            return F.normalize(torch.eye(3)[[len(text) % 3 for text in texts]], dim=1)

    config = Config(parts=("red @ top", "blue @ bottom"), guidance=("elsewhere",))
    (one,) = make_guides(config, [Any()])
    assert [aim.part for aim in one.aims] == ["red", "blue"]
    assert one.guide.prompt == title(config) == "red and blue"


def test_prompts_of_directions_are_mixed_by_azimuth() -> None:
    around = torch.eye(4)
    half = 0.5**0.5
    mixed = between(around, torch.tensor([0.0, 90.0, -90.0, 45.0, 405.0, 315.0]))
    expected = [[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 0, 1], [half, half, 0, 0], [half, half, 0, 0],
                [half, 0, 0, half]]  # fmt: skip
    assert torch.allclose(mixed, torch.tensor(expected), atol=1e-6)


def test_a_view_is_held_against_the_prompt_of_its_direction() -> None:
    """Red in front, blue behind: a blue picture costs nothing from behind only."""
    config = Config(prompt="red", guidance=("elsewhere",), view_prompts=("{}", "blue"))
    (one,) = make_guides(config, [MeanColor()])
    image = torch.zeros(1, 3, 4, 4)
    image[:, 2] = 1
    front, behind = (
        pull([one], image, torch.ones(1, 1, 4, 4), "opacity", WHOLE, 0.0, torch.tensor([azimuth]))
        for azimuth in (0.0, 180.0)
    )
    assert front.losses["elsewhere"] > 0.9 and behind.losses["elsewhere"] < 1e-3


def test_hard_alpha_is_hard_at_the_towers_own_size(mini) -> None:
    """A slanted border, rendered at 24 pixels: resizing would make it gray."""
    axis = torch.arange(24) / 24
    opacity = ((axis[:, None] + 0.3 * axis - 0.6) * 8).sigmoid().expand(1, 1, 24, 24)
    seen = []
    hook = mini.model.vision_model.embeddings.register_forward_pre_hook(
        lambda module, inputs: seen.append(inputs[0][:, 3:] + 1)
    )
    for scales in ((1.0,), (0.5,)):
        tower = replace(WHOLE, scales=scales)
        leaf = opacity.clone().requires_grad_()
        embed(mini, torch.rand(1, 3, 24, 24), leaf, "hard", tower, 0.0).sum().backward()
        assert leaf.grad.abs().max() > 0
    soft = embed(mini, torch.rand(1, 3, 24, 24), opacity, "opacity", WHOLE, 0.0)
    hook.remove()
    assert [alpha.shape[-1] for alpha in seen] == [64, 32, 64] and len(soft) == 1
    gray = [((alpha - alpha.round()).abs() > 1e-5).float().mean().item() for alpha in seen]
    assert gray[:2] == [0, 0] and gray[2] > 0.2
    assert 0.2 < seen[0].mean() < 0.8


def test_a_tower_is_known_by_its_weights(mini) -> None:
    config = Config(prompt="a red cone", guidance=("mini:weight=2", "own"))
    ((name, first),) = guides.tower_digests(config, (mini, MeanColor())).items()
    assert name == "mini" and len(first) == 16
    other = RegionEncoder.from_pretrained("mini")
    assert guides.digest(other) == first
    changed = RegionEncoder.from_pretrained("mini")
    changed.model.logit_scale += 1e-3
    assert guides.digest(changed) != first


def test_what_can_not_be_avoided_is_said(caplog) -> None:
    config = Config(prompt="red", avoid=("red", "green"), negatives=("red", "blue"))
    (guide,) = make_guides(config, (MeanColor(),))
    assert guide.guide.texts == ["red", "blue", "green"]
    assert [record.message.split(" can't")[0] for record in caplog.records] == ["'red'"]
