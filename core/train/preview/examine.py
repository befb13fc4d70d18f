"""What rows and their examples show of the usual mistakes. Pure: rows and token ids go in, findings come out.

An `Examiner` is shown the rows chunk by chunk; `findings` says what it has seen.
"""

import re
from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np

from core.rows import AnyRow, Compared, Conversation, Judged, Question, Text
from core.study.preview import Counted, Finding, Kind
from core.train.data.examples import IGNORED, AnyExample, Example, Pair, Prompt, Tagged

PLACES = 3
"""Rows that a finding names."""
CUT_SHARE = 0.02
"""From this share of cut rows on it is said: below, they are the tail of any data set."""
UNKNOWN_SHARE = 0.005
"""From this share of unknown tokens on it is said."""
BALANCED = (1.0, 4 / 3)
"""Between these, weight × number of the good answers over that of the bad ones is best for KTO, by its authors
(arXiv 2402.01306, section 4.2, as TRL's documentation of KTO has it)."""
SKEWED = 2.0
"""So many times beyond them it is said."""


@dataclass(frozen=True, slots=True)
class Tokenizing:
    """What an examiner has to know of the tokenizer and of the settings."""

    stage: str
    cutoff_len: int
    special: Collection[int]
    special_texts: tuple[str, ...]
    """The special tokens as text would have them."""
    stops: Collection[int]
    """Tokens at which the model's generation stops."""
    names: dict[int, str] = field(default_factory=dict)
    """The special tokens by their ids."""
    unknown: int | None = None
    """The token that stands for what the tokenizer does not know."""
    weights: tuple[float, float] = (1.0, 1.0)
    """Those of good and bad answers in stage kto."""


@dataclass
class Seen:
    """Rows that show something: how many, and where the first are."""

    rows: int = 0
    places: list[str] = field(default_factory=list)
    first: int | None = None
    """The index of the first one among the rows to train on."""

    def add(self, place: str, index: int | None) -> None:
        self.rows += 1
        if len(self.places) < PLACES:
            self.places.append(place)
        if self.first is None:
            self.first = index


