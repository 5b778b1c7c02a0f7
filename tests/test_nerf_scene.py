"""What a run is given: blobs where parts belong, a mesh to start from, what stays of it."""

import dataclasses
import json
import runpy
from pathlib import Path

import numpy as np
import pytest
import torch
import trimesh

from blobs import Proportion
from colors import as_bytes
from field import FieldSettings, VoxelField
from grids import sample
from parts import parse_shape
from scene import (
    RADIUS,
    Body,
    Scene,
    check_apart,
    check_start,
    digests,
    filled,
    first_field,
    mesh_of,
    open_scene,
    read_start,
    sizes,
)
from settings import Config, StartSettings
from warm_start import Start

SMALL = runpy.run_path(str(Path(__file__).with_name("stand_in_tower.py")))["SMALL"]
CPU = torch.device("cpu")
FREE = dataclasses.replace(SMALL.field, mirror="none", color_sizes=(4, 4, 4), smoothing=0)
RED, BLUE, GRAY = (0.9, 0.1, 0.1), (0.1, 0.1, 0.9), (0.5, 0.5, 0.5)


def shape(text: str):
    return parse_shape(text, "part")


def start_of(*colors: tuple[float, float, float]) -> Start:
    parts = tuple(Start(Proportion(), color, None) for color in colors)
    return Start(Proportion(0.4, 0.8, 0.4), GRAY, None, parts)


@pytest.fixture(scope="module")
def left_block(tmp_path_factory) -> Path:
    """A red block in the left half."""
    mesh = trimesh.creation.box(bounds=[[-0.6, -0.3, -0.3], [-0.1, 0.3, 0.3]])
    mesh.visual = trimesh.visual.ColorVisuals(
        mesh, vertex_colors=np.tile(as_bytes(np.array(RED)), (8, 1))
    )
    path = tmp_path_factory.mktemp("start") / "block.ply"
    mesh.export(path)
    return path


@pytest.fixture(scope="module")
def body(left_block) -> Body:
    return read_start(StartSettings(left_block, fit=False))


# Blobs in parts


def test_parts_alone_begin_as_a_blob_each_in_its_color() -> None:
    scene = Scene((shape("left"), shape("right")), whole=False)
    volume = first_field(start_of(RED, BLUE), scene, FREE, CPU).volume()
    centers = torch.tensor([[-0.4, 0.0, 0.0], [0.4, 0.0, 0.0], [0.0, 0.9, 0.0]])
    density, color, _ = volume(centers)
    assert density[0] > 20 and density[1] > 20 and density[2] < 1
    assert torch.allclose(color[:, 0], torch.tensor(RED), atol=0.12)
    assert torch.allclose(color[:, 1], torch.tensor(BLUE), atol=0.12)


def test_a_part_too_small_for_its_blob_begins_with_a_voxel_of_it() -> None:
    """A stick in a ball of radius 0.2 would be thinner than the voxels."""
    thin = Proportion(0.2, 0.75, 0.2)
    part = Start(thin, RED, None)
    field = first_field(
        Start(thin, RED, None, (part,)), Scene((shape("ball 0 0.6 0 0.2"),), whole=False), FREE, CPU
    )
    density, _, _ = field.volume()(torch.tensor([[0.0, 0.6, 0.0], [0.0, -0.6, 0.0]]))
    assert density[0] > 10 > 1 > density[1]


def test_the_whole_gives_way_to_the_blob_of_a_part() -> None:
    """The gray stick reaches up to 0.8; above 0.2 a red ball of radius 0.2 takes its place."""
    scene = Scene((shape("top 0.2"),))
    field = first_field(start_of(RED), scene, FREE, CPU)
    places = torch.tensor([[0.0, -0.5, 0.0], [0.0, 0.5, 0.0], [0.0, 0.77, 0.0]])
    density, color, _ = field.volume()(places)
    assert density[0] > 20 and density[1] > 17
    plain = first_field(start_of(), Scene(), FREE, CPU).volume()(places)[0]
    assert density[2].item() != pytest.approx(plain[2].item(), rel=0.05)
    assert color[0, 1] > 0.6 > color[0, 0]


