"""The evaluation of objects of two parts, on programs that write ready-made meshes."""

import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import trimesh

from alphaclip_gen import evaluate_parts as parts
from alphaclip_gen.evaluate_parts import EvaluateParts, Pair, PairRow, evaluate_parts
from alphaclip_gen.made_meshes import slug
from alphaclip_gen.mesh_judges import target
from alphaclip_gen.mini.captions import COLORS
from alphaclip_gen.mini.solid_meshes import blotch, solid_mesh

PAIRS = [
    Pair("a red cone", "top", "a blue cube", "bottom"),
    Pair("a green sphere", "left", "a yellow cylinder", "right"),
]
PROGRAM = """
import argparse, shutil
from pathlib import Path

parser = argparse.ArgumentParser()
parser.add_argument("--prompts", type=Path, required=True)
parser.add_argument("--output", type=Path, required=True)
parser.add_argument("--preset")
parser.add_argument("--resume", action="store_true")
arguments = parser.parse_args()
here = Path(__file__).parent
with open(here / "calls.txt", "a") as calls:
    calls.write(arguments.preset + "\\n" + arguments.prompts.read_text())
for folder in (here / "made" / arguments.output.name).iterdir():
    shutil.copytree(folder, arguments.output / folder.name)
"""


def solid(text: str, place: tuple[float, float, float]) -> trimesh.Trimesh:
    shape, color = target(text)
    mesh = blotch(solid_mesh(shape), COLORS[color], np.random.default_rng(0))
    return mesh.apply_scale(0.45).apply_translation(place)


def pair_mesh(pair: Pair) -> trimesh.Trimesh:
    """Both solids, each where it belongs."""
    sides = ((pair.first, pair.first_side), (pair.second, pair.second_side))
    places = [tuple(0.46 * d for d in parts.SIDES[side]) for _, side in sides]
    return trimesh.util.concatenate(
        [solid(text, place) for (text, _), place in zip(sides, places, strict=True)]
    )


@pytest.fixture
def program(tmp_path: Path) -> Path:
    """Parts are right; the sentences' first object is upside down, and the second is missing."""
    for variant in ("parts", "sentence"):
        for number, pair in enumerate(PAIRS):
            if (variant, number) == ("sentence", 1):
                continue
            folder = tmp_path / "made" / variant / slug(pair.line(variant))
            folder.mkdir(parents=True)
            turned = Pair(pair.second, pair.first_side, pair.first, pair.second_side)
            mesh = pair_mesh(pair if variant == "parts" else turned)
            mesh.export(folder / "mesh.glb")
            (folder / "result.json").write_text(json.dumps({"seconds": 20.0 + number}))
    path = tmp_path / "program.py"
    path.write_text(PROGRAM)
    return path


def test_table_of_parts_against_a_sentence(program: Path, tmp_path: Path) -> None:
    output = tmp_path / "out"
    table = evaluate_parts(program, PAIRS, output, color_space="srgb")
    by_parts, by_sentence = table["parts"], table["sentence"]
    keys = ("both", "either way round", "part")
    assert [by_parts[key]["rate"] for key in keys] == [1, 1, 1]
    assert [by_sentence[key]["rate"] for key in keys] == [0, 0.5, 0]
    assert by_parts["seconds_mean"] == 20.5 and by_parts["missing"] == []
    assert by_sentence["missing"] == [PAIRS[1].text]
    assert by_parts["rows"][0]["named"] == ("a red cone", "a blue cube")
    calls = (program.parent / "calls.txt").read_text().splitlines()
    assert calls == [
        "parts", "| a red cone @ top | a blue cube @ bottom",
        "| a green sphere @ left | a yellow cylinder @ right",
        "parts", "a red cone and a blue cube", "a green sphere and a yellow cylinder",
    ]  # fmt: skip
    page = (output / "table.md").read_text()
    assert "| parts | 2 | 1.00 (0.34 to 1.00) |" in page and "no mesh.glb" in page
    assert "**seen: a blue cube, a red cone**" in page
    assert {path.name for path in output.glob("*.png")} == {"parts.png", "sentence.png"}
    config = EvaluateParts(output, ("parts",), judge_only=True, color_space="srgb")
    assert json.loads((output / "table.json").read_text()).keys() == {"parts", "sentence"}
    lines = tmp_path / "pairs.txt"
    lines.write_text("\n".join(pair.text for pair in PAIRS))
    judged = parts.run(EvaluateParts(**{**vars(config), "prompts": lines}))
    assert judged["parts"]["both"]["rate"] == 1


# Halves


def test_a_half_is_closed_and_has_the_colors_of_its_side() -> None:
    mesh = pair_mesh(Pair("a red cube", "left", "a blue cube", "right"))
    mesh.apply_translation([0.4, 0.0, 0.0])  # the middle goes through the red one
    half = parts.cut(mesh, parts.SIDES["left"])
    assert half.bounds[1, 0] == pytest.approx(0, abs=1e-9)
    assert half.is_watertight
    red, _, blue = np.asarray(half.visual.vertex_colors)[:, :3].mean(axis=0)
    assert red > 150 > 60 > blue
    box = trimesh.creation.box((2.0, 1.0, 1.0))
    top = parts.cut(box, parts.SIDES["top"])
    assert abs(top.volume) == pytest.approx(1.0)
    assert parts.cut(box.apply_translation([0, 3, 0]), parts.SIDES["bottom"]) is None


# Prompts


def test_pairs_are_spread_evenly() -> None:
    pairs = parts.evaluation_pairs()
    assert len({pair.text for pair in pairs}) == 30
    assert Counter(pair.first_side for pair in pairs) == {"top": 15, "left": 15}
    for pair in pairs:
        (shape, color), (other_shape, other_color) = target(pair.first), target(pair.second)
        assert shape != other_shape and color != other_color
        assert parts.parse_pair(pair.text) == pair
    both = [target(text) for pair in pairs for text in (pair.first, pair.second)]
    for kind in (0, 1):
        assert set(Counter(names[kind] for names in both).values()) <= {4, 5, 6}


def test_rights_by_hand() -> None:
    asked = ("a red cone", "a blue cube")
    right = PairRow("", asked, asked).right
    turned = PairRow("", asked, asked[::-1]).right
    half = PairRow("", asked, ("a red cone", "nothing")).right
    assert list(right.values()) == [True, True, True, True]
    assert list(turned.values()) == [False, True, False, False]
    assert list(half.values()) == [False, False, True, False]
    assert not any(PairRow("", asked, problem="no mesh.glb").right.values())


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a red cone and a blue cube", "is no pair; expected two captions on opposite sides"),
        ("a red cone @ top | a blue cube @ left", "is no pair"),
        ("a red cone @ front | a blue cube @ back", "is no pair"),
        ("a red cone @ top | a blue house @ bottom", "'a blue house' names the solids"),
    ],
)
def test_wrong_pairs_are_explained(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        parts.parse_pair(text)


@pytest.mark.parametrize(("pairs", "variants"), [([], ["parts"]), (PAIRS, []), (PAIRS, ["whole"])])
def test_bad_settings_are_named(pairs: list, variants: list[str], tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="expected parts, sentence or both, and one prompt or"):
        evaluate_parts(None, pairs, tmp_path, variants)
