"""The ComfyUI node pack: point at a part of a reference, without changing anybody's graph.

Node classes declare inputs and call plain functions; whatever is slow to import, they import when
they run, so that ComfyUI starts as fast as without them. A package that is missing breaks no start:
it is logged, with the command that installs it.
"""

import logging

from . import focus_nodes, making_nodes, region_nodes
from .installed import advice

_NODES = {**focus_nodes.NODES, **region_nodes.NODES, **making_nodes.NODES}

NODE_CLASS_MAPPINGS: dict[str, type] = {key: node for key, (node, _) in _NODES.items()}
NODE_DISPLAY_NAME_MAPPINGS: dict[str, str] = {key: name for key, (_, name) in _NODES.items()}

if _advice := advice():
    logging.getLogger(__name__).warning(_advice)
