"""Where a study's daemon listens, and how a client finds it."""

import os
import socket
import tempfile
from pathlib import Path

import msgspec

from core.study.files import ProcessRecord, read_record
from core.study.store import StudyFolder

LONGEST_PATH = 100
"""Bytes of a socket's path that are surely allowed: sun_path holds 108 on Linux (unix(7)), 104 elsewhere."""

MOST_BYTES = 1 << 20
"""The longest request or answer."""


class DaemonInfo(msgspec.Struct, frozen=True):
    """`daemon.json`: who serves the study and where."""

    process: ProcessRecord
    socket: str
    started: float
    """Seconds since the epoch."""


def read_info(folder: StudyFolder) -> DaemonInfo | None:
    """How to reach the daemon that serves the study, or the last that did."""
    return read_record(folder.daemon, DaemonInfo)


def listen(folder: StudyFolder) -> tuple[socket.socket, Path]:
    """Listen in the study's folder or, where that cannot hold a socket, in a private folder of this user.

    The caller holds the study's lock, so that a socket which is there already is a dead one.

    Raises:
        OSError: neither is possible.
    """
    inside = folder.path / "socket"
    if len(os.fsencode(inside)) <= LONGEST_PATH:
        try:
            return _bind(inside), inside
        except OSError:
            # Network and FUSE file systems often have no sockets.
            pass
    # Not in $XDG_RUNTIME_DIR: that is removed when its user logs out, and the daemon is to stay.
    private = Path(tempfile.mkdtemp(prefix="tunedeck-"))
    path = private / "socket"
    return _bind(path), path


def clear(path: Path) -> None:
    """Remove a socket and the private folder around it."""
    path.unlink(missing_ok=True)
    if path.parent.name.startswith("tunedeck-"):
        try:
            path.parent.rmdir()
        except OSError:
            return


def _bind(path: Path) -> socket.socket:
    path.unlink(missing_ok=True)
    server = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    before = os.umask(0o177)
    try:
        server.bind(str(path))
        server.listen(16)
    except OSError:
        server.close()
        raise
    finally:
        os.umask(before)
    return server
