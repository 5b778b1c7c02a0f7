"""ComfyUI's workflow files: built, checked against what nodes declare, and run node by node.

A declaration is what ComfyUI's /object_info says of a node: {"input": {"required": {...},
"optional": {...}}, "output": [types], "output_name": [names]}. So the same functions serve the
stand-in of the core and a real one.
"""

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import torch

WIDGETS = {"INT", "FLOAT", "STRING", "BOOLEAN", "COMBO"}
NOTES = {"Note", "MarkdownNote"}
SEEDS = {"seed", "noise_seed"}
ANY_FILE = ["*"]
"""Options of a choice among files that only the user's machine knows."""


class Wire(NamedTuple):
    """An output of a node."""

    node: int
    slot: int
    kind: str


def declare(node: type) -> dict[str, Any]:
    """The declaration of a node class."""
    inputs = node.INPUT_TYPES()
    names = getattr(node, "RETURN_NAMES", node.RETURN_TYPES)
    return {"input": inputs, "output": list(node.RETURN_TYPES), "output_name": list(names)}


def inputs_of(declaration: Mapping) -> Iterator[tuple[str, Any, dict, bool]]:
    """Name, type, options and whether it is required, of every input that a user sees."""
    for group in ("required", "optional"):
        for name, spec in declaration["input"].get(group, {}).items():
            yield name, spec[0], spec[1] if len(spec) > 1 else {}, group == "required"


def is_widget(kind: Any, options: Mapping) -> bool:
    return isinstance(kind, list) or (kind in WIDGETS and not options.get("forceInput"))


def widget_slots(declaration: Mapping) -> list[str | None]:
    """The inputs that widgets_values holds, in order; None is a value of the page's own."""
    slots: list[str | None] = []
    for name, kind, options, _ in inputs_of(declaration):
        if is_widget(kind, options):
            slots.append(name)
            if kind == "INT" and (name in SEEDS or options.get("control_after_generate")):
                slots.append(None)
            if options.get("image_upload"):
                slots.append(None)
    return slots


# Build


class Graph:
    """A workflow in the making."""

    def __init__(self, declarations: Mapping[str, Mapping]):
        self.declarations = declarations
        self.nodes: list[dict] = []
        self.links: list[list] = []

    def add(self, kind: str, at: tuple[int, int], **inputs: Any) -> list[Wire]:
        """A node with wires and widget values by name; the others get their defaults."""
        declaration = self.declarations[kind]
        number = len(self.nodes) + 1
        wired, values = [], {}
        for name, type_, options, required in inputs_of(declaration):
            given = inputs.pop(name, None)
            if isinstance(given, Wire):
                link = len(self.links) + 1
                self.links.append([link, given.node, given.slot, number, len(wired), given.kind])
                self.nodes[given.node - 1]["outputs"][given.slot]["links"].append(link)
                wired.append({"name": name, "type": type_, "link": link})
            elif is_widget(type_, options):
                values[name] = options.get("default") if given is None else given
            elif not required:
                wired.append({"name": name, "type": type_, "link": None})
            else:
                raise ValueError(f"{kind} needs {name}")
        if inputs:
            raise ValueError(f"{kind} has no inputs {sorted(inputs)}")
        extra = {"seed": "fixed", "noise_seed": "fixed", "image": "image"}
        slots, listed = widget_slots(declaration), []
        for i, name in enumerate(slots):
            listed.append(values[name] if name else extra[str(slots[i - 1])])
        outputs = [
            {"name": name, "type": type_, "links": [], "slot_index": slot}
            for slot, (name, type_) in enumerate(
                zip(declaration["output_name"], declaration["output"], strict=True)
            )
        ]
        self._append(kind, at, wired, outputs, listed)
        return [Wire(number, slot, type_) for slot, type_ in enumerate(declaration["output"])]

    def note(self, text: str, at: tuple[int, int], size: tuple[int, int] = (380, 150)) -> None:
        self._append("Note", at, [], [], [text])
        self.nodes[-1]["size"] = list(size)

    def _append(
        self, kind: str, at: tuple[int, int], inputs: list, outputs: list, values: list
    ) -> None:
        rows = max(len(inputs), len(outputs)) + len(values)
        tall = 120 * sum(isinstance(v, str) and "\n" in v for v in values)
        self.nodes.append(
            {
                "id": len(self.nodes) + 1,
                "type": kind,
                "pos": list(at),
                "size": [320, 40 + 26 * rows + tall],
                "flags": {},
                "order": len(self.nodes),
                "mode": 0,
                "inputs": inputs,
                "outputs": outputs,
                "properties": {"Node name for S&R": kind},
                "widgets_values": values,
            }
        )

    def workflow(self) -> dict[str, Any]:
        return {
            "last_node_id": len(self.nodes),
            "last_link_id": len(self.links),
            "nodes": self.nodes,
            "links": self.links,
            "groups": [],
            "config": {},
            "extra": {},
            "version": 0.4,
        }


