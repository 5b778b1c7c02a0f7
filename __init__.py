"""ComfyUI's door: a clone in custom_nodes is loaded from here. The library is `alphaclip_gen/`.

Outside ComfyUI this file does nothing, so test runners and type checkers may meet it.
"""

import sys

if "folder_paths" in sys.modules:  # ComfyUI's own module, always imported before custom nodes
    NODE_CLASS_MAPPINGS: dict[str, type] = {}
    NODE_DISPLAY_NAME_MAPPINGS: dict[str, str] = {}
