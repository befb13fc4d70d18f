"""The trial's log: its standard output, for people."""


def say(text: str) -> None:
    """A line of the log, at once."""
    print(text, flush=True)
