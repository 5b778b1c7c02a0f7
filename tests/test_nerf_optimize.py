"""The program, run on a stand-in tower that sees the region's mean color and how tall it is."""

import dataclasses
import io
import json
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

import optimize
from alphaclip_gen.guidance import Guidance
from field import FieldSettings, Proportion
from loop import Clock, guidance_gradient, scale_to_unit
from outputs import read_prompts, slug, slugs, write
from settings import AugmentSettings, Config, check
from surface import read_glb
from turntable import PictureSettings, contact_sheet, gif
from warm_start import WarmStartSettings, best_start, palette

WORDS = {
    "red": [1.0, -1.0, -1.0, 0.0],
    "green": [-1.0, 1.0, -1.0, 0.0],
    "blue": [-1.0, -1.0, 1.0, 0.0],
    "stick": [0.0, 0.0, 0.0, 1.5],
    "disk": [0.0, 0.0, 0.0, -1.5],
}
SMALL = Config(
    prompt="a red stick",
    steps=3,
    views=2,
    resolution=16,
    negatives=("a blue stick", "a red disk", "a green disk"),
    field=FieldSettings(density_sizes=(10, 12, 16), color_sizes=(2, 2, 3)),
    warm_start=WarmStartSettings(shades=2, finalists=3, views=2),
    pictures=PictureSettings(size=24, frames=4, step=0.1),
)
FLAGS = [
    *("--steps", "3", "--views", "2", "--resolution", "16"),
    *("--field.density-sizes", "10", "12", "16", "--field.color-sizes", "2", "2", "3"),
    *("--warm-start.shades", "2", "--warm-start.finalists", "3"),
    *("--pictures.size", "24", "--pictures.frames", "4"),
    *("--negatives", "a blue stick", "a green disk"),
]


class Moments:
    """Mean color in the region, and the log of its height over its width."""

    logit_scale = 10.0

    def __init__(self, interrupt_after: int | None = None) -> None:
        self.calls = 0
        self.interrupt_after = interrupt_after
        self.saw_alpha: set[bool] = set()

    def embed(self, image: Tensor, alpha: Tensor | None = None) -> Tensor:
        self.calls += 1
        if self.calls == self.interrupt_after:
            raise KeyboardInterrupt
        self.saw_alpha.add(alpha is not None)
        weight = torch.ones_like(image[:, :1]) if alpha is None else alpha
        mass = weight.sum(dim=(1, 2, 3)).clamp(min=1e-3)
        color = (weight * image).sum(dim=(2, 3)) / mass[:, None]
        axis = torch.linspace(-1, 1, image.shape[-1])
        tall, wide = (
            (weight * a.square()).sum(dim=(1, 2, 3)).add(1e-4) / mass for a in (axis[:, None], axis)
        )
        return F.normalize(torch.cat([2 * color - 1, (tall / wide).log()[:, None]], dim=1), dim=1)

    def embed_texts(self, texts: list[str]) -> Tensor:
        known = [[WORDS[word] for word in text.split()[1:]] for text in texts]
        return F.normalize(torch.tensor(known).sum(dim=1), dim=1)


@pytest.fixture
def tower(monkeypatch) -> Moments:
    encoder = Moments()
    monkeypatch.setattr(optimize, "load_encoder", lambda config: encoder)
    return encoder


def result_of(folder: Path) -> dict:
    return json.loads((folder / "result.json").read_text())


def guide_of(config: Config = SMALL) -> Guidance:
    return optimize.make_guide(config, Moments())


# A run


def test_a_run_writes_its_four_files(tmp_path) -> None:
    result = optimize.run(SMALL, Moments(), tmp_path)
    files = {path.name for path in tmp_path.iterdir()}
    assert files == {"mesh.glb", "turntable.gif", "preview.png", "result.json"}
    assert json.loads(json.dumps(result)) == result_of(tmp_path)
    assert result["prompt"] == "a red stick" and result["steps"] == 3 and not result["interrupted"]
    assert result["settings"]["field"]["density_sizes"] == [10, 12, 16]
    assert {"python", "torch", "alphaclip-gen"} <= result["versions"].keys()
    assert result["milliseconds_a_step"].keys() == {"CLIP", "rendering"}
    assert result["seconds"] >= sum(result["seconds_by_part"].values()) - 0.05
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
        result = optimize.run(dataclasses.replace(SMALL, seed=seed), Moments(), folder)
        assert torch.equal(torch.get_rng_state(), before)
        meshes.append((folder / "mesh.glb").read_bytes())
        scores.append(result["scores"])
    assert meshes[0] == meshes[1] != meshes[2]
    assert scores[0] == scores[1]


