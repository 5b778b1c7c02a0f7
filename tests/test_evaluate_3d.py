"""The evaluation of text-to-3D, on programs that write ready-made meshes."""

import dataclasses
import json
import os
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import trimesh

import presets
from alphaclip_gen import cli, evaluate_3d, made_meshes, mesh_judges, mesh_table
from alphaclip_gen.evaluate_3d import EvaluateTextTo3D, evaluate_text_to_3d
from alphaclip_gen.mesh_table import Row
from alphaclip_gen.mini.captions import COLORS, SHAPES
from alphaclip_gen.mini.solid_meshes import blotch, solid_mesh

PROGRAM = """
import argparse, json, shutil, sys
from pathlib import Path

parser = argparse.ArgumentParser()
parser.add_argument("--prompts", type=Path, required=True)
parser.add_argument("--output", type=Path, required=True)
parser.add_argument("--alpha", default="opacity")
parser.add_argument("--skip", default="")
parser.add_argument("--refuse", default="")
parser.add_argument("--seed", type=int, default=0)
parser.add_argument("--views", type=int, default=2)
parser.add_argument("--steps", type=int, default=100)
parser.add_argument("--augment.copies", dest="copies", type=int, default=1)
arguments = parser.parse_known_args()[0]
assert "--resume" in sys.argv
assert "--no-such-option" not in sys.argv, sys.exit(2)
made = Path(__file__).parent / "made"
with open(Path(__file__).parent / "calls.txt", "a") as calls:
    calls.write(f"{arguments.alpha}-{arguments.seed}\\n")
refused = Path(__file__).parent / "refuse.txt"
if refused.is_file():
    arguments.refuse = refused.read_text()
for number, prompt in enumerate(arguments.prompts.read_text().splitlines()):
    name = prompt.replace(" ", "-")
    folder = arguments.output / name
    if name == arguments.skip:
        sys.exit(3)
    if name == arguments.refuse:
        failures = {prompt: "ValueError: a result of other settings: seed is 1 there, 0 here"}
        (arguments.output / "failures.json").write_text(json.dumps(failures))
        continue
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copy(made / arguments.alpha / f"{name}.glb", folder / "mesh.glb")
    augment = {"copies": arguments.copies}
    settings = {"views": arguments.views, "augment": augment, "steps": arguments.steps}
    by_part = {"rendering": 2.0, "CLIP": 1.5 + number, "saving": 4.0}
    result = {"seconds": 10.0 + number, "seconds_by_part": by_part, "settings": settings,
              "silhouette_iou": 0.99 - number / 100}
    (folder / "result.json").write_text(json.dumps(result))
sys.exit(1 if arguments.refuse else 0)
"""
PROMPTS = ["a red sphere", "a green cube", "a blue torus", "a brown cone"]


def painted(shape: str, color: tuple[float, ...]) -> trimesh.Trimesh:
    """A solid with these values as its vertex colors."""
    return blotch(solid_mesh(shape), color, np.random.default_rng(0))


@pytest.fixture
def program(tmp_path: Path) -> Path:
    """A program whose meshes are right, but with `--alpha ones` the cone is a cyan cone.

    Colors are stored as about linear light, gamma 2.2: read as sRGB, brown would be black.
    """
    for alpha in ("opacity", "ones"):
        folder = tmp_path / "made" / alpha
        folder.mkdir(parents=True)
        for prompt in PROMPTS:
            shape, color = mesh_judges.target(prompt)
            color = "cyan" if (alpha, shape) == ("ones", "cone") else color
            mesh = painted(shape, tuple(value**2.2 for value in COLORS[color]))
            mesh.export(folder / f"{made_meshes.slug(prompt)}.glb")
    path = tmp_path / "program.py"
    path.write_text(PROGRAM)
    return path


