"""Examples, lengths and findings in lines of text."""

import unicodedata

import pytest

from core.study.preview import Began, Counted, Finding, Part, Piece, Shown
from tests.tui.fake_data import BEGAN, COUNTED, PAIR, chat, pieces
from tui.data_view import (
    Line,
    Style,
    amount_text,
    bins,
    example_head,
    example_lines,
    finding_text,
    histogram,
    length_text,
    percentile,
    rows_text,
    spelled_out,
)


def text(lines: list[Line]) -> list[str]:
    return ["".join(told for told, _ in line) for line in lines]


def shown(*parts: Part) -> Shown:
    return Shown("x.jsonl, row 1", parts, 1, 1)


def test_what_is_learnt_stands_in_brackets_across_lines() -> None:
    part = Part("", (*pieces("ask", "\n"), *pieces("one", "\n", "two", learnt=True), *pieces("\n")))
    assert text(example_lines(shown(part), Style())) == ["ask↵", "⟦one↵", "two⟧↵"]
    assert text(example_lines(shown(part), Style(brackets=False))) == ["ask↵", "one↵", "two↵"]


def test_colours_know_what_is_learnt_without_brackets() -> None:
    part = Part("", (*pieces("ask "), *pieces("one", learnt=True)))
    assert example_lines(shown(part), Style(brackets=False)) == [
        [("ask ", "text"), ("one", "learnt")]
    ]


def test_ascii_has_nothing_else() -> None:
    row = chat("naïve 数据?", "a\tb  🙂", 1)
    for style in (Style(ascii=True), Style(ascii=True, ids=True)):
        lines = text(example_lines(row, style))
        assert all(line.isascii() for line in lines)
    assert "[[" in "".join(lines) and "\\xef" in "".join(lines) and "\\U0001f642" in "".join(lines)


def test_spaces_that_a_reader_would_not_see_are_marked() -> None:
    part = Part("", pieces(" a b  c \n", "d "))
    assert text(example_lines(shown(part), Style())) == ["·a b··c·↵", "d·"]


def test_a_space_before_a_special_token_is_marked() -> None:
    part = Part("", (*pieces("yes "), *pieces("</s>", special=True)))
    assert text(example_lines(shown(part), Style())) == ["yes·</s>"]


def test_tokens_apart_with_their_numbers() -> None:
    part = Part(
        "", (Piece("数", (5, 6, 7), False), Piece(" is", (8,), True), Piece("\n", (9,), True))
    )
    assert text(example_lines(shown(part), Style(tokens=True))) == ["数⟦·is│↵", "⟧"]
    assert text(example_lines(shown(part), Style(ids=True))) == ["数⟨5+6+7⟩⟦·is⟨8⟩│↵⟨9⟩", "⟧"]


def test_parts_stand_under_their_titles() -> None:
    assert text(example_lines(PAIR, Style())) == [
        "── prompt", "How are you?", "── chosen", "⟦Well, thanks.⟧", "── rejected", "⟦Go away⟧",
    ]  # fmt: skip


def test_of_a_long_row_both_ends_are_shown_and_what_is_not_is_counted() -> None:
    part = Part("", pieces(*(f"{n} " for n in range(1000))))
    lines = text(example_lines(shown(part), Style(most=20)))
    assert lines[1] == "⋯ 980 tokens between are not shown"
    assert lines[0].startswith("0 1 ") and lines[2].rstrip("·").endswith("999")
    assert len(text(example_lines(shown(part), Style(most=None)))) == 1


@pytest.mark.parametrize(
    "evil",
    [
        "\x1b[2J",
        "\x9b31m",
        "\x07",
        "\x08\x08",
        "\r",
        "\u202e",
        "\u2066",
        "\u200b",
        "\ud800",
        "\x7f",
        "\u2028",
    ],
)
def test_nothing_that_a_terminal_obeys_gets_through(evil: str) -> None:
    for told in (
        spelled_out(f"a{evil}b\n"),
        example_head(Shown(f"/x/{evil}.jsonl, row 1", (), 0, 0)),
        finding_text(Finding("cut", "warning", evil, 1, (f"{evil}, row 1",))),
        *text(example_lines(shown(Part(evil, pieces(evil), f"{evil}, row 1")), Style())),
    ):
        kinds = {unicodedata.category(c) for c in told}
        assert not kinds & {"Cc", "Cf", "Cs", "Zl", "Zp"}, repr(told)


