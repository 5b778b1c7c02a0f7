"""What users enter into widgets: lines, points and boxes. Errors name the widgets."""

import re

Box = tuple[float, float, float, float]

PIXELS_MEANT = "Choose unit 'pixels' for pixels."
FRACTIONS_MEANT = "Choose unit 'fractions' for shares of the picture."


def lines_of(text: str) -> list[str]:
    """The lines of a text box, blank ones left out."""
    return [line.strip() for line in text.splitlines() if line.strip()]


def points_of(text: str, unit: str) -> list[tuple[float, float]]:
    """The points (x, y) of a text box, one a line or between semicolons.

    Raises:
        ValueError: a line is no two numbers, there is none, or a fraction is above 1.
    """
    points = []
    for part in lines_of(text.replace(";", "\n")):
        numbers = [word for word in re.split(r"[\s,]+", part.strip("()[] ")) if word]
        try:
            x, y = (float(number) for number in numbers)
        except ValueError as error:
            raise ValueError(
                f"points has {part!r}; expected two numbers, x and y: '0.5, 0.25'."
            ) from error
        if unit == "fractions" and max(x, y) > 1:
            raise ValueError(f"points has {part!r}; expected fractions, 0 to 1. {PIXELS_MEANT}")
        points.append((x, y))
    if not points:
        raise ValueError("points is empty; expected one point a line: '0.5, 0.25'.")
    return points


def box_of(
    left: float, top: float, right: float, bottom: float, unit: str, size: tuple[int, int]
) -> Box:
    """The box of four widgets, on a picture of (height, width).

    Raises:
        ValueError: it has no area, or leaves the picture.
    """
    _check_sides("left", left, "right", right, unit, size[1])
    _check_sides("top", top, "bottom", bottom, unit, size[0])
    return left, top, right, bottom


def _check_sides(first: str, low: float, second: str, high: float, unit: str, pixels: int) -> None:
    here = f"{first} is {low:g} and {second} {high:g} in {unit}"
    if high <= low:
        raise ValueError(
            f"{here}; expected {first} below {second}. Both are places on the picture: {second} is "
            f"no width or height."
        )
    if unit == "fractions" and high > 1:
        raise ValueError(f"{here}; expected 0 to 1. {PIXELS_MEANT}")
    if unit == "pixels" and high > pixels:
        raise ValueError(f"{here}; expected 0 to {pixels}, the picture's side.")
    if unit == "pixels" and high - low < 1:
        raise ValueError(f"{here}; expected at least one pixel between. {FRACTIONS_MEANT}")
