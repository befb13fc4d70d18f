"""Reads the settings of a trial as a person types them: `learning_rate=3e-4 lora_rank=16`."""

import re
from collections.abc import Mapping

from core.catalogue import UnknownParameterError, find
from core.values import Scalar

_PAIR = re.compile(r"^([A-Za-z_.]+)=(.+)$")


class SettingsError(ValueError):
    """The text does not say the settings of a trial; the message says why and what would."""


def parse_settings(text: str) -> dict[str, Scalar]:
    """The settings that `text` says, by parameter name; pairs stand apart by blanks or commas.

    Raises:
        SettingsError: a pair is not one, a name is not known, or a value is not allowed.
    """
    settings: dict[str, Scalar] = {}
    for word in re.split(r"[\s,]+", text.strip()):
        if not word:
            continue
        name, value = _pair(word)
        if name in settings:
            raise SettingsError(f"{name} is given twice")
        settings[name] = value
    if not settings:
        raise SettingsError("nothing is set yet: learning_rate=3e-4, for example")
    return settings


def _pair(word: str) -> tuple[str, Scalar]:
    match = _PAIR.match(word)
    if match is None:
        raise SettingsError(f"{word!r} is no setting: write name=value")
    try:
        parameter = find(match.group(1))
    except UnknownParameterError as error:
        raise SettingsError(str(error)) from None
    if not parameter.searchable:
        raise SettingsError(f"{parameter.key} cannot differ between the trials of a study")
    try:
        value: Scalar | None = parameter.parse(match.group(2))
    except ValueError as error:
        raise SettingsError(f"{parameter.name}: {error}") from None
    if value is None:
        raise SettingsError(f"{parameter.name}: a value is needed")
    return parameter.name, value


def problem(text: str) -> str | None:
    """What is wrong with the settings in `text`; None where nothing is."""
    try:
        parse_settings(text)
    except SettingsError as error:
        return str(error)
    return None


def settings_text(settings: Mapping[str, Scalar]) -> str:
    """Settings as `parse_settings` reads them."""
    return " ".join(
        f"{k}={str(v).lower() if isinstance(v, bool) else v}" for k, v in settings.items()
    )
