"""The house rules that can be read from the source: who imports whom, names, doors, packaging."""

import ast
import importlib.util
import re
import sys
import tomllib
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = "alphaclip_gen"
FOLDERS = (PACKAGE, "pipelines", "nerf", "examples", "tests")
LAYERS = (
    ("alpha", "whole_files"),
    ("pictures",),
    ("regions",),
    ("framing",),
    ("vision",),
    ("processor", "dialects", "published", "safe_files", "attention_focus", "baselines"),
    ("augmentation", "backgrounds", "attention_maps", "recognition", "families"),
    ("sources",),
    ("checkpoints", "tokenizer"),
    ("exporting", "half_tower"),
    ("conversion", "fitting"),
    ("encoder",),
    ("guidance", "conditioning", "subject", "measuring", "tables", "made_meshes"),
    ("mesh_judges", "focus_ways"),
    ("bench_cases", "mesh_table", "evaluate_focus", "focus_grid"),
    ("bench", "evaluate_3d", "evaluate_parts"),
    ("gallery",),
    ("comfyui",),
    ("cli",),
    ("__main__",),
)
"""Modules of the package, lowest first; none may reach its own row's others or a later row."""

COMFYUI = {"comfy", "comfy_api", "comfy_extras", "folder_paths"}
"""What the node pack finds there when it runs."""

FORBIDDEN_NAMES = {"utils", "util", "helpers", "misc", "common"}
IMPORT_NAMES = {"pillow": "PIL", "scikit-image": "skimage", "open_clip_torch": "open_clip"}
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


class Import(NamedTuple):
    module: str  # absolute, "alphaclip_gen.alpha"
    names: tuple[str, ...]  # what `from module import ...` takes
    level: int  # leading dots in the source
    at_top: bool  # runs when the module is imported


def sources(*folders: str) -> list[Path]:
    return sorted(path for folder in folders for path in (ROOT / folder).rglob("*.py"))


