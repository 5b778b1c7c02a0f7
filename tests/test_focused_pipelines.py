"""Focused pipelines keep working: dtype, offload, saving and loading, other IP-Adapters."""

import runpy
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

diffusers = pytest.importorskip("diffusers")
accelerate = pytest.importorskip("accelerate")

from diffusers.pipelines.deprecated.unclip.text_proj import UnCLIPTextProjModel  # noqa: E402

from alphaclip_gen.conditioning import focus, unfocus  # noqa: E402
from alphaclip_gen.vision import AlphaCLIPVisionModel  # noqa: E402

HERE = Path(__file__).resolve().parent
cases = SimpleNamespace(**runpy.run_path(str(HERE / "tiny_cases.py")))
VARIATION = cases.BY_NAME["StableDiffusionImageVariationPipeline"]
PAINT = cases.BY_NAME["PaintByExamplePipeline"]
NOT_SEQUENTIAL = {
    "KandinskyPriorPipeline",
    "KandinskyV22PriorPipeline",
    "FluxPriorReduxPipeline",
}
PIPELINES = [case for case in cases.CASES if case.name.partition("For")[0] != "Llava"]

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
]


@pytest.fixture(name="image")
def picture():
    return cases.noise_picture()


def test_dtype_follows_the_pipeline_and_goes_back_with_the_tower(image):
    pipe = cases.build(VARIATION)
    own = pipe.image_encoder
    focus(pipe, cases.alpha_tower(own, std=0.5))
    pipe.to(torch.bfloat16)
    assert pipe.image_encoder.dtype == torch.bfloat16
    assert cases.run(VARIATION, pipe, cases.with_region(image)).isfinite().all()
    unfocus(pipe)
    assert own.dtype == torch.bfloat16
    focus(pipe, cases.alpha_tower(cases.parts.vision()))
    assert pipe.image_encoder.dtype == torch.bfloat16


# Offload, on a CPU: nothing moves to another device, but accelerate's hooks do their work


@pytest.fixture
def enable(monkeypatch):
    """Enables a pipeline's offload by name."""
    stock = accelerate.cpu_offload

    def cpu_offload(model, device, **settings):
        """With "cpu:0", as diffusers says it, accelerate's parameters become mere tensors."""
        return stock(model, torch.device(device).type, **settings)

    monkeypatch.setattr(accelerate, "cpu_offload", cpu_offload)
    return lambda pipe, name: getattr(pipe, f"enable_{name}_cpu_offload")(device="cpu")


def is_offloaded(pipe, name):
    if "image_encoder" in pipe._exclude_from_cpu_offload:
        return pipe.image_encoder.device.type == "cpu"
    if name == "model":
        return len([m for m in pipe.image_encoder.modules() if hasattr(m, "_hf_hook")]) == 1
    return {value.device.type for value in pipe.image_encoder.parameters()} == {"meta"}


@pytest.mark.parametrize("offload", ["model", "sequential"])
@pytest.mark.parametrize("case", PIPELINES, ids=lambda case: case.name)
def test_every_pipeline_under_offload(case, offload, enable, image):
    if offload == "sequential" and case.name in NOT_SEQUENTIAL:
        pytest.skip("diffusers cannot run it so, focused or not")
    pipe = cases.build(case)
    plain = cases.run(case, pipe, image)
    focus(pipe)
    expected = cases.run(case, pipe, cases.with_region(image))
    enable(pipe, offload)
    assert is_offloaded(pipe, offload)
    assert torch.equal(cases.run(case, pipe, cases.with_region(image)), expected)
    unfocus(pipe)
    assert is_offloaded(pipe, offload)
    assert torch.equal(cases.run(case, pipe, image), plain)


@pytest.mark.parametrize("tower", ["alpha", "own"])
@pytest.mark.parametrize("offload", ["model", "sequential"])
def test_focus_after_offload(offload, tower, enable, image):
    pipe = cases.build(VARIATION)
    given = cases.alpha_tower(pipe.image_encoder, std=0.5) if tower == "alpha" else None
    with focus(pipe, given):
        expected = cases.run(VARIATION, pipe, cases.with_region(image))
    enable(pipe, offload)
    focus(pipe, given)
    assert is_offloaded(pipe, offload)
    assert torch.equal(cases.run(VARIATION, pipe, cases.with_region(image)), expected)


def test_group_offload_is_refused_before_anything_changes():
    from diffusers.hooks import apply_group_offloading

    pipe = cases.build(VARIATION)
    own = pipe.image_encoder
    apply_group_offloading(own, onload_device=torch.device("cpu"), offload_type="leaf_level")
    with pytest.raises(ValueError, match=r"group offloaded; call focus\(pipe, tower\) before"):
        focus(pipe)
    assert pipe.image_encoder is own


# Saving and loading


@pytest.fixture
def reload(monkeypatch, tmp_path):
    """Saves a pipeline and gives what diffusers loads again."""
    moved = UnCLIPTextProjModel  # diffusers 0.42 saves it under a home that it has left
    monkeypatch.setattr(diffusers, moved.__name__, moved, raising=False)

    def reload(case, pipe):
        pipe.save_pretrained(tmp_path)
        given = {name: None for name, part in pipe.components.items() if part is None}
        if "image_embedder" in pipe.components:  # narrower than its class makes it
            given["image_embedder"] = pipe.image_embedder
        loaded = diffusers.DiffusionPipeline.from_pretrained(tmp_path, **given)
        loaded.set_progress_bar_config(disable=True)
        return case.attach(loaded)

    return reload


