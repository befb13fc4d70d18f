"""Two texts that come piece by piece, side by side: rows are written once, from top to bottom. Pure.

A row is ready as soon as neither side can change it any more, so that nothing needs to be drawn again.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

from rich.cells import cell_len

GAP = "  "


@dataclass
class Column:
    """One text, wrapped at words to `width` cells as it comes."""

    width: int
    lines: list[str] = field(default_factory=list)
    """Lines that will not change."""
    rest: str = ""
    ended: bool = False

    def add(self, text: str) -> None:
        """Take in a piece."""
        *whole, last = wrap(self.rest + text, self.width)
        self.lines += whole
        self.rest = last

    def end(self) -> None:
        """No more comes."""
        if not self.ended:
            self.lines += [self.rest] if self.rest else []
            self.rest, self.ended = "", True


@dataclass
class Columns:
    """Columns beside each other; `take` gives the rows that are ready."""

    columns: Sequence[Column]
    told: int = 0

    def take(self) -> list[str]:
        """The rows that were not given yet and will not change."""
        open_ones = [len(c.lines) for c in self.columns if not c.ended]
        ready = min(open_ones) if open_ones else max(len(c.lines) for c in self.columns)
        rows = [self._row(i) for i in range(self.told, ready)]
        self.told = max(self.told, ready)
        return rows

    def _row(self, index: int) -> str:
        cells = [c.lines[index] if index < len(c.lines) else "" for c in self.columns]
        padded = [
            cell + " " * max(0, column.width - cell_len(cell))
            for cell, column in zip(cells, self.columns, strict=True)
        ]
        return GAP.join(padded).rstrip()


def wrap(text: str, width: int) -> list[str]:
    """Lines of at most `width` cells, broken at spaces where there are some; at least one line.

    What stands after the last break is the last line: more text may still go on with it.
    """
    lines: list[str] = []
    for paragraph in text.expandtabs(4).split("\n"):
        lines += _wrap_paragraph(paragraph, width)
    return lines


def _wrap_paragraph(text: str, width: int) -> list[str]:
    lines: list[str] = []
    line = ""
    used = 0
    for character in text:
        cells = cell_len(character)
        if used + cells > width and line:
            head, space, tail = line.rpartition(" ")
            if character == " ":
                lines.append(line)
                line, used = "", 0
                continue
            if space and head.strip():
                lines.append(head)
                line, used = tail, cell_len(tail)
            else:
                lines.append(line)
                line, used = "", 0
        line += character
        used += cells
    return [*lines, line]
