from __future__ import annotations

import fcntl
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from core.devices import lock
from core.devices.lock import LockError, is_locked, try_lock


def taken(path: Path) -> int:
    fd = try_lock(path)
    assert fd is not None
    return fd


def test_a_lock_is_held_until_its_descriptor_closes(tmp_path: Path) -> None:
    path = tmp_path / "a.lock"
    assert not is_locked(path)
    fd = taken(path)
    assert is_locked(path)
    assert try_lock(path) is None
    os.close(fd)
    assert not is_locked(path)
    os.close(taken(path))


def test_asking_changes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "a.lock"
    assert not is_locked(path)
    assert not path.exists()


def test_a_child_keeps_the_lock_that_it_was_given(tmp_path: Path) -> None:
    path = tmp_path / "a.lock"
    fd = taken(path)
    with subprocess.Popen(
        [sys.executable, "-c", "import sys; sys.stdin.read()"],
        stdin=subprocess.PIPE,
        pass_fds=[fd],
    ) as child:
        os.close(fd)
        assert is_locked(path)
        child.kill()
        child.wait()
        assert not is_locked(path)


def test_a_killed_holder_leaves_no_lock_behind(tmp_path: Path) -> None:
    path = tmp_path / "a.lock"
    code = (
        "import sys\nfrom core.devices.lock import try_lock\n"
        "fd = try_lock(sys.argv[1]); print(fd is not None, flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, str(path)],
        cwd=Path(lock.__file__).parents[2],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as child:
        assert child.stdout is not None and child.stdout.readline().strip() == "True"
        assert try_lock(path) is None
        child.kill()
        child.wait()
        os.close(taken(path))


def test_the_file_may_be_opened_by_everybody_whatever_the_umask(tmp_path: Path) -> None:
    before = os.umask(0o077)
    try:
        os.close(taken(tmp_path / "a.lock"))
        os.close(taken(tmp_path / "b.lock"))
    finally:
        os.umask(before)
    assert (tmp_path / "a.lock").stat().st_mode & 0o777 == 0o666


def test_a_file_that_may_only_be_read_can_be_locked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.lock"
    path.touch(mode=0o444)
    real_open = os.open

    def refuse_writing(file: str | Path, flags: int, mode: int = 0o777) -> int:
        if flags & (os.O_RDWR | os.O_WRONLY):
            raise PermissionError(13, "Permission denied")
        return real_open(file, flags, mode)

    monkeypatch.setattr(os, "open", refuse_writing)
    os.close(taken(path))


def test_a_lock_file_that_was_cleared_away_meanwhile_is_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.lock"
    path.touch()
    real_open = os.open

    def clear_once(file: str | Path, flags: int, mode: int = 0o777) -> int:
        monkeypatch.setattr(os, "open", real_open)
        fd = real_open(file, flags, mode)
        path.unlink()
        return fd

    monkeypatch.setattr(os, "open", clear_once)
    fd = taken(path)
    assert is_locked(path)
    assert os.fstat(fd).st_ino == path.stat().st_ino
    os.close(fd)


def test_somebody_who_only_asks_does_not_make_a_lock_look_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.lock"
    path.touch()
    asking = os.open(path, os.O_RDONLY)
    fcntl.flock(asking, fcntl.LOCK_SH)
    monkeypatch.setattr(time, "sleep", lambda _: os.close(asking))
    os.close(taken(path))


def test_a_missing_folder_is_said(tmp_path: Path) -> None:
    with pytest.raises(LockError, match="its folder does not exist"):
        try_lock(tmp_path / "no" / "a.lock")


def test_a_symbolic_link_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "secret").touch()
    (tmp_path / "a.lock").symlink_to(tmp_path / "secret")
    with pytest.raises(LockError, match="symbolic link"):
        try_lock(tmp_path / "a.lock")
    with pytest.raises(LockError, match="symbolic link"):
        is_locked(tmp_path / "a.lock")


def test_a_file_system_without_locks_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_fd: int, _kind: int) -> None:
        raise OSError(37, "No locks available")

    monkeypatch.setattr(fcntl, "flock", refuse)
    with pytest.raises(LockError, match="local disk"):
        try_lock(tmp_path / "a.lock")
