"""Asks a process for the next settings to try: it loads the sampler, reads what the journal knows, answers and ends.

It never holds the daemon up, and is ended with it; one that outlives a killed daemon ends with its answer.
"""

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import IO

import msgspec

from core.engine.launch import PROGRAM
from core.profile import Profile, ProfileError, dumps
from core.search.constraints import derive
from core.search.metric import signed
from core.search.proposals import ProposeReply, ProposeRequest, Seen, SeenState
from core.search.space import Space, space_of
from core.search.spread import draws
from core.study.events import AnyEvent, SearchPlanned, TrialAdded
from core.study.state import StudyState, Trial
from core.values import Scalar

PATIENCE = 120.0
"""Seconds that a proposal may take. Loading the sampler takes one or two; a slow disk many times as long."""


class ProposalError(Exception):
    """No proposal came; the message says why."""


def proposer_command() -> list[str]:
    """The command of the real process."""
    return [sys.executable, "-P", str(PROGRAM), "_propose"]


@dataclass(slots=True)
class _Running:
    process: subprocess.Popen[bytes]
    said: IO[bytes]
    errors: IO[bytes]
    until: float = field(default=0.0)


class Proposer:
    """The process that proposes now, if any."""

    def __init__(
        self, command: Callable[[], Sequence[str]] = proposer_command, patience: float = PATIENCE
    ) -> None:
        """`patience` is in seconds."""
        self._command = command
        self._patience = patience
        self._running: _Running | None = None

    @property
    def busy(self) -> bool:
        return self._running is not None

    def start(self, request: ProposeRequest) -> None:
        """Ask for settings. Nothing may have been asked for that is not answered yet.

        Raises:
            ProposalError: the process cannot be started.
        """
        try:
            # Files and no pipes: neither side ever waits for the other.
            with tempfile.TemporaryFile() as asked:
                asked.write(msgspec.json.encode(request))
                asked.seek(0)
                said, errors = tempfile.TemporaryFile(), tempfile.TemporaryFile()  # noqa: SIM115
                process = subprocess.Popen(
                    list(self._command()),
                    stdin=asked,
                    stdout=said,
                    stderr=errors,
                    cwd="/",
                    env={**os.environ, "CUDA_VISIBLE_DEVICES": ""},
                    start_new_session=True,
                )
        except OSError as error:
            raise ProposalError(error.strerror or str(error)) from None
        self._running = _Running(process, said, errors, time.monotonic() + self._patience)

    def poll(self) -> ProposeReply | None:
        """The answer, once; None while there is none.

        Raises:
            ProposalError: the process failed, or took too long.
        """
        running = self._running
        if running is None:
            return None
        late = time.monotonic() > running.until
        if running.process.poll() is None and not late:
            return None
        said, errors = _text(running.said), _text(running.errors)
        self.close()
        if late:
            raise ProposalError(f"it took longer than {self._patience:.0f} s")
        try:
            return msgspec.json.decode(said, type=ProposeReply)
        except ValueError:
            lines = errors.decode(errors="replace").split("\n")
            last = next((line.strip() for line in reversed(lines) if line.strip()), "")
            code = running.process.returncode
            raise ProposalError(
                f"it ended with code {code}" + (f": {last[:300]}" if last else "")
            ) from None

    def close(self) -> None:
        """End the process with everything under it."""
        running, self._running = self._running, None
        if running is None:
            return
        # One that has ended has given its number back.
        if running.process.poll() is None:
            os.killpg(running.process.pid, signal.SIGKILL)
            running.process.wait()
        running.said.close()
        running.errors.close()


def request_for(state: StudyState, profile: Profile, count: int) -> ProposeRequest:
    """What the sampler is asked, from the journal alone: the same state gives the same question."""
    space = space_of(profile)
    probes = [(t, _point(t, space)) for t in state.trials.values() if t.kind == "probe"]
    trials = [_seen(t, point, state) for t, point in probes if point]
    return ProposeRequest(
        profile=dumps(profile), trials=trials, count=count, seed=profile.search.seed
    )


