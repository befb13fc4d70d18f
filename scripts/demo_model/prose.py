"""WordNet's entries as short paragraphs of plain English, which the model is pretrained on."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator

from scripts.demo_model.wordnet import Synset, WordNet


def article(word: str) -> str:
    return "an" if word[0] in "aeiou" else "a"


def sentence(text: str) -> str:
    """``text`` with a capital at its start and a stop at its end."""
    text = text.strip()
    return text[:1].upper() + text[1:] + ("" if text[-1:] in ".!?" else ".")


def paragraphs(wordnet: WordNet, seed: int) -> Iterator[str]:
    """One paragraph a synset, in an order and in forms drawn from ``seed``."""
    rng = random.Random(seed)
    synsets = list(wordnet.synsets.values())
    rng.shuffle(synsets)
    for synset in synsets:
        yield _paragraph(synset, wordnet, rng)


def _paragraph(synset: Synset, wordnet: WordNet, rng: random.Random) -> str:
    word = rng.choice(synset.words)
    facts = [rng.choice(_DEFINITIONS)(word, synset)]
    facts += [sentence(example) for example in synset.examples]
    facts += [fact for fact in _relations(word, synset, wordnet) if rng.random() < 0.7]
    head, rest = facts[0], facts[1:]
    rng.shuffle(rest)
    return " ".join([head, *rest])


def _relations(word: str, synset: Synset, wordnet: WordNet) -> Iterator[str]:
    others = [other for other in synset.words if other != word]
    if others:
        listed = ", ".join(others)
        many = len(others) > 1
        yield sentence(
            f"{'other words' if many else 'another word'} for {word} "
            f"{'are' if many else 'is'} {listed}"
        )
    parents = [wordnet.synsets[key] for key in synset.hypernyms if key in wordnet.synsets]
    if parents and synset.part_of_speech == "noun":
        kind = parents[0].words[0]
        yield sentence(f"{article(word)} {word} is a kind of {kind}")
    if parents and synset.part_of_speech == "verb":
        yield sentence(f"to {word} is a way to {parents[0].words[0]}")
    for own, key, index in synset.antonyms:
        opposite = wordnet.opposite(key, index)
        if own == word and opposite:
            yield sentence(f"the opposite of {word} is {opposite}")


def _colon(word: str, synset: Synset) -> str:
    return f"{word} ({synset.part_of_speech}): {synset.definition}."


def _means(word: str, synset: Synset) -> str:
    return f'The {synset.part_of_speech} "{word}" means {synset.definition}.'


def _plain(word: str, synset: Synset) -> str:
    if synset.part_of_speech == "noun":
        return sentence(f"{article(word)} {word} is {synset.definition}")
    if synset.part_of_speech == "verb":
        return sentence(f"to {word} is to {synset.definition}")
    return _means(word, synset)


_DEFINITIONS: tuple[Callable[[str, Synset], str], ...] = (_colon, _means, _plain)
