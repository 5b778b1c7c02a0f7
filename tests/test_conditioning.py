"""focus() and the way back: what is replaced, by which tower, and the door as_rgba()."""

import runpy
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

pytest.importorskip("diffusers")

from alphaclip_gen.attention_focus import FOCUSED
from alphaclip_gen.baselines import BASELINES
from alphaclip_gen.conditioning import as_rgba, focus, unfocus
from alphaclip_gen.processor import AlphaCLIPImageProcessor
from alphaclip_gen.vision import pixel_values

HERE = Path(__file__).resolve().parent
cases = SimpleNamespace(**runpy.run_path(str(HERE / "tiny_cases.py")))
VARIATION = cases.BY_NAME["StableDiffusionImageVariationPipeline"]

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
]


@pytest.fixture(name="image")
def picture():
    return cases.noise_picture()


# What is replaced, and the way back


def test_tower_and_processor_change_together_and_come_back():
    pipe = cases.build(VARIATION)
    own, stock = pipe.image_encoder, pipe.feature_extractor
    done = focus(pipe)
    assert type(pipe.image_encoder) is FOCUSED[type(own)]
    assert type(pipe.feature_extractor) is AlphaCLIPImageProcessor
    assert done.changes == ["image_encoder", "feature_extractor"]
    assert pipe.config["feature_extractor"] == ("alphaclip_gen", "AlphaCLIPImageProcessor")
    unfocus(pipe)
    assert pipe.image_encoder is own and pipe.feature_extractor is stock
    assert pipe.config["feature_extractor"] == ("transformers", "CLIPImageProcessor")
    with pytest.raises(ValueError, match=r"ImageVariationPipeline\) is not focused; focus\(pipe\)"):
        unfocus(pipe)


def test_the_context_manager_undoes_even_after_an_error():
    pipe = cases.build(VARIATION)
    own = pipe.image_encoder
    with pytest.raises(RuntimeError, match="out of memory"), focus(pipe) as same:
        assert same is pipe and pipe.image_encoder is not own
        raise RuntimeError("out of memory")
    assert pipe.image_encoder is own


def test_focusing_again_replaces_the_tower_and_keeps_the_way_back(image):
    pipe = cases.build(VARIATION)
    own, plain = pipe.image_encoder, cases.run(VARIATION, pipe, image)
    first = cases.alpha_tower(own, std=0.5)
    focus(pipe)
    focus(pipe, first)
    assert pipe.image_encoder is first
    again = focus(pipe)
    assert pipe.image_encoder is first and len(again.changes) == 2
    unfocus(pipe)
    assert pipe.image_encoder is own
    assert torch.equal(cases.run(VARIATION, pipe, image), plain)


def test_a_group_offloaded_tower_is_left_where_it_is_and_not_replaced():
    pipe = cases.build(VARIATION)
    focus(pipe)
    pipe.image_encoder.vision_model._diffusers_hook = "as diffusers marks it"
    own = pipe.image_encoder
    focus(pipe)
    assert pipe.image_encoder is own
    with pytest.raises(ValueError, match=r"group offloaded; call focus\(pipe, tower\) before"):
        focus(pipe, cases.alpha_tower(own))
    assert pipe.image_encoder is own


def test_a_tower_by_name_is_loaded(monkeypatch, tmp_path):
    checkpoints = pytest.importorskip("alphaclip_gen.checkpoints")
    pipe = cases.build(VARIATION)
    tower = cases.alpha_tower(pipe.image_encoder, std=0.5)
    monkeypatch.setattr(checkpoints, "load_tower", {tmp_path: tower}.__getitem__)
    focus(pipe, tmp_path)
    assert pipe.image_encoder is tower


@pytest.mark.parametrize("name", BASELINES)
def test_baselines_go_before_the_own_tower(name, image):
    pipe = cases.build(VARIATION)
    own, plain = pipe.image_encoder, cases.run(VARIATION, pipe, image)
    focus(pipe)
    focus(pipe, BASELINES[name])
    assert pipe.image_encoder is own
    assert torch.equal(cases.run(VARIATION, pipe, cases.with_region(image, 1)), plain)
    rgba = as_rgba(image, (8, 8, 20, 20))
    half = cases.run(VARIATION, pipe, rgba)
    changed = as_tensor_image(BASELINES[name], rgba)
    unfocus(pipe)
    torch.testing.assert_close(half, cases.run(VARIATION, pipe, changed), atol=1e-4, rtol=1e-4)
    assert (half - plain).norm() > 1e-3


def as_tensor_image(baseline, rgba):
    channels = torch.from_numpy(np.array(rgba)).movedim(-1, 0)[None] / 255
    pixels = baseline(channels[:, :3], channels[:, 3:])[0]
    return Image.fromarray((pixels * 255).round().byte().movedim(0, -1).numpy())


def test_each_reference_has_its_own_region(image):
    case = cases.BY_NAME["IP-Adapter, several references"]
    pipe = cases.build(case)
    focus(pipe)

    def result(first, second):
        with torch.no_grad():
            return cases.adapted(
                pipe, [[cases.with_region(image, first), cases.with_region(image, second)]]
            )

    both = result(0.5, 0.5)
    assert (result(0.25, 0.5) - both).norm() > 1e-3
    assert (result(0.5, 0.25) - both).norm() > 1e-3
    mixed = cases.adapted(pipe, [[image, cases.with_region(image)]])
    assert (mixed - both).norm() > 1e-3


# Doors