def proposed(
    state: StudyState,
    profile: Profile,
    points: Sequence[dict[str, Scalar]],
    until: float,
    now: float,
) -> list[AnyEvent]:
    """The records of the trials for `points`; what was tried or is planned already is left out.

    Where nothing is left of them (a person had added just those), a point is drawn. Without any new point the space
    holds no others, and the search ends with what it has.
    """
    added = _added(state, profile, points, until, now)
    if points and not added:
        added = _added(state, profile, drawn(state, profile, 1), until, now)
    if added:
        return [*added]
    there = len(state.searched())
    reason = f"the space holds nothing else to try: the search ends with {there} trials"
    return [SearchPlanned(t=now, planned=there, reason=reason)]


def _added(
    state: StudyState,
    profile: Profile,
    points: Sequence[dict[str, Scalar]],
    until: float,
    now: float,
) -> list[TrialAdded]:
    known = _known(state, profile)
    added: list[TrialAdded] = []
    for point in points:
        settings = derive(profile, point)
        if settings not in known:
            known.append(settings)
            number = state.next_number() + len(added)
            added.append(
                TrialAdded(t=now, trial=number, settings=settings, sampled=point, until=until)
            )
    return added


def drawn(state: StudyState, profile: Profile, count: int) -> list[dict[str, Scalar]]:
    """Up to `count` settings drawn at random that were not tried, for a search whose sampler fails."""
    known = _known(state, profile)
    points = draws(space_of(profile), profile.search.seed)
    return list(islice((p for p in points if derive(profile, p) not in known), count))


def _known(state: StudyState, profile: Profile) -> list[dict[str, Scalar]]:
    """What trials were made for, as settings and as what the search would make of the same point."""
    space = space_of(profile)
    probes = [t for t in state.trials.values() if t.kind == "probe"]
    added = [_point(t, space) for t in probes if not t.sampled]
    return [t.settings for t in probes] + [derive(profile, point) for point in added if point]


def _point(trial: Trial, space: Space) -> dict[str, Scalar]:
    """The point of the space that a trial stands for; empty where a person asked for what is none.

    What such a trial leaves as the profile has it belongs to its point. One that changes anything besides says nothing
    about the space.
    """
    if trial.sampled:
        return trial.sampled
    profile = space.profile
    own = {axis.name: profile.value(axis.name) for axis in space.axes} | trial.settings
    if any(own[axis.name] is None for axis in space.axes):
        return {}
    point = space.active({axis.name: own[axis.name] for axis in space.axes})
    try:
        same = profile.with_changes(derive(profile, point)) == profile.with_changes(trial.settings)
    except ProfileError:
        return {}
    return point if same else {}


def _seen(trial: Trial, point: dict[str, Scalar], state: StudyState) -> Seen:
    def lower_is_better(value: float | None) -> float | None:
        return None if value is None else signed(value, state.direction)

    rungs = [(r.at, lower_is_better(r.value)) for r in trial.rungs]
    known = tuple((at, value) for at, value in rungs if value is not None)
    value, share = lower_is_better(trial.value), 1.0
    if trial.status != "completed":
        value, share = (known[-1][1], known[-1][0]) if known else (None, 0.0)
    return Seen(sampled=point, value=value, state=_state(trial), share=share, rungs=known)


def _state(trial: Trial) -> SeenState:
    match trial.status:
        case "completed" | "pruned":
            return "completed"
        case "diverged":
            return "diverged"
        case "oom" | "skipped":
            return "running" if trial.advising == "fix" else "oom"
        case "failed" | "stopped" | "lost":
            return "failed"
        case _:
            return "running"


def _text(file: IO[bytes]) -> bytes:
    file.seek(0)
    return file.read()
