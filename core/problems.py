"""One thing that is wrong with a profile, and how it is told."""

import re
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong: the key (`table.name`), what is wrong, what would be right, and the line if known."""

    key: str
    wrong: str
    right: str = ""
    line: int | None = None

    def __str__(self) -> str:
        where = f"line {self.line}: " if self.line else ""
        right = f" ({self.right})" if self.right else ""
        return f"{where}{self.key}: {self.wrong}{right}"


def line_of(text: str, key: str) -> int | None:
    """The line of `text` (from 1) on which the key `table.name` of a TOML document stands, or None."""
    table, _, name = key.partition(".")
    if table == "search" and name.startswith("space."):
        table, name = "search.space", name.removeprefix("space.")
    current = ""
    for number, line in enumerate(text.splitlines(), 1):
        header = re.match(r"\s*\[\s*([\w.\-]+)\s*\]", line)
        if header:
            current = header.group(1)
            if current == key:
                return number
        elif current == table and re.match(rf"\s*[\"']?{re.escape(name)}[\"']?\s*=", line):
            return number
    return None


def did_you_mean(names: tuple[str, ...]) -> str:
    return f"did you mean {' or '.join(names)}?" if names else ""
