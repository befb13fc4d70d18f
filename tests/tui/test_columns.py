"""Two answers side by side, each row written once."""

from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len

from tui.columns import Column, Columns, wrap


def test_lines_break_at_spaces_and_long_words_where_they_must() -> None:
    assert wrap("one two three", 7) == ["one two", "three"]
    assert wrap("abcdefgh", 3) == ["abc", "def", "gh"]
    assert wrap("one\n\ntwo", 10) == ["one", "", "two"]
    assert wrap("", 5) == [""]


def test_wide_characters_take_two_cells() -> None:
    assert wrap("你好世界", 4) == ["你好", "世界"]


@given(st.text(alphabet="ab 你\n", max_size=60), st.integers(3, 12))
def test_no_line_is_wider_than_its_column_and_no_letter_is_lost(text: str, width: int) -> None:
    lines = wrap(text, width)
    assert all(cell_len(line) <= width for line in lines)
    assert "".join("".join(lines).split()) == "".join(text.split())


@given(
    st.text(alphabet="ab 你\n", max_size=60),
    st.lists(st.integers(1, 7), min_size=1),
    st.integers(3, 12),
)
def test_a_text_in_pieces_is_wrapped_as_the_whole(text: str, cuts: list[int], width: int) -> None:
    column = Column(width)
    rest = text
    while rest:
        for size in cuts:
            column.add(rest[:size])
            rest = rest[size:]
    column.end()
    assert [line for line in column.lines if line] == [line for line in wrap(text, width) if line]


def test_a_row_is_given_once_neither_side_can_change_it() -> None:
    left, right = Column(10), Column(10)
    both = Columns([left, right])
    left.add("one two three four")
    assert both.take() == []
    right.add("short")
    assert both.take() == []
    right.end()
    assert both.take() == ["one two     short"]
    left.end()
    assert both.take() == ["three four"]
    assert both.take() == []
