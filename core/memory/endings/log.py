"""Finds in a worker's log the error that ended it, and in which part of the run that was.

A log may be cut at its beginning, hold the words of several processes and threads in turn, carry prefixes of
launchers and timestamps, progress bars in the middle of a line, and escape codes of a terminal.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from core.memory.forecast import Moment

LAST_LINES = 15
"""How many lines may follow an error that ended the process, without counting stack traces: an abort in C++ prints a
handful."""
_MESSAGE_LINES = 12
"""How many lines of a message are read: NCCL's, and that of torch's asynchronous allocator, have several."""

_ESCAPE = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
_RANK = re.compile(
    r"\[?(rank ?\d+|default\d+)\]?: ?|\[\d+,\d+\]<std(?:err|out)>: ?|\([\w.]+(?: [\w.]+)? pid=\d+[^)]*\) ?"
)
"""How launchers mark whose line it is: torchrun, torch's own hook, mpirun, Ray."""
_STAMP = re.compile(
    r"(?:\d{4}-\d\d-\d\d[T ])?\d\d:\d\d:\d\d[\d.,]*(?:Z|[+-]\d\d:?\d\d)?\s*[|:]?\s+"
    r"|\d+\.\d+s\t\d+\t"
    r"|\d{1,3}: (?=\[rank|[\w.]+Error|Traceback|  )"
    r"|(?:ERROR|CRITICAL) \d\d-\d\d \d\d:\d\d:\d\d \[[\w.]+:\d+\] ?"
)
_BAR = re.compile(
    r"(?:[\w .()/-]{0,60}: *)?\s*\d{1,3}%\|[^|\n]*\|[^\[\n]{0,60}\[[^\]\n]{0,160}\]\s*"
)
_TORN_FRAME = re.compile(
    r'\s*File "[^"\n]*", line \d+\D.*?(?=(?:torch\.)(?:\w+\.)?OutOfMemoryError: )'
)
"""A line of another thread's traceback into which the error was written."""

_ERROR = re.compile(
    r"(?P<type>[A-Za-z_][\w.]*(?:Error|Exception|Interrupt|SystemExit))(?:: ?(?P<message>.*))?$",
    re.DOTALL,
)
_THROWN = re.compile(r"terminate called after throwing an instance of '(?:\w+::)*(\w+)'")
_WHAT = re.compile(r"\s*what\(\): +(?P<message>.*)$")
_TRACEBACK = re.compile(r"Traceback \(most recent call last\)")
_IGNORED = re.compile(r"Exception ignored (in|on)")
_CAUSED = re.compile(r"The above exception was the direct cause of the following exception")
_AFTERMATH = re.compile(
    r"ChildFailedError|SignalException|BrokenPipeError|ConnectionResetError|EOFError|KeyboardInterrupt"
    r"|[^\n]*(Connection (closed|reset) by (remote )?peer|remote process exited|socketProgress)"
)
"""What other processes and the launcher say because one has died."""
_STACK = re.compile(
    r'frame #\d+: |\s*File "|\s+[\^~]+|Thread 0x|Current thread |Extension modules: |\s*$'
    r"|Fatal Python error|Exception raised from "
)

_FRAME = re.compile(
    r'\s*File "(?P<file>[^"\n]*)", line \d+, in (?P<name>[\w.<>]+)'
    r"|[│|]? *(?P<rich>\S+\.py):\d+ in (?P<rich_name>[\w.<>]+)"
    r"|(?:File )?(?P<cell>\S+\.py)(?::\d+, in | in )(?P<cell_name>[\w.<>]+)\("
)

_EVAL = frozenset({"evaluate", "evaluation_loop", "prediction_step", "prediction_loop"})
_SAVE = frozenset(
    {
        "save_model",
        "_save",
        "_save_checkpoint",
        "save_checkpoint",
        "save_pretrained",
        "save_file",
        "merge_and_unload",
        "_save_optimizer_and_scheduler",
    }
)
_LOAD = frozenset(
    {
        "from_pretrained",
        "from_config",
        "_load_pretrained_model",
        "load_model",
        "build_model",
        "get_peft_model",
        "dispatch_model",
        "load_checkpoint_in_model",
        "prepare_model_for_kbit_training",
        "_load_from_checkpoint",
        "_load_optimizer_and_scheduler",
    }
)
_OPTIMIZER = frozenset({"clip_grad_norm_", "clip_grad_norm", "_use_grad", "_init_group"})
_BACKWARD = frozenset({"backward", "_engine_run_backward"})
_FORWARD = frozenset({"forward", "compute_loss", "_wrapped_call_impl", "_call_impl"})


@dataclass(frozen=True, slots=True)
class Said:
    """The error that ended a process, as its log has it."""

    error_type: str
    """Empty for a line that a library printed without an exception."""
    message: str
    """All of its lines."""
    moment: Moment | None
    """In which part of the run, from the traceback's frames; None where they do not tell."""


@dataclass(frozen=True, slots=True)
class _Line:
    owner: str
    """The mark of the process that wrote the line, empty without one."""
    text: str


