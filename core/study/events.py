"""What can happen to a study: the records of its journal, one type each.

A *request* (`TrialStarting`, `TrialAsked`) is written before the act that it announces, so that a daemon that comes
after a crash knows what may have been done.
"""

from typing import Literal

import msgspec

from core.study.files import ProcessRecord
from core.values import Scalar

JOURNAL_VERSION = 3
"""The version of the journal's records that this program writes and the newest that it reads."""

StudyStatus = Literal["running", "paused", "stopped", "finished"]
TrialKind = Literal["probe", "full", "range"]
"""A shortened trial, the full training, or a learning-rate range test."""
Source = Literal["search", "portfolio", "confirm", "user", "promote"]
"""Who wanted a trial: the search, its list of known-good settings, a second run of a winner, or a person."""
Ending = Literal[
    "completed", "paused", "rung", "diverged", "oom", "failed", "stopped", "lost", "skipped"
]
"""How an attempt ended. `rung`: it came to its rung, saved a checkpoint and waits for a decision. `lost`: neither the
worker nor its shim could say. `skipped`: it was proven not to fit and was never started."""
Asked = Literal["pause", "stop"]
Asker = Literal["user", "guard", "study"]
Advice = Literal["start", "fit", "fix"]
"""What memory is looked into for: whether an attempt fits before it starts, which batch fits best, or what mends an
ending for lack of memory."""
Numerics = Literal["equivalent", "different"]


class Event(msgspec.Struct, frozen=True, kw_only=True, tag_field="event", omit_defaults=True):
    """One record; `t` is in seconds since the epoch."""

    t: float


class StudyCreated(Event, frozen=True, kw_only=True, tag="study-created"):
    version: int
    name: str
    tunedeck: str
    """The program's version."""
    rank_by: str
    """The metric that decides: eval_loss, loss, loss_fall or another that trials log."""
    direction: Literal["min", "max"] = "min"
    """Whether a small or a large value of it is good."""
    planned: int
    """How many trials the search will run at most."""
    strategy: Literal["grid", "random", "bayesian", "portfolio"] = "random"
    stopping: Literal["none", "halving", "asha"] = "none"
    choice: str = ""
    """Why the search is run so, in a line for people."""


class StudyChanged(Event, frozen=True, kw_only=True, tag="study-changed"):
    status: StudyStatus
    reason: str = ""
    search: bool | None = None
    """Whether the search goes on: trials are proposed, decided about at rungs and confirmed. None leaves that as it is,
    so that a training which is added to a stopped study does not wake its search."""


class SearchPlanned(Event, frozen=True, kw_only=True, tag="search-planned"):
    """The search runs another number of trials than was planned."""

    planned: int
    reason: str = ""


class DaemonStarted(Event, frozen=True, kw_only=True, tag="daemon-started"):
    process: ProcessRecord


class TrialAdded(Event, frozen=True, kw_only=True, tag="trial-added"):
    """A trial is planned; it is queued with this record."""

    trial: int
    settings: dict[str, Scalar]
    """What differs from the profile: parameter name → value."""
    kind: TrialKind = "probe"
    source: Source = "search"
    parent: int | None = None
    """The trial whose settings it continues with."""
    sampled: dict[str, Scalar] = {}
    """The point of the search space that it stands for; `settings` hold what follows from it besides (a held ratio, a
    scaled rate). Empty where nothing was drawn."""
    until: float = 1.0
    """The share of the probe after which it waits at a rung; 1 runs to the end."""
    continues: str | None = None
    """The checkpoint that a full training continues from, relative to the study's folder: its probe's last one."""


class TrialQueued(Event, frozen=True, kw_only=True, tag="trial-queued"):
    """A trial that has ended or was paused gets another attempt."""

    trial: int
    attempt: int
    overrides: dict[str, Scalar] = {}
    """What this attempt and later ones change on top of the settings (memory fixes)."""
    resume_from: str | None = None
    reason: str = ""
    until: float | None = None
    """Another share of the probe that it is sent to; None leaves it."""
    unchecked: bool = False
    """It starts without another look at whether it fits: a person wants it, or its fix was chosen with that known."""


