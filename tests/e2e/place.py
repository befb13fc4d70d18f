"""A place for an end-to-end test: a folder, the real command in it, and patience with a bound."""

import json
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
COMMAND = [sys.executable, "-P", str(ROOT / "tunedeck.py")]


@dataclass
class Place:
    """A folder to work in, and an environment in which nothing of the user's is touched."""

    folder: Path
    env: dict[str, str]

    def run(self, *arguments: str, timeout: float = 240.0) -> subprocess.CompletedProcess[str]:
        """Run the command to its end, without a terminal."""
        return subprocess.run(
            [*COMMAND, *arguments], cwd=self.folder, env=self.env, stdin=subprocess.DEVNULL,
            capture_output=True, text=True, timeout=timeout,
        )  # fmt: skip

    def must(self, *arguments: str, timeout: float = 240.0) -> str:
        """Run the command, which must succeed; returns what it printed."""
        ran = self.run(*arguments, timeout=timeout)
        assert ran.returncode == 0, f"{arguments}: {ran.stdout}\n{ran.stderr}"
        return ran.stdout

    def json(self, *arguments: str) -> Any:
        """What the command prints with --json."""
        return json.loads(self.must(*arguments, "--json"))


def until(condition: Callable[[], bool], what: str, timeout: float = 90.0) -> None:
    """Wait for `condition`; fails by name where it does not come in time."""
    end = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < end, f"never came: {what}"
        time.sleep(0.1)
