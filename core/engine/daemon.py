"""The daemon of a study: schedules its trials, watches them, decides, and writes the journal. One per study.

It may die at any moment: trials go on under their shims, and the next daemon finds them by their locks. Decisions
are made by pure functions (`scheduler`, `requests`, `endings`, `followup`); here they are carried out.
"""

import os
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from core.devices.gpu import GpuReader, NvmlReader
from core.devices.lock import LockError, try_lock
from core.engine import address
from core.engine.detach import READY, DaemonLog, run_detached
from core.engine.endings import Outcome, classify, gather
from core.engine.followup import follow_up
from core.engine.launch import (
    Launcher,
    LaunchError,
    LaunchSpec,
    LeaseTakenError,
    LocalLauncher,
    Mark,
    own_record,
)
from core.engine.messages import Reply, Request
from core.engine.prepare import creation, prepare
from core.engine.recorder import FULL, Recorder, disk_trouble
from core.engine.requests import answer
from core.engine.results import TUNED_COMMENT, trial_profile
from core.engine.scheduler import Start, schedule
from core.engine.server import Server
from core.engine.standing import best_trial
from core.engine.supply import Pool
from core.engine.watch import Watch
from core.profile import Profile, ProfileError, load, save
from core.study.events import (
    AnyEvent,
    DaemonStarted,
    StudyChanged,
    TrialAsked,
    TrialEnded,
    TrialQueued,
    TrialStarted,
    TrialStarting,
    Warned,
)
from core.study.files import write_record
from core.study.state import StudyState, Trial
from core.study.store import StudyError, StudyFolder, StudyReader, now
from core.version import VERSION

NEEDS_DISK = ("resume", "add", "retry", "promote")
"""Requests that start something, which is never done without a record of it."""


@dataclass(frozen=True)
class Settings:
    """What a daemon is made of; tests give other launchers and shorter times (all in seconds)."""

    launcher: Callable[[], Launcher] = LocalLauncher
    gpus: Callable[[], GpuReader] = NvmlReader
    tick: float = 1.0
    """From one look at the trials to the next. An ended trial and a request wake the daemon up at once."""
    gpu_tick: float = 0.5
    """The same while trials wait for GPUs: three readings in a row must find one free."""
    linger: float = 5.0
    """How long a daemon stays that has nothing left to do, for whoever asks for more."""
    pause_patience: float = 300.0
    """After this a trial that has not paused is told of: a checkpoint of a large model takes minutes on a slow disk,
    but not five."""


def main(argv: list[str]) -> int:
    """Serve the study in the folder `argv[0]`, detached; with `--foreground` behind it, in this process."""
    folder = StudyFolder(Path(argv[0]).resolve())
    if "--foreground" in argv[1:]:
        return serve(folder, Settings(), _say_trouble)
    return run_detached(lambda tell: serve(folder, Settings(), tell), folder.daemon_log)


def serve(folder: StudyFolder, settings: Settings, tell: Callable[[str], None]) -> int:
    """Serve a study until it has nothing left to do or a signal ends this process.

    `tell` gets READY once requests are answered, or the reason why the study cannot be served (the exit code is
    then 1). A study of a newer version is not touched.
    """
    lock: int | None = None
    try:
        if folder.journal.is_file():
            StudyReader(folder.path)
        profile = load(folder.profile)
        lock = try_lock(folder.lock)
        if lock is None:
            tell(f"a daemon serves the study {folder.path} already")
            return 1
        # Where an earlier daemon listened, or in a copied folder that of another study, is no address of this one.
        folder.daemon.unlink(missing_ok=True)
        return Daemon(folder, profile, Recorder(folder), settings).run(lambda: tell(READY))
    except (StudyError, ProfileError, LockError) as error:
        tell(str(error))
    except OSError as error:
        tell(f"the study {folder.path} cannot be served: {error.strerror or error}")
    finally:
        if lock is not None:
            os.close(lock)
    return 1


