"""focus() on every pipeline that it covers, by Alpha-CLIP weights and without training.

`python tests/test_conditioning.py` runs the same cases and writes docs/pipelines.md.
"""

import contextlib
import runpy
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import CLIPModel, CLIPVisionConfig, CLIPVisionModel, CLIPVisionModelWithProjection

diffusers = pytest.importorskip("diffusers")

import alphaclip_gen.conditioning as conditioning  # noqa: E402
from alphaclip_gen.attention_focus import FOCUSED  # noqa: E402
from alphaclip_gen.baselines import BASELINES  # noqa: E402
from alphaclip_gen.conditioning import as_rgba, focus, unfocus  # noqa: E402
from alphaclip_gen.processor import AlphaCLIPImageProcessor  # noqa: E402
from alphaclip_gen.vision import (  # noqa: E402
    AlphaCLIPVisionConfig,
    AlphaCLIPVisionModel,
    AlphaCLIPVisionModelWithProjection,
)

TABLE = Path(__file__).resolve().parents[1] / "docs" / "pipelines.md"
TINY = runpy.run_path(str(Path(__file__).with_name("tiny_pipelines.py")))
CASES = TINY["CASES"]
BY_NAME = {case.name: case for case in CASES}
VARIATION = BY_NAME["StableDiffusionImageVariationPipeline"]
MEASURED = {}  # (case, mechanism) -> how far results moved, for the table
FAMILY = {
    CLIPVisionModel: AlphaCLIPVisionModel,
    CLIPVisionModelWithProjection: AlphaCLIPVisionModelWithProjection,
}

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
]


def build(case):
    torch.manual_seed(0)
    pipe = case.build()
    if hasattr(pipe, "set_progress_bar_config"):
        pipe.set_progress_bar_config(disable=True)
    else:
        object.__setattr__(pipe, "processor_in_use", TINY["llava_processor"]())
    return pipe


def focused(pipe, tower=None):
    return focus(pipe, tower, getattr(pipe, "processor_in_use", None))


def run(case, pipe, image):
    with torch.no_grad():
        return case.run(pipe, image).float()


def own_tower(pipe):
    return conditioning._tower_place(pipe).value


def alpha_tower(stock, std=0.0):
    """The tower as an Alpha-CLIP; with `std`, its alpha weights are as if they were trained."""
    kind = FAMILY.get(type(stock))
    if kind is None:
        pytest.skip("no Alpha-CLIP is a SigLIP")
    tower = kind(AlphaCLIPVisionConfig(**stock.config.to_dict() | {"model_type": None}))
    tower.load_state_dict(stock.state_dict(), strict=False)
    for name, parameter in tower.named_parameters():
        if "alpha" in name:
            torch.nn.init.normal_(parameter, std=std)
    return tower.eval()


@pytest.fixture(name="image")
def picture():
    return noise_picture()


def noise_picture():
    noise = torch.rand(3, 4, 4, generator=torch.Generator().manual_seed(1))
    pixels = (noise * 255).byte().movedim(0, -1).numpy()
    return Image.fromarray(pixels).resize((32, 32), Image.Resampling.NEAREST)


def with_region(image, side=0.5):
    """The picture with its left part, `side` of the width, as the region."""
    alpha = np.zeros((image.height, image.width), dtype=np.uint8)
    alpha[:, : round(side * image.width)] = 255
    rgba = image.convert("RGBA")
    rgba.putalpha(Image.fromarray(alpha))
    return rgba


def measure(case, mechanism, image):
    """How far each kind of picture moves the result, relative to what RGB gives."""
    pipe = build(case)
    stock = own_tower(pipe)
    tower = alpha_tower(stock) if mechanism == "alpha" else None
    plain = run(case, pipe, image)
    focused(pipe, tower)
    rgb = run(case, pipe, image)
    if mechanism == "alpha":
        focused(pipe, alpha_tower(stock, std=0.5))
    pictures = (image, with_region(image, 1), with_region(image))
    everywhere, full, half = (run(case, pipe, picture) for picture in pictures)
    unfocus(pipe)
    back = run(case, pipe, image)
    return {
        "rgb": moved(rgb, plain),
        "full": moved(full, everywhere),
        "half": moved(half, everywhere),
        "back": moved(back, plain),
    }


def moved(result, from_what):
    return ((result - from_what).norm() / from_what.norm()).item()