def test_the_prompt_reaches_less_into_parts() -> None:
    scene = Scene((shape("top"), shape("left")), prompt_in_parts=0.2)
    places = torch.tensor([[0.5, 0.5, 0.0], [-0.5, -0.5, 0.0], [0.5, 0.0, 0.0], [0.5, -0.5, 0.0]])
    assert scene.reach(places).tolist() == pytest.approx([0.2, 0.2, 0.6, 1.0])


def test_without_parts_it_begins_as_before() -> None:
    from field import blob_field

    field = first_field(start_of(), Scene(), FREE, CPU)
    blob = blob_field(Proportion(0.4, 0.8, 0.4), torch.tensor(GRAY), FREE)
    assert torch.equal(field.density, blob.density) and torch.equal(field.color, blob.color)


# A mesh to start from


def test_a_start_is_where_its_mesh_is(body) -> None:
    field = first_field(start_of(), Scene(body=body), FREE, CPU)
    places = torch.tensor([[-0.35, 0.0, 0.0], [0.35, 0.0, 0.0], [-0.35, 0.7, 0.0]])
    density, color, _ = field.volume()(places)
    assert density[0] > 20 and density[1] < 1 and density[2] < 3
    assert torch.allclose(color[:, 0], torch.tensor(RED), atol=0.02)


def two_halves(folder: Path) -> Path:
    """A cube, blue on the left and red on the right."""
    cube = trimesh.creation.box((1.0, 1.0, 1.0)).subdivide()
    cube.unmerge_vertices()
    left = np.repeat(cube.triangles_center[:, :1] < 0, 3, axis=0)
    color = as_bytes(np.where(left, np.array(BLUE), np.array(RED)))
    cube.visual = trimesh.visual.ColorVisuals(cube, vertex_colors=color)
    cube.export(folder / "halves.ply")
    return folder / "halves.ply"


def test_the_colors_of_a_start_are_not_lost_in_a_coarse_grid(tmp_path) -> None:
    """3 voxels a side would mix them; all stages have at least 12."""
    mirrored = dataclasses.replace(Config().field, mirror="none")
    config = dataclasses.replace(SMALL, start=StartSettings(two_halves(tmp_path)), field=mirrored)
    scene = open_scene(config, CPU)
    field = first_field(start_of(), scene, mirrored, CPU)
    color = field.volume()(torch.tensor([[-0.15, 0.0, 0.0], [0.15, 0.0, 0.0]]))[1]
    assert torch.allclose(color[:, 0], torch.tensor(BLUE), atol=0.05)
    assert torch.allclose(color[:, 1], torch.tensor(RED), atol=0.05)
    assert [sizes(scene, mirrored, stage) for stage in range(3)] == [(24, 12), (32, 12), (48, 12)]
    fine = dataclasses.replace(mirrored, color_sizes=(4, 8, 16))
    assert sizes(scene, fine, 0) == (24, 16) and sizes(Scene(), fine, 1) == (32, 8)


def test_a_mesh_is_fitted_unless_it_shall_stay(left_block) -> None:
    fitted = read_start(StartSettings(left_block))
    scale = RADIUS / float(np.linalg.norm([0.25, 0.3, 0.3]))
    places = torch.tensor([[0.0, 0.0, 0.0], [0.25 * scale, 0.0, 0.0], [0.0, 0.3 * scale, 0.0]])
    assert sample(fitted.distance, places)[0].tolist() == pytest.approx(
        [-0.25 * scale, 0.0, 0.0], abs=0.05
    )


