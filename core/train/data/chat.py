"""Rows become tokens: which text the model sees, and which of its tokens it learns.

A conversation is rendered once as a whole by its chat template. Where each answer stands in that text is found by
rendering the conversation up to the answer as well (with the generation prompt): what comes after it is the answer.
The comparison is made on text, and tokens are matched to it by their offsets, so that a token that merges characters
across the border cannot shift the mask. Where a template renders earlier turns differently once later ones follow,
the answer is looked up by its own words instead.

What is longer than cutoff_len loses the end of its answer, never a part of its prompt: a row whose prompt leaves no
room for an answer has nothing to learn. (LLaMA-Factory's infer_seqlen cuts prompts too, at their end, where the
question stands.) An answer that is cut teaches no end.
"""

import json
from collections.abc import Iterator, Sequence
from itertools import groupby, pairwise
from typing import Any, TypeVar, cast

import numpy as np
from numpy.typing import NDArray

from core.params import DataTable
from core.profile import Profile
from core.rows import AnyRow, Compared, Conversation, Judged, Question, Text, Turn
from core.train.data.examples import IGNORED, AnyExample, Example, Pair, Prompt, Tagged, Tokens
from core.train.data.spans import Answer, Span, after_question, answers, inside
from core.train.data.templates import FALLBACK, TEMPLATES
from core.train.data.templates.fit import check_fit
from core.train.errors import DataError, first_line

Messages = list[dict[str, str]]
_Learnt = NDArray[np.bool_]
_Script = tuple[Sequence[Turn], str]
"""Turns, and the tools that they may use."""
_Row = TypeVar("_Row", Conversation, Compared, Judged, Question)


def make_encoder(tokenizer: Any, profile: Profile) -> "ChatEncoder":
    """The encoder of a profile's run.

    Raises:
        SettingsError: the template that is named does not fit the tokenizer.
    """
    template, table = profile.model.template, profile.data
    if profile.method.stage != "pt":
        check_fit(template, tokenizer)
    return ChatEncoder.of(tokenizer, template, table)


