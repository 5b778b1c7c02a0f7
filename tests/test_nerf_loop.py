"""The loop on a stand-in tower: its gradient, what it yields, how it stops, every kind of field."""

import dataclasses
import math
import runpy
from pathlib import Path

import pytest
import torch

import loop
from adam import AdamSettings
from blobs import Proportion
from cameras import azimuths, random_views
from field import VoxelField, blob_field
from guides import make_guides, pull
from implicit import ImplicitField
from looks import AugmentSettings
from loop import Clock, Progress, begin, guidance_gradient, optimize
from losses import LossSettings
from parts import parse_shape
from presets import PRESETS
from scene import Scene
from settings import Config, TowerSettings
from warm_start import GRAY_BALL, Start, WarmStartSettings

STAND_IN = runpy.run_path(str(Path(__file__).with_name("stand_in_tower.py")))
Moments, SMALL = STAND_IN["Moments"], STAND_IN["SMALL"]
CPU = torch.device("cpu")


def changed(config: Config = SMALL, **settings) -> Config:
    return dataclasses.replace(config, **settings)


def steps_of(config: Config, tower=None) -> list[Progress]:
    generator = torch.Generator().manual_seed(config.seed)
    guides = make_guides(config, [tower or Moments()] * len(config.guidance))
    return list(optimize(config, guides, generator, Clock(CPU)))


# The beginning


def test_a_tower_looks_at_the_warm_starts_pictures_once() -> None:
    """Until a setting that decides them is another; what is found is the same."""
    tower = Moments()

    def start_and_looks(config: Config, tower: Moments) -> tuple[Start, int]:
        before = tower.calls
        return steps_of(dataclasses.replace(config, steps=0), tower)[0].start, tower.calls - before

    first, calls = start_and_looks(SMALL, tower)
    for text in ("a blue disk", "a red stick"):
        start, again = start_and_looks(changed(prompt=text), tower)
        assert start == start_and_looks(changed(prompt=text), Moments())[0]
        assert again == 1 < calls
    assert start == first
    others = [changed(seed=1), changed(alpha="ones"), changed(resolution=20)]
    others += [changed(tower=TowerSettings(batch=3)), changed(tower=TowerSettings(batch=4))]
    for other in others:
        assert start_and_looks(other, tower) == start_and_looks(other, Moments())
    gray = changed(warm_start=WarmStartSettings(shades=0))
    assert start_and_looks(gray, tower) == (GRAY_BALL, 0)


def test_a_tower_of_any_class_guides() -> None:
    """Also one that is no key of a dictionary."""

    class Unhashable(Moments):
        __hash__ = None

    start = steps_of(changed(steps=0), Unhashable())[0].start
    assert start == steps_of(changed(steps=0), Moments())[0].start


# One step


def test_the_guides_are_told_from_where_each_view_looks(monkeypatch) -> None:
    told = []

    def heard(guides, color, opacity, config, progress, random, azimuth):
        told.append(azimuth)
        return guidance_gradient(guides, color, opacity, config, progress, random, azimuth)

    monkeypatch.setattr(loop, "guidance_gradient", heard)
    steps_of(changed(steps=2, views=4, warm_start=WarmStartSettings(shades=0)))
    generator = torch.Generator().manual_seed(SMALL.seed)
    first = random_views(4, SMALL.cameras, generator)
    assert torch.equal(told[0], azimuths(first)) and not torch.equal(told[0], told[1])
    assert told[0].std() > 10


def test_every_look_is_told_the_azimuth_of_its_view(monkeypatch) -> None:
    """Pictures are all views for one aim, then for the next; each is looked at several times."""
    told = []

    def heard(guides, image, alpha, mode, tower, progress, azimuth):
        told.append(azimuth.tolist())
        return pull(guides, image, alpha, mode, tower, progress, azimuth)

    monkeypatch.setattr(loop, "pull", heard)
    config = changed(augment=AugmentSettings(copies=3))
    color, opacity = torch.rand(4, 3, 12, 12), torch.rand(4, 1, 12, 12)
    generator, azimuth = torch.Generator().manual_seed(0), torch.tensor([10.0, 200.0])
    guides = make_guides(config, (Moments(),))
    guidance_gradient(guides, color, opacity, config, 0.0, generator, azimuth)
    assert told == [2 * (3 * [10.0] + 3 * [200.0])]


def test_the_guides_gradient_is_the_one_of_the_whole_chain() -> None:
    generator = torch.Generator().manual_seed(0)
    opacity = torch.rand(2, 1, 16, 16, generator=generator)
    color = torch.rand(2, 3, 16, 16, generator=generator) * 0.5
    config = changed(augment=AugmentSettings(strength=0.0), views=2)
    guides = make_guides(config, [Moments()])

    def loss_at(color, opacity):
        seeded = torch.Generator().manual_seed(3)
        return guidance_gradient(guides, color, opacity, config, 0.0, seeded)

    losses, score, (in_color, in_opacity) = loss_at(color, opacity)
    assert in_opacity.abs().max() > 1e-4 and in_color.abs().max() > 1e-4
    assert 0 < score < 1
    farther = loss_at(color - 2 * in_color, opacity - 2 * in_opacity)[0]
    assert farther["mini"] < losses["mini"]  # a little along the descent
    way_color, way_opacity = torch.randn_like(color), torch.randn_like(opacity)
    small = 1e-3
    ahead = loss_at(color + small * way_color, opacity + small * way_opacity)[0]["mini"]
    behind = loss_at(color - small * way_color, opacity - small * way_opacity)[0]["mini"]
    slope = (in_color * way_color).sum() + (in_opacity * way_opacity).sum()
    assert (ahead - behind) / (2 * small) == pytest.approx(slope.item(), rel=0.05, abs=1e-4)


