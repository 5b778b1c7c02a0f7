"""BLIP-Diffusion on today's packages against the stack that it was published for.

The old stack is installed into a temporary folder and run in a process of its own, with tiny random
weights. Usage: python -m pytest -m parity -s tests/test_subject_parity.py
ALPHACLIP_OLD_STACK names a folder in which it is installed already.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from alphaclip_gen.subject import AlphaBlipDiffusionPipeline

pytestmark = [pytest.mark.slow, pytest.mark.network, pytest.mark.parity]

OLD_STACK = ("transformers==4.44.2", "diffusers==0.33.1", "huggingface_hub==0.34.4")
ORACLE = Path(__file__).with_name("oracle_blip_diffusion.py")
TOLERANCE = 1e-5


@pytest.fixture(scope="module")
def old_stack(tmp_path_factory):
    if given := os.environ.get("ALPHACLIP_OLD_STACK"):
        return Path(given)
    folder = tmp_path_factory.mktemp("old_stack")
    install = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps"]
    subprocess.run([*install, "--target", str(folder), *OLD_STACK], check=True)
    return folder


@pytest.fixture(scope="module")
def oracle(old_stack, tmp_path_factory):
    """The folder that the old stack wrote, and its inputs and outputs."""
    folder = tmp_path_factory.mktemp("oracle")
    subprocess.run(
        [sys.executable, str(ORACLE), str(folder)],
        check=True,
        env=os.environ | {"PYTHONPATH": str(old_stack), "HF_HUB_OFFLINE": "1"},
        capture_output=True,
    )
    return folder, load_file(folder / "oracle.safetensors")


def load(folder):
    pipe = AlphaBlipDiffusionPipeline.from_pretrained(folder)
    pipe.set_progress_bar_config(disable=True)
    return pipe


@pytest.fixture(scope="module")
def pipe(oracle):
    return load(oracle[0] / "pipeline")


def compare(name, got, expected):
    """Prints the largest difference, and holds it to the tolerance."""
    difference = (got - expected).abs().max().item()
    size = expected.abs().mean().item()
    print(f"\nparity  BLIP-Diffusion, {name:<30} {difference:.1e}")
    assert got.shape == expected.shape
    assert difference <= TOLERANCE
    assert size > 0.01


def options(known):
    return {
        "prompt": ["on a beach", "in the snow"],
        "image": Image.fromarray(known["picture"].numpy()),
        "source_subject_category": ["dog", "the cat"],
        "target_subject_category": ["dog", "cat"],
        "height": 32,
        "width": 32,
        "num_inference_steps": 4,
        "negative_prompt": "blurry",
        "output_type": "pt",
        "latents": known["latents"],
    }


@torch.no_grad()
def test_vision(pipe, oracle):
    known = oracle[1]
    compare("vision", pipe.qformer.visual_encoder(known["pixels"]), known["vision"])


@torch.no_grad()
def test_qformer(pipe, oracle):
    known = oracle[1]
    pipe.encode_subject(Image.new("RGB", (32, 32)), "dog")  # loads the Q-Former's tokenizer
    words = pipe.qformer_tokenizer(["dog", "the cat"], padding=True, return_tensors="pt")
    queries = pipe.qformer(known["pixels"], words.input_ids, words.attention_mask)
    compare("Q-Former", queries, known["queries"])


@torch.no_grad()
def test_text(pipe, oracle):
    known = oracle[1]
    embeddings = pipe.encode_prompt(["a dog on a beach", "cat"], known["queries"])
    compare("text", embeddings, known["text"])


def test_image(pipe, oracle):
    known = oracle[1]
    compare("image", pipe(**options(known)).images, known["image"])
    unguided = pipe(**options(known), guidance_scale=1.0).images
    compare("image, no guidance", unguided, known["image_unguided"])


def test_image_with_control(oracle):
    folder, known = oracle
    edges = Image.fromarray(known["edges"].numpy())
    images = load(folder / "controlled")(**options(known), control_image=edges).images
    compare("image, ControlNet", images, known["image_controlled"])


def test_the_reference_and_the_control_matter_to_what_is_compared(pipe, oracle):
    known = oracle[1]
    other = options(known) | {"image": Image.new("RGB", (32, 32), "red")}
    assert (pipe(**other).images - known["image"]).abs().max() > 100 * TOLERANCE
    difference = known["image_controlled"] - known["image"]
    assert difference.abs().max() > 100 * TOLERANCE


def test_resized_pictures_differ_by_eight_bit_rounding_only(pipe, oracle):
    """The published processor rounds to 8 bits after each of Pillow's two passes; ours does not."""
    known = oracle[1]
    ours = pipe.image_processor(known["wide"].numpy())[:, :3]
    levels = 255 * torch.tensor(pipe.config.std).view(3, 1, 1)
    difference = (ours - known["wide_pixels"]).abs() * levels
    print(f"\nparity  BLIP-Diffusion, resized picture, of 255 levels {difference.max():.2f}")
    assert difference.max() < 1.1


def test_save_and_load_changes_nothing(pipe, oracle, tmp_path):
    known = oracle[1]
    pipe.save_pretrained(tmp_path)
    compare("image, saved by us", load(tmp_path)(**options(known)).images, known["image"])
