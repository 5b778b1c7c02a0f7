"""ComfyUI's door: a clone in custom_nodes is loaded from here. The library is `alphaclip_gen/`.

Outside ComfyUI this file does nothing, so test runners and type checkers may meet it. Inside, the
library is loaded under its own name, not as a part of this file's module: saved pipelines name it
as the home of their components, and nerf/ imports it.
"""

import importlib.util
import sys
from pathlib import Path

if "folder_paths" in sys.modules:  # ComfyUI's own module, always imported before custom nodes
    if "alphaclip_gen" not in sys.modules:
        _spec = importlib.util.spec_from_file_location(
            "alphaclip_gen", Path(__file__).parent / "alphaclip_gen" / "__init__.py"
        )
        assert _spec is not None and _spec.loader is not None
        sys.modules["alphaclip_gen"] = importlib.util.module_from_spec(_spec)
        _spec.loader.exec_module(sys.modules["alphaclip_gen"])
    from alphaclip_gen.comfyui import NODE_CLASS_MAPPINGS as NODE_CLASS_MAPPINGS
    from alphaclip_gen.comfyui import NODE_DISPLAY_NAME_MAPPINGS as NODE_DISPLAY_NAME_MAPPINGS

    WEB_DIRECTORY = "./web"