class Examiner:
    """Looks at rows and their examples, those to train on first, and then those to evaluate on."""

    def __init__(self, known: Tokenizing) -> None:
        self._known = known
        self._seen: dict[Kind, Seen] = {}
        self._texts = _any_of(known.special_texts)
        self._copies: set[int] = set()
        self._rows: set[int] = set()
        self._eval_rows = self._eval_used = 0
        self._ends: Counter[int] = Counter()
        self._unknown = self._uncut_tokens = 0
        self.looked = self.used = self.cut = self.left_out = self.good = 0
        self.tokens = self.learnt = 0
        self.lengths: Counter[int] = Counter()

    def look(
        self, rows: Sequence[AnyRow], whole: Sequence[AnyExample], cut: Sequence[AnyExample]
    ) -> None:
        """Look at rows to train on: `whole` are their examples without a cut-off, `cut` as they are trained on."""
        for row, all_of_it, rest in zip(rows, whole, cut, strict=True):
            self._count(row, all_of_it, rest)
            self._look_at_words(row)
            self._look_at_end(row, all_of_it)
            self.looked += 1

    def look_at_evaluation(self, rows: Sequence[AnyRow], cut: Sequence[AnyExample]) -> None:
        """Look at rows to evaluate on, after all to train on."""
        for row, example in zip(rows, cut, strict=True):
            self._eval_rows += 1
            self._eval_used += example.learnt > 0
            if _content(row) in self._copies:
                self._note("in both parts", row.place, trained=False)

    def first(self, kind: Kind) -> int | None:
        """The index of the first row to train on that a finding is about."""
        seen = self._seen.get(kind)
        return seen.first if seen else None

    def counted(self, of: int, sequences: int | None, more: Iterable[Finding]) -> Counted:
        """What was counted of `of` rows; `more` findings come first."""
        return Counted(
            looked=self.looked,
            of=of,
            lengths=dict(sorted(self.lengths.items())),
            cut=self.cut,
            left_out=self.left_out,
            tokens=self.tokens,
            learnt=self.learnt,
            sequences=sequences,
            good=self.good if self._known.stage == "kto" else None,
            findings=tuple(sorted([*more, *self.findings(of)], key=lambda f: f.severity)),
        )

    def findings(self, of: int) -> list[Finding]:
        """What was seen, of `of` rows in all: what makes the training useless first."""
        found = [
            *self._unlearnt(of),
            *self._long(),
            *self._ending(),
            *self._of_rows(),
            *self._tags(),
            *self._unread(),
        ]
        return [finding for finding in found if finding is not None]

    # -- looking ------------------------------------------------------------------------------

    def _count(self, row: AnyRow, whole: AnyExample, cut: AnyExample) -> None:
        limit = self._known.cutoff_len
        self.lengths[whole.size] += 1
        if whole.size > limit and not isinstance(row, Text):
            self.cut += 1
            if cut.learnt:
                self._note("cut", row.place)
        if cut.learnt:
            self.used += 1
            self.tokens += token_count(cut)
            self.learnt += loss_count(cut)
        else:
            self.left_out += 1
            alike = isinstance(row, Compared) and row.chosen.strip() == row.rejected.strip()
            if not alike:
                self._note("prompt too long" if whole.learnt else "nothing learnt", row.place)
        if isinstance(row, Judged):
            self.good += row.good
        ids = all_ids(whole)
        self._uncut_tokens += len(ids)
        if self._known.unknown is not None:
            unknown = int((ids == self._known.unknown).sum())
            self._unknown += unknown
            if unknown:
                self._note("unknown tokens", row.place)

    def _look_at_words(self, row: AnyRow) -> None:
        content = _content(row)
        itself = hash((content, row.place))
        # Mixing may repeat a row.
        if content in self._copies and itself not in self._rows:
            self._note("duplicates", row.place)
        self._copies.add(content)
        self._rows.add(itself)
        if self._texts is not None and not isinstance(row, Text):
            text = next((m for t in texts_of(row) if (m := self._texts.search(t))), None)
            if text is not None:
                self._note("special tokens in text", row.place)
        answers = [answer.strip() for answer in answers_of(row)]
        if any(not answer for answer in answers):
            self._note("empty answer", row.place)
        if isinstance(row, Compared) and answers[0] == answers[1]:
            self._note("equal answers", row.place)
        question = question_of(row).strip()
        if question and question in answers[-2 if isinstance(row, Compared) else -1 :]:
            self._note("same as prompt", row.place)

    def _look_at_end(self, row: AnyRow, whole: AnyExample) -> None:
        if isinstance(row, Text | Question) or not whole.learnt:
            return
        for end in last_learnt(whole):
            if end in self._known.special or end in self._known.stops:
                self._ends[end] += 1
            else:
                self._note("no end token", row.place)

    def _note(self, kind: Kind, place: str, *, trained: bool = True) -> None:
        seen = self._seen.setdefault(kind, Seen())
        seen.add(place, self.looked if trained else None)

    # -- saying -------------------------------------------------------------------------------

    def _finding(self, kind: Kind, text: str, *, error: bool = False) -> Finding | None:
        """`text` says what is so in each of the rows."""
        seen = self._seen.get(kind)
        if seen is None:
            return None
        told = f"in {self._share(seen.rows)} {text}"
        return Finding(kind, "error" if error else "warning", told, seen.rows, tuple(seen.places))

    def _share(self, rows: int) -> str:
        if rows == self.looked:
            return "all rows" if rows > 1 else "the one row"
        return f"{rows:,} of {self.looked:,} rows"

    def _unlearnt(self, of: int) -> Iterable[Finding | None]:
        limit, stage = self._known.cutoff_len, self._known.stage
        everything = self.used == 0 and self.looked == of
        beyond = (
            f"the prompt is so long that nothing of the answer lies within cutoff_len = {limit}"
        )
        if stage == "ppo":
            beyond = f"the prompt is longer than cutoff_len = {limit}"
        elif stage in ("rm", "dpo"):
            beyond = f"no difference between the two answers lies within cutoff_len = {limit}"
        yield self._finding(
            "prompt too long", f"{beyond}: left out; raise data.cutoff_len", error=everything
        )
        yield self._finding(
            "nothing learnt",
            "no token has loss, as all labels are masked: left out; the answer is empty, or the template does not show "
            "it as it stands in the data",
            error=everything,
        )
        yield self._finding(
            "equal answers",
            "the chosen answer is the rejected one but for white space, so that there is nothing to prefer",
            error=everything,
        )
        if self._eval_rows and not self._eval_used:
            text = (
                f"none of the {self._eval_rows:,} rows to evaluate on has anything to learn within cutoff_len = "
                f"{limit}: raise data.cutoff_len"
                + ", or evaluate on pairs of different answers"
                * (stage in ("rm", "dpo"))
            )
            yield Finding("nothing learnt", "error", text)

    def _long(self) -> Iterable[Finding | None]:
        if "cut" in self._seen and self._seen["cut"].rows > CUT_SHARE * self.looked:
            yield self._finding(
                "cut",
                f"the end is cut off at cutoff_len = {self._known.cutoff_len}, and the token that ends the answer with "
                f"it: raise data.cutoff_len (the longest row has {max(self.lengths):,} tokens), or shorten them",
            )

    def _ending(self) -> Iterable[Finding | None]:
        yield self._finding(
            "no end token",
            "an answer ends in no end token, so that the model does not learn to stop: name another model.template, or "
            "set eos_token in tokenizer_config.json",
        )
        if not self._ends:
            return
        end, rows = self._ends.most_common(1)[0]
        if end not in self._known.stops:
            names = " or ".join(
                self._known.names.get(stop, str(stop)) for stop in sorted(self._known.stops)
            )
            text = (
                f"the answers end in {self._known.names.get(end, end)}, and the model's generation stops at {names}: "
                "it would talk on. Whoever serves the result must stop at both, or name another model.template"
            )
            yield Finding("other end token", "warning", text, rows)

    def _of_rows(self) -> Iterable[Finding | None]:
        yield self._finding(
            "empty answer", "an answer is empty, so that saying nothing is learnt: drop them"
        )
        yield self._finding(
            "same as prompt",
            "the answer only repeats the prompt: look whether the columns are right",
        )
        copies, both = self._seen.get("duplicates"), self._seen.get("in both parts")
        if copies is not None:
            told = f"{copies.rows:,} of {self.looked:,}"
            text = f"exact copies of earlier rows: {told}, which count more often for it"
            yield Finding("duplicates", "warning", text, copies.rows, tuple(copies.places))
        if both is not None:
            text = (
                f"rows to evaluate on that are also trained on: {both.rows:,} of {self._eval_rows:,}, so that the "
                "evaluation looks better than it is; drop copies, or name another data.eval_dataset"
            )
            yield Finding("in both parts", "warning", text, both.rows, tuple(both.places))
        yield self._finding(
            "special tokens in text",
            "the text itself holds special tokens, which the tokenizer takes for real ones: somebody's words could end "
            "a turn",
        )

    def _tags(self) -> Iterable[Finding | None]:
        if self._known.stage != "kto" or not self.looked:
            return
        good, bad = self.good, self.looked - self.good
        if not good or not bad:
            which = "good" if good else "bad"
            text = f"all answers are tagged {which}: kto learns from the difference of good and bad ones"
            yield Finding("one-sided tags", "warning", text)
            return
        weight, other = self._known.weights
        ratio = good * weight / (bad * other)
        if BALANCED[0] / SKEWED <= ratio <= BALANCED[1] * SKEWED:
            return
        key = "kto_chosen_weight" if ratio < 1 else "kto_rejected_weight"
        right = bad * other / good if ratio < 1 else good * weight / bad
        text = f"{good:,} answers are tagged good and {bad:,} bad: set alignment.{key} = {right:.2g} to make up for it"
        yield Finding("one-sided tags", "warning", text)

    def _unread(self) -> Iterable[Finding | None]:
        if self._unknown > UNKNOWN_SHARE * self._uncut_tokens:
            share = self._unknown / self._uncut_tokens
            yield self._finding(
                "unknown tokens",
                f"there are characters that the tokenizer does not know ({share:.1%} of all tokens): look whether it "
                "is one for this language",
            )


