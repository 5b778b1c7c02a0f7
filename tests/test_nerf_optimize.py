"""The program, run on a stand-in tower that sees the region's mean color and how tall it is."""

import dataclasses
import json
import re
import runpy
from pathlib import Path

import pytest
import torch
from PIL import Image

import many
import optimize
from alphaclip_gen.made_meshes import read_prompts, slug, slugs
from checks import check
from formats import read_glb
from warm_start import WarmStartSettings

STAND_IN = runpy.run_path(str(Path(__file__).with_name("stand_in_tower.py")))
Moments, SMALL, FLAGS = STAND_IN["Moments"], STAND_IN["SMALL"], STAND_IN["FLAGS"]


@pytest.fixture(autouse=True)
def alone(monkeypatch) -> None:
    for name in (name for names in many.PLACES for name in names):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def tower(monkeypatch):
    encoder = Moments()
    monkeypatch.setattr(optimize, "load_encoders", lambda config: (encoder,))
    return encoder


def result_of(folder: Path) -> dict:
    return json.loads((folder / "result.json").read_text())


def made(folder: Path, config=SMALL, **tower) -> dict:
    return optimize.run(config, (Moments(**tower),), folder, quiet=True)


# A run


def test_a_run_writes_its_files(tmp_path) -> None:
    result = made(tmp_path)
    files = {path.name for path in tmp_path.iterdir()}
    pictures = {"turntable.gif", "preview.png", "timeline.png"}
    assert files == {"mesh.glb", "result.json", "checkpoint.pt", "previews"} | pictures
    assert set(result["files"]) == {"mesh.glb"} | pictures
    assert json.loads(json.dumps(result)) == result_of(tmp_path)
    assert result["prompt"] == "a red stick" and result["steps"] == 3 and not result["interrupted"]
    assert result["settings"]["field"]["density_sizes"] == [10, 12, 16]
    assert {"python", "torch", "alphaclip-gen"} <= result["versions"].keys()
    assert re.fullmatch("[0-9a-f]{16}", result["versions"]["code"])
    assert result["milliseconds_a_step"].keys() == {"CLIP", "rendering"}
    assert result["seconds"] >= sum(result["seconds_by_part"].values()) - 0.05
    assert result["losses"]["mini"] > 0 and 0 <= result["silhouette_iou"] <= 1
    assert [(guide["model"], guide["weight"]) for guide in result["guides"]] == [("mini", 1.0)]
    mesh = read_glb((tmp_path / "mesh.glb").read_bytes())
    assert mesh.is_watertight and len(mesh.faces) == result["mesh"]["faces"]
    with Image.open(tmp_path / "turntable.gif") as animation:
        assert animation.n_frames == 4
    with Image.open(tmp_path / "preview.png") as preview:
        assert preview.size == (96, 48)


def test_same_seed_same_mesh_and_no_global_randomness(tmp_path) -> None:
    meshes, scores = [], []
    for number, seed in enumerate((0, 0, 1)):
        folder = tmp_path / str(number)
        folder.mkdir()
        torch.manual_seed(number)
        before = torch.get_rng_state()
        result = made(folder, dataclasses.replace(SMALL, seed=seed))
        assert torch.equal(torch.get_rng_state(), before)
        meshes.append((folder / "mesh.glb").read_bytes())
        scores.append(result["scores"])
    assert meshes[0] == meshes[1] != meshes[2]
    assert scores[0] == scores[1]


def test_the_files_that_are_asked_for(tmp_path, tower) -> None:
    more = ["--formats", "obj", "points", "--turntable", "webp", "--depth", "--every", "0"]
    command = ["--prompt", "a red stick", "--output", str(tmp_path), *FLAGS, *more]
    assert optimize.main(command) == 0
    files = {path.name for path in tmp_path.iterdir()} - {"result.json", "checkpoint.pt"}
    expected = {"mesh.obj", "points.ply", "turntable.webp", "depth.webp", "preview.png"}
    assert expected <= files == set(result_of(tmp_path)["files"])


# Interrupts