@pytest.mark.parametrize("mechanism", ["alpha", "training-free"])
@pytest.mark.parametrize(
    "case", [case for case in PIPELINES if case is not PAINT], ids=lambda case: case.name
)
def test_saved_and_loaded_again(case, mechanism, image, reload):
    """RGBA works at once, but for the first frame of videos, which needs focus() again."""
    pipe = cases.build(case)
    focus(pipe, cases.alpha_tower(cases.own_tower(pipe), std=0.5) if mechanism == "alpha" else None)
    expected = cases.run(case, pipe, cases.with_region(image))
    loaded = reload(case, pipe)
    assert type(loaded.image_encoder) is type(pipe.image_encoder)
    assert loaded.image_encoder is not pipe.image_encoder
    if not hasattr(pipe, "video_processor"):
        assert cases.moved(cases.run(case, loaded, cases.with_region(image)), expected) < 1e-4
    focus(loaded)
    assert type(loaded.image_encoder) is type(pipe.image_encoder)
    assert cases.moved(cases.run(case, loaded, cases.with_region(image)), expected) < 1e-4


@pytest.mark.parametrize("mechanism", ["alpha", "training-free"])
def test_paint_by_example_loaded_again_asks_for_its_tower(mechanism, image, tmp_path):
    """diffusers' encoder class rebuilds a stock tower: RGBA fails loudly until it is focused.

    The whole pipeline diffusers 0.42 saves but does not load, focused or not.
    """
    pipe = cases.build(PAINT)
    tower = cases.alpha_tower(cases.own_tower(pipe), std=0.5) if mechanism == "alpha" else None
    focus(pipe, tower)
    expected = cases.run(PAINT, pipe, cases.with_region(image))
    pipe.image_encoder.save_pretrained(tmp_path)
    pipe.register_modules(image_encoder=type(pipe.image_encoder).from_pretrained(tmp_path))
    with pytest.raises(RuntimeError, match="to have 3 channels, but got 4"):
        cases.run(PAINT, pipe, cases.with_region(image))
    focus(pipe, tower)
    assert cases.moved(cases.run(PAINT, pipe, cases.with_region(image)), expected) < 1e-4


@pytest.mark.slow
def test_saved_and_loaded_in_another_process(image, tmp_path):
    """All that a program needs besides diffusers is `import alphaclip_gen`."""
    pipe = cases.build(VARIATION)
    focus(pipe)
    pipe.save_pretrained(tmp_path)
    code = (
        "import alphaclip_gen, diffusers, sys;"
        "pipe = diffusers.DiffusionPipeline.from_pretrained(sys.argv[1]);"
        "print(type(pipe.image_encoder).__name__, type(pipe.feature_extractor).__name__)"
    )
    command = [sys.executable, "-c", code, str(tmp_path)]
    told = subprocess.run(command, cwd=HERE.parent, capture_output=True, text=True, check=True)
    expected = ["FocusedCLIPVisionModelWithProjection", "AlphaCLIPImageProcessor"]
    assert told.stdout.split() == expected


def test_llava_saved_and_loaded_again(image, tmp_path):
    case = cases.BY_NAME["LlavaForConditionalGeneration"]
    model = cases.build(case)
    own = model.config.vision_config
    cases.focused(model, cases.alpha_tower(cases.own_tower(model), std=0.5))
    expected = cases.run(case, model, cases.with_region(image))
    model.save_pretrained(tmp_path)
    loaded = type(model).from_pretrained(tmp_path)
    object.__setattr__(loaded, "processor_in_use", cases.pipes.llava_processor())
    cases.focused(loaded)
    assert type(cases.own_tower(loaded)) is AlphaCLIPVisionModel
    torch.testing.assert_close(cases.run(case, loaded, cases.with_region(image)), expected)
    unfocus(model)
    assert model.config.vision_config is own
    assert "replace_image_token" not in vars(model.processor_in_use)


# Another IP-Adapter


def test_another_adapter_brings_its_own_tower(image):
    """What the user replaces after focus() is the user's: focus() and unfocus() start from it."""
    case = cases.BY_NAME["IP-Adapter, SD 1.5"]
    pipe = cases.build(case)
    stock = pipe.feature_extractor
    focus(pipe)
    pipe.unload_ip_adapter()
    second = cases.parts.vision(patch=16)
    pipe.register_modules(image_encoder=second)
    case.attach(pipe)
    with focus(pipe) as same:
        assert same.image_encoder.vision_model.embeddings.num_positions == 5
        assert cases.run(case, pipe, cases.with_region(image)).isfinite().all()
    assert pipe.image_encoder is second and pipe.feature_extractor is stock


def test_unfocus_after_the_adapter_was_unloaded():
    pipe = cases.build(cases.BY_NAME["IP-Adapter, SD 1.5"])
    stock = pipe.feature_extractor
    focus(pipe)
    pipe.unload_ip_adapter()
    unfocus(pipe)
    assert pipe.image_encoder is None and pipe.feature_extractor is stock
