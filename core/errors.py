"""What a person can put right: errors whose message is a sentence and needs no traceback."""


class UsageError(Exception):
    """The input is wrong, so that trying again changes nothing. The message says what is and what would be right."""


class DataError(UsageError):
    """A data file, or a row of it, cannot be used."""


def first_line(error: BaseException) -> str:
    """The first line of an exception's message that says anything, without its end's punctuation."""
    lines = (line.strip() for line in str(error).splitlines())
    return next((line for line in lines if line), type(error).__name__).rstrip(".")
