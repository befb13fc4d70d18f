"""A causal language model as PPO uses it: it draws answers, and says how likely each of their tokens is.

Prompts are padded on the left and answers on the right, so that all answers of a batch begin in the same column.
"""

import inspect
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch

from core.params import GenerationTable

_SHARES = ("dropout", "attention_dropout", "attn_dropout", "activation_dropout", "hidden_dropout")
"""What transformers' modules call the share that they drop."""


@dataclass(frozen=True, slots=True)
class Turns:
    """Prompts and answers to them: four tensors of int64, rows × tokens. A mask is 1 where there is a token."""

    prompts: Any
    prompt_mask: Any
    answers: Any
    mask: Any

    @property
    def ids(self) -> Any:
        """Rows × (prompt and answer)."""
        return torch.cat([self.prompts, self.answers], 1)

    @property
    def attention_mask(self) -> Any:
        """Of the same shape."""
        return torch.cat([self.prompt_mask, self.mask], 1)


@dataclass(frozen=True, slots=True)
class Read:
    """What a model says of answers: rows × tokens, float, of no meaning outside the mask."""

    logprobs: Any
    """Of the tokens as they are, nats."""
    entropy: Any
    """Of what might have stood there, nats; without a gradient."""
    hidden: Any
    """Rows × tokens × hidden: what each token was predicted from."""


def causal_of(model: Any) -> Any:
    """The causal language model itself, with adapters in its layers where it has some."""
    return model.get_base_model() if hasattr(model, "peft_config") else model


def read(causal: Any, turns: Turns, temperature: float) -> Read:
    """Read answers with a causal language model of transformers; its scores are divided by `temperature` first, as they
    are where answers are drawn: the policy that learns is the one that draws."""
    width = turns.answers.shape[1]
    mask = turns.attention_mask
    given: dict[str, Any] = {"attention_mask": mask, "use_cache": False}
    takes = inspect.signature(type(causal).forward).parameters
    if "position_ids" in takes:
        given["position_ids"] = (mask.cumsum(1) - 1).clamp(min=0)
    if "logits_to_keep" in takes:
        # The scores of the prompt over the whole vocabulary are of no use, and are the most of them.
        given["logits_to_keep"] = width + 1
    with _hidden_states(causal) as seen:
        logits = causal(input_ids=turns.ids, **given).logits
    logits = logits[:, -width - 1 : -1].float()
    if temperature != 1:
        logits = logits / temperature
    logprobs = torch.log_softmax(logits, -1)
    # They are as large as all else together: no copy is held that is not needed.
    del logits
    entropy = torch.stack([-(row.exp() * row).sum(-1) for row in logprobs.detach()])
    said = logprobs.gather(-1, turns.answers.unsqueeze(-1)).squeeze(-1)
    return Read(said, entropy, seen[0][:, -width - 1 : -1])


@contextmanager
def _hidden_states(causal: Any) -> Iterator[list[Any]]:
    """What the head of the model is given meanwhile."""
    seen: list[Any] = []
    hook = causal.get_output_embeddings().register_forward_pre_hook(
        lambda module, inputs: seen.append(inputs[0])
    )
    try:
        yield seen
    finally:
        hook.remove()


def draw(
    causal: Any,
    prompts: Any,
    prompt_mask: Any,
    sampling: GenerationTable,
    ends: Sequence[int],
    pad: int,
) -> Turns:
    """Answers to prompts (rows × tokens, padded on the left), drawn with the global random state.

    An answer ends with the first of the tokens `ends`, which belongs to it, or after sampling.max_new_tokens.
    """
    own = causal.generation_config
    # What a model's own generation_config.json asks for (a top_k, a repetition penalty) would be taken for all that
    # is not said here.
    causal.generation_config = _generation(sampling, ends, pad)
    try:
        drawn = causal.generate(inputs=prompts, attention_mask=prompt_mask)
    finally:
        causal.generation_config = own
    answers = drawn[:, prompts.shape[1] :]
    ended = torch.isin(answers, torch.tensor(list(ends), device=answers.device)).long()
    mask = (ended.cumsum(1) - ended == 0).long()
    return Turns(prompts, prompt_mask, answers * mask + pad * (1 - mask), mask)


def _generation(sampling: GenerationTable, ends: Sequence[int], pad: int) -> Any:
    from transformers import GenerationConfig

    return GenerationConfig(
        do_sample=True,
        max_new_tokens=sampling.max_new_tokens,
        temperature=sampling.temperature,
        top_p=sampling.top_p,
        top_k=sampling.top_k,
        eos_token_id=list(ends),
        pad_token_id=pad,
        use_cache=True,
    )


def without_dropout(model: Any) -> Any:
    """The model with all of its own dropout off: what an answer is drawn with and what learns from it must be the same,
    and a reward must not depend on chance (as in TRL)."""
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
        for name, value in list(vars(module).items()):
            # Attention and some layers are given their share, and have no module for it.
            if name in _SHARES and isinstance(value, float):
                setattr(module, name, 0.0)
    return model
