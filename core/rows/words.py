"""How a value and a row's fields are named to a person, and reading one field that must be text."""

import json
from collections.abc import Mapping
from itertools import islice
from typing import Any

from core.errors import DataError
from core.rows.row import Row

_KINDS = {
    bool: "true or false",
    int: "a number",
    float: "a number",
    list: "a list",
    dict: "an object",
    str: "text",
}


_MOST_NAMES = 12
"""Names of fields that are told."""
_SHORT = 20
"""Characters of a value that is shown as it is."""


def kind(value: Any) -> str:
    """What a value is, in words."""
    return "empty (null)" if value is None else _KINDS.get(type(value), type(value).__name__)


def shown(value: Any) -> str:
    """A short value as it stands there, any other in words."""
    text = json.dumps(value) if isinstance(value, str | int | float) else ""
    return text if 0 < len(text) <= _SHORT else kind(value)


def names(fields: Mapping[str, Any]) -> str:
    """The names of fields, in words: the first ones where they are many."""
    told = ", ".join(str(name) for name in islice(fields, _MOST_NAMES)) or "no fields"
    more = len(fields) - _MOST_NAMES
    return f"{told} and {more:,} more" if more > 0 else told


def are_missing(missing: list[str]) -> str:
    return f"{' and '.join(missing)} {'is' if len(missing) == 1 else 'are'} missing"


def lacks(row: Row, missing: list[str], expected: str) -> DataError:
    """The error of a row without some fields; `expected` says what rows of its kind have."""
    return DataError(
        f"{row.place}: {are_missing(missing)} (the row has {names(row.fields)}); {expected}"
    )


def text_of(row: Row, name: str | None, *, optional: bool = False) -> str:
    """The text in a field; "" where it is optional and is not there.

    Raises:
        DataError: it is not there, or is no text.
    """
    value = None if name is None else row.fields.get(name)
    if value is None and optional:
        return ""
    if isinstance(value, str):
        return value
    raise DataError(f"{row.place}: {name} must be text, and is {kind(value)}; {as_text(value)}")


def as_text(value: Any) -> str:
    """What to do with a value where text is wanted."""
    if value is None:
        return "write it, or take the row out"
    return "put it into quotes" if isinstance(value, int | float) else "write it as text"
