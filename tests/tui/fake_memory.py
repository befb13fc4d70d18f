"""A memory desk that reads no driver and no model, and forecasts by a formula that a test can foresee."""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

from core.devices.gpu import GpuReading, GpuSnapshot
from core.devices.host import HostSnapshot
from core.memory.forecast import Category, Forecast, Lengths, Target
from core.profile import Profile
from tests.tui.rest import Gate
from tui.memory_desk import GivenUpError, Known, Proof, Told
from tui.memory_view import Device
from tui.source import DeviceReading, SourceError

GIB = 2**30
HOST = HostSnapshot(
    cpu_percent=34.0,
    cores=16,
    ram_total=64 * GIB,
    ram_used=24 * GIB,
    ram_limit=None,
    ram_limit_used=None,
    swap_total=0,
    swap_used=0,
    load1=4.2,
)


def card(index: int, name: str, total: float, used: float = 0.0) -> GpuSnapshot:
    """A GPU with so many GiB."""
    return GpuSnapshot(
        index=index,
        uuid=f"GPU-{index}",
        name=name,
        memory_total=int(total * GIB),
        memory_used=int(used * GIB),
        utilization=0,
        power_watts=None,
        power_limit_watts=None,
        temperature_c=None,
        processes=(),
        mig=False,
    )


LENGTHS = Lengths(96, 80, measured=True)
A100 = card(0, "NVIDIA A100-SXM4-80GB", 79.2)
RTX = card(1, "NVIDIA GeForce RTX 4090", 23.6)


def forecast(
    rows: float = 4, *, proven: bool = False, weights: float = 6.0, needed: float = 1.0
) -> Forecast:
    """What a batch of `rows` needs: a GiB of activations a row, half of one of logits."""
    parts: dict[Category, int] = {
        "weights": int(weights * GIB),
        "adapters": GIB // 8,
        "gradients": GIB // 8,
        "optimizer": GIB // 4,
        "activations": int(rows * GIB),
        "logits": int(rows * GIB / 2),
    }
    allocated = sum(parts.values())
    return Forecast(
        tier="proof" if proven else "estimate",
        allocated=allocated,
        reserved=allocated,
        needed=int(allocated * needed),
        context=GIB // 2,
        parts=parts,
        moments={"forward": allocated - GIB, "backward": allocated},
        peak="backward",
    )


@dataclass
class FakeDesk:
    """Two GPUs by default. `gate` holds dry runs back until it is set."""

    cards: tuple[GpuSnapshot, ...] = (A100, RTX)
    problem: str = ""
    kind: str = "llama-like"
    advice: Callable[[Profile], Any] | None = None
    gate: Gate = field(default_factory=Gate)
    asked: list[Any] = field(default_factory=list)
    given_up: int = 0

    def __post_init__(self) -> None:
        self.gate.set()

    def devices(self) -> DeviceReading:
        return DeviceReading(GpuReading(self.cards), HOST)

    def known(self, names: Collection[str]) -> Mapping[str, Known]:
        return {}

    def architecture(self, profile: Profile) -> Any:
        if self.problem:
            raise SourceError(self.problem)
        return SimpleNamespace(kind=self.kind)

    def estimate(
        self, profile: Profile, architecture: Any, target: Target, lengths: Lengths
    ) -> Forecast:
        return forecast(profile.train.per_device_train_batch_size)

    def prove(self, profile: Profile, device: Device, told: Told) -> Proof:
        self.asked.append(("prove", profile, device))
        self._wait(told)
        found = forecast(profile.train.per_device_train_batch_size, proven=True, weights=6.5)
        return Proof(found, LENGTHS)

    def fixes(self, profile: Profile, architecture: Any, device: Device, told: Told) -> Any:
        self.asked.append(("fixes", profile, device))
        self._wait(told)
        if self.advice is None:
            raise SourceError("nothing can be proven here: the model is not on this machine")
        return self.advice(profile)

    def _wait(self, told: Told) -> None:
        while not self.gate.wait(0.02):
            if not told("3 dry runs"):
                self.given_up += 1
                raise GivenUpError
