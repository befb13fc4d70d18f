"""Values of parameters as TOML holds them and as people read them. No dependencies: every client loads it."""

import json
import re
import tomllib
from collections.abc import Mapping
from decimal import Decimal
from typing import Any

Scalar = bool | int | float | str
"""A value of one parameter as TOML can hold it."""


def read_toml(text: str) -> Any:
    """Read one TOML value; text that is none is returned as it is (validation then names it)."""
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text


def names_in(text: str | None) -> list[str]:
    """The names in a text that separates them by commas; none where it is empty or None."""
    return [name.strip() for name in (text or "").split(",") if name.strip()]


def number(value: float) -> str:
    """A bound or a value as people write it: 5, 0.1, 0.0002 as 2e-4; a float reads it back exactly."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int) or (float(value).is_integer() and abs(value) < 1e6):
        return str(int(value))
    text = f"{value:.6g}"
    if float(text) != value:
        text = repr(float(value))
    if "e" not in text and 0 < abs(value) < 0.01:
        short = f"{Decimal(text).normalize():e}"
        text = short if len(short) <= len(text) else text
    mantissa, _, exponent = text.partition("e")
    return f"{mantissa}e{int(exponent)}" if exponent else text


def toml_value(value: Any) -> str:
    """A value as it stands in a profile; None as "not set"."""
    if value is None:
        return "not set"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return number(value)
    if isinstance(value, list | tuple):
        return "[" + ", ".join(toml_value(v) for v in value) + "]"
    if isinstance(value, Mapping):
        return "{ " + ", ".join(f"{_key(k)} = {toml_value(v)}" for k, v in value.items()) + " }"
    # JSON's strings are TOML's, but for the one control character that JSON lets stand.
    return json.dumps(str(value), ensure_ascii=False).replace("\x7f", "\\u007f")


def _key(name: str) -> str:
    return name if re.fullmatch(r"[A-Za-z0-9_-]+", name) else toml_value(name)