def test_an_interrupt_keeps_what_is_done(tmp_path) -> None:
    quiet = dataclasses.replace(SMALL, warm_start=WarmStartSettings(shades=0), steps=50)
    result = made(tmp_path, quiet, interrupt_after=4)
    assert result["interrupted"] and result["steps"] == 3
    assert result_of(tmp_path)["stopped"] == "interrupted"
    assert read_glb((tmp_path / "mesh.glb").read_bytes()).is_watertight


def test_an_interrupt_before_the_first_step_leaves_nothing(tmp_path, monkeypatch, capsys) -> None:
    encoder = Moments(interrupt_after=1)
    monkeypatch.setattr(optimize, "load_encoders", lambda config: (encoder,))
    arguments = ["--prompt", "a red stick", "--output", str(tmp_path), *FLAGS]
    assert optimize.main(arguments) == 130
    assert list(tmp_path.iterdir()) == []
    assert "nothing to keep" in capsys.readouterr().err


def test_an_interrupted_prompt_is_made_again(tmp_path) -> None:
    made(tmp_path)
    assert optimize.is_finished(SMALL, (Moments(),), tmp_path)
    broken = result_of(tmp_path) | {"interrupted": True}
    (tmp_path / "result.json").write_text(json.dumps(broken))
    assert not optimize.is_finished(SMALL, (Moments(),), tmp_path)


def test_an_interrupt_ends_a_file_of_prompts(tmp_path, monkeypatch, capsys) -> None:
    towers = (Moments(interrupt_after=5),)
    monkeypatch.setattr(optimize, "load_encoders", lambda config: towers)
    file = tmp_path / "prompts.txt"
    file.write_text("a red stick\na blue disk\n")
    command = ["--prompts", str(file), "--output", str(tmp_path / "out"), *FLAGS]
    assert optimize.main(command) == 130
    assert "a red stick: interrupted; --resume goes on" in capsys.readouterr().err
    assert result_of(tmp_path / "out" / "a-red-stick")["steps"] == 2
    assert not (tmp_path / "out" / "a-blue-disk").exists()


# The command line


def test_one_prompt_from_the_command_line(tmp_path, tower, capsys) -> None:
    folder = tmp_path / "made" / "here"
    code = optimize.main(["--prompt", "a red stick", "--output", str(folder), *FLAGS])
    assert code == 0 and result_of(folder)["seed"] == 0
    assert f"-> {folder}" in capsys.readouterr().out


def test_a_file_of_prompts(tmp_path, tower, capsys) -> None:
    """One that fails does not stop the others; what is finished is skipped the second time."""
    file, output = tmp_path / "prompts.txt", tmp_path / "out"
    file.write_text("a red stick\n\na teapot\na blue disk\na red stick\n")
    arguments = ["--prompts", str(file), "--output", str(output), *FLAGS]
    assert optimize.main(arguments) == 1
    folders = {path.name for path in output.iterdir() if path.is_dir()}
    assert folders == {"a-red-stick", "a-teapot", "a-blue-disk"}
    failures = json.loads((output / "failures.json").read_text())
    assert failures == {"a teapot": "KeyError: 'teapot'"}
    first = capsys.readouterr()
    assert "1 of 3 prompts failed" in first.err and "a teapot: " in first.err
    stamp = (output / "a-red-stick" / "mesh.glb").stat().st_mtime_ns
    assert optimize.main(arguments) == 1
    assert capsys.readouterr().out.count("skipped") == 2
    assert (output / "a-red-stick" / "mesh.glb").stat().st_mtime_ns == stamp
    file.write_text("a red stick\n")
    assert optimize.main(arguments) == 0 and not (output / "failures.json").exists()


def test_parts_from_the_command_line(tmp_path, tower, capsys) -> None:
    """Without a prompt: the folder and the result are called by the parts."""
    parts = ["--part", "a red stick @ right", "--part", "a blue disk @ left:weight=2"]
    command = [*parts, "--field.mirror", "none", *FLAGS, "--every", "0"]
    command += ["--turntable", "webp"]
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path)
        assert optimize.main(command) == 0
    result = result_of(tmp_path / "outputs" / "a-red-stick-and-a-blue-disk")
    assert result["prompt"] == "a red stick and a blue disk"
    assert result["settings"]["parts"] == parts[1::2] and result["settings"]["prompt"] is None
    assert list(result["losses"])[:2] == ["mini: a red stick", "mini: a blue disk"]
    assert [part["part"] for part in result["scores"]["parts"]] == parts[1::2]
    assert len(result["start"]["parts"]) == 2


