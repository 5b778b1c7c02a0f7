"""The same workflows on a real core, through its own server.

Set ALPHACLIP_COMFY_ROOT to a checkout of ComfyUI (and ALPHACLIP_COMFY_PYTHON to its Python, if it
is another than this one). The core is started on the CPU with this clone as its only custom node.
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

import example_workflows as book
from alphaclip_gen.comfyui import NODE_CLASS_MAPPINGS, NODE_DISPLAY_NAME_MAPPINGS
from alphaclip_gen.comfyui.subject import MINI_FOLDER

HERE = Path(__file__).resolve().parent
CORE = os.environ.get("ALPHACLIP_COMFY_ROOT")
PATIENCE = 600  # seconds

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not CORE, reason="ALPHACLIP_COMFY_ROOT is not set"),
]


class Server:
    """A running core."""

    def __init__(self, process, port, log):
        self.process, self.address, self.log = process, f"http://127.0.0.1:{port}", log

    def ask(self, path, content=None):
        data = None if content is None else json.dumps(content).encode()
        request = urllib.request.Request(
            self.address + path, data, {"Content-Type": "application/json"}
        )
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                return json.loads(answer.read())
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

    def run(self, prompt):
        """What the outputs show, by node, once the prompt is done."""
        number = self.ask("/prompt", {"prompt": prompt})["prompt_id"]
        for _ in range(PATIENCE):
            done = self.ask(f"/history/{number}").get(number)
            if done and done["status"]["completed"]:
                return done["outputs"]
            if done and done["status"]["status_str"] == "error":
                raise AssertionError(json.dumps(done["status"], indent=1))
            time.sleep(1)
        raise AssertionError(self.log.read_text())


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    base = tmp_path_factory.mktemp("comfy")
    (base / "custom_nodes").mkdir()
    (base / "custom_nodes" / "alphaclip-gen").symlink_to(HERE.parent)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    python = os.environ.get("ALPHACLIP_COMFY_PYTHON", sys.executable)
    command = [python, "main.py", "--cpu", "--port", str(port), "--base-directory", str(base)]
    log = base / "log.txt"
    with log.open("w") as output:
        process = subprocess.Popen(
            [*command, "--disable-auto-launch"], cwd=CORE, stdout=output, stderr=output
        )
        try:
            running = Server(process, port, log)
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
    assert "IMPORT FAILED" not in server.log.read_text()
    for key, name in NODE_DISPLAY_NAME_MAPPINGS.items():
        assert declared[key]["display_name"] == name and declared[key]["category"] == "AlphaCLIP"
        assert declared[key]["output"] == list(NODE_CLASS_MAPPINGS[key].RETURN_TYPES)


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


def test_an_object_is_made(server, declared):
    prompt = offline("text_to_3d_mini", declared)
    for node in prompt.values():
        if node["class_type"] == "AlphaCLIPTextTo3D":
            node["inputs"] |= {"steps": 20, "frames": 4, "size": 64}
    outputs = json.dumps(server.run(prompt))
    assert ".glb" in outputs and outputs.count(".png") == 4


@pytest.mark.skipif(not MINI_FOLDER.is_dir(), reason="mini's generator is not shipped")
def test_a_subject_is_made(server, declared):
    assert ".png" in json.dumps(server.run(offline("subject_mini", declared)))


@pytest.mark.parametrize("method", ["alpha weights", "training-free", "crop", "blur"])
def test_a_focused_tower_goes_through_the_cores_encoder(server, method):
    """Load Alpha-CLIP Vision -> Focus CLIP Vision -> the core's own CLIP Vision Encode."""
    prompt = {
        "1": {"class_type": "AlphaCLIPExamplePicture", "inputs": {"picture": "scene.png"}},
        "2": {"class_type": "AlphaCLIPLoadVision", "inputs": {"model": "mini", "texts": "its own"}},
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
        "5": {
            "class_type": "CLIPVisionEncode",
            "inputs": {"clip_vision": ["4", 0], "image": ["1", 0], "crop": "center"},
        },
        "6": {"class_type": "PreviewAny", "inputs": {"source": ["5", 0]}},
    }  # fmt: skip
    assert "6" in server.run(prompt)
