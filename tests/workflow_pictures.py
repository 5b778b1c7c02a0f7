"""The pictures of the example workflows: their results with a caption each, or their wires."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw, ImageFont

from alphaclip_gen import alpha_from_box, as_image
from alphaclip_gen.show import fit, lit_region

WIDTH, HEIGHT = 640, 360
FINE = 2
"""Drawn this much larger, then made smaller: smooth edges."""
CANVAS, DOTS, BODY, LINE = (30, 31, 36), (46, 48, 55), (53, 55, 62), (86, 90, 100)
TITLE, OURS, INK, FAINT = (41, 43, 49), (38, 84, 148), (236, 238, 242), (170, 175, 186)
WIRES = {
    "IMAGE": (100, 181, 246),
    "MASK": (129, 199, 132),
    "CLIP_VISION": (168, 218, 220),
    "CLIP_VISION_OUTPUT": (214, 140, 100),
    "CONDITIONING": (255, 169, 49),
    "MODEL": (179, 157, 219),
    "MESH": (160, 200, 120),
}
NODE, GAP, ROW, BAR, LOWER = 130, 32, 17, 24, 36
"""Width of a node, space between columns, height of a socket's row and of a title bar, and how much
lower the columns after the first are: so a wire that skips a column passes above it."""
SCENE = Path(__file__).resolve().parents[1] / "example_workflows" / "scene.png"
MESHES = SCENE.parents[1] / "docs" / "meshes.png"
MEANT = {"LoadImage": (0.42, 0.34, 0.96, 0.87), "AlphaCLIPExamplePicture": (0.0, 0.0, 1.0, 1.0)}
"""Nodes that show the scene, and the region of it that is lit."""


def of_results(batches: Sequence[Any], captions: Sequence[str]) -> Image.Image:
    """The first four pictures of a workflow's IMAGEs in a row, each under its caption."""
    pictures = [one for batch in batches for one in batch][:4]
    sheet = Image.new("RGB", (WIDTH, HEIGHT), CANVAS)
    pen = ImageDraw.Draw(sheet)
    side = (WIDTH - 8) // len(pictures)
    top = (HEIGHT - side) // 2 + 10
    for number, (one, caption) in enumerate(zip(pictures, captions, strict=True)):
        picture = Image.fromarray((one * 255).round().byte().cpu().numpy())
        sheet.paste(fit(picture, side - 8), (8 + number * side, top))
        place = (4 + number * side + side // 2, top - 10)
        pen.text(place, caption, INK, ImageFont.load_default(size=16), "ms")
    return sheet


def of_meshes(prompts: Mapping[str, tuple[int, int]]) -> Image.Image:
    """Meshes that prompts became, out of the figure that the evaluation draws.

    Args:
        prompts: and where their tiles are: column and row.
    """
    figure = Image.open(MESHES).convert("RGB")
    sheet = Image.new("RGB", (WIDTH, HEIGHT), "white")
    pen = ImageDraw.Draw(sheet)
    font = ImageFont.load_default(size=15)
    for number, (prompt, (column, row)) in enumerate(prompts.items()):
        left, top = 6 + 142 * column, 6 + 170 * row
        tile = figure.crop((left, top, left + 136, top + 136))
        x, y = 8 + 157 * (number % 4), 8 + 176 * (number // 4)
        sheet.paste(tile.resize((152, 146), Image.Resampling.LANCZOS), (x, y))
        pen.text((x + 76, y + 150), prompt, CANVAS, font, "ma")
    return sheet


def of_wires(
    workflow: Mapping, declared: Mapping[str, Mapping], shown: Sequence[str], names: Mapping
) -> Image.Image:
    """The nodes of some types and the wires between them, from left to right; ours in blue."""
    nodes = {node["id"]: node for node in workflow["nodes"] if node["type"] in shown}
    wires = [link for link in workflow["links"] if link[1] in nodes and link[3] in nodes]
    columns = _columns(nodes, wires)
    sheet = _dotted()
    pen = ImageDraw.Draw(sheet)
    left = (WIDTH - len(columns) * NODE - (len(columns) - 1) * GAP) / 2
    boxes, sockets = {}, {}
    for number, column in enumerate(columns):
        high = [_height(nodes[one], wires) for one in column]
        y = (HEIGHT - sum(high) - 26 * (len(high) - 1)) / 2 + (LOWER if number else 0)
        for one, tall in zip(column, high, strict=True):
            x = left + number * (NODE + GAP)
            boxes[one] = (x, y, x + NODE, y + tall)
            sockets |= _sockets(one, wires, boxes[one])
            y += tall + 26
    for link in wires:
        _wire(pen, sockets[link[0], "out"], sockets[link[0], "in"], link[5])
    for one, box in boxes.items():
        node = nodes[one]
        _box(pen, box, names.get(node["type"], node["type"]), node["type"].startswith("AlphaCLIP"))
        if node["type"] in MEANT:
            alpha = alpha_from_box(MEANT[node["type"]], (224, 224), "fractions")
            lit = lit_region(as_image(SCENE), alpha)
            side = round((NODE - 16) * FINE)
            place = (round((box[0] + 8) * FINE), round((box[3] - 8) * FINE) - side)
            sheet.paste(lit.resize((side, side), Image.Resampling.LANCZOS), place)
    for link in wires:
        _socket(pen, sockets[link[0], "out"], _out_name(nodes, link, declared), link[5], "rm")
        name = nodes[link[3]]["inputs"][link[4]]["name"]
        _socket(pen, sockets[link[0], "in"], name, link[5], "lm")
    return sheet.resize((WIDTH, HEIGHT), Image.Resampling.LANCZOS)


def _columns(nodes: Mapping[int, Mapping], wires: Sequence[list]) -> list[list[int]]:
    """Every node one column right of the last node that it takes from."""
    depth = dict.fromkeys(nodes, 0)
    for _ in nodes:
        for link in wires:
            depth[link[3]] = max(depth[link[3]], depth[link[1]] + 1)
    return [[one for one in nodes if depth[one] == d] for d in range(max(depth.values()) + 1)]


def _height(node: Mapping, wires: Sequence[list]) -> float:
    ins = sum(link[3] == node["id"] for link in wires)
    outs = len({link[2] for link in wires if link[1] == node["id"]})
    picture = NODE - 8 if node["type"] in MEANT else 0
    return BAR + 12 + ROW * (ins + outs) + picture


def _sockets(one: int, wires: Sequence[list], box: tuple) -> dict[tuple[int, str], tuple]:
    ins = [link[0] for link in sorted(wires, key=lambda w: w[4]) if link[3] == one]
    slots = sorted({link[2] for link in wires if link[1] == one})
    first = box[1] + BAR + 6 + ROW / 2
    places = {(link, "in"): (box[0], first + ROW * row) for row, link in enumerate(ins)}
    for link in wires:
        if link[1] == one:
            row = len(ins) + slots.index(link[2])
            places[link[0], "out"] = (box[2], first + ROW * row)
    return places


def _out_name(nodes: Mapping, link: list, declared: Mapping) -> str:
    return declared[nodes[link[1]]["type"]]["output_name"][link[2]]


def _dotted() -> Image.Image:
    sheet = Image.new("RGB", (WIDTH * FINE, HEIGHT * FINE), CANVAS)
    pen = ImageDraw.Draw(sheet)
    for x in range(10, WIDTH, 20):
        for y in range(10, HEIGHT, 20):
            pen.ellipse(_fine(x - 0.8, y - 0.8, x + 0.8, y + 0.8), DOTS)
    return sheet


def _fine(*places: float) -> list[float]:
    return [FINE * place for place in places]


def _box(pen: ImageDraw.ImageDraw, box: tuple, title: str, ours: bool) -> None:
    x0, y0, x1, _ = box
    pen.rounded_rectangle(_fine(*box), 7 * FINE, BODY, OURS if ours else LINE, FINE)
    corners = (True, True, False, False)
    color = OURS if ours else TITLE
    pen.rounded_rectangle(_fine(x0, y0, x1, y0 + BAR), 7 * FINE, color, corners=corners)
    pen.text(_fine(x0 + 8, y0 + BAR / 2), title, INK, ImageFont.load_default(size=12 * FINE), "lm")


def _socket(pen: ImageDraw.ImageDraw, place: tuple, name: str, kind: str, anchor: str) -> None:
    x, y = place
    pen.ellipse(_fine(x - 4, y - 4, x + 4, y + 4), WIRES.get(kind, FAINT))
    inward = 9 if anchor == "lm" else -9
    font = ImageFont.load_default(size=10 * FINE)
    pen.text(_fine(x + inward, y), name.lower(), FAINT, font, anchor)


def _wire(pen: ImageDraw.ImageDraw, start: tuple, end: tuple, kind: str) -> None:
    """A curve that leaves and arrives level."""
    points = []
    for i in range(41):
        t = i / 40
        x = start[0] + (end[0] - start[0]) * t
        y = start[1] + (end[1] - start[1]) * (3 * t**2 - 2 * t**3)
        points.append((FINE * x, FINE * y))
    pen.line(points, WIRES.get(kind, FAINT), 3 * FINE, joint="curve")