def test_bins_have_equal_widths_and_hold_every_row() -> None:
    lengths = dict.fromkeys(range(31, 60), 2)
    made = bins(lengths, 128)
    assert sum(b.rows for b in made) == sum(lengths.values())
    assert len({b.high - b.low for b in made}) == 1 and len(made) <= 8
    assert not any(b.beyond for b in made)


def test_the_cut_off_divides_the_bins() -> None:
    made = bins({100: 5, 500: 4, 501: 3, 900: 1}, 500)
    assert sum(b.rows for b in made if b.beyond) == 4
    assert any(b.high == 500 for b in made)


def test_few_rows_that_are_far_longer_do_not_squeeze_the_rest() -> None:
    made = bins({10: 50, 20: 50, 30: 50, 9000: 1}, 2048)
    assert sum(b.rows for b in made) == 151
    assert sum(b.rows > 0 for b in made if not b.beyond) >= 2 or made[0].rows == 150
    assert made[-1].beyond and made[-1].rows == 1


@pytest.mark.parametrize("width", [20, 36, 96])
def test_bars_fill_the_width_and_mark_the_cut_off(width: int) -> None:
    lines = text(histogram(COUNTED, BEGAN, width, ascii=False, most=8))
    assert all(len(line) == width for line in lines)
    assert sum("cutoff_len" in line for line in lines) == 1
    assert sum("▓" in line for line in lines) == 2


def test_a_bar_is_there_for_a_single_row() -> None:
    counted = Counted(looked=100_001, of=100_001, lengths={10: 100_000, 20: 1})
    lines = text(histogram(counted, BEGAN, 40, ascii=True, most=8))
    assert lines[-1].split()[1] == "#"


def test_texts_are_not_cut_so_that_their_bars_have_no_cut_off() -> None:
    began = Began("pt", "none", 10, 0, 512, packed=True)
    counted = Counted(looked=10, of=10, lengths={900: 10}, tokens=9000, learnt=8990, sequences=18)
    assert not any(
        "cutoff" in line for line in text(histogram(counted, began, 40, ascii=True, most=8))
    )
    assert "cut" not in length_text(counted, began)
    assert "packed into 18 sequences, 97.7 % full" in amount_text(counted, began)


def test_percentiles_are_lengths_that_rows_have() -> None:
    assert percentile({10: 9, 99: 1}, 0.5) == 10
    assert percentile({10: 9, 99: 1}, 0.95) == 99
    assert percentile({}, 0.5) == 0


def test_a_sample_says_that_it_is_one() -> None:
    assert rows_text(Counted(20_000, 1_000_000, {1: 1})) == "of the first 20,000 of 1,000,000 rows"
    assert rows_text(Counted(7, 7, {1: 7})) == "of all 7 rows"


def test_findings_name_rows_by_file() -> None:
    places = ("/a/x.jsonl, row 3", "/a/x.jsonl, row 5", "/a/y.jsonl, row 1")
    found = Finding("duplicates", "warning", "4 of 9 rows are copies", 4, places)
    assert (
        finding_text(found)
        == "4 of 9 rows are copies. First: x.jsonl, rows 3, 5; y.jsonl, row 1, ..."
    )


def test_a_row_in_a_line() -> None:
    row = chat("q", "", 9, used=False, learnt=0, lost=12, evaluation=True, why="empty answer")
    told = example_head(row, 2)
    assert told.startswith("Example 2: questions.jsonl, row 9, ")
    assert "6 scored" in example_head(PAIR, stage="rm")
    assert "12 cut off" in told and "LEFT OUT" in told and "to evaluate on" in told
