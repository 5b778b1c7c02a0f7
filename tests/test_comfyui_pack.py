"""The pack as a whole: its door, its declarations, its documentation, and what it must not do."""

import inspect
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import comfy_stub as stub
import pytest

from alphaclip_gen.comfyui import NODE_CLASS_MAPPINGS, NODE_DISPLAY_NAME_MAPPINGS
from alphaclip_gen.comfyui.programs import Program

ROOT = Path(__file__).resolve().parents[1]
KEYS = sorted(NODE_CLASS_MAPPINGS)
TYPES = {
    "CLIP_VISION", "CLIP_VISION_OUTPUT", "EMBEDS", "FILE_3D", "FLOAT", "IMAGE", "MASK", "MESH",
    "STRING",
}  # fmt: skip


@pytest.fixture
def core(monkeypatch, tmp_path):
    return stub.install(monkeypatch, tmp_path)


def in_a_fresh_python(code: str, folder: Path) -> str:
    """What a new interpreter prints that runs the code away from the clone."""
    helper = "".join(
        f"import runpy; {name} = runpy.run_path({str(ROOT / 'tests' / file)!r})\n"
        for name, file in (("load", "comfy_import_time.py"), ("stub", "comfy_stub.py"))
    )
    environment = {**os.environ, "PYTHONPATH": "", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", helper + code],
        capture_output=True, text=True, cwd=folder, env=environment, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


# The door


def test_the_clone_loads_by_path_fast_and_once(tmp_path):
    """No slow module is imported, also not to declare inputs; tests/comfy_import_time.py tells the
    seconds."""
    code = "import json; print(json.dumps(load['measure']()))"
    found = json.loads(in_a_fresh_python(code, tmp_path).splitlines()[-1])
    assert found["slow modules"] == []
    assert found["nodes"] == len(KEYS)
    assert Path(found["library"]) == ROOT / "alphaclip_gen" / "__init__.py"
    assert found["names"] == ["alphaclip_gen.comfyui"]


WITHOUT_DIFFUSERS = """
import json, sys
sys.modules["diffusers"] = None
load["measure"]()
pack = load["load"]()
import pytest, torch
from pathlib import Path
said = []
with pytest.MonkeyPatch.context() as patch:
    core = stub["install"](patch, Path.cwd())
    (core.folder("models", "diffusers", "some") / "model_index.json").write_text("{}")
    image, mask = torch.rand(1, 32, 32, 3), torch.zeros(1, 64, 64)
    same = dict(image=image, focus_mask=mask, model="some", strength=1.0, invert=False)
    for name, more in (
        ("SubjectGenerate", dict(prompt="on a beach", subject="dog", target="")),
        ("ImageTo3D", dict(engine="Shap-E")),
    ):
        try:
            pack.NODE_CLASS_MAPPINGS["AlphaCLIP" + name]().run(**same, **more)
        except ImportError as error:
            said.append(str(error))
    box = pack.NODE_CLASS_MAPPINGS["AlphaCLIPRegionFromBox"]()
    box.run(image, 0.1, 0.1, 0.5, 0.5, "fractions")
print(json.dumps(said))
"""


def test_without_diffusers_all_nodes_load_and_two_say_what_to_install(tmp_path):
    said = json.loads(in_a_fresh_python(WITHOUT_DIFFUSERS, tmp_path).splitlines()[-1])
    assert len(said) == 2
    for message in said:
        assert "needs diffusers" in message and "pip install 'diffusers" in message


# Declarations


@pytest.mark.parametrize("key", KEYS)
def test_declared_inputs(core, key):
    node = NODE_CLASS_MAPPINGS[key]
    declared = node.INPUT_TYPES()
    assert key.startswith("AlphaCLIP") and node.CATEGORY == "AlphaCLIP" and node.DESCRIPTION
    assert NODE_DISPLAY_NAME_MAPPINGS[key]
    assert not hasattr(node, "VALIDATE_INPUTS")  # an input named there loses the core's checks
    inputs = {**declared.get("required", {}), **declared.get("optional", {})}
    for name, (kind, options) in inputs.items():
        assert options["tooltip"].endswith("."), name
        if kind == "MASK" and name != "candidates":
            assert name == "focus_mask"
        if isinstance(kind, list):
            assert options["default"] in kind
        if kind in ("INT", "FLOAT"):
            assert options["min"] <= options["default"] <= options["max"]
    assert set(node.RETURN_TYPES) <= TYPES
    assert len(node.RETURN_TYPES) == len(node.RETURN_NAMES) == len(node.OUTPUT_TOOLTIPS)


@pytest.mark.parametrize("key", KEYS)
def test_the_function_takes_what_is_declared(core, key):
    """By name, as the core calls it; nothing else is required."""
    node = NODE_CLASS_MAPPINGS[key]
    declared = node.INPUT_TYPES()
    names = [name for group in declared.values() for name in group]
    signature = inspect.signature(getattr(node(), node.FUNCTION))
    signature.bind(**dict.fromkeys(names))
    signature.bind(**dict.fromkeys(declared["required"]))


def test_what_the_core_knows_is_offered(core):
    (core.folder("models", "clip_vision") / "tower.pth").touch()
    (core.folder("models", "diffusers", "a", "b") / "model_index.json").touch()
    required = {key: NODE_CLASS_MAPPINGS[key].INPUT_TYPES()["required"] for key in KEYS}
    assert required["AlphaCLIPLoadVision"]["model"][0] == ["mini", "tower.pth"]
    assert required["AlphaCLIPSubjectGenerate"]["model"][0] == ["mini", "a/b"]
    assert required["AlphaCLIPImageTo3D"]["model"][0] == ["a/b"]


# Documentation


@pytest.mark.parametrize("key", KEYS)
def test_the_page_of_a_node_names_everything(core, key):
    """WEB_DIRECTORY/docs/<key>.md is what ComfyUI shows as the node's help."""
    node = NODE_CLASS_MAPPINGS[key]
    page = (ROOT / "web" / "docs" / f"{key}.md").read_text(encoding="utf-8")
    assert page.startswith(f"# {NODE_DISPLAY_NAME_MAPPINGS[key]}\n")
    declared = node.INPUT_TYPES()
    wanted = {*declared["required"], *declared.get("optional", {}), *node.RETURN_NAMES}
    assert wanted <= set(re.findall(r"^\| `(\w+)`", page, re.MULTILINE))


def test_no_page_is_left_over():
    assert sorted(path.stem for path in (ROOT / "web" / "docs").glob("*")) == KEYS


# Registry rules


def test_no_eval_no_exec_no_pip():
    rules = ["--isolated", "--select", "S102,S307,E702"]
    folders = ["alphaclip_gen", "nerf", "__init__.py"]
    done = subprocess.run(
        [sys.executable, "-m", "ruff", "check", *rules, *folders],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout
    for path in (ROOT / "alphaclip_gen" / "comfyui").glob("*.py"):
        assert "subprocess" not in path.read_text(encoding="utf-8")


# Programs beside the package


@pytest.fixture
def tool(tmp_path):
    folder = tmp_path / "tool"
    folder.mkdir()
    (folder / "settings.py").write_text("from field import SIZE\nNAME = 'tool'\n")
    (folder / "field.py").write_text(
        "from dataclasses import dataclass\n"
        "SIZE = 3\n"
        "@dataclass(frozen=True)\n"
        "class Grid:\n"
        "    side: int = SIZE\n"
        "def name():\n"
        "    import json.decoder, settings\n"
        "    return json.dumps(settings.NAME)\n"
    )
    return folder


def test_a_flat_program_sees_its_own_modules_and_nobody_else_does(tool, monkeypatch):
    """Also in imports that run late; a stranger of the same name stays what it was."""
    stranger = type(sys)("settings")
    monkeypatch.setitem(sys.modules, "settings", stranger)
    monkeypatch.delitem(sys.modules, "field", raising=False)
    path, finders = list(sys.path), list(sys.meta_path)
    program = Program("tool", tool.parent)
    assert (program.settings.NAME, program.settings.SIZE) == ("tool", 3)
    assert program.field.name() == '"tool"' and program.field.Grid().side == 3
    assert program.field is program.field
    assert sys.modules["settings"] is stranger and "field" not in sys.modules
    assert (sys.path, sys.meta_path) == (path, finders)


def test_what_a_program_lacks_is_said(tool):
    (tool / "broken.py").write_text("1 / 0\n")
    program = Program("tool", tool.parent)
    for _ in range(2):
        with pytest.raises(ZeroDivisionError):
            program.broken  # noqa: B018
    with pytest.raises(AttributeError, match="tool/ has no module 'render'"):
        program.render  # noqa: B018
    with pytest.raises(FileNotFoundError, match="needs the whole repository: clone it"):
        Program("gone", tool.parent)
