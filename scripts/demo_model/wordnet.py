"""WordNet's database files as plain records.

The layout of ``data.*``, ``index.*`` and ``cntlist.rev`` is described in the manual pages
wndb(5WN) and cntlist(5WN) that come with the database.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

PARTS_OF_SPEECH = {"noun": "noun", "verb": "verb", "adj": "adjective", "adv": "adverb"}
_FILE_OF_LETTER = {"n": "noun", "v": "verb", "a": "adj", "s": "adj", "r": "adv"}
_FILE_OF_DIGIT = {"1": "noun", "2": "verb", "3": "adj", "4": "adv", "5": "adj"}
_ANTONYM, _HYPERNYM = "!", "@"

_UNFIT = re.compile(
    r"\b(offensive|disparag\w*|slurs?|vulgar\w*|obscen\w*|derogat\w*|sex\w*|genital\w*|penis"
    r"|vagin\w*|intercourse|prostitut\w*|rap(?:e|ed|ist)|erotic\w*|masturbat\w*|feces|excret\w*"
    r"|orgasm\w*|copulat\w*|lewd\w*|whores?|nigg\w*|Negro\w*|Jews?|homosexual\w*|suicid\w*)\b",
    re.IGNORECASE,
)


class SourceError(Exception):
    """The source text is missing or is not what this script reads."""


@dataclass(frozen=True)
class Synset:
    """One meaning: the words that share it, its definition, its example sentences.

    ``hypernyms`` are keys of ``WordNet.synsets``; ``antonyms`` pairs a word of this synset with
    the (key, index of the word) of its opposite.
    """

    key: tuple[str, int]
    words: tuple[str, ...]
    definition: str
    examples: tuple[str, ...]
    hypernyms: tuple[tuple[str, int], ...]
    antonyms: tuple[tuple[str, tuple[str, int], int], ...]

    @property
    def part_of_speech(self) -> str:
        return PARTS_OF_SPEECH[self.key[0]]


@dataclass(frozen=True)
class WordNet:
    """The synsets by key, each word's most usual synset, and how often a word was counted."""

    synsets: dict[tuple[str, int], Synset]
    first_sense: dict[tuple[str, str], tuple[str, int]]
    counts: dict[tuple[str, str], int]

    def opposite(self, key: tuple[str, int], index: int) -> str | None:
        """The word at ``index`` of a synset, or None where that synset was left out."""
        synset = self.synsets.get(key)
        return synset.words[index] if synset else None


def find_folder(paths: list[Path]) -> Path:
    """The folder that holds WordNet's files, at or below one of ``paths``."""
    for path in paths:
        candidates = [path / "data.noun", *sorted(path.rglob("data.noun"))]
        found = next((c for c in candidates if c.is_file()), None)
        if found:
            return found.parent
    names = ", ".join(map(str, paths))
    raise SourceError(
        f"no WordNet database (a file data.noun) at or below {names}; unpack the Debian package "
        "wordnet-base there: apt-get download wordnet-base; dpkg -x wordnet-base*.deb FOLDER"
    )


def load(folder: Path) -> WordNet:
    """Reads the four parts of speech; leaves out proper names and what is unfit for a demo."""
    synsets = {s.key: s for part in PARTS_OF_SPEECH for s in _read_data(folder, part)}
    first = {sense: key for part in PARTS_OF_SPEECH for sense, key in _read_index(folder, part)}
    return WordNet(synsets, {s: k for s, k in first.items() if k in synsets}, _counts(folder))


def _lines(path: Path) -> Iterator[str]:
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
    except OSError as error:
        raise SourceError(f"cannot read {path}: {error.strerror}") from error
    # The licence at the head of each file is indented by two blanks.
    return (line for line in text.split("\n") if line and not line.startswith("  "))


def _read_data(folder: Path, part: str) -> Iterator[Synset]:
    for line in _lines(folder / f"data.{part}"):
        synset = _parse(line, part)
        if synset is not None:
            yield synset


def _parse(line: str, part: str) -> Synset | None:
    record, _, gloss = line.partition(" | ")
    fields = record.split()
    count = int(fields[3], 16)
    words = tuple(_plain(fields[4 + 2 * i]) for i in range(count))
    definition, examples = _split_gloss(gloss.strip())
    proper = any(word[:1].isupper() or word[:1].isdigit() for word in words)
    if proper or not definition or not gloss.isascii() or _UNFIT.search(" ".join((gloss, *words))):
        return None
    at = 4 + 2 * count
    pointers = [fields[at + 1 + 4 * i : at + 5 + 4 * i] for i in range(int(fields[at]))]
    hypernyms = tuple(
        (_FILE_OF_LETTER[letter], int(offset))
        for symbol, offset, letter, _ in pointers
        if symbol == _HYPERNYM
    )
    antonyms = tuple(
        (
            words[int(ends[:2], 16) - 1],
            (_FILE_OF_LETTER[letter], int(offset)),
            int(ends[2:], 16) - 1,
        )
        for symbol, offset, letter, ends in pointers
        if symbol == _ANTONYM
    )
    return Synset((part, int(fields[0])), words, definition, examples, hypernyms, antonyms)


def _plain(lemma: str) -> str:
    """``ice_cream`` → ``ice cream``; ``galore(ip)`` → ``galore`` (a mark of its position)."""
    return re.sub(r"\((?:a|p|ip)\)$", "", lemma).replace("_", " ")


def _split_gloss(gloss: str) -> tuple[str, tuple[str, ...]]:
    """The definition and the example sentences; quotations of an author are left out."""
    definition = gloss.split('; "')[0].split(' "')[0].strip(" ;:,")
    # A field of knowledge in front, such as "(computer science)", is no part of the sentence.
    definition = re.sub(r"^\([^)]*\) *", "", definition)
    examples = re.findall(r'"([^"]+)"(?!\s*-)', gloss)
    kept = tuple(e.strip() for e in examples if len(e.split()) >= 3 and "`" not in e)
    clear = not re.search(r"[\"`]|\bused\b.*\b(?:phrase|prefix|suffix|combination)", definition)
    return definition if clear else "", kept


def _read_index(folder: Path, part: str) -> Iterator[tuple[tuple[str, str], tuple[str, int]]]:
    for line in _lines(folder / f"index.{part}"):
        fields = line.split()
        senses = int(fields[2])
        yield (fields[0].replace("_", " "), part), (part, int(fields[-senses]))


def _counts(folder: Path) -> dict[tuple[str, str], int]:
    """How often each (word, part) occurs in WordNet's sense-tagged texts."""
    counts: Counter[tuple[str, str]] = Counter()
    for line in _lines(folder / "cntlist.rev"):
        sense, _, count = line.split()
        lemma, _, rest = sense.partition("%")
        counts[lemma.replace("_", " "), _FILE_OF_DIGIT[rest[0]]] += int(count)
    return dict(counts)
