"""The process `tunedeck _propose`: reads what was tried on its input, prints what to try next, and ends."""

import os
import sys

import msgspec

from core.profile import ProfileError, loads
from core.search.proposals import ProposeReply, ProposeRequest


def main(argv: list[str]) -> int:
    """Answer one `ProposeRequest` on the standard input with one `ProposeReply` on the standard output.

    Returns 0, or 1 after a sentence on the standard error.
    """
    try:
        request = msgspec.json.decode(sys.stdin.buffer.read(), type=ProposeRequest)
        profile = loads(request.profile, source="the study's profile")
        # One thread is enough, and on a machine with many cores each takes memory. Loaded only here: a request that
        # cannot be read is answered without a sampler.
        os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
        from core.search.bayesian import propose

        points = propose(profile, request.trials, request.count, request.seed)
    except (ProfileError, ValueError, ImportError) as error:
        return _failed(str(error))
    except Exception as error:
        return _failed(f"{type(error).__name__}: {error}")
    sys.stdout.buffer.write(msgspec.json.encode(ProposeReply(points)) + b"\n")
    sys.stdout.buffer.flush()
    return 0


def _failed(why: str) -> int:
    print(f"no settings could be proposed: {' '.join(why.split())}", file=sys.stderr)
    return 1
