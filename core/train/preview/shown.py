"""Examples as a person looks at them: token ids become text again, in parts, each token marked where loss counts it."""

from collections.abc import Mapping
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from core.rows import AnyRow
from core.study.preview import Kind, Part, Shown
from core.train.data.examples import IGNORED, AnyExample, Example, Pair, Prompt, Tagged, Tokens
from core.train.preview.examine import loss_count
from core.train.preview.pieces import Speller


class Picture:
    """Makes examples visible with one tokenizer."""

    def __init__(self, tokenizer: Any) -> None:
        """`tokenizer` is one of transformers."""
        self._speller = Speller(tokenizer)

    def shown(
        self,
        row: AnyRow,
        whole: AnyExample,
        cut: AnyExample,
        *,
        evaluation: bool = False,
        why: Kind | None = None,
    ) -> Shown:
        """A row: `whole` is its example without a cut-off, `cut` as it is trained on. One that the training leaves out
        is shown as far as cutoff_len allows."""
        seen = whole if isinstance(cut, Prompt) and not cut.size else cut
        return Shown(
            place=sayable(row.place),
            parts=self._parts(seen),
            size=seen.size,
            learnt=loss_count(cut),
            lost=whole.size - seen.size,
            used=cut.learnt > 0,
            evaluation=evaluation,
            why=why,
        )

    def packed(self, block: Example, name: str, places: Mapping[bytes, str]) -> Shown:
        """A packed sequence, a part for each row in it; `places` has rows by their token ids."""
        borders = [*block.starts, block.size]
        spans = list(pairwise(borders))
        parts = []
        for at, (start, end) in enumerate(spans, 1):
            ids, labels = block.ids[start:end], block.labels[start:end]
            place = sayable(places.get(ids.tobytes(), ""))
            title = f"row {at} of {len(spans)}" if place or len(spans) > 1 else ""
            parts.append(self._part(title, ids, labels != IGNORED, place))
        return Shown(
            place=name,
            parts=tuple(parts),
            size=block.size,
            learnt=block.learnt,
        )

    def _parts(self, example: AnyExample) -> tuple[Part, ...]:
        match example:
            case Example(ids, labels):
                return (self._part("", ids, labels != IGNORED),)
            case Pair(prompt, chosen, rejected):
                return (
                    self._unlearnt("prompt", prompt),
                    self._learnt("chosen", chosen),
                    self._learnt("rejected", rejected),
                )
            case Tagged(prompt, answer, good):
                tag = "good" if good else "bad"
                return (self._unlearnt("prompt", prompt), self._learnt(f"answer, {tag}", answer))
            case Prompt(ids):
                return (self._unlearnt("prompt", ids),)

    def _learnt(self, title: str, ids: Tokens) -> Part:
        return self._part(title, ids, np.ones(len(ids), dtype=bool))

    def _unlearnt(self, title: str, ids: Tokens) -> Part:
        return self._part(title, ids, np.zeros(len(ids), dtype=bool))

    def _part(self, title: str, ids: Tokens, learnt: NDArray[np.bool_], place: str = "") -> Part:
        pieces = self._speller.pieces(ids.tolist(), learnt.tolist())
        return Part(title, pieces, place)


def sayable(text: str) -> str:
    """Text that can be written as UTF-8: names of files may hold bytes that are none."""
    return text.encode("utf-8", "replace").decode()
