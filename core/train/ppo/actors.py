"""All who take part in a round of PPO: the policy with its value head, its reference, and the reward model."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from core.params import GenerationTable
from core.train.ppo.policy import Read, Turns, causal_of, draw, read
from core.train.ppo.reference import reference_of
from core.train.ppo.rollout import Drawn
from core.train.ppo.scoring import Scorer
from core.train.ppo.values import ValueHead


@dataclass(frozen=True, slots=True)
class Actors:
    """The models, and how answers are drawn."""

    model: Any
    """The policy, with its adapters where it has some."""
    head: ValueHead
    reference: Any
    """A causal language model of its own; None: the policy without its adapters."""
    scorer: Scorer
    sampling: GenerationTable
    ends: tuple[int, ...]
    """Tokens that end an answer."""
    pad: int

    def read(self, turns: Turns) -> tuple[Read, Any]:
        """What the policy says of answers, and the values of their tokens (rows × tokens); with gradients where they
        are wanted."""
        found = read(causal_of(self.model), turns, self.sampling.temperature)
        return found, self.head(found.hidden)

    def answer(self, prompts: Any, prompt_mask: Any) -> list[Drawn]:
        """Draw an answer to each prompt (rows × tokens, padded on the left) with the global random state, and have it
        scored and compared with the reference. The policy has to be in evaluation mode, without gradients."""
        turns = draw(
            causal_of(self.model), prompts, prompt_mask, self.sampling, self.ends, self.pad
        )
        found, values = self.read(turns)
        with reference_of(self.model, self.reference) as causal:
            before = read(causal, turns, self.sampling.temperature)
        asked = _rows(turns.prompts, turns.prompt_mask)
        said = _rows(turns.answers, turns.mask)
        scores = self.scorer.scores([torch.cat(both) for both in zip(asked, said, strict=True)])
        logprobs = _rows(found.logprobs, turns.mask)
        ratios = _rows(found.logprobs - before.logprobs, turns.mask)
        rows = asked, said, logprobs, ratios, _rows(values, turns.mask), scores.tolist()
        return [Drawn(*row) for row in zip(*rows, strict=True)]


def kl_of(answers: Sequence[Drawn]) -> list[float]:
    """How far each answer is from the reference, nats: the sum of log(policy / reference) over its tokens, whose mean
    over answers estimates the divergence."""
    return [float(a.log_ratios.sum()) for a in answers]


def _rows(values: Any, mask: Any) -> list[Any]:
    """Each row without its padding, on the host."""
    values, mask = values.float().cpu() if values.is_floating_point() else values.cpu(), mask.cpu()
    return [row[own.bool()] for row, own in zip(values, mask, strict=True)]
