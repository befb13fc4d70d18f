"""How like an answer is to its reference: exact match, and ROUGE (Lin 2004) as the package rouge_score computes it.

That package's own tokenizer keeps a–z and 0–9 and drops every other script. Ours keeps all: words of scripts that put
spaces between words, and single characters of those that do not (Chinese, Japanese, Thai, Lao, Khmer, Burmese, Tibetan
…), as is usual for ROUGE on Chinese. On plain ASCII both agree.
"""

import re
import unicodedata
from collections.abc import Iterator, Sequence
from typing import Any

_UNSPACED = re.compile(
    "["
    "\u0e00-\u0eff"  # Thai, Lao
    "\u0f00-\u0fff"  # Tibetan
    "\u1000-\u109f"  # Burmese
    "\u1780-\u17ff"  # Khmer
    "\u3040-\u30ff\u31f0-\u31ff"  # kana
    "\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"  # Han
    "\U00020000-\U0003ffff"  # Han, further planes
    "]"
)
NAMES = ("rouge1", "rouge2", "rougeL")


class Words:
    """The tokenizer that rouge_score is given."""

    def tokenize(self, text: str) -> list[str]:
        """Lower-case words, or characters where a script has no spaces."""
        return list(_words(unicodedata.normalize("NFKC", text).casefold()))


def exact_match(answer: str, reference: str) -> bool:
    """Whether both are the same but for white space and the form in which characters are encoded."""
    return _plain(answer) == _plain(reference)


def scorer() -> Any:
    """A rouge_score scorer with our tokenizer."""
    from rouge_score.rouge_scorer import RougeScorer

    return RougeScorer(list(NAMES), tokenizer=Words())


def scores(rouge: Any, answer: str, reference: str) -> dict[str, float]:
    """Exact match (0 or 1) and the F-measures of ROUGE-1, ROUGE-2 and ROUGE-L of one answer."""
    found = rouge.score(reference, answer)
    return {
        "exact_match": float(exact_match(answer, reference)),
        **{name: float(found[name].fmeasure) for name in NAMES},
    }


def means(each: Sequence[dict[str, float]]) -> dict[str, float]:
    """The mean of each score; empty where there is none."""
    if not each:
        return {}
    return {name: sum(one[name] for one in each) / len(each) for name in each[0]}


def _words(text: str) -> Iterator[str]:
    """Runs of letters and digits with the marks that belong to them; a character of an unspaced script is a run of its
    own."""
    word = ""
    for character in text:
        kind = unicodedata.category(character)[0]
        if kind == "M" and word:
            word += character
            continue
        belongs = kind in "LN"
        apart = belongs and (_UNSPACED.match(character) or (word and _UNSPACED.match(word[0])))
        if word and (apart or not belongs):
            yield word
            word = ""
        if belongs:
            word += character
    if word:
        yield word


def _plain(text: str) -> str:
    return " ".join(unicodedata.normalize("NFC", text).split())
