"""Every example runs on the shipped mini and ends in a picture."""

import importlib.util
from pathlib import Path

import pytest

from alphaclip_gen.pictures import open_picture

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
"""Of diffusers' scheduler on numpy 2."""

ROOT = Path(__file__).resolve().parents[1]
EXAMPLES = sorted((ROOT / "examples").glob("*.py"))
ARGUMENTS = {
    "01_name_regions": {"picture": str(ROOT / "docs" / "scene.png")},
    "02_guide_anything": {"prompt": "a red sphere", "steps": 8},
    "03_foreign_renderer": {"prompt": "a red sphere", "steps": 4},
    "04_draw_the_subject": {},
}


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_example_ends_in_a_picture(path, tmp_path):
    spec = importlib.util.spec_from_file_location(path.stem, path)
    example = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(example)
    example.main(**ARGUMENTS[path.stem], target=str(tmp_path / "figure.png"))
    assert open_picture(tmp_path / "figure.png").width > 400


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_example_says_how_to_run_it_and_is_short(path):
    text = path.read_text(encoding="utf-8")
    assert f"Usage: python examples/{path.name}" in text
    assert len(text.splitlines()) < 70