def test_it_becomes_what_is_asked(tmp_path) -> None:
    """From a gray ball, without warm start: red, and taller than wide."""
    config = dataclasses.replace(
        SMALL, steps=40, warm_start=WarmStartSettings(shades=0), views=4, resolution=24
    )
    result = optimize.run(config, Moments(), tmp_path)
    mesh = read_glb((tmp_path / "mesh.glb").read_bytes())
    red, green, blue = np.asarray(mesh.visual.vertex_colors)[:, :3].mean(axis=0) / 255
    assert red > 0.7 and max(green, blue) < red - 0.3
    assert mesh.extents[1] > 1.2 * mesh.extents[0]
    assert result["scores"]["named"] == "a red stick"


@pytest.mark.parametrize(("alpha", "seen"), [("opacity", {True}), ("ones", {False})])
def test_alpha_is_the_opacity_or_nothing(tmp_path, alpha, seen) -> None:
    encoder = Moments()
    optimize.run(dataclasses.replace(SMALL, alpha=alpha), encoder, tmp_path)
    assert encoder.saw_alpha == seen


def test_the_guides_gradient_is_the_one_of_the_whole_chain() -> None:
    generator = torch.Generator().manual_seed(0)
    opacity = torch.rand(2, 1, 16, 16, generator=generator).requires_grad_()
    color = torch.rand(2, 3, 16, 16, generator=generator).mul(0.5).requires_grad_()
    config = dataclasses.replace(SMALL, augment=AugmentSettings(strength=0.0))
    guide = guide_of()
    seeded = torch.Generator().manual_seed(3)
    loss, score, (in_color, in_opacity) = guidance_gradient(guide, color, opacity, config, seeded)
    assert in_opacity.abs().max() > 1e-4 and in_color.abs().max() > 1e-4
    assert 0 < score < 1
    # The same chain at a point a little farther along the descent has a lower loss.
    step = 2.0
    seeded = torch.Generator().manual_seed(3)
    nearer = guidance_gradient(
        guide, color - step * in_color, opacity - step * in_opacity, config, seeded
    )[0]
    assert nearer < loss


def test_gradients_are_scaled_to_an_even_size() -> None:
    parameter = torch.nn.Parameter(torch.zeros(4))
    parameter.grad = torch.tensor([0.0, 3.0, 4.0, 0.0])
    scale_to_unit(parameter)
    expected = torch.tensor([0.0, 3.0, 4.0, 0.0]) / (25 / 2) ** 0.5
    assert torch.allclose(parameter.grad, expected)
    parameter.grad = torch.zeros(4)
    scale_to_unit(parameter)
    assert (parameter.grad == 0).all()


def test_clock_adds_up_by_part() -> None:
    clock = Clock(torch.device("cpu"))
    for part in ("a", "b", "a"):
        with clock(part):
            pass
    assert clock.seconds.keys() == {"a", "b"} and min(clock.seconds.values()) >= 0


def test_mini_is_held_against_its_own_world() -> None:
    class Everything(Moments):
        def embed_texts(self, texts: list[str]) -> Tensor:
            return F.normalize(torch.randn(len(texts), 64), dim=1)

    config = Config(prompt="a red cone")
    assert len(optimize.make_guide(config, Everything()).texts) == 144
    other = dataclasses.replace(config, guidance="somewhere")
    assert optimize.make_guide(other, Everything()).loss == "cosine"


# The warm start


def test_the_warm_start_finds_color_and_proportion() -> None:
    field = FieldSettings(density_sizes=(24,), color_sizes=(2,), grow_at=())
    config = dataclasses.replace(
        SMALL, prompt="a blue disk", negatives=("a red disk", "a green disk", "a red stick")
    )
    shapes = (Proportion(0.2, 0.7, 0.2), Proportion(0.7, 0.2, 0.7))
    settings = WarmStartSettings(shades=3, finalists=6, views=3)
    start = best_start(
        guide_of(config), True, 24, settings, field, config.cameras, config.render,
        torch.Generator().manual_seed(0), torch.device("cpu"), shapes,
    )  # fmt: skip
    red, green, blue = start.color
    assert blue > 0.9 and blue - max(red, green) > 0.4
    assert start.proportion == shapes[1] and start.score > 0


def test_the_palette_is_a_lattice() -> None:
    colors = palette(5)
    assert colors.shape == (125, 3) and len(colors.unique(dim=0)) == 125
    assert colors.min() == pytest.approx(0.05) and colors.max() == pytest.approx(0.95)


# Interrupts


