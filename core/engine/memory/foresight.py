"""What is known of the memory that a study's trials will need: estimates made at once, and what advisers found out."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import msgspec

from core.engine.memory.clearance import ANYWHERE, Gpu, Verdict, best_forecast, judge
from core.engine.memory.jobs import Job, Result, kind_of, known_lengths, read_result, rows, shape
from core.engine.memory.row_bounds import bound_of_files
from core.engine.memory.target import guard_of, target_from
from core.engine.scheduler import Start
from core.engine.supply import Pool
from core.engine.versions import torch_version
from core.memory.architecture import Architecture, ArchitectureError, find_architecture
from core.memory.calibration import context
from core.memory.closed_form import estimate
from core.memory.estimate.context import GROWN, PROCESS
from core.memory.forecast import Forecast, Lengths, Target, capacity
from core.profile import Profile, ProfileError, dumps
from core.study.events import Advice
from core.study.files import TrialForecast, WorkerReport, read_record, write_record
from core.study.state import Trial
from core.study.store import StudyFolder
from core.values import Scalar

_BATCH = ("per_device_train_batch_size", "gradient_accumulation_steps")


@dataclass(frozen=True, slots=True)
class Device:
    """A device that trials of the study may get, as it is when nobody else computes on it."""

    uuid: str
    name: str
    """As a person calls it."""
    target: Target
    guard: float
    """The share of a forecast that has to stay free on it."""


@dataclass(slots=True)
class Own:
    """A trial's own settings, and what was worked out of them."""

    changes: dict[str, Scalar]
    profile: Profile
    shapes: dict[object, str] = field(default_factory=dict)
    """By the kind of device."""
    rows: str = ""


