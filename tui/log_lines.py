"""The last lines of a log, as they stood on the terminal that it would have been written to. Pure."""

LOG_LINES = 400
"""How many lines are kept at most."""


def log_lines(data: bytes, *, cut: bool) -> tuple[str, ...]:
    """The last lines of a log's bytes. Of a progress bar that redraws itself only the last state is
    kept; `cut` says that the first line may be a part of one."""
    lines = data.decode("utf-8", errors="replace").split("\n")
    if cut and len(lines) > 1:
        lines = lines[1:]
    shown = [line.rstrip("\r").rpartition("\r")[2].rstrip() for line in lines]
    while shown and not shown[-1]:
        shown.pop()
    return tuple(shown[-LOG_LINES:])
