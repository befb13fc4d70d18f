"""The Python interface: `from core import Study`, `best = Study.from_profile("profile.toml").run()`.

It is a client like the dashboard: the study runs in its engine's own processes, goes on when Python ends, and can be
watched with `tunedeck attach` at the same time. Nothing here imports torch.
"""

import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from core.study.state import StudyState, Trial
from core.study.store import StudyError, StudyReader, describe, find_study, new_folder
from core.values import Scalar

if TYPE_CHECKING:
    from core.profile import Profile

__all__ = ["Progress", "Result", "SearchError", "Study", "resting"]

TICK = 0.5
"""Seconds between two looks at a running study."""


class SearchError(Exception):
    """A search ended without a winner; the message says why, with the same reasons of trials put together."""


@dataclass(frozen=True, slots=True)
class Progress:
    """Where a study stands, each time that something has happened in it. `str()` of it is a line for people."""

    status: str
    """running, paused, stopped or finished."""
    done: int
    """Trials that have ended."""
    planned: int
    live: int
    """Trials that run now."""
    best: dict[str, Scalar] | None
    """The settings of the best trial so far, as far as any completed."""
    value: float | None
    """What the best one has come to, of what the study ranks by."""

    def __str__(self) -> str:
        best = "" if self.value is None else f", best {self.value:.4f}: {describe(self.best or {})}"
        return (
            f"{self.status}: {self.done} of {self.planned} trials ended, {self.live} running{best}"
        )


@dataclass(frozen=True, slots=True)
class Result:
    """What one trial came to."""

    trial: int
    place: int | None
    """From 1, the best; None for one that has no place: it was dropped, failed, or has not ended."""
    tied: bool
    """Whether it differs from its neighbours by no more than chance does."""
    settings: dict[str, Scalar]
    """In what it differs from the profile: parameter name → value."""
    value: float | None
    """Of what the study ranks by; the mean over all runs of these settings where they ran again."""
    loss: float | None
    """The smoothed training loss at its end, nats per token."""
    eval_loss: float | None
    steps: int
    """Updates that it ran."""
    status: str
    """completed, pruned (dropped at a rung), diverged, oom, failed …"""
    reason: str
    """Why it is in this state, in words."""


