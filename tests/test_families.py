"""focus() on every pipeline that it covers, by Alpha-CLIP weights and without training.

`python tests/test_families.py` runs the same cases and writes their tables: docs/pipelines.md, and
the shorter one between two comments of README.md.
"""

import contextlib
import runpy
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

pytest.importorskip("diffusers")

from alphaclip_gen.conditioning import focus, unfocus
from alphaclip_gen.processor import AlphaCLIPImageProcessor

HERE = Path(__file__).resolve().parent
PAGE, README = HERE.parent / "docs" / "pipelines.md", HERE.parent / "README.md"
BETWEEN = ("<!-- pipelines: written by python tests/test_families.py -->\n", "<!-- end -->")
cases = SimpleNamespace(**runpy.run_path(str(HERE / "tiny_cases.py")))
MEASURED = {}  # (case, mechanism) -> how far results moved, for the table

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
]


@pytest.fixture(name="image")
def picture():
    return cases.noise_picture()


def measure(case, mechanism, image):
    """How far each kind of picture moves the result, relative to what RGB gives."""
    pipe = cases.build(case)
    stock = cases.own_tower(pipe)
    tower = cases.alpha_tower(stock) if mechanism == "alpha" else None
    plain = cases.run(case, pipe, image)
    cases.focused(pipe, tower)
    rgb = cases.run(case, pipe, image)
    if mechanism == "alpha":
        cases.focused(pipe, cases.alpha_tower(stock, std=0.5))
    pictures = (image, cases.with_region(image, 1), cases.with_region(image))
    everywhere, full, half = (cases.run(case, pipe, picture) for picture in pictures)
    unfocus(pipe)
    back = cases.run(case, pipe, image)
    return {
        "rgb": cases.moved(rgb, plain),
        "full": cases.moved(full, everywhere),
        "half": cases.moved(half, everywhere),
        "back": cases.moved(back, plain),
    }


@pytest.mark.parametrize("mechanism", ["alpha", "training-free"])
@pytest.mark.parametrize("case", cases.CASES, ids=lambda case: case.name)
def test_every_pipeline(case, mechanism, image):
    change = measure(case, mechanism, image)
    MEASURED[case.name, mechanism] = change
    assert change["rgb"] == 0
    assert change["full"] < 1e-5
    assert change["half"] > 1e-3
    assert change["back"] == 0


# The tables


def works_by_hand(case, image):
    """Whether it is enough to put a tower and a processor for RGBA into the stock pipeline."""
    pipe = cases.build(case)
    with cases.focused(pipe) as same:
        tower = same.image_encoder if hasattr(same, "image_encoder") else cases.own_tower(same)
        tower = getattr(tower, "model", tower)
    processor = AlphaCLIPImageProcessor.for_side(tower.config.image_size)
    if hasattr(pipe, "components"):
        slot = "feature_extractor" if "feature_extractor" in pipe.components else "image_processor"
        pipe.register_modules(**{"image_encoder": tower, slot: processor})
    else:
        pipe.model.vision_tower, pipe.processor_in_use.image_processor = tower, processor
    pictures = (cases.with_region(image), image)
    try:
        half, whole = (cases.run(case, pipe, picture) for picture in pictures)
    except Exception:  # whatever a pipeline says about it
        return False
    return cases.moved(half, whole) > 1e-3


def rows(measured, image):
    """(pipeline, whether it works by hand, what `focus` replaces, published weights) of each."""
    for case in cases.CASES:
        for one in (measured.get((case.name, kind)) for kind in ("alpha", "training-free")):
            assert one is None or one["half"] > 1e-3 > 1e-5 > one["full"], case.name
            assert one is None or one["rgb"] == one["back"] == 0, case.name
        replaced = ", ".join(f"`{name}`" for name in cases.focused(cases.build(case)).changes)
        weights = "yes" if case.published else "none: training-free"
        yield case.name, works_by_hand(case, image), replaced, weights


