"""A memory fix as it is offered to a person: what to change, what it needs, what it costs. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from rich.text import Text

from core.values import Scalar
from tui import words
from tui.theme import COLOURS

if TYPE_CHECKING:
    from core.memory.fixes import Advice, Fix
    from core.memory.forecast import Forecast


@dataclass(frozen=True, slots=True)
class FixView:
    """One way out. Sizes are bytes."""

    text: str
    changes: Mapping[str, Scalar] = field(default_factory=dict)
    needed: int | None = None
    """What the device must have free for it, the process itself included; None where nothing says it."""
    headroom: int | None = None
    """What stays free."""
    slowdown: tuple[float, float] | None = None
    """Time per token as factors of what it is now, at least and at most."""
    source: str = ""
    """Where the slowdown's range comes from."""
    same_numbers: bool = True
    """Whether it computes what the profile as it stands would compute."""
    effect: str = ""
    """What it does to the result."""
    proven: bool = False
    forecast: "Forecast | None" = None
    """What is behind `needed`, where it is at hand."""


class Option(Protocol):
    """A fix as the journal has it."""

    @property
    def changes(self) -> Mapping[str, Scalar]: ...
    @property
    def text(self) -> str: ...
    @property
    def needed(self) -> int: ...
    @property
    def headroom(self) -> int: ...
    @property
    def slowdown(self) -> tuple[float, float]: ...
    @property
    def numerics(self) -> str: ...
    @property
    def effect(self) -> str: ...
    @property
    def proven(self) -> bool: ...
    @property
    def source(self) -> str: ...


def from_fix(fix: "Fix") -> FixView:
    """A fix as the search found it."""
    return FixView(
        text=fix.text,
        changes=fix.changes,
        needed=fix.forecast.total,
        headroom=fix.headroom,
        slowdown=fix.slowdown,
        source=fix.source,
        same_numbers=fix.numerics == "equivalent",
        effect=fix.effect,
        proven=fix.proven,
        forecast=fix.forecast,
    )


def from_option(option: Option) -> FixView:
    """A fix as a trial's journal has it."""
    return FixView(
        text=option.text,
        changes=option.changes,
        needed=option.needed,
        headroom=option.headroom,
        slowdown=option.slowdown,
        source=option.source,
        same_numbers=option.numerics == "equivalent",
        effect=option.effect,
        proven=option.proven,
    )


def headline(advice: "Advice", faster: "Fix | None") -> str:
    """What the search for fixes came to, in a sentence or two."""
    if advice.fits:
        sure = "" if advice.forecast.tier == "proof" else " by the estimate"
        lines = [
            f"It fits as it is{sure}",
            "Faster, and it fits as well:" if faster else "Nothing faster fits",
        ]
    else:
        lines = [advice.summary]
        if not advice.fixes:
            lines.append("Nothing that was tried fits: a smaller model, or a GPU with more memory")
    if advice.problem:
        lines.append(f"Not proven: {advice.problem}")
    return "\n".join(sentence(line) for line in lines if line)


def fix_lines(fix: FixView) -> list[Text]:
    """A fix in two or three lines: what to change; what it needs and costs; what it does to the result."""
    lines = [Text(_capital(fix.text), style=f"bold {COLOURS['text']}")]
    facts = _facts(fix)
    if facts.plain:
        lines.append(facts)
    effect = _effect(fix)
    if effect is not None:
        lines.append(effect)
    return lines


def _facts(fix: FixView) -> Text:
    line = Text(style=COLOURS["secondary"])
    if fix.needed is not None:
        line.append(f"needs {words.size(fix.needed)} (")
        line.append(
            *(("proven", COLOURS["success"]) if fix.proven else ("estimate", COLOURS["warning"]))
        )
        line.append(")")
        if fix.headroom is not None:
            line.append(f", {words.size(max(0, fix.headroom))} to spare")
    if fix.slowdown is not None:
        line.append("; " if line.plain else "")
        line.append(pace(fix.slowdown))
        if fix.source:
            line.append(f" ({fix.source})", COLOURS["muted"])
    return line


def _effect(fix: FixView) -> Text | None:
    if not fix.effect and fix.same_numbers:
        return None
    if fix.same_numbers:
        return Text(_capital(fix.effect), style=COLOURS["muted"])
    line = Text("Changes the result: ", style=COLOURS["warning"])
    return line.append(fix.effect or "it computes something else", COLOURS["text"])


def pace(slowdown: tuple[float, float]) -> str:
    """`15-40 % slower`, `at the same speed`, `5-10 % faster`: time per token against now."""
    low, high = (round(100 * (factor - 1)) for factor in slowdown)
    if low == high == 0:
        return "at the same speed"
    if low >= 0:
        return f"{_range(low, high)} slower" if low else f"up to {high} % slower"
    if high <= 0:
        return f"{_range(-high, -low)} faster" if high else f"up to {-low} % faster"
    return f"{-low} % faster to {high} % slower"


def _range(low: int, high: int) -> str:
    return f"{low} %" if low == high else f"{low}-{high} %"


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def sentence(text: str) -> str:
    """A text with a capital at its beginning and a stop at its end."""
    text = _capital(text.strip())
    return text + ("" if text.endswith((".", "!", "?", ":", ")")) else ".")