class Foresight:
    """The forecasts of one study."""

    def __init__(self, folder: StudyFolder, profile: Profile) -> None:
        """Take up what advisers of an earlier daemon found out."""
        self._folder = folder
        self._profile = profile
        self._own: dict[int, Own] = {}
        self._architectures: dict[str, Architecture | None] = {}
        self._estimates: dict[tuple[str, Target, Lengths], Forecast] = {}
        self._lengths: dict[str, Lengths] = {}
        self._bounds: dict[str, Lengths] = {}
        self._torch = torch_version()
        self.results: dict[str, Result] = {}
        """What was found out before a start, by shape."""
        self.fits: dict[str, Result] = {}
        """Which batch fits best, by the shape that it was looked for."""
        for path in sorted((folder.path / "trials").glob("*")):
            result = read_result(path)
            if result is not None and not result.problem:
                self.learn(result)

    def learn(self, result: Result) -> None:
        """Keep what an adviser found out for the other trials that need the same."""
        if result.about == "start":
            self.results[result.shape] = result
        elif result.about == "fit":
            self.fits[result.shape] = result

    def learn_fixes(self, trial: Trial, result: Result, target: Target) -> None:
        """Keep what was proven of a trial with the changes that an adviser proposes."""
        own = self.own(trial)
        if own is None:
            return
        for found in result.fixes:
            changed = own.profile.with_changes(found.option.changes)
            name = shape(changed, target)
            known = Result(about="start", shape=name, forecast=found.forecast)
            self.results.setdefault(name, known)

    def own(self, trial: Trial) -> Own | None:
        """The trial's own settings without a search; None where they do not go together."""
        kept = self._own.get(trial.number)
        if kept is None or kept.changes != trial.changes:
            try:
                made = self._profile.with_changes(trial.changes).as_training()
            except ProfileError:
                return None
            kept = self._own[trial.number] = Own(trial.changes, made)
        return kept

    def devices(self, pool: Pool) -> tuple[Device, ...]:
        """The devices that trials may get; empty while no GPU can be seen that they wait for."""
        if not pool.on_gpu:
            target = target_from(None, self._profile)
            if target is None:
                return ()
            # Trials that run at once share the machine's memory.
            share = min(target.free, target.total // pool.most)
            target = msgspec.structs.replace(target, free=share)
            return (self._device(target, "", "the CPU"),)
        found = []
        gpus = pool.idle_gpus()
        for gpu in gpus:
            held = context(gpu.name, self._torch)
            target = target_from(gpu, self._profile, context=held, gpus=len(gpus))
            if target is not None:
                found.append(self._device(target, gpu.uuid, f"GPU {gpu.index}"))
        return tuple(found)

    def verdict(self, trial: Trial, devices: Sequence[Device]) -> Verdict:
        """Whether a waiting trial may start on one of `devices`, as far as its memory is concerned."""
        own = self.own(trial)
        if own is None or trial.checked:
            return ANYWHERE
        # On the CPU nothing is proven, and the machine's memory is more than a trial's.
        gpus = [device for device in devices if device.target.kind == "cuda"]
        if trial.resume_from is not None:
            gpus = _smaller_than_before(trial, gpus)
        wanted = own.profile.resources.gpus_per_trial
        verdict = judge(tuple(self._known(own, device) for device in gpus), wanted)
        if trial.resume_from is None or verdict.gpus is None:
            return verdict
        # One that goes on from a checkpoint has trained on a GPU of that size already.
        smaller = {device.uuid for device in gpus}
        as_large = {d.uuid for d in devices if d.target.kind == "cuda"} - smaller
        return Verdict(verdict.gpus | as_large, ask=verdict.ask)

    def said(self, trial: Trial, devices: Sequence[Device]) -> Result | None:
        """What an adviser said about a waiting trial, or one that needs the same."""
        own = self.own(trial)
        if own is None:
            return None
        results = (self.results.get(self.shape(own, device.target)) for device in devices)
        return next((result for result in results if result is not None), None)

    def shape(self, own: Own, target: Target) -> str:
        """What `jobs.shape` says of a trial; worked out once."""
        kind = kind_of(target)
        if kind not in own.shapes:
            own.shapes[kind] = shape(own.profile, target)
        return own.shapes[kind]

    def job(self, about: Advice, trial: Trial, own: Own, device: Device) -> Job:
        """A question for an adviser."""
        target = device.target
        if about == "fix" and target.kind == "cpu":
            held = self._held_besides(trial)
            target = msgspec.structs.replace(target, context=held)
        # What the search varies is left as it was drawn, but for the batch, which the effective batch stands for.
        space = {k: v for k, v in self._profile.search.space.items() if k not in _BATCH}
        search = self._profile.search.model_copy(update={"space": space})
        return Job(
            about=about,
            shape=self.shape(own, device.target),
            profile=dumps(replace(own.profile, search=search)),
            target=target,
            guard=device.guard,
            lengths=str(self._folder.lengths),
            fixes=self._profile.memory.on_oom != "skip",
        )

    def _held_besides(self, trial: Trial) -> int | None:
        """What the process of a trial that ended on the CPU held besides its model, which grows with the number of
        threads; None takes what is typical, and so is what a process holds at least."""
        report = read_record(self._folder.trial(trial.number).report, WorkerReport)
        if report is None or report.context_bytes is None:
            return None
        held = report.context_bytes + GROWN
        return held if held > PROCESS else None

    def write(self, trial: Trial, decided: Start, pool: Pool) -> None:
        """Leave the forecast of an attempt that starts in its folder, for whoever compares it with what comes.

        Raises:
            OSError: it cannot be written.
        """
        file = self._folder.trial(trial.number).forecast
        file.unlink(missing_ok=True)
        own = self.own(trial)
        device = smallest_of(decided.gpus, self.devices(pool))
        if own is None or device is None:
            return
        gpu = self._known(own, device)
        forecast = best_forecast(gpu)
        if forecast is not None:
            write_record(file, _record(decided.attempt, gpu, forecast))

    def _device(self, target: Target, uuid: str, name: str) -> Device:
        return Device(uuid, name, target, guard_of(target, self._torch))

    def _known(self, own: Own, device: Device) -> Gpu:
        own_shape = self.shape(own, device.target)
        return Gpu(
            device.uuid,
            device.name,
            device.target,
            device.guard,
            estimate=self._estimate(own, device.target),
            result=self.results.get(own_shape),
            shape=own_shape,
        )

    def _estimate(self, own: Own, target: Target) -> Forecast | None:
        architecture = self._architecture(own.profile)
        if architecture is None:
            return None
        lengths = self._lengths_of(own)
        # What is free changes by the second, and what a run needs does not.
        empty = msgspec.structs.replace(target, free=target.total, gpus=1)
        key = (self.shape(own, target), empty, lengths)
        if key not in self._estimates:
            self._estimates[key] = estimate(own.profile, architecture, empty, lengths)
        return self._estimates[key]

    def _lengths_of(self, own: Own) -> Lengths:
        """The lengths of the rows, as an adviser has measured them by now, else the longest that they can be."""
        own.rows = own.rows or rows(own.profile)
        if own.rows not in self._lengths:
            known = known_lengths(self._folder.lengths, own.rows)
            if known is None:
                if own.rows not in self._bounds:
                    self._bounds[own.rows] = bound_of_files(own.profile)
                return self._bounds[own.rows]
            self._lengths[own.rows] = known
        return self._lengths[own.rows]

    def _architecture(self, profile: Profile) -> Architecture | None:
        name = f"{profile.model.model_name_or_path} {profile.model.model_revision}"
        if name not in self._architectures:
            try:
                self._architectures[name] = find_architecture(profile)
            except ArchitectureError:
                self._architectures[name] = None
        return self._architectures[name]


def smallest_of(uuids: Sequence[str], devices: Sequence[Device]) -> Device | None:
    """The device that decides whether a trial fits those with these UUIDs, as each of several GPUs holds as much; the
    CPU where there are none."""
    held = [device for device in devices if device.uuid in (uuids or ("",))]
    return min(held, key=lambda device: device.target.total, default=None)


def _smaller_than_before(trial: Trial, gpus: Sequence[Device]) -> list[Device]:
    """The GPUs with less memory than the one that a trial trained on last; none where that is not known."""
    held = trial.attempt.gpus if trial.attempt is not None else ()
    last = smallest_of(held, gpus)
    if last is None:
        return []
    return [gpu for gpu in gpus if gpu.target.total < last.target.total]


def _record(attempt: int, gpu: Gpu, forecast: Forecast) -> TrialForecast:
    parts: Mapping[Any, int] = forecast.parts
    moments: Mapping[Any, int] = forecast.moments
    return TrialForecast(
        attempt=attempt,
        shape=gpu.shape,
        tier=forecast.tier,
        device=gpu.target.name,
        allocated=forecast.allocated,
        reserved=forecast.reserved,
        needed=forecast.needed,
        context=forecast.context,
        capacity=capacity(gpu.target, forecast.context),
        guard=gpu.guard,
        parts=dict(parts),
        moments=dict(moments),
        peak=forecast.peak,
        peak_step=forecast.peak_step,
        notes=forecast.notes,
    )
