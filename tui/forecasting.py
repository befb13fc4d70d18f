"""The memory forecast of a draft while it is edited: what was read, what was proven, and the view of both.

`look` blocks and runs in a thread; everything else is quick enough for each key.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from core.data_size import PADDED_TO
from core.engine.memory.jobs import rows, shape
from core.engine.memory.row_bounds import bound
from core.memory.forecast import Forecast, Lengths, Target
from core.profile import Profile, model_path
from tui import words
from tui.memory_desk import Known, MemoryDesk, devices_of
from tui.memory_view import (
    Device,
    MemoryView,
    grouped,
    in_order,
    largest_trials,
    memory_line,
)
from tui.plan import DataCount
from tui.source import DeviceReading, SourceError

if TYPE_CHECKING:
    from core.memory.architecture import Architecture

FRESH_SECONDS = 5.0
"""How long a reading of the devices holds while somebody types."""
_ANY = Target(kind="cpu", total=0, free=0)
_READING = "reading the model"
_UNCUT = 2**20
Model = tuple[str, str | None, bool]


@dataclass(frozen=True, slots=True)
class Findings:
    """What a look at the machine and at the model found."""

    at: float
    """Seconds of a clock that only goes forward."""
    reading: DeviceReading
    known: Mapping[str, Known]
    model: Model
    architecture: "Architecture | None" = None
    problem: str = ""
    """Why the architecture is not known."""


@dataclass
class Forecasting:
    """Forecasts drafts from what was found out so far."""

    desk: MemoryDesk
    _found: Findings | None = None
    _architectures: dict[Model, Findings] = field(default_factory=dict)
    _proofs: dict[str, Forecast] = field(default_factory=dict)
    _lengths: dict[str, tuple[int, Lengths]] = field(default_factory=dict)
    """What was measured of the rows, with the data.cutoff_len that they were cut at."""
    _last: tuple[object, MemoryView] | None = None
    _shown: MemoryView = field(default_factory=MemoryView)

    def lacks(self, profile: Profile, now: float) -> bool:
        """Whether a look would tell something that is not known, or no longer."""
        found = self._found
        if found is None or now - found.at > FRESH_SECONDS:
            return True
        return model_of(profile) not in self._architectures

    def look(self, profile: Profile, now: float) -> Findings:
        """Read the devices, and the model unless it is known well. Blocks."""
        reading = self.desk.devices()
        names = {gpu.name for gpu in reading.gpus.gpus}
        known = self.desk.known({*names, words.CPU})
        model = model_of(profile)
        before = self.architecture(profile)
        if before is not None and before.kind != "unknown":
            return Findings(now, reading, known, model, before)
        try:
            return Findings(now, reading, known, model, self.desk.architecture(profile))
        except SourceError as error:
            return Findings(now, reading, known, model, problem=str(error))

    def take(self, found: Findings) -> None:
        """Go by these findings from now on."""
        self._found = found
        self._architectures[found.model] = found
        self._last = None

    def take_proof(self, profile: Profile, target: Target, forecast: Forecast) -> None:
        """Show this proof of a training in the place of its estimate from now on."""
        self._proofs[shape(profile, target)] = forecast
        self._last = None

    def take_lengths(self, profile: Profile, lengths: Lengths) -> None:
        """Estimate with these lengths of the profile's rows from now on."""
        if lengths.measured:
            self._lengths[_rows(profile)] = (profile.data.cutoff_len, lengths)
            self._last = None

    def lengths(self, profile: Profile, data: DataCount) -> Lengths:
        """How long the profile's rows are, as far as that is known."""
        cut, known = self._lengths.get(_rows(profile), (0, None))
        now = profile.data.cutoff_len
        if known is None or (now > cut and max(known.train, known.evaluation) + PADDED_TO > cut):
            return lengths_of(profile, data)
        return Lengths(
            min(known.train, now), min(known.evaluation, now), measured=True, learnt=known.learnt
        )

    def architecture(self, profile: Profile) -> "Architecture | None":
        """What the profile's model is made of, as far as that is known."""
        found = self._architectures.get(model_of(profile))
        return found.architecture if found else None

    def gpus(self, profile: Profile) -> int | None:
        """How many GPUs the profile's trials may use, as far as the machine was looked at; None for the CPU."""
        if self._found is None:
            return None
        devices = devices_of(self._found.reading, profile, self._found.known)
        return sum(d.target.kind == "cuda" for d in devices) or None

    def view(self, profile: Profile | None, data: DataCount, problem: str) -> MemoryView:
        """The forecast of a profile; where there is none (`problem` says why) the last one as what it was."""
        if profile is None:
            if self._shown.lines:
                return replace(self._shown, stale="before the problem")
            return MemoryView(problem=problem)
        key = (profile, data, self._found)
        if self._last is None or self._last[0] != key:
            self._last = (key, self._view(profile, self.lengths(profile, data)))
        shown = self._last[1]
        if not shown.stale:
            self._shown = shown
        return shown

    def decisive(
        self, profile: Profile, data: DataCount
    ) -> tuple[Device, Profile, Forecast] | None:
        """The device that counts most, and the training that needs the most there; None where nothing is forecast."""
        found = self._forecasts(profile, self.lengths(profile, data))
        if not found:
            return None
        first = in_order([memory_line(forecast, device) for device, _, forecast in found])[0]
        return next(f for f in found if memory_line(f[2], f[0]) == first)

    def _view(self, profile: Profile, lengths: Lengths) -> MemoryView:
        about = self._architectures.get(model_of(profile))
        if self._found is None or about is None:
            return replace(self._shown, stale=_READING, problem=_READING)
        if about.architecture is None:
            return MemoryView(problem=f"no forecast: {about.problem}")
        lines = [memory_line(forecast, d) for d, _, forecast in self._forecasts(profile, lengths)]
        if not lines:
            return MemoryView(
                problem="no forecast: none of the GPUs that the profile names is here"
            )
        rough = about.architecture.kind == "unknown"
        counting = tuple(replace(line, rough=rough) for line in in_order(lines))
        return MemoryView(counting, searched=varies(profile))

    def _forecasts(
        self, profile: Profile, lengths: Lengths
    ) -> list[tuple[Device, Profile, Forecast]]:
        """For each kind of device the training that needs the most there."""
        architecture = self.architecture(profile)
        if self._found is None or architecture is None:
            return []
        trials = largest_trials(profile)
        made = []
        for device in grouped(devices_of(self._found.reading, profile, self._found.known)):
            each = [
                (device, trial, self._forecast(trial, architecture, device.target, lengths))
                for trial in trials
            ]
            made.append(max(each, key=lambda one: one[2].total))
        return made

    def _forecast(
        self, profile: Profile, architecture: "Architecture", target: Target, lengths: Lengths
    ) -> Forecast:
        proof = self._proofs.get(shape(profile, target)) if self._proofs else None
        return proof or self.desk.estimate(profile, architecture, target, lengths)


def model_of(profile: Profile) -> Model:
    """What the architecture of a profile's model depends on."""
    model = profile.model
    return model_path(profile), model.model_revision, model.trust_remote_code


def varies(profile: Profile) -> bool:
    """Whether a trial of the profile's search needs another amount of memory than the profile as it stands."""
    own = shape(profile, _ANY)
    return any(shape(trial, _ANY) != own for trial in largest_trials(profile))


def _rows(profile: Profile) -> str:
    """A name for everything that rows depend on before they are cut."""
    data = profile.data.model_copy(update={"cutoff_len": _UNCUT})
    return rows(replace(profile, data=data))


def lengths_of(profile: Profile, data: DataCount) -> Lengths:
    """How long rows are at most: data.cutoff_len, or a token for each byte of the longest row where that is less."""
    if not data.known or data.share is not None:
        return Lengths.bound(profile)
    return bound(profile, [f.longest for f in data.train], [f.longest for f in data.evaluation])
