"""Tables of texts, for a terminal and as Markdown."""

from typing import NamedTuple

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
