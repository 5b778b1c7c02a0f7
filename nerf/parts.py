"""Parts of a scene: a text and the shape where it holds, as in "a red cone @ top".

Shapes are regions of the cube [-1, 1]^3 in the world's frame: +X right, +Y up, +Z front, as seen
from azimuth 0. Of the cube, the ball of radius 1 is rendered. A shape is a signed distance,
negative inside; its membership falls from 1 to 0 across the border.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from grids import Mirror, sample, vertices
from meshes import SUFFIXES, read_mesh, signed_distance

SIDES = {
    "top": (0.0, 1.0, 0.0),
    "bottom": (0.0, -1.0, 0.0),
    "left": (-1.0, 0.0, 0.0),
    "right": (1.0, 0.0, 0.0),
    "front": (0.0, 0.0, 1.0),
    "back": (0.0, 0.0, -1.0),
}
"""Named half-spaces: the direction in which each lies from the origin."""
NUMBERS = {"box": 6, "ball": 4, "half": 4}
"""Words of shapes, and how many numbers follow."""
FORMS = (
    "top, bottom, left, right, front or back, each with the distance from the middle at which it "
    'begins if not 0 ("top 0.4"), "box x0 y0 z0 x1 y1 z1", "ball x y z radius", "half x y z '
    'offset" (direction and distance of the border), or a mesh file in scene coordinates'
)
EDGE = 0.06
"""Width of the border across which membership falls from 1 to 0."""

Distance = Callable[[Tensor], Tensor]
"""points (n, 3) -> signed distance (n,), negative inside."""


@dataclass(frozen=True)
class Shape:
    """A region of the scene; call it for the membership of points."""

    text: str
    """As it was given."""
    distance: Distance

    def __call__(self, points: Float[Tensor, "points 3"]) -> Float[Tensor, " points"]:
        """In [0, 1]: 1 inside, 1/2 on the border, 0 outside; not differentiable."""
        with torch.no_grad():
            return (0.5 - self.distance(points) / EDGE).clamp(0, 1)


@dataclass(frozen=True)
class Part:
    """What shall become of a shape; see `parse_part`."""

    text: str
    shape: str
    """See `parse_shape`."""
    weight: float = 1.0
    avoid: tuple[str, ...] = ()
    """What it should not be."""


def parse_part(text: str) -> Part:
    """The part that "TEXT @ SHAPE" or "TEXT @ SHAPE:weight=2:avoid=TEXT" names.

    Raises:
        ValueError: text or shape is missing, or a setting is unknown or can't be used.
    """
    words, at, rest = text.partition("@")
    place, *pairs = re.split(r":(?=\w+=)", rest)
    if not (at and words.strip() and place.strip()):
        missing = "no text before the @" if at and place.strip() else "no shape behind an @"
        raise ValueError(
            f'part {text!r} has {missing}; expected "TEXT @ SHAPE", as in "a red cone @ top".'
        )
    weight, avoid = 1.0, []
    for name, value in (pair.split("=", 1) for pair in pairs):
        if name == "weight":
            weight = _weight(value, text)
        elif name == "avoid" and value.strip():
            avoid.append(value.strip())
        else:
            raise ValueError(
                f"part {text!r} has {name}={value!r}; expected weight=NUMBER or avoid=TEXT, as in "
                '"a red cone @ top:weight=2:avoid=a red ball".'
            )
    return Part(words.strip(), place.strip(), weight, tuple(avoid))


def parse_shape(text: str, argument: str) -> Shape:
    """The shape that a text names, see `FORMS`.

    Args:
        text: of the shape; numbers are separated by spaces or commas.
        argument: what messages call it.

    Raises:
        ValueError: it is no shape, its numbers can't be used, or nothing of it is rendered.
        FileNotFoundError: the mesh file is not there.
    """
    shape = Shape(text.strip(), _distance(text.strip(), argument))
    if not share_of_ball(shape) > 0:
        raise ValueError(
            f"{argument} {text.strip()!r} lies outside of the ball of radius 1 around the origin, "
            "of which pictures are rendered; expected a shape that reaches into it."
        )
    return shape


def share_of_ball(shape: Shape, size: int = 49) -> float:
    """How much of the ball that is rendered the shape takes up, in [0, 1]."""
    return float(shape(places_in_ball(size)).mean())


def bounds(
    shape: Shape, radius: float, size: int = 49
) -> tuple[Float[Tensor, "3"], Float[Tensor, "3"]]:
    """Lowest and highest corner of the shape within a ball around the origin."""
    places = places_in_ball(size)
    near = places[places.norm(dim=1) <= radius]
    inside = near[shape.distance(near) <= 0]
    inside = inside if len(inside) else places[shape.distance(places).argmin(), None]
    return inside.amin(dim=0), inside.amax(dim=0)


def check_mirror(shapes: Sequence[tuple[str, Shape]], mirror: Mirror) -> None:
    """Nothing; `shapes` come with the names of their arguments.

    Raises:
        ValueError: a shape is not symmetric, but the field is.
    """
    places = places_in_ball(33)
    for argument, shape in shapes:
        member, wrong = shape(places), ""
        for axis, name in ((0, "x"), (2, "z")):
            flip = torch.ones(3)
            flip[axis] = -1
            apart = (shape(places * flip) - member).abs().sum()
            if name in mirror and apart > 0.1 * member.sum():
                wrong += name
        if wrong:
            kept = "".join(name for name in mirror if name not in wrong) or "none"
            raise ValueError(
                f"{argument} {shape.text!r} is not the same on both sides of {wrong}, but "
                f"field.mirror is {mirror!r}; expected --field.mirror {kept}."
            )


def _weight(value: str, text: str) -> float:
    try:
        weight = float(value)
    except ValueError:
        weight = float("nan")
    if not 0 < weight < float("inf"):
        raise ValueError(
            f"part {text!r} has weight {value!r}; expected a finite number above 0, beside 1 for "
            "the prompt."
        )
    return weight


def _distance(text: str, argument: str) -> Distance:
    word, *rest = re.split(r"[\s,]+", text)
    if Path(text).suffix.lower() in SUFFIXES:
        return _mesh(Path(text), argument)
    if word not in SIDES and word not in NUMBERS:
        raise ValueError(f"{argument} has the shape {text!r}; expected {FORMS}.")
    numbers = _numbers(word, rest, argument, text)
    if word in SIDES:
        return half_space(SIDES[word], numbers[0] if numbers else 0.0)
    if word == "ball":
        return ball(numbers[:3], _above_zero(numbers[3], "radius", argument, text))
    if word == "box":
        low, high = numbers[:3], numbers[3:]
        for a, b in zip(low, high, strict=True):
            _above_zero(b - a, "size", argument, text)
        return box(low, high)
    _above_zero(sum(abs(n) for n in numbers[:3]), "direction", argument, text)
    return half_space(numbers[:3], numbers[3])


def _numbers(word: str, texts: Sequence[str], argument: str, whole: str) -> list[float]:
    try:
        numbers = [float(text) for text in texts if text]
    except ValueError:
        numbers = [float("nan")]
    fitting = len(numbers) == NUMBERS[word] if word in NUMBERS else len(numbers) <= 1
    if not (fitting and torch.tensor(numbers).isfinite().all()):
        count = NUMBERS.get(word, "at most 1")
        raise ValueError(
            f"{argument} has the shape {whole!r}; expected {count} finite numbers behind {word!r}. "
            f"Shapes are {FORMS}."
        )
    return numbers


def _above_zero(number: float, what: str, argument: str, text: str) -> float:
    if number > 0:
        return number
    raise ValueError(
        f"{argument} has the shape {text!r} of {what} {number:g}; expected more than 0"
        + (", the lower corner first." if what == "size" else ".")
    )


def half_space(direction: Sequence[float], offset: float) -> Distance:
    """All points at least `offset` away from the origin in a direction of any length."""
    normal = torch.nn.functional.normalize(torch.tensor(direction), dim=0)
    return lambda points: offset - points @ normal.to(points)


def ball(center: Sequence[float], radius: float) -> Distance:
    """All points within `radius` of the center."""
    middle = torch.tensor(center)
    return lambda points: (points - middle.to(points)).norm(dim=1) - radius


def box(low: Sequence[float], high: Sequence[float]) -> Distance:
    """All points between two corners."""
    middle = (torch.tensor(high) + torch.tensor(low)) / 2
    reach = (torch.tensor(high) - torch.tensor(low)) / 2

    def distance(points: Tensor) -> Tensor:
        beyond = (points - middle.to(points)).abs() - reach.to(points)
        return beyond.relu().norm(dim=1) + beyond.amax(dim=1).clamp(max=0)

    return distance


def _mesh(path: Path, argument: str) -> Distance:
    """All points within a mesh, in its own coordinates."""
    grid = signed_distance(read_mesh(path, argument).mesh)
    return lambda points: sample(grid.to(points), points)[0]


def places_in_ball(size: int = 49) -> Float[Tensor, "places 3"]:
    """The vertices of a grid of the cube that lie in the ball that is rendered."""
    places = vertices(size).view(-1, 3)
    return places[places.norm(dim=1) <= 1]
