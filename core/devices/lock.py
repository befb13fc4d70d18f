"""Locks that end with their holder: flock(2) on files that are never removed.

A lock belongs to the open file, not to the process: it is let go when the last copy of the
descriptor closes, so a child that inherits the descriptor keeps the lock when its parent dies,
and no crash leaves a stale one behind. The standard library alone is used (the shim imports it).
"""

from __future__ import annotations

import errno
import fcntl
import os
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

_ATTEMPTS = 3
_PAUSE_S = 0.002
_HELD = (errno.EWOULDBLOCK, errno.EACCES, errno.EAGAIN)


class LockError(Exception):
    """A lock file cannot be used at all; the message says which, why, and what to do."""


def try_lock(path: Path | str, *, mode: int = 0o666) -> int | None:
    """Take the lock at `path`, without waiting.

    Returns a file descriptor that holds the lock as long as it, or a copy in a child, is open
    (it is close-on-exec; pass it on with `pass_fds`), or None if somebody else holds the lock.
    The file is made if need be, with `mode` whatever the umask: it never has content, and other
    users must be able to ask after it.

    Raises LockError if the file can be neither made nor opened, or the file system has no locks.
    """
    for attempt in range(_ATTEMPTS):
        # `is_locked` holds a shared lock for an instant; that must not read as "taken".
        if attempt:
            time.sleep(_PAUSE_S)
        fd = _open(path, mode)
        if not _flock(fd, fcntl.LOCK_EX, path):
            os.close(fd)
        elif _is_still_at(fd, path):
            return fd
        else:
            # Cleared away (by a cleaner of /tmp) between opening and locking: a lock on a file
            # that nobody else can reach would protect nothing.
            os.close(fd)
    return None


def is_locked(path: Path | str) -> bool:
    """Whether somebody holds the lock at `path` now, the calling process included.

    Raises LockError if the file is there but cannot be opened.
    """
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    except OSError as error:
        raise _error(path, error) from error
    try:
        return not _flock(fd, fcntl.LOCK_SH, path)
    finally:
        os.close(fd)


def _open(path: Path | str, mode: int) -> int:
    try:
        return _open_existing(path)
    except FileNotFoundError:
        pass
    except OSError as error:
        raise _error(path, error) from error
    # O_EXCL, because a plain O_CREAT on another user's file in a sticky folder is refused where
    # fs.protected_regular is set (proc(5)), even if the file's mode would allow it.
    flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
    try:
        fd = os.open(path, flags, mode)
    except FileExistsError:
        try:
            return _open_existing(path)
        except OSError as error:
            raise _error(path, error) from error
    except OSError as error:
        raise _error(path, error) from error
    os.fchmod(fd, mode)
    return fd


def _open_existing(path: Path | str) -> int:
    # Writing is never done, but NFS turns flock into a byte-range lock, which needs a writable
    # descriptor (flock(2)). Elsewhere reading is enough, and is all that another user may have.
    flags = os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    try:
        return os.open(path, os.O_RDWR | flags)
    except OSError as error:
        if error.errno not in (errno.EACCES, errno.EPERM, errno.EROFS):
            raise
        return os.open(path, os.O_RDONLY | flags)


def _flock(fd: int, kind: int, path: Path | str) -> bool:
    try:
        fcntl.flock(fd, kind | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in _HELD:
            return False
        raise _error(path, error) from error
    return True


def _is_still_at(fd: int, path: Path | str) -> bool:
    try:
        there = os.stat(path, follow_symlinks=False)
    except OSError:
        return False
    return os.path.samestat(os.fstat(fd), there)


def _error(path: Path | str, error: OSError) -> LockError:
    cures = {
        errno.ENOENT: "its folder does not exist",
        errno.EACCES: "you may not open it or write into its folder",
        errno.EPERM: "you may not open it or write into its folder",
        errno.EROFS: "its file system is read-only",
        errno.ENOSPC: "the disk is full; free some space and try again",
        errno.ELOOP: "it is a symbolic link; remove it",
        errno.EBADF: "its file system (NFS?) only locks files that you may write",
        errno.ENOLCK: "its file system has no locks; use a folder on a local disk",
        errno.EOPNOTSUPP: "its file system has no locks; use a folder on a local disk",
    }
    reason = cures.get(error.errno or 0, os.strerror(error.errno or 0))
    return LockError(f"Cannot use the lock file {path}: {reason}.")
