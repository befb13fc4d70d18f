"""Where the dashboard's memory forecasts come from: model folders, measurements, dry runs in subprocesses.

Every method but `estimate` may block: they are called in a thread. The modules behind them are imported when they are
first asked for.
"""

import os
import threading
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Protocol

import msgspec

from core.memory.forecast import GUARD_CPU, GUARD_UNKNOWN, Forecast, Lengths, Target
from core.profile import Profile
from tui import words
from tui.memory_view import Device
from tui.reading import DeviceReading, SourceError

if TYPE_CHECKING:
    from core.devices.gpu import GpuSnapshot
    from core.memory.architecture import Architecture
    from core.memory.fixes import Advice, Fix, Prove
    from core.memory.prover import ProofError, Prover

_PROCESSES = 2
"""Dry runs at once where many are wanted. Each holds 0.6 GB."""
_ASKED_EVERY = 0.2
"""Seconds after which it is seen that nobody waits for an answer any more."""
Told = Callable[[str], bool]
"""Called with what goes on; False ends it."""


class GivenUpError(Exception):
    """Whoever asked does not want the answer any more."""


@dataclass(frozen=True, slots=True)
class Known:
    """What trials measured on devices of a name."""

    guard: float = GUARD_UNKNOWN
    context: int | None = None
    """Bytes that a process holds besides the allocator."""


@dataclass(frozen=True, slots=True)
class Remedies:
    """What a search for fixes came to."""

    advice: "Advice"
    lengths: Lengths
    """Of the rows, as they were measured."""
    faster: "Fix | None" = None
    """For a profile that fits already: one that takes less time and fits as well."""


@dataclass(frozen=True, slots=True)
class Proof:
    """What a dry run came to."""

    forecast: Forecast
    lengths: Lengths
    """Of the rows, as they were measured."""


class MemoryDesk(Protocol):
    """Whatever answers questions about memory. Every method may raise `SourceError`."""

    def devices(self) -> DeviceReading:
        """GPUs and host now."""
        ...

    def known(self, names: Collection[str]) -> Mapping[str, Known]:
        """What was measured, by the device's name."""
        ...

    def architecture(self, profile: Profile) -> "Architecture":
        """What the profile's model is made of."""
        ...

    def estimate(
        self, profile: Profile, architecture: "Architecture", target: Target, lengths: Lengths
    ) -> Forecast:
        """The forecast at once."""
        ...

    def prove(self, profile: Profile, device: Device, told: Told) -> Proof:
        """The forecast of a dry run, which takes seconds. Raises `GivenUpError` as well."""
        ...

    def fixes(
        self, profile: Profile, architecture: "Architecture", device: Device, told: Told
    ) -> Remedies:
        """What makes the profile fit, or faster where it fits. Raises `GivenUpError` as well."""
        ...


class DiskDesk:
    """The real desk. Dry runs live only as long as a question."""

    def __init__(self, devices: Callable[[], DeviceReading]) -> None:
        self._devices = devices

    def devices(self) -> DeviceReading:
        return self._devices()

    def known(self, names: Collection[str]) -> Mapping[str, Known]:
        from core.engine.versions import torch_version
        from core.memory import calibration

        torch = torch_version()
        return {
            name: Known(calibration.guard(name, torch), calibration.context(name, torch))
            for name in names
        }

    def architecture(self, profile: Profile) -> "Architecture":
        # What is computed at each key is imported with it, so that the first key is as quick as the rest.
        import core.memory.closed_form  # noqa: F401
        from core.memory.architecture import ArchitectureError, likely_architecture

        try:
            return likely_architecture(profile)
        except ArchitectureError as error:
            raise SourceError(str(error)) from error

    def estimate(
        self, profile: Profile, architecture: "Architecture", target: Target, lengths: Lengths
    ) -> Forecast:
        from core.memory.closed_form import estimate

        return estimate(profile, architecture, target, lengths)

    def prove(self, profile: Profile, device: Device, told: Told) -> Proof:
        with _dry_runs(1, told) as runs:
            return runs.prove(profile, device.target)

    def fixes(
        self, profile: Profile, architecture: "Architecture", device: Device, told: Told
    ) -> Remedies:
        from core.memory.fixes import fastest, find_fixes
        from core.memory.prover import ProofError

        def search(lengths: Lengths, prove: "Prove | None") -> Remedies:
            asked = (profile, architecture, device.target, lengths, prove)
            advice = find_fixes(*asked, guard=device.guard, crashed=False)
            if not advice.fits:
                return Remedies(advice, lengths)
            faster = fastest(*asked, guard=device.guard, now=advice.forecast)
            return Remedies(advice, lengths, faster)

        with _dry_runs(_PROCESSES, told) as runs:
            try:
                lengths = runs.lengths(profile)
            except ProofError as error:
                if runs.given_up:
                    raise
                # Nothing can be dry-run: the model is not here, or the data. Estimates can be made all the same.
                found = search(Lengths.bound(profile), None)
                advice = msgspec.structs.replace(found.advice, problem=str(error))
                return replace(found, advice=advice)

            def prove(profiles: Sequence[Profile]) -> "Sequence[Forecast | ProofError]":
                return runs.prove_all(profiles, device.target, lengths)

            return search(lengths, prove)


