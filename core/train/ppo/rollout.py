"""The answers of a round, what they earned, and how a checkpoint keeps them."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any

import torch

from core.params import AlignmentTable
from core.train.ppo.advantages import advantages, token_rewards, whiten


@dataclass(frozen=True, slots=True)
class Drawn:
    """An answer as it was drawn: tensors on the host, one number a token of it (but for the prompt)."""

    prompt: Any
    answer: Any
    logprobs: Any
    log_ratios: Any
    """log(policy / reference) of each token."""
    values: Any
    score: float
    """The reward model's."""


@dataclass(frozen=True, slots=True)
class Judged:
    """An answer to learn from."""

    prompt: Any
    answer: Any
    logprobs: Any
    values: Any
    advantages: Any
    returns: Any


@dataclass(slots=True)
class ScoreScale:
    """The running deviation of scores (Chan et al. 1979: counts, means and squares of two parts make those of both)."""

    count: int = 0
    mean: float = 0.0
    squares: float = 0.0

    def add(self, scores: Sequence[float]) -> None:
        """Take in scores."""
        count = len(scores)
        mean = sum(scores) / count
        squares = sum((score - mean) ** 2 for score in scores)
        total = self.count + count
        apart = mean - self.mean
        self.squares += squares + apart**2 * self.count * count / total
        self.mean += apart * count / total
        self.count = total

    @property
    def deviation(self) -> float:
        """Of all scores so far; 1 where they do not differ."""
        found = (self.squares / self.count) ** 0.5 if self.count else 0.0
        return found if found > 1e-6 else 1.0


def judge(
    drawn: Sequence[Drawn], table: AlignmentTable, kl_coef: float, scale: float
) -> list[Judged]:
    """What is to be learnt from the answers of a round; scores are divided by `scale` first.

    Advantages are whitened over the round, as TRL and the code of Ziegler et al. 2019 do over a batch.
    """
    mask = pad_right([torch.ones(len(d.answer)) for d in drawn])
    ratios, values = (pad_right([getattr(d, n) for d in drawn]) for n in ("log_ratios", "values"))
    scores = torch.tensor([d.score / scale for d in drawn])
    rewards = token_rewards(scores, ratios, mask, kl_coef)
    if table.ppo_whiten_rewards:
        rewards = whiten(rewards, mask, shift=False)
    found, returns = advantages(rewards, values, mask, table.ppo_gamma, table.ppo_lambda)
    found = whiten(found, mask)
    return [
        Judged(d.prompt, d.answer, d.logprobs, d.values, found[i, :n], returns[i, :n])
        for i, d in enumerate(drawn)
        for n in [len(d.answer)]
    ]


def batch_of(answers: Sequence[Judged], pad: int, multiple: int = 1) -> dict[str, Any]:
    """Tensors of some answers, rows × tokens: prompts padded on the left, all else on the right; together they are as
    wide as a multiple of so many tokens."""
    widest = max(len(a.prompt) for a in answers) + max(len(a.answer) for a in answers)
    spare = -widest % multiple
    batch = {
        "prompts": pad_left([a.prompt for a in answers], pad, spare),
        "prompt_mask": pad_left([torch.ones_like(a.prompt) for a in answers], 0, spare),
        "answers": pad_right([a.answer for a in answers], pad),
        "mask": pad_right([torch.ones_like(a.answer) for a in answers]),
    }
    for name in ("logprobs", "values", "advantages", "returns"):
        batch[name] = pad_right([getattr(a, name) for a in answers])
    return batch


def pad_left(rows: Sequence[Any], fill: int, spare: int = 0) -> Any:
    """Rows of different length as one tensor, rows × (the longest + `spare`)."""
    width = max(len(row) for row in rows) + spare
    return torch.stack([torch.nn.functional.pad(r, (width - len(r), 0), value=fill) for r in rows])


def pad_right(rows: Sequence[Any], fill: int = 0) -> Any:
    """Rows of different length as one tensor, rows × the longest."""
    return torch.nn.utils.rnn.pad_sequence(list(rows), batch_first=True, padding_value=fill)


def kept(answers: Mapping[int, Judged]) -> dict[int, dict[str, Any]]:
    """Answers by row, as a checkpoint holds them: plain containers of tensors."""
    # Rows of a tensor would bring all of it.
    return {
        row: {f.name: getattr(a, f.name).clone() for f in fields(a)} for row, a in answers.items()
    }


def taken_up(held: Mapping[int, Mapping[str, Any]]) -> dict[int, Judged]:
    """What `kept` was given."""
    return {row: Judged(**answer) for row, answer in held.items()}


def scale_kept(scale: ScoreScale) -> dict[str, float]:
    """A scale as a checkpoint holds it; `ScoreScale(**…)` takes it up."""
    return asdict(scale)
