"""Which trials are shown and in what order."""

import math
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from tui import words
from tui.snapshot import TrialRow

_TERM = re.compile(r"^([a-z_]+)(:|=|<=|>=|<|>)(.+)$")
_STATE = ("state", "status")
_MEASURES: dict[str, Callable[[TrialRow], float | None]] = {
    "loss": lambda row: row.loss,
    "eval_loss": lambda row: row.eval_loss,
    "eval": lambda row: row.eval_loss,
    "value": lambda row: row.value,
    "step": lambda row: row.step,
    "number": lambda row: row.number,
    "place": lambda row: row.place,
    "rung": lambda row: len(row.trial.rungs),
    "parent": lambda row: row.trial.parent,
    "memory": lambda row: None if row.peak_memory is None else row.peak_memory / words.GIB,
}
HELP = "words, state:dropped, learning_rate>1e-4, loss<2, source:portfolio"


def matches(row: TrialRow, query: str) -> bool:
    """Whether a trial matches every word of `query`.

    A word is a text to find, `key:text`, or `key<number` with <, >, <=, >= or =. A key is `state`,
    `kind`, `source`, `loss`, `eval_loss`, `value` (of what the study ranks by), `step`, `memory` (GiB), `place`,
    `rung` (how many it came to), `parent`, or a parameter's name.
    """
    return all(_word_matches(row, word) for word in query.lower().split())


def _word_matches(row: TrialRow, word: str) -> bool:
    if word[-1] in ":=<>":
        # Still being typed: everything may match yet.
        return True
    term = _TERM.match(word)
    if term is None:
        return word.lstrip("#") in _haystack(row)
    key, sign, wanted = term.groups()
    value = _value(row, key)
    if value is None:
        return False
    bound = _float(wanted)
    if sign in (":", "="):
        number = _float(value)
        same = number is not None and number == bound
        return same or (sign == ":" and wanted in value) or wanted == value
    number = _float(value)
    if bound is None or number is None:
        return False
    return {
        "<": number < bound,
        ">": number > bound,
        "<=": number <= bound,
        ">=": number >= bound,
    }[sign]


def _value(row: TrialRow, key: str) -> str | None:
    trial = row.trial
    if key in _STATE:
        return _state_text(row)
    if key in ("kind", "source"):
        return str(getattr(trial, key))
    if key in _MEASURES:
        measure = _MEASURES[key](row)
        return None if measure is None else repr(float(measure))
    for name, value in trial.changes.items():
        if key in (name, words.title(name)):
            return str(value).lower()
    return None


def _state_text(row: TrialRow) -> str:
    """Every word that a state may be asked for by."""
    trial = row.trial
    stalled = f" {words.STALLED.word}" if trial.live and trial.stalled else ""
    return f"{trial.status} {words.LOOKS[trial.status].word}{stalled}"


def _float(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


def _haystack(row: TrialRow) -> str:
    trial = row.trial
    settings = " ".join(f"{k} {words.setting(v)}" for k, v in trial.changes.items())
    parts = (f"{trial.number}", _state_text(row), trial.kind, trial.source, settings)
    return " ".join((*parts, trial.reason)).lower()


@dataclass(frozen=True, slots=True)
class Order:
    """How the trials are sorted: by a column's key, and which end first."""

    key: str = "number"
    descending: bool = False


_STATE_ORDER = {status: place for place, status in enumerate(words.LOOKS)}
_LIVE_FIRST = ("running", "starting", "pausing", "stopping", "rung", "paused", "queued")


def arrange(rows: Iterable[TrialRow], query: str, order: Order) -> list[TrialRow]:
    """The rows that match, in order; those without a value come last either way."""
    kept = [row for row in rows if not query or matches(row, query)]
    if order == Order():
        return kept
    known = [(sort_value(row, order.key), row) for row in kept]
    with_value = [(v, r) for v, r in known if v is not None]
    numbers = [(v, r) for v, r in with_value if isinstance(v, float)]
    texts = [(v, r) for v, r in with_value if isinstance(v, str)]
    numbers.sort(key=lambda pair: (pair[0], pair[1].number), reverse=order.descending)
    texts.sort(key=lambda pair: (pair[0], pair[1].number), reverse=order.descending)
    rest = [r for v, r in known if v is None]
    return [r for _, r in numbers] + [r for _, r in texts] + rest


def sort_value(row: TrialRow, key: str) -> float | str | None:
    """What a trial is sorted by in the column `key`; None where it has nothing there."""
    match key:
        case "number":
            return float(row.number)
        case "state":
            live = _LIVE_FIRST.index(row.status) if row.status in _LIVE_FIRST else None
            return float(_STATE_ORDER[row.status] + 100 if live is None else live)
        case "progress":
            return row.progress
        case "loss":
            return _finite(row.loss)
        case "eval_loss":
            return _finite(row.eval_loss)
        case "value":
            return _finite(row.value)
        case "memory":
            return None if row.peak_memory is None else float(row.peak_memory)
        case "eta":
            return row.eta
        case "settings":
            return words.settings_line(row.trial.settings) or None
        case _:
            value = row.trial.changes.get(key)
            if value is None:
                return None
            if isinstance(value, bool | str):
                return str(value)
            return float(value)


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None
