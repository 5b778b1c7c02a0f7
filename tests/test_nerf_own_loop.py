"""The pieces of nerf/ in a loop of one's own, and the page that says how."""

import re
from pathlib import Path

import numpy as np

import own_loop
from alphaclip_gen.pictures import open_picture
from formats import read_glb

PAGE = Path(__file__).parents[1] / "docs" / "nerf.md"


def test_it_ends_in_a_mesh_and_its_picture(tmp_path) -> None:
    """Gray at first, and redder by every step."""
    redder = []
    for steps in (0, 15):
        own_loop.main("a red sphere", str(tmp_path / "own.png"), steps=steps)
        mesh = read_glb((tmp_path / "own.glb").read_bytes())
        red, green, blue = np.asarray(mesh.visual.vertex_colors)[:, :3].mean(axis=0)
        redder.append(red - max(green, blue))
    assert redder[0] < 5 and redder[1] > 40
    assert open_picture(tmp_path / "own.png").width > 400


def test_what_the_page_says_runs(tmp_path, monkeypatch, capsys) -> None:
    (code,) = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend("nerf")  # taken off the path again at the end
    exec(compile(code.replace("steps=20", "steps=2"), str(PAGE), "exec"), {})
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == ["0", "1", "2"]
    assert open_picture(tmp_path / "cone.png").width == 256