def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), filename=str(path))


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports(path: Path) -> list[Import]:
    """Every import statement of one file, relative ones made absolute."""
    root = tree(path)
    lazy = {
        id(inner)
        for outer in ast.walk(root)
        if isinstance(outer, ast.FunctionDef | ast.AsyncFunctionDef)
        or (isinstance(outer, ast.If) and ast.unparse(outer.test) == "TYPE_CHECKING")
        for inner in ast.walk(outer)
    }
    package = path.relative_to(ROOT).parent.parts
    found = []
    for node in ast.walk(root):
        top = id(node) not in lazy
        if isinstance(node, ast.Import):
            found += [Import(alias.name, (), 0, top) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else ()
            module = ".".join((*base, *filter(None, [node.module])))
            names = tuple(alias.name for alias in node.names)
            found.append(Import(module, names, node.level, top))
    return found


def graph(only_top: bool = False) -> dict[str, set[str]]:
    """Module of the package -> modules of the package that it imports."""
    modules = {module_name(path): path for path in sources(PACKAGE)}
    edges: dict[str, set[str]] = {}
    for module, path in modules.items():
        edges[module] = set()
        for item in imports(path):
            if only_top and not item.at_top:
                continue
            inner = {f"{item.module}.{name}" for name in item.names} & modules.keys()
            outside = set(item.names) - {name.rpartition(".")[2] for name in inner}
            if item.module in modules and (outside or not item.names):
                inner.add(item.module)
            edges[module] |= inner
    return edges


def reachable(edges: dict[str, set[str]], start: str) -> set[str]:
    seen: set[str] = set()
    waiting = [start]
    while waiting:
        for following in edges.get(waiting.pop(), set()) - seen:
            seen.add(following)
            waiting.append(following)
    return seen


def distributions(requirements: list[str]) -> set[str]:
    return {re.split(r"[\[<>=!~; ]", line, maxsplit=1)[0] for line in requirements}


def import_names(requirements: list[str]) -> set[str]:
    return {IMPORT_NAMES.get(d, d.replace("-", "_")) for d in distributions(requirements)}


def third_party(items: list[Import]) -> set[str]:
    tops = {item.module.partition(".")[0] for item in items}
    return tops - set(sys.stdlib_module_names) - {PACKAGE}


# Import directions


def test_layers_import_downwards_only() -> None:
    edges = graph()
    for row, layer in enumerate(LAYERS):
        for name in layer:
            above = {other for later in LAYERS[row:] for other in later} - {name}
            wrong = reachable(edges, f"{PACKAGE}.{name}") & {f"{PACKAGE}.{n}" for n in above}
            assert not wrong, f"{PACKAGE}.{name} reaches {sorted(wrong)}"


def test_no_import_cycles() -> None:
    edges = graph()
    cyclic = sorted(module for module in edges if module in reachable(edges, module))
    assert not cyclic


def test_the_import_reader_sees_what_python_sees() -> None:
    """The tests above hold nothing if the reader misses an import: check it on a known module."""
    path = ROOT / PACKAGE / "framing.py"
    assert f"{PACKAGE}.alpha" in graph()[module_name(path)]
    assert "torch" in {item.module for item in imports(path)}


@pytest.mark.parametrize("path", sources(PACKAGE), ids=module_name)
def test_package_imports_itself_relatively(path: Path) -> None:
    """ComfyUI loads the clone by file path: absolute imports would load a second copy."""
    absolute = [item.module for item in imports(path) if not item.level]
    assert PACKAGE not in {module.partition(".")[0] for module in absolute}


@pytest.mark.parametrize("path", sources("pipelines", "nerf", "examples"), ids=module_name)
def test_programs_import_public_names_only(path: Path) -> None:
    for item in imports(path):
        assert item.level == 0, f"relative import of {item.module}"
        assert item.module.partition(".")[0] not in {"nerf", "pipelines", "examples", "tests"}
        if item.module.partition(".")[0] == PACKAGE:
            words = (*item.module.split("."), *item.names)
            assert not [word for word in words if word.startswith("_")]


def test_flat_folders_stay_flat() -> None:
    """`python nerf/optimize.py` puts nerf/ first on the path: its names must not hide others."""
    for folder in ("pipelines", "nerf", "examples", "tests"):
        assert not list((ROOT / folder).rglob("__init__.py"))
    known = set(sys.stdlib_module_names) | import_names(PROJECT["dependencies"]) | {PACKAGE}
    assert not {path.stem for path in sources("nerf")} & known


# Names and habits


def test_no_drawer_modules() -> None:
    named = [path for path in sources(*FOLDERS) if path.stem in FORBIDDEN_NAMES]
    assert not named


@pytest.mark.parametrize("path", sources(PACKAGE, "nerf", "pipelines"), ids=module_name)
def test_no_deferred_annotations_where_shapes_are_types(path: Path) -> None:
    modules = {item.module for item in imports(path)}
    assert not {"jaxtyping", "__future__"} <= modules


@pytest.mark.parametrize("path", sources(PACKAGE, "nerf", "pipelines", "examples"), ids=module_name)
def test_path_is_never_edited(path: Path) -> None:
    assert "sys.path" not in {
        ast.unparse(node) for node in ast.walk(tree(path)) if isinstance(node, ast.Attribute)
    }


@pytest.mark.parametrize("path", sources(PACKAGE), ids=module_name)
def test_library_does_not_print(path: Path) -> None:
    """Programs may: the command line, and modules that run by `python -m`."""
    root = tree(path)
    guarded = any(isinstance(n, ast.If) and "__name__" in ast.unparse(n.test) for n in root.body)
    if guarded or path.stem in {"__main__", "cli", "demo"}:
        return
    calls = [node.func for node in ast.walk(root) if isinstance(node, ast.Call)]
    assert "print" not in {call.id for call in calls if isinstance(call, ast.Name)}


# Packaging


def test_version_is_the_same_everywhere() -> None:
    import alphaclip_gen

    assert alphaclip_gen.__version__ == PROJECT["version"]


def test_lazy_names_are_the_ones_that_type_checkers_see() -> None:
    """The root lists its names twice, for them and for Python: both lists must be one."""
    import alphaclip_gen

    seen = {
        (item.module.removeprefix(f"{PACKAGE}."), name)
        for item in imports(ROOT / PACKAGE / "__init__.py")
        if item.module.startswith(f"{PACKAGE}.")
        for name in item.names
    }
    assert seen == {(home, name) for home, names in alphaclip_gen._HOME.items() for name in names}
    for name in alphaclip_gen.__all__:
        if importlib.util.find_spec("diffusers") or name not in alphaclip_gen._HOME["subject"]:
            assert getattr(alphaclip_gen, name).__name__ == name


@pytest.mark.parametrize("door", [PACKAGE, f"{PACKAGE}.cli"])
def test_doors_import_without_extras(door: str) -> None:
    """What runs on import needs core dependencies only; extras are imported where they are used."""
    edges = graph(only_top=True)
    paths = {module_name(path): path for path in sources(PACKAGE)}
    assert door in paths
    for module in {door} | reachable(edges, door):
        needed = third_party([item for item in imports(paths[module]) if item.at_top])
        missing = needed - import_names(PROJECT["dependencies"])
        assert not missing, f"{module} imports {sorted(missing)}, not a core dependency"


@pytest.mark.parametrize("path", sources(PACKAGE, "nerf", "pipelines", "examples"), ids=module_name)
def test_imports_are_declared(path: Path) -> None:
    extras = [line for extra in PROJECT["optional-dependencies"].values() for line in extra]
    siblings = {other.stem for other in sources("nerf")} if path.parent.name == "nerf" else set()
    declared = import_names(PROJECT["dependencies"] + extras)
    host = COMFYUI if "comfyui" in path.parts else set()
    missing = third_party(imports(path)) - siblings - declared - host
    assert not missing, f"not in pyproject.toml: {sorted(missing)}"


def test_comfyui_requirements_cannot_replace_what_the_host_brings() -> None:
    """They are the package's, but for a transformers as old as the nodes can do with."""
    lines = (ROOT / "requirements.txt").read_text(encoding="utf-8").splitlines()
    wanted = {line for line in lines if line and not line.startswith("#")}
    assert not distributions(list(wanted)) & {"torch", "torchvision", "numpy", "pillow"}
    ours = set(PROJECT["dependencies"]) | set(PROJECT["optional-dependencies"]["3d"])
    assert wanted - ours == {"transformers>=5.12,<6"}


# The root __init__.py


def load_as_comfyui_does() -> ModuleType:
    """The clone as a custom node: loaded by file path, under a name that is no identifier."""
    spec = importlib.util.spec_from_file_location(str(ROOT), ROOT / "__init__.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_root_does_nothing_outside_comfyui(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "folder_paths", raising=False)
    before = set(sys.modules)
    assert not hasattr(load_as_comfyui_does(), "NODE_CLASS_MAPPINGS")
    assert set(sys.modules) == before


def test_root_is_a_node_pack_inside_comfyui(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "folder_paths", ModuleType("folder_paths"))
    pack = load_as_comfyui_does()
    assert pack.NODE_CLASS_MAPPINGS.keys() == pack.NODE_DISPLAY_NAME_MAPPINGS.keys()