# -- rows -------------------------------------------------------------------------------------


def answers_of(row: AnyRow) -> tuple[str, ...]:
    """What the model is to answer; for pairs the chosen and the rejected answer."""
    match row:
        case Conversation(turns):
            return tuple(turn.text for turn in turns if turn.role == "assistant")
        case Compared(_, chosen, rejected):
            return chosen, rejected
        case Judged(_, answer):
            return (answer,)
        case _:
            return ()


def question_of(row: AnyRow) -> str:
    """The last thing that a user said; empty for a plain text."""
    if isinstance(row, Text):
        return ""
    return next((turn.text for turn in reversed(row.turns) if turn.role == "user"), "")


def texts_of(row: AnyRow) -> tuple[str, ...]:
    """Everything that a row says."""
    if isinstance(row, Text):
        return (row.text,)
    said = tuple(turn.text for turn in row.turns)
    return said if isinstance(row, Conversation | Question) else (*said, *answers_of(row))


def _content(row: AnyRow) -> int:
    """A number for what a row says, wherever it stands: 64 bits, so that two rows hardly share one by chance."""
    tag = row.good if isinstance(row, Judged) else None
    if isinstance(row, Text):
        return hash(row.text)
    return hash((row.turns, texts_of(row), row.tools, tag))


def _any_of(texts: Sequence[str]) -> re.Pattern[str] | None:
    """Finds any of these texts, the longest first; None where there is none."""
    told = sorted({text for text in texts if len(text.strip()) > 1}, key=len, reverse=True)
    return re.compile("|".join(map(re.escape, told))) if told else None


# -- examples ---------------------------------------------------------------------------------


def all_ids(example: AnyExample) -> np.ndarray:
    """All token ids of an example, one after the other."""
    match example:
        case Pair(prompt, chosen, rejected):
            return np.concatenate([prompt, chosen, rejected])
        case Tagged(prompt, answer):
            return np.concatenate([prompt, answer])
        case Example(ids) | Prompt(ids):
            return ids


def token_count(example: AnyExample) -> int:
    """Tokens that the model reads: a pair's prompt is read with each of its answers."""
    if isinstance(example, Pair):
        return 2 * len(example.prompt) + len(example.chosen) + len(example.rejected)
    return example.size


def loss_count(example: AnyExample) -> int:
    """Tokens with loss: none of a ppo prompt."""
    return 0 if isinstance(example, Prompt) else example.learnt


def last_learnt(example: AnyExample) -> tuple[int, ...]:
    """The last token of each answer."""
    match example:
        case Example(ids, labels):
            learnt = np.flatnonzero(labels != IGNORED)
            return (int(ids[learnt[-1]]),) if len(learnt) else ()
        case Pair(_, chosen, rejected):
            return tuple(int(answer[-1]) for answer in (chosen, rejected) if len(answer))
        case Tagged(_, answer):
            return (int(answer[-1]),) if len(answer) else ()
        case _:
            return ()
