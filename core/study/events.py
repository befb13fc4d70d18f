"""What can happen to a study: the records of its journal, one type each.

A *request* (`TrialStarting`, `TrialAsked`) is written before the act that it announces, so that a daemon that comes
after a crash knows what may have been done.
"""

from typing import Literal

import msgspec

from core.study.files import ProcessRecord
from core.values import Scalar

JOURNAL_VERSION = 1
"""The version of the journal's records that this program writes and the newest that it reads."""

StudyStatus = Literal["running", "paused", "stopped", "finished"]
TrialKind = Literal["probe", "full"]
Ending = Literal["completed", "paused", "diverged", "oom", "failed", "stopped", "lost"]
"""How an attempt ended. `lost`: neither the worker nor its shim could say."""
Asked = Literal["pause", "stop"]
Asker = Literal["user", "guard", "study"]


class Event(msgspec.Struct, frozen=True, kw_only=True, tag_field="event", omit_defaults=True):
    """One record; `t` is in seconds since the epoch."""

    t: float


class StudyCreated(Event, frozen=True, kw_only=True, tag="study-created"):
    version: int
    name: str
    tunedeck: str
    """The program's version."""
    rank_by: Literal["eval_loss", "loss"]
    planned: int
    """How many trials the search will run at most."""


class StudyChanged(Event, frozen=True, kw_only=True, tag="study-changed"):
    status: StudyStatus
    reason: str = ""


class DaemonStarted(Event, frozen=True, kw_only=True, tag="daemon-started"):
    process: ProcessRecord


class TrialAdded(Event, frozen=True, kw_only=True, tag="trial-added"):
    """A trial is planned; it is queued with this record."""

    trial: int
    settings: dict[str, Scalar]
    """What differs from the profile: parameter name → value."""
    kind: TrialKind = "probe"
    source: str = "search"
    """Who wanted it: "search", "user", or "promote"."""
    parent: int | None = None
    """The trial whose settings it continues with."""


class TrialQueued(Event, frozen=True, kw_only=True, tag="trial-queued"):
    """A trial that has ended or was paused gets another attempt."""

    trial: int
    attempt: int
    overrides: dict[str, Scalar] = {}
    """What this attempt and later ones change on top of the settings (memory fixes)."""
    resume_from: str | None = None
    reason: str = ""


class TrialStarting(Event, frozen=True, kw_only=True, tag="trial-starting"):
    trial: int
    attempt: int
    device: Literal["cuda", "cpu"]
    gpus: tuple[str, ...] = ()


class TrialStarted(Event, frozen=True, kw_only=True, tag="trial-started"):
    trial: int
    attempt: int
    shim: ProcessRecord


class TrialAsked(Event, frozen=True, kw_only=True, tag="trial-asked"):
    trial: int
    attempt: int
    ask: Asked
    by: Asker
    reason: str = ""


class TrialEnded(Event, frozen=True, kw_only=True, tag="trial-ended"):
    trial: int
    attempt: int
    ending: Ending
    reason: str = ""
    step: int = 0
    total_steps: int = 0
    loss: float | None = None
    """The smoothed training loss at the end, nats per token; None where it is not finite."""
    eval_loss: float | None = None
    """The last evaluation loss, nats per token; None where there is none or it is not finite."""
    peak_memory: int | None = None
    """Bytes."""
    checkpoint: str | None = None
    seconds: float = 0.0
    """How long the attempt ran."""
    usage_error: bool = False


class FixSuggested(Event, frozen=True, kw_only=True, tag="fix-suggested"):
    """A way out of memory trouble for a trial, not yet tried."""

    trial: int
    attempt: int
    changes: dict[str, Scalar]
    text: str


class Warned(Event, frozen=True, kw_only=True, tag="warned"):
    text: str
    trial: int | None = None


AnyEvent = (
    StudyCreated
    | StudyChanged
    | DaemonStarted
    | TrialAdded
    | TrialQueued
    | TrialStarting
    | TrialStarted
    | TrialAsked
    | TrialEnded
    | FixSuggested
    | Warned
)

_decoder = msgspec.json.Decoder(AnyEvent)


class StudyTooNewError(Exception):
    """The study was made by a newer version of tunedeck; nothing in it is touched."""

    def __init__(self, detail: str) -> None:
        super().__init__(detail)
        self.detail = detail

    def __str__(self) -> str:
        return f"this study was made by a newer version of tunedeck ({self.detail}): update tunedeck to open it"


def encode(event: AnyEvent) -> bytes:
    """An event as the body of a journal record."""
    return msgspec.json.encode(event)


def decode(body: bytes) -> AnyEvent:
    """An event from the body of a journal record.

    Raises:
        StudyTooNewError: the record is of a kind or version that this program does not know.
    """
    try:
        event: AnyEvent = _decoder.decode(body)
    except ValueError as error:
        raise StudyTooNewError(f"a record that this version cannot read: {error}") from None
    if isinstance(event, StudyCreated) and event.version > JOURNAL_VERSION:
        raise StudyTooNewError(
            f"journal version {event.version}, this program reads up to {JOURNAL_VERSION}"
        )
    return event
