"""Conversations become tokens and labels: which text the model sees, and which of its tokens it learns.

A conversation is rendered once as a whole by its chat template. Where each answer stands in that text is found by
rendering the conversation up to the answer as well (with the generation prompt): what comes after it is the answer.
The comparison is made on text, and tokens are matched to it by their offsets, so that a token that merges characters
across the border cannot shift the mask. Where a template renders earlier turns differently once later ones follow,
the answer is looked up by its own words instead.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from core.train.errors import DataError, first_line
from core.train.examples import IGNORED, Example
from core.train.formats import Conversation, Turn
from core.train.templates import TEMPLATES

Span = tuple[int, int]
Messages = list[dict[str, str]]


class ChatEncoder:
    """Renders and tokenises conversations with one tokenizer and one template."""

    def __init__(
        self, tokenizer: Any, template: str, cutoff_len: int, train_on_prompt: bool
    ) -> None:
        """`template` is a value of `model.template`; `tokenizer` is one of transformers."""
        self._tokenizer = tokenizer
        self._own = template == "auto" and bool(tokenizer.chat_template)
        self._jinja = (
            tokenizer.chat_template
            if self._own
            else TEMPLATES["chatml" if template == "auto" else template]
        )
        self._cutoff = cutoff_len
        self._all = train_on_prompt
        self._special = frozenset(tokenizer.all_special_ids) | {
            i for i, token in tokenizer.added_tokens_decoder.items() if token.special
        }

    @property
    def jinja(self) -> str:
        """The template, to be saved with the tokenizer of the trained model."""
        return str(self._jinja)

    def encode(self, conversations: Sequence[Conversation]) -> list[Example]:
        """One example a conversation, cut off at cutoff_len tokens.

        Raises:
            DataError: the template refuses a conversation; the message names the row and the reason.
        """
        texts = self._render_all(conversations)
        spans = [[] for _ in texts] if self._all else self._answer_spans(conversations, texts)
        return [
            self._example(ids, offsets, answers, text)
            for (ids, offsets), answers, text in zip(
                self._tokenize(texts, spans), spans, texts, strict=True
            )
        ]

    def _example(
        self, ids: list[int], offsets: NDArray[np.int64] | None, answers: list[Span], text: str
    ) -> Example:
        tokens = np.asarray(ids, dtype=np.int32)
        learnt = np.ones(len(tokens), dtype=bool)
        if offsets is not None and not self._all:
            learnt = _inside(offsets, answers, text)
        eos = self._tokenizer.eos_token_id
        last = int(tokens[np.flatnonzero(learnt)[-1]]) if learnt.any() else None
        if eos is not None and last is not None and last not in self._special:
            # The template closes an answer with no special token: the end-of-sequence token is the end to learn.
            after = int(np.flatnonzero(learnt)[-1]) + 1
            tokens = np.append(tokens[:after], np.int32(eos))
            learnt = np.append(learnt[:after], True)
        tokens, learnt = tokens[: self._cutoff], learnt[: self._cutoff]
        labels = np.where(learnt, tokens, np.int32(IGNORED)).astype(np.int32)
        labels[:1] = IGNORED
        return Example(tokens, labels)

    def _tokenize(
        self, texts: Sequence[str], spans: Sequence[list[Span]]
    ) -> Iterator[tuple[list[int], NDArray[np.int64] | None]]:
        """Token ids and their offsets (tokens × [start, end), in characters) of each text."""
        if self._tokenizer.is_fast:
            for encoding in self._tokenizer.backend_tokenizer.encode_batch(
                list(texts), add_special_tokens=False
            ):
                offsets = (
                    None
                    if self._all
                    else np.asarray(encoding.offsets, dtype=np.int64).reshape(-1, 2)
                )
                yield encoding.ids, offsets
            return
        for text, answers in zip(texts, spans, strict=True):
            yield self._tokenize_in_pieces(text, answers)

    def _tokenize_in_pieces(
        self, text: str, answers: list[Span]
    ) -> tuple[list[int], NDArray[np.int64]]:
        """A tokenizer written in Python knows no offsets: prompts and answers are tokenised apart."""
        borders = sorted({0, len(text), *(border for span in answers for border in span)})
        ids: list[int] = []
        offsets: list[Span] = []
        for start, end in pairwise(borders):
            piece = self._tokenizer.encode(text[start:end], add_special_tokens=False)
            ids += piece
            offsets += [(start, end)] * len(piece)
        return ids, np.asarray(offsets, dtype=np.int64).reshape(-1, 2)

    def _answer_spans(
        self, conversations: Sequence[Conversation], texts: Sequence[str]
    ) -> list[list[Span]]:
        """Where the answers stand in each text, their end-of-turn markers included."""
        wanted = [(row, at) for row, c in enumerate(conversations) for at in _answers(c.turns)]
        prompts = self._try_render([conversations[row].turns[:at] for row, at in wanted], True)
        bare = self._try_render([conversations[row].turns[:at] for row, at in wanted[:1]], False)
        headed = bare[:1] != prompts[:1]
        inner = [(row, at) for row, at in wanted if at + 1 < len(conversations[row].turns)]
        ends = self._try_render([conversations[row].turns[: at + 1] for row, at in inner], False)
        through = dict(zip(inner, ends, strict=True))
        spans: list[list[Span]] = [[] for _ in texts]
        for (row, at), prompt in zip(wanted, prompts, strict=True):
            turns, text = conversations[row].turns, texts[row]
            if prompt is not None and text.startswith(prompt):
                answer = _Answer(
                    turns[at].text, len(prompt), through.get((row, at), text), exact=headed
                )
            else:
                after = _after_question(text, turns[:at], spans[row][-1][1] if spans[row] else 0)
                answer = _Answer(turns[at].text, after, through.get((row, at), text), exact=False)
            span = answer.span(text)
            if span is not None:
                spans[row].append(span)
        return spans

    def _render_all(self, conversations: Sequence[Conversation]) -> list[str]:
        try:
            return self._render([self._messages(c.turns) for c in conversations], False)
        except Exception:
            for conversation in conversations:
                self._render_one(conversation)
            raise

    def _render_one(self, conversation: Conversation) -> str:
        try:
            return self._render([self._messages(conversation.turns)], False)[0]
        except Exception as error:
            roles = ", ".join(turn.role for turn in conversation.turns)
            raise DataError(
                f"{conversation.place}: the chat template refuses this conversation ({roles}): {first_line(error)}. "
                "Change the row, or set model.template"
            ) from None

    def _try_render(self, prefixes: Sequence[Sequence[Turn]], prompt: bool) -> list[str | None]:
        """Each prefix rendered; None for one that the template refuses (an empty one, often)."""
        messages = [self._messages(turns) for turns in prefixes]
        if not messages:
            return []
        try:
            return list(self._render(messages, prompt))
        except Exception:
            pass
        rendered: list[str | None] = []
        for each in messages:
            try:
                rendered += self._render([each], prompt)
            except Exception:
                rendered.append(None)
        return rendered

    def _render(self, batch: list[Messages], prompt: bool) -> list[str]:
        rendered = self._tokenizer.apply_chat_template(
            batch, chat_template=self._jinja, tokenize=False, add_generation_prompt=prompt
        )
        return list(rendered)

    def _messages(self, turns: Sequence[Turn]) -> Messages:
        """Named templates know three roles: what a tool says is then the user's to say."""
        return [
            {
                "role": "user" if turn.role == "tool" and not self._own else turn.role,
                "content": turn.text,
            }
            for turn in turns
        ]


