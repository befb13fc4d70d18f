"""Values as people read and write them."""

import math
import tomllib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.values import names_in, number, read_toml, toml_value

scalars = (
    st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(codec="utf-8"))
)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (5, "5"),
        (5.0, "5"),
        (0.1, "0.1"),
        (3e-05, "3e-5"),
        (0.0002, "2e-4"),
        (6e-4, "6e-4"),
        (0.0015, "1.5e-3"),
        (0.05, "0.05"),
        (1e22, "1e22"),
        (-0.001, "-1e-3"),
        (0.0, "0"),
        (True, "true"),
    ],
)
def test_numbers_are_written_as_people_write_them(value: float, text: str) -> None:
    assert number(value) == text


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_a_written_number_is_read_back_exactly(value: float) -> None:
    assert float(number(value)) == value


@given(
    scalars
    | st.lists(scalars, max_size=4)
    | st.dictionaries(st.text(st.characters(codec="utf-8"), max_size=6), scalars, max_size=3)
)
def test_a_value_survives_the_way_to_toml_and_back(value: object) -> None:
    assert read_toml(toml_value(value)) == value


def test_the_delete_character_and_odd_names_are_escaped() -> None:
    assert read_toml(toml_value({"a \x7f": "\x7f"})) == {"a \x7f": "\x7f"}


def test_text_that_is_no_toml_comes_back_as_it_is() -> None:
    assert read_toml("cosine") == "cosine"
    assert read_toml("[1, 2") == "[1, 2"


@given(st.text(max_size=20))
def test_any_text_can_be_read(text: str) -> None:
    read_toml(text)


def test_not_set_is_said_in_words() -> None:
    assert toml_value(None) == "not set"


def test_a_whole_float_may_become_a_whole_number() -> None:
    value = tomllib.loads(f"a = {toml_value(3.0)}")["a"]
    assert math.isclose(value, 3.0)


def test_names_stand_between_commas_and_empty_ones_are_none() -> None:
    assert names_in(" a, b ,,c,") == ["a", "b", "c"]
    assert names_in(None) == names_in(" , ") == []