def test_pictures_grow_over_the_run_and_those_of_the_start_are_large() -> None:
    sides = []

    class Measuring(Moments):
        def embed(self, image, alpha=None):
            sides.append(image.shape[-1])
            return super().embed(image, alpha)

    tower = TowerSettings(scales=(0.5, 0.75, 1.0), grow_at=(0.3, 0.6))
    steps_of(changed(steps=4, tower=tower), Measuring())
    assert sides[-4:] == [8, 12, 16, 16] and {*sides[:-4]} == {16}


def test_pictures_a_step_are_views_times_copies() -> None:
    counts = []

    class Counting(Moments):
        def embed(self, image, alpha=None):
            counts.append(len(image))
            return super().embed(image, alpha)

    cold = WarmStartSettings(shades=0)
    augment = AugmentSettings(copies=5)
    steps_of(changed(steps=1, views=2, augment=augment, warm_start=cold), Counting())
    assert counts == [10]
    counts.clear()
    tower = TowerSettings(batch=4, precision="single")
    steps_of(changed(steps=1, views=2, augment=augment, warm_start=cold, tower=tower), Counting())
    assert counts == [4, 4, 2]


def test_clock_adds_up_by_part() -> None:
    clock = Clock(CPU)
    for part in ("a", "b", "a"):
        with clock(part):
            pass
    assert clock.seconds.keys() == {"a", "b"} and min(clock.seconds.values()) >= 0


def test_each_aim_moves_what_is_its_own() -> None:
    """The prompt half as much in the part above as below; the part nothing below."""
    scene = Scene((parse_shape("top", "part"),), prompt_in_parts=0.5)
    color = torch.full((3,), 0.5)
    fine = dataclasses.replace(SMALL.field, mirror="none", density_sizes=(24,))
    field = blob_field(Proportion(), color, fine)
    volume = field.volume(2.0)
    cameras, random = random_views(2, SMALL.cameras), torch.Generator().manual_seed(0)
    whole, parts, color, opacity = loop._pictures(volume, cameras, SMALL, scene, 1.0, random)
    assert color.shape == (4, 3, 16, 16) and opacity.shape == (4, 2, 16, 16) and len(parts) == 1
    assert torch.equal(color[:2], color[2:]) and torch.equal(opacity[:2, 0], opacity[2:, 0])
    assert torch.equal(opacity[:2, 1], opacity[:2, 0])  # the prompt attends to the whole
    free = torch.autograd.grad(whole.opacity.sum(), field.density, retain_graph=True)[0]
    prompt = torch.autograd.grad(opacity[:2, 0].sum(), field.density, retain_graph=True)[0]
    part = torch.autograd.grad(opacity[2:].sum(), field.density)[0]
    above, below = slice(16, 18), slice(6, 8)  # of y, farther from 0 than smoothing spreads
    assert torch.allclose(prompt[:, :, :, above], 0.5 * free[:, :, :, above], atol=1e-6)
    assert torch.allclose(prompt[:, :, :, below], free[:, :, :, below], atol=1e-6)
    assert (part[:, :, :, below] == 0).all() and (part[:, :, :, above] != 0).any()


# A run


def test_what_is_yielded() -> None:
    steps = steps_of(SMALL)
    assert [now.step for now in steps] == [0, 1, 2, 3]
    assert math.isnan(steps[0].loss) and steps[0].losses == {}
    for now in steps[1:]:
        assert now.loss == pytest.approx(sum(now.losses.values()))
        assert next(iter(now.losses)) == "mini" and "transmittance" in now.losses
    assert [now.field.sizes for now in steps[1:]] == [(10, 2), (12, 2), (16, 3)]
    assert steps[-1].volume().logits.shape[-1] == 16
    assert steps[-1].sharpness == SMALL.field.sharpness.last


@pytest.mark.parametrize(
    ("alpha", "seen"), [("opacity", {True}), ("hard", {True}), ("ones", {False})]
)
def test_alpha_is_the_opacity_or_nothing(alpha, seen) -> None:
    tower = Moments()
    steps_of(changed(alpha=alpha), tower)
    assert tower.saw_alpha == seen


def test_guides_take_turns() -> None:
    first, second = Moments(), Moments()
    config = changed(guidance=("a:end=0.4", "b:start=0.4:weight=2"), steps=4)
    config = changed(config, warm_start=WarmStartSettings(shades=0))
    generator = torch.Generator().manual_seed(0)
    steps = list(optimize(config, make_guides(config, [first, second]), generator, Clock(CPU)))
    assert [("a" in now.losses, "b" in now.losses) for now in steps[1:]] == [
        (True, False), (True, False), (False, True), (False, True),
    ]  # fmt: skip
    assert first.calls == second.calls == 2


