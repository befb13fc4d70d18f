"""Reads how a trial ended and tells a real out-of-memory ending from every other.

Evidence is taken only where an allocator or the kernel speaks: the type and message of the error
that the worker reported, the last lines of its log when it died without a report, and the
kernel's own count of kills. Text that merely talks of memory, in the training data say, is none.
What nobody told stays None.
"""

from __future__ import annotations

import re
import signal
from dataclasses import dataclass, replace
from typing import Literal

from core.memory.endings.log import last_errors, last_lines, warnings_of_nccl
from core.memory.endings.messages import (
    UNITS,
    Sizes,
    Wording,
    read_sizes,
    recognise,
    recognise_line,
)
from core.memory.endings.messages import OomKind as OomKind
from core.memory.forecast import Moment

REAL_SHARE = 0.05
"""Less than this share of the memory explains no ending: neither scattered remains nor a neighbour."""

_PHASE_MOMENTS: dict[str, Moment] = {"load": "load", "eval": "eval", "save": "save"}
_WHEN: dict[Moment, str] = {
    "load": "while loading the model",
    "forward": "in the forward pass",
    "backward": "in the backward pass",
    "optimizer": "in the optimizer's step",
    "eval": "in an evaluation",
    "save": "while saving",
}
_CHILD_KILLED = re.compile(
    r"DataLoader worker \(pid.*\) (is killed by signal: Killed|exited unexpectedly)"
)


@dataclass(frozen=True, slots=True)
class Evidence:
    """What is known of a trial's ending.

    `returncode` is as subprocess gives it (negative for a signal) or as a shell does (128 + n).
    `worker_error_type` may carry its module ("torch.OutOfMemoryError"). `log_tail` is the end of
    the worker's log. The kill counts are the control group's before and after the trial.
    `limit_gib` is the limit that was set on the trial, None without one; it caps the memory of
    `device`, so that a trial on a GPU has no limit in main memory. `moment` is the part of the run
    in which memory ran out as the worker says, `phase` what it was doing ("load", "train", "eval").
    `held_bytes` is the most that the trial was seen to hold.
    """

    returncode: int | None = None
    signal: int | None = None
    worker_error_type: str | None = None
    worker_error_message: str | None = None
    log_tail: str = ""
    oom_kills_before: int | None = None
    oom_kills_after: int | None = None
    limit_gib: float | None = None
    device: Literal["cuda", "cpu"] = "cpu"
    moment: Moment | None = None
    phase: str | None = None
    held_bytes: int | None = None

    @property
    def host_limit_gib(self) -> float | None:
        """The limit on the trial's main memory, GiB."""
        return self.limit_gib if self.device == "cpu" else None


@dataclass(frozen=True, slots=True)
class OomVerdict:
    """An out-of-memory ending; all sizes in bytes, None where nobody told them.

    `capacity_bytes` is what there was to share (the GPU's memory or the trial's limit),
    `held_bytes` what the trial itself held, `message` a plain sentence or two for the user.
    """

    kind: OomKind
    asked_bytes: int | None
    capacity_bytes: int | None
    free_bytes: int | None
    held_bytes: int | None
    message: str
    others_bytes: int | None = None
    """About what other processes held of the device."""
    unusable_bytes: int | None = None
    """What the trial's allocator had reserved and could not use for the request."""
    fragmented: bool | None = None
    """Whether the request would have fit into what was free and unusable together."""
    whose: Literal["ours", "others"] | None = None
    """Whose memory was in the way: `others` where the request would have fit without them."""
    moment: Moment | None = None
    """In which part of the run."""
    asked_by: str = ""
    """Which library asked, empty for PyTorch itself and where nobody says."""
    certain: bool = True
    """False where the error mostly means memory, and sometimes something else."""


@dataclass(frozen=True, slots=True)
class _Reading:
    """What was found: the wording that counts, the whole message, and where it happened."""

    wording: Wording
    message: str
    moment: Moment | None


def read_ending(evidence: Evidence) -> OomVerdict | None:
    """What the trial ran out of, or None when it ended of something else."""
    if evidence.returncode == 0:
        return None
    if evidence.worker_error_type is not None:
        reading = _from_report(evidence, evidence.worker_error_type)
        if reading is not None:
            return _verdict(reading, evidence)
        if _CHILD_KILLED.match(_bare(evidence)) and _kernel_killed(evidence):
            return _killed("one of the trial's data loading processes", evidence)
        return None
    if _ending_signal(evidence) == signal.SIGKILL:
        # Whoever is killed leaves no last word: older lines in the log explain nothing.
        return _killed("the trial", evidence) if _kernel_killed(evidence) else None
    reading = _from_log(evidence)
    return None if reading is None else _verdict(reading, evidence)


