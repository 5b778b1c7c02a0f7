"""Nodes that make something: small random pipelines, the real program for 3D, and Cancel."""

from pathlib import Path
from types import SimpleNamespace

import comfy_stub as stub
import numpy as np
import pytest
import torch

from alphaclip_gen import RegionEncoder, as_image
from alphaclip_gen.comfyui import NODE_CLASS_MAPPINGS, installed, pipeline_folders
from alphaclip_gen.comfyui import image_to_3d as shap_e
from alphaclip_gen.comfyui import subject as subjects
from alphaclip_gen.comfyui.masks import as_comfy_image
from alphaclip_gen.comfyui.meshes import as_comfy_mesh, as_pictures
from alphaclip_gen.comfyui.programs import program
from alphaclip_gen.comfyui.text_to_3d import parts_of

pytest.importorskip("diffusers")

import tiny_pipelines
from tiny_blip_diffusion import tiny_pipeline

HERE = Path(__file__).resolve().parent
SCENE = HERE.parent / "docs" / "scene.png"
SMALL = {
    "parts": "", "steps": 3, "views": 2, "resolution": 32, "negatives": "", "frames": 4,
    "size": 32, "seed": 1,
}  # fmt: skip

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
]


@pytest.fixture(params=["0.3", "0.20"])
def core(request, monkeypatch, tmp_path):
    pipeline_folders.load.cache_clear()
    return stub.install(monkeypatch, tmp_path, request.param)


def node(name):
    return NODE_CLASS_MAPPINGS[f"AlphaCLIP{name}"]()


def files(core):
    """Everything that lies in the core's folders for results."""
    folders = [core.folder("output"), core.folder("input")]
    return [path for folder in folders for path in folder.rglob("*")]


@pytest.fixture
def scene():
    return as_comfy_image(as_image(SCENE))[:, :32, :32]


@pytest.fixture
def mask():
    mask = torch.zeros(1, 32, 32)
    mask[..., :16] = 1
    return mask


# Subject Generate


@pytest.fixture(scope="module")
def blip_folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("blip")
    tiny_pipeline().save_pretrained(folder)
    return folder


@pytest.fixture
def subject(core, blip_folder):
    (core.folder("models", "diffusers") / "tiny").symlink_to(blip_folder)
    settings = {
        "model": "tiny", "prompt": "on the beach", "subject": "dog", "target": "",
        "negative_prompt": "", "geometry": "squash", "steps": 2, "guidance_scale": 2.0,
        "width": 0, "height": 0, "count": 2, "seed": 3, "strength": 1.0, "invert": False,
    }  # fmt: skip

    def run(image, mask, **changes):
        with torch.inference_mode():
            (made,) = node("SubjectGenerate").run(image, mask, **(settings | changes))
        return made

    return run


def test_subject_generation_is_the_pipelines_own(core, subject, blip_folder, scene, mask):
    copies = scene.clone(), mask.clone()
    made = subject(scene, mask)
    from alphaclip_gen import AlphaBlipDiffusionPipeline

    pipe = AlphaBlipDiffusionPipeline.from_pretrained(blip_folder)
    pipe.set_progress_bar_config(disable=True)
    expected = pipe(
        "on the beach", scene[0].movedim(-1, 0), "dog", "dog", alpha_mask=mask[0],
        guidance_scale=2.0, num_inference_steps=2, num_images_per_prompt=2, output_type="pt",
        generator=torch.Generator().manual_seed(3),
    ).images  # fmt: skip
    torch.testing.assert_close(made, expected.movedim(1, -1), atol=1e-5, rtol=1e-5)
    assert core.progress[0][:2] == (1, 2) and core.progress[-1][:2] == (2, 2)
    assert torch.equal(scene, copies[0]) and torch.equal(mask, copies[1])
    assert (subject(scene, mask, invert=True) - made).abs().max() > 1e-4
    assert torch.equal(subject(scene, mask), made)


def test_several_references(core, subject, scene, mask):
    pair = scene.expand(2, -1, -1, -1)
    torch.testing.assert_close(subject(pair, mask), subject(scene, mask), atol=1e-4, rtol=1e-4)
    two = torch.cat([mask, 1 - mask])
    assert subject(scene, two).shape == subject(pair, two).shape == (2, 16, 16, 3)


