from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len
from rich.segment import Segment
from rich.style import Style
from textual.strip import Strip

from tui.widgets.lines import changed_span, clean, fit, line, merge, shorten

RED, BOLD, PLAIN = Style(color="red"), Style(bold=True), Style()
pieces = st.lists(
    st.tuples(st.text("ab⣿中e\u0301 ", max_size=4), st.sampled_from([RED, BOLD, PLAIN])), max_size=6
)


def cells(strip: Strip) -> list[tuple[str, Style | None]]:
    """What stands in each cell: text that begins there, with its style."""
    result: list[tuple[str, Style | None]] = []
    for segment in strip:
        for character in segment.text:
            if cell_len(character) == 0:
                if result:
                    result[-1] = (result[-1][0] + character, segment.style)
                continue
            result += [(character, segment.style)] + [("", segment.style)] * (
                cell_len(character) - 1
            )
    return result


@given(st.text(), st.integers(0, 30), st.sampled_from(["left", "right", "center"]), st.booleans())
def test_fit_is_exactly_as_wide_as_asked(text, width, align, ascii):
    assert cell_len(fit(text, width, align=align, ascii=ascii)) == width


def test_fit_pads_and_cuts():
    assert fit("ab", 4) == "ab  "
    assert fit("ab", 4, align="right") == "  ab"
    assert fit("ab", 4, align="center") == " ab "
    assert fit("abcdef", 4) == "abc…"
    assert fit("abcdef", 4, ascii=True) == "abc~"


@given(st.text())
def test_clean_lets_nothing_through_that_moves_the_cursor(text):
    assert not any(ord(c) < 32 or 127 <= ord(c) < 160 for c in clean(text))
    assert len(clean(text)) == len(text)


def test_clean_disarms_an_escape_sequence():
    assert clean("a\x1b[2Jb\nc\u202ed") == "a?[2Jb c?d"


def test_merge_joins_neighbours_of_equal_style():
    merged = merge([("a", RED), ("b", RED), ("", BOLD), ("c", RED), ("d", BOLD)])
    assert merged == [Segment("abc", RED), Segment("d", BOLD)]


@given(pieces, pieces, st.integers(1, 12))
def test_a_terminal_patched_in_the_changed_span_shows_the_new_line(old_pieces, new_pieces, width):
    old, new = line(old_pieces, width, PLAIN), line(new_pieces, width, PLAIN)
    span = changed_span(old, new)
    start, end = span or (width, width)
    assert span is None or 0 <= start < end <= width
    assert cells(old)[:start] == cells(new)[:start]
    assert cells(old)[end:] == cells(new)[end:]


def test_only_the_changed_number_is_in_the_span():
    old = line([("trial 3  loss ", PLAIN), ("2.41", RED), ("  running", PLAIN)], 40, PLAIN)
    new = line([("trial 3  loss ", PLAIN), ("2.39", RED), ("  running", PLAIN)], 40, PLAIN)
    assert changed_span(old, new) == (16, 18)
    assert changed_span(old, old) is None


def test_pieces_that_are_cut_off_say_so() -> None:
    plain = Style.null()
    cut = [("abc", plain), ("  ", plain), ("defg", plain), ("  ", plain)]

    def shown(width: int, *, ascii: bool = False) -> str:
        return "".join(text for text, _ in shorten(cut, width, ascii=ascii))

    assert [shown(width) for width in (0, 1, 3, 4, 8)] == ["", "…", "ab…", "abc…", "abc  de…"]
    assert shown(8, ascii=True) == "abc  de~"
    assert shown(9).rstrip() == shown(10).rstrip() == shown(40).rstrip() == "abc  defg"
