"""How a client makes a study, starts its daemon and talks to it."""

import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from core.devices.lock import LockError, is_locked, try_lock
from core.engine.address import MOST_BYTES, read_info
from core.engine.launch import PROGRAM
from core.engine.messages import Reply, Request
from core.study.files import RangeTest, write_record
from core.study.recipes import RecipeReader, recipe_of
from core.study.state import StudyState
from core.study.store import StudyError, StudyFolder, TrialFolder, remember

if TYPE_CHECKING:
    from core.profile import Profile

PATIENCE = 60.0
"""Seconds that a daemon may take to start or to answer: a shared server may be busy, and its disk slow."""


class EngineError(Exception):
    """A daemon cannot be started or reached, or a study cannot be deleted; the message says why."""


def create_study(profile: "Profile", folder: Path, range_test: RangeTest | None = None) -> Path:
    """Make a study's folder with its profile; its daemon, when it starts, plans the trials. Returns the folder.

    With `range_test` the study is a learning-rate range test of the profile's own settings, whatever it searches.

    Raises:
        StudyError: the folder exists and is not empty, cannot be made, or has a name that is no text; or the range
            test makes no sense.
    """
    if range_test is not None and profile.method.stage == "ppo":
        raise StudyError(
            'a range test looks for where the loss falls, and that of stage "ppo" does not fall as its policy gets '
            "better; search learning_rate, ranked by eval_reward"
        )
    if range_test is not None and range_test.problem is not None:
        raise StudyError(range_test.problem)
    # Imported here: a client that only looks at a study should not pay for the catalogue.
    from core.profile import save

    study = StudyFolder(folder.resolve())
    try:
        str(study.path).encode()
    except UnicodeEncodeError:
        shown = str(study.path).encode(errors="backslashreplace").decode()
        raise StudyError(f"{shown}: the name of a study's folder must be UTF-8") from None
    try:
        study.path.mkdir(parents=True, exist_ok=True)
        if any(study.path.iterdir()):
            raise StudyError(f"{folder} exists and is not empty: choose another folder")
        if range_test is not None:
            write_record(study.range_test, range_test)
        save(profile, study.profile)
    except OSError as error:
        raise StudyError(f"the study {folder} cannot be made: {error.strerror}") from None
    remember(study.path)
    return study.path


def start_daemon(folder: Path, timeout: float = PATIENCE) -> None:
    """Start the study's daemon, detached, unless one lives; returns once it answers. `timeout` is in seconds.

    Raises:
        EngineError: it cannot be started; the message is the daemon's own.
    """
    if daemon_alive(folder):
        return
    command = [sys.executable, "-P", str(PROGRAM), "_daemon", str(folder.resolve())]
    try:
        # Ctrl-C is the client's alone to hear: a daemon that begins is not to be lost half-way.
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, timeout=timeout, check=False,
            start_new_session=True,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        log = StudyFolder(folder).daemon_log
        raise EngineError(
            f"the daemon did not answer within {timeout:g} s; {log} may say why"
        ) from None
    except OSError as error:
        raise EngineError(f"the daemon cannot be started: {error.strerror}") from None
    # Two clients may start one at the same time: the second daemon ends, and the study is served all the same.
    if done.returncode != 0 and not daemon_alive(folder):
        reason = done.stderr.decode(errors="replace").strip()
        raise EngineError(reason or "the daemon could not be started")


def daemon_alive(folder: Path) -> bool:
    """Whether a daemon serves the study."""
    return _held(StudyFolder(folder).lock)


def send(folder: Path, request: Request, *, start: bool = True, timeout: float = PATIENCE) -> Reply:
    """Ask the study's daemon for something; with `start` one is started where none lives. `timeout` is in seconds.

    Raises:
        EngineError: the daemon cannot be reached.
    """
    until = time.monotonic() + timeout
    while True:
        if not daemon_alive(folder):
            if not start:
                raise EngineError(f"no daemon serves the study {folder}")
            start_daemon(folder, max(1.0, until - time.monotonic()))
        try:
            connection = _connect(StudyFolder(folder), until - time.monotonic())
        except (OSError, EOFError) as error:
            # One that ends or starts just now: its lock tells in a moment.
            if time.monotonic() > until:
                raise EngineError(_unreachable(StudyFolder(folder), error)) from None
            time.sleep(0.05)
            continue
        # Not tried again from here on: the daemon may have done already what it was asked for.
        try:
            return _ask(connection, request)
        except (OSError, EOFError) as error:
            raise EngineError(
                f"the daemon of {folder} does not answer ({error or 'too slow'})"
            ) from None


def delete_study(folder: Path) -> None:
    """Delete a study with everything in it.

    Raises:
        EngineError: its daemon or one of its trials lives, there is no study, steps of a recipe need what it made, or
            it cannot be deleted.
    """
    study = StudyFolder(folder.resolve())
    if not study.journal.is_file() and not study.profile.is_file():
        raise EngineError(f"{folder} holds no study")
    recipe = recipe_of(study.path)
    if recipe is not None and not RecipeReader(recipe).state.done:
        raise EngineError(
            f"{folder} is a step of a recipe that is not done, and the steps after it start from its model; "
            f"without the recipe, delete its whole folder: {recipe}"
        )
    try:
        lock = try_lock(study.lock)
    except LockError as error:
        raise EngineError(str(error)) from None
    if lock is None:
        raise EngineError(f"{folder} is in use by its daemon: stop the study first")
    with open(lock, "rb"):
        for trial in sorted((study.path / "trials").glob("*")):
            if _held(TrialFolder(trial).lock):
                raise EngineError(f"trial {trial.name} of {folder} is running: stop it first")
        try:
            shutil.rmtree(study.path)
        except OSError as error:
            raise EngineError(
                f"{folder} cannot be deleted: {error.filename}: {error.strerror}"
            ) from None


def needs_daemon(state: StudyState, alive: bool) -> bool:
    """Whether the study has work that would go on if it had a daemon; `alive` tells whether it has.

    One that runs and has nothing left to do has still to be told its end.
    """
    return not alive and state.exists and state.status == "running"


def _connect(study: StudyFolder, seconds: float) -> socket.socket:
    info = read_info(study)
    if info is None:
        raise EOFError("it has not said where it listens")
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        connection.settimeout(max(0.1, seconds))
        connection.connect(info.socket)
    except OSError:
        connection.close()
        raise
    return connection


def _unreachable(study: StudyFolder, error: Exception) -> str:
    info = read_info(study)
    cure = (
        f"; if that stays so, end it (kill {info.process.pid}): its trials go on, and the next daemon finds them"
        if info is not None
        else ""
    )
    return f"the daemon of {study.path} cannot be reached ({error}){cure}"


def _ask(connection: socket.socket, request: Request) -> Reply:
    with connection:
        connection.sendall(msgspec.json.encode(request) + b"\n")
        heard = b""
        while not heard.endswith(b"\n"):
            data = connection.recv(65_536)
            if not data or len(heard) > MOST_BYTES:
                raise EOFError("it hung up")
            heard += data
    try:
        return msgspec.json.decode(heard, type=Reply)
    except ValueError:
        raise EOFError("its answer is of another version of tunedeck") from None


def _held(lock: Path) -> bool:
    try:
        return is_locked(lock)
    except LockError:
        return False