class AdviceAsked(Event, frozen=True, kw_only=True, tag="advice-asked"):
    """A trial's memory is looked into; the trial waits for it."""

    trial: int
    attempt: int
    about: Advice


class AdviceGiven(Event, frozen=True, kw_only=True, tag="advice-given"):
    """What came out of it; records of what is done about it follow."""

    trial: int
    attempt: int
    about: Advice
    text: str
    overrides: dict[str, Scalar] = {}
    """The batch that fits best (about "fit"): this attempt and later ones run with it."""


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
    value: float | None = None
    """The last value of what the study ranks by; None where there is none or it is not finite."""
    noise: float | None = None
    """How far off that value may be by chance, as the curve tells; None where that is not known."""
    tokens: int | None = None
    """Tokens trained on so far, padding left out."""
    peak_memory: int | None = None
    """The most that was allocated at once, bytes."""
    peak_reserved: int | None = None
    """The most that the CUDA allocator had taken from the GPU, bytes."""
    forecast: int | None = None
    """What `peak_memory` was forecast to be, bytes; only of an attempt that ran on a GPU."""
    proven: bool = False
    """Whether the forecast came from a dry run."""
    checkpoint: str | None = None
    seconds: float = 0.0
    """How long the attempt ran."""
    usage_error: bool = False


class FixOption(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One way out of memory trouble. All sizes are bytes."""

    changes: dict[str, Scalar]
    text: str
    needed: int
    """What the device must have free for the run with it, the process itself included."""
    headroom: int
    """What it leaves of the capacity that there is."""
    slowdown: tuple[float, float]
    """The time per token as a factor of today's, from and to; 1.0 is as fast as now."""
    source: str = ""
    """Where the slowdown's figures come from."""
    numerics: Numerics = "equivalent"
    """`different`: another run than the one that was asked for, never made unless a person chooses it."""
    effect: str = ""
    """What it does to the result."""
    proven: bool = False
    """Whether a dry run shows that it fits, and not a sum."""


class FixSuggested(Event, frozen=True, kw_only=True, tag="fix-suggested"):
    """A way out of memory trouble for a trial, not yet tried."""

    trial: int
    attempt: int
    changes: dict[str, Scalar]
    text: str
    fixes: tuple[FixOption, ...] = ()
    """All that were found to fit, least slowdown first; the first one's changes are `changes`. Empty where none could
    be looked for and the remedy is the next rung of the ladder."""


class RungDecided(Event, frozen=True, kw_only=True, tag="rung-decided"):
    """Who goes on from a rung, and who does not."""

    rung: int
    """From 1."""
    at: float
    """The share of the probe at which trials were compared."""
    kept: dict[int, float]
    """Trial → the share of the probe that it goes on to. One that an earlier rung dropped may be among them."""
    dropped: dict[int, str] = {}
    """Trial → why it is not worth going on, in words."""
    text: str = ""
    """The decision in a line for people."""


class TrialStalled(Event, frozen=True, kw_only=True, tag="trial-stalled"):
    """A trial has logged nothing for long, or logs again (`text` is empty then)."""

    trial: int
    attempt: int
    text: str = ""


class Warned(Event, frozen=True, kw_only=True, tag="warned"):
    text: str
    trial: int | None = None


AnyEvent = (
    StudyCreated
    | StudyChanged
    | SearchPlanned
    | DaemonStarted
    | TrialAdded
    | TrialQueued
    | AdviceAsked
    | AdviceGiven
    | TrialStarting
    | TrialStarted
    | TrialAsked
    | TrialEnded
    | FixSuggested
    | RungDecided
    | TrialStalled
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