@pytest.mark.parametrize("mechanism", ["alpha", "training-free"])
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_every_pipeline(case, mechanism, image):
    change = measure(case, mechanism, image)
    MEASURED[case.name, mechanism] = change
    assert change["rgb"] == 0
    assert change["full"] < 1e-5
    assert change["half"] > 1e-3
    assert change["back"] == 0


# The table of docs/pipelines.md


def works_by_hand(case, image):
    """Whether it is enough to put a tower and a processor for RGBA into the stock pipeline."""
    pipe = build(case)
    with focused(pipe) as same:
        tower = same.image_encoder if hasattr(same, "image_encoder") else own_tower(same)
        tower = getattr(tower, "model", tower)
    processor = AlphaCLIPImageProcessor.for_side(tower.config.image_size)
    if hasattr(pipe, "components"):
        slot = "feature_extractor" if "feature_extractor" in pipe.components else "image_processor"
        pipe.register_modules(**{"image_encoder": tower, slot: processor})
    else:
        pipe.model.vision_tower, pipe.processor_in_use.image_processor = tower, processor
    try:
        return moved(run(case, pipe, with_region(image)), run(case, pipe, image)) > 1e-3
    except Exception:  # whatever a pipeline says about it
        return False


def table(measured, image):
    """docs/pipelines.md, from what was measured."""
    lines = [
        "# Pipelines that `focus` covers",
        "",
        "Written by `python tests/test_conditioning.py`, which runs each with tiny random weights.",
        "Held, for Alpha-CLIP weights and without training: an RGB picture gives the unfocused",
        "pipeline's result bit for bit, a full mask gives that of RGB, a half mask another one,",
        "and `unfocus` gives the first back. There is no Alpha-CLIP for SigLIP (Redux).",
        "Whether an Alpha-CLIP is published for the tower of the real pipeline is not measured.",
        "",
        "| pipeline | tower and processor by hand | `focus` replaces | published Alpha-CLIP |",
        "|---|---|---|---|",
    ]
    for case in CASES:
        for one in (measured.get((case.name, kind)) for kind in ("alpha", "training-free")):
            assert one is None or one["half"] > 1e-3 > 1e-5 > one["full"], case.name
            assert one is None or one["rgb"] == one["back"] == 0, case.name
        pipe = build(case)
        names = ", ".join(f"`{name}`" for name in focused(pipe).changes)
        by_hand = "works" if works_by_hand(case, image) else "fails"
        weights = "yes" if case.alpha_weights else "none: training-free"
        lines.append(f"| {case.name} | {by_hand} | {names} | {weights} |")
    return "\n".join([*lines, ""])


def test_the_table_says_what_this_run_measured(image):
    if {name for name, _ in MEASURED} != BY_NAME.keys():
        pytest.skip("only a part of the pipelines ran")
    assert TABLE.read_text(encoding="utf-8") == table(MEASURED, image), (
        "docs/pipelines.md is not up to date: python tests/test_conditioning.py writes it"
    )


# What is replaced, and the way back


def test_tower_and_processor_change_together_and_come_back():
    pipe = build(VARIATION)
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
    pipe = build(VARIATION)
    own = pipe.image_encoder
    with pytest.raises(RuntimeError, match="out of memory"), focus(pipe) as same:
        assert same is pipe and pipe.image_encoder is not own
        raise RuntimeError("out of memory")
    assert pipe.image_encoder is own


def test_focusing_again_replaces_the_tower_and_keeps_the_way_back(image):
    pipe = build(VARIATION)
    own, plain = pipe.image_encoder, run(VARIATION, pipe, image)
    first = alpha_tower(own, std=0.5)
    focus(pipe)
    focus(pipe, first)
    assert pipe.image_encoder is first
    again = focus(pipe)
    assert pipe.image_encoder is first and len(again.changes) == 2
    unfocus(pipe)
    assert pipe.image_encoder is own
    assert torch.equal(run(VARIATION, pipe, image), plain)


def test_a_stock_tower_of_another_input_size_is_made_to_follow_alpha(image):
    """Only the projection ties an image variation to its tower, so 64 pixels are fine."""
    pipe = build(VARIATION)
    focus(pipe, TINY["vision"](size=64))
    assert type(pipe.image_encoder) is FOCUSED[CLIPVisionModelWithProjection]
    assert pipe.feature_extractor.crop_size.height == 64
    changed = run(VARIATION, pipe, with_region(image)) - run(VARIATION, pipe, image)
    assert changed.norm() > 1e-3


