"""What users type into text boxes: lines, and points."""

import re


def lines_of(text: str) -> list[str]:
    """The lines of a text box, blank ones left out."""
    return [line.strip() for line in text.splitlines() if line.strip()]


def points_of(text: str) -> list[tuple[float, float]]:
    """The points (x, y) of a text box, one a line or between semicolons.

    Raises:
        ValueError: a line is no two numbers, or there is none.
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
        points.append((x, y))
    if not points:
        raise ValueError("points is empty; expected one point a line: '0.5, 0.25'.")
    return points
