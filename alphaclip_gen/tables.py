"""Tables of texts, for a terminal and as Markdown."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from rich.table import Table


class Sheet(NamedTuple):
    """A table of texts."""

    title: str
    heads: tuple[str, ...]
    rows: list[tuple[str, ...]]

    def printed(self) -> Table:
        """For rich's console."""
        table = Table(title=self.title)
        for head in self.heads:
            table.add_column(head)
        for row in self.rows:
            table.add_row(*row)
        return table

    def markdown(self) -> str:
        """A section of a page."""
        return f"## {self.title}\n\n{markdown_table(self.heads, self.rows)}\n"


def markdown_table(heads: Sequence[str], rows: Iterable[Iterable[object]]) -> str:
    """The table alone, in Markdown."""
    lines = [heads, ["---"] * len(heads), *rows]
    cells = [[str(cell).replace("|", "\\|") for cell in line] for line in lines]
    return "".join(f"| {' | '.join(line)} |\n" for line in cells)


def page(sheets: Sequence[Sheet], note: str) -> str:
    """All tables, and what is said below them."""
    return "".join([*(sheet.markdown() for sheet in sheets), note, "\n"])


def ratio_cells(row: Mapping[str, Any], digits: int) -> tuple[str, str]:
    """A row's ratio, and its quartiles: what `measuring.Against` holds."""
    ratio, low, high = (f"{row[name]:.{digits}f}" for name in ("ratio", "low", "high"))
    return ratio, f"{low} to {high}"
