"""How a model answers: one token after the other, several models in turn, text as soon as it is certain.

The loop is ours, and the ways to draw a token are transformers' own. A `generate` call could neither be left between
two tokens for another model's turn nor draw from a generator of its own, so that answers with a seed would depend on
who else speaks.
"""

import inspect
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any, Literal

import msgspec

from core.study.after import Sampling, Who
from core.train.errors import ModelError, SettingsError, first_line

End = Literal["end", "length", "hushed"]
UNKNOWN_CHARACTER = "\ufffd"


@dataclass(frozen=True, slots=True)
class Speaker:
    """A model that answers. `asked` is entered around each of its steps: it switches adapters off, for the base."""

    model: Any
    asked: Callable[[], AbstractContextManager[Any]] = nullcontext


@dataclass(slots=True)
class Answer:
    """An answer under way."""

    who: Who
    steps: Iterator[int]
    speaker: Speaker
    text: "Text"
    began: float = field(default_factory=time.monotonic)
    tokens: int = 0
    end: End | None = None


class Text:
    """Turns tokens into text as they come; a character that takes several tokens comes with its last one."""

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        self._ids: list[int] = []
        self._from = 0
        """Where the tokens begin that are decoded together with new ones: what a token says depends on those before."""
        self._told = 0
        """Up to where tokens have been told."""

    def add(self, token: int) -> str:
        """The text that is certain now."""
        self._ids.append(token)
        before = self._decode(self._ids[self._from : self._told])
        now = self._decode(self._ids[self._from :])
        if now.endswith(UNKNOWN_CHARACTER) or len(now) <= len(before):
            return ""
        self._from, self._told = self._told, len(self._ids)
        return now[len(before) :]

    def rest(self) -> str:
        """What was held back."""
        before = self._decode(self._ids[self._from : self._told])
        return self._decode(self._ids[self._from :])[len(before) :]

    def whole(self) -> str:
        """All of it."""
        return self._decode(self._ids)

    def _decode(self, ids: Sequence[int]) -> str:
        return str(self._tokenizer.decode(ids, skip_special_tokens=True))


def converse(
    answers: Sequence[Answer],
    on_piece: Callable[[Answer, str], None],
    on_end: Callable[[Answer], None],
    hushed: Callable[[], bool],
) -> None:
    """Let all answers go on, a token each in turn, until each has ended; `hushed` is asked after every token."""
    left = list(answers)
    while left:
        for answer in list(left):
            if hushed():
                for each in left:
                    _finish(each, "hushed", on_piece, on_end)
                return
            with answer.speaker.asked():
                token = next(answer.steps, None)
            if token is None:
                _finish(answer, answer.end or "length", on_piece, on_end)
                left.remove(answer)
                continue
            answer.tokens += 1
            piece = answer.text.add(token)
            if piece:
                on_piece(answer, piece)


def tokens(
    speaker: Speaker,
    ids: Sequence[int],
    sampling: Sampling,
    ends: frozenset[int],
    on_end: Callable[[], None],
) -> Iterator[int]:
    """The tokens of an answer to the prompt `ids`, its end token left out; `on_end` is told that it came.

    Raises:
        ModelError: the model's scores are no numbers.
    """
    import torch

    model = speaker.model
    device = next(model.parameters()).device
    draw = _drawer(sampling, device)
    last_only = _keeps_last(model)
    everything = torch.tensor([list(ids)], device=device)
    fresh, cache = everything, None
    for _ in range(sampling.max_new_tokens or 256):
        with torch.inference_mode():
            said = model(input_ids=fresh, past_key_values=cache, use_cache=True, **last_only)
            scores = said.logits[:, -1, :].float()
            if not bool(scores.isfinite().any()) or bool(scores.isnan().any()):
                raise ModelError("the model's scores are no numbers (NaN): it diverged in training")
            chosen = draw(everything, scores)
        cache = said.past_key_values
        token = int(chosen)
        if token in ends:
            on_end()
            return
        yield token
        fresh = chosen.reshape(1, 1)
        everything = torch.cat([everything, fresh], dim=1)


def with_defaults(sampling: Sampling, default: Sampling) -> Sampling:
    """What is not said is as `default` has it."""
    own = msgspec.structs.asdict(sampling)
    return Sampling(**{k: getattr(default, k) if v is None else v for k, v in own.items()})


def prompt_ids(tokenizer: Any, turns: Sequence[Mapping[str, str]], plain: bool) -> list[int]:
    """The tokens of a conversation up to where its answer begins; `plain`: the last turn's text is to be continued.

    Raises:
        SettingsError: the chat template refuses the conversation.
    """
    if plain:
        return list(tokenizer(turns[-1]["content"])["input_ids"])
    try:
        text = tokenizer.apply_chat_template(
            list(turns), tokenize=False, add_generation_prompt=True
        )
    except Exception as error:
        roles = ", ".join(turn["role"] for turn in turns)
        raise SettingsError(
            f"the chat template refuses this conversation ({roles}): {first_line(error)}"
        ) from None
    return list(tokenizer(text, add_special_tokens=False)["input_ids"])


def _finish(
    answer: Answer,
    end: End,
    on_piece: Callable[[Answer, str], None],
    on_end: Callable[[Answer], None],
) -> None:
    answer.end = end
    rest = answer.text.rest()
    if rest:
        on_piece(answer, rest)
    on_end(answer)


def _drawer(sampling: Sampling, device: Any) -> Callable[[Any, Any], Any]:
    """What picks a token: (tokens so far, 1 × n; scores, 1 × vocabulary) → its number, a tensor."""
    import torch
    from transformers import (
        LogitsProcessorList,
        RepetitionPenaltyLogitsProcessor,
        TemperatureLogitsWarper,
        TopKLogitsWarper,
        TopPLogitsWarper,
    )

    changes = LogitsProcessorList()
    penalty, temperature = sampling.repetition_penalty or 1.0, sampling.temperature
    if penalty != 1.0:
        changes.append(RepetitionPenaltyLogitsProcessor(penalty))
    drawn = temperature is None or temperature > 0
    if drawn:
        if temperature is not None and temperature != 1.0:
            changes.append(TemperatureLogitsWarper(float(temperature)))
        if sampling.top_k:
            changes.append(TopKLogitsWarper(sampling.top_k))
        if sampling.top_p is not None and 0 < sampling.top_p < 1:
            changes.append(TopPLogitsWarper(sampling.top_p))
    generator = torch.Generator(device=device)
    if sampling.seed is None:
        generator.seed()
    else:
        generator.manual_seed(sampling.seed)

    def draw(so_far: Any, scores: Any) -> Any:
        changed = changes(so_far, scores)
        if not drawn:
            return changed.argmax(-1)
        return torch.multinomial(changed.softmax(-1), 1, generator=generator)[:, 0]

    return draw


def _keeps_last(model: Any) -> dict[str, int]:
    """What makes a model compute the scores of the last position alone: a prompt's would take more than its cache."""
    inner = model.get_base_model() if hasattr(model, "get_base_model") else model
    takes = inspect.signature(inner.forward).parameters
    return {"logits_to_keep": 1} if "logits_to_keep" in takes else {}