def test_a_tower_by_name_is_loaded(monkeypatch, tmp_path):
    checkpoints = pytest.importorskip("alphaclip_gen.checkpoints")
    pipe = build(VARIATION)
    tower = alpha_tower(pipe.image_encoder)
    monkeypatch.setattr(checkpoints, "load_tower", {tmp_path: tower}.__getitem__)
    focus(pipe, tmp_path)
    assert pipe.image_encoder is tower


@pytest.mark.parametrize("name", BASELINES)
def test_baselines_go_before_the_own_tower(name, image):
    pipe = build(VARIATION)
    own, plain = pipe.image_encoder, run(VARIATION, pipe, image)
    focus(pipe)
    focus(pipe, BASELINES[name])
    assert pipe.image_encoder is own
    assert torch.equal(run(VARIATION, pipe, with_region(image, 1)), plain)
    rgba = as_rgba(image, (8, 8, 20, 20))
    half = run(VARIATION, pipe, rgba)
    changed = as_tensor_image(BASELINES[name], rgba)
    unfocus(pipe)
    torch.testing.assert_close(half, run(VARIATION, pipe, changed), atol=1e-4, rtol=1e-4)
    assert (half - plain).norm() > 1e-3


def as_tensor_image(baseline, rgba):
    channels = torch.from_numpy(np.array(rgba)).movedim(-1, 0)[None] / 255
    pixels = baseline(channels[:, :3], channels[:, 3:])[0]
    return Image.fromarray((pixels * 255).round().byte().movedim(0, -1).numpy())


def test_each_reference_has_its_own_region(image):
    case = BY_NAME["IP-Adapter, several references"]
    pipe = build(case)
    focus(pipe)

    def result(first, second):
        with torch.no_grad():
            return TINY["adapted"](pipe, [[with_region(image, first), with_region(image, second)]])

    both = result(0.5, 0.5)
    assert (result(0.25, 0.5) - both).norm() > 1e-3
    assert (result(0.5, 0.25) - both).norm() > 1e-3
    mixed = TINY["adapted"](pipe, [[image, with_region(image)]])
    assert (mixed - both).norm() > 1e-3


@pytest.mark.parametrize("name", ["StableVideoDiffusionPipeline", "WanImageToVideoPipeline"])
def test_the_first_frame_keeps_its_color_where_alpha_is_zero(name, image):
    """Resizing RGBA in Pillow blackens what is transparent: the VAE must not see that."""
    pipe = build(BY_NAME[name])
    large = image.resize((48, 48))
    expected = pipe.video_processor.preprocess(large, height=16, width=16)
    focus(pipe)
    given = with_region(large)
    array = np.array(given)[None] / np.float32(255)
    tensor = torch.from_numpy(array).movedim(-1, 1)
    for picture in (given, [given]):
        assert torch.equal(pipe.video_processor.preprocess(picture, 16, 16), expected)
    for picture in (array, tensor):
        assert pipe.video_processor.preprocess(picture, 16, 16).shape == expected.shape
    assert pipe.video_processor.config.vae_scale_factor > 1


# Towers that do not fit


def test_a_tower_of_another_projection_is_refused():
    pipe = build(VARIATION)
    own = pipe.image_encoder
    with pytest.raises(
        ValueError,
        match=r"has width 16, 17 tokens and projection 12; StableDiffusionImageVariationPipeline "
        r"needs the projection of its own CLIPVisionModelWithProjection, which has width 16, 17 "
        r"tokens and projection 16. No published Alpha-CLIP would fit; focus\(pipe\) without",
    ):
        focus(pipe, TINY["vision"](projection_dim=12))
    assert pipe.image_encoder is own
    with pytest.raises(ValueError, match="is not focused"):
        unfocus(pipe)


