"""The pack as a whole: its door, its declarations, its documentation, and what it must not do."""

import inspect
import json
import os
import re
import subprocess
import sys
import tomllib
from importlib.metadata import requires
from pathlib import Path

import comfy_pages
import comfy_stub as stub
import pytest
from packaging.requirements import Requirement
from PIL import Image

from alphaclip_gen.comfyui import NODE_CLASS_MAPPINGS, NODE_DISPLAY_NAME_MAPPINGS
from alphaclip_gen.comfyui.installed import advice, missing
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
    """In under half a second, and without slow modules, also where inputs are declared."""
    code = "import json; print(json.dumps(load['measure']()))"
    found = json.loads(in_a_fresh_python(code, tmp_path).splitlines()[-1])
    assert found["seconds"] <= found["seconds with all inputs declared"] < 0.5
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
    image, mask = torch.rand(1, 32, 32, 3), torch.zeros(1, 64, 64)
    same = dict(image=image, focus_mask=mask, strength=1.0, invert=False)
    for name, kind, more in (
        ("SubjectGenerate", "BlipDiffusion", dict(prompt="on a beach", subject="dog", target="")),
        ("ImageTo3D", "ShapEImg2Img", dict(engine="Shap-E")),
    ):
        index = core.folder("models", "diffusers", kind) / "model_index.json"
        index.write_text(json.dumps({"_class_name": kind + "Pipeline"}))
        try:
            pack.NODE_CLASS_MAPPINGS["AlphaCLIP" + name]().run(model=kind, **same, **more)
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
    for name, kind in (("a/blip", "BlipDiffusion"), ("shape", "ShapEImg2Img"), ("wan", "Wan")):
        index = core.folder("models", "diffusers", name) / "model_index.json"
        index.write_text(json.dumps({"_class_name": kind + "Pipeline"}))
    required = {key: NODE_CLASS_MAPPINGS[key].INPUT_TYPES()["required"] for key in KEYS}
    assert required["AlphaCLIPLoadVision"]["model"][0] == ["mini", "tower.pth"]
    assert required["AlphaCLIPSubjectGenerate"]["model"][0] == ["mini", "a/blip"]
    assert required["AlphaCLIPImageTo3D"]["model"][0] == ["shape"]


# Documentation


@pytest.mark.parametrize("key", KEYS)
def test_the_page_of_a_node_is_as_declared(core, key):
    """WEB_DIRECTORY/docs/<key>.md is what ComfyUI shows as the node's help.

    python tests/comfy_pages.py writes its declared part anew.
    """
    node = NODE_CLASS_MAPPINGS[key]
    page = (comfy_pages.FOLDER / f"{key}.md").read_text(encoding="utf-8")
    assert page.startswith(comfy_pages.declared_part(node, NODE_DISPLAY_NAME_MAPPINGS[key]))


def test_the_table_of_nodes_names_them_all():
    table = (ROOT / "docs" / "comfyui.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (.+?) \|", table, re.MULTILINE)
    listed = {name for row in rows for name in row.replace(" / ", "\n").splitlines()}
    names = {name.removesuffix(" (Alpha-CLIP)") for name in NODE_DISPLAY_NAME_MAPPINGS.values()}
    assert {name.removeprefix("Region from ") for name in names} <= {
        name.removeprefix("Region from ") for name in listed
    }


def test_no_page_is_left_over():
    assert sorted(path.stem for path in (ROOT / "web" / "docs").glob("*")) == KEYS


# Registry rules


def test_what_the_registry_reads():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    comfy, name = project["tool"]["comfy"], project["project"]["name"]
    assert comfy["PublisherId"] and comfy["DisplayName"] and "comfyui" not in name.lower()
    assert Requirement(f"comfyui{comfy['requires-comfyui']}").specifier.contains("0.3.75")
    repository = project["project"]["urls"]["Repository"]
    assert comfy["Icon"].startswith(repository.replace("github.com", "raw.githubusercontent.com"))
    with Image.open(ROOT / comfy["Icon"].partition("/main/")[2]) as icon:
        assert icon.width == icon.height <= 400


def test_no_requirement_can_replace_torch():
    """Nothing that requirements.txt brings in, directly or not, names what the host brings."""
    lines = (ROOT / "requirements.txt").read_text(encoding="utf-8").splitlines()
    waiting = [Requirement(line) for line in lines if line and not line.startswith("#")]
    seen, direct = set(), {wanted.name.lower() for wanted in waiting}
    while waiting:
        wanted = waiting.pop()
        if wanted.name in seen or (wanted.marker and not wanted.marker.evaluate({"extra": ""})):
            continue
        seen.add(wanted.name)
        waiting += [Requirement(line) for line in requires(wanted.name) or []]
    assert {"transformers", "scipy", "huggingface-hub"} <= {name.lower() for name in seen}
    host = {"torch", "torchvision", "torchaudio", "xformers", "triton", "opencv-python"}
    assert not host & {name.lower() for name in seen}
    assert not {"numpy", "pillow"} & direct  # they come along, in whatever version is there


def test_packages_that_are_missing_are_named_with_the_remedy(tmp_path):
    assert advice() is None
    wanted = tmp_path / "requirements.txt"
    wanted.write_text("# some\n\nno-such-package-at-all>=1\npillow>=999\npillow>=1,<2\npillow>=1\n")
    gone, old, new = missing(wanted)
    assert gone == "no-such-package-at-all>=1 (missing)"
    assert old.startswith("pillow>=999 (here: ") and new.startswith("pillow>=1,<2 (here: ")
    assert gone in advice(wanted) and f'-m pip install -r "{wanted}"' in advice(wanted)
    assert missing(tmp_path / "gone.txt") == []


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