def test_table_of_two_variants(program: Path, tmp_path: Path) -> None:
    output = tmp_path / "out"
    table = evaluate_text_to_3d(program, PROMPTS, output)
    assert (program.parent / "calls.txt").read_text().split() == ["opacity-0", "ones-0"]
    masked, plain = table["masked"], table["plain"]
    assert [masked[key]["rate"] for key in ("caption", "shape", "color")] == [1, 1, 1]
    assert [plain[key]["rate"] for key in ("caption", "shape", "color")] == [0.75, 1, 0.75]
    assert (masked["seconds_mean"], masked["seconds_median"], masked["seconds_max"]) == (
        11.5,
        11.5,
        13.0,
    )
    assert masked["seconds_in_steps"] == 5.0
    assert (masked["outlines_mean"], masked["outlines_least"]) == (0.975, 0.96)
    assert plain["rows"][3]["named"] == "a cyan cone" and masked["pictures_a_step"] == 2
    assert json.loads((output / "table.json").read_text()) == table
    page = (output / "table.md").read_text()
    assert "| masked | 2 | 4 | 4 | 1.00 (0.51 to 1.00) |" in page
    assert "| 11.5 | 11.5 | 13.0 | 5.0 | 0.975 | 0.960 |" in page
    assert "| a brown cone | 0 | **a cyan cone** |" in page
    assert (output / "masked.png").is_file() and (output / "plain.png").is_file()


def test_prompts_that_would_share_a_folder_are_judged_each_on_its_own_mesh(
    program: Path, tmp_path: Path
) -> None:
    """The program numbers folders as nerf/optimize.py does; the second cone is not there."""
    prompts = ["a brown cone", "a brown cone!"]
    table = evaluate_text_to_3d(program, prompts, tmp_path / "out", ["masked"])
    rows = table["masked"]["rows"]
    assert rows[0]["named"] == "a brown cone" and rows[0]["problem"] is None
    assert rows[1]["problem"] is not None


def test_the_page_tells_of_the_judge(program: Path, tmp_path: Path) -> None:
    evaluate_text_to_3d(program, PROMPTS, tmp_path, ["masked"])
    assert "0.99 of single views and 1.00 of objects" in (tmp_path / "table.md").read_text()
    assert "CLIP 85.62, Alpha-CLIP 88.89" in mesh_judges.about("ViT-B-32.pt")
    assert "Judge: ViT-B-32 (openai), which" in mesh_judges.about("ViT-B-32", "openai")


def test_a_missing_mesh_of_other_words_is_wrong_in_all(tmp_path: Path) -> None:
    judge = mesh_judges.open_judge("solids", None, ["a scarlet donut"], "linear")
    row, mesh = evaluate_3d.judge_folder(judge, tmp_path, "a scarlet donut")
    assert mesh is None and row.asked == "a red torus"
    assert row.right == {"caption": False, "shape": False, "color": False}


def test_missing_mesh_counts_as_wrong_and_is_listed(program: Path, tmp_path: Path) -> None:
    """The program ends in the middle: the third and the fourth prompt have no mesh."""
    options = ["--skip", "a-blue-torus"]
    table = evaluate_text_to_3d(program, PROMPTS, tmp_path / "out", ["masked"], options=options)
    masked = table["masked"]
    assert masked["exit_codes"] == {"0": 3}
    assert masked["caption"]["rate"] == masked["shape"]["rate"] == 0.5
    assert masked["missing"] == PROMPTS[2:]
    assert masked["seconds_max"] == 11.0
    assert "No mesh: a blue torus, a brown cone." in (tmp_path / "out" / "table.md").read_text()