class ChatEncoder:
    """Renders and tokenises rows with one tokenizer and one template."""

    def __init__(
        self,
        tokenizer: Any,
        template: str,
        cutoff_len: int,
        train_on_prompt: bool,
        mask_history: bool = False,
    ) -> None:
        """`template` is a value of `model.template`; `tokenizer` is one of transformers."""
        self._tokenizer = tokenizer
        self._own = template == "auto" and bool(tokenizer.chat_template)
        self._jinja = (
            tokenizer.chat_template
            if self._own
            else TEMPLATES[FALLBACK if template == "auto" else template]
        )
        self._takes_tools = self._own and "tools" in str(self._jinja)
        self._cutoff = cutoff_len
        self._all = train_on_prompt
        self._last = mask_history
        self._special = frozenset(tokenizer.all_special_ids) | {
            i for i, token in tokenizer.added_tokens_decoder.items() if token.special
        }

    @staticmethod
    def of(tokenizer: Any, template: str, table: DataTable) -> "ChatEncoder":
        """The encoder that [data] asks for."""
        return ChatEncoder(
            tokenizer, template, table.cutoff_len, table.train_on_prompt, table.mask_history
        )

    @property
    def tokenizer(self) -> Any:
        """The tokenizer that it was made with."""
        return self._tokenizer

    @property
    def jinja(self) -> str:
        """The template, to be saved with the tokenizer of the trained model."""
        return str(self._jinja)

    @property
    def settings(self) -> dict[str, Any]:
        """All but the tokenizer that decides what comes out."""
        return {
            "template": self.jinja,
            "own": self._own,
            "cutoff_len": self._cutoff,
            "train_on_prompt": self._all,
            "mask_history": self._last,
        }

    def end_ids(self) -> tuple[int, ...]:
        """The tokens that end an answer: the one that the template closes it with, and the tokenizer's own."""
        row = Conversation((Turn("user", "a"), Turn("assistant", "b")), "")
        ids, learnt = self._masked([row], last=True)[0]
        own = self._tokenizer.eos_token_id
        closing = [int(ids[np.flatnonzero(learnt)[-1]])] if learnt.any() else []
        return tuple(dict.fromkeys(i for i in (*closing, own) if i is not None))

    def encode(self, rows: Sequence[AnyRow]) -> list[AnyExample]:
        """One example a row, of the kind that the row calls for; rows are all of one kind. All but texts are cut off at
        cutoff_len tokens: texts are cut into blocks later (`core.train.data.packing`).

        Raises:
            DataError: the template refuses a row; the message names the row and the reason.
        """
        made: dict[type, Any] = {
            Conversation: self._examples,
            Text: self._texts,
            Compared: self._pairs,
            Judged: self._tagged,
            Question: self._prompts,
        }
        return cast(list[AnyExample], made[type(rows[0])](rows)) if rows else []

    # One function a kind of row -------------------------------------------------------------------------------------

    def _examples(self, rows: Sequence[Conversation]) -> list[Example]:
        made = self._everything(rows) if self._all else self._masked(rows, last=self._last)
        return [_labelled(ids[: self._cutoff], learnt[: self._cutoff]) for ids, learnt in made]

    def _texts(self, rows: Sequence[Text]) -> list[Example]:
        """A text with the token that begins one, where the tokenizer puts it there itself, and the one that ends it."""
        bos, eos = self._tokenizer.bos_token_id, self._tokenizer.eos_token_id
        begins = bos is not None and self._tokenizer.encode("a")[:1] == [bos]
        made = []
        for ids in self._ids([row.text for row in rows]):
            start = [bos] if begins and ids[:1] != [bos] else []
            end = [eos] if eos is not None and ids[-1:] != [eos] else []
            tokens = np.asarray([*start, *ids, *end], dtype=np.int32)
            made.append(_labelled(tokens, np.ones(len(tokens), dtype=bool)))
        return made

    def _pairs(self, rows: Sequence[Compared]) -> list[Pair]:
        both = [
            Conversation((*row.turns, Turn("assistant", answer)), row.place, row.tools)
            for row in rows
            for answer in (row.chosen, row.rejected)
        ]
        made = self._masked(both, last=True)
        return [self._pair(*made[i], *made[i + 1]) for i in range(0, len(made), 2)]

    def _pair(self, chosen: Tokens, good: _Learnt, rejected: Tokens, bad: _Learnt) -> Pair:
        """What both have before either's answer is the prompt: a token that merges the border with an answer belongs
        to the answers."""
        start = min(_first(good), _first(bad))
        same = chosen[:start] == rejected[:start]
        start = start if same.all() else int(np.argmin(same))
        return Pair(
            chosen[: min(start, self._cutoff)],
            self._answer(chosen, good, start),
            self._answer(rejected, bad, start),
        )

    def _tagged(self, rows: Sequence[Judged]) -> list[Tagged]:
        whole = [
            Conversation((*row.turns, Turn("assistant", row.answer)), row.place, row.tools)
            for row in rows
        ]
        return [
            Tagged(
                ids[: min(_first(learnt), self._cutoff)],
                self._answer(ids, learnt, _first(learnt)),
                row.good,
            )
            for row, (ids, learnt) in zip(rows, self._masked(whole, last=True), strict=True)
        ]

    def _prompts(self, rows: Sequence[Question]) -> list[Prompt]:
        made = [np.asarray(i, dtype=np.int32) for i in self._ids(self._render_all(rows, True))]
        return [Prompt(ids if len(ids) <= self._cutoff else ids[:0]) for ids in made]

    def _answer(self, ids: Tokens, learnt: _Learnt, start: int) -> Tokens:
        if not learnt.any():
            return ids[:0]
        return ids[start : min(int(np.flatnonzero(learnt)[-1]) + 1, self._cutoff)]

    # Tokens, and which of them belong to answers --------------------------------------------------------------------

    def _everything(self, rows: Sequence[Conversation]) -> list[tuple[Tokens, _Learnt]]:
        """The tokens of conversations of which all are learnt."""
        return [
            self._closed(np.asarray(ids, dtype=np.int32), np.ones(len(ids), dtype=bool))
            for ids in self._ids(self._render_all(rows, False))
        ]

    def _masked(self, rows: Sequence[Conversation], *, last: bool) -> list[tuple[Tokens, _Learnt]]:
        """The tokens of conversations and which of them belong to answers, or to the last answer alone. Not cut."""
        texts = self._render_all(rows, False)
        found = self._answer_spans(rows, texts)
        spans = [[s for s in (f[-1:] if last else f) if s is not None] for f in found]
        return [
            self._closed(np.asarray(ids, dtype=np.int32), inside(offsets, own, text))
            for (ids, offsets), own, text in zip(
                self._tokenize(texts, spans), spans, texts, strict=True
            )
        ]

    def _closed(self, tokens: Tokens, learnt: _Learnt) -> tuple[Tokens, _Learnt]:
        """Where the template closes an answer with no special token, the end-of-sequence token is the end to learn."""
        eos = self._tokenizer.eos_token_id
        if eos is None or not learnt.any():
            return tokens, learnt
        last = int(np.flatnonzero(learnt)[-1])
        if int(tokens[last]) in self._special:
            return tokens, learnt
        return np.append(tokens[: last + 1], np.int32(eos)), np.append(learnt[: last + 1], True)

    def _ids(self, texts: Sequence[str]) -> Iterator[list[int]]:
        """Token ids of each text."""
        if self._tokenizer.is_fast:
            for encoding in self._encode_batch(texts):
                yield encoding.ids
            return
        for text in texts:
            yield self._tokenizer.encode(text, add_special_tokens=False)

    def _tokenize(
        self, texts: Sequence[str], spans: Sequence[list[Span]]
    ) -> Iterator[tuple[list[int], NDArray[np.int64]]]:
        """Token ids and their offsets (tokens × [start, end), in characters) of each text."""
        if self._tokenizer.is_fast:
            for encoding in self._encode_batch(texts):
                yield encoding.ids, np.asarray(encoding.offsets, dtype=np.int64).reshape(-1, 2)
            return
        for text, own in zip(texts, spans, strict=True):
            yield self._tokenize_in_pieces(text, own)

    def _encode_batch(self, texts: Sequence[str]) -> Any:
        return self._tokenizer.backend_tokenizer.encode_batch(list(texts), add_special_tokens=False)

    def _tokenize_in_pieces(
        self, text: str, own: list[Span]
    ) -> tuple[list[int], NDArray[np.int64]]:
        """A tokenizer written in Python knows no offsets: prompts and answers are tokenised apart."""
        borders = sorted({0, len(text), *(border for span in own for border in span)})
        ids: list[int] = []
        offsets: list[Span] = []
        for start, end in pairwise(borders):
            piece = self._tokenizer.encode(text[start:end], add_special_tokens=False)
            ids += piece
            offsets += [(start, end)] * len(piece)
        return ids, np.asarray(offsets, dtype=np.int64).reshape(-1, 2)

    def _answer_spans(
        self, rows: Sequence[Conversation], texts: Sequence[str]
    ) -> list[list[Span | None]]:
        """Where each answer stands in its text, its end-of-turn marker included; None for one that is not found."""
        wanted = [(row, at) for row, c in enumerate(rows) for at in answers(c.turns)]
        prompts = self._try_render([_up_to(rows[row], at) for row, at in wanted], True)
        bare = self._try_render([_up_to(rows[row], at) for row, at in wanted[:1]], False)
        headed = bare[:1] != prompts[:1]
        inner = [(row, at) for row, at in wanted if at + 1 < len(rows[row].turns)]
        ends = self._try_render([_up_to(rows[row], at + 1) for row, at in inner], False)
        through = dict(zip(inner, ends, strict=True))
        spans: list[list[Span | None]] = [[] for _ in texts]
        for (row, at), prompt in zip(wanted, prompts, strict=True):
            turns, text = rows[row].turns, texts[row]
            if prompt is not None and text.startswith(prompt):
                after, exact = len(prompt), headed
            else:
                before = [span[1] for span in spans[row] if span is not None]
                after, exact = after_question(text, turns[:at], max(before, default=0)), False
            answer = Answer(turns[at].text, after, through.get((row, at), text), exact)
            spans[row].append(answer.span(text))
        return spans

    # Text -----------------------------------------------------------------------------------------------------------

    def _render_all(self, rows: Sequence[_Row], prompt: bool) -> list[str]:
        try:
            return self._render([(row.turns, row.tools) for row in rows], prompt)
        except Exception:
            for row in rows:
                self._render_one(row, prompt)
            raise

    def _render_one(self, row: _Row, prompt: bool) -> str:
        try:
            return self._render([(row.turns, row.tools)], prompt)[0]
        except Exception as error:
            roles = ", ".join(turn.role for turn in row.turns)
            raise DataError(
                f"{row.place}: the chat template refuses this conversation ({roles}): {first_line(error)}. "
                "Change the row, or set model.template"
            ) from None

    def _try_render(self, prefixes: Sequence[_Script], prompt: bool) -> list[str | None]:
        """Each prefix rendered; None for one that the template refuses (an empty one, often)."""
        if not prefixes:
            return []
        try:
            return list(self._render(prefixes, prompt))
        except Exception:
            pass
        rendered: list[str | None] = []
        for each in prefixes:
            try:
                rendered += self._render([each], prompt)
            except Exception:
                rendered.append(None)
        return rendered

    def _render(self, scripts: Sequence[_Script], prompt: bool) -> list[str]:
        """Rows that share their tools, most often none, are rendered together."""
        rendered: list[str] = []
        for tools, group in groupby(scripts, key=lambda script: script[1]):
            rendered += self._tokenizer.apply_chat_template(
                [self._messages(*script) for script in group],
                chat_template=self._jinja,
                tools=json.loads(tools) if tools and self._takes_tools else None,
                tokenize=False,
                add_generation_prompt=prompt,
            )
        return rendered

    def _messages(self, turns: Sequence[Turn], tools: str) -> Messages:
        """Named templates know three roles: what a tool says is then the user's to say. Where the template knows no
        tools, they are told in the system text."""
        if tools and not self._takes_tools:
            turns = _with_tools(turns, tools)
        return [
            {
                "role": "user" if turn.role == "tool" and not self._own else turn.role,
                "content": turn.text,
            }
            for turn in turns
        ]


def _up_to(row: Conversation, end: int) -> _Script:
    return row.turns[:end], row.tools


def _with_tools(turns: Sequence[Turn], tools: str) -> Sequence[Turn]:
    told = f"You may call these functions:\n{tools}"
    if turns and turns[0].role == "system":
        return (Turn("system", f"{turns[0].text}\n\n{told}"), *turns[1:])
    return (Turn("system", told), *turns)


def _labelled(tokens: Tokens, learnt: _Learnt) -> Example:
    labels = np.where(learnt, tokens, np.int32(IGNORED)).astype(np.int32)
    labels[:1] = IGNORED
    return Example(tokens, labels)


def _first(learnt: _Learnt) -> int:
    """Where the answer begins; where there is none, where the tokens end."""
    return int(np.argmax(learnt)) if learnt.any() else len(learnt)
