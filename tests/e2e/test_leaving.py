"""Ctrl-C in the real command, as a terminal sends it: to all that is in the foreground."""

import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from core.profile import DEMO_DATA
from tests.e2e.place import COMMAND, Place, until

DEMO = str(DEMO_DATA.with_name("demo.toml"))


@pytest.fixture(autouse=True)
def listening() -> Iterator[None]:
    """What a shell starts in the background ignores Ctrl-C, and so would all that it starts in turn."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


class Foreground:
    """The command in a process group of its own, with what it says in files."""

    def __init__(self, place: Place, *arguments: str) -> None:
        self._files = place.folder / "out", place.folder / "err"
        with self._files[0].open("wb") as out, self._files[1].open("wb") as err:
            self._child = subprocess.Popen(
                [*COMMAND, *arguments], cwd=place.folder, env={**place.env, "PYTHONUNBUFFERED": "1"},
                stdin=subprocess.DEVNULL, stdout=out, stderr=err, start_new_session=True,
            )  # fmt: skip

    def said(self) -> str:
        return "".join(file.read_text() for file in self._files)

    def leave(self) -> str:
        """Press Ctrl-C; what is on the error output in the end."""
        assert self._child.poll() is None, self.said()
        os.killpg(self._child.pid, signal.SIGINT)
        assert self._child.wait(timeout=60) == 130, self.said()
        assert "Traceback" not in self.said()
        return self._files[1].read_text()


def children_of(place: Place, role: str) -> list[str]:
    """The processes of a role that were started in this place."""
    mark = f"XDG_STATE_HOME={place.env['XDG_STATE_HOME']}".encode()
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            words = (folder / "cmdline").read_bytes().split(b"\0")
            if role.encode() in words and mark in (folder / "environ").read_bytes():
                found.append(folder.name)
        except OSError:
            continue
    return found


def test_a_search_goes_on_and_says_how_to_come_back(place: Place) -> None:
    running = Foreground(place, "demo", "--headless", "--study", "d")
    until(lambda: "trial 1: starts" in running.said(), "the first trial")
    said = running.leave()
    assert said.count("\n") == 1 and "the study goes on: `tunedeck attach d` watches it" in said
    assert place.json("status", "d")["engine"]
    place.must("stop", "d")
    until(lambda: place.json("status", "d")["status"] == "stopped", "the end of the study")
    assert "the study is stopped" in place.run("attach", "d", "--headless").stdout


def test_a_look_at_data_and_a_dry_run_leave_nothing(place: Place) -> None:
    for role, arguments in {
        "_data": ("data", DEMO),
        "_dryrun": ("estimate", DEMO, "--prove"),
    }.items():
        running = Foreground(place, *arguments)
        until(lambda role=role: bool(children_of(place, role)), f"the process {role}")  # type: ignore[misc]
        assert running.leave().endswith("tunedeck: interrupted; nothing was left behind\n")
        until(lambda role=role: not children_of(place, role), f"the end of {role}")  # type: ignore[misc]


@pytest.mark.parametrize("command", ["export", "chat", "eval"])
def test_what_works_with_a_model_ends_with_its_client(place: Place, command: str) -> None:
    folder = place.folder / "weights"
    folder.symlink_to(DEMO_DATA.with_name("model"))
    output = ("-o", "made") if command == "export" else ()
    data = ("--data", DEMO_DATA.name) if command == "eval" else ()
    (place.folder / DEMO_DATA.name).symlink_to(DEMO_DATA)
    role = {"eval": "_evaluate"}.get(command, f"_{command}")
    running = Foreground(place, command, "weights", *output, *data)
    until(lambda: bool(children_of(place, role)), f"the process {role}")
    assert running.leave().endswith("tunedeck: interrupted; nothing was left behind\n")
    until(lambda: not children_of(place, role), f"the end of {role}")
    assert not list(place.folder.glob("made*"))
