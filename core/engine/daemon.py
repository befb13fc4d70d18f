"""The daemon of a study: schedules its trials, watches them, decides, and writes the journal. One per study.

It may die at any moment: trials go on under their shims, and the next daemon finds them by their locks. Decisions
are made by pure functions (`scheduler`, `requests`, `endings`, `followup`, `advice`); they are carried out here, in
`starts`, `live_trials` and `advising`, which share one `Service`.
"""

import os
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

from core.devices.lock import LockError, try_lock
from core.engine import address
from core.engine.detach import READY, run_detached
from core.engine.launch import own_record
from core.engine.live_trials import look_at, take_over
from core.engine.memory.advising import advise, cleared
from core.engine.messages import Reply, Request
from core.engine.prepare import creation, range_creation
from core.engine.recipes.step import full_training
from core.engine.recorder import Recorder
from core.engine.requests import answer
from core.engine.results import TUNED_COMMENT, trial_profile
from core.engine.scheduler import schedule
from core.engine.searching import Searching
from core.engine.server import Server
from core.engine.service import Service, Settings
from core.engine.standing import best_trial
from core.engine.starts import start
from core.engine.tidy import after_study
from core.profile import Profile, ProfileError, load, save
from core.study.events import AnyEvent, DaemonStarted, StudyChanged, Warned
from core.study.files import write_record
from core.study.recipes import recipe_of
from core.study.state import StudyState
from core.study.store import StudyError, StudyFolder, StudyReader, now
from core.version import VERSION

NEEDS_DISK = ("resume", "add", "retry", "promote")
"""Requests that start something, which is never done without a record of it."""


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
        self._service = service = Service(folder, profile, recorder, settings)
        self._folder, self._profile, self._settings = folder, profile, settings
        self._recorder, self._log, self._pool = recorder, service.log, service.pool
        self._searching = Searching(service)
        self._idle_since: float | None = None
        self._told_trouble = False
        self._in_recipe = recipe_of(folder.path) is not None
        self._to_hand_over = False
        """Whether the study has ended as a step of a recipe, and the next step is to be seen to."""

    @property
    def state(self) -> StudyState:
        return self._service.state

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
                self._service.guarded(self._tick)
                server.wait(self._pace())
                if self._recorder.removed():
                    self._abandon()
                    break
                # A client may have come in the last moment.
                if self._done() and not server.wait(0):
                    break
            self._hand_over()
            self._log.say("ends; live trials go on" if self.state.live() else "ends")
        finally:
            server.close()
            self._service.advisers.close()
            self._service.proposer.close()
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
                self._service.launcher.ask(trial.attempt.shim, "stop")

    def _begin(self, path: Path) -> None:
        """Make the study or take it over, and say where its daemon is.

        Raises:
            StudyError: the journal cannot be written.
            OSError: the disk is full or failing.
        """
        if self._recorder.cut:
            self._log.say(f"cut {self._recorder.cut} bytes of a torn record off the journal")
        if not self.state.exists:
            self._recorder.stage(*self._creation())
            if self.state.choice:
                self._log.say(self.state.choice)
            if self._pool.notice is not None:
                self._recorder.stage(Warned(t=now(), text=self._pool.notice))
        process = own_record()
        self._service.record(DaemonStarted(t=now(), process=process))
        if self._recorder.trouble is not None:
            raise StudyError(
                f"the study {self._folder.path} cannot be served: {self._recorder.trouble}"
            )
        write_record(self._folder.daemon, address.DaemonInfo(process, str(path), now()))
        self._log.say(f"serves {self._folder.path} as process {process.pid}, version {VERSION}")
        for trial in self.state.live():
            self._service.guarded(partial(take_over, self._service, trial))

    def _creation(self) -> list[AnyEvent]:
        test = self._service.range_test
        if test is not None:
            return range_creation(self._profile, now(), test)
        try:
            return creation(self._profile, now(), self._pool.most if self._pool.on_gpu else None)
        except ValueError as error:
            raise StudyError(str(error)) from None

    def _pace(self) -> float:
        more = self.state.queued() or self.state.to_come()
        waits_for_gpu = self._pool.on_gpu and self.state.status == "running" and more
        return self._settings.gpu_tick if waits_for_gpu else self._settings.tick

    def _done(self) -> bool:
        """Whether the daemon has had nothing to do for so long that it may end."""
        state, service = self.state, self._service
        processes = state.live() or service.advisers.busy or service.proposer.busy
        if state.unfinished() or processes or self._recorder.waiting:
            self._idle_since = None
            return False
        if self._idle_since is None:
            self._idle_since = time.monotonic()
        return time.monotonic() - self._idle_since >= self._settings.linger

    def _tick(self) -> None:
        self._recorder.flush()
        for trial in self.state.live():
            self._service.guarded(partial(look_at, self._service, trial))
        self._watch_disk()
        self._service.guarded(partial(advise, self._service))
        if self._recorder.trouble is not None or self.state.status != "running":
            self._pool.rest()
            self._searching.rest()
            return
        held = {uuid for t in self.state.live() if t.attempt for uuid in t.attempt.gpus}
        supply = self._pool.look(held)
        self._searching.step(supply)
        decided = schedule(self.state, supply, now(), cleared(self._service))
        if decided.change is not None:
            self._change(decided.change)
        for decision in decided.starts:
            self._service.guarded(partial(start, self._service, decision))

    def _change(self, change: StudyChanged) -> None:
        """The study is over, or waits for something else. One that is a step of a recipe is not over before its winner
        was trained fully."""
        finished = change.status == "finished"
        if finished:
            # Before the word is out: whoever waits for the end looks for the winner at once.
            self._service.guarded(self._save_winner)
        more = (
            full_training(self.state, self._profile, now()) if finished and self._in_recipe else ()
        )
        if more:
            self._service.commit(*more)
            return
        if finished:
            self._service.guarded(partial(after_study, self._folder, self.state))
        self._service.commit(change)
        self._to_hand_over = finished and self._in_recipe
        if not self._recorder.waiting:
            self._hand_over()

    def _hand_over(self) -> None:
        """Let the next step of the recipe begin, where this one has come to its end."""
        if self._to_hand_over:
            self._to_hand_over = False
            self._service.guarded(partial(self._settings.hand_over, self._folder.path))

    def _save_winner(self) -> None:
        """Leave the winner in the study's folder as a profile, for whoever comes back in the morning."""
        best = best_trial(self.state)
        if best is None or best.kind != "probe":
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
                self._service.record(StudyChanged(t=now(), status="paused", reason=trouble))

    def _handle(self, request: Request) -> Reply:
        """Answer a client. Whatever goes wrong, the client gets a sentence and the daemon goes on."""
        try:
            self._idle_since = None
            trouble = self._recorder.trouble
            if trouble is not None and request.command in NEEDS_DISK:
                return Reply(False, trouble, request.trial)
            decided = answer(self.state, self._profile, request, now())
            self._service.commit(*decided.events)
            if request.command != "ping":
                self._log.say(f"asked to {request.command}: {decided.reply.text}")
            if self._recorder.trouble is not None:
                text = f"{decided.reply.text} ({self._recorder.trouble})"
                return Reply(decided.reply.ok, text, decided.reply.trial)
            return decided.reply
        except Exception as error:
            self._service.report(error)
            return Reply(False, f"the daemon failed at this: {error} ({self._folder.daemon_log})")


def _say_trouble(word: str) -> None:
    if word != READY:
        sys.stderr.write(word + "\n")