def test_width_and_tokens_are_checked_where_tokens_are_read():
    pipe = build(BY_NAME["WanImageToVideoPipeline"])
    with pytest.raises(ValueError, match=r"5 tokens .* needs the width and tokens of its own"):
        focus(pipe, TINY["vision"](patch=16))
    focus(pipe, alpha_tower(TINY["vision"]()))
    assert type(pipe.image_encoder) is AlphaCLIPVisionModel, "its projection is left out"
    plus = build(BY_NAME["IP-Adapter Plus, SD 1.5"])
    wider = vision_config(hidden_size=32, image_size=32, patch_size=8, projection_dim=16)
    with pytest.raises(ValueError, match=r"width 32.* needs the projection and width of its own"):
        focus(plus, CLIPVisionModelWithProjection(wider))
    video = build(BY_NAME["StableVideoDiffusionPipeline"])
    with pytest.raises(ValueError, match="needs the projection and tokens of its own"):
        focus(video, TINY["vision"](size=32, patch=16))


def test_published_towers_that_would_fit_are_named():
    """ShapE's pipeline at its true size has an L/14; a B/16 is offered."""
    with torch.device("meta"):
        sizes = {"num_hidden_layers": 1, "image_size": 224}
        large = CLIPVisionModel(vision_config(hidden_size=1024, patch_size=14, **sizes))
        base = CLIPVisionModel(vision_config(hidden_size=768, patch_size=16, **sizes))
    pipe = build(BY_NAME["ShapEImg2ImgPipeline"])
    pipe.image_encoder = large
    with pytest.raises(ValueError, match=r"\. Alpha-CLIP ViT-L/14 would fit; focus\(pipe\)"):
        focus(pipe, base)


def vision_config(**changes):
    return CLIPVisionConfig(intermediate_size=8, num_attention_heads=8, **changes)


def test_what_is_no_tower_or_no_pipeline_is_refused():
    pipe = build(VARIATION)
    config = {"vision_config": TINY["vision_config"]().to_dict()}
    with pytest.raises(TypeError, match=r"tower is a CLIPModel; expected an Alpha-CLIP vision"):
        focus(pipe, CLIPModel(CLIPModel.config_class(**config)))
    with pytest.raises(TypeError, match="pipe is a Linear; expected a diffusers pipeline"):
        focus(torch.nn.Linear(1, 1))
    pipe = build(BY_NAME["IP-Adapter, SD 1.5"])
    pipe.register_modules(image_encoder=None)
    with pytest.raises(ValueError, match=r"no image encoder yet; pipe.load_ip_adapter"):
        focus(pipe)
    with pytest.raises(ValueError, match="expected the LlavaProcessor in use"):
        focus(TINY["llava"]())


# Devices, offload, saving


def test_dtype_follows_the_pipeline_and_goes_back_with_the_tower(image):
    pipe = build(VARIATION)
    own = pipe.image_encoder
    focus(pipe, alpha_tower(own, std=0.5))
    pipe.to(torch.bfloat16)
    assert pipe.image_encoder.dtype == torch.bfloat16
    assert run(VARIATION, pipe, with_region(image)).isfinite().all()
    unfocus(pipe)
    assert own.dtype == torch.bfloat16
    focus(pipe, alpha_tower(TINY["vision"]()))
    assert pipe.image_encoder.dtype == torch.bfloat16


@pytest.mark.parametrize("tower", ["alpha", "own"])
@pytest.mark.parametrize("order", ["focus first", "offload first"])
@pytest.mark.parametrize("offload", ["model", "sequential"])
def test_offload_goes_on(offload, order, tower, image):
    """On a CPU nothing moves, but the hooks are there; diffusers cannot run the sequential ones."""
    pipe = build(VARIATION)
    plain = run(VARIATION, pipe, image)
    given = alpha_tower(pipe.image_encoder, std=0.5) if tower == "alpha" else None
    with focus(pipe, given):
        expected = run(VARIATION, pipe, with_region(image))
    if order == "focus first":
        focus(pipe, given)
    getattr(pipe, f"enable_{offload}_cpu_offload")(device="cpu")

    def offloaded():
        hooked = [m for m in pipe.image_encoder.modules() if hasattr(m, "_hf_hook")]
        return len(hooked) == 1 if offload == "model" else pipe.image_encoder.device.type == "meta"

    def result(picture):
        if offload == "sequential":
            pipe.remove_all_hooks()
        return run(VARIATION, pipe, picture)

    if order == "offload first":
        focus(pipe, given)
    assert offloaded()
    assert torch.equal(result(with_region(image)), expected)
    getattr(pipe, f"enable_{offload}_cpu_offload")(device="cpu")
    unfocus(pipe)
    assert offloaded()
    assert torch.equal(result(image), plain)