def page(found):
    """docs/pipelines.md: a row for each pipeline."""
    lines = [
        "# Pipelines that `focus` covers",
        "",
        "Written by `python tests/test_families.py`, which runs each with tiny random weights.",
        "Held, for Alpha-CLIP weights and without training: an RGB picture gives the unfocused",
        "pipeline's result bit for bit, a full mask gives that of RGB, a half mask another one,",
        "and `unfocus` gives the first back. There is no Alpha-CLIP for SigLIP (Redux).",
        "Whether an Alpha-CLIP is published for the tower of the real pipeline is not measured.",
        "",
        "| pipeline | tower and processor by hand | `focus` replaces | published Alpha-CLIP |",
        "|---|---|---|---|",
    ]
    for name, works, replaced, weights in found:
        lines.append(f"| {name} | {'works' if works else 'fails'} | {replaced} | {weights} |")
    return "\n".join([*lines, ""])


def block(found):
    """The README's table: a row for all pipelines of which the same holds."""
    alike = {}
    for name, works, replaced, _ in found:
        alike.setdefault((works, replaced), []).append(name.removesuffix("Pipeline"))
    lines = ["| pipeline | works unchanged | `focus` replaces |", "|---|---|---|"]
    for (works, replaced), names in alike.items():
        lines.append(f"| {'; '.join(names)} | {'yes' if works else 'no'} | {replaced} |")
    return "\n".join([*lines, ""])


def with_block(readme, found):
    """README.md with the table between its comments."""
    before, after = readme.split(BETWEEN[0])
    return before + BETWEEN[0] + block(found) + BETWEEN[1] + after.split(BETWEEN[1], 1)[1]


def test_the_tables_say_what_this_run_measured(image):
    if {name for name, _ in MEASURED} != cases.BY_NAME.keys():
        pytest.skip("only a part of the pipelines ran")
    found, readme = list(rows(MEASURED, image)), README.read_text(encoding="utf-8")
    stale = "%s is not up to date: python tests/test_families.py writes it"
    assert PAGE.read_text(encoding="utf-8") == page(found), stale % "docs/pipelines.md"
    assert readme == with_block(readme, found), stale % "README.md"


# What a family needs besides


@pytest.mark.parametrize("name", ["StableVideoDiffusionPipeline", "WanImageToVideoPipeline"])
def test_the_first_frame_keeps_its_color_where_alpha_is_zero(name, image):
    """Resizing RGBA in Pillow blackens what is transparent: the VAE must not see that."""
    pipe = cases.build(cases.BY_NAME[name])
    large = image.resize((48, 48))
    expected = pipe.video_processor.preprocess(large, height=16, width=16)
    focus(pipe)
    given = cases.with_region(large)
    array = np.array(given)[None] / np.float32(255)
    tensor = torch.from_numpy(array).movedim(-1, 1)
    for picture in (given, [given]):
        assert torch.equal(pipe.video_processor.preprocess(picture, 16, 16), expected)
    for picture in (array, tensor):
        assert pipe.video_processor.preprocess(picture, 16, 16).shape == expected.shape
    assert pipe.video_processor.config.vae_scale_factor > 1


def test_what_has_no_tower_to_focus_is_refused():
    with pytest.raises(TypeError, match="pipe is a Linear; expected a diffusers pipeline"):
        focus(torch.nn.Linear(1, 1))
    pipe = cases.build(cases.BY_NAME["IP-Adapter, SD 1.5"])
    pipe.register_modules(image_encoder=None)
    with pytest.raises(ValueError, match=r"no image encoder yet; pipe.load_ip_adapter"):
        focus(pipe)
    with pytest.raises(ValueError, match="expected the LlavaProcessor in use"):
        focus(cases.pipes.llava())


def write_tables():
    picture = cases.noise_picture()
    measured = {}
    for case in cases.CASES:
        for kind in ("alpha", "training-free"):
            with contextlib.suppress(pytest.skip.Exception):
                measured[case.name, kind] = measure(case, kind, picture)
    found, readme = list(rows(measured, picture)), README.read_text(encoding="utf-8")
    PAGE.parent.mkdir(exist_ok=True)
    PAGE.write_text(page(found), encoding="utf-8")
    README.write_text(with_block(readme, found), encoding="utf-8")


if __name__ == "__main__":
    write_tables()
