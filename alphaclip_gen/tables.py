"""Tables of texts, for a terminal and as Markdown."""

from collections.abc import Mapping, Sequence
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
        lines = [self.heads, ("---",) * len(self.heads), *self.rows]
        body = "\n".join(f"| {' | '.join(line)} |" for line in lines)
        return f"## {self.title}\n\n{body}\n\n"


def page(sheets: Sequence[Sheet], note: str) -> str:
    """All tables, and what is said below them."""
    return "".join([*(sheet.markdown() for sheet in sheets), note, "\n"])


def ratio_cells(row: Mapping[str, Any], digits: int) -> tuple[str, str]:
    """A row's ratio, and its quartiles: what `measuring.Against` holds."""
    ratio, low, high = (f"{row[name]:.{digits}f}" for name in ("ratio", "low", "high"))
    return ratio, f"{low} to {high}"
