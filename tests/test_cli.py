"""The command line on the shipped mini: tables, figures, and every bad input's one clear line."""

import runpy
import subprocess
import sys

import pytest
import torch
from PIL import Image

from alphaclip_gen.cli import main
from alphaclip_gen.demo import name_regions
from alphaclip_gen.mini.concepts import NAMES
from alphaclip_gen.mini.kept_scenes import load_scenes
from alphaclip_gen.mini.solids import build_bank
from alphaclip_gen.mini.world import PLAIN, render_scenes
from alphaclip_gen.pictures import open_picture
from alphaclip_gen.show import figure, fit, lit_region, to_pil


@pytest.fixture(scope="module")
def scene(tmp_path_factory):
    """A scene of two solids: its picture file, the masks' files, and a box around the first."""
    generator = torch.Generator().manual_seed(11)
    scenes = render_scenes(build_bank(generator, 4, 0, 0.0, 64), 8, generator, PLAIN, size=96)
    row = int((scenes.present.sum(1) == 2).nonzero()[0])
    slots = scenes.present[row].nonzero()[:, 0].tolist()
    folder = tmp_path_factory.mktemp("scene")
    to_pil(scenes.image[row : row + 1]).save(folder / "scene.png")
    for number, slot in enumerate(slots):
        mask = (scenes.visible[row, slot] * 255).byte().numpy()
        Image.fromarray(mask).save(folder / f"mask{number}.png")
    rows, columns = (scenes.visible[row, slots[0]] > 0.5).nonzero().T
    box = [int(columns.min()), int(rows.min()), int(columns.max()) + 1, int(rows.max()) + 1]
    return folder, ",".join(map(str, box))


def test_score_prints_a_row_for_each_region_and_saves_a_figure(scene, capsys, tmp_path):
    folder, box = scene
    saved = tmp_path / "figure.png"
    regions = [
        "--box",
        box,
        "--mask",
        str(folder / "mask0.png"),
        "--mask",
        str(folder / "mask1.png"),
    ]
    main(["score", str(folder / "scene.png"), *regions, "--top", "2", "--save", str(saved)])
    printed = capsys.readouterr().out
    for name in ("scene.png, 96 x 96, mini", "whole picture", f"box {box}", "mask1.png"):
        assert name in printed
    assert open_picture(saved).width == 4 * (224 + 10) + 10


def test_score_knows_emoji_too(tmp_path, capsys):
    """Of three in one scene that is shipped, two at least are named without any texts given."""
    scenes = load_scenes(most=1)
    to_pil(scenes.image).save(tmp_path / "scene.png")
    names, regions = [], list[str]()
    for slot in scenes.present[0].nonzero()[:3, 0].tolist():
        mask = tmp_path / f"{slot}.png"
        Image.fromarray((scenes.visible[0, slot] * 255).byte().numpy()).save(mask)
        names.append(NAMES[int(scenes.concept[0, slot])])
        regions += ["--mask", str(mask)]
    main(["score", str(tmp_path / "scene.png"), *regions, "--top", "1"])
    printed = capsys.readouterr().out
    assert len(names) == 3 and sum(name in printed for name in names) >= 2


def test_many_texts_stand_one_below_the_other(scene, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    main(["score", str(scene[0] / "scene.png"), "--box", "1,1,90,90", "--top", "5"])
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 80 and "…" not in "".join(lines)
    figures = [line for line in lines if " 0." in line or " 1.00" in line]
    assert len(figures) == 2 * 5


def test_score_cuts_regions_out_centered_and_shows_the_whole_picture_whole(scene, capsys):
    folder, box = scene
    command = ["score", str(folder / "scene.png"), "--box", box]
    main([*command, "--geometry", "region-centered"])
    assert "whole picture" in capsys.readouterr().out


def test_score_chooses_among_the_given_texts(scene, capsys):
    folder, _ = scene
    main(["score", str(folder / "scene.png"), "--texts", "a cat, a dog", "--point", "0.5,0.5"])
    captured = capsys.readouterr()
    assert "a cat" in captured.out and "a dog" in captured.out
    assert "point 0.5,0.5" in captured.out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--box", "1,2,3"], "box is '1,2,3'; expected numbers as left,top,right,bottom"),
        (["--box", "50,10,20,40"], "has no area"),
        (["--box", "10,10,200,40"], "leaves the picture"),
        (["--point", "a,b"], "point is 'a,b'; expected numbers as x,y"),
        (["--point", "300,5"], "outside the picture"),
        (["--stroke", "5,5 400,6"], "outside the picture"),
        (["--mask", "missing.png"], "no picture file at 'missing.png'"),
        (["--texts", "a red cone,,a cube"], "expected texts separated by commas"),
        (["--top", "0"], "top is 0; expected 1 or more"),
        (["--radius", "0", "--point", "5,5"], "radius is 0; expected a fraction of the picture's"),
        (["--width", "nan"], "width is nan; expected a fraction"),
        (["--box", "0.1,20,0.5,60"], "box is '0.1,20,0.5,60'; expected whole numbers for pixels"),
        (["--point", "1.5,0.3"], "all from 0 to 1 for fractions of the picture"),
        (["--save", "/proc/figure.png"], "save '/proc' can't be written"),
        (["--model", "nowhere", "--texts", "a"], "'nowhere' is no file, folder"),
        (["--model", "nowhere"], "'nowhere' is no file, folder"),
    ],
)
def test_bad_input_is_one_clear_line_and_exit_code_2(scene, capsys, arguments, message):
    folder, _ = scene
    with pytest.raises(SystemExit) as stop:
        main(["score", str(folder / "scene.png"), *arguments])
    captured = capsys.readouterr()
    assert stop.value.code == 2
    assert message in captured.err and captured.err.startswith("error: ")
    assert len(captured.err.strip().splitlines()) == 1