def test_subject_generation_can_be_cancelled(core, subject, scene, mask):
    core.interrupt_after = 1
    with pytest.raises(core.interruption):
        subject(scene, mask, steps=5)
    assert len(core.progress) == 1 and not files(core)
    core.interrupt_after = None
    assert subject(scene, mask).shape == (2, 16, 16, 3)


def test_what_is_missing_is_said(core, subject, scene, mask):
    with pytest.raises(FileNotFoundError, match="model is 'gone', and models/diffusers has no"):
        subject(scene, mask, model="gone")
    with pytest.raises(ValueError, match="subject is empty"):
        subject(scene, mask, subject=" ")
    with pytest.raises(ValueError, match="holds 3 regions and there are 2 pictures"):
        subject(scene.expand(2, -1, -1, -1), mask.expand(3, -1, -1))


def test_mini_is_a_generator_that_is_shipped(subject, blip_folder, scene, mask, monkeypatch):
    """Whatever lies in its folder is run as any BLIP-Diffusion is."""
    monkeypatch.setattr(subjects, "MINI_FOLDER", blip_folder)
    assert torch.equal(subject(scene, mask, model="mini"), subject(scene, mask))


def test_pipelines_of_another_kind_are_not_offered_and_refused(core, subject, scene, mask):
    other = core.folder("models", "diffusers", "wan")
    (other / "model_index.json").write_text('{"_class_name": "WanPipeline"}')
    (core.folder("models", "diffusers", "broken") / "model_index.json").write_text("[")
    assert pipeline_folders.names(pipeline_folders.BLIP_DIFFUSION) == ["tiny"]
    with pytest.raises(ValueError, match=r"model is 'wan', .* names WanPipeline; expected AlphaBl"):
        subject(scene, mask, model="wan")


def test_folders_are_not_searched_to_the_bottom(core, blip_folder):
    """A cache of the Hub is as deep as pipelines lie; a link may lead round in circles."""
    models = core.folder("models", "diffusers")
    (models / "round").symlink_to(models)
    for place in ("cache/snapshots", "a/b/c"):
        (core.folder("models", "diffusers", *place.split("/")) / "tiny").symlink_to(blip_folder)
    found = pipeline_folders.names(pipeline_folders.BLIP_DIFFUSION)
    assert found == ["cache/snapshots/tiny"]


# Image to 3D


SQUARE = SimpleNamespace(
    verts=torch.tensor([[0.0, 0, 0], [1, 0, 0], [1, 0, 2], [0, 0, 2]]),
    faces=torch.tensor([[0, 1, 2], [0, 2, 3]]),
    vertex_channels={
        "R": torch.tensor([1.0, 1, 0, 2]), "G": torch.zeros(4), "B": torch.tensor([0.0, 0, 1, 0.5]),
    },
)  # fmt: skip


@pytest.fixture
def shape(core, tmp_path, monkeypatch):
    """Shap-E of random weights; it has no tables for marching cubes, so its mesh is a square."""
    torch.manual_seed(0)
    pipe = tiny_pipelines.shap_e()
    pipe.save_pretrained(core.folder("models", "diffusers", "shap-e"))
    renderer = type(pipe.shap_e_renderer)
    seen = []

    def image(self, latents, device, size):
        seen.append(latents)
        return torch.linspace(-0.2, 1.2, 5 * size * size * 3).view(5, size, size, 3)

    monkeypatch.setattr(renderer, "decode_to_mesh", lambda self, latents, device: SQUARE)
    monkeypatch.setattr(renderer, "decode_to_image", image)
    settings = {
        "engine": "Shap-E", "model": "shap-e", "steps": 2, "guidance_scale": 3.0,
        "frame_size": 16, "seed": 0, "strength": 1.0, "invert": False,
    }  # fmt: skip

    def run(image, mask, **changes):
        with torch.inference_mode():
            return node("ImageTo3D").run(image, mask, **(settings | changes))

    run.latents = seen
    return run


def test_image_to_3d_gives_mesh_file_and_turntable(core, shape, scene, mask):
    mesh, glb, frames = shape(scene, mask)
    assert isinstance(mesh, core.kinds.MESH)
    assert mesh.vertices.tolist() == [[[0, 0, 0], [1, 0, 0], [1, 2, 0], [0, 2, 0]]]
    assert mesh.faces.tolist() == [[[0, 1, 2], [0, 2, 3]]]
    assert frames.shape == (5, 16, 16, 3) and frames.min() == 0 and frames.max() == 1
    assert (glb is None) == (core.version == "0.3")
    assert core.progress[-1][0] == core.progress[-1][1] == 4
    shape(scene, 1 - mask)
    shape(scene, mask)
    first, other, again = shape.latents
    assert torch.equal(first, again) and (first - other).abs().max() > 1e-4


