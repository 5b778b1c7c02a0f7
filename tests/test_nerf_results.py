"""What a run leaves behind: the files that were asked for, whole, and what is said about them."""

import dataclasses
import importlib.util

import pytest
import torch
import trimesh

import results
from blobs import Proportion, blob_logits
from field import FieldSettings, Volume, VoxelField, haze_field
from results import MeshSettings, check_files, drop_older_files, save_result_files
from turntable import PictureSettings, VideoFailed, animation

PICTURES = PictureSettings(size=24, frames=4, step=0.1)


@pytest.fixture(scope="module")
def volume() -> Volume:
    settings = FieldSettings(density_sizes=(20,), color_sizes=(2,), smoothing=0, mirror="none")
    with torch.no_grad():
        logits = blob_logits(Proportion(), 20)
        return VoxelField(logits, torch.zeros(1, 3, 2, 2, 2), settings).volume(6.0)


def names(folder) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_little_by_default(tmp_path, volume) -> None:
    found = save_result_files(tmp_path, volume, MeshSettings(), PICTURES)
    assert names(tmp_path) == {"mesh.glb", "turntable.gif", "preview.png"} == set(found["files"])
    assert found["silhouette_iou"] > 0.95
    mesh = trimesh.load_mesh(tmp_path / "mesh.glb", process=False)
    assert found["mesh"] == {
        "vertices": len(mesh.vertices),
        "faces": len(mesh.faces),
        "watertight": True,
        "volume": pytest.approx(mesh.volume, abs=1e-3),
        "floaters_removed": 0,
    }


def test_everything_on_request(tmp_path, volume) -> None:
    pytest.importorskip("xatlas")
    mesh = MeshSettings(
        formats=("glb", "obj", "ply", "stl", "points"),
        texture=True,
        texture_size=64,
        faces=200,
        points=50,
    )
    pictures = PictureSettings(("gif", "webp"), True, size=24, frames=4, step=0.1)
    found = save_result_files(tmp_path, volume, mesh, pictures)
    assert found["files"] == [
        "mesh.glb", "mesh.png", "mesh.mtl", "mesh.obj", "mesh.ply", "mesh.stl", "points.ply",
        "turntable.gif", "turntable.webp", "depth.gif", "depth.webp", "preview.png",
    ]  # fmt: skip
    assert names(tmp_path) == set(found["files"])
    assert found["mesh"]["faces"] <= 200
    whole = trimesh.load_mesh(tmp_path / "mesh.ply", process=False)
    assert len(whole.vertices) == found["mesh"]["vertices"]  # not cut open by the texture
    assert len(trimesh.load(tmp_path / "points.ply").vertices) == 50
    for name in ("mesh.glb", "mesh.obj"):
        assert trimesh.load_mesh(tmp_path / name).visual.kind == "texture"


@pytest.mark.parametrize(
    ("mesh", "pictures", "message"),
    [
        ({"formats": ("glb", "fbx")}, {}, "formats holds 'fbx'; expected glb, obj, ply"),
        ({}, {"turntable": ("avi",)}, "turntable holds 'avi'; expected gif, mp4, webp"),
        ({"faces": 3}, {}, r"mesh\.faces is 3; expected 4 or more"),
        ({"texture_size": 8}, {}, r"mesh\.texture_size is 8; expected 64 or more"),
        ({"points": 0}, {}, r"mesh\.points is 0; expected 1 or more"),
        ({"smallest_part": 2.0}, {}, r"mesh\.smallest_part is 2\.0; expected a share"),
        ({"texture": True, "formats": ("ply",)}, {}, "texture needs a format.*glb or obj"),
    ],
)
def test_bad_settings_are_named(mesh, pictures, message) -> None:
    with pytest.raises(ValueError, match=message):
        check_files(MeshSettings(**mesh), PictureSettings(**pictures))


def test_good_settings_pass() -> None:
    check_files(MeshSettings(), PictureSettings())
    check_files(MeshSettings(formats=(), faces=None), PictureSettings(turntable=()))


def test_a_missing_package_is_named_before_the_work(monkeypatch) -> None:
    for missing, files, message in (
        ("xatlas", MeshSettings(texture=True), r"texture needs xatlas.*alphaclip-gen\[3d\]"),
        ("skimage", MeshSettings(), r"a mesh needs scikit-image.*alphaclip-gen\[3d\]"),
        ("fast_simplification", MeshSettings(), r"a mesh needs fast-simplification"),
    ):
        found = {"xatlas", "skimage", "fast_simplification"} - {missing}
        monkeypatch.setattr(
            importlib.util, "find_spec", lambda name, found=found: name in found or None
        )
        with pytest.raises(ValueError, match=message):
            check_files(files, PictureSettings())


def test_haze_leaves_pictures_and_says_that_there_is_no_mesh(tmp_path) -> None:
    haze = haze_field(FieldSettings(density_sizes=(20,), color_sizes=(2,), shift=-30.0))
    found = save_result_files(tmp_path, haze.volume(6.0), MeshSettings(), PICTURES)
    assert found["mesh"] is None and found["silhouette_iou"] is None
    assert found["problems"][0].startswith("no mesh: field is empty")
    assert names(tmp_path) == {"turntable.gif", "preview.png"} == set(found["files"])


def test_files_of_an_earlier_run_are_dropped(tmp_path) -> None:
    """So that nobody takes them for this one's; what is not a run's stays."""
    earlier = {"mesh.glb", "mesh.mtl", "points.ply", "turntable.webp", "depth.gif"}
    for name in {*earlier, "mesh.ply", "turntable.gif", "notes.txt"}:
        (tmp_path / name).touch()
    drop_older_files(tmp_path, ["mesh.ply", "turntable.gif"])
    assert names(tmp_path) == {"mesh.ply", "turntable.gif", "notes.txt"}


def test_a_video_that_fails_costs_no_other_file(tmp_path, volume, monkeypatch) -> None:
    def fail(frames: list, kind: str, milliseconds: int) -> bytes:
        if kind == "mp4":
            raise VideoFailed("ffmpeg ended with exit code 1 and said: no such codec")
        return animation(frames, kind, milliseconds)

    monkeypatch.setattr(results, "animation", fail)
    pictures = dataclasses.replace(PICTURES, turntable=("mp4", "gif"))
    found = save_result_files(tmp_path, volume, MeshSettings(), pictures)
    assert names(tmp_path) == {"mesh.glb", "turntable.gif", "preview.png"} == set(found["files"])
    assert found["problems"] == [
        "no turntable.mp4: ffmpeg ended with exit code 1 and said: no such codec"
    ]
