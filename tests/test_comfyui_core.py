"""The same workflows on a real core, through its own server.

Set ALPHACLIP_COMFY_ROOT to a checkout of ComfyUI (and ALPHACLIP_COMFY_PYTHON to its Python, if it
is another than this one). The core is started on the CPU with this clone and comfy_probe.py as its
only custom nodes. ALPHACLIP_COMFY_ROOT=tests/comfy_stand_in tries these tests without a core.
"""

import json
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import comfy_graph
import pytest
from comfy_probe import TOLERANCE

import example_workflows as book
from alphaclip_gen.comfyui import NODE_CLASS_MAPPINGS, NODE_DISPLAY_NAME_MAPPINGS

HERE = Path(__file__).resolve().parent
CORE = os.environ.get("ALPHACLIP_COMFY_ROOT")
PATIENCE = int(os.environ.get("ALPHACLIP_COMFY_PATIENCE", "600"))  # seconds

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not CORE, reason="ALPHACLIP_COMFY_ROOT is not set"),
]


class Server:
    """A running core."""

    def __init__(self, process, port, base):
        self.process, self.address, self.base = process, f"http://127.0.0.1:{port}", base
        self.log = base / "log.txt"

    def ask(self, path, content=None):
        return json.loads(self.read(path, content) or "null")

    def read(self, path, content=None):
        data = None if content is None else json.dumps(content).encode()
        request = urllib.request.Request(
            self.address + path, data, {"Content-Type": "application/json"}
        )
        try:
            with urllib.request.urlopen(request, timeout=PATIENCE) as answer:
                return answer.read()
        except urllib.error.HTTPError as error:
            raise AssertionError(f"{path}: {error.read().decode()}") from error

    def wait(self):
        for _ in range(PATIENCE):
            assert self.process.poll() is None, self.log.read_text()
            try:
                return self.ask("/system_stats")
            except OSError:
                time.sleep(1)
        raise AssertionError(self.log.read_text())

    def send(self, prompt):
        return self.ask("/prompt", {"prompt": prompt})["prompt_id"]

    def ended(self, number):
        """The history of a prompt, once it is done or has failed."""
        for _ in range(PATIENCE):
            done = self.ask(f"/history/{number}").get(number)
            if done and (done["status"]["completed"] or done["status"]["status_str"] == "error"):
                return done
            time.sleep(1)
        raise AssertionError(self.log.read_text())

    def run(self, prompt):
        """What the outputs show, by node, once the prompt is done."""
        done = self.ended(self.send(prompt))
        assert done["status"]["completed"], json.dumps(done["status"], indent=1)
        return done["outputs"]

    def files(self):
        """What lies in the folder of results."""
        return [path for path in (self.base / "output").rglob("*") if path.is_file()]


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    base = tmp_path_factory.mktemp("comfy")
    for name in ("custom_nodes", "input", "models", "output"):
        (base / name).mkdir()
    (base / "custom_nodes" / "alphaclip-gen").symlink_to(HERE.parent)
    (base / "custom_nodes" / "comfy_probe.py").symlink_to(HERE / "comfy_probe.py")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    python = os.environ.get("ALPHACLIP_COMFY_PYTHON", sys.executable)
    command = [python, "main.py", "--cpu", "--port", str(port), "--base-directory", str(base)]
    with (base / "log.txt").open("w") as output:
        process = subprocess.Popen(
            [*command, "--disable-auto-launch"], cwd=CORE, stdout=output, stderr=output
        )
        try:
            running = Server(process, port, base)
            running.wait()
            yield running
        finally:
            process.terminate()
            process.wait(timeout=30)


@pytest.fixture(scope="module")
def declared(server):
    """What the core says of every node, brought into one form."""
    found = server.ask("/object_info")
    for info in found.values():
        info["input"].setdefault("required", {})
    return found


def test_all_nodes_are_there(server, declared):
    log = server.log.read_text().splitlines()  # a core's own nodes may lack a driver
    assert [line for line in log if "IMPORT FAILED" in line and "custom_nodes" in line] == []
    for key, name in NODE_DISPLAY_NAME_MAPPINGS.items():
        assert declared[key]["display_name"] == name and declared[key]["category"] == "AlphaCLIP"
        assert declared[key]["output"] == list(NODE_CLASS_MAPPINGS[key].RETURN_TYPES)


def test_help_pages_and_templates_are_served(server):
    page = server.read("/extensions/alphaclip-gen/docs/AlphaCLIPFocus.md").decode()
    assert page.startswith("# Focus CLIP Vision")
    assert sorted(server.ask("/workflow_templates")["alphaclip-gen"]) == sorted(book.WORKFLOWS)
    for name in book.WORKFLOWS:
        picture = server.read(f"/api/workflow_templates/alphaclip-gen/{name}.jpg")
        assert picture[:2] == b"\xff\xd8"


@pytest.mark.parametrize("name", sorted(book.WORKFLOWS))
def test_workflows_fit_the_cores_own_nodes(declared, name):
    """But for files, which are not there, and for nodes of packs that are not installed."""
    workflow = json.loads((book.FOLDER / f"{name}.json").read_text(encoding="utf-8"))
    found = [
        problem
        for problem in comfy_graph.problems(workflow, declared)
        if not problem.startswith("IPAdapter")
        and not any(word in problem for word in ("ckpt_name", "clip_name", "model is", "image is"))
    ]
    assert found == []


def offline(name, declared):
    workflow = json.loads((book.FOLDER / f"{name}.json").read_text(encoding="utf-8"))
    return comfy_graph.as_prompt(workflow, declared)


