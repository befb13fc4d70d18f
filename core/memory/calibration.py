"""Forecasts held against what real trials measured, kept per GPU and software version for all studies of a user.

The store is a file of JSON lines in the user's state folder. Several daemons append to it at once, each measurement in
one write; a line that is torn or from another program is skipped. It is a help and never a duty: a home that is full,
read-only or missing costs the measurement and nothing else.
"""

import contextlib
import fcntl
import os
import time
from collections.abc import Iterable, Iterator
from functools import lru_cache
from pathlib import Path

import msgspec

from core.memory.forecast import GIB, GUARD_CALIBRATED, GUARD_UNKNOWN, MIB, Tier
from core.version import VERSION

ENOUGH = 3
"""So many measured proofs calibrate a device."""
TOLERATED = 0.02
"""A measurement this much above its forecast shows that the forecasts cannot be trusted to a narrow band."""
KEPT = 50
"""Newest measurements kept of each GPU and software version."""
LARGEST = 256 * 1024
"""Bytes of the store above which old measurements are dropped from it."""

_LONGEST_LINE = 4096
_MOST_READ = 4 * MIB
_ATTEMPTS = 10
_PAUSE = 0.01
"""Seconds from one attempt to the next; pruning takes less."""


class Measurement(msgspec.Struct, frozen=True, kw_only=True):
    """What one trial on a GPU was forecast to need and what it needed; all sizes in bytes."""

    t: float
    """Seconds since the epoch."""
    gpu: str
    """As the driver names it."""
    torch: str
    """PyTorch's version with that of its CUDA, as torch.__version__."""
    tunedeck: str = VERSION
    tier: Tier
    """What made the forecast."""
    forecast_allocated: int
    forecast_needed: int
    allocated: int
    """The most that tensors held at once."""
    reserved: int
    """The most that the allocator took from the device."""
    context: int | None = None
    """What the process held outside of the allocator; None where it was not measured."""
    moments: dict[str, int] = {}
    """The most allocated in each part of the run."""
    missed: bool = False
    """It ran out of memory although it was proven to fit: `allocated` is what it held before it asked for too much."""


def store() -> Path | None:
    """The store's place; None where the user has no home."""
    base = os.environ.get("XDG_STATE_HOME")
    if not base:
        try:
            base = str(Path.home() / ".local" / "state")
        except RuntimeError:
            return None
    return Path(base) / "tunedeck" / "calibration.jsonl"


def record(measurement: Measurement, path: Path | None = None) -> bool:
    """Keep a measurement; False where it makes no sense or cannot be written. Never raises for the disk's sake."""
    path = path or store()
    if path is None or not _sensible(measurement):
        return False
    line = msgspec.json.encode(measurement) + b"\n"
    if len(line) > _LONGEST_LINE:
        return False
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        kept, size = _append(path, line)
    except OSError:
        return False
    if size > LARGEST:
        _prune(path)
    return kept


def load(path: Path | None = None) -> list[Measurement]:
    """All measurements in the order in which they were kept; empty where there is no store."""
    return list(_known(path))


def guard(gpu: str, torch: str, path: Path | None = None) -> float:
    """The share of a forecast that has to stay free on a GPU of this name under this version of PyTorch.

    The narrow band holds once enough proofs of this version of tunedeck were measured there and none was exceeded.
    """
    proofs = [
        m
        for m in _known(path)
        if (m.gpu, m.torch, m.tunedeck, m.tier) == (gpu, torch, VERSION, "proof")
    ][-KEPT:]
    if len(proofs) < ENOUGH:
        return GUARD_UNKNOWN
    exceeded = any(m.missed or m.allocated > m.forecast_allocated * (1 + TOLERATED) for m in proofs)
    return GUARD_UNKNOWN if exceeded else GUARD_CALIBRATED


def context(gpu: str, torch: str, path: Path | None = None) -> int | None:
    """The most that recent trials held outside of the allocator there, bytes; None where nobody measured it."""
    measured = [m.context for m in _known(path) if (m.gpu, m.torch) == (gpu, torch)]
    return max((c for c in measured[-KEPT:] if c is not None), default=None)


