"""How a step's result becomes a model of its own: the process `_export` is asked, and waited for."""

import sys
from collections.abc import Callable
from pathlib import Path

from core.engine.after import GRACE_SECONDS, name_of
from core.engine.asking import Asked, AskingError, BabbleError
from core.engine.launch import PROGRAM
from core.study.after import (
    ExportReply,
    ExportRequest,
    Failure,
    Reply,
    Weights,
    decode_reply,
    encode,
)
from core.study.store import TrialFolder


class HandoverError(Exception):
    """A result could not be handed on; the message says why. `wanted`: because a person wanted that."""

    def __init__(self, reason: str, *, wanted: bool = False) -> None:
        super().__init__(reason)
        self.wanted = wanted


def export_command() -> list[str]:
    """The command of the real process."""
    return [sys.executable, "-P", str(PROGRAM), "_export"]


def export_step(
    trial: TrialFolder,
    base: Path | None,
    output: Path,
    wanted: Callable[[], bool],
    command: Callable[[], list[str]] = export_command,
) -> int:
    """Make the weights of a full training a model in the folder `output`, which must not be there; bytes of the model.

    `base` is the model that the training started from; None: the one that its profile names. `wanted` is asked now and
    then; the export ends when it says no. The process ends with this one, as its input does, and leaves the whole model
    or none.

    Raises:
        HandoverError: it could not be done.
    """
    named = None if base is None else str(base)
    weights = Weights(folder=str(trial.output), trial=str(trial.path), base=named)
    request = ExportRequest(weights=weights, output=str(output))
    try:
        with Asked(command(), decode_reply, name_of("_export"), grace=GRACE_SECONDS) as process:
            process.send(encode(request))
            reply = _answer(process, wanted)
    except AskingError as error:
        raise HandoverError(str(error)) from None
    if isinstance(reply, Failure):
        raise HandoverError(f"the weights could not be exported: {reply.reason}")
    return reply.bytes


def _answer(process: Asked[Reply], wanted: Callable[[], bool]) -> ExportReply | Failure:
    """What the process answers in the end.

    Raises:
        AskingError: it ended without an answer.
        HandoverError: the export is not wanted any more.
    """
    while True:
        try:
            reply = process.hear(wanted)
        except BabbleError:
            # A library that speaks spoils no export.
            continue
        if isinstance(reply, ExportReply | Failure):
            return reply
        if reply is None and not wanted():
            raise HandoverError("the export was ended: the recipe is to rest", wanted=True)
        if reply is None:
            raise AskingError(process.last_words())