def test_regions_are_named(server, declared):
    outputs = server.run(offline("name_regions_mini", declared))
    shown = json.dumps(outputs)
    assert "a cyan cube" in shown and shown.count(".png") == 3


def small_object(declared):
    """The workflow of Text to 3D in few steps, and the numbers of its nodes by class."""
    prompt = offline("text_to_3d_mini", declared)
    numbers = {node["class_type"]: number for number, node in prompt.items()}
    prompt[numbers["AlphaCLIPTextTo3D"]]["inputs"] |= {"steps": 20, "frames": 4, "size": 64}
    return prompt, numbers


def test_an_object_is_made(server, declared):
    prompt, _ = small_object(declared)
    outputs = json.dumps(server.run(prompt))
    assert ".glb" in outputs and outputs.count(".png") == 4


def test_the_colored_file_is_saved(server, declared):
    if "FILE_3D" not in declared["SaveGLB"]["input"]["required"]["mesh"][0].split(","):
        pytest.skip("Save 3D Model takes no FILE_3D on this core")
    prompt, numbers = small_object(declared)
    inputs = prompt[numbers["SaveGLB"]]["inputs"]
    inputs |= {"mesh": [numbers["AlphaCLIPTextTo3D"], 1], "filename_prefix": "colored/object"}
    server.run(prompt)
    (file,) = [path for path in server.files() if "colored" in path.parts]
    data = file.read_bytes()
    assert data[:4] == b"glTF" and b"COLOR_0" in data


def test_cancel_leaves_nothing_behind(server, declared):
    """The run is of many steps, and is stopped once it is under way."""
    prompt, before = offline("text_to_3d_mini", declared), server.files()
    for node in prompt.values():
        if node["class_type"] == "AlphaCLIPTextTo3D":
            node["inputs"] |= {"steps": 20000, "seed": 5}
    number = server.send(prompt)
    time.sleep(10)
    server.ask("/interrupt", {})
    done = server.ended(number)
    assert "execution_interrupted" in json.dumps(done["status"]["messages"])
    assert server.files() == before


def test_a_subject_is_made(server, declared):
    assert ".png" in json.dumps(server.run(offline("subject_mini", declared)))


TOWERS = {
    "mini": {"class_type": "AlphaCLIPLoadVision", "inputs": {"model": "mini", "texts": "its own"}},
    "clip": {"class_type": "AlphaCLIPTestTower", "inputs": {"kind": "clip"}},
    "siglip": {"class_type": "AlphaCLIPTestTower", "inputs": {"kind": "siglip"}},
}
"""Ours, and the core's own of random weights."""


def focused(method, tower="mini"):
    """A tower -> Focus CLIP Vision."""
    return {
        "1": {"class_type": "AlphaCLIPExamplePicture", "inputs": {"picture": "scene.png"}},
        "2": TOWERS[tower],
        "3": {
            "class_type": "AlphaCLIPRegionFromBox",
            "inputs": {
                "image": ["1", 0], "left": 0.2, "top": 0.2, "right": 0.5, "bottom": 0.5,
                "unit": "fractions",
            },
        },
        "4": {
            "class_type": "AlphaCLIPFocus",
            "inputs": {
                "clip_vision": ["2", 0], "focus_mask": ["3", 0], "strength": 1.0, "invert": False,
                "method": method,
            },
        },
    }  # fmt: skip


@pytest.mark.parametrize("method", ["alpha weights", "training-free", "crop", "blur"])
def test_a_focused_tower_goes_through_the_cores_encoder(server, method):
    inputs = {"clip_vision": ["4", 0], "image": ["1", 0], "crop": "center"}
    prompt = focused(method) | {
        "5": {"class_type": "CLIPVisionEncode", "inputs": inputs},
        "6": {"class_type": "PreviewAny", "inputs": {"source": ["5", 0]}},
    }
    assert "6" in server.run(prompt)


def said(server, prompt, number):
    """The numbers that a node of comfy_probe.py shows."""
    return json.loads(server.run(prompt)[number]["text"][0])


@pytest.mark.parametrize(
    ("tower", "method"),
    [
        ("mini", "alpha weights"),
        ("mini", "training-free"),
        ("clip", "training-free"),
        ("siglip", "training-free"),
    ],
)
def test_both_ways_to_encode_agree_with_the_library(server, tower, method):
    """`encode_image`, and `.patcher` with `.model(...)` as IPAdapter_plus does, on this core."""
    inputs = {"clip_vision": ["4", 0], "plain": ["2", 0], "image": ["1", 0], "mask": ["3", 0]}
    prompt = focused(method, tower) | {"5": {"class_type": "AlphaCLIPTestProbe", "inputs": inputs}}
    found = said(server, prompt, "5")
    assert found["between the ways"] < TOLERANCE
    assert found.get("from the library", 0) < TOLERANCE
    assert found["of black"] < TOLERANCE and found["by the region"] > 0.02


@pytest.mark.parametrize("tower", ["clip", "siglip"])
def test_the_heat_of_the_cores_own_tower_is_the_librarys(server, tower):
    wires = {"image": ["1", 0], "clip_vision": ["2", 0], "focus_mask": ["3", 0]}
    settings = {"strength": 1.0, "invert": False, "method": "training-free", "text": ""}
    inputs = {"plain": ["2", 0], "image": ["1", 0], "mask": ["3", 0], "heat": ["5", 1]}
    prompt = focused("training-free", tower) | {
        "5": {"class_type": "AlphaCLIPAttentionMap", "inputs": wires | settings},
        "6": {"class_type": "AlphaCLIPTestHeat", "inputs": inputs},
    }
    assert said(server, prompt, "6")["from the library"] < TOLERANCE
