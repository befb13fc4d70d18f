"""What a daemon holds while it serves a study: its folder, journal, log, devices and processes, and how it records."""

import os
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from core.devices.gpu import GpuReader, NvmlReader
from core.engine.detach import DaemonLog
from core.engine.endings import Outcome
from core.engine.followup import follow_up
from core.engine.launch import Launcher, LocalLauncher, Mark
from core.engine.memory.advisers import Advisers, adviser_command
from core.engine.memory.foresight import Foresight
from core.engine.proposing import Proposer
from core.engine.recipes.step import hand_over
from core.engine.recorder import Recorder
from core.engine.silence import PATIENCE
from core.engine.supply import Pool
from core.engine.watch import Watch
from core.profile import Profile
from core.study.events import (
    AdviceGiven,
    AnyEvent,
    RungDecided,
    SearchPlanned,
    StudyChanged,
    TrialAdded,
    TrialAsked,
    TrialEnded,
    TrialQueued,
    TrialStalled,
    Warned,
)
from core.study.files import RangeTest, read_record
from core.study.state import StudyState, Trial
from core.study.store import StudyFolder, describe, now


@dataclass(frozen=True)
class Settings:
    """What a daemon is made of; tests give other launchers and shorter times (all in seconds)."""

    launcher: Callable[[], Launcher] = LocalLauncher
    gpus: Callable[[], GpuReader] = NvmlReader
    advisers: Callable[[], Advisers] = lambda: Advisers(adviser_command)
    proposer: Callable[[], Proposer] = Proposer
    hand_over: Callable[[Path], None] = hand_over
    """Carries on the recipe of which the study in the folder is a step."""
    tick: float = 1.0
    """From one look at the trials to the next. An ended trial and a request wake the daemon up at once."""
    gpu_tick: float = 0.5
    """The same while trials wait for GPUs: three readings in a row must find one free."""
    linger: float = 5.0
    """How long a daemon stays that has nothing left to do, for whoever asks for more."""
    stall_patience: float = PATIENCE
    """After this a trial that logs nothing may count as stalled."""
    pause_patience: float = 300.0
    """After this a trial that has not paused is told of: a checkpoint of a large model takes minutes on a slow disk,
    but not five."""


class Service:
    """A study that is being served; the daemon's parts share it."""

    def __init__(
        self, folder: StudyFolder, profile: Profile, recorder: Recorder, settings: Settings
    ) -> None:
        self.folder = folder
        self.profile = profile
        self.recorder = recorder
        self.settings = settings
        self.launcher = settings.launcher()
        self.log = DaemonLog(folder.daemon_log)
        used_gpus = any(a.device == "cuda" for t in self.state.trials.values() for a in t.attempts)
        self.pool = Pool(
            profile.resources, settings.gpus(), os.environ.get("CUDA_VISIBLE_DEVICES"), used_gpus
        )
        self.advisers = settings.advisers()
        self.proposer = settings.proposer()
        self.range_test = read_record(folder.range_test, RangeTest)
        """What the study runs where it is a learning-rate range test."""
        self.foresight = Foresight(folder, profile)
        self.watches: dict[int, Watch] = {}
        """The live trials that are followed, by number."""
        self._told: str | None = None

    @property
    def state(self) -> StudyState:
        return self.recorder.state

    def mark(self, trial: Trial) -> Mark:
        """What the processes of a trial's latest attempt carry in their environment."""
        number = trial.attempt.number if trial.attempt else trial.next_attempt
        return Mark(self.name(), trial.number, number)

    def name(self) -> str:
        """A name for the study that stays when its folder is moved.

        The folder's own number differs for a copy of it; a new folder may get the number of one that was deleted and
        whose trials are still ending, hence the study's date.
        """
        status = self.folder.path.stat()
        return f"{status.st_dev:x}-{status.st_ino:x}-{self.state.created:.3f}"

    def commit(self, *events: AnyEvent) -> None:
        """Write records, then make the requests to processes that they announce."""
        self.record(*events)
        for event in events:
            if isinstance(event, TrialAsked):
                trial = self.state.trials[event.trial]
                if trial.live and trial.attempt is not None and trial.attempt.shim is not None:
                    self.launcher.ask(trial.attempt.shim, event.ask)

    def record(self, *events: AnyEvent) -> None:
        """Write records and say in the log what a person looks for there."""
        self.recorder.record(*events)
        for event in events:
            match event:
                case StudyChanged():
                    reason = f": {event.reason}" if event.reason else ""
                    self.log.say(f"the study is {event.status}{reason}")
                case TrialAdded():
                    self.log.say(_added(event))
                case RungDecided():
                    self.log.say(_decided(event))
                case SearchPlanned():
                    self.log.say(event.reason)
                case TrialQueued():
                    self.log.say(f"trial {event.trial} waits for another attempt: {event.reason}")
                case TrialEnded() if event.ending == "skipped":
                    self.log.say(f"trial {event.trial} is not started: {event.reason}")
                case TrialStalled():
                    self.log.say(f"trial {event.trial}: {event.text or 'it logs again'}")
                case AdviceGiven():
                    self.log.say(f"trial {event.trial}, its memory: {event.text}")
                case Warned():
                    about = f"trial {event.trial}: " if event.trial is not None else ""
                    self.log.say(f"{about}{event.text}")

    def conclude(self, outcome: Outcome) -> None:
        """Record an ending together with what follows from it."""
        progress = any(w.started for w in self.watches.values()) or any(
            t.step > 0 for t in self.state.trials.values()
        )
        self.recorder.stage(outcome.event)
        number = outcome.event.trial
        self.commit(*follow_up(self.state, number, outcome, self.profile, progress, now()))

    def guarded(self, act: Callable[[], object]) -> None:
        """Do something; a failure of it is logged, and the rest goes on."""
        try:
            act()
        except Exception as error:
            self.report(error)

    def report(self, error: Exception) -> None:
        """Log a failure, once as long as the same one comes again and again."""
        text = "".join(traceback.format_exception(error)).strip()
        if text != self._told:
            self._told = text
            self.log.say(f"something failed; the daemon goes on\n{text}")


def _added(event: TrialAdded) -> str:
    about = {"confirm": f", trial {event.parent} with another seed", "promote": ", a full training"}
    return f"trial {event.trial} is added ({event.source}{about.get(event.source, '')}): {describe(event.settings)}"


def _decided(event: RungDecided) -> str:
    kept = ", ".join(f"{n} to {100 * until:.3g} %" for n, until in event.kept.items())
    dropped = ", ".join(map(str, event.dropped))
    return f"{event.text} (on: {kept or 'none'}; dropped: {dropped or 'none'})"