def _answers(turns: Sequence[Turn]) -> list[int]:
    return [i for i, turn in enumerate(turns) if turn.role == "assistant"]


@dataclass(frozen=True, slots=True)
class _Answer:
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


def _after_question(text: str, turns: Sequence[Turn], start: int) -> int:
    """Where the turns between the last answer and this one end in `text`, as far as they are found from `start` on."""
    last = max((i for i, turn in enumerate(turns) if turn.role == "assistant"), default=-1)
    for turn in turns[last + 1 :]:
        words = turn.text.strip()
        at = text.find(words, start)
        if at >= 0:
            start = at + len(words)
    return start


def _inside(offsets: NDArray[np.int64], answers: Sequence[Span], text: str) -> NDArray[np.bool_]:
    """Which tokens belong to an answer. One that reaches over its border does if that adds only white space: many
    tokenizers join a word with the space before it."""
    starts, ends = offsets[:, 0], offsets[:, 1]
    inside = np.zeros(len(offsets), dtype=bool)
    for start, end in answers:
        low = len(text[:start].rstrip())
        high = end + len(text[end:]) - len(text[end:].lstrip())
        touches = ((ends > start) | (starts >= start)) & (starts < end)
        inside |= touches & (starts >= low) & (ends <= high)
    return inside


def _closing(text: str, end: int, through: str | None, words: str) -> str:
    """The end-of-turn marker that follows the answer, read off the text that ends with this turn."""
    if through is None or words not in through:
        return ""
    closing = through[through.rindex(words) + len(words) :]
    return closing if text.startswith(closing, end) else ""