@pytest.mark.parametrize("name", ["pureclipnerf-explicit", "pureclipnerf-implicit"])
def test_the_peers_recipe_forms_an_object_from_haze(name) -> None:
    """Scaled down, with a higher rate for so few steps: opacity where there was a millionth."""
    preset = PRESETS[name]
    field = dataclasses.replace(
        preset.field, density_sizes=(10, 14), color_sizes=(10, 14), grow_at=(0.6,), width=32
    )
    adam = dataclasses.replace(preset.adam, density_rate=1.2, color_rate=0.5)
    if preset.field.kind == "implicit":
        adam = dataclasses.replace(adam, density_rate=0.02, color_rate=0.02)
    config = changed(
        preset, prompt="a red stick", steps=30, views=2, resolution=24, field=field, adam=adam,
        negatives=SMALL.negatives, augment=dataclasses.replace(preset.augment, copies=2),
    )  # fmt: skip
    start = Start(Proportion(), (0.5, 0.5, 0.5), None)
    assert begin(config, start, CPU)[0].volume().density().max() < 2e-4
    steps = steps_of(config)
    last = steps[-1].volume()
    assert last.density().max() > 1.0 and last.activation == "softplus"
    assert last.logits.shape[-1] == 14
    kind = ImplicitField if field.kind == "implicit" else VoxelField
    assert isinstance(steps[-1].field, kind)
    assert {"transmittance", "entropy"} <= steps[-1].losses.keys()
    assert "ball" in steps[1].losses and "ball" not in steps[-1].losses


def test_an_implicit_field_can_begin_as_the_blob() -> None:
    field = dataclasses.replace(SMALL.field, kind="implicit", width=16)
    start = Start(Proportion(0.4, 0.6, 0.6), (0.9, 0.1, 0.1), None)
    config = changed(field=field)
    model, _ = begin(config, start, CPU)
    explicit, _ = begin(SMALL, start, CPU)
    assert isinstance(model, ImplicitField) and isinstance(explicit, VoxelField)
    assert torch.allclose(model.volume(2.0).logits, explicit.volume(2.0).logits)
    again, _ = begin(config, start, CPU)
    assert torch.equal(model.density[0].weight, again.density[0].weight)
    steps = steps_of(config)
    assert [now.field.sizes for now in steps[1:]] == [(10, 2), (12, 2), (16, 3)]


def test_settings_make_the_field_larger_and_forget_moments_when_due() -> None:
    for forget in (False, True):
        adam = AdamSettings(reset_on_growth=forget)
        config = changed(adam=adam, steps=3, warm_start=WarmStartSettings(shades=0))
        counts = [int(now.optimizer.state[now.field.density]["step"]) for now in _each(config)]
        assert counts == ([1, 1, 1] if forget else [1, 2, 3])


def _each(config: Config):
    generator = torch.Generator().manual_seed(0)
    progress = optimize(config, make_guides(config, [Moments()]), generator, Clock(CPU))
    next(progress)
    yield from progress


# Numbers that are none


def test_a_guide_that_says_nan_is_named_and_the_field_kept() -> None:
    config = changed(warm_start=WarmStartSettings(shades=0))
    progress = optimize(
        config, make_guides(config, [Moments(nan_after=2)]), torch.Generator().manual_seed(0),
        Clock(CPU),
    )  # fmt: skip
    next(progress)
    last = next(progress)
    kept = last.field.density.detach().clone()
    with pytest.raises(FloatingPointError, match="the mini loss is not finite in step 2; nothing"):
        next(progress)
    assert torch.equal(last.field.density, kept) and kept.isfinite().all()


def test_a_penalty_that_is_nan_is_named() -> None:
    losses = LossSettings(ball_radius=math.nan)
    with pytest.raises(FloatingPointError, match="the ball loss is not finite in step 1"):
        steps_of(changed(losses=losses))


def test_a_field_that_is_nan_is_named_before_a_tower_sees_it(monkeypatch) -> None:
    tower = Moments()
    config = changed(warm_start=WarmStartSettings(shades=0))
    progress = optimize(
        config, make_guides(config, [tower]), torch.Generator().manual_seed(0), Clock(CPU)
    )
    first = next(progress)
    with torch.no_grad():
        first.field.color.fill_(math.nan)
    with pytest.raises(FloatingPointError, match="the rendered color is not finite in step 1"):
        next(progress)
    assert tower.calls == 0


def test_a_gradient_that_is_nan_is_named(monkeypatch) -> None:
    whole = loop.guidance_gradient

    def broken(*arguments):
        losses, score, (in_color, in_opacity) = whole(*arguments)
        return losses, score, (in_color, in_opacity * math.nan)

    monkeypatch.setattr(loop, "guidance_gradient", broken)
    with pytest.raises(FloatingPointError, match="the gradient of density is not finite in step 1"):
        steps_of(SMALL)