# Check


def problems(workflow: Mapping, declarations: Mapping[str, Mapping]) -> list[str]:
    """What ComfyUI would refuse, or would show in red."""
    found = []
    nodes = {node["id"]: node for node in workflow["nodes"]}
    links = {link[0]: link for link in workflow["links"]}
    for node in nodes.values():
        kind = node["type"]
        if kind in NOTES:
            continue
        if kind not in declarations:
            found.append(f"{kind} is not known")
            continue
        declaration = declarations[kind]
        names = [(o["name"], o["type"]) for o in node["outputs"]]
        offered = list(zip(declaration["output_name"], declaration["output"], strict=True))
        if names != offered[: len(names)]:  # newer cores may give more
            found.append(f"{kind} has outputs {names}")
        if len(node.get("widgets_values", [])) != len(widget_slots(declaration)):
            found.append(f"{kind} has {len(node['widgets_values'])} widget values")
            continue
        given = arguments(node, links, declaration)
        for name, type_, options, required in inputs_of(declaration):
            if name in given:
                found += _value_problems(kind, name, type_, options, given[name], links, nodes)
            elif required:
                found.append(f"{kind}.{name} is missing")
    for link, source, slot, target, place, type_ in links.values():
        begins = [o for o in nodes[source]["outputs"][slot : slot + 1] if link in o["links"]]
        ends = [i for i in nodes[target]["inputs"][place : place + 1] if i["link"] == link]
        if not begins or not ends or begins[0]["type"] != type_:
            found.append(f"link {link} is loose")
    return found


def _value_problems(
    kind: str, name: str, type_: Any, options: Mapping, value: Any, links: Mapping, nodes: Mapping
) -> list[str]:
    if isinstance(value, list):
        sent = nodes[value[0]]["outputs"][value[1]]["type"]
        fits = type_ == "*" or (not isinstance(type_, list) and sent in type_.split(","))
        return [] if fits else [f"{kind}.{name} takes {type_} and gets {sent}"]
    choices = type_ if isinstance(type_, list) else options.get("options")
    if choices is not None:
        return [] if choices == ANY_FILE or value in choices else [f"{kind}.{name} is {value!r}"]
    right = {"INT": int, "FLOAT": (int, float), "STRING": str, "BOOLEAN": bool}[type_]
    if not isinstance(value, right):
        return [f"{kind}.{name} is a {type(value).__name__}"]
    low, high = options.get("min", value), options.get("max", value)
    return [] if type_ in ("STRING", "BOOLEAN") or low <= value <= high else [f"{kind}.{name} out"]


# Run


def arguments(node: Mapping, links: Mapping[int, list], declaration: Mapping) -> dict[str, Any]:
    """The node's inputs by name: widget values, and [node, slot] for wires."""
    slots = widget_slots(declaration)
    pairs = zip(slots, node.get("widgets_values", []), strict=True)
    given = {name: value for name, value in pairs if name is not None}
    for wired in node.get("inputs", []):
        if wired["link"] is not None:
            given[wired["name"]] = links[wired["link"]][1:3]
    return given


def as_prompt(workflow: Mapping, declarations: Mapping[str, Mapping]) -> dict[str, dict]:
    """What the page sends to /prompt."""
    links = {link[0]: link for link in workflow["links"]}
    prompt = {}
    for node in workflow["nodes"]:
        if node["type"] in NOTES:
            continue
        given = arguments(node, links, declarations[node["type"]])
        inputs = {n: [str(v[0]), v[1]] if isinstance(v, list) else v for n, v in given.items()}
        prompt[str(node["id"])] = {"class_type": node["type"], "inputs": inputs}
    return prompt


def execute(
    prompt: Mapping[str, Mapping], classes: Mapping[str, type], ui: dict[str, dict] | None = None
) -> dict[str, tuple]:
    """Every node's result, as the core runs them: on demand, each once, under inference mode.

    What nodes show goes into `ui`, by node.
    """
    done: dict[str, tuple] = {}

    def result(number: str) -> tuple:
        if number not in done:
            node = prompt[number]
            kind = classes[node["class_type"]]
            given = {
                name: result(value[0])[value[1]] if isinstance(value, list) else value
                for name, value in node["inputs"].items()
            }
            hidden = kind.INPUT_TYPES().get("hidden", {})
            given |= {name: number for name, what in hidden.items() if what == "UNIQUE_ID"}
            made = getattr(kind(), kind.FUNCTION)(**given)
            if isinstance(made, dict) and ui is not None:
                ui[number] = made["ui"]
            done[number] = made.get("result", ()) if isinstance(made, dict) else made
        return done[number]

    with torch.inference_mode():
        for number in prompt:
            result(number)
    return done