def test_the_file_holds_the_colors(core, shape, scene, mask):
    if core.version == "0.3":
        pytest.skip("this core has no FILE_3D")
    _, glb, _ = shape(scene, mask)
    formats = program("nerf").formats
    colors = np.asarray(formats.read_glb(glb.source.getvalue()).visual.vertex_colors)[:, :3]
    expected = [[255, 0, 0], [255, 0, 0], [0, 0, 255], [255, 0, 128]]
    np.testing.assert_allclose(colors, expected, atol=1)


def test_image_to_3d_can_be_cancelled_and_leaves_the_pipeline_whole(core, shape, scene, mask):
    core.interrupt_after = 1
    with pytest.raises(core.interruption):
        shape(scene, mask)
    core.interrupt_after = None
    pipe = shap_e.open_shap_e("shap-e")
    assert type(pipe.image_encoder).__name__ == "CLIPVisionModel"
    assert not pipe.prior._forward_hooks and not files(core)
    shape(scene, mask)


def test_an_older_transformers_is_said(core, shape, scene, mask, monkeypatch):
    monkeypatch.setattr(installed, "version", lambda name: "5.14.1")
    with pytest.raises(ImportError, match=r"needs transformers>=5.21,<6 \(here: 5.14.1\). Install"):
        shape(scene, mask)


def test_only_our_towers_go_into_shap_e(core, shape, scene, mask):
    vision = SimpleNamespace(model=torch.nn.Linear(1, 1))
    with pytest.raises(ValueError, match="clip_vision is ComfyUI's own"):
        shape(scene, mask, clip_vision=vision)


# Text to 3D


def test_text_to_3d_under_inference_mode(core):
    """The core's way to run nodes; the steps still learn, and nothing is written."""
    with torch.inference_mode():
        mesh, glb, frames = node("TextTo3D").run("a red cone", **SMALL)
    assert mesh.vertices.shape[::2] == (1, 3) and mesh.faces.shape[::2] == (1, 3)
    assert int(mesh.faces.max()) < mesh.vertices.shape[1] and mesh.vertices.abs().max() <= 1.01
    assert frames.shape == (4, 32, 32, 3)
    assert frames.min() < 0.9  # an object in front of white
    assert (glb is None) == (core.version == "0.3") and not files(core)
    if glb is not None:
        assert glb.format == "glb" and glb.source.getvalue()[:4] == b"glTF"


def test_text_to_3d_shows_the_object_growing(core):
    node("TextTo3D").run("a red cone", **SMALL)
    done = [value for value, *_ in core.progress]
    assert done == [0, 1, 2, 3]
    kind, picture, side = core.progress[-1][2]
    assert kind == "JPEG" and side == 512 and picture.mode == "RGB"
    assert picture.getextrema() != ((255, 255),) * 3


def test_text_to_3d_can_be_cancelled_before_the_first_step(core):
    """While it looks for a blob to begin with; eight of them are drawn first."""
    core.interrupt_after = 12
    with pytest.raises(core.interruption):
        node("TextTo3D").run("a red cone", **SMALL)
    assert core.progress == [] and not files(core)


def test_text_to_3d_can_be_cancelled_at_every_step(core):
    core.interrupt_when = lambda: len(core.progress) == 2
    with pytest.raises(core.interruption):
        node("TextTo3D").run("a red cone", **SMALL)
    assert [value for value, *_ in core.progress] == [0, 1] and not files(core)


def test_text_to_3d_can_be_cancelled_after_the_last_step_too(core):
    """While the turntable is drawn, view by view."""
    core.interrupt_when = lambda: len(core.progress) == 4
    with pytest.raises(core.interruption):
        node("TextTo3D").run("a red cone", **SMALL)
    assert [value for value, *_ in core.progress] == [0, 1, 2, 3] and not files(core)


