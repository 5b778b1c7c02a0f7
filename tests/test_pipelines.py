"""The custom pipelines, loaded as users load them: from a saved stock folder and the file."""

import runpy
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

diffusers = pytest.importorskip("diffusers")

from alphaclip_gen.attention_focus import FOCUSED  # noqa: E402
from alphaclip_gen.vision import (  # noqa: E402
    AlphaCLIPVisionConfig,
    AlphaCLIPVisionModelWithProjection,
)

ROOT = Path(__file__).resolve().parents[1]
cases = SimpleNamespace(**runpy.run_path(str(ROOT / "tests" / "tiny_cases.py")))
BOX = (0, 0, 16, 32)

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
]


def loaded(stock, file, folder, **components):
    torch.manual_seed(0)
    getattr(cases.pipes, stock)().save_pretrained(folder)
    pipe = diffusers.DiffusionPipeline.from_pretrained(
        folder,
        custom_pipeline=str(ROOT / "pipelines" / file),
        trust_remote_code=True,
        safety_checker=None,
        **components,
    )
    pipe.set_progress_bar_config(disable=True)
    return pipe


@pytest.fixture
def image():
    pixels = torch.rand(4, 4, 3, generator=torch.Generator().manual_seed(1)) * 255
    return Image.fromarray(pixels.byte().numpy()).resize((32, 32), Image.Resampling.NEAREST)


def run(pipe, *inputs, **arguments):
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        return pipe(
            *inputs, num_inference_steps=2, generator=generator, output_type="latent", **arguments
        )[0]


def check_regions(pipe, stock, image):
    """Every way to say a region agrees; RGB is the stock pipeline's own; a region changes it."""
    mask = np.zeros((32, 32), dtype=bool)
    mask[:, :16] = True
    rgba = image.convert("RGBA")
    rgba.putalpha(Image.fromarray(mask).convert("L"))
    regions = [BOX, mask, Image.fromarray(mask), torch.from_numpy(mask)]
    half = run(pipe, rgba)
    assert all(torch.equal(run(pipe, image, region), half) for region in regions)
    assert torch.equal(run(pipe, image), run(stock, image))
    assert (half - run(pipe, image)).norm() > 1e-3


def test_image_variation(image, tmp_path):
    pipe = loaded("image_variation", "image_variation.py", tmp_path)
    assert type(pipe).__name__ == "AlphaImageVariationPipeline"
    stock = diffusers.StableDiffusionImageVariationPipeline.from_pretrained(
        tmp_path, safety_checker=None
    )
    stock.set_progress_bar_config(disable=True)
    check_regions(pipe, stock, image)
    assert type(pipe.image_encoder) in FOCUSED.values()
    two = run(pipe, [image, image], [BOX, None])
    assert len(two) == 2


def test_image_variation_with_alpha_weights(image, tmp_path):
    config = AlphaCLIPVisionConfig(**cases.parts.vision_config().to_dict() | {"model_type": None})
    tower = AlphaCLIPVisionModelWithProjection(config).eval()
    torch.nn.init.normal_(tower.vision_model.embeddings.patch_embedding_alpha.weight)
    pipe = loaded("image_variation", "image_variation.py", tmp_path, image_encoder=tower)
    assert (run(pipe, image, BOX) - run(pipe, image)).norm() > 1e-3
    assert pipe.image_encoder is tower


def test_shap_e(image, tmp_path):
    torch.manual_seed(0)
    cases.pipes.shap_e().save_pretrained(tmp_path)
    pipe, stock = (
        diffusers.DiffusionPipeline.from_pretrained(tmp_path, **how)
        for how in (
            {"custom_pipeline": str(ROOT / "pipelines/shap_e.py"), "trust_remote_code": True},
            {},
        )
    )
    for one in (pipe, stock):
        one.set_progress_bar_config(disable=True)
    assert type(pipe).__name__ == "AlphaShapEPipeline"
    check_regions(pipe, stock, image)


def test_ip_adapter(image, tmp_path):
    pipe = loaded("stable_diffusion", "ip_adapter.py", tmp_path)
    assert type(pipe).__name__ == "AlphaIPAdapterPipeline"
    without = run(pipe, "a")
    cases.adapters.with_adapter(pipe)
    whole, half = run(pipe, "a", image), run(pipe, "a", image, BOX)
    assert (whole - without).norm() > 1e-3
    assert (half - whole).norm() > 1e-3
    assert torch.equal(run(pipe, "a", [[image]], [[BOX]]), half)
    mask = torch.zeros(32, 32, dtype=torch.bool)
    mask[:, :16] = True
    assert torch.equal(run(pipe, "a", image, mask), half)
    assert torch.equal(run(pipe, "a", cases.with_region(image)), half)
    references = [run(pipe, "a", [image, image], masks) for masks in ([BOX, None], [None, BOX])]
    assert (references[0] - half).norm() > 1e-3
    torch.testing.assert_close(*references, atol=1e-3, rtol=1e-3)


def test_references_that_would_lose_their_region_are_refused(image, tmp_path):
    pipe = loaded("stable_diffusion", "ip_adapter.py", tmp_path)
    with pytest.raises(ValueError, match="alpha_mask is given without image; exp"):
        run(pipe, "a", alpha_mask=BOX)
    with pytest.raises(ValueError, match="ip_adapter_image is called image here"):
        run(pipe, "a", ip_adapter_image=image)
    with pytest.raises(ValueError, match="image is an empty list; expected at least one picture"):
        run(pipe, "a", [])


@pytest.mark.parametrize("file", sorted((ROOT / "pipelines").glob("*.py")), ids=lambda f: f.stem)
def test_a_missing_library_is_one_clear_line(file, monkeypatch):
    monkeypatch.setitem(sys.modules, "alphaclip_gen", None)
    with pytest.raises(ImportError, match=r"^this pipeline needs alphaclip_gen: pip install .*$"):
        runpy.run_path(str(file))
