"""Where an answer stands in the text of its conversation, and which tokens are its own."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from core.rows import Turn

Span = tuple[int, int]
"""The first character, and the one after the last."""


def answers(turns: Sequence[Turn]) -> list[int]:
    """Which turns are the assistant's."""
    return [i for i, turn in enumerate(turns) if turn.role == "assistant"]


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer to be found in the text of its conversation."""

    words: str
    after: int
    """Where what comes before it ends."""
    through: str | None
    """The text up to the end of its turn, as it is rendered without later turns; None where that cannot be."""
    exact: bool
    """Whether the answer begins at `after`, whatever the template puts there; else it begins with its words."""

    def span(self, text: str) -> Span | None:
        """From its first character to its end-of-turn marker; None: it is not found."""
        at, words = self._find(text)
        if at < 0 and not self.exact:
            return None
        begins = self.exact or not text[self.after : at].strip()
        start = self.after if begins else at
        spoken = at + len(words) if at >= 0 else start
        through = self.through
        if through is not None and text.startswith(through) and len(through) >= spoken:
            closing = text[spoken : len(through)]
        else:
            closing = _closing(text, spoken, through, words) if at >= 0 else ""
        return (start, spoken + len(closing.rstrip()))

    def _find(self, text: str) -> tuple[int, str]:
        """Where the words stand, as they are or trimmed; -1 where they do not."""
        for words in (self.words, self.words.strip()):
            at = text.find(words, self.after)
            if at >= 0:
                return at, words
        return -1, self.words


def after_question(text: str, turns: Sequence[Turn], start: int) -> int:
    """Where the turns between the last answer and this one end in `text`, as far as they are found from `start` on."""
    last = max(answers(turns), default=-1)
    for turn in turns[last + 1 :]:
        words = turn.text.strip()
        at = text.find(words, start)
        if at >= 0:
            start = at + len(words)
    return start


def inside(offsets: NDArray[np.int64], spans: Sequence[Span], text: str) -> NDArray[np.bool_]:
    """Which tokens (of the offsets, tokens × [start, end)) belong to an answer. One that reaches over its border does
    if that adds only white space: many tokenizers join a word with the space before it."""
    starts, ends = offsets[:, 0], offsets[:, 1]
    within = np.zeros(len(offsets), dtype=bool)
    for start, end in spans:
        low = len(text[:start].rstrip())
        high = end + len(text[end:]) - len(text[end:].lstrip())
        touches = ((ends > start) | (starts >= start)) & (starts < end)
        within |= touches & (starts >= low) & (ends <= high)
    return within


def _closing(text: str, end: int, through: str | None, words: str) -> str:
    """The end-of-turn marker that follows the answer, read off the text that ends with this turn."""
    if through is None or words not in through:
        return ""
    closing = through[through.rindex(words) + len(words) :]
    return closing if text.startswith(closing, end) else ""
