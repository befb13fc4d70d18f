"""Exact match and ROUGE, also where words are not written in Latin letters."""

import pytest
from rouge_score.rouge_scorer import RougeScorer
from rouge_score.tokenizers import DefaultTokenizer

from core.train.after.rouge import NAMES, Words, exact_match, means, scorer, scores

SENTENCES = (
    ("The cat sat on the mat.", "A cat was sitting on the mat!"),
    ("def add(a, b): return a + b", "def add(x, y):\n    return x + y"),
    ("12 apples, 7 pears", "7 pears and 12 apples"),
    ("", "nothing"),
)


@pytest.mark.parametrize(("answer", "reference"), SENTENCES)
def test_plain_english_scores_as_the_package_itself_scores_it(answer: str, reference: str) -> None:
    own = scorer().score(reference, answer)
    theirs = RougeScorer(list(NAMES), use_stemmer=False).score(reference, answer)
    assert own == theirs
    assert Words().tokenize(answer) == DefaultTokenizer(use_stemmer=False).tokenize(answer)


@pytest.mark.parametrize(
    ("text", "tokens"),
    [
        ("我是语言模型", ["我", "是", "语", "言", "模", "型"]),
        ("GPT是模型 v2", ["gpt", "是", "模", "型", "v2"]),
        ("Größe, Straße!", ["größe", "strasse"]),
        ("Сколько будет?", ["сколько", "будет"]),
        ("ما هي عاصمة مصر؟", ["ما", "هي", "عاصمة", "مصر"]),
        ("हिन्दी में", ["हिन्दी", "में"]),
        ("ｆｕｌｌ", ["full"]),
    ],
)
def test_other_scripts_have_words_too(text: str, tokens: list[str]) -> None:
    assert Words().tokenize(text) == [t.casefold() for t in tokens]


def test_thai_is_compared_character_by_character_with_its_marks() -> None:
    assert Words().tokenize("ใจดี") == ["ใ", "จ", "ดี"]
    assert scores(scorer(), "สวัสดี", "สวัสดี")["rouge1"] == 1.0


def test_a_chinese_answer_that_is_half_right_is_scored_so() -> None:
    found = scores(scorer(), "今天天气好", "今天很热")
    assert 0 < found["rouge1"] < 1
    assert found["exact_match"] == 0.0
    assert RougeScorer(["rouge1"]).score("今天很热", "今天天气好")["rouge1"].fmeasure == 0.0


def test_exact_match_looks_past_white_space_and_encoding() -> None:
    assert exact_match(" The  answer\n", "The answer")
    assert exact_match("e\u0301t\u00e9", "\u00e9t\u00e9")
    assert not exact_match("the answer", "The answer")


def test_means_are_over_answers() -> None:
    assert means([{"a": 0.0, "b": 1.0}, {"a": 1.0, "b": 1.0}]) == {"a": 0.5, "b": 1.0}
    assert means([]) == {}
