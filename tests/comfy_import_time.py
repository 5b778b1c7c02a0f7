"""How long the pack takes to import, and what it brings along, in a core with torch imported.

Seconds are of this process alone: how busy the machine is does not count.

Usage: python tests/comfy_import_time.py
"""

import importlib.util
import json
import sys
import time
import types
from pathlib import Path

CLONE = Path(__file__).resolve().parents[1]
SLOW = ("torchvision", "transformers", "diffusers", "jaxtyping", "trimesh", "skimage", "tyro")


def load(clone: Path = CLONE) -> types.ModuleType:
    """The clone as ComfyUI loads a folder of custom_nodes: by path, under a name of its path."""
    name = str(clone).replace(".", "_x_")
    spec = importlib.util.spec_from_file_location(name, clone / "__init__.py")
    pack = importlib.util.module_from_spec(spec)
    sys.modules[name] = pack
    spec.loader.exec_module(pack)
    return pack


def measure() -> dict:
    import torch  # noqa: F401  (the core has it)

    paths = types.ModuleType("folder_paths")
    paths.get_filename_list = lambda kind: []
    paths.get_folder_paths = lambda kind: []
    sys.modules["folder_paths"] = paths
    before = set(sys.modules)
    start = time.process_time()
    pack = load()
    seconds = time.process_time() - start
    for node in pack.NODE_CLASS_MAPPINGS.values():
        node.INPUT_TYPES()
    everything = time.process_time() - start
    brought = {name.partition(".")[0] for name in set(sys.modules) - before}
    return {
        "seconds": round(seconds, 3),
        "seconds with all inputs declared": round(everything, 3),
        "nodes": len(pack.NODE_CLASS_MAPPINGS),
        "slow modules": sorted(brought & set(SLOW)),
        "library": sys.modules["alphaclip_gen"].__file__,
        "names": sorted(n for n in sys.modules if n.endswith("alphaclip_gen.comfyui")),
    }


if __name__ == "__main__":
    print(json.dumps(measure(), indent=1))