def describe(forecast: int, measured: int) -> str:
    """A forecast beside its measurement, both in bytes: "forecast 17.2, measured 17.4 GiB"."""
    if max(forecast, measured) >= GIB:
        return f"forecast {forecast / GIB:.1f}, measured {measured / GIB:.1f} GiB"
    return f"forecast {forecast / MIB:.0f}, measured {measured / MIB:.0f} MiB"


def _sensible(measurement: Measurement) -> bool:
    sizes = (measurement.forecast_allocated, measurement.allocated, measurement.reserved)
    held = measurement.context
    return bool(measurement.gpu) and min(sizes) > 0 and (held is None or held >= 0)


def _known(path: Path | None) -> tuple[Measurement, ...]:
    path = path or store()
    if path is None:
        return ()
    try:
        status = path.stat()
    except OSError:
        return ()
    return _read(path, status.st_ino, status.st_mtime_ns, status.st_size)


@lru_cache(maxsize=4)
def _read(path: Path, inode: int, modified: int, size: int) -> tuple[Measurement, ...]:
    """The store's measurements. It is asked for at each look at the waiting trials and changes a few times a day."""
    try:
        with path.open("rb") as file:
            file.seek(max(0, size - _MOST_READ))
            return tuple(_decode(file.read(_MOST_READ).split(b"\n")))
    except OSError:
        return ()


def _decode(lines: Iterable[bytes]) -> Iterator[Measurement]:
    for line in lines:
        if not line.strip():
            continue
        try:
            measurement = msgspec.json.decode(line, type=Measurement)
        except (ValueError, RecursionError):
            # Torn, foreign, or of a newer version. Bytes that are no UTF-8 and endless nesting are errors of Python's.
            continue
        if _sensible(measurement):
            yield measurement


def _append(path: Path, line: bytes) -> tuple[bool, int]:
    """Append a line in one write: whether all of it was written, and the store's size then."""
    flags = os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC
    for left in range(_ATTEMPTS - 1, -1, -1):
        handle = os.open(path, flags, 0o644)
        try:
            # Pruning replaces the file: what is appended to the old one is lost.
            if left and not (_share(handle) and _current(handle, path)):
                time.sleep(_PAUSE)
                continue
            size = os.fstat(handle).st_size
            # Beside a write that is just being done this may only cost an empty line.
            torn = size > 0 and os.pread(handle, 1, size - 1) != b"\n"
            whole = b"\n" + line if torn else line
            return os.write(handle, whole) == len(whole), size + len(whole)
        finally:
            os.close(handle)
    return False, 0


def _share(handle: int) -> bool:
    """Lock the file against pruning; False while it is pruned. Where files cannot be locked, nobody prunes."""
    try:
        fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        pass
    return True


def _prune(path: Path) -> None:
    """Drop old measurements, unless another process is at the store or the disk is full."""
    try:
        handle = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        return
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if not _current(handle, path):
            return
        size = os.fstat(handle).st_size
        data = os.pread(handle, _MOST_READ, max(0, size - _MOST_READ))
        kept = _newest(list(_decode(data.split(b"\n"))))
        temporary.write_bytes(b"".join(msgspec.json.encode(m) + b"\n" for m in kept))
        temporary.replace(path)
    except OSError:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
    finally:
        os.close(handle)


def _newest(measurements: list[Measurement]) -> list[Measurement]:
    """The newest of each GPU and software version, within half of what the store may hold."""
    counts: dict[tuple[str, str, str], int] = {}
    kept: list[Measurement] = []
    room = LARGEST // 2
    for measurement in reversed(measurements):
        key = (measurement.gpu, measurement.torch, measurement.tunedeck)
        counts[key] = counts.get(key, 0) + 1
        if counts[key] > KEPT:
            continue
        room -= len(msgspec.json.encode(measurement)) + 1
        if room < 0:
            break
        kept.append(measurement)
    return kept[::-1]


def _current(handle: int, path: Path) -> bool:
    """Whether the open file is still the one at `path`."""
    try:
        return os.path.samestat(os.fstat(handle), path.stat())
    except OSError:
        return False
