"""The example workflows: as described, valid, and, where nothing is downloaded, run."""

import copy
import json

import comfy_core_nodes
import comfy_graph
import comfy_stub
import pytest
import workflow_pictures

import example_workflows as book
from alphaclip_gen.comfyui import NODE_CLASS_MAPPINGS
from alphaclip_gen.pictures import open_picture

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
]
"""Of diffusers."""

NAMES = sorted(book.WORKFLOWS)
CLASSES = {**comfy_core_nodes.CLASSES, **NODE_CLASS_MAPPINGS}
QUICK = {
    "AlphaCLIPTextTo3D": {"steps": 3, "views": 2, "resolution": 32, "frames": 4, "size": 32},
    "AlphaCLIPSubjectGenerate": {"steps": 2, "count": 1},
}


@pytest.fixture(params=["0.3", "0.20"])
def core(request, monkeypatch, tmp_path):
    return comfy_stub.install(monkeypatch, tmp_path, request.param)


@pytest.fixture
def declared(core):
    return book.declarations(NODE_CLASS_MAPPINGS)


def read(name):
    return json.loads((book.FOLDER / f"{name}.json").read_text(encoding="utf-8"))


def test_the_folder_holds_the_workflows_and_nothing_else():
    assert sorted(path.stem for path in book.FOLDER.glob("*.json")) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_files_are_as_described(declared, name):
    """python tests/example_workflows.py writes them anew."""
    written = (book.FOLDER / f"{name}.json").read_text(encoding="utf-8")
    assert written == book.as_text(book.build(name, declared))


@pytest.mark.parametrize("name", NAMES)
def test_workflows_fit_the_nodes(declared, name):
    workflow = read(name)
    assert comfy_graph.problems(workflow, declared) == []
    kinds = {node["type"] for node in workflow["nodes"]}
    assert kinds & NODE_CLASS_MAPPINGS.keys() and "Note" in kinds


def test_the_check_finds_what_is_wrong(declared):
    def found(change):
        workflow = copy.deepcopy(read("name_regions_mini"))
        change({node["type"]: node for node in workflow["nodes"]}, workflow)
        return " ".join(comfy_graph.problems(workflow, declared))

    box, score = "AlphaCLIPRegionFromBox", "AlphaCLIPScoreRegion"
    assert "unit is 'yards'" in found(lambda n, w: n[box]["widgets_values"].__setitem__(4, "yards"))
    assert "left out" in found(lambda n, w: n[box]["widgets_values"].__setitem__(0, -1.0))
    assert "left is a str" in found(lambda n, w: n[box]["widgets_values"].__setitem__(0, "1"))
    assert "widget values" in found(lambda n, w: n[box]["widgets_values"].pop())
    assert "has outputs" in found(lambda n, w: n[box]["outputs"][0].update(name="mask"))
    assert "is not known" in found(lambda n, w: n[box].update(type="Gone"))
    assert "focus_mask is missing" in found(lambda n, w: n[score]["inputs"][2].update(link=None))
    assert "takes MASK and gets IMAGE" in found(
        lambda n, w: n[box]["outputs"][0].update(type="IMAGE")
    )
    assert "is loose" in found(lambda n, w: w["links"][0].__setitem__(4, 1))


def run(name, declared):
    prompt = comfy_graph.as_prompt(read(name), declared)
    for node in prompt.values():
        node["inputs"] |= QUICK.get(node["class_type"], {})
    results = comfy_graph.execute(prompt, CLASSES)
    return {node["class_type"]: results[number] for number, node in prompt.items()}, book.shown(
        prompt, results
    )


def test_regions_are_named_without_downloads(core, declared):
    results, pictures = run("name_regions_mini", declared)
    best, table, score = results["AlphaCLIPScoreRegion"]
    assert best == "a cyan cube" and score > 0.5 and table.count("\n") == 5
    assert [tuple(one.shape[-3:]) for one in pictures] == [(64, 64, 3), (224, 224, 3), (64, 64, 3)]
    assert not core.said  # no complaint about any mask


def test_an_object_is_made_without_downloads(core, declared):
    results, pictures = run("text_to_3d_mini", declared)
    mesh, glb, turntable = results["AlphaCLIPTextTo3D"]
    assert isinstance(mesh, core.kinds.MESH) and (glb is None) == (core.version == "0.3")
    assert turntable.shape == (4, 32, 32, 3) and len(pictures) == 1
    assert results["SaveGLB"][0].is_file()


def test_a_subject_is_made_without_downloads(core, declared):
    results, pictures = run("subject_mini", declared)
    assert results["AlphaCLIPSubjectGenerate"][0].shape == (1, 64, 64, 3) and len(pictures) == 2


@pytest.mark.parametrize("name", NAMES)
def test_workflows_have_pictures(name):
    picture = open_picture(book.FOLDER / f"{name}.jpg")
    assert picture.size == (workflow_pictures.WIDTH, workflow_pictures.HEIGHT)


def test_choices_that_the_page_makes_itself_have_a_place(declared):
    """A seed has its "control after generate", a picture its upload button."""
    slots = comfy_graph.widget_slots(declared["KSampler"])
    assert slots[:3] == ["seed", None, "steps"]
    assert comfy_graph.widget_slots(declared["LoadImage"]) == ["image", None]
    assert comfy_graph.widget_slots(declared["AlphaCLIPTextTo3D"])[-2:] == ["seed", None]
