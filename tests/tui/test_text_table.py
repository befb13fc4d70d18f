"""Tables for output that is no dashboard."""

from tui.text_table import table


def test_columns_stand_under_their_titles_and_what_is_missing_is_a_dash() -> None:
    text = table(("name", "loss", "why"), [("a", "1.5", ""), ("名前", "", "NaN")], right=(1,))
    assert text.splitlines() == ["name  loss  why", "a      1.5", "名前     -  NaN"]
