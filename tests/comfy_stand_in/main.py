"""A server that answers as ComfyUI's does, by the stand-in of its core: to try the tests on a core.

Usage: python tests/comfy_stand_in/main.py --cpu --port PORT --base-directory FOLDER
"""

import argparse
import importlib.util
import itertools
import json
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import comfy_core_nodes
import comfy_graph
import comfy_stub
import pytest

PACK = "alphaclip-gen"


def load_nodes(folder: Path) -> tuple[dict[str, type], dict[str, str]]:
    """Classes and shown names of all custom nodes, loaded by path as the core does."""
    classes, names = {}, {}
    for path in sorted(folder.iterdir()):
        name = str(path).replace(".", "_x_")
        file = path / "__init__.py" if path.is_dir() else path
        spec = importlib.util.spec_from_file_location(name, file)
        pack = sys.modules[name] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(pack)
        classes |= pack.NODE_CLASS_MAPPINGS
        names |= getattr(pack, "NODE_DISPLAY_NAME_MAPPINGS", {})
    return classes, names


class State:
    """Nodes, and the history of prompts."""

    def __init__(self, base: Path):
        self.base, self.history, self.lock = base, {}, threading.Lock()
        self.numbers = itertools.count()
        self.core = comfy_stub.install(pytest.MonkeyPatch(), base)
        classes, names = load_nodes(base / "custom_nodes")
        saves = comfy_core_nodes.SaveGLBOrFile
        self.classes = {**comfy_core_nodes.CLASSES, "SaveGLB": saves, **classes}
        self.info = {key: dict(value) for key, value in comfy_core_nodes.DECLARATIONS.items()}
        self.info["SaveGLB"] = comfy_graph.declare(saves)
        for key, kind in classes.items():
            shown = {"display_name": names.get(key, key), "category": kind.CATEGORY}
            self.info[key] = comfy_graph.declare(kind) | shown

    def work(self, number: str, prompt: dict) -> None:
        ui, messages, status = {}, [], "success"
        with self.lock:
            try:
                comfy_graph.execute(prompt, self.classes, ui)
            except self.core.interruption:
                messages, status = [["execution_interrupted", {}]], "error"
            except Exception as error:
                messages, status = [["execution_error", {"exception_message": str(error)}]], "error"
            self.core.interrupt_after = None
        done = {"status_str": status, "completed": status == "success", "messages": messages}
        self.history[number] = {"outputs": ui, "status": done}


def handler(state: State) -> type[BaseHTTPRequestHandler]:
    clone = state.base / "custom_nodes" / PACK
    served = {
        f"/extensions/{PACK}/": clone / "web",
        f"/api/workflow_templates/{PACK}/": clone / "example_workflows",
    }

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            for start, folder in served.items():
                if self.path.startswith(start):
                    return self.answer((folder / self.path.removeprefix(start)).read_bytes())
            templates = [path.stem for path in (clone / "example_workflows").glob("*.json")]
            number = self.path.removeprefix("/history/")
            found = {
                "/system_stats": {},
                "/object_info": state.info,
                "/workflow_templates": {PACK: templates},
            }.get(self.path, {number: state.history[number]} if number in state.history else {})
            return self.answer(json.dumps(found).encode())

        def do_POST(self) -> None:
            content = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            if self.path == "/interrupt":
                state.core.interrupt_after = 0
                return self.answer(b"")
            number = str(next(state.numbers))
            threading.Thread(target=state.work, args=(number, content["prompt"])).start()
            return self.answer(json.dumps({"prompt_id": number}).encode())

        def answer(self, content: bytes) -> None:
            self.send_response(200)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

    return Handler


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--base-directory", required=True)
    for flag in ("--cpu", "--disable-auto-launch"):
        parser.add_argument(flag, action="store_true")
    options = parser.parse_args()
    state = State(Path(options.base_directory))
    ThreadingHTTPServer(("127.0.0.1", options.port), handler(state)).serve_forever()
