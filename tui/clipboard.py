"""Copying text to the clipboard of the machine in front of the user, over SSH and tmux.

Two ways lead there. tmux takes text into its own buffer and, with `-w`, passes it on to the
terminal. The escape sequence OSC 52 asks the terminal directly; terminals limit its length, and
none says whether it obeyed, so the caller must be able to show the text instead.
"""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

MAX_OSC52_BYTES = 74_994
"""The longest text, in UTF-8 bytes, that OSC 52 carries.

Terminals accept 100,000 bytes for the whole sequence: 7 of introduction, 1 of ending, and the
base64 of 74,994 bytes, which is 99,992 (hterm's limit, which tmux's and vim's users follow).
"""
_TMUX = ("tmux", "load-buffer", "-w", "-")
_TIMEOUT_S = 2.0

Method = Literal["tmux", "osc52", "shown"]


@dataclass(frozen=True)
class CopyResult:
    """Which way the text went, and a sentence for the user. "shown": the caller shows the text."""

    method: Method
    message: str


def run_command(argv: Sequence[str], data: bytes) -> int:
    """Run `argv` with `data` on its standard input; its exit status.

    Raises OSError if it cannot be started, subprocess.TimeoutExpired after two seconds.
    """
    return subprocess.run(
        list(argv),
        input=data,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        timeout=_TIMEOUT_S,
        check=False,
    ).returncode


def copy(
    text: str,
    *,
    env: Mapping[str, str],
    write_osc52: Callable[[str], None],
    run: Callable[[Sequence[str], bytes], int] = run_command,
) -> CopyResult:
    """Copy `text`: through tmux if we are inside one, else by OSC 52 if it is short enough.

    `env` is the process environment; `write_osc52` gets the text and sends the sequence
    (Textual's `App.copy_to_clipboard` does). Never raises for a tmux that is missing or refuses:
    the next way is tried. A text too long for any way comes back as "shown".
    """
    data = text.encode("utf-8", errors="replace")
    if env.get("TMUX") and _to_tmux(data, run):
        return CopyResult("tmux", "Copied through tmux (paste with the prefix key and ]).")
    if len(data) > MAX_OSC52_BYTES:
        return CopyResult(
            "shown",
            f"Too long to copy over the terminal ({len(data):,} bytes; it takes "
            f"{MAX_OSC52_BYTES:,}). Shown here instead.",
        )
    write_osc52(text)
    return CopyResult("osc52", "Copied, if your terminal allows it (OSC 52).")


def _to_tmux(data: bytes, run: Callable[[Sequence[str], bytes], int]) -> bool:
    try:
        # Older than tmux 3.2: no `-w`, which it refuses; its buffer alone is not the clipboard.
        return run(_TMUX, data) == 0
    except (OSError, subprocess.SubprocessError):
        return False