def _from_report(evidence: Evidence, error_type: str) -> _Reading | None:
    message, moment = _bare(evidence), None
    for said in last_errors(evidence.log_tail):
        # A report holds the first line of the message, the log all of them.
        if _name(said.error_type) == _name(error_type) and _continues(said.message, message):
            message, moment = said.message, said.moment
            break
    wording = _recognise(error_type, message, evidence)
    return None if wording is None else _Reading(wording, message, moment)


def _from_log(evidence: Evidence) -> _Reading | None:
    for said in last_errors(evidence.log_tail):
        wording = _recognise(said.error_type, said.message, evidence)
        if wording is not None:
            return _Reading(wording, said.message, said.moment)
    for line in last_lines(evidence.log_tail):
        wording = recognise_line(line, capped=evidence.host_limit_gib is not None)
        if wording is not None:
            return _Reading(wording, line, None)
    return None


def _recognise(error_type: str, message: str, evidence: Evidence) -> Wording | None:
    if message.startswith("NCCL error in: "):
        message = f"{message}\n{warnings_of_nccl(evidence.log_tail)}"
    capped = evidence.host_limit_gib is not None
    return recognise(error_type, message, capped=capped, context=evidence.log_tail)


def _bare(evidence: Evidence) -> str:
    """The reported message without the error's name, which a worker may put before it or in the place of none."""
    message = (evidence.worker_error_message or "").strip()
    name = _name(evidence.worker_error_type or "")
    return "" if message == name else message.removeprefix(f"{name}: ") if name else message


def _name(error_type: str) -> str:
    return error_type.rpartition(".")[2]


def _continues(whole: str, beginning: str) -> bool:
    told, wanted = " ".join(whole.split()), " ".join(beginning.split()).rstrip(".")
    return told.startswith(wanted) if wanted else not told


def _ending_signal(evidence: Evidence) -> int | None:
    if evidence.signal is not None:
        return evidence.signal
    code = evidence.returncode
    if code is None:
        return None
    if code < 0:
        return -code
    return code - 128 if 128 < code < 160 else None


def _kernel_killed(evidence: Evidence) -> bool:
    before, after = evidence.oom_kills_before, evidence.oom_kills_after
    return before is not None and after is not None and after > before


def _moment(evidence: Evidence, logged: Moment | None) -> Moment | None:
    return evidence.moment or _PHASE_MOMENTS.get(evidence.phase or "") or logged


def _killed(whom: str, evidence: Evidence) -> OomVerdict:
    moment = _moment(evidence, None)
    when = f" {_WHEN[moment]}" if moment is not None else ""
    held = evidence.held_bytes
    size = f"; the trial had held up to {human_bytes(held)}" if held else ""
    return OomVerdict(
        kind="host-killed",
        asked_bytes=None,
        capacity_bytes=None,
        free_bytes=None,
        held_bytes=held,
        message=f"The machine's main memory ran out{when} and the kernel killed {whom}{size}.",
        moment=moment,
    )


def _verdict(reading: _Reading, evidence: Evidence) -> OomVerdict:
    sizes = read_sizes(reading.message)
    kind = _kind(reading.wording.kind, sizes, evidence)
    on_gpu = reading.wording.kind == "cuda"
    capacity, held = sizes.total, sizes.held
    if kind == "limit":
        capacity = sizes.allowed
        # The limit is on what the allocator reserves.
        held = sizes.reserved if sizes.reserved is not None else held
        if not on_gpu and evidence.host_limit_gib is not None:
            capacity = int(evidence.host_limit_gib * (1 << 30))
    others = sizes.others if kind == "cuda" else None
    verdict = OomVerdict(
        kind=kind,
        asked_bytes=sizes.asked,
        capacity_bytes=capacity,
        free_bytes=sizes.free,
        held_bytes=held if held is not None else evidence.held_bytes,
        message="",
        others_bytes=others,
        unusable_bytes=sizes.unallocated,
        fragmented=_fragmented(kind, sizes) if on_gpu else None,
        whose=_whose(kind, sizes, others),
        moment=_moment(evidence, reading.moment),
        asked_by=reading.wording.source,
        certain=not reading.wording.probable,
    )
    told = held is not None
    return replace(verdict, message=_sentences(verdict, sizes, measured=not told))


