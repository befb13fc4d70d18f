"""What a client says to a study's daemon over its socket, one JSON object a line, and what comes back."""

from typing import Literal

import msgspec

from core.values import Scalar

Command = Literal["stop", "pause", "resume", "retry", "add", "promote", "ping"]


class Request(msgspec.Struct, frozen=True, omit_defaults=True):
    """A client's wish.

    `stop`, `pause` and `resume` are about one trial or, without `trial`, about the study. `retry` gives an ended trial
    another attempt with `changes` on top (by default the fix that was suggested for it, if there is one; `fix` chooses
    among several, counted from 1, and 0 is none of them). `add` plans a trial with the settings `changes`. `promote`
    runs the settings of `trial`, with `changes` on top, as a full training; `continues` lets it go on from the
    checkpoint that the trial kept.
    """

    command: Command
    trial: int | None = None
    changes: dict[str, Scalar] | None = None
    fix: int | None = None
    continues: bool = False


class Reply(msgspec.Struct, frozen=True, omit_defaults=True):
    """The daemon's answer: what it did, or why not, as a sentence; `trial` is the one that was made or meant."""

    ok: bool
    text: str
    trial: int | None = None
