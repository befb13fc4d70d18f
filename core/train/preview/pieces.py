"""Token ids as the text that each of them stands for, for people to look at."""

from collections.abc import Callable, Sequence
from typing import Any

from core.study.preview import Piece

_UNFINISHED = "\ufffd"
"""What a decoder puts in the place of bytes that are no whole character."""
_MOST_TOGETHER = 12
"""Tokens that are held back at most until they make up whole characters: four bytes each of a joined emoji."""


class Speller:
    """Spells tokens of one tokenizer."""

    def __init__(self, tokenizer: Any) -> None:
        """`tokenizer` is one of transformers."""
        self.special = special_ids(tokenizer)
        self._decode = _decoder(tokenizer)

    def pieces(self, ids: Sequence[int], learnt: Sequence[bool]) -> tuple[Piece, ...]:
        """The tokens `ids` as pieces of text; joined, they are the text of all. `learnt` is as long as `ids`.

        What a token spells depends on those before it (a space at the beginning of a word, the bytes of a character),
        so that each is decoded behind the piece before it. Tokens that make up one character only together are one
        piece, unless the loss counts only some of them.
        """
        found: list[Piece] = []
        before = start = 0
        for end in range(1, len(ids) + 1):
            last = ids[end - 1]
            text = self._after(ids[before:start], ids[start:end])
            goes_on = end < len(ids) and learnt[end] == learnt[start]
            waits = text.endswith(_UNFINISHED) and goes_on and end - start < _MOST_TOGETHER
            if waits and last not in self.special and ids[end] not in self.special:
                continue
            # A special token between bytes that never become a character stands alone.
            found.append(
                Piece(text, tuple(ids[start:end]), bool(learnt[start]), last in self.special)
            )
            before, start = start, end
        return tuple(found)

    def text(self, ids: Sequence[int]) -> str:
        """The text of some tokens."""
        return self._decode(list(ids))

    def _after(self, before: Sequence[int], ids: Sequence[int]) -> str:
        """What `ids` add to the text of `before`."""
        known = self._decode(list(before)) if before else ""
        whole = self._decode([*before, *ids])
        return whole[len(known) :] if whole.startswith(known) else self._decode(list(ids))


def special_ids(tokenizer: Any) -> frozenset[int]:
    """The tokens of a tokenizer that mean something to the model that no text says."""
    return frozenset(tokenizer.all_special_ids) | {
        i for i, token in tokenizer.added_tokens_decoder.items() if token.special
    }


def _decoder(tokenizer: Any) -> Callable[[list[int]], str]:
    if tokenizer.is_fast:
        # Five times as quick as through transformers, and it is called twice a token.
        backend = tokenizer.backend_tokenizer
        return lambda ids: str(backend.decode(ids, skip_special_tokens=False))
    return lambda ids: str(
        tokenizer.decode(ids, skip_special_tokens=False, clean_up_tokenization_spaces=False)
    )