def test_an_interrupt_keeps_what_is_done(tmp_path) -> None:
    quiet = dataclasses.replace(SMALL, warm_start=WarmStartSettings(shades=0), steps=50)
    result = optimize.run(quiet, Moments(interrupt_after=4), tmp_path)
    assert result["interrupted"] and result["steps"] == 3
    assert result_of(tmp_path)["interrupted"]
    assert read_glb((tmp_path / "mesh.glb").read_bytes()).is_watertight


def test_an_interrupt_before_the_first_step_leaves_nothing(tmp_path, monkeypatch, capsys) -> None:
    encoder = Moments(interrupt_after=1)
    monkeypatch.setattr(optimize, "load_encoder", lambda config: encoder)
    arguments = ["--prompt", "a red stick", "--output", str(tmp_path), *FLAGS]
    assert optimize.main(arguments) == 130
    assert list(tmp_path.iterdir()) == []
    assert "nothing to keep" in capsys.readouterr().err


def test_an_interrupted_prompt_is_made_again(tmp_path) -> None:
    optimize.run(SMALL, Moments(), tmp_path)
    assert optimize.is_finished(SMALL, tmp_path)
    broken = result_of(tmp_path) | {"interrupted": True}
    (tmp_path / "result.json").write_text(json.dumps(broken))
    assert not optimize.is_finished(SMALL, tmp_path)


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
    assert {path.name for path in output.iterdir()} == {"a-red-stick", "a-teapot", "a-blue-disk"}
    first = capsys.readouterr()
    assert "1 of 3 prompts failed" in first.err and "a teapot: " in first.err
    stamp = (output / "a-red-stick" / "mesh.glb").stat().st_mtime_ns
    assert optimize.main(arguments) == 1
    assert capsys.readouterr().out.count("skipped") == 2
    assert (output / "a-red-stick" / "mesh.glb").stat().st_mtime_ns == stamp


def test_results_of_other_settings_are_not_passed_off(tmp_path, tower, capsys) -> None:
    file = tmp_path / "prompts.txt"
    file.write_text("a red stick\n")
    arguments = ["--prompts", str(file), "--output", str(tmp_path), *FLAGS]
    assert optimize.main(arguments) == 0
    assert optimize.main([*arguments, "--seed", "5"]) == 1
    assert "other settings (seed)" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--prompt", " "], "prompt is empty"),
        ([], "got neither"),
        (["--prompt", "a red stick", "--prompts", "list.txt"], "got both"),
        (["--prompts", "no-such-list.txt"], "no-such-list.txt' not found"),
        (["--prompt", "a red stick", "--steps", "0"], "steps is 0; expected 1 or more"),
        (["--prompt", "a red stick", "--views", "0"], "views is 0; expected 1 or more"),
        (["--prompt", "a red stick", "--resolution", "4"], "resolution is 4; expected 16"),
        (["--prompt", "a red stick", "--seed", "-1"], "seed is -1; expected 0 or more"),
        (["--prompt", "a red stick", "--device", "toaster"], "device 'toaster' is not usable"),
        (["--prompt", "a red stick", "--field.grow-at", "0.5"], "expected 2 rising numbers"),
        (["--prompt", "a red stick", "--field.density-sizes", "8"], "equally many sizes"),
        (["--prompt", "a red stick", "--loss", "contrastive", "--guidance", "x"], "negatives"),
    ],
)
def test_bad_settings_are_named(tmp_path, monkeypatch, tower, capsys, flags, message) -> None:
    monkeypatch.chdir(tmp_path)
    assert optimize.main(flags) == 2
    assert message in capsys.readouterr().err


def test_an_unknown_tower_is_named(tmp_path, capsys) -> None:
    arguments = ["--prompt", "a red cone", "--guidance", "no-such-tower", "--output", str(tmp_path)]
    assert optimize.main(arguments) == 2
    assert "no-such-tower" in capsys.readouterr().err


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


def test_files_are_whole_or_absent(tmp_path) -> None:
    path = tmp_path / "mesh.glb"
    write(path, b"first")
    with pytest.raises(TypeError):
        write(path, "not bytes")
    assert path.read_bytes() == b"first"
    assert [p.name for p in tmp_path.iterdir()] == ["mesh.glb"]


def test_a_sheet_picks_frames_evenly() -> None:
    frames = [Image.new("RGB", (4, 4), (10 * i, 0, 0)) for i in range(16)]
    sheet = Image.open(io.BytesIO(contact_sheet(frames, columns=2, rows=2)))
    assert sheet.size == (8, 8)
    assert [sheet.getpixel(at)[0] for at in ((0, 0), (4, 0), (0, 4), (4, 4))] == [0, 40, 80, 120]
    animation = Image.open(io.BytesIO(gif(frames, 50)))
    assert animation.n_frames == 16 and animation.info["duration"] == 50
