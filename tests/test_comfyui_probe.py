"""The custom nodes of the tests on a real core, tried on its stand-in."""

import json

import comfy_probe
import comfy_stub as stub
import pytest
import torch

from alphaclip_gen import alpha_from_box
from alphaclip_gen.comfyui import NODE_CLASS_MAPPINGS
from alphaclip_gen.comfyui.focus import focus_vision
from alphaclip_gen.comfyui.vision import load_vision


@pytest.fixture(params=["0.3", "0.20"])
def core(request, monkeypatch, tmp_path):
    return stub.install(monkeypatch, tmp_path, request.param)


@pytest.fixture
def image():
    random = torch.Generator().manual_seed(2)
    small = torch.rand(1, 3, 5, 5, generator=random)
    return torch.nn.functional.interpolate(small, (40, 40), mode="bilinear").movedim(1, -1)


@pytest.fixture
def mask():
    return alpha_from_box((4, 8, 24, 36), (40, 40))[:, 0]


def shown(node, *inputs):
    """What a node shows, run as the core runs it."""
    with torch.inference_mode():
        return json.loads(node().run(*inputs)["ui"]["text"][0])


def vision_of(kind):
    with torch.inference_mode():
        if kind == "mini":
            return load_vision("mini")
        return comfy_probe.Tower().run(kind)[0]


@pytest.mark.parametrize("kind", ["clip", "siglip", "mini"])
def test_numbers_are_the_librarys_in_both_ways(core, image, mask, kind):
    plain = vision_of(kind)
    found = shown(comfy_probe.Probe, focus_vision(plain, mask[:, None]), plain, image, mask)
    assert found["between the ways"] < comfy_probe.TOLERANCE
    assert found["from the library"] < comfy_probe.TOLERANCE
    assert found["of black"] < 1e-5 and found["by the region"] > 0.02


@pytest.mark.parametrize("kind", ["clip", "siglip"])
def test_heat_is_the_librarys(core, image, mask, kind):
    plain = vision_of(kind)
    with torch.inference_mode():
        look = NODE_CLASS_MAPPINGS["AlphaCLIPAttentionMap"]().run
        _, heat = look(plain, image, mask, 1.0, False, "training-free", "")
    found = shown(comfy_probe.Heat, plain, image, mask, heat)
    assert found["from the library"] < comfy_probe.TOLERANCE


def test_a_wrong_region_is_noticed(core, image, mask):
    """The numbers are none that hold anyway."""
    plain = vision_of("clip")
    found = shown(comfy_probe.Probe, focus_vision(plain, mask[:, None]), plain, image, 1 - mask)
    assert found["from the library"] > 10 * comfy_probe.TOLERANCE