def test_a_file_of_prompts_with_parts(tmp_path, tower, capsys) -> None:
    file, output = tmp_path / "prompts.txt", tmp_path / "out"
    file.write_text("| a red stick @ top | a blue disk @ bottom\na red stick\n")
    command = ["--prompts", str(file), "--output", str(output), *FLAGS, "--every", "0"]
    assert optimize.main(command) == 0
    names = {path.name for path in output.iterdir()}
    assert names == {"a-red-stick-top-a-blue-disk-bottom", "a-red-stick"}
    assert optimize.main(command) == 0 and capsys.readouterr().out.count("skipped") == 2
    file.write_text("a red stick\na blue disk | a red stick @ topp\n")
    calls = tower.calls
    assert optimize.main(command) == 2 and tower.calls == calls  # found out before the work
    assert "has the shape 'topp'" in capsys.readouterr().err


def test_one_prompt_does_not_take_the_place_of_another(tmp_path, tower, capsys) -> None:
    flags = ["--output", str(tmp_path), *FLAGS]
    assert optimize.main(["--prompt", "a red stick", *flags]) == 0
    kept = {path.name: path.read_bytes() for path in tmp_path.iterdir() if path.is_file()}
    assert optimize.main(["--prompt", "a blue disk", *flags]) == 2
    assert "holds what was made of 'a red stick', not of 'a blue disk'" in capsys.readouterr().err
    assert all((tmp_path / name).read_bytes() == data for name, data in kept.items())
    (tmp_path / "result.json").unlink()  # as after kill -9
    assert optimize.main(["--prompt", "a blue disk", *flags]) == 2
    assert (tmp_path / "checkpoint.pt").read_bytes() == kept["checkpoint.pt"]
    assert optimize.main(["--prompt", "a red stick", "--seed", "1", *flags]) == 0


