"""The gallery, on a program that writes ready-made meshes."""

import io
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console
from test_evaluate_parts import pair_mesh

from alphaclip_gen import gallery as program
from alphaclip_gen.evaluate_parts import parse_pair
from alphaclip_gen.gallery import Gallery, Piece, draw_gallery, gallery
from alphaclip_gen.made_meshes import Made, slug
from alphaclip_gen.mesh_judges import target
from alphaclip_gen.mini.captions import COLORS
from alphaclip_gen.mini.solid_meshes import blotch, solid_mesh
from alphaclip_gen.pictures import open_picture

PAIR = "a red cone @ top | a blue cube @ bottom"


@pytest.fixture
def made(tmp_path: Path) -> Path:
    """A red sphere, no green cube, and a pair."""
    shape, color = target("a red sphere")
    rng = np.random.default_rng(0)
    sphere = blotch(solid_mesh(shape), tuple(v**2.2 for v in COLORS[color]), rng)
    meshes = {
        "prompts/a-red-sphere": sphere,
        f"parts/{slug(parse_pair(PAIR).line('parts'))}": pair_mesh(parse_pair(PAIR)),
    }
    for name, mesh in meshes.items():
        (tmp_path / name).mkdir(parents=True)
        mesh.export(tmp_path / name / "mesh.glb")
        (tmp_path / name / "result.json").write_text('{"seconds": 41.6}')
    return tmp_path


def test_every_object_is_named_and_shown(made: Path) -> None:
    said = io.StringIO()
    config = Gallery(made, count=2, pairs=(PAIR,), judge_only=True)
    sphere, cube, pair = gallery(config, Console(file=said, width=200))
    assert sphere.note.startswith("42 s, seen as a red sphere, ")
    assert cube.mesh is None and cube.note == "no mesh.glb"
    assert pair.title == "a red cone @ top, a blue cube @ bottom"
    assert pair.note.startswith("42 s, seen as a ") and " and a " in pair.note
    assert "gallery.png" in said.getvalue()
    assert open_picture(made / "gallery.png").size == (10 + 2 * (4 * 116 + 10), 10 + 2 * 156)


def test_the_program_makes_prompts_and_parts_apart(made: Path, monkeypatch) -> None:
    calls, refused = [], {"a-red-sphere": "ValueError: of other settings"}

    def make(*call) -> Made:
        calls.append(call[1:])
        return Made(1, refused)

    monkeypatch.setattr(program, "make_meshes", make)
    config = Gallery(made, count=1, pairs=(PAIR,), program=made / "result", options="--steps 9")
    (made / "result").touch()
    sphere, pair = gallery(config, Console(quiet=True))
    assert sphere.mesh is None and sphere.note == "ValueError: of other settings"
    assert pair.mesh is not None
    assert calls == [
        (["a red sphere"], made / "prompts", ["--steps", "9"]),
        ([f"| {PAIR}"], made / "parts", ["--preset", "parts", "--steps", "9"]),
    ]


def test_frames_turn_around_the_object() -> None:
    """A cube with one red side shows it in one or two of four frames."""
    cube = solid_mesh("cube")
    faces = cube.face_normals[:, 0] > 0.9
    colors = np.where(faces[:, None], [220, 20, 20, 255], [30, 60, 200, 255])
    cube.visual.face_colors = colors.astype(np.uint8)
    cube = cube.copy()
    cube.unmerge_vertices()
    cube.visual.vertex_colors = np.repeat(colors, 3, axis=0).astype(np.uint8)
    sheet = np.asarray(draw_gallery([Piece("a cube", cube, "")], tile=60)).astype(int)
    red = (sheet[..., 0] > 120) & (sheet[..., 2] < 90)
    seen = [bool(red[10:70, 10 + 60 * n : 70 + 60 * n].any()) for n in range(4)]
    assert seen.count(True) in (1, 2)
