"""The nodes' help pages: this writes the part of web/docs/*.md that the nodes declare.

Usage: python tests/comfy_pages.py

What follows the tables, from the second heading on, is written by hand and kept.
"""

import tempfile
from pathlib import Path

import comfy_stub
from comfy_graph import inputs_of

FOLDER = Path(__file__).resolve().parents[1] / "web" / "docs"


def declared_part(node: type, name: str) -> str:
    """Title, description and tables of a node."""
    declared = {"input": node.INPUT_TYPES()}
    rows = [f"# {name}", "", node.DESCRIPTION, "", "| input | type | |", "|---|---|---|"]
    for key, kind, options, required in inputs_of(declared):
        label = f"`{key}`" if required else f"`{key}` (optional)"
        rows.append(f"| {label} | {shown_type(kind, options)} | {options['tooltip']} |")
    rows += ["", "| output | type | |", "|---|---|---|"]
    for key, kind, tooltip in zip(
        node.RETURN_NAMES, node.RETURN_TYPES, node.OUTPUT_TOOLTIPS, strict=True
    ):
        rows.append(f"| `{key}` | {kind} | {tooltip} |")
    return "\n".join(rows) + "\n"


def shown_type(kind: str | list, options: dict) -> str:
    if isinstance(kind, list):
        return "choice"
    if kind not in ("INT", "FLOAT"):
        return kind
    high = "2^53" if options["max"] == 2**53 else f"{options['max']:g}"
    return f"{kind}, {options['min']:g} to {high}"


def write() -> None:
    """Nothing; the pages are as declared then."""
    from pytest import MonkeyPatch

    from alphaclip_gen.comfyui import NODE_CLASS_MAPPINGS, NODE_DISPLAY_NAME_MAPPINGS

    with MonkeyPatch.context() as patch, tempfile.TemporaryDirectory() as folder:
        comfy_stub.install(patch, Path(folder))
        for key, node in NODE_CLASS_MAPPINGS.items():
            path = FOLDER / f"{key}.md"
            written = path.read_text(encoding="utf-8") if path.is_file() else ""
            _, heading, by_hand = written.partition("\n## ")
            declared = declared_part(node, NODE_DISPLAY_NAME_MAPPINGS[key])
            path.write_text(declared + heading + by_hand, encoding="utf-8")


if __name__ == "__main__":
    write()
