"""The live summary under the form: batch, rows, steps, trials and what they cost together."""

from __future__ import annotations

from collections.abc import Sequence

from textual.strip import Strip

from tui import theme
from tui.ascii_text import ascii_text
from tui.plan import Plan
from tui.widgets.lines import LineWidget, Piece, line
from tui.words import plural


class Part:
    """A label with its number, which stay together on a line."""

    def __init__(self, label: str, value: str, colour: str = "text") -> None:
        self.label, self.value, self.colour = label, value, colour

    @property
    def width(self) -> int:
        return len(self.label) + len(self.value) + (1 if self.label else 0)

    def pieces(self) -> list[Piece]:
        label = [(f"{self.label} ", theme.style("muted"))] if self.label else []
        return [*label, (self.value, theme.style(self.colour))]


def run_parts(plan: Plan) -> list[Part]:
    """What one run is."""
    unknown = "?"
    batch = f"{plan.batch} = {plan.batch_parts}" if plan.batch else unknown
    parts = [Part("batch", batch, "bright")]
    if plan.counting is not None:
        parts.append(Part("", f"counting rows {plan.counting:.0%}", "warning"))
    if plan.train_rows is None:
        parts.append(Part("rows", unknown))
    else:
        aside = f" + {plan.eval_rows} eval" if plan.eval_rows and plan.eval_rows.high else ""
        parts.append(Part("rows", f"{plan.train_rows}{aside}"))
    parts.append(Part("steps/epoch", str(plan.epoch or unknown)))
    parts.append(Part("full run", f"{plan.full} steps" if plan.full else unknown))
    return parts


def search_parts(plan: Plan, problems: int) -> list[Part]:
    """What the search is."""
    parts = []
    if plan.trials is None:
        parts.append(Part("trials", "?"))
    elif plan.trials == 0:
        parts.append(Part("", "one training, nothing is searched", "muted"))
    else:
        of = (
            f" of {plan.possible:,} possible"
            if plan.possible and plan.possible > plan.trials
            else ""
        )
        parts.append(Part("trials", f"{plan.trials:,}{of}", "accent"))
        parts.append(Part("each", f"{plan.probe} steps" if plan.probe else "?"))
    if plan.cost is not None:
        parts.append(Part("together", f"{plan.cost:.3g} full runs"))
    if problems:
        parts.append(Part("", f"{plural(problems, 'problem')} (n)", "error"))
    return parts


def flow(parts: Sequence[Part], width: int) -> list[Piece]:
    """As many parts as fit on a line of `width` cells, each whole; of the rest nothing."""
    pieces: list[Piece] = []
    used = 0
    for part in parts:
        gap = 3 if used else 0
        if used + gap + part.width > width and used:
            continue
        pieces += [(" " * gap, theme.style("muted")), *part.pieces()]
        used += gap + part.width
    return pieces


class PlanBar(LineWidget):
    """Two lines: the run, and the search."""

    DEFAULT_CSS = "PlanBar { height: 2; width: 1fr; padding: 0 1; }"

    def __init__(self, *, ascii: bool = False, id: str | None = None) -> None:
        super().__init__(ascii=ascii, id=id)
        self._rows: tuple[list[Part], list[Part]] = ([], [])

    def show(self, plan: Plan, problems: int) -> None:
        """Show these numbers from now on."""
        self._rows = (run_parts(plan), search_parts(plan, problems))
        self.sync()

    @property
    def text(self) -> str:
        """The two lines as they are shown."""
        return "\n".join(
            "".join(self._plain(text) for text, _ in flow(row, self.size.width))
            for row in self._rows
        )

    def _plain(self, text: str) -> str:
        return ascii_text(text) if self.ascii else text

    def build_line(self, y: int, width: int) -> Strip:
        base = self.rich_style
        if y >= len(self._rows):
            return Strip.blank(width, base)
        pieces = [(self._plain(text), base + style) for text, style in flow(self._rows[y], width)]
        return line(pieces, width, base)
