"""The implicit field: the encoding by hand, what it begins as, and that its networks learn."""

import math

import pytest
import torch

from blobs import Proportion, blob_logits
from field import FieldSettings
from grids import sample
from implicit import ImplicitField, encoded, network

SMALL = FieldSettings(
    kind="implicit",
    density_sizes=(9, 13),
    color_sizes=(5, 7),
    grow_at=(0.5,),
    smoothing=0,
    mirror="none",
    frequencies=2,
    width=16,
)


def field_of(
    settings: FieldSettings = SMALL, proportion: Proportion | None = None, seed: int = 0
) -> ImplicitField:
    color = torch.tensor([0.8, 0.5, 0.2])
    return ImplicitField(settings, proportion, color, torch.Generator().manual_seed(seed))


def test_the_encoding_by_hand() -> None:
    features = encoded(torch.tensor([[0.5, 0.0, -0.25]]), 2)[0]
    angles = [math.pi * f * x for f in (1, 2) for x in (0.5, 0.0, -0.25)]
    expected = [0.5, 0.0, -0.25, *map(math.sin, angles), *map(math.cos, angles)]
    assert features.tolist() == pytest.approx(expected, abs=1e-6)
    assert encoded(torch.zeros(3, 3), 4).shape == (3, 27)


def test_networks_have_three_layers_and_say_nothing_at_first() -> None:
    decoder = network(27, 128, 3, torch.Generator().manual_seed(0))
    shapes = [tuple(p.shape) for p in decoder.parameters()]
    assert shapes == [(128, 27), (128,), (128, 128), (128,), (3, 128), (3,)]
    assert (decoder(torch.rand(4, 27)) == 0).all()
    hidden = decoder[:2](torch.rand(400, 27))
    assert 0.2 < (hidden > 0).float().mean() < 0.8


def test_haze_is_even_and_as_dense_as_the_shift_says() -> None:
    settings = FieldSettings(
        kind="implicit", density_sizes=(9,), color_sizes=(5,), begin="haze",
        activation="softplus", max_density=40.0, shift=-13.8, width=16,
    )  # fmt: skip
    density, color, _ = field_of(settings).volume()(torch.rand(20, 3) - 0.5)
    assert torch.allclose(density, torch.tensor(40 * math.log1p(math.exp(-13.8))), rtol=1e-3)
    assert torch.allclose(color, torch.tensor([[0.8], [0.5], [0.2]]).expand(3, 20), atol=1e-5)


def test_it_begins_as_the_blob() -> None:
    proportion = Proportion(0.3, 0.6, 0.4)
    volume = field_of(proportion=proportion).volume(2.0)
    assert torch.allclose(volume.logits, 2 * blob_logits(proportion, 9).clamp(-6, 6))


def test_growth_shows_the_same_content_finer() -> None:
    field = field_of()
    with torch.no_grad():
        field.density[-1].weight.normal_(generator=torch.Generator().manual_seed(1))
    before = field.volume().logits
    parameters = [id(p) for p in field.parameters()]
    finer = field.grown(17, 9)
    after = finer.volume()
    assert after.logits.shape[-1] == 17 and after.color_logits.shape[-1] == 9
    places = torch.tensor([[0.0, 0.0, 0.0], [0.25, 0.5, -0.25], [-0.5, 0.0, 0.5]])  # in both grids
    assert torch.allclose(sample(after.logits, places), sample(before, places), atol=1e-5)
    assert [id(p) for p in finer.parameters()] == parameters


def test_growth_takes_the_drop_from_every_logit() -> None:
    settings = FieldSettings(**{**vars(SMALL), "growth_drop": 1.5})
    field = field_of(settings)
    inside = torch.zeros(1, 3)
    before = sample(field.volume().logits, inside).item()
    after = sample(field.grown(13, 7).volume().logits, inside).item()
    assert before - after == pytest.approx(6 * math.tanh(1.5 / 6))  # almost 1.5


def test_what_networks_say_stays_within_the_limit_and_goes_on_learning() -> None:
    field = field_of()
    with torch.no_grad():
        field.density[-1].bias.fill_(12.0)
    logit = sample(field.volume().logits, torch.zeros(1, 3)).sum()
    assert logit.item() == pytest.approx(6 * math.tanh(2.0))
    logit.backward()
    assert field.density[-1].bias.grad.item() == pytest.approx(1 - math.tanh(2.0) ** 2, rel=1e-3)


def test_networks_are_of_the_seed_alone() -> None:
    torch.manual_seed(0)
    before = torch.get_rng_state()
    first, again, other = (field_of(seed=seed).density[0].weight for seed in (0, 0, 1))
    assert torch.equal(first, again) and not torch.equal(first, other)
    assert torch.equal(torch.get_rng_state(), before)


def test_a_gradient_at_one_place_moves_its_surroundings() -> None:
    """What an explicit grid does not do: the smoothness prior of the networks."""
    field = field_of()
    optimizer = torch.optim.Adam(field.parameters(), lr=1e-2)
    middle = torch.zeros(1, 3)
    for _ in range(5):
        optimizer.zero_grad()
        (-sample(field.volume().logits, middle)).sum().backward()
        optimizer.step()
    logits = field.volume().logits
    near, far = sample(logits, torch.tensor([[0.25, 0.0, 0.0], [0.9, 0.0, 0.0]]))[0]
    assert near > 0.3 * sample(logits, middle).item() > 0
    assert near > far