def last_errors(log: str) -> Iterator[Said]:
    """The errors that a log ends with, latest first: of each process that is told apart, the last one.

    Errors that were only logged while something else was cleaned up are left out, and so is what other processes say
    because one died. An error that another was explicitly raised from comes after that one.
    """
    lines = [_clean(raw) for raw in re.split(r"\r\n|\n|\r", log)]
    found = _errors(lines)
    seen: set[str] = set()
    for position in range(len(found) - 1, -1, -1):
        index, error_type, message = found[position]
        owner = lines[index].owner
        if owner in seen or _too_old(lines[index + 1 :], owner):
            continue
        if _follows(error_type, message):
            continue
        seen.add(owner)
        yield _said(lines, index, error_type)
        while position > 0 and _caused(lines, found[position - 1][0], index):
            position -= 1
            index, error_type, _ = found[position]
            yield _said(lines, index, error_type)


def last_lines(log: str) -> Iterator[str]:
    """The lines after the log's last exception, latest first, without marks, bars and stack traces."""
    count = 0
    for raw in reversed(re.split(r"\r\n|\n|\r", log.rstrip())):
        text = _clean(raw).text.strip()
        if _STACK.match(text):
            continue
        error = _ERROR.match(text)
        if error and not _follows(error["type"], error["message"] or ""):
            # What was printed before an exception is not what ended the process.
            return
        count += 1
        if count > LAST_LINES:
            return
        yield text


def warnings_of_nccl(log: str) -> str:
    """What NCCL warned of, which its errors do not repeat; empty without a warning."""
    return "\n".join(re.findall(r"NCCL WARN ((?:Cuda failure|Failed to CUDA)[^\r\n]*)", log))


def moment_of(frames: Iterable[tuple[str, str]]) -> Moment | None:
    """The part of a run that a stack is in; `frames` are (file, function), outermost first.

    The outermost frame that tells decides: a forward pass inside of a backward pass is recomputed for it.
    """
    forward = False
    for file, function in frames:
        name = function.rpartition(".")[2]
        if name in _EVAL:
            return "eval"
        if name in _SAVE:
            return "save"
        if name in _LOAD:
            return "load"
        if name in _OPTIMIZER or (name == "step" and _steps(file)):
            return "optimizer"
        if name in _BACKWARD:
            return "backward"
        forward = forward or name in _FORWARD
    return "forward" if forward else None


def _steps(file: str) -> bool:
    path = file.replace("\\", "/")
    return "optim" in path or path.endswith("grad_scaler.py")


def _clean(raw: str) -> _Line:
    """A line without escape codes, bars and the marks before it."""
    text, owner = _ESCAPE.sub("", raw), ""
    while True:
        if match := _RANK.match(text):
            owner = owner or match[0].strip()
        else:
            match = _STAMP.match(text) or _BAR.match(text)
        if match is None or match.end() == 0:
            break
        text = text[match.end() :]
    if torn := _TORN_FRAME.match(text):
        text = text[torn.end() :]
    return _Line(owner, text)


def _errors(lines: list[_Line]) -> list[tuple[int, str, str]]:
    """The lines that name an error: (line, type, message's first line), in order."""
    found: list[tuple[int, str, str]] = []
    ignored: set[str] = set()
    thrown: dict[str, str] = {}
    for index, line in enumerate(lines):
        if _IGNORED.match(line.text):
            ignored.add(line.owner)
        elif match := _THROWN.match(line.text):
            thrown[line.owner] = match[1]
        elif match := _WHAT.match(line.text):
            if line.owner in thrown:
                found.append((index, thrown.pop(line.owner), match["message"]))
        elif match := _ERROR.match(line.text):
            if line.owner in ignored:
                ignored.discard(line.owner)
            else:
                found.append((index, match["type"], match["message"] or ""))
    return found


def _follows(error_type: str, message: str) -> bool:
    return _AFTERMATH.match(f"{error_type.rpartition('.')[2]}: {message}") is not None


def _too_old(after: list[_Line], owner: str) -> bool:
    said = 0
    for line in after:
        if not _STACK.match(line.text) and (line.owner == owner or not owner):
            said += 1
            if said > LAST_LINES:
                return True
    return False


def _caused(lines: list[_Line], earlier: int, later: int) -> bool:
    return any(_CAUSED.match(line.text) for line in lines[earlier:later])


def _said(lines: list[_Line], index: int, error_type: str) -> Said:
    line = lines[index]
    match = _ERROR.match(line.text) or _WHAT.match(line.text)
    words = [match["message"] or ""] if match else []
    for following in lines[index + 1 :]:
        if following.owner != line.owner:
            continue
        text = following.text
        ends = _ERROR.match(text) or _TRACEBACK.search(text) or _FRAME.match(text)
        if ends or len(words) >= _MESSAGE_LINES or (_STACK.match(text) and text.strip()):
            break
        words.append(text)
    return Said(error_type, "\n".join(words).strip(), _moment(lines, index))


def _moment(lines: list[_Line], index: int) -> Moment | None:
    """The part of the run in which the traceback that ends at a line is."""
    frames: list[tuple[str, str]] = []
    whole = False
    for line in reversed(lines[:index]):
        if line.owner != lines[index].owner:
            continue
        if _TRACEBACK.search(line.text) or _ERROR.match(line.text):
            whole = True
            break
        if match := _FRAME.match(line.text):
            file = match["file"] or match["rich"] or match["cell"] or ""
            frames.append((file, match["name"] or match["rich_name"] or match["cell_name"] or ""))
    moment = moment_of(reversed(frames))
    # What called a forward pass may be cut off: a backward pass that recomputes it, an evaluation.
    return moment if whole or moment != "forward" else None