def test_text_to_3d_can_be_cancelled_while_the_mesh_is_made(core, monkeypatch):
    surface, done = program("nerf").surface, []
    for name in ("automatic_level", "isosurface", "painted"):
        kept = getattr(surface, name)
        monkeypatch.setattr(
            surface, name, lambda *given, name=name, kept=kept: done.append(name) or kept(*given)
        )
    for last in ("automatic_level", "isosurface"):
        done.clear()
        core.interrupt_when = lambda last=last: done[-1:] == [last]
        with pytest.raises(core.interruption):
            node("TextTo3D").run("a red cone", **SMALL)
        assert done[-1] == last and not files(core)


def test_a_given_tower_guides_without_being_changed(core):
    """Loaded, and moved, under inference mode; the run takes a copy."""
    with torch.inference_mode():
        (vision,) = node("LoadVision").run("mini", "its own")
        before = {name: value.clone() for name, value in vision.model.state_dict().items()}
        negatives = "a blue torus\na green cube"
        mesh, _, _ = node("TextTo3D").run("a red cone", vision, **{**SMALL, "negatives": negatives})
    assert mesh.vertices.shape[1] > 10
    for name, value in vision.model.state_dict().items():
        assert torch.equal(value, before[name])


def test_bad_settings_are_said(core):
    with pytest.raises(ValueError, match="prompt"):
        node("TextTo3D").run(" ", **SMALL)
    with pytest.raises(ValueError, match="guidance has no text tower"):
        node("TextTo3D").run("a red cone", SimpleNamespace(), **SMALL)


def test_parts_have_texts_of_their_own(core):
    """Left and right differ, so the field has no mirror symmetry; the prompt may be empty."""
    parts = "a blue torus @ left\n\na red cone @ right"
    mesh, _, frames = node("TextTo3D").run(" ", **{**SMALL, "parts": parts})
    assert mesh.vertices.shape[1] > 10 and frames.min() < 0.9
    assert [value for value, *_ in core.progress] == [0, 1, 2, 3]


def test_parts_that_cannot_be_meant(core):
    nerf = program("nerf")
    with pytest.raises(ValueError, match="part 'a red cone' has no shape behind an @"):
        parts_of("a blue cube @ top\na red cone", nerf)
    with pytest.raises(ValueError, match="'middle'; expected top, bottom, left"):
        node("TextTo3D").run("", **{**SMALL, "parts": "a red cone @ middle"})
    assert parts_of(" a red cone @ top \n", nerf) == ("a red cone @ top",)


def test_meshes_of_parts_are_files_of_the_input_folder(core, tmp_path):
    nerf = program("nerf")
    (core.folder("input") / "hat.glb").touch()
    outside = core.folder("output") / "other.glb"
    outside.touch()
    (found,) = parts_of("a hat.glb @ hat.glb:weight=2", nerf)
    assert found == f"a hat.glb @ {core.folder('input').resolve() / 'hat.glb'}:weight=2"
    for name in ("gone.glb", "../output/other.glb", str(outside)):
        with pytest.raises(FileNotFoundError, match=r"parts names the file .* not in ComfyUI's in"):
            parts_of(f"a hat @ {name}", nerf)


def test_words_that_mini_does_not_know_are_said_on_the_node(core):
    node("TextTo3D").run("a red armchair", node="5", **{**SMALL, "steps": 1})
    assert core.said[-1][0] == "5" and "'armchair'" in core.said[-1][1]


# Meshes


def test_meshes_and_frames_by_hand(core):
    import trimesh
    from PIL import Image

    mesh = as_comfy_mesh(trimesh.Trimesh([[0, 0, 0], [1, 0, 0], [0, 1, 0]], [[0, 1, 2]]))
    assert mesh.vertices.dtype == torch.float32 and mesh.faces.tolist() == [[[0, 1, 2]]]
    frames = as_pictures([Image.new("RGB", (3, 2), (255, 0, 51))] * 2)
    assert frames.shape == (2, 3, 2, 3)
    assert frames[1, :, 0, 0].tolist() == pytest.approx([1, 0, 0.2])


def test_mini_is_the_default_guide(core, monkeypatch):
    opened = []
    kept = RegionEncoder.from_pretrained.__func__
    monkeypatch.setattr(
        RegionEncoder,
        "from_pretrained",
        classmethod(
            lambda cls, name, *more, **others: (
                opened.append(name) or kept(cls, name, *more, **others)
            )
        ),
    )
    node("TextTo3D").run("a red cone", **{**SMALL, "steps": 1})
    assert opened == ["mini"]