def test_group_offload_is_refused_before_anything_changes():
    from diffusers.hooks import apply_group_offloading

    pipe = build(VARIATION)
    own = pipe.image_encoder
    apply_group_offloading(own, onload_device=torch.device("cpu"), offload_type="leaf_level")
    with pytest.raises(ValueError, match=r"group offloaded; call focus\(pipe, tower\) before"):
        focus(pipe)
    assert pipe.image_encoder is own


@pytest.mark.parametrize("mechanism", ["alpha", "training-free"])
@pytest.mark.parametrize(
    "name",
    [
        "StableDiffusionImageVariationPipeline",
        "ShapEImg2ImgPipeline",
        "StableVideoDiffusionPipeline",
    ],
)
def test_saved_and_loaded_again(name, mechanism, image, tmp_path):
    case = BY_NAME[name]
    pipe = build(case)
    focus(pipe, alpha_tower(own_tower(pipe), std=0.5) if mechanism == "alpha" else None)
    expected = run(case, pipe, with_region(image))
    pipe.save_pretrained(tmp_path)
    loaded = diffusers.DiffusionPipeline.from_pretrained(tmp_path)
    loaded.set_progress_bar_config(disable=True)
    assert type(loaded.image_encoder) is type(pipe.image_encoder)
    focus(loaded)
    assert type(loaded.image_encoder) is type(pipe.image_encoder)
    torch.testing.assert_close(
        run(case, loaded, with_region(image)), expected, atol=1e-3, rtol=1e-3
    )


def test_paint_by_example_loaded_again_asks_for_its_tower(image, tmp_path):
    """diffusers' encoder class rebuilds a stock tower: RGBA fails loudly until it is focused."""
    case = BY_NAME["PaintByExamplePipeline"]
    pipe = build(case)
    tower = alpha_tower(own_tower(pipe), std=0.5)
    focus(pipe, tower)
    expected = run(case, pipe, with_region(image))
    pipe.image_encoder.save_pretrained(tmp_path)
    pipe.register_modules(image_encoder=type(pipe.image_encoder).from_pretrained(tmp_path))
    with pytest.raises(RuntimeError, match="to have 3 channels, but got 4"):
        run(case, pipe, with_region(image))
    focus(pipe, tower)
    torch.testing.assert_close(run(case, pipe, with_region(image)), expected, atol=1e-3, rtol=1e-3)


def test_llava_saved_and_loaded_again(image, tmp_path):
    case = BY_NAME["LlavaForConditionalGeneration"]
    model = build(case)
    own = model.config.vision_config
    focused(model, alpha_tower(own_tower(model), std=0.5))
    expected = run(case, model, with_region(image))
    model.save_pretrained(tmp_path)
    loaded = type(model).from_pretrained(tmp_path)
    object.__setattr__(loaded, "processor_in_use", TINY["llava_processor"]())
    focused(loaded)
    assert type(own_tower(loaded)) is AlphaCLIPVisionModel
    torch.testing.assert_close(run(case, loaded, with_region(image)), expected)
    unfocus(model)
    assert model.config.vision_config is own
    assert "replace_image_token" not in vars(model.processor_in_use)


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
    with pytest.raises(ValueError, match=r"image has transparency and alpha_mask .* one region"):
        as_rgba(with_region(image), (0, 0, 8, 8))
    with pytest.raises(ValueError, match=r"mask is 8 high .* expected 32 high"):
        as_rgba(image, np.ones((8, 8), dtype=bool))
    with pytest.raises(ValueError, match="mask is empty"):
        as_rgba(image, np.zeros((32, 32), dtype=bool))
    with pytest.raises(ValueError, match="image has batch 2; expected one picture"):
        as_rgba(torch.rand(2, 3, 8, 8))


def test_diffusers_is_not_imported():
    code = "import sys, alphaclip_gen.conditioning; sys.exit('diffusers' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=TABLE.parents[1]).returncode == 0


def write_table():
    picture = noise_picture()
    measured = {}
    for case in CASES:
        for kind in ("alpha", "training-free"):
            with contextlib.suppress(pytest.skip.Exception):
                measured[case.name, kind] = measure(case, kind, picture)
    TABLE.parent.mkdir(exist_ok=True)
    TABLE.write_text(table(measured, picture), encoding="utf-8")


if __name__ == "__main__":
    write_table()