def test_results_of_other_settings_are_not_passed_off(tmp_path, tower, capsys) -> None:
    file = tmp_path / "prompts.txt"
    file.write_text("a red stick\n")
    arguments = ["--prompts", str(file), "--output", str(tmp_path), *FLAGS]
    assert optimize.main(arguments) == 0
    assert optimize.main([*arguments, "--seed", "5"]) == 1
    assert "of other settings: seed is 0 there, 5 here" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--prompt", " "], "prompt is empty"),
        ([], "got neither"),
        (
            ["--prompt", "a red stick", "--avoid", "a blue disk", "--loss", "cosine"],
            "avoid names 'a blue disk', but loss is 'cosine'",
        ),
        (
            ["--part", "a red stick @ top:avoid=a blue disk", "--loss", "spherical"],
            "avoid names 'a blue disk', but loss is 'spherical'",
        ),
        (["--prompt", "a red stick", "--prompts", "list.txt"], "got both"),
        (["--prompts", "no-such-list.txt"], "no-such-list.txt' not found"),
        (["--prompt", "a red stick", "--steps", "0"], "steps is 0; expected 1 or more"),
        (["--prompt", "a red stick", "--views", "0"], "views is 0; expected 1 or more"),
        (["--prompt", "a red stick", "--resolution", "4"], "resolution is 4; expected 16"),
        (["--prompt", "a red stick", "--seed", "-1"], "seed is -1; expected 0 or more"),
        (["--prompt", "a red stick", "--device", "toaster"], "device 'toaster' is not usable"),
        (["--prompt", "a red stick", "--field.grow-at", "0.5"], "expected 2 rising numbers"),
        (["--prompt", "a red stick", "--field.density-sizes", "8"], "equally many sizes"),
        (
            ["--prompt", "a red stick", "--field.density-sizes", "257"],
            "field.density_sizes is (257,); expected 2 to 256",
        ),
        (["--prompt", "a red stick", "--loss", "contrastive", "--guidance", "x"], "negatives"),
        (["--part", "a red stick"], 'expected "TEXT @ SHAPE"'),
        (["--part", "@ top"], "has no text before the @"),
        (["--part", "a red stick @ topp"], "has the shape 'topp'; expected top, bottom"),
        (["--part", "a red stick @ top 2"], "lies outside of the ball of radius 1"),
        (["--part", "a red stick @ none.glb"], "part 'none.glb' not found"),
        (["--part", "a red stick @ left"], "expected --field.mirror z"),
        (["--part", "a red stick @ top:weight=-1"], "has weight '-1'"),
        (["--part", "a red stick @ top", "--alpha", "ones"], "alpha is 'ones'; expected"),
        (["--prompt", "a red stick", "--prompt-weight", "0"], "prompt_weight is 0.0; expected"),
        (["--prompt", "a red stick", "--prompt-weight", "nan"], "prompt_weight is nan"),
        (["--prompt", "a red stick", "--prompt-in-parts", "2"], "expected a share between 0"),
        (["--prompt", "a red stick", "--avoid", " "], "avoid has an empty text"),
        (["--prompt", "a red stick", "--view-prompts", "{}"], "expected 2 texts or more"),
        (["--prompt", "a red stick", "--view-prompts", "{}", "back"], "each with {} for the"),
        (["--part", "a hat @ top", "--view-prompts", "{}", "b {}"], "view_prompts need a prompt"),
        (["--prompt", "a cat", "--view-prompts", "{}", "b {}"], "field.mirror 'xz' makes them ali"),
        (["--prompt", "a red stick", "--keep", "top"], "keep is ('top',) without a start"),
        (["--prompt", "a red stick", "--repaint"], "repaint is True without a start"),
        (["--prompt", "a red stick", "--start", "none.glb"], "start 'none.glb' not found"),
        (["--prompt", "a red stick", "--start", "."], "is a folder without a result.json"),
        (["--prompt", "a red stick", "--pictures.frames", "0"], "pictures.frames is 0; expected 1"),
        (["--prompt", "a red stick", "--pictures.size", "0"], "pictures.size is 0; expected 16 to"),
        (["--prompt", "a cat", "--pictures.milliseconds", "0"], "milliseconds is 0; expected 10"),
        (["--prompt", "a cat", "--pictures.step", "0"], "pictures.step is 0.0; expected 0.001 to"),
        (["--prompt", "a red stick", "--render.step", "0"], "render.step is 0.0; expected 0.001"),
        (["--prompt", "a cat", "--render.ambient", "1", "0"], "expected the lower number first"),
        (["--prompt", "a cat", "--cameras.elevation", "-99", "9"], "(-99.0, 9.0); expected -90 to"),
        (["--prompt", "a cat", "--cameras.radius", "4", "3"], "expected the lower number first"),
        (["--prompt", "a cat", "--cameras.radius", "0", "3"], "cameras.radius is (0.0, 3.0); exp"),
        (["--prompt", "a cat", "--cameras.field-of-view", "180"], "is 180.0; expected 1 to 170"),
        (
            ["--prompt", "a red stick", "--adam.density-rate", "nan"],
            "adam.density_rate is nan; exp",
        ),
        (["--prompt", "a red stick", "--adam.color-rate", "-1"], "is -1.0; expected 0 or more"),
        (["--prompt", "a red stick", "--adam.betas", "0.9", "1"], "adam.betas is (0.9, 1.0); exp"),
        (["--prompt", "a cat", "--losses.ball.first", "inf"], "ball.first is inf; expected finite"),
    ],
)
def test_bad_settings_are_named(tmp_path, monkeypatch, tower, capsys, flags, message) -> None:
    monkeypatch.chdir(tmp_path)
    assert optimize.main(flags) == 2
    assert message in capsys.readouterr().err


def test_bfloat16_is_refused_where_it_is_emulated(tmp_path, monkeypatch, tower, capsys) -> None:
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "AVX2")
    flags = ["--tower.precision", "bfloat16", "--output", str(tmp_path)]
    assert optimize.main(["--prompt", "a red stick", *flags]) == 2
    assert "'bfloat16', which device 'cpu' does not have or emulates" in capsys.readouterr().err