@dataclass
class _DryRuns:
    """The dry runs of one question, and what is told of them."""

    prover: "Prover"
    told: Told
    done: threading.Event = field(default_factory=threading.Event)
    given_up: bool = False
    _text: str = ""
    _made: int = 0

    def lengths(self, profile: Profile) -> Lengths:
        """How long the rows of the profile's data are."""
        self._text = "the rows of the data are measured"
        return self.prover.lengths(profile)

    def prove(self, profile: Profile, target: Target) -> Proof:
        lengths = self.lengths(profile)
        self._text = ""
        return Proof(self.prover.prove(profile, target, lengths), lengths)

    def prove_all(
        self, profiles: Sequence[Profile], target: Target, lengths: Lengths
    ) -> "Sequence[Forecast | ProofError]":
        done = (
            f"{words.plural(self._made, 'dry run')} so far" if self._made else "the first dry runs"
        )
        self._text = done
        self._made += len(profiles)
        return self.prover.prove_all(profiles, target, lengths)

    def watch(self) -> None:
        """End the dry runs when nobody waits for them any more. Runs in a thread of its own."""
        while not self.done.wait(_ASKED_EVERY):
            if not self.told(self._text):
                self.given_up = True
                self.prover.close()
                return


@contextmanager
def _dry_runs(processes: int, told: Told) -> Iterator[_DryRuns]:
    from core.memory.prover import ProofError, Prover

    with Prover(processes) as prover:
        runs = _DryRuns(prover, told)
        watch = threading.Thread(target=runs.watch, daemon=True)
        watch.start()
        try:
            yield runs
        except (ProofError, OSError) as error:
            if not runs.given_up:
                raise SourceError(str(error)) from error
        finally:
            runs.done.set()
            watch.join()
    if runs.given_up:
        raise GivenUpError


def devices_of(
    reading: DeviceReading, profile: Profile, known: Mapping[str, Known]
) -> tuple[Device, ...]:
    """The devices that the profile's trials may be given: GPUs, or the CPU where there are none for them."""
    gpus = _wanted(reading.gpus.gpus, profile)
    found = [_gpu(gpu, profile, known.get(gpu.name, Known()), len(gpus)) for gpu in gpus]
    devices = tuple(device for device in found if device is not None)
    if devices or isinstance(profile.resources.devices, list):
        return devices
    return (_cpu(reading, profile, known.get(words.CPU, Known())),)


def _wanted(gpus: "tuple[GpuSnapshot, ...]", profile: Profile) -> "list[GpuSnapshot]":
    from core.devices.gpu import visible

    wanted = profile.resources.devices
    if wanted == "cpu":
        return []
    allowed = visible(gpus, os.environ.get("CUDA_VISIBLE_DEVICES"))
    if isinstance(wanted, list):
        return [g for g in allowed if g.index in wanted or g.uuid in wanted]
    return [g for g in allowed if not g.mig]


def _gpu(gpu: "GpuSnapshot", profile: Profile, known: Known, gpus: int) -> Device | None:
    from core.devices.lease import busy_reason
    from core.engine.memory.target import target_from

    target = target_from(gpu, profile, context=known.context, gpus=gpus)
    if target is None:
        return None
    return Device(f"GPU {gpu.index}", target, known.guard, busy_reason(gpu) is not None)


def _cpu(reading: DeviceReading, profile: Profile, known: Known) -> Device:
    from core.engine.memory.target import target_from

    target = target_from(None, profile, reading.host, context=known.context)
    if target is None:
        raise SourceError("the machine does not tell its memory")
    return Device("CPU", target, GUARD_CPU)
