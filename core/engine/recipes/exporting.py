"""How a step's result becomes a model of its own: the process `_export` is asked, and waited for."""

import os
import select
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import msgspec

from core.engine.after import last_words
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

LOOKS_EVERY = 0.5
"""Seconds between two looks at whether the export is still wanted."""


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
    with tempfile.TemporaryFile() as said:
        try:
            process = subprocess.Popen(
                command(), stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=said
            )
        except OSError as error:
            raise HandoverError(f"the export cannot be started: {error.strerror}") from None
        with process:
            try:
                reply = _reply(process, encode(request), wanted)
            finally:
                if process.poll() is None:
                    process.terminate()
        if reply is None:
            said.seek(0)
            raise HandoverError(last_words("_export", process.returncode, said.read()))
    if isinstance(reply, Failure):
        raise HandoverError(f"the weights could not be exported: {reply.reason}")
    return reply.bytes


def _reply(
    process: "subprocess.Popen[bytes]", request: bytes, wanted: Callable[[], bool]
) -> ExportReply | Failure | None:
    """What the process answers in the end; None where it ended without an answer.

    Raises:
        HandoverError: the export is not wanted any more.
    """
    assert process.stdin is not None and process.stdout is not None
    try:
        process.stdin.write(request)
        process.stdin.flush()
    except BrokenPipeError:
        return None
    heard = b""
    fd = process.stdout.fileno()
    while True:
        if not wanted():
            raise HandoverError("the export was ended: the recipe is to rest", wanted=True)
        if not select.select([fd], [], [], LOOKS_EVERY)[0]:
            continue
        data = os.read(fd, 65_536)
        if not data:
            return None
        *lines, heard = (heard + data).split(b"\n")
        for line in lines:
            answer = _understood(line)
            if isinstance(answer, ExportReply | Failure):
                return answer


def _understood(line: bytes) -> Reply | None:
    try:
        return decode_reply(line)
    except msgspec.DecodeError:
        return None
