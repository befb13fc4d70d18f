"""The processes that work with a trained model: how they hear requests, how they answer, and how they end.

A process has two ends: its request is met, or whoever asked is gone, which it sees by the end of its input. Then what
it does is interrupted as by Ctrl-C, so that nothing half is left behind.
"""

import _thread
import contextlib
import logging
import os
import queue
import signal
import sys
import threading
import traceback
import warnings
from collections.abc import Callable
from typing import Any

import msgspec

from core.study.after import Device, Failure, Progress, decode_request, encode
from core.train.errors import UsageError, first_line
from core.train.limits import is_disk_full, is_out_of_memory

EXIT_OK = 0
EXIT_FAILED = 1
EXIT_USAGE = 2
EXIT_INTERRUPTED = 130


class Line:
    """The way to whoever asked: messages go out as lines, and whatever else is printed goes to the error output."""

    def __init__(self) -> None:
        # Whatever a library prints must not stand between the answers.
        self._out = os.fdopen(os.dup(1), "wb")
        os.dup2(2, 1)
        self._lock = threading.Lock()

    def say(self, message: msgspec.Struct) -> None:
        """Send a message; one that nobody hears any more is lost."""
        with self._lock, contextlib.suppress(BrokenPipeError):
            self._out.write(encode(message))
            self._out.flush()

    def progress(self, what: str, done: int = 0, total: int = 0) -> None:
        """Say what is being done."""
        self.say(Progress(what, done, total))


def answer_one(kind: Any, meet: Callable[[Any, Line], None]) -> int:
    """Read one request of type `kind` and have it met; every failure becomes an answer. Returns the exit code."""
    line = Line()
    listen_to_signals()
    try:
        request = decode_request(sys.stdin.buffer.readline(), kind)
    except msgspec.DecodeError as error:
        line.say(Failure(f"this is no request: {error}", usage=True))
        return EXIT_USAGE
    threading.Thread(target=_watch_input, daemon=True).start()
    prepare(getattr(request, "device", "cpu"))
    try:
        meet(request, line)
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED
    except Exception as error:
        failure = failure_of(error)
        line.say(failure)
        return EXIT_USAGE if failure.usage else EXIT_FAILED
    return EXIT_OK


def listen_to_signals() -> None:
    """Both ways to ask for an end are one. What is started in the background ignores Ctrl-C until it says otherwise."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, signal.default_int_handler)


def requests(kind: Any) -> "queue.SimpleQueue[Any]":
    """The requests of type `kind` as they come; None at their end, an exception in place of what is none."""
    heard: queue.SimpleQueue[Any] = queue.SimpleQueue()

    def listen() -> None:
        for line in sys.stdin.buffer:
            try:
                heard.put(decode_request(line, kind))
            except msgspec.DecodeError as error:
                heard.put(error)
        heard.put(None)

    threading.Thread(target=listen, daemon=True).start()
    return heard


def failure_of(error: Exception) -> Failure:
    """What is told of an exception; the traceback of one that nobody foresaw goes to the error output."""
    kept = getattr(error, "kept", None)
    if isinstance(error, UsageError):
        return Failure(str(error), usage=True, kept=kept)
    if is_disk_full(error):
        return Failure(f"the disk is full: {_told(error)}", kept=kept)
    if is_out_of_memory(error):
        return Failure(
            f"memory ran out: {first_line(error)}. Try --device cpu, or fewer bytes at a time: a "
            "smaller --dtype (export, chat), a smaller --batch-size (eval)",
            kept=kept,
        )
    if isinstance(error, OSError):
        return Failure(_told(error), kept=kept)
    if not hasattr(error, "kept"):
        traceback.print_exc(file=sys.stderr)
        return Failure(f"{type(error).__name__}: {first_line(error)}")
    return Failure(str(error), kept=kept)


def _told(error: Exception) -> str:
    """What the system says of a file, without its number."""
    if not isinstance(error, OSError) or error.strerror is None:
        return first_line(error)
    return error.strerror + (f": {error.filename}" if error.filename else "")


def prepare(device: Device) -> None:
    """Settings that libraries read once, when they are imported."""
    os.environ["CUDA_DEVICE_ORDER"] = "PCI_BUS_ID"
    if device == "cpu":
        os.environ["CUDA_VISIBLE_DEVICES"] = ""
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    os.environ["TRANSFORMERS_VERBOSITY"] = "error"
    os.environ["TQDM_DISABLE"] = "1"
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")
    warnings.simplefilter("ignore")
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)


def _watch_input() -> None:
    """Interrupt the work once the input has ended: nobody waits for its result."""
    # Not through the buffer: a thread that waits while it holds the buffer's lock aborts the interpreter at its end.
    while os.read(sys.stdin.fileno(), 65_536):
        pass
    _thread.interrupt_main()
