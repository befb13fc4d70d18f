"""A row of the data as the model sees it: one kind of example for each kind of stage."""

from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

IGNORED = -100
"""The label of a token that is not learnt (PyTorch's cross_entropy ignores it)."""

Tokens = NDArray[np.int32]


@dataclass(frozen=True, slots=True)
class Example:
    """A row of stages pt and sft: token ids and, of the same length, labels (`IGNORED` where nothing is learnt)."""

    ids: Tokens
    labels: Tokens
    starts: tuple[int, ...] = (0,)
    """Where the rows begin that are packed into this one and are not to see each other; (0,) for one alone."""

    @property
    def size(self) -> int:
        """Tokens of the row: what it takes of a batch's width."""
        return len(self.ids)

    @property
    def tokens(self) -> int:
        """Tokens that one pass over it computes, padding left out."""
        return len(self.ids)

    @property
    def largest(self) -> int:
        """The largest token id in it."""
        return int(self.ids.max())

    @property
    def learnt(self) -> int:
        """How many tokens are learnt; the first token never is, as nothing predicts it."""
        return int((self.labels[1:] != IGNORED).sum())


@dataclass(frozen=True, slots=True)
class Pair:
    """A row of stages rm and dpo: a prompt and two answers to it, the better one chosen. An answer ends with the token
    that ends a turn, unless it was cut; prompt and answer together have at most cutoff_len tokens."""

    prompt: Tokens
    chosen: Tokens
    rejected: Tokens

    @property
    def size(self) -> int:
        """Tokens of the longer of the two rows that it becomes."""
        return len(self.prompt) + max(len(self.chosen), len(self.rejected))

    @property
    def tokens(self) -> int:
        """Tokens that one pass over it computes, padding left out."""
        return 2 * len(self.prompt) + len(self.chosen) + len(self.rejected)

    @property
    def largest(self) -> int:
        """The largest token id in it."""
        return max(int(ids.max()) for ids in (self.prompt, self.chosen, self.rejected) if len(ids))

    @property
    def learnt(self) -> int:
        """How many tokens are learnt: none where an answer is empty within cutoff_len, or both are the same there."""
        if not len(self.chosen) or not len(self.rejected):
            return 0
        if np.array_equal(self.chosen, self.rejected):
            return 0
        return len(self.chosen) + len(self.rejected)


@dataclass(frozen=True, slots=True)
class Tagged:
    """A row of stage kto: a prompt and an answer that somebody found good or bad."""

    prompt: Tokens
    answer: Tokens
    good: bool

    @property
    def size(self) -> int:
        """Tokens of the row."""
        return len(self.prompt) + len(self.answer)

    @property
    def tokens(self) -> int:
        """Tokens that one pass over it computes, padding left out."""
        return self.size

    @property
    def largest(self) -> int:
        """The largest token id in it."""
        return max(int(ids.max()) for ids in (self.prompt, self.answer) if len(ids))

    @property
    def learnt(self) -> int:
        """How many tokens are learnt."""
        return len(self.answer)


@dataclass(frozen=True, slots=True)
class Prompt:
    """A row of stage ppo: what the policy is to answer, up to where its answer begins. Empty where that is longer than
    cutoff_len: half a question is another question."""

    ids: Tokens

    @property
    def size(self) -> int:
        """Tokens of the prompt; its answer has up to generation.max_new_tokens more."""
        return len(self.ids)

    @property
    def tokens(self) -> int:
        """Tokens that one pass over it computes, padding left out."""
        return len(self.ids)

    @property
    def largest(self) -> int:
        """The largest token id in it."""
        return int(self.ids.max())

    @property
    def learnt(self) -> int:
        """1 for a prompt that is of use."""
        return int(len(self.ids) > 0)


AnyExample: TypeAlias = Example | Pair | Tagged | Prompt