class Study:
    """A search for good settings: made from a profile with `from_profile`, or taken up again with `open`.

    A study is a folder. Nothing starts before `run` or `start`.
    """

    def __init__(self, profile: "Profile | None", folder: Path) -> None:
        """Use `from_profile` or `open` in place of this."""
        self._profile = profile
        self._folder = folder

    @classmethod
    def from_profile(
        cls,
        profile: str | os.PathLike[str] | Mapping[str, Any],
        *,
        folder: str | os.PathLike[str] | None = None,
        changes: Mapping[str, Any] | None = None,
    ) -> "Study":
        """A study of a profile: a .toml file, the name of a ready-made profile, or the same as a dict of tables.

        `changes` are made to it before it is checked: full key → value, as `{"train.max_steps": 200,
        "search.space.learning_rate": [1e-4, 3e-4]}`. `folder` is where the study is kept, a new folder; by default
        `studies/NAME` (or `$TUNEDECK_STUDIES/NAME`), with a number behind it where that is taken.

        Raises:
            ProfileError: the profile cannot be read, something in it is wrong, or a file that it names is not there;
                the message lists all of it.
        """
        loaded = _loaded(profile, changes or {})
        where = Path(folder) if folder is not None else new_folder(loaded.profile.name)
        return cls(loaded, where)

    @classmethod
    def open(cls, study: str | os.PathLike[str]) -> "Study":
        """A study that exists already: its folder, or its name as `tunedeck studies` lists it.

        Raises:
            StudyError: there is none.
        """
        return cls(None, find_study(os.fspath(study)))

    @property
    def folder(self) -> Path:
        """Where the study lies, or will."""
        return self._folder

    def __repr__(self) -> str:
        return f"<Study {self._folder}>"

    def start(self) -> Path:
        """Start the study's engine, which runs on without this process; returns the study's folder at once.

        One that was started before goes on where it stands: what was paused or stopped by a person stays so.

        Raises:
            StudyError: the folder of a new study exists and is not empty, or cannot be made.
            EngineError: the engine cannot be started.
        """
        from core.engine.client import create_study, daemon_alive, needs_daemon, start_daemon

        if self._profile is not None:
            self._folder = create_study(self._profile, self._folder)
            self._profile = None
            start_daemon(self._folder)
        elif needs_daemon(self._state(), daemon_alive(self._folder)):
            start_daemon(self._folder)
        return self._folder

    def run(
        self,
        *,
        progress: Callable[[Progress], object] | None = None,
        stop_on_interrupt: bool = False,
    ) -> dict[str, Scalar]:
        """Run the study to its end and return the best settings: parameter name → value.

        The dict holds what was searched and what follows from it (a held lora_alpha, a batch that had to be smaller to
        fit); everything else is as the profile says. It is empty where the profile searches nothing. `progress` is
        called with a `Progress` whenever something has happened; `progress=print` will do.

        Ctrl+C ends the waiting and not the study: `Study.open(folder).run()` waits for it again. With
        `stop_on_interrupt` it stops the study as well.

        Raises:
            SearchError: no trial completed, or the study was paused.
            StudyError: the study cannot be made or read.
            EngineError: the engine cannot be started.
            KeyboardInterrupt: Ctrl+C; a note says how to go on.
        """
        self.start()
        try:
            state = self._wait(progress)
        except KeyboardInterrupt as interrupt:
            interrupt.add_note(self._interrupted(stop_on_interrupt))
            raise
        if state.status == "paused":
            raise SearchError(
                f"the study is paused{f' ({state.reason})' if state.reason else ''}: `tunedeck resume {self._folder}` "
                f"lets it go on, and Study.open({str(self._folder)!r}).run() waits for it again"
            )
        return self._best(state)

    def results(self) -> list[Result]:
        """Every trial of the search, best first; those without a place last.

        Raises:
            StudyError: the study has not been started, or cannot be read.
        """
        from core.engine.standing import ranking

        state = self._state()
        found = []
        for ranked in ranking(state):
            trial = state.trials[ranked.trial]
            found.append(
                Result(
                    trial=trial.number,
                    place=ranked.place,
                    tied=ranked.tied,
                    settings=trial.changes,
                    value=ranked.value,
                    loss=trial.loss,
                    eval_loss=trial.eval_loss,
                    steps=trial.step,
                    status=trial.status,
                    reason=trial.reason or ranked.reason or "",
                )
            )
        return found

    def best(self) -> dict[str, Scalar]:
        """The best settings so far, as `run` returns them.

        Raises:
            SearchError: no trial has completed.
            StudyError: the study has not been started, or cannot be read.
        """
        return self._best(self._state())

    def save_best(self, path: str | os.PathLike[str]) -> None:
        """Write the profile that trains fully with the best settings; `tunedeck train PATH` runs it.

        Raises:
            SearchError: no trial has completed.
            StudyError: the study has not been started, or cannot be read.
            OSError: the file cannot be written.
        """
        from core.engine.results import TUNED_COMMENT, trial_profile
        from core.profile import save

        reader = StudyReader(self._folder)
        save(trial_profile(reader, self._winner(reader.state).number), path, comment=TUNED_COMMENT)

    def stop(self) -> None:
        """Stop the study and all its trials; what is there stays. One that was not started or is over is left alone.

        Raises:
            StudyError: the study cannot be read.
            EngineError: the engine cannot be reached.
        """
        from core.engine.client import send
        from core.engine.messages import Request

        if self._profile is None and self._state().status in ("running", "paused"):
            send(self._folder, Request("stop"))

    # -- inside -------------------------------------------------------------------------------

    def _state(self) -> StudyState:
        if self._profile is not None:
            raise StudyError(f"the study {self._folder} has not been started: run() does that")
        return StudyReader(self._folder).state

    def _wait(self, progress: Callable[[Progress], object] | None) -> StudyState:
        """Until nothing runs any more; an engine that dies meanwhile is started again."""
        from core.engine.client import daemon_alive, needs_daemon, start_daemon

        reader = StudyReader(self._folder)
        told: Progress | None = None
        while True:
            state = reader.state
            if progress is not None and (now := _progress(state)) != told:
                told = now
                progress(now)
            if resting(state):
                return state
            if needs_daemon(state, daemon_alive(self._folder)):
                start_daemon(self._folder)
            time.sleep(TICK)
            reader.poll()

    def _interrupted(self, stop: bool) -> str:
        if stop:
            self.stop()
            return f"The study {self._folder} was stopped."
        return (
            f"The study goes on without this process. Wait for it again: Study.open({str(self._folder)!r}).run(); "
            f"end it: tunedeck stop {self._folder}"
        )

    def _best(self, state: StudyState) -> dict[str, Scalar]:
        return dict(self._winner(state).changes)

    def _winner(self, state: StudyState) -> Trial:
        from core.engine.standing import best_trial

        best = best_trial(state)
        if best is None:
            raise SearchError(_no_winner(state, self._folder))
        return best


def resting(state: StudyState) -> bool:
    """Whether nothing runs and nothing will until somebody asks for it."""
    return state.exists and state.status != "running" and not state.live()


def _loaded(
    profile: str | os.PathLike[str] | Mapping[str, Any], changes: Mapping[str, Any]
) -> "Profile":
    from core.missing import unusable_files
    from core.profile import ProfileError, from_document, load, resolve

    if isinstance(profile, Mapping):
        source = "profile"
        document = _plain(profile)
        for key, value in changes.items():
            _set(document, key, value)
        loaded = from_document(document, folder=Path.cwd())
    else:
        path = resolve(os.fspath(profile))
        source = str(path)
        loaded = load(path, _plain(changes))
    problems = unusable_files(loaded)
    if problems:
        raise ProfileError(source, problems)
    return loaded


def _plain(value: Any) -> Any:
    """A copy of a nested mapping as a TOML file would hold it: paths are text, tuples are lists."""
    if isinstance(value, Mapping):
        return {key: _plain(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    return os.fspath(value) if isinstance(value, os.PathLike) else value


def _set(document: dict[str, Any], key: str, value: Any) -> None:
    """Set one value of a nested mapping by its full key; None takes it out."""
    *tables, name = key.split(".")
    for part in tables:
        document = document.setdefault(part, {})
        if not isinstance(document, dict):
            return  # The check of the profile names the table that is none.
    if value is None:
        document.pop(name, None)
    else:
        document[name] = _plain(value)


def _progress(state: StudyState) -> Progress:
    from core.engine.standing import ranking

    first = next((r for r in ranking(state)[:1] if r.place == 1), None)
    return Progress(
        status=state.status,
        done=sum(t.ended for t in state.trials.values()),
        planned=max(state.planned, len(state.trials)),
        live=len(state.live()),
        best=None if first is None else dict(state.trials[first.trial].changes),
        value=None if first is None else first.value,
    )


def _no_winner(state: StudyState, folder: Path) -> str:
    from core.engine.outcome import summary

    if not resting(state):
        return f"no trial of the study {folder} has completed yet"
    return f"{summary(state)}; what each one said: tunedeck trials {folder}"