def test_a_mesh_that_the_program_refuses_does_not_count(
    program: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """It is there, of an earlier evaluation with other settings; the next run may make it."""
    output, options = tmp_path / "out", ["--refuse", "a-green-cube"]
    evaluate_text_to_3d(program, PROMPTS, output, ["masked"])
    part = evaluate_text_to_3d(program, PROMPTS, output, ["masked"], options=options)["masked"]
    assert part["exit_codes"] == {"0": 1} and part["caption"]["rate"] == 0.75
    assert "other settings: seed is 1 there, 0 here" in part["rows"][1]["problem"]
    assert part["rows"][1]["seconds"] is None and part["missing"] == ["a green cube"]
    assert "a-green-cube does not count: ValueError: a result of other" in caplog.text
    again = evaluate_text_to_3d(program, PROMPTS, output, ["masked"])
    assert again["masked"]["caption"]["rate"] == 1


def test_meshes_of_before_do_not_count_where_the_program_broke_down(
    program: Path, tmp_path: Path
) -> None:
    output = tmp_path / "out"
    evaluate_text_to_3d(program, PROMPTS, output, ["masked"])
    for path in output.glob("masked/*/*/result.json"):
        os.utime(path, (1, 1))
    options = ["--skip", "a-blue-torus"]
    part = evaluate_text_to_3d(program, PROMPTS, output, ["masked"], options=options)["masked"]
    assert part["missing"] == PROMPTS[2:]
    assert "of an earlier run, and this one ended with exit code 3" in part["rows"][2]["problem"]


@pytest.mark.parametrize(
    ("result", "problem"),
    [
        (None, "mesh.glb without a result.json"),
        ({"interrupted": True, "stopped": "interrupted"}, "ended early: interrupted"),
        ({"prompt": "a blue cone"}, "made of 'a blue cone'"),
        ({"prompt": "a red cone", "problems": ["no turntable.mp4: ffmpeg"]}, None),
    ],
)
def test_only_whole_results_of_the_prompt_count(
    result: dict | None, problem: str | None, tmp_path: Path
) -> None:
    painted("cone", COLORS["red"]).export(tmp_path / "mesh.glb")
    if result is not None:
        (tmp_path / "result.json").write_text(json.dumps(result))
    mesh, said = made_meshes.load_mesh(tmp_path, "a red cone")
    assert said == problem and (mesh is None) == (problem is not None)


def test_what_a_line_of_prompts_makes() -> None:
    assert made_meshes.title("a snowman | a red cone @ top 0.4") == "a snowman"
    assert made_meshes.title("| a red cone @ top | a cube @ bottom") == "a red cone and a cube"


def test_a_program_that_fails_is_told_on_the_command_line(
    program: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    command = ["evaluate", "text-to-3d", "--program", str(program), "--count", "1"]
    command += ["--output", str(tmp_path / "out"), "--options=--no-such-option"]
    with pytest.raises(SystemExit, match="2"):
        cli.main(command)
    assert "error: the program ended with exit code 2" in capsys.readouterr().err


def test_program_that_makes_nothing_is_an_error(program: Path, tmp_path: Path) -> None:
    with pytest.raises(ChildProcessError, match=r"exit code 2 and made no mesh.*--no-such-option"):
        evaluate_text_to_3d(program, PROMPTS, tmp_path / "out", options=["--no-such-option"])


def test_finished_folder_is_judged_without_a_program(program: Path, tmp_path: Path) -> None:
    output = tmp_path / "out"
    made = evaluate_text_to_3d(program, PROMPTS, output, ["masked"])
    prompts = tmp_path / "prompts.txt"
    prompts.write_text("\n\n".join(PROMPTS))
    config = EvaluateTextTo3D(output, ("masked",), prompts, judge_only=True)
    judged = evaluate_3d.run(config)
    assert judged["masked"]["rows"] == made["masked"]["rows"]
    assert (program.parent / "calls.txt").read_text().split() == ["opacity-0"]


def test_colors_of_the_meshes_are_read_as_asked(tmp_path: Path) -> None:
    folder = tmp_path / "masked" / "seed-0" / "a-brown-cube"
    folder.mkdir(parents=True)
    painted("cube", COLORS["brown"]).export(folder / "mesh.glb")
    (folder / "result.json").write_text('{"prompt": "a brown cube"}')
    rates = {
        space: evaluate_text_to_3d(None, ["a brown cube"], tmp_path, ["masked"], color_space=space)
        for space in ("srgb", "linear")
    }
    assert rates["srgb"]["masked"]["color"]["rate"] == 1
    assert rates["linear"]["masked"]["color"]["rate"] == 0


def test_broken_mesh_counts_as_wrong(tmp_path: Path) -> None:
    folder = tmp_path / "masked" / "seed-0" / "a-red-cone"
    folder.mkdir(parents=True)
    (folder / "mesh.glb").write_bytes(b"no mesh at all")
    (folder / "result.json").write_text('{"seconds": 3}')
    table = evaluate_text_to_3d(None, ["a red cone"], tmp_path, ["masked"])
    assert table["masked"]["missing"] == ["a red cone"]
    assert table["masked"]["rows"][0]["problem"].startswith("unreadable mesh.glb")
    assert table["masked"]["seconds_mean"] is None


def test_vertex_colors_are_seen_beside_a_material(tmp_path: Path) -> None:
    """As `nerf/surface.py` writes them; trimesh would show the material instead."""
    folder = tmp_path / "masked" / "seed-0" / "a-red-cube"
    folder.mkdir(parents=True)

    def with_material(tree: dict) -> None:
        tree["materials"] = [{"pbrMetallicRoughness": {"roughnessFactor": 1.0}}]
        tree["meshes"][0]["primitives"][0]["material"] = 0

    scene = trimesh.Scene(painted("cube", COLORS["red"]))
    (folder / "mesh.glb").write_bytes(scene.export(None, "glb", tree_postprocessor=with_material))
    (folder / "result.json").write_text('{"prompt": "a red cube"}')
    table = evaluate_text_to_3d(None, ["a red cube"], tmp_path, ["masked"], color_space="srgb")
    assert table["masked"]["caption"]["rate"] == 1


def test_prompts_are_spread_evenly() -> None:
    prompts = evaluate_3d.evaluation_prompts()
    targets = [mesh_judges.target(prompt) for prompt in prompts]
    assert len(set(prompts)) == 60
    assert set(Counter(shape for shape, _ in targets).values()) == {5}
    assert set(Counter(color for _, color in targets).values()) == {5}
    assert prompts == evaluate_3d.evaluation_prompts()
    assert len(set(evaluate_3d.evaluation_prompts(144))) == 144
    with pytest.raises(ValueError, match="count is 145; expected 1 to 144"):
        evaluate_3d.evaluation_prompts(145)


def test_each_seed_has_meshes_of_its_own(program: Path, tmp_path: Path) -> None:
    table = evaluate_text_to_3d(program, PROMPTS, tmp_path / "out", ["augmented"], seeds=(0, 7))
    part = table["augmented"]
    assert (program.parent / "calls.txt").read_text().split() == ["ones-0", "ones-7"]
    assert (part["prompts"], part["meshes"], part["pictures_a_step"]) == (4, 8, 8 * 8)
    assert [row["seed"] for row in part["rows"]] == [0] * 4 + [7] * 4
    assert (tmp_path / "out" / "augmented" / "seed-7" / "a-red-sphere" / "mesh.glb").is_file()


def test_the_table_keeps_other_variants_that_were_made_alike(program: Path, tmp_path: Path) -> None:
    def table(variant: str, prompts: list[str] = PROMPTS, **others: Any) -> dict:
        return evaluate_text_to_3d(program, prompts, tmp_path / "out", [variant], **others)

    first = table("plain")
    older = {**first["plain"]}
    del older["outlines_mean"], older["seconds_in_steps"]
    (tmp_path / "out" / "table.json").write_text(json.dumps({"plain": older}))
    both = table("masked")
    assert list(both) == ["masked", "plain"] and both["plain"] == first["plain"]
    assert json.loads((tmp_path / "out" / "table.json").read_text()) == both
    assert "## plain" in (tmp_path / "out" / "table.md").read_text()
    judge = mesh_judges.open_judge("solids", None, PROMPTS, "linear")
    assert list(table("masked", judge=judge._replace(about="another"))) == ["masked"]
    aside = tmp_path / "out" / "table-1.json"
    assert json.loads(aside.read_text()) == both  # nothing is lost
    assert list(table("masked")) == ["masked"]  # the file had another judge's only
    assert list(table("plain")) == ["masked", "plain"]
    assert list(table("plain", color_space="srgb")) == ["plain"]
    assert list(table("masked")) == ["masked"]
    assert list(table("plain")) == ["masked", "plain"]
    assert list(table("masked", PROMPTS[:2])) == ["masked"]
    assert list(table("plain", PROMPTS[:2], options=["--steps", "3"])) == ["plain"]
    for damaged in ("[]", '{"masked": []}', "{"):
        (tmp_path / "out" / "table.json").write_text(damaged)
        assert list(table("plain")) == ["plain"]


def test_a_table_is_filled_seed_by_seed(program: Path, tmp_path: Path) -> None:
    """The meshes of before are not looked at again; rows that were made otherwise are dropped."""
    output = tmp_path / "out"

    def seeds_of(*seeds: int, **others: Any) -> list[int]:
        part = evaluate_text_to_3d(program, PROMPTS, output, ["masked"], seeds=seeds, **others)
        found = [row["seed"] for row in part["masked"]["rows"]]
        assert part["masked"]["meshes"] == len(found) == 4 * len(set(found))
        assert set(part["masked"]["exit_codes"]) == {str(seed) for seed in found}
        return list(dict.fromkeys(found))

    assert seeds_of(5) == [5]
    shutil.rmtree(output / "masked")
    assert seeds_of(2) == [2, 5] and seeds_of(7, 2) == [2, 5, 7]
    assert "| a brown cone | 5 | a brown cone |" in (output / "table.md").read_text()
    assert not (output / "table-1.json").exists()
    for flags in (["--views", "4"], ["--steps", "200"]):
        assert seeds_of(3, options=flags) == [3]
        table = json.loads((output / "table.json").read_text())
        table["masked"]["made_by"]["options"] = []  # as if these had been the defaults
        (output / "table.json").write_text(json.dumps(table))
        assert seeds_of(4) == [4]
    assert seeds_of(4, 4) == [4]


def test_only_meshes_that_count_say_how_a_table_was_made(program: Path, tmp_path: Path) -> None:
    """The first prompt of the second seed is refused: once an older one lies there, once none."""
    output, first = tmp_path / "out", PROMPTS[0]
    folder = output / "masked" / "seed-1" / made_meshes.slug(first)
    for older in (False, True):
        evaluate_text_to_3d(program, PROMPTS, output, ["masked"])
        if older:
            shutil.copytree(output / "masked" / "seed-0" / folder.name, folder)
            (folder / "result.json").write_text('{"settings": {"steps": 200, "views": 4}}')
        (program.parent / "refuse.txt").write_text(folder.name)
        part = evaluate_text_to_3d(program, PROMPTS, output, ["masked"], seeds=[1])["masked"]
        assert (part["meshes"], part["missing"], part["pictures_a_step"]) == (8, [first], 2)
        assert part["made_by"]["settings"] == {"steps": 100}
        (program.parent / "refuse.txt").unlink()
        (output / "table.json").unlink()


def test_meshes_made_with_different_settings_do_not_stand_in_one_table(
    program: Path, tmp_path: Path
) -> None:
    for seed in (0, 1):
        options = ["--steps", str(100 * (seed + 1))]
        evaluate_text_to_3d(program, PROMPTS, tmp_path, ["masked"], seeds=[seed], options=options)
    with pytest.raises(ValueError, match="'masked' were made with different steps"):
        evaluate_text_to_3d(None, PROMPTS, tmp_path, ["masked"], seeds=[0, 1])
    before = (tmp_path / "table.json").read_text()
    with pytest.raises(FileNotFoundError, match=r"nothing to judge.*seed-9/a-red-sphere"):
        evaluate_text_to_3d(None, PROMPTS, tmp_path, ["masked"], seeds=[0, 9])
    assert (tmp_path / "table.json").read_text() == before


def test_what_settings_have_to_share() -> None:
    """What a variant, a mesh, a place or files set may differ; weights and all else may not."""
    weights, steps = {"digests": {"mini": "1"}}, {"steps": 100}
    own = [{"alpha": "opacity", "seed": 0, **steps}, {"alpha": "ones", "parts": ["a"], **steps}]
    assert mesh_table.shared_settings("plain", own) == steps
    assert mesh_table.shared_settings("plain", []) == {}
    grows = [{"tower": {"scales": [s], "precision": "single"}} for s in (0.5, 1.0)]
    assert mesh_table.shared_settings("plain", grows) == {"tower": {"precision": "single"}}
    for other in (weights | {"digests": {"mini": "2"}}, steps, {}):
        with pytest.raises(ValueError, match="different digests"):
            mesh_table.shared_settings("plain", [weights, weights, other])


def test_augmented_are_the_looks_of_pureclipnerf() -> None:
    """The variant's flags change the default settings to those of the preset, but for copies."""
    wanted = dataclasses.asdict(presets.PRESETS["pureclipnerf-explicit"].augment)
    made = presets.parse_config(["--prompt", "a", *evaluate_3d.VARIANTS["augmented"]])
    assert dataclasses.asdict(made.augment) == {**wanted, "copies": 8}
    assert (made.alpha, made.views) == ("ones", 8)


@pytest.mark.parametrize("preset", presets.PRESETS)
def test_variants_are_the_same_whatever_the_preset(preset: str) -> None:
    made = {
        variant: presets.parse_config(["--prompt", "a", "--preset", preset, *flags])
        for variant, flags in evaluate_3d.VARIANTS.items()
    }
    assert {name: one.alpha for name, one in made.items()} == {
        "masked": "opacity",
        "plain": "ones",
        "augmented": "ones",
    }
    pictures = [one.views * one.augment.copies for one in made.values()]
    assert pictures == [2, 2, 64]
    assert made["augmented"].side(0.0) == made["augmented"].side(1.0)
    shared = [
        mesh_table.shared_settings(variant, [dataclasses.asdict(one)])
        for variant, one in made.items()
    ]
    assert shared[0] == shared[1] == shared[2] and "precision" in shared[0]["tower"]


def test_any_clip_can_judge_among_the_prompts(program: Path, tmp_path: Path) -> None:
    """mini is a CLIP too: it finds the captions of ready-made solids among four."""
    made = evaluate_text_to_3d(program, PROMPTS, tmp_path, ["masked"])
    judge = mesh_judges.open_judge("mini", None, PROMPTS, "linear")
    found = evaluate_text_to_3d(None, PROMPTS, tmp_path, ["masked"], judge=judge)
    assert found["masked"]["caption"]["rate"] == 1
    likely = [row["probability"] for row in found["masked"]["rows"]]
    assert min(likely) > 0.5 and likely != [row["probability"] for row in made["masked"]["rows"]]


def test_prompts_beyond_the_solids_have_captions_only(tmp_path: Path) -> None:
    row = Row("a house", "a house", "a tree")
    assert row.right == {"caption": False} and Row("a house", "a house", "a house").right["caption"]
    summary = mesh_table.summarize([row, Row("a red cone", "a red cone", "a red cone")])
    assert summary["caption"]["rate"] == 0.5 and "shape" not in summary


def test_targets_are_read_by_synonyms_too() -> None:
    assert mesh_judges.target("A scarlet donut!") == ("torus", "red")
    assert made_meshes.slug("A scarlet donut!") == "a-scarlet-donut"
    with pytest.raises(ValueError, match=r"'a red teapot' names the solids \[\]"):
        mesh_judges.target("a red teapot")
    with pytest.raises(ValueError, match=r"the colors \['red', 'blue'\]"):
        mesh_judges.target("a red and blue cone")


def test_contact_sheet_has_a_tile_for_each_row() -> None:
    rows = [Row("a red cone", "a red cone", "a red cone")] * 13
    mesh = painted("cone", COLORS["red"])
    meshes: list[trimesh.Trimesh | None] = [mesh] * 12 + [None]
    rows[1] = Row("a red cone", "a red cone", "a blue cone")
    sheet = np.asarray(evaluate_3d.contact_sheet(rows, meshes, tile=40)).astype(int)
    assert sheet.shape == (6 + 2 * (40 + 34), 6 + 12 * 46, 3)
    red = (sheet[..., 0] > 120) & (sheet[..., 1] < 60)
    assert red[6:46].any(axis=0).reshape(-1)[6:].reshape(12, 46).any(axis=1).all()
    assert not red[80:120, 6:46].any()
    assert red[60:78].any() and not red[134:].any()  # what was seen, below the first row only


def test_program_is_looked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "nerf").mkdir()
    (tmp_path / "nerf" / "optimize.py").touch()
    monkeypatch.chdir(tmp_path)
    assert made_meshes.find_program() == tmp_path / "nerf" / "optimize.py"
    with pytest.raises(FileNotFoundError, match=r"nowhere.py not found.*--program"):
        made_meshes.find_program(Path("nowhere.py"))


@pytest.mark.parametrize(
    ("prompts", "variants", "message"),
    [
        (
            ["a red cone"],
            ["blurred"],
            "variants are .'blurred'.; expected some of masked, plain, augmented",
        ),
        (["a red cone"], [], "variants are"),
        ([], ["masked"], r"prompts are \[\] and seeds \[0\]"),
        (["a house"], ["masked"], "'a house' names the solids"),
    ],
)
def test_bad_settings_are_named(
    prompts: list[str], variants: list[str], message: str, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=message):
        evaluate_text_to_3d(None, prompts, tmp_path, variants)


def test_missing_prompt_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"prompts .*none.txt' not found; .* a line"):
        made_meshes.read_prompts(tmp_path / "none.txt")


def test_every_solid_and_color_is_a_target() -> None:
    for shape in SHAPES:
        for color in COLORS:
            assert mesh_judges.target(f"a {color} {shape}") == (shape, color)
