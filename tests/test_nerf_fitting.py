"""Fitting: where one level can not, the body follows the outlines; where it can, it stays."""

import numpy as np
import pytest
import torch

import surface
from cameras import Cameras
from field import FieldSettings, Volume, VoxelField
from fitting import fitted, surface_slope
from grids import outward_normals
from silhouettes import all_around, best_level, scan, silhouette_iou
from surface import isosurface

CAMERAS = all_around(12, turn=7.5)


def volume_of(logits: torch.Tensor) -> Volume:
    size = logits.shape[-1]
    settings = FieldSettings(
        density_sizes=(size,), color_sizes=(2,), smoothing=0, mirror="none", max_density=30.0
    )
    return VoxelField(logits[None, None], torch.zeros(1, 3, 2, 2, 2), settings).volume(1.0)


def axes(size: int = 32) -> tuple[torch.Tensor, ...]:
    axis = torch.linspace(-1, 1, size)
    z, y, x = torch.meshgrid(axis, axis, axis, indexing="ij")
    return x, y, z


def ball() -> torch.Tensor:
    x, y, z = axes()
    return 10 * (0.45 - (x * x + (y + 0.35) ** 2 + z * z).sqrt())


def rod() -> torch.Tensor:
    x, y, z = axes()
    return 10 * torch.minimum(0.06 - torch.hypot(x, z), 0.8 - y.abs())


def thick_and_thin() -> Volume:
    """A large ball and a narrow rod that fade alike: at one density, only one of them fits."""
    return volume_of(torch.maximum(ball(), rod()))


def test_outlines_agree_better_also_from_sides_not_looked_at() -> None:
    volume = thick_and_thin()
    level = best_level(scan(volume, CAMERAS)).density
    before = silhouette_iou(isosurface(volume, level), volume)
    after = silhouette_iou(isosurface(fitted(volume, level, CAMERAS), level), volume)
    assert before < 0.95 and after > before + 0.02 and after > 0.95


def test_only_what_agrees_too_little_is_fitted(monkeypatch) -> None:
    """Fitting to a few views would make the others worse where the level alone is good."""
    calls = list[float]()

    def counted(volume: Volume, level: float, cameras: Cameras) -> Volume:
        calls.append(level)
        return fitted(volume, level, cameras)

    monkeypatch.setattr(surface, "fitted", counted)
    for volume, times in ((volume_of(5 * ball()), 0), (thick_and_thin(), 1)):
        assert silhouette_iou(surface.extract(volume), volume) > 0.95
        assert len(calls) == times


@pytest.mark.parametrize("logits", [ball(), rod()], ids=["ball", "rod"])
def test_a_level_too_low_shrinks_and_one_too_high_grows(logits) -> None:
    volume = volume_of(logits)
    best = best_level(scan(volume, CAMERAS)).density
    for factor, sign in ((0.4, -1), (2.0, 1)):
        level = factor * best
        change = fitted(volume, level, CAMERAS).logits - volume.logits.detach()
        near = ((volume.density() / level - 1).abs() < 0.3).detach()
        assert sign * change[0, 0][near].mean() > 0.1


def test_thin_things_turn_half_opaque_at_a_higher_density() -> None:
    """What makes fitting necessary: the best levels of the two by themselves."""
    thick, thin = (best_level(scan(volume_of(logits), CAMERAS)) for logits in (ball(), rod()))
    assert thin.density > 1.2 * thick.density


def test_normals_follow_and_nothing_is_written_into_the_field() -> None:
    volume = thick_and_thin()
    kept = volume.logits.detach().clone()
    changed = fitted(volume, 3.0, CAMERAS)
    assert changed.color_logits is volume.color_logits
    assert torch.equal(changed.normals, outward_normals(changed.logits))
    assert torch.equal(volume.logits, kept) and not changed.logits.requires_grad
    with torch.no_grad():
        assert torch.equal(fitted(volume, 3.0, CAMERAS).logits, changed.logits)


def test_a_hard_ball_is_left_round() -> None:
    x, y, z = axes(40)
    volume = volume_of(200 * (0.5 - (x * x + y * y + z * z).sqrt()))
    radius = np.linalg.norm(isosurface(fitted(volume, 15.0, CAMERAS), 15.0).vertices, axis=1)
    assert radius.mean() == pytest.approx(0.5, abs=0.01) and radius.std() < 0.006


def test_the_slope_is_that_of_the_surface() -> None:
    x, _, _ = axes(21)
    assert surface_slope(7 * (x - 0.33)) == pytest.approx(0.7, rel=1e-4)
    steep_elsewhere = torch.where(x > 0.5, 100 * x, 7 * (x - 0.33))
    assert surface_slope(steep_elsewhere) == pytest.approx(0.7, rel=1e-4)
    assert surface_slope(torch.ones(4, 4, 4)) == 1.0
