"""Carries the search on, once a tick: decides about those at rungs, asks for new settings, has the best confirmed."""

from functools import partial

from core.engine.confirming import confirmations
from core.engine.proposing import ProposalError, drawn, proposed, request_for
from core.engine.rungs import Curve, decide_rungs, rung_curve
from core.engine.scheduler import Supply
from core.engine.service import Service
from core.search.halving import first_until, profile_settings
from core.study.events import Warned
from core.study.files import RunInfo, read_record
from core.study.metrics import read_points
from core.study.state import StudyState, Trial
from core.study.store import now

SAMPLER_FAILED = "the sampler cannot propose settings, so the rest is drawn at random"


class Searching:
    """The search of a study that is being served."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._decided_at = -1
        self._curves: dict[int, tuple[object, Curve, Curve]] = {}
        self._without_sampler = False

    @property
    def _state(self) -> StudyState:
        return self._service.state

    def step(self, supply: Supply) -> None:
        """One tick of a study that runs; whatever fails in one part, the others go on."""
        service = self._service
        service.guarded(self._decide)
        service.guarded(partial(self._propose, supply))
        service.guarded(self._confirm)

    def rest(self) -> None:
        """The study does not run: what was asked for is asked again when it does."""
        self._service.proposer.close()

    def _decide(self) -> None:
        """Every decision that can be made now; each may allow the next one."""
        while self._decided_at != self._state.version:
            version = self._state.version
            state = self._state
            settings = profile_settings(self._service.profile, negated=state.direction == "max")
            event = decide_rungs(
                state, settings, lambda t: self._logged(t)[0], now(), lambda t: self._logged(t)[1]
            )
            self._decided_at = version
            if event is None:
                return
            self._service.commit(event)

    def _logged(self, trial: Trial) -> tuple[Curve, Curve]:
        """What a trial logged of what ranks it and of its evaluation loss; read again only where there is more."""
        folder = self._service.folder.trial(trial.number)
        try:
            status = folder.metrics.stat()
        except OSError:
            return (), ()
        key = (status.st_mtime_ns, status.st_size, trial.rungs, trial.total_steps)
        kept = self._curves.get(trial.number)
        if kept is not None and kept[0] == key:
            return kept[1:]
        run = read_record(folder.run, RunInfo)
        total = run.total_steps if run is not None else trial.total_steps
        state, points = self._state, read_points(folder.metrics)
        curve = rung_curve(points, state.rank_by, state.direction, total, trial.rungs)
        losses = rung_curve(points, "eval_loss", "min", total, trial.rungs)
        self._curves[trial.number] = (key, curve, losses)
        return curve, losses

    def _propose(self, supply: Supply) -> None:
        service, state = self._service, self._state
        proposer, profile = service.proposer, service.profile
        try:
            reply = proposer.poll()
        except ProposalError as error:
            self._give_sampler_up(str(error))
            reply = None
        if state.to_come() == 0:
            proposer.close()
            return
        points = reply.points if reply is not None else None
        count = min(state.to_come(), wanted(state, supply))
        if points is None and not proposer.busy and count > 0:
            if self._without_sampler:
                points = drawn(state, profile, count)
            else:
                try:
                    proposer.start(request_for(state, profile, count))
                except ProposalError as error:
                    self._give_sampler_up(str(error))
        if points is not None:
            rungs = state.stopping != "none"
            until = first_until(profile_settings(profile)) if rungs else 1.0
            service.commit(*proposed(state, profile, points[: state.to_come()], until, now()))

    def _give_sampler_up(self, why: str) -> None:
        self._without_sampler = True
        text = f"{SAMPLER_FAILED}: {why}"
        if any(w.text.startswith(SAMPLER_FAILED) for w in self._state.warnings):
            self._service.log.say(text)
        else:
            self._service.record(Warned(t=now(), text=text))

    def _confirm(self) -> None:
        if self._service.proposer.busy:
            return
        self._service.commit(*confirmations(self._state, self._service.profile, now()))


def wanted(state: StudyState, supply: Supply) -> int:
    """How many trials to propose now: one for each place that is free and has no trial yet, and one where nothing runs
    or waits at all. What is proposed later knows more."""
    live = [t for t in state.live() if t.status not in ("pausing", "stopping")]
    queued = len(state.queued())
    room = max(0, supply.most - len(live))
    if supply.device == "cuda":
        room = min(room, len(supply.free) // supply.each)
    return max(room - queued, 1 if not live and not queued else 0)
