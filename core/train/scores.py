"""What an evaluation adds up, batch by batch."""

import math
from typing import Any

from core.train.data.examples import IGNORED
from core.train.distributed.ranks import Ranks


class Scores:
    """The loss and the hits of the batches so far.

    A hit is a token to be learnt to which the model gives the highest score. Hits are read off the scores that the
    loss was computed from, which takes one number a token beside them.
    """

    def __init__(self, *, perplexity: bool = False) -> None:
        """With `perplexity` the metrics tell that too."""
        self._perplexity = perplexity
        self._loss = 0.0
        self._tokens = 0
        self._hits: int | None = 0

    def add(self, outputs: Any, labels: Any) -> None:
        """Add a batch: what the model returned for it, its loss a mean over the learnt tokens, and the labels, rows ×
        tokens."""
        learnt = int((labels[:, 1:] != IGNORED).sum())
        if learnt == 0:
            # The mean of nothing is no number.
            return
        self._loss += float(outputs.loss) * learnt
        self._tokens += learnt
        hits = _hits(outputs, labels)
        self._hits = None if self._hits is None or hits is None else self._hits + hits

    def add_up(self, ranks: Ranks) -> None:
        """Take in what the other ranks have added. A collective."""
        unread = self._hits is None
        sums = ranks.total([self._loss, self._tokens, self._hits or 0, unread])
        self._loss, self._tokens = sums[0], int(sums[1])
        self._hits = None if sums[3] else int(sums[2])

    def metrics(self) -> dict[str, float]:
        """eval_loss, nats a token, and eval_accuracy, where the model's scores could be read; eval_perplexity, which
        is e to the loss, where it was asked for."""
        metrics = {"eval_loss": self._loss / self._tokens}
        if self._perplexity:
            metrics["eval_perplexity"] = perplexity_of(metrics["eval_loss"])
        if self._hits is not None:
            metrics["eval_accuracy"] = self._hits / self._tokens
        return metrics


def perplexity_of(loss: float) -> float:
    """e to the loss, nats a token; infinite where that is too large a number."""
    try:
        return math.exp(loss)
    except OverflowError:
        return math.inf


def _hits(outputs: Any, labels: Any) -> int | None:
    counted = getattr(outputs, "hits", None)
    if counted is not None:
        return int(counted)
    scores = getattr(outputs, "logits", None)
    if scores is None or scores.shape[:-1] != labels.shape:
        return None
    # The best of all positions first: a part of the scores would have to be copied.
    best = scores.argmax(-1)[:, :-1]
    wanted = labels[:, 1:].to(best.device)
    return int(((best == wanted) & (wanted != IGNORED)).sum())
