"""What a person can put right: errors whose message is a sentence and needs no traceback. Those of data are known to
clients as well (`core.errors`)."""

from core.errors import DataError, UsageError, first_line

__all__ = ["DataError", "ModelError", "SettingsError", "UsageError", "first_line"]


class ModelError(UsageError):
    """The model or its tokenizer cannot be loaded, or cannot be trained as asked."""


class SettingsError(UsageError):
    """A setting cannot work on this device, with these libraries or with this data."""