def test_as_rgba_takes_every_mask(image):
    mask = np.zeros((32, 32), dtype=bool)
    mask[8:16, 4:20] = True
    expected = np.dstack([np.array(image), mask * np.uint8(255)])
    tensor = torch.from_numpy(np.array(image)).movedim(-1, 0)
    for picture in (image, np.array(image), tensor):
        for region in (mask, Image.fromarray(mask), torch.from_numpy(mask), (4, 8, 20, 16)):
            assert np.array_equal(np.array(as_rgba(picture, region)), expected)
    assert np.array_equal(np.array(as_rgba(image, np.array([4, 8, 20, 16]))), expected)
    assert as_rgba(image) is image
    assert as_rgba(np.array(image)).mode == "RGB"
    assert as_rgba(Image.fromarray(expected)).mode == "RGBA"


def test_as_rgba_keeps_the_nesting(image):
    box = (0, 0, 16, 32)
    nested = as_rgba([[image, image], [image]], [[box, None], [box]])
    assert [[one.mode for one in part] for part in nested] == [["RGBA", "RGB"], ["RGBA"]]


def test_as_rgba_refuses_what_is_ambiguous(image):
    with pytest.raises(ValueError, match="image is a list of 2 and alpha_mask is 1; expected"):
        as_rgba([image, image], [(0, 0, 8, 8)])
    with pytest.raises(ValueError, match="image is a list of 2 and alpha_mask is ndarray"):
        as_rgba([image, image], np.ones((32, 32), dtype=bool))
    with pytest.raises(ValueError, match=r"image has transparency and alpha_mask .* one region"):
        as_rgba(cases.with_region(image), (0, 0, 8, 8))
    with pytest.raises(ValueError, match="image has batch 2; expected one picture"):
        as_rgba(torch.rand(2, 3, 8, 8))


def test_what_would_lose_alpha_is_refused_before_anything_changes(image):
    pipe = cases.build(VARIATION)
    own = pipe.image_encoder
    with pytest.raises(TypeError, match="processor is a CLIPImageProcessor, which would lose alph"):
        focus(pipe, None, pipe.feature_extractor)
    with pytest.raises(TypeError, match="tower is a type; expected an Alpha-CLIP vision model, a"):
        focus(pipe, AlphaCLIPImageProcessor)
    with pytest.raises(TypeError, match="processor is a int; expected the LlavaProcessor in use"):
        focus(cases.pipes.llava(), None, 5)
    assert pipe.image_encoder is own and "_alpha_focus" not in vars(pipe)
    with pytest.raises(ValueError, match="image is an empty list; expected at least one picture"):
        as_rgba([], [])


def test_a_tensor_of_rgba_is_refused_and_pixel_values_are_taken(image):
    """Pipelines hand tensors on as they are: transparency in [0, 1] is no stored alpha."""
    pipe = cases.build(VARIATION)
    focus(pipe, cases.alpha_tower(pipe.image_encoder, std=0.5))
    rgba = torch.from_numpy(np.array(cases.with_region(image))).movedim(-1, 0)[None] / 255
    with pytest.raises(ValueError, match="pixel_values has 0 to 1 in its fourth channel; expected"):
        cases.run(VARIATION, pipe, rgba)
    values = pixel_values(rgba[:, :3], rgba[:, 3:])
    by_tensor, by_picture = (
        cases.run(VARIATION, pipe, given) for given in (values, cases.with_region(image))
    )
    assert cases.moved(by_tensor, by_picture) < 1e-5


def test_a_picture_that_is_transparent_all_over_attends_nowhere(image):
    pipe = cases.build(VARIATION)
    focus(pipe)
    nowhere, half = (
        cases.run(VARIATION, pipe, cases.with_region(image, side)) for side in (0, 0.5)
    )
    assert nowhere.isfinite().all() and cases.moved(nowhere, half) > 1e-3


@pytest.mark.parametrize(
    ("mask", "message"),
    [
        (np.ones((8, 8), dtype=bool), r"mask is 8 high .* expected 32 high"),
        (np.zeros((32, 32), dtype=bool), "mask is empty"),
        (np.full((32, 32), np.nan), "mask has NaN or infinite values; expected numbers in"),
        (np.full((32, 32), 255.0), r"mask has values from 255 to 255; expected \[0, 1\]"),
        (np.ones((32, 32, 3)), r"mask has shape \(32, 32, 3\); expected one channel"),
        (torch.ones(2, 1, 32, 32), "alpha_mask has batch 2; expected one mask for one picture"),
    ],
    ids=["size", "empty", "NaN", "range", "channels", "batch"],
)
def test_as_rgba_refuses_bad_masks(image, mask, message):
    with pytest.raises(ValueError, match=message):
        as_rgba(image, mask)


@pytest.mark.parametrize(
    ("picture", "message"),
    [
        (torch.full((3, 8, 8), torch.nan), "image has NaN"),
        (torch.full((3, 8, 8), 255.0), "image has values from 255 to 255; expected"),
        (torch.zeros(5, 8, 8), r"image has shape \(5, 8, 8\); expected .* 1, 3 or 4 channels"),
    ],
    ids=["NaN", "range", "channels"],
)
def test_as_rgba_refuses_bad_pictures(picture, message):
    with pytest.raises(ValueError, match=message):
        as_rgba(picture, (0, 0, 4, 4))


def test_diffusers_is_not_imported():
    code = "import sys, alphaclip_gen.conditioning; sys.exit('diffusers' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=HERE.parent).returncode == 0
