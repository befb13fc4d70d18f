"""Text of others to be read, made harmless for a terminal; `tui.data_view` spells out text to be inspected. Pure."""

import re
import unicodedata

_PICTURES = 0x2400
"""Unicode shows the control character n as the sign 0x2400 + n."""
_REORDERING = re.compile("[\u200e\u200f\u202a-\u202e\u2066-\u2069]")
"""What turns the direction of writing round, so that a text reads otherwise than it is."""


def harmless(text: str) -> str:
    """`text` with control characters shown as signs: none can move the cursor, change colours or set a title.

    Line feeds and tabs stay; a carriage return goes, as it would write over the line.
    """
    plain = _REORDERING.sub("", text).replace("\r\n", "\n").replace("\r", "")
    if plain.isprintable():
        return plain
    return "".join(_shown(c) for c in plain)


def _shown(character: str) -> str:
    if character in "\n\t":
        return character
    code = ord(character)
    if code < 0x20:
        return chr(_PICTURES + code)
    if code == 0x7F or 0x80 <= code < 0xA0:
        return "\u2421" if code == 0x7F else "\ufffd"
    # Half of a pair is no character that could be written.
    return "\ufffd" if unicodedata.category(character) == "Cs" else character