def test_the_package_is_the_program(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["alphaclip-gen", "score", "nowhere.png"])
    with pytest.raises(SystemExit) as stop:
        runpy.run_module("alphaclip_gen", run_name="__main__")
    assert stop.value.code == 2 and "no picture file" in capsys.readouterr().err


def test_unreadable_pictures(tmp_path, capsys):
    (tmp_path / "broken.png").write_bytes(b"not a picture")
    for name, message in (("broken.png", "as a picture"), ("none.png", "no picture file")):
        with pytest.raises(SystemExit):
            main(["score", str(tmp_path / name)])
        assert message in capsys.readouterr().err


def test_evaluate_mini_writes_what_it_prints(tmp_path, capsys):
    main(["evaluate", "mini", "--scenes", "8", "--lines", "2", "--output", str(tmp_path)])
    assert "alpha on the object" in capsys.readouterr().out
    assert "| all-one alpha |" in (tmp_path / "mini.md").read_text()


def without_extras(*arguments: str) -> subprocess.CompletedProcess:
    """The command line where only what `pip install alphaclip-gen` brings can be imported."""
    code = (
        "import sys; sys.modules.update(dict.fromkeys(sys.argv[1].split(',')));"
        "from alphaclip_gen.cli import main; main(sys.argv[2:])"
    )
    missing = "diffusers,accelerate,skimage,open_clip,xatlas,fast_simplification,resvg_py,gradio"
    command = [sys.executable, "-c", code, missing, *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_without_extras_scores_and_says_what_drawing_needs(scene):
    picture = str(scene[0] / "scene.png")
    scored = without_extras("score", picture, "--texts", "a red cone, a blue ball")
    assert scored.returncode == 0 and "a red cone" in scored.stdout
    drawn = without_extras("grid")
    assert drawn.returncode == 2
    assert drawn.stderr.startswith("error: diffusers is not installed; it comes with an extra")


@pytest.mark.parametrize("command", [["evaluate", "focus", "--artwork", "."], ["grid"]])
def test_measuring_and_drawing_the_focus_say_what_is_missing(tmp_path, capsys, command):
    with pytest.raises(SystemExit) as stop:
        main([*command, "--generator", str(tmp_path)])
    assert stop.value.code == 2
    assert "there is no " in capsys.readouterr().err


# Pictures


def test_demo_names_the_regions_of_scenes(tmp_path):
    path = name_regions(tmp_path, seed=3, size=96)
    sheet = open_picture(path)
    assert sheet.width > 4 * 224 and sheet.height > 3 * 224  # a row each: the whole, three regions
    assert open_picture(tmp_path / "scene.png").size == (96, 96)


def test_lit_region_keeps_the_region_and_drains_the_rest():
    image = torch.tensor([0.8, 0.2, 0.1]).view(1, 3, 1, 1).expand(1, 3, 4, 8)
    alpha = torch.zeros(1, 1, 4, 8)
    alpha[..., :4] = 1
    lit = lit_region(image, alpha)
    assert lit.getpixel((1, 1)) == (204, 51, 26)
    assert len(set(lit.getpixel((6, 1)))) == 1


def test_figures_fit_wide_pictures_and_wrap_into_rows():
    wide = Image.new("RGB", (100, 50), (255, 0, 0))
    assert fit(wide, 40).getpixel((20, 5)) == (255, 255, 255)
    assert fit(wide, 40).getpixel((20, 20)) == (255, 0, 0)
    sheet = figure([wide] * 3, [["a"], ["b", "c"], ["d"]], tile=40, columns=2)
    assert sheet.size == (2 * 50 + 10, 2 * (40 + 36 + 20) + 10)
