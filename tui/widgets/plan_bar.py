"""The live summary under the form: batch, rows, steps, trials, what they cost together, and how they are chosen."""

from __future__ import annotations

from collections.abc import Sequence

from textual.strip import Strip

from tui import theme
from tui.ascii_text import ascii_text
from tui.plan import Plan
from tui.widgets.lines import LineWidget, Piece, line, shorten
from tui.words import duration, plural, times


class Part:
    """A label with its number, which stay together on a line; `short` takes the number's place where it has no room."""

    def __init__(self, label: str, value: str, colour: str = "text", short: str = "") -> None:
        self.label, self.value, self.colour, self.short = label, value, colour, short

    @property
    def width(self) -> int:
        return len(self.label) + len(self.value) + (1 if self.label else 0)

    def fitting(self, width: int) -> Part | None:
        """The part as it fits into `width` cells; None where it does not."""
        if self.width <= width:
            return self
        return Part(self.label, self.short, self.colour).fitting(width) if self.short else None

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
    parts += cost_parts(plan)
    if problems:
        parts.append(Part("", f"{plural(problems, 'problem')} (n)", "error"))
    return parts


def cost_parts(plan: Plan) -> list[Part]:
    """What the search costs, in full trainings and in time where that is known."""
    if plan.cost is None:
        return []
    parts = []
    if plan.expected is None or plan.expected >= 0.995 * plan.cost:
        parts.append(Part("together", f"{times(plan.cost)} full runs"))
    else:
        expected, most = times(plan.expected), times(plan.cost)
        saved = f"{expected} full trainings instead of {most}"
        parts.append(Part("≈", saved, "accent", short=f"{expected} of {most} full runs"))
    if plan.seconds is not None and plan.timed is not None:
        what = "GPU time" if plan.timed.on_gpu else "time"
        parts.append(Part(f"{what} ≈", f"{duration(plan.seconds)} (by {plan.timed.study})"))
    return parts


def choice_pieces(plan: Plan) -> list[Piece]:
    """How trials are chosen and stopped, and why."""
    if plan.choice is None:
        return []
    return [("search ", theme.style("muted")), (plan.choice.why, theme.style("secondary"))]


def flow(parts: Sequence[Part], width: int) -> list[Piece]:
    """As many parts as fit on a line of `width` cells, each whole; of the rest nothing."""
    pieces: list[Piece] = []
    used = 0
    for part in parts:
        gap = 3 if used else 0
        # The first is cut by the line's end rather than left out.
        shown = part.fitting(width - used - gap) or (None if used else part)
        if shown is None:
            continue
        pieces += [(" " * gap, theme.style("muted")), *shown.pieces()]
        used += gap + shown.width
    return pieces


class PlanBar(LineWidget):
    """Two lines, the run and the search; where something is searched a third one says how."""

    DEFAULT_CSS = """
    PlanBar { height: 2; width: 1fr; padding: 0 1; }
    PlanBar.-searched { height: 3; }
    """

    def __init__(self, *, ascii: bool = False, id: str | None = None) -> None:
        super().__init__(ascii=ascii, id=id)
        self._rows: tuple[list[Part], list[Part]] = ([], [])
        self._choice: list[Piece] = []

    def show(self, plan: Plan, problems: int) -> None:
        """Show these numbers from now on."""
        self._rows = (run_parts(plan), search_parts(plan, problems))
        self._choice = choice_pieces(plan)
        self.set_class(bool(self._choice), "-searched")
        self.sync()

    @property
    def text(self) -> str:
        """The lines as they are shown."""
        width = self.size.width
        lines = [flow(row, width) for row in self._rows]
        if self._choice:
            lines.append(shorten(self._choice, width, ascii=self.ascii))
        return "\n".join("".join(self._plain(text) for text, _ in each) for each in lines)

    def _plain(self, text: str) -> str:
        return ascii_text(text) if self.ascii else text

    def build_line(self, y: int, width: int) -> Strip:
        base = self.rich_style
        if y < len(self._rows):
            shown = flow(self._rows[y], width)
        elif y == len(self._rows) and self._choice:
            shown = shorten(self._choice, width, ascii=self.ascii)
        else:
            return Strip.blank(width, base)
        pieces = [(self._plain(text), base + style) for text, style in shown]
        return line(pieces, width, base)