def test_a_part_begins_anew_only_where_the_start_is_empty(body) -> None:
    assert filled(body, shape("right")) == 0 and filled(body, shape("left")) > 0.05
    scene = Scene((shape("left"), shape("right")), body=body)
    density, color, _ = first_field(start_of(BLUE, BLUE), scene, FREE, CPU).volume()(
        torch.tensor([[-0.35, 0.0, 0.0], [0.4, 0.0, 0.0]])
    )
    assert (density > 20).all()
    assert color[0, 0] > 0.7 and color[2, 1] > 0.6  # the red block stays red


# What stays


def free_volume(sharpness: float):
    generator = torch.Generator().manual_seed(0)
    density = torch.randn(1, 1, 16, 16, 16, generator=generator)
    field = VoxelField(density, torch.randn(1, 3, 4, 4, 4, generator=generator), FREE)
    return field, field.volume(sharpness)


def test_what_is_kept_is_the_start_and_nothing_moves_it(left_block) -> None:
    given = StartSettings(left_block, fit=False, keep=("left 0.1",))
    scene = open_scene(dataclasses.replace(SMALL, start=given, field=FREE), CPU)
    field, volume = free_volume(3.0)
    stays, moves = torch.tensor([[-0.4, 0.1, 0.0]]), torch.tensor([[0.4, 0.1, 0.0]])
    now = scene.held(volume, 3.0)
    density, color, _ = now(stays)
    assert density.item() == pytest.approx(30 * torch.tensor(3 * 12 * 0.2).sigmoid().item(), abs=2)
    assert torch.allclose(color[:, 0], torch.tensor(RED), atol=0.02)
    assert torch.allclose(now(moves)[0], volume(moves)[0])
    assert torch.allclose(now(moves)[1], volume(moves)[1], atol=0.1)  # finer grid, same colors
    for places, moved in ((stays, False), (moves, True)):
        density, color, _ = scene.held(field.volume(3.0), 3.0)(places)
        gradients = torch.autograd.grad(density.sum() + color.sum(), field.parameters())
        assert all(bool((g != 0).any()) == moved for g in gradients)


def test_repainting_keeps_the_shape_and_moves_colors(left_block) -> None:
    given = StartSettings(left_block, fit=False, repaint=True)
    config = dataclasses.replace(SMALL, start=given)  # mirrored: only colors would be
    scene = open_scene(config, CPU)
    field, volume = free_volume(2.0)
    now = scene.held(volume, 2.0)
    density, color, _ = now(torch.tensor([[-0.35, 0.0, 0.0], [0.35, 0.0, 0.0]]))
    assert density[0] > 25 and density[1] < 0.5
    assert torch.equal(now.color_logits, volume.color_logits)
    gradients = torch.autograd.grad(density.sum() + color.sum(), field.parameters())
    assert (gradients[0] == 0).all() and (gradients[1] != 0).any()


def test_nothing_kept_is_the_volume_itself() -> None:
    _, volume = free_volume(1.0)
    assert Scene().held(volume, 1.0) is volume


# Where a start comes from


def result_folder(folder: Path, left_block: Path, kind: str = "ply") -> Path:
    folder.mkdir()
    (folder / "result.json").write_text(json.dumps({"files": [f"mesh.{kind}"]}))
    trimesh.load_mesh(left_block).export(folder / f"mesh.{kind}")
    return folder


def test_a_result_stays_where_it_is(tmp_path, left_block) -> None:
    folder = result_folder(tmp_path / "earlier", left_block)
    assert mesh_of(folder) == folder / "mesh.ply"
    body = read_start(StartSettings(folder))  # fit counts for files only
    inside = sample(body.distance, torch.tensor([[-0.35, 0.0, 0.0], [0.35, 0.0, 0.0]]))[0]
    assert inside[0] < 0 < inside[1]


def test_digests_change_with_the_files(tmp_path, left_block) -> None:
    folder = result_folder(tmp_path / "earlier", left_block)
    start = StartSettings(folder, keep=(str(left_block), "top"))
    config = dataclasses.replace(SMALL, start=start, parts=("a hat @ top",))
    found = digests(config)
    assert found.keys() == {str(left_block), str(folder / "mesh.ply")}
    with (folder / "mesh.ply").open("ab") as file:
        file.write(b"\n")
    again = digests(config)
    assert again[str(left_block)] == found[str(left_block)]
    assert again[str(folder / "mesh.ply")] != found[str(folder / "mesh.ply")]
    assert digests(SMALL) == {}