def test_a_default_folder_that_is_the_start_is_refused(
    tmp_path, monkeypatch, tower, capsys
) -> None:
    """Also for a prompt of a file: the folder is named after it, and holds the start."""
    monkeypatch.chdir(tmp_path)
    assert optimize.main(["--prompt", "a red stick", *FLAGS]) == 0
    before = {
        path: path.read_bytes() for path in Path("outputs/a-red-stick").iterdir() if path.is_file()
    }
    start = ["--start", "outputs/a-red-stick", "--seed", "5", *FLAGS]
    assert optimize.main(["--prompt", "a red stick", *start]) == 2
    assert "would be overwritten" in capsys.readouterr().err
    Path("list.txt").write_text("a red stick\n")
    assert optimize.main(["--prompts", "list.txt", *start]) == 1
    assert {path: path.read_bytes() for path in before} == before


def test_an_unknown_tower_is_named(tmp_path, capsys) -> None:
    arguments = ["--prompt", "a red cone", "--guidance", "no-such-tower", "--output", str(tmp_path)]
    assert optimize.main(arguments) == 2
    error = capsys.readouterr().err
    assert "'no-such-tower' is no file, folder, Hub id (owner/name), shipped model (mini)" in error
    assert "published Alpha-CLIP (" in error and "ViT-H-14" in error


@pytest.mark.parametrize(
    ("error", "code", "message"),
    [
        (
            ImportError("open_clip needs open_clip: pip install 'alphaclip-gen[train]'"),
            2,
            "[train]",
        ),
        (PermissionError(13, "Permission denied", "tower.pt"), 2, "Permission denied: 'tower.pt'"),
        (torch.OutOfMemoryError("CUDA out of memory. Tried\nmore"), 1, "--tower.batch 8, by --spl"),
    ],
)
def test_what_stops_a_tower_is_one_line(
    tmp_path, monkeypatch, capsys, error, code, message
) -> None:
    def fail(config) -> None:
        raise error

    monkeypatch.setattr(optimize, "load_encoders", fail)
    command = ["--prompt", "a red stick", "--output", str(tmp_path), *FLAGS]
    assert optimize.main(command) == code
    said = capsys.readouterr().err
    assert said.startswith("error: ") and message in said and said.count("\n") == 1


def test_memory_that_is_used_up_costs_one_prompt_of_a_file(tmp_path, monkeypatch, capsys) -> None:
    class Large(Moments):
        def embed(self, *arguments):
            if self.calls == 5:
                self.calls += 1
                raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB.")
            return super().embed(*arguments)

    tower = Large()
    monkeypatch.setattr(optimize, "load_encoders", lambda config: (tower,))
    (tmp_path / "prompts.txt").write_text("a red stick\na blue disk\n")
    command = ["--prompts", str(tmp_path / "prompts.txt"), "--output", str(tmp_path / "out")]
    assert optimize.main([*command, *FLAGS]) == 1
    assert "a red stick: OutOfMemoryError: out of memory: CUDA" in capsys.readouterr().err
    assert result_of(tmp_path / "out" / "a-blue-disk")["steps"] == 3


def test_an_output_that_can_not_be_written_is_named(tmp_path, tower, capsys) -> None:
    (tmp_path / "file").write_text("in the way")
    arguments = ["--prompt", "a red stick", "--output", str(tmp_path / "file" / "out")]
    assert optimize.main(arguments) == 2
    error = capsys.readouterr().err
    assert "can't be written" in error and "--output" in error
    assert tower.calls == 0  # found out before the work


def test_alpha_of_other_kinds_is_named() -> None:
    with pytest.raises(ValueError, match="alpha is 'half'"):
        check(dataclasses.replace(SMALL, alpha="half"))


# Folders, files, pictures


def test_slugs_are_file_names_and_never_shared() -> None:
    assert slug("A red  cone!") == "a-red-cone"
    assert slug("../..") == "prompt"
    assert slug("ein grüner Würfel") == "ein-grüner-würfel"
    assert slugs(["a cone", "a cone!", "A cone?"]) == ["a-cone", "a-cone-2", "a-cone-3"]


def test_prompt_files(tmp_path) -> None:
    file = tmp_path / "prompts.txt"
    file.write_bytes("\ufeffa cone\r\n\r\n a cube \r\na cone\r\n".encode())
    assert read_prompts(file) == ["a cone", "a cube"]
    file.write_text(" \n")
    with pytest.raises(ValueError, match="is empty"):
        read_prompts(file)
    file.write_bytes(b"\xff\xfe\x00\x9f")
    with pytest.raises(ValueError, match="not UTF-8"):
        read_prompts(file)
