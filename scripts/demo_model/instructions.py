"""Small instruction sets about words, in alpaca's form, made from WordNet."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import asdict, dataclass

from scripts.demo_model.prose import article, sentence
from scripts.demo_model.wordnet import PARTS_OF_SPEECH, Synset, WordNet

_LEAST_COUNT = 2
_LONGEST_DEFINITION = 80


@dataclass(frozen=True)
class Row:
    """One example, with the field names of alpaca's files."""

    instruction: str
    input: str
    output: str

    def as_dict(self) -> dict[str, str]:
        return asdict(self)


@dataclass(frozen=True)
class Entry:
    """A common word in its most usual meaning."""

    word: str
    synset: Synset
    sole_part: bool


Task = Callable[[Entry, WordNet, random.Random], Row | None]


def make_rows(wordnet: WordNet, count: int, seed: int) -> list[Row]:
    """``count`` rows, the tasks in turn, each about another word, in shuffled order."""
    rng = random.Random(seed)
    entries = common_words(wordnet)
    rng.shuffle(entries)
    rows: list[Row] = []
    for entry in {entry.word: entry for entry in entries}.values():
        if len(rows) == count:
            break
        row = TASKS[len(rows) % len(TASKS)](entry, wordnet, rng)
        if row is not None:
            rows.append(row)
    rng.shuffle(rows)
    return rows


def common_words(wordnet: WordNet) -> list[Entry]:
    """Single words that were counted in real text and that have a short definition, sorted."""
    entries = []
    for (word, part), key in sorted(wordnet.first_sense.items()):
        synset = wordnet.synsets[key]
        common = wordnet.counts.get((word, part), 0) >= _LEAST_COUNT
        fits = 3 <= len(word) <= 12 and word.isalpha() and word in synset.words
        if common and fits and len(synset.definition) <= _LONGEST_DEFINITION:
            parts = [p for p in PARTS_OF_SPEECH if (word, p) in wordnet.first_sense]
            entries.append(Entry(word, synset, len(parts) == 1))
    return entries


def _meaning(entry: Entry, wordnet: WordNet, rng: random.Random) -> Row:
    word, part = entry.word, entry.synset.part_of_speech
    answer = f'The {part} "{word}" means: {entry.synset.definition}.'
    if rng.random() < 0.5:
        return Row("Explain the word.", word, answer)
    question = rng.choice(('What does the word "{}" mean?', 'What is the meaning of "{}"?'))
    return Row(question.format(word), "", answer)


def _word(entry: Entry, wordnet: WordNet, rng: random.Random) -> Row:
    answer = f'The word is "{entry.word}".'
    if rng.random() < 0.5:
        return Row(f"Which word means: {entry.synset.definition}?", "", answer)
    return Row("Find the word for this definition.", sentence(entry.synset.definition), answer)


def _example(entry: Entry, wordnet: WordNet, rng: random.Random) -> Row | None:
    fitting = [e for e in entry.synset.examples if entry.word in e.lower().split()]
    if not fitting:
        return None
    question = rng.choice(('Use the word "{}" in a sentence.', 'Give an example with "{}".'))
    return Row(question.format(entry.word), "", "Example: " + sentence(fitting[0]))


def _part(entry: Entry, wordnet: WordNet, rng: random.Random) -> Row | None:
    if not entry.sole_part:
        return None
    part = entry.synset.part_of_speech
    answer = f'"{entry.word}" is {article(part)} {part}.'
    if rng.random() < 0.5:
        return Row("Is this word a noun, a verb, an adjective or an adverb?", entry.word, answer)
    return Row(f'What part of speech is "{entry.word}"?', "", answer)


def _kind(entry: Entry, wordnet: WordNet, rng: random.Random) -> Row | None:
    parents = [wordnet.synsets[key] for key in entry.synset.hypernyms if key in wordnet.synsets]
    if not parents or entry.synset.part_of_speech != "noun":
        return None
    word, kind = entry.word, parents[0].words[0]
    answer = f"{article(word).capitalize()} {word} is a kind of {kind}."
    return Row(f"What kind of thing is {article(word)} {word}?", "", answer)


def _synonym(entry: Entry, wordnet: WordNet, rng: random.Random) -> Row | None:
    others = [word for word in entry.synset.words if word != entry.word]
    if not others:
        return None
    answer = f'Another word for "{entry.word}" is "{others[0]}".'
    if rng.random() < 0.5:
        return Row("Give a synonym.", entry.word, answer)
    return Row(f'What is another word for "{entry.word}"?', "", answer)


def _opposite(entry: Entry, wordnet: WordNet, rng: random.Random) -> Row | None:
    for own, key, index in entry.synset.antonyms:
        opposite = wordnet.opposite(key, index)
        if own == entry.word and opposite:
            answer = f'The opposite of "{entry.word}" is "{opposite}".'
            return Row(f'What is the opposite of "{entry.word}"?', "", answer)
    return None


def _capitals(entry: Entry, wordnet: WordNet, rng: random.Random) -> Row:
    answer = f'In capital letters: "{entry.word.upper()}".'
    return Row("Write the word in capital letters.", entry.word, answer)


def _first_letter(entry: Entry, wordnet: WordNet, rng: random.Random) -> Row:
    letter = entry.word[0].upper()
    answer = f'The word "{entry.word}" begins with the letter {letter}.'
    return Row(f'With which letter does "{entry.word}" begin?', "", answer)


TASKS: tuple[Task, ...] = (
    _meaning,
    _example,
    _word,
    _part,
    _meaning,
    _kind,
    _synonym,
    _capitals,
    _word,
    _opposite,
    _first_letter,
)
"""What is asked, in turn."""
