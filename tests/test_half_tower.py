"""The tower for guidance in bfloat16 on a CPU: as far from single precision as autocast is."""

import pytest
import torch
from torch import Tensor

from alphaclip_gen import RegionEncoder
from alphaclip_gen.half_tower import HalfTower
from alphaclip_gen.vision import AlphaCLIPConfig, AlphaCLIPModel, pixel_values


def random_model(side: int = 32, **vision) -> AlphaCLIPModel:
    torch.manual_seed(0)
    sizes = {"hidden_size": 48, "intermediate_size": 96, "num_hidden_layers": 3}
    config = AlphaCLIPConfig(
        vision_config={
            **sizes, "num_attention_heads": 3, "image_size": side, "patch_size": 8, **vision,
        },
        text_config={**sizes, "num_attention_heads": 3, "vocab_size": 50},
        projection_dim=24,
    )  # fmt: skip
    model = AlphaCLIPModel(config).eval().requires_grad_(False)
    for weights in model.parameters():  # fresh ones are too even to tell layers apart
        weights += 0.2 * weights.std(correction=0).clamp(min=0.1) * torch.randn_like(weights)
    return model


def both(look, image: Tensor, alpha: Tensor | None) -> tuple[Tensor, Tensor]:
    """What a tower says, and the gradient of a mix of it in all that it saw."""
    inputs = [x.clone().requires_grad_() for x in (image, alpha) if x is not None]
    found = look(pixel_values(*inputs)).float()
    way = torch.randn(found.shape, generator=torch.Generator().manual_seed(1))
    gradients = torch.autograd.grad((found * way).sum(), inputs)
    return found.detach(), torch.cat([g.flatten() for g in gradients])


@pytest.mark.parametrize("activation", ["gelu", "quick_gelu"])
@pytest.mark.parametrize("side", [32, 48, 36])
@pytest.mark.parametrize("with_alpha", [True, False])
def test_it_is_transformers_under_autocast(activation: str, side: int, with_alpha: bool) -> None:
    """Sides beside the tower's own: interpolated positions, and pixels beyond whole patches."""
    model = random_model(hidden_act=activation)
    generator = torch.Generator().manual_seed(2)
    image = torch.rand(3, 3, side, side, generator=generator)
    alpha = torch.rand(3, 1, side, side, generator=generator) if with_alpha else None

    def features(values: Tensor) -> Tensor:
        return model.get_image_features(values, interpolate_pos_encoding=True).pooler_output

    def in_half(values: Tensor) -> Tensor:
        with torch.autocast("cpu", torch.bfloat16):
            return features(values)

    exact, theirs, ours = (both(f, image, alpha) for f in (features, in_half, HalfTower(model)))
    for right, usual, found in zip(exact, theirs, ours, strict=True):
        off, usually_off = ((each - right).norm() / right.norm() for each in (found, usual))
        assert 0 < off < 1.5 * usually_off < 0.1


def test_heads_that_are_no_power_of_two_wide() -> None:
    model = random_model(hidden_size=60)
    image = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(3))
    exact = model.get_image_features(pixel_values(image)).pooler_output
    found = HalfTower(model)(pixel_values(image)).float()
    assert (found - exact).norm() < 0.02 * exact.norm()


def test_it_passes_gradients_though_it_was_first_used_without() -> None:
    mini = RegionEncoder.from_pretrained("mini")
    image = torch.rand(1, 3, 64, 64)
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
        mini.embed(image)
    leaf = image.clone().requires_grad_()
    with torch.autocast("cpu", torch.bfloat16):
        mini.embed(leaf).sum().backward()
    assert leaf.grad.abs().max() > 0


def test_an_encoder_uses_it_under_autocast_only(monkeypatch) -> None:
    mini = RegionEncoder.from_pretrained("mini")
    calls = []
    monkeypatch.setattr(
        "alphaclip_gen.half_tower.HalfTower.__call__",
        lambda self, values: calls.append(values.shape) or torch.ones(len(values), 128),
    )
    image, alpha = torch.rand(2, 3, 64, 64), torch.rand(2, 1, 64, 64)
    mini.embed(image, alpha)
    with torch.autocast("cpu", torch.float16):
        mini.embed(image, alpha)
    assert not calls
    with torch.autocast("cpu", torch.bfloat16):
        mini.embed(image, alpha)
        mini.embed(image, side=32)
    assert calls == [(2, 4, 64, 64), (2, 3, 32, 32)]
