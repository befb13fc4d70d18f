"""Text of a model cannot do anything to a terminal."""

import pytest

from tui.harmless import harmless


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain, größer, 你好 🙂", "plain, größer, 你好 🙂"),
        ("two\nlines\tand a tab", "two\nlines\tand a tab"),
        ("\x1b[31mred\x1b]0;title\x07", "␛[31mred␛]0;title␇"),
        ("over\rwritten\r\n", "overwritten\n"),
        ("back\x08space\x7f", "back␈space␡"),
        ("\x9b31m", "\ufffd31m"),
        ("turned \u202eround", "turned round"),
        ("half \ud83d of a pair", "half \ufffd of a pair"),
    ],
)
def test_control_characters_are_shown_and_not_obeyed(text: str, shown: str) -> None:
    assert harmless(text) == shown
