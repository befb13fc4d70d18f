"""A trial's metrics: one JSON object a line, written by its worker, followed by everybody else.

A number that is not finite is written as the text "NaN", "Infinity" or "-Infinity", so that it is neither lost nor
invalid JSON. When a later attempt of a trial starts over or goes on from a checkpoint, its lines carry a higher
`attempt`: points of earlier attempts at or after its first step are dropped by the reader.
"""

import math
import os
from collections.abc import Iterable
from pathlib import Path
from typing import IO

import msgspec


class Point(msgspec.Struct, frozen=True, omit_defaults=True):
    """One logged moment of a training run; every measure that was not taken is None."""

    t: float
    """Seconds since the epoch."""
    step: int
    """Updates done."""
    attempt: int = 1
    epoch: float | None = None
    loss: float | None = None
    """Training loss, nats per learnt token, mean since the last point."""
    eval_loss: float | None = None
    grad_norm: float | None = None
    """Length of the gradient before clipping."""
    lr: float | None = None
    tokens: int | None = None
    """Tokens trained on so far, padding left out."""
    tokens_per_s: float | None = None
    mem_allocated: int | None = None
    """Bytes of GPU memory held by tensors; the process's resident set on the CPU."""
    mem_reserved: int | None = None
    mem_peak: int | None = None
    """The most bytes held so far."""
    utilisation: float | None = None
    """How busy the device was since the last point, 0 to 1: the GPU as NVML says, or the process's CPU time over the
    time and the threads that it may use."""
    loss_smoothed: float | None = None
    """The average of the training loss up to here (`core.search.smoothing`), over all attempts."""
    more: dict[str, float] | None = None
    """Other measures by name, as a stage logs them (eval_accuracy, reward_margin …)."""


class _Line(msgspec.Struct, frozen=True):
    t: float
    step: int
    attempt: int = 1
    epoch: float | str | None = None
    loss: float | str | None = None
    eval_loss: float | str | None = None
    grad_norm: float | str | None = None
    lr: float | str | None = None
    tokens: int | None = None
    tokens_per_s: float | str | None = None
    mem_allocated: int | None = None
    mem_reserved: int | None = None
    mem_peak: int | None = None
    utilisation: float | None = None
    loss_smoothed: float | str | None = None
    more: dict[str, float | str] | None = None


_NAMES = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}
_MAYBE_TEXT = ("epoch", "loss", "eval_loss", "grad_norm", "lr", "tokens_per_s", "loss_smoothed")
_decoder = msgspec.json.Decoder(Point)
_text_decoder = msgspec.json.Decoder(_Line)


def encode_point(point: Point) -> bytes:
    """A point as a line of the metrics file, its newline included."""
    fields = {k: v for k, v in msgspec.structs.asdict(point).items() if v is not None}
    for key, value in fields.items():
        if isinstance(value, float) and not math.isfinite(value):
            fields[key] = _name(value)
        elif key == "more":
            fields[key] = {k: v if math.isfinite(v) else _name(v) for k, v in value.items()}
    return msgspec.json.encode(fields) + b"\n"


def _name(value: float) -> str:
    return "NaN" if math.isnan(value) else ("Infinity" if value > 0 else "-Infinity")


def decode_point(line: bytes) -> Point | None:
    """A point from its line; None when the line is torn or of another form."""
    try:
        return _decoder.decode(line)
    except (ValueError, RecursionError):
        pass
    try:
        read = _text_decoder.decode(line)
    except (ValueError, RecursionError):
        # Bytes that are no UTF-8 and endless nesting are errors of Python's, not of msgspec's.
        return None
    fields = msgspec.structs.asdict(read)
    for key in _MAYBE_TEXT:
        if isinstance(fields[key], str):
            if fields[key] not in _NAMES:
                return None
            fields[key] = _NAMES[fields[key]]
    if read.more is not None:
        if any(isinstance(v, str) and v not in _NAMES for v in read.more.values()):
            return None
        fields["more"] = {k: _NAMES[v] if isinstance(v, str) else v for k, v in read.more.items()}
    return Point(**fields)


class MetricsWriter:
    """Appends points to a metrics file; each reaches the operating system at once."""

    def __init__(self, path: Path) -> None:
        """Open `path` for appending; a torn last line is closed so that the next one stands alone.

        Raises:
            OSError: the file cannot be opened.
        """
        self._file: IO[bytes] = path.open("ab", buffering=0)
        if self._file.tell() > 0:
            with path.open("rb") as existing:
                existing.seek(-1, os.SEEK_END)
                if existing.read(1) != b"\n":
                    self._file.write(b"\n")

    def write(self, point: Point) -> None:
        """Append one point.

        Raises:
            OSError: the disk is full.
        """
        self._file.write(encode_point(point))

    def close(self) -> None:
        self._file.close()


class MetricsTail:
    """Follows a metrics file: each `poll` reads only what was added since the last."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._offset = 0
        self._rest = b""

    def poll(self) -> list[Point]:
        """The points added since the last call, in file order; empty while there is no file."""
        try:
            size = self._path.stat().st_size
            if size < self._offset:
                self._offset, self._rest = 0, b""
            if size == self._offset:
                return []
            with self._path.open("rb") as file:
                file.seek(self._offset)
                data = file.read()
        except OSError:
            return []
        self._offset += len(data)
        lines = (self._rest + data).split(b"\n")
        self._rest = lines.pop()
        decoded = (decode_point(line) for line in lines if line)
        return [p for p in decoded if p is not None]


def merge(points: list[Point], added: Iterable[Point]) -> list[Point]:
    """Append `added` to `points` in place, dropping what a later attempt overrides; returns `points`."""
    for point in added:
        if points and point.attempt > points[-1].attempt:
            while points and points[-1].step >= point.step:
                points.pop()
        points.append(point)
    return points


def read_points(path: Path) -> list[Point]:
    """All points of a metrics file, overridden ones left out; empty where there is no file."""
    return merge([], MetricsTail(path).poll())
