"""Tables for output that is no dashboard. Pure."""

from collections.abc import Sequence

from rich.cells import cell_len


def table(headers: Sequence[str], rows: Sequence[Sequence[str]], right: Sequence[int] = ()) -> str:
    """A plain table; columns whose number is in `right` are right-aligned, an empty cell is "-".

    Lines carry no trailing spaces; the last column stays empty where it has nothing.
    """
    last = len(headers) - 1
    filled = [[c or ("" if i == last else "-") for i, c in enumerate(row)] for row in rows]
    widths = [max(map(cell_len, column)) for column in zip(headers, *filled, strict=True)]

    def line(cells: Sequence[str]) -> str:
        padded = []
        for i, (cell, width) in enumerate(zip(cells, widths, strict=True)):
            gap = " " * (width - cell_len(cell))
            padded.append(gap + cell if i in right else cell + gap)
        return "  ".join(padded).rstrip()

    return "\n".join([line(headers), *map(line, filled)])