def opened(**settings) -> Scene:
    config = dataclasses.replace(SMALL, **settings)
    check_start(config)
    return open_scene(config, CPU)


def test_starts_that_can_not_be_used_are_named(tmp_path, left_block) -> None:
    folder = tmp_path / "empty"
    folder.mkdir()
    with pytest.raises(ValueError, match=r"empty' is a folder without a result.json; expected"):
        opened(start=StartSettings(folder))
    only_shape = result_folder(tmp_path / "shape", left_block, "stl")
    with pytest.raises(ValueError, match=r"holds no mesh.glb, .* but \['mesh.stl'\]; expected"):
        opened(start=StartSettings(only_shape))
    with pytest.raises(FileNotFoundError, match=r"start .*none.ply' not found"):
        opened(start=StartSettings(tmp_path / "none.ply"))
    far = tmp_path / "far.ply"
    trimesh.creation.box().apply_translation([5, 0, 0]).export(far)
    with pytest.raises(ValueError, match=r"has nothing in the ball of radius 1 .* --start.fit"):
        opened(start=StartSettings(far, fit=False))
    with pytest.raises(ValueError, match=r"start .* is not the same on both sides of x, .* z\."):
        opened(start=StartSettings(left_block, fit=False))


@pytest.mark.parametrize(
    ("start", "field", "message"),
    [
        ({"repaint": True}, {}, "repaint is True without a start; expected a mesh or an earlier"),
        ({"keep": ("top",)}, {}, r"keep is \('top',\) without a start"),
        ({"start": Path("a.ply")}, {"kind": "implicit"}, "needs field.kind 'explicit', got 'impl"),
        ({"start": Path("a.ply")}, {"begin": "haze"}, "needs field.begin 'blob', got 'haze'"),
        (
            {"start": Path("a.ply"), "repaint": True, "keep": ("ball 0 0 0 1.2",)},
            {},
            "repaint and keep .* leave nothing to change",
        ),
        (
            {"start": Path("a.ply"), "repaint": True, "keep": ("top", "bottom")},
            {},
            "repaint and keep .* leave nothing to change",
        ),
    ],
)
def test_settings_that_conflict_are_named(start, field, message) -> None:
    settings = dataclasses.replace(FieldSettings(), **field)
    config = Config(
        prompt="a hat", output=Path("out"), field=settings, start=StartSettings(**start)
    )
    with pytest.raises(ValueError, match=message):
        check_start(config)


def test_shapes_that_are_kept_may_overlap() -> None:
    """An eighth is free, though the shapes are halves of the ball each."""
    given = StartSettings(Path("a.ply"), repaint=True, keep=("top", "left", "front"))
    check_start(Config(prompt="a hat", output=Path("out"), start=given))


@pytest.mark.parametrize("start", ["out", "out/mesh.glb", "out/mesh.ply"])
def test_a_start_is_not_overwritten(start) -> None:
    with pytest.raises(
        ValueError, match=r"would be overwritten by the results in .*out'; expected"
    ):
        check_apart(StartSettings(Path(start)), Path("out"))
    for apart in (StartSettings(Path("out/tower.glb")), StartSettings(Path("in")), StartSettings()):
        check_apart(apart, Path("out"))


def test_a_kept_shape_is_as_symmetric_as_the_field(left_block) -> None:
    with pytest.raises(ValueError, match=r"keep 'left' is not the same on both sides of x"):
        opened(start=StartSettings(left_block, repaint=True, keep=("left",)))


def test_a_start_goes_into_a_checkpoint_and_back() -> None:
    start = start_of(RED, BLUE)
    assert Start.from_dict(json.loads(json.dumps(dataclasses.asdict(start)))) == start