def _kind(kind: OomKind, sizes: Sizes, evidence: Evidence) -> OomKind:
    if kind == "cuda":
        # The allocator names its share only when one was set, and checks it before the device.
        asked, free = sizes.asked, sizes.free
        room = free is None or asked is None or free >= asked
        return "limit" if sizes.allowed is not None and room else "cuda"
    return "limit" if evidence.host_limit_gib is not None else kind


def _fragmented(kind: OomKind, sizes: Sizes) -> bool | None:
    """Whether scattered remains were to blame: a defragmented device would have had the room."""
    asked, unusable, reserved = sizes.asked, sizes.unallocated, sizes.reserved
    if asked is None or unusable is None or reserved is None:
        return None
    free = sizes.free or 0
    if kind == "limit" and sizes.allowed is not None:
        free = min(free, max(0, sizes.allowed - reserved))
    return 0 < unusable >= REAL_SHARE * reserved and asked <= free + unusable


def _whose(kind: OomKind, sizes: Sizes, others: int | None) -> Literal["ours", "others"] | None:
    if kind == "limit":
        return "ours"
    if kind != "cuda" or sizes.held is None:
        return None
    asked, free, total = sizes.asked, sizes.free, sizes.total
    if others and asked is not None and free is not None and total is not None:
        blocked = asked <= free + others and others >= REAL_SHARE * total
        return "others" if blocked else "ours"
    if others is not None:
        return "ours"
    # Nobody told of others: the trial's own share decides.
    return "ours" if total is not None and sizes.held >= 0.8 * total else None


def _sentences(verdict: OomVerdict, sizes: Sizes, *, measured: bool) -> str:
    """The verdict in words; `measured`: what the trial held comes from its own measurements."""
    parts = []
    who = verdict.asked_by or "it"
    if verdict.asked_bytes is not None:
        parts.append(f"{who} asked for {human_bytes(verdict.asked_bytes)} more")
    elif verdict.asked_by:
        parts.append(f"{who} could not get what it asked for")
    if verdict.free_bytes is not None and verdict.kind == "cuda":
        parts.append(f"{human_bytes(verdict.free_bytes)} were free")
    text = _headline(verdict) + (": " + ", ".join(parts) if parts else "")
    holders = _holders(verdict, len(sizes.neighbours), measured)
    if holders:
        text += ("; " if parts else ": ") + holders
    text += "."
    if verdict.fragmented and verdict.unusable_bytes is not None:
        size = human_bytes(verdict.unusable_bytes)
        text += f" Fragmentation: {size} of that are reserved but unusable."
    if verdict.whose == "others":
        whom = "the other process" if len(sizes.neighbours) == 1 else "the other processes"
        text += f" Without {whom} it would have fit."
    return text


def _headline(verdict: OomVerdict) -> str:
    when = f" {_WHEN[verdict.moment]}" if verdict.moment is not None else ""
    capacity = verdict.capacity_bytes
    size = human_bytes(capacity) if capacity is not None else None
    if verdict.kind == "limit":
        return "The trial reached its memory limit" + (f" of {size}" if size else "") + when
    where = "The GPU's memory" if verdict.kind == "cuda" else "The machine's main memory"
    certainly = "is full" if verdict.certain else "is probably full"
    return f"{where} {certainly}{when}" + (f" ({size})" if size else "")


def _holders(verdict: OomVerdict, neighbours: int, measured: bool) -> str:
    parts = []
    if verdict.held_bytes is not None:
        held = "had held up to" if measured else "held"
        parts.append(f"this trial {held} {human_bytes(verdict.held_bytes)}")
    if verdict.others_bytes:
        who = {0: "other processes about", 1: "another process"}.get(
            neighbours, f"{neighbours} other processes"
        )
        parts.append(f"{who} {human_bytes(verdict.others_bytes)}")
    return ", ".join(parts)


def human_bytes(count: int) -> str:
    """A size in the largest binary unit that keeps it at 1 or above: "1.95 GiB", "512 MiB"."""
    for unit in ("TiB", "GiB", "MiB", "KiB"):
        if count >= UNITS[unit]:
            number = f"{count / UNITS[unit]:.2f}".rstrip("0").rstrip(".")
            return f"{number} {unit}"
    return f"{count} bytes"
