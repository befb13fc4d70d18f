"""Stands in for tunedeck.py: processes that speak the protocol of `core.study.after` and load no model.

What it does is said by FAKE_AFTER.
"""

import os
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
sys.path.insert(0, str(ROOT))

from core.study.after import (  # noqa: E402
    UNFINISHED,
    ChatRequest,
    ExportReply,
    ExportRequest,
    Failure,
    Heard,
    Hush,
    Open,
    Piece,
    Progress,
    Ready,
    Said,
    Say,
    decode_request,
    encode,
    partial_of,
)


def say(message: object) -> None:
    sys.stdout.buffer.write(encode(message))  # type: ignore[arg-type]
    sys.stdout.buffer.flush()


def export() -> int:
    request = decode_request(sys.stdin.buffer.readline(), ExportRequest)
    say(Progress("merging", 1, 2))
    match os.environ["FAKE_AFTER"]:
        case "fails":
            say(Failure("the base model cannot be found", usage=True, kept="/kept"))
            return 2
        case "dies":
            print("Killed by something", file=sys.stderr)
            os._exit(3)
        case "babbles":
            print("this is no JSON", flush=True)
        case "hangs":
            partial = partial_of(Path(request.output))
            partial.mkdir()
            (partial / UNFINISHED).touch()
            say(Progress("writing"))
            # Deaf to the end of its input as well.
            time.sleep(120)
    say(
        ExportReply(
            output=request.output, kind="model", dtype="bf16", parameters=1, files=(), bytes=1
        )
    )
    return 0


def chat() -> int:
    while line := sys.stdin.buffer.readline():
        match decode_request(line, ChatRequest):
            case Open():
                say(Progress("loading the model"))
                say(Ready(name="base", device="CPU", dtype="fp32", speakers=("tuned", "base")))
            case Say(talks=talks):
                answer(talks)
            case Hush():
                pass
    return 0


def answer(talks: dict) -> None:  # type: ignore[type-arg]
    who, turns = next(iter(talks.items()))
    if turns[-1].text == "refuse":
        say(Failure("the conversation is too long", usage=True))
        return
    if turns[-1].text == "die":
        os._exit(1)
    for name in talks:
        say(Piece(name, "first "))
    if turns[-1].text == "long":
        decode_request(sys.stdin.buffer.readline(), ChatRequest)
        say(Said(who, "first ", 1, 1.0, "hushed"))
        say(Heard())
        return
    for name, own in talks.items():
        said = f"{name} heard {len(own)}: {own[-1].text}"
        say(Piece(name, said))
        say(Said(name, f"first {said}", 5, 1.0, "end"))
    say(Heard())


if __name__ == "__main__":
    sys.exit({"_export": export, "_chat": chat}[sys.argv[1]]())
