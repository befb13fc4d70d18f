"""Batches of the stages that learn from answers somebody has judged: tensors of rows × tokens, padded on the right."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from core.train.data.examples import Pair, Tagged, Tokens


class PairCollator:
    """Makes 2 × n rows of n pairs: all chosen answers, then all rejected ones, each after its prompt."""

    def __init__(self, pad_id: int, multiple: int = 1) -> None:
        self._pad = pad_id
        self._multiple = multiple

    def __call__(self, batch: Sequence[Pair]) -> dict[str, Any]:
        """Tensors input_ids, attention_mask and completion_mask (1 where the answer is), int64."""
        rows = [(pair.prompt, pair.chosen) for pair in batch]
        rows += [(pair.prompt, pair.rejected) for pair in batch]
        return answered(rows, self._pad, self._multiple)


class TaggedCollator:
    """Makes a batch of answers that are good or bad."""

    def __init__(self, pad_id: int, multiple: int = 1) -> None:
        self._pad = pad_id
        self._multiple = multiple

    def __call__(self, batch: Sequence[Tagged]) -> dict[str, Any]:
        """Tensors as PairCollator's, label (bool, one a row), and `rows`: the examples themselves."""
        import torch

        made = answered([(row.prompt, row.answer) for row in batch], self._pad, self._multiple)
        return made | {"label": torch.tensor([row.good for row in batch]), "rows": list(batch)}

    def mismatched(
        self, rows: Sequence[Tagged], answers: Sequence[Tokens], most: int
    ) -> dict[str, Any]:
        """The prompts of `rows` with the `answers` of others, cut to `most` tokens: tensors as PairCollator's."""
        pairs = [(row.prompt, answer) for row, answer in zip(rows, answers, strict=True)]
        cut = [(prompt, answer[: max(1, most - len(prompt))]) for prompt, answer in pairs]
        return answered(cut, self._pad, self._multiple)


def answered(rows: Sequence[tuple[Tokens, Tokens]], pad_id: int, multiple: int) -> dict[str, Any]:
    """A prompt and an answer a row, padded to the longest (to a multiple of so many tokens)."""
    import torch

    longest = max(len(prompt) + len(answer) for prompt, answer in rows)
    shape = len(rows), -(-longest // multiple) * multiple
    ids = np.full(shape, pad_id, dtype=np.int64)
    seen, learnt = np.zeros(shape, dtype=np.int64), np.zeros(shape, dtype=np.int64)
    for row, (prompt, answer) in enumerate(rows):
        start, end = len(prompt), len(prompt) + len(answer)
        ids[row, :start], ids[row, start:end] = prompt, answer
        seen[row, :end] = learnt[row, start:end] = 1
    return {
        "input_ids": torch.from_numpy(ids),
        "attention_mask": torch.from_numpy(seen),
        "completion_mask": torch.from_numpy(learnt),
    }
