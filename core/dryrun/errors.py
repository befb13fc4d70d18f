"""Why a run cannot be proven."""


class CannotProve(Exception):  # noqa: N818 - it is said to a person, not raised at one
    """The message is a sentence that says why, and what to do where something can be done."""
