"""Better and worse answers to questions about words, and plain text about them, made from WordNet.

A worse answer is of one of three kinds, in turn: one that breaks off half-way, one about another word, and one that
says of the right word what is true of another.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import asdict, dataclass

from scripts.demo_model.instructions import TASKS, Entry, Row, common_words
from scripts.demo_model.prose import sentence
from scripts.demo_model.wordnet import WordNet


@dataclass(frozen=True)
class Pair:
    """One question with two answers, with the field names of LLaMA-Factory's ranking files."""

    instruction: str
    input: str
    chosen: str
    rejected: str

    def as_dict(self) -> dict[str, object]:
        return asdict(self)


@dataclass(frozen=True)
class Tag:
    """One question with an answer that is good or bad, with the field names of LLaMA-Factory's KTO files."""

    instruction: str
    input: str
    output: str
    kto_tag: bool

    def as_dict(self) -> dict[str, object]:
        return asdict(self)


def make_pairs(wordnet: WordNet, count: int, seed: int) -> list[Pair]:
    """``count`` pairs, the tasks and the kinds of worse answers in turn, each another question."""
    rng = random.Random(seed)
    pairs: list[Pair] = []
    asked: set[tuple[str, str]] = set()
    for number, (entry, other) in enumerate(_words(wordnet, rng)):
        if len(pairs) == count:
            break
        task = TASKS[number % len(TASKS)]
        row, wrong = task(entry, wordnet, rng), task(other, wordnet, rng)
        if row is None or wrong is None or (row.instruction, row.input) in asked:
            continue
        worse = _worse(number % 3, row, entry, wrong, other)
        if worse is not None and worse != row.output:
            asked.add((row.instruction, row.input))
            pairs.append(Pair(row.instruction, row.input, row.output, worse))
    rng.shuffle(pairs)
    return pairs


def make_tags(wordnet: WordNet, count: int, seed: int) -> list[Tag]:
    """``count`` answers, each to another question, as many good ones as bad ones."""
    pairs = make_pairs(wordnet, count, seed)
    return [
        Tag(p.instruction, p.input, p.chosen if n % 2 else p.rejected, n % 2 == 1)
        for n, p in enumerate(pairs)
    ]


def make_text(wordnet: WordNet, count: int, seed: int) -> list[str]:
    """``count`` lines, each a short paragraph about another word: what it means and how it is used."""
    rng = random.Random(seed)
    lines: list[str] = []
    for entry, _ in _words(wordnet, rng):
        examples = [sentence(e) for e in entry.synset.examples if entry.word in e.lower().split()]
        if examples and len(lines) < count:
            word = entry.word.capitalize()
            meaning = sentence(entry.synset.definition)
            lines.append(" ".join([f"{word} ({entry.synset.part_of_speech}).", meaning, *examples]))
    return lines


def _words(wordnet: WordNet, rng: random.Random) -> Iterator[tuple[Entry, Entry]]:
    """Each word once, with another one."""
    entries = common_words(wordnet)
    rng.shuffle(entries)
    single = list({entry.word: entry for entry in entries}.values())
    for entry in single:
        other = rng.choice(single)
        if other.word != entry.word:
            yield entry, other


def _worse(kind: int, row: Row, entry: Entry, wrong: Row, other: Entry) -> str | None:
    if kind == 0:
        words = row.output.split()
        return " ".join(words[: max(1, len(words) // 2)])
    if kind == 1:
        return wrong.output
    # What is said of the other word, with the right one in its place, unless the answer is the word itself.
    told = wrong.output.replace(f'"{other.word}"', f'"{entry.word}"', 1)
    return told if other.word not in told.split() and told != wrong.output else None
