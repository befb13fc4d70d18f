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

    def run(self, *arguments: str, timeout: float = 1800.0) -> subprocess.CompletedProcess[str]:
        """Run the command to its end, without a terminal."""
        return subprocess.run(
            [*COMMAND, *arguments], cwd=self.folder, env=self.env, stdin=subprocess.DEVNULL,
            capture_output=True, text=True, timeout=timeout,
        )  # fmt: skip

    def must(self, *arguments: str, timeout: float = 1800.0) -> str:
        """Run the command, which must succeed; returns what it printed."""
        ran = self.run(*arguments, timeout=timeout)
        assert ran.returncode == 0, f"{arguments}: {ran.stdout}\n{ran.stderr}"
        return ran.stdout

    def json(self, *arguments: str) -> Any:
        """What the command prints with --json."""
        return json.loads(self.must(*arguments, "--json"))


def until(condition: Callable[[], bool], what: str, timeout: float = 300.0) -> None:
    """Wait for `condition`; fails by name where it does not come in time."""
    # Looks are counted, not seconds: a machine that stood still is not impatient.
    for _ in range(round(timeout / 0.1)):
        if condition():
            return
        time.sleep(0.1)
    raise AssertionError(f"never came: {what}")
