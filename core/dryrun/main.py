"""The dry run's process: reads requests from its standard input, a line each, and answers on its standard output.

Started as `tunedeck _dryrun`. It ends when its input does, also in the middle of a proof: whoever asked is gone.
"""

import contextlib
import gc
import logging
import os
import queue
import sys
import threading
import traceback
import warnings
from typing import BinaryIO

import msgspec

from core.memory.proof import (
    Measured,
    MeasureLengths,
    Proven,
    Refused,
    Reply,
    decode_request,
    encode,
)
from core.profile import ProfileError, from_document

NICENESS = 5
"""What is trained, and what is typed, comes first."""


def main(argv: list[str]) -> int:
    """Answer until the input ends."""
    if argv:
        print("usage: tunedeck _dryrun", file=sys.stderr)
        return 2
    _prepare_process()
    answers = os.fdopen(os.dup(1), "wb")
    # Whatever a library prints must not stand between the answers.
    os.dup2(2, 1)
    # What is imported stays: looking for garbage among it takes longer than a small proof.
    gc.disable()
    lines: queue.SimpleQueue[bytes] = queue.SimpleQueue()
    threading.Thread(target=_listen, args=(sys.stdin.buffer, lines), daemon=True).start()
    _import_libraries()
    while True:
        reply = answer(lines.get())
        with contextlib.suppress(BrokenPipeError):
            answers.write(encode(reply))
            answers.flush()
        gc.freeze()


def answer(line: bytes) -> Reply:
    """The reply to a request; every failure becomes one."""
    from core.dryrun.errors import CannotProve

    try:
        request = decode_request(line)
        profile = from_document(request.profile, source="the profile")
        if isinstance(request, MeasureLengths):
            from core.dryrun.lengths import measure

            return Measured(measure(profile))
        from core.dryrun.prove import prove

        return Proven(prove(profile, request.target, request.lengths))
    except (CannotProve, ProfileError) as error:
        return Refused(str(error))
    except msgspec.DecodeError as error:
        return Refused(f"this is no request: {error}")
    except Exception as error:
        traceback.print_exc(file=sys.stderr)
        return Refused(_unforeseen(error))


def _unforeseen(error: Exception) -> str:
    """A model's code may do anything, and some of it needs numbers that a simulation does not have."""
    from core.train.errors import first_line

    if type(error).__name__ in ("DataDependentOutputException", "DynamicOutputShapeException"):
        return "what this model computes depends on its data, so that its run cannot be simulated"
    return f"the run cannot be simulated: {type(error).__name__}: {first_line(error)}"


def _listen(source: BinaryIO, lines: "queue.SimpleQueue[bytes]") -> None:
    for line in source:
        lines.put(line)
    os._exit(0)


def _prepare_process() -> None:
    """Settings that libraries read once, when they are imported. One thread: nothing is computed. No GPU and no
    network: neither is needed."""
    with contextlib.suppress(OSError):
        os.nice(NICENESS)
    os.environ |= {
        "OMP_NUM_THREADS": "1",
        "RAYON_NUM_THREADS": "1",
        "CUDA_VISIBLE_DEVICES": "",
        "HF_HUB_OFFLINE": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "TRANSFORMERS_VERBOSITY": "error",
        "TOKENIZERS_PARALLELISM": "true",
    }
    warnings.simplefilter("ignore")
    logging.disable(logging.CRITICAL)


def _import_libraries() -> None:
    """Before the first request comes, which is then answered sooner."""
    from core.dryrun.prove import import_libraries

    import_libraries()
