"""The machine as a source reads it, and what a source says where it cannot."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from core.devices.gpu import GpuReading
    from core.devices.host import HostSnapshot


class SourceError(Exception):
    """Something that was asked for cannot be done; the message says why and what to do."""


@dataclass(frozen=True, slots=True)
class DeviceReading:
    """The machine at one moment."""

    gpus: "GpuReading"
    host: "HostSnapshot"
    ancestors: Mapping[int, tuple[int, ...]] = field(default_factory=dict)
    """The pids above each process on a GPU, nearest first, where this machine knows the process."""