class Daemon:
    """A study that is being served; the caller holds its lock."""

    def __init__(
        self, folder: StudyFolder, profile: Profile, recorder: Recorder, settings: Settings
    ) -> None:
        self._folder = folder
        self._profile = profile
        self._recorder = recorder
        self._settings = settings
        self._launcher = settings.launcher()
        self._log = DaemonLog(folder.daemon_log)
        used_gpus = any(a.device == "cuda" for t in self.state.trials.values() for a in t.attempts)
        self._pool = Pool(
            profile.resources, settings.gpus(), os.environ.get("CUDA_VISIBLE_DEVICES"), used_gpus
        )
        self._watches: dict[int, Watch] = {}
        self._idle_since: float | None = None
        self._told: str | None = None
        self._told_trouble = False

    @property
    def state(self) -> StudyState:
        return self._recorder.state

    def run(self, ready: Callable[[], None]) -> int:
        """Serve until there is nothing left to do."""
        listening, path = address.listen(self._folder)
        server = Server(listening, self._handle)
        server.catch_signals()
        try:
            self._begin(path)
            ready()
            self._log.holds_output = True
            while not server.told_to_end:
                self._guarded(self._tick)
                server.wait(self._pace())
                if self._recorder.removed():
                    self._abandon()
                    break
                # A client may have come in the last moment.
                if self._done() and not server.wait(0):
                    break
            self._log.say("ends; live trials go on" if self.state.live() else "ends")
        finally:
            server.close()
            address.clear(path)
            self._recorder.close()
        return 0

    def _abandon(self) -> None:
        """The journal is not there any more. A study that was deleted frees its devices; one that was moved goes on,
        and its next daemon finds it in its new place.
        """
        if not self._recorder.deleted():
            return
        for trial in self.state.live():
            if trial.attempt is not None and trial.attempt.shim is not None:
                self._launcher.ask(trial.attempt.shim, "stop")

    def _begin(self, path: Path) -> None:
        """Make the study or take it over, and say where its daemon is.

        Raises:
            StudyError: the journal cannot be written.
            OSError: the disk is full or failing.
        """
        if self._recorder.cut:
            self._log.say(f"cut {self._recorder.cut} bytes of a torn record off the journal")
        if not self.state.exists:
            self._recorder.stage(*creation(self._profile, now()))
            if self._pool.notice is not None:
                self._recorder.stage(Warned(t=now(), text=self._pool.notice))
        process = own_record()
        self._record(DaemonStarted(t=now(), process=process))
        if self._recorder.trouble is not None:
            raise StudyError(
                f"the study {self._folder.path} cannot be served: {self._recorder.trouble}"
            )
        write_record(self._folder.daemon, address.DaemonInfo(process, str(path), now()))
        self._log.say(f"serves {self._folder.path} as process {process.pid}, version {VERSION}")
        for trial in self.state.live():
            self._guarded(partial(self._take_over, trial))

    def _pace(self) -> float:
        waits_for_gpu = self._pool.on_gpu and self.state.status == "running" and self.state.queued()
        return self._settings.gpu_tick if waits_for_gpu else self._settings.tick

    def _done(self) -> bool:
        """Whether the daemon has had nothing to do for so long that it may end."""
        busy = self.state.unfinished() or bool(self.state.live()) or self._recorder.waiting > 0
        if busy:
            self._idle_since = None
            return False
        if self._idle_since is None:
            self._idle_since = time.monotonic()
        return time.monotonic() - self._idle_since >= self._settings.linger

    def _tick(self) -> None:
        self._recorder.flush()
        for trial in self.state.live():
            self._guarded(partial(self._look_at, trial))
        self._watch_disk()
        if self._recorder.trouble is not None or self.state.status != "running":
            self._pool.rest()
            return
        held = {uuid for t in self.state.live() if t.attempt for uuid in t.attempt.gpus}
        decided = schedule(self.state, self._pool.look(held), now())
        if decided.change is not None:
            if decided.change.status == "finished":
                # Before the word is out: whoever waits for the end looks for the winner at once.
                self._guarded(self._save_winner)
            self._commit(decided.change)
        for start in decided.starts:
            self._guarded(partial(self._start, start))

    def _save_winner(self) -> None:
        """Leave the winner in the study's folder as a profile, for whoever comes back in the morning."""
        best = best_trial(self.state)
        if best is None or best.kind == "full":
            return
        try:
            winner = trial_profile(StudyReader(self._folder.path), best.number)
            save(winner, self._folder.tuned, comment=TUNED_COMMENT)
        except OSError as error:
            self._log.say(f"{self._folder.tuned} cannot be written: {error.strerror or error}")

    def _watch_disk(self) -> None:
        """Pause the study when its journal cannot be written, and say when it can again."""
        trouble = self._recorder.trouble
        if trouble is None:
            if self._told_trouble:
                self._told_trouble = False
                self._log.say("the journal can be written again; the study stays paused")
            return
        if not self._told_trouble:
            self._told_trouble = True
            self._log.say(f"the study is paused: {trouble}")
            if self.state.status == "running":
                self._record(StudyChanged(t=now(), status="paused", reason=trouble))

    def _start(self, start: Start) -> None:
        """Start an attempt: its files, the intent, the act, the fact, in this order."""
        trial, t = self.state.trials[start.trial], now()
        if self.state.status != "running":
            return
        folder = self._folder.trial(start.trial)
        mark = Mark(self._study(), start.trial, start.attempt)
        try:
            prepare(folder, trial, self._profile, start, self._pool.threads)
        except ProfileError as error:
            reason = "; ".join(str(p) for p in error.problems)
            self._fail(start, f"these settings do not go together: {reason}", alone=True)
            return
        except OSError as error:
            self._cannot_write(start, error)
            return
        intent = TrialStarting(
            t=t, trial=start.trial, attempt=start.attempt, device=start.device, gpus=start.gpus
        )
        if not self._recorder.record(intent):
            self._recorder.record(self._back(start, trial, "it could not be recorded"))
            return
        try:
            shim = self._launcher.start(LaunchSpec(folder, mark, start.device, start.gpus))
        except LeaseTakenError as error:
            self._pool.released(error.uuid)
            self._record(self._back(start, trial, str(error)))
            return
        except LaunchError as error:
            self._fail(start, str(error))
            return
        self._record(TrialStarted(t=now(), trial=start.trial, attempt=start.attempt, shim=shim))
        self._watches[start.trial] = self._make_watch(self.state.trials[start.trial])
        where = f" on GPU {', '.join(start.gpus)}" if start.gpus else ""
        self._log.say(f"trial {start.trial}, attempt {start.attempt} started{where}")

    def _back(self, start: Start, trial: Trial, reason: str) -> TrialQueued:
        return TrialQueued(
            t=now(),
            trial=start.trial,
            attempt=start.attempt,
            resume_from=trial.resume_from,
            reason=reason,
        )

    def _fail(self, start: Start, reason: str, *, alone: bool = False) -> None:
        """An attempt cannot start; `alone`: that says nothing about other trials."""
        self._log.say(f"trial {start.trial} cannot start: {reason}")
        event = TrialEnded(
            t=now(),
            trial=start.trial,
            attempt=start.attempt,
            ending="failed",
            reason=reason,
            usage_error=True,
        )
        if alone:
            self._record(event)
        else:
            self._conclude(Outcome(event, trained=False))

    def _cannot_write(self, start: Start, error: OSError) -> None:
        if error.errno not in FULL:
            self._fail(start, f"its folder cannot be written: {error.strerror}")
            return
        self._log.say(f"the study is paused: {disk_trouble(error)}")
        self._record(StudyChanged(t=now(), status="paused", reason=disk_trouble(error)))

    def _look_at(self, trial: Trial) -> None:
        """Follow a live trial: what it logged, whether it still lives."""
        folder = self._folder.trial(trial.number)
        watch = self._watches.get(trial.number)
        if watch is None:
            watch = self._watches[trial.number] = self._make_watch(trial)
        # Asked first: what a trial wrote before its end is then surely seen.
        alive = self._launcher.alive(folder)
        for verdict in watch.poll():
            if verdict.action == "warn":
                self._record(Warned(t=now(), trial=trial.number, text=verdict.reason))
            elif self.state.trials[trial.number].status != "stopping":
                self._log.say(f"the guard stops trial {trial.number}: {verdict.reason}")
                self._commit(
                    TrialAsked(
                        t=now(),
                        trial=trial.number,
                        attempt=watch.attempt,
                        ask="stop",
                        by="guard",
                        reason=verdict.reason,
                    )
                )
        if not alive:
            self._end(self.state.trials[trial.number])
            return
        if trial.attempt is not None and trial.attempt.shim is None:
            self._meet(trial)
        self._mind_pause(trial, watch)

    def _mind_pause(self, trial: Trial, watch: Watch) -> None:
        if trial.status != "pausing":
            return
        if watch.asked_at is None:
            watch.asked_at = time.monotonic()
        if (
            not watch.told_slow
            and time.monotonic() - watch.asked_at > self._settings.pause_patience
        ):
            watch.told_slow = True
            text = "it was asked to pause and has not saved its checkpoint yet; stop it to free its device at once"
            self._record(Warned(t=now(), trial=trial.number, text=text))

    def _make_watch(self, trial: Trial) -> Watch:
        attempt = trial.attempt.number if trial.attempt else trial.next_attempt
        train = self._profile.with_changes(trial.changes).train
        return Watch(
            self._folder.trial(trial.number),
            attempt,
            train,
            guarded=self._profile.search.guard,
            resumed=trial.resume_from is not None,
        )

    def _take_over(self, trial: Trial) -> None:
        """Find a trial again that an earlier daemon started, or its end."""
        folder, attempt = self._folder.trial(trial.number), trial.attempt
        if attempt is None or self._launcher.alive(folder):
            self._log.say(f"trial {trial.number} is still running")
            if attempt is not None and attempt.shim is not None and trial.asked is not None:
                # The earlier daemon may have written the request down and died before it made it.
                self._launcher.ask(attempt.shim, trial.asked)
            return
        facts = gather(folder, trial, self._profile)
        if facts.exit is None:
            self._launcher.kill_leftovers(self._mark(trial))
        never = facts.exit is None and facts.report is None and attempt.shim is None
        if never and trial.asked is None:
            reason = "the daemon ended before it could start it"
            self._record(
                self._back(Start(trial.number, attempt.number, attempt.device), trial, reason)
            )
            return
        self._end(trial)

    def _meet(self, trial: Trial) -> None:
        """Find the shim of an attempt whose start was not recorded any more."""
        mark = self._mark(trial)
        shim = self._launcher.find(mark)
        if shim is not None:
            self._record(TrialStarted(t=now(), trial=mark.trial, attempt=mark.attempt, shim=shim))
            if trial.asked is not None:
                self._launcher.ask(shim, trial.asked)

    def _end(self, trial: Trial) -> None:
        """Class the end of an attempt, and do what follows from it."""
        facts = gather(self._folder.trial(trial.number), trial, self._profile)
        outcome = classify(facts, now())
        reason = f": {outcome.event.reason}" if outcome.event.reason else ""
        self._log.say(f"trial {trial.number} ended, {outcome.event.ending}{reason}")
        self._watches.pop(trial.number, None)
        for uuid in trial.attempt.gpus if trial.attempt else ():
            self._pool.released(uuid)
        self._launcher.kill_leftovers(self._mark(trial))
        self._conclude(outcome)

    def _conclude(self, outcome: Outcome) -> None:
        """Record an ending together with what follows from it."""
        progress = any(w.started for w in self._watches.values()) or any(
            t.step > 0 for t in self.state.trials.values()
        )
        self._recorder.stage(outcome.event)
        number = outcome.event.trial
        self._commit(*follow_up(self.state, number, outcome, self._profile, progress, now()))

    def _mark(self, trial: Trial) -> Mark:
        number = trial.attempt.number if trial.attempt else trial.next_attempt
        return Mark(self._study(), trial.number, number)

    def _study(self) -> str:
        """A name for the study that stays when its folder is moved.

        The folder's own number differs for a copy of it; a new folder may get the number of one that was deleted and
        whose trials are still ending, hence the study's date.
        """
        status = self._folder.path.stat()
        return f"{status.st_dev:x}-{status.st_ino:x}-{self.state.created:.3f}"

    def _handle(self, request: Request) -> Reply:
        """Answer a client. Whatever goes wrong, the client gets a sentence and the daemon goes on."""
        try:
            self._idle_since = None
            trouble = self._recorder.trouble
            if trouble is not None and request.command in NEEDS_DISK:
                return Reply(False, trouble, request.trial)
            decided = answer(self.state, self._profile, request, now())
            self._commit(*decided.events)
            if request.command != "ping":
                self._log.say(f"asked to {request.command}: {decided.reply.text}")
            if self._recorder.trouble is not None:
                text = f"{decided.reply.text} ({self._recorder.trouble})"
                return Reply(decided.reply.ok, text, decided.reply.trial)
            return decided.reply
        except Exception as error:
            self._report(error)
            return Reply(False, f"the daemon failed at this: {error} ({self._folder.daemon_log})")

    def _commit(self, *events: AnyEvent) -> None:
        """Write records, then make the requests to processes that they announce."""
        self._record(*events)
        for event in events:
            if isinstance(event, TrialAsked):
                trial = self.state.trials[event.trial]
                if trial.live and trial.attempt is not None and trial.attempt.shim is not None:
                    self._launcher.ask(trial.attempt.shim, event.ask)

    def _record(self, *events: AnyEvent) -> None:
        self._recorder.record(*events)
        for event in events:
            match event:
                case StudyChanged():
                    reason = f": {event.reason}" if event.reason else ""
                    self._log.say(f"the study is {event.status}{reason}")
                case TrialQueued():
                    self._log.say(f"trial {event.trial} waits for another attempt: {event.reason}")
                case Warned():
                    about = f"trial {event.trial}: " if event.trial is not None else ""
                    self._log.say(f"{about}{event.text}")

    def _guarded(self, act: Callable[[], None]) -> None:
        """Do something; a failure of it is logged, and the rest goes on."""
        try:
            act()
        except Exception as error:
            self._report(error)

    def _report(self, error: Exception) -> None:
        text = "".join(traceback.format_exception(error)).strip()
        if text != self._told:
            self._told = text
            self._log.say(f"something failed; the daemon goes on\n{text}")


def _say_trouble(word: str) -> None:
    if word != READY:
        sys.stderr.write(word + "\n")
