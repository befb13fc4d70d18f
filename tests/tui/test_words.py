"""How numbers, sizes and times are written."""

import math

import pytest

from core.study.state import ENDED, LIVE
from tui import words


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, ""),
        (1.83456, "1.8346"),
        (12.3456, "12.346"),
        (123.456, "123.5"),
        (4321.9, "4322"),
        (2.5e7, "2e+07"),
        (math.nan, "NaN"),
        (math.inf, "inf"),
        (-math.inf, "-inf"),
    ],
)
def test_losses_fit_into_six_characters(value: float | None, text: str) -> None:
    assert words.loss(value) == text and len(text) <= 6


@pytest.mark.parametrize(
    ("value", "text"),
    [(None, ""), (512 * 2**20, "512 MiB"), (11.2 * 2**30, "11.2 GiB"), (140 * 2**30, "140 GiB")],
)
def test_sizes(value: float | None, text: str) -> None:
    assert words.size(None if value is None else int(value)) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(None, ""), (8.4, "8s"), (100, "1m 40s"), (7500, "2h 05m"), (360_000, "4d 4h"), (-3, "0s")],
)
def test_durations(seconds: float | None, text: str) -> None:
    assert words.duration(seconds) == text


def test_a_time_left_changes_seldom() -> None:
    texts = {words.remaining(seconds) for seconds in range(1200, 600, -1)}
    assert len(texts) == 10
    assert words.remaining(3) == "<5s" and words.remaining(None) == ""


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (3e-4, "3e-4"),
        (1.2345678e-5, "1.235e-5"),
        (0.05, "0.05"),
        (16, "16"),
        (True, "true"),
        ("cosine", "cosine"),
        (None, ""),
        (0.0, "0"),
    ],
)
def test_settings_are_read_not_copied(value: object, text: str) -> None:
    assert words.setting(value) == text


def test_every_state_has_a_sign_of_its_own_or_a_word_of_its_own() -> None:
    assert set(words.LOOKS) == {*LIVE, *ENDED, "queued", "paused", "rung"}
    for ascii in (True, False):
        texts = [look.text(ascii=ascii) for look in words.LOOKS.values()]
        assert len(set(texts)) == len(texts) and all(len(text) <= 11 for text in texts)
    assert all(look.text(ascii=True).isascii() for look in words.LOOKS.values())


def test_plurals_and_counts() -> None:
    assert words.plural(1, "study") == "1 study" and words.plural(2, "study") == "2 studies"
    assert words.plural(0, "trial") == "0 trials" and words.plural(3, "process") == "3 processes"
    assert [words.count(n) for n in (950, 4_194_304, 1_100_048_384)] == ["950", "4.19M", "1.1B"]


@pytest.mark.parametrize(
    ("part", "whole", "text"),
    [(1, 1, "100 %"), (99_970, 100_000, "100 %"), (123, 1000, "12.3 %"), (0, 0, "0 %")],
)
def test_shares(part: int, whole: int, text: str) -> None:
    assert words.share(part, whole) == text
