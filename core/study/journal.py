"""The journal: an append-only file of self-checking records with one writer.

A line is `["CRC32 in hex",LENGTH,BODY]`: valid JSON for every tool, and checkable before it is parsed. The checksum
and the length (in bytes) are those of BODY as it stands in the file. Each record is fsynced before `append` returns.
Only the last record can be torn, by a crash or a full disk: it is cut off when the journal is next opened for
writing, and readers stop before it.
"""

import os
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO


class JournalDamagedError(Exception):
    """A record that is not the last one fails its check: the disk or an editor changed the file."""

    def __init__(self, path: Path, line: int) -> None:
        super().__init__(path, line)
        self.path = path
        self.line = line

    def __str__(self) -> str:
        return (
            f"{self.path}: line {self.line} is damaged though records follow it; the file was changed by something "
            f"else than tunedeck. Restore it from a backup, or cut it off before that line to keep what is above."
        )


def seal(body: bytes) -> bytes:
    """One line of a journal, its newline included; `body` is JSON without a newline."""
    return b'["%08x",%d,%s]\n' % (zlib.crc32(body), len(body), body)


def unseal(line: bytes) -> bytes | None:
    """The body of a line (newline included), None when the line is torn or damaged."""
    if not (line.startswith(b'["') and line.endswith(b"]\n") and line[10:12] == b'",'):
        return None
    length, comma, rest = line[12:].partition(b",")
    body = rest[:-2]
    if not comma or not length.isdigit() or int(length) != len(body):
        return None
    return body if line[2:10] == b"%08x" % zlib.crc32(body) else None


def scan(data: bytes, path: Path) -> tuple[list[bytes], int]:
    """The bodies of all whole records in `data` and the number of bytes that they take up.

    Raises:
        JournalDamagedError: a damaged record is followed by a whole one.
    """
    bodies: list[bytes] = []
    good = 0
    lines = _split(data)
    for number, line in enumerate(lines, 1):
        body = unseal(line)
        if body is None:
            if any(unseal(later) is not None for later in lines[number:]):
                raise JournalDamagedError(path, number)
            break
        bodies.append(body)
        good += len(line)
    return bodies, good


def _split(data: bytes) -> list[bytes]:
    parts = data.split(b"\n")
    return [p + b"\n" for p in parts[:-1]] + ([parts[-1]] if parts[-1] else [])


class JournalWriter:
    """The one writer of a journal; the caller holds the study's lock."""

    def __init__(self, path: Path) -> None:
        """Open or create the journal; a torn tail is cut off.

        Raises:
            OSError: the file cannot be opened or created.
            JournalDamagedError: a record before the last one is damaged.
        """
        self.path = path
        existed = path.exists()
        self._file: IO[bytes] = path.open("r+b" if existed else "w+b", buffering=0)
        data = path.read_bytes() if existed else b""
        bodies, good = scan(data, path)
        if good < len(data):
            self._file.truncate(good)
        self._end = good
        self.recovered = bodies
        """The bodies that were in the journal when it was opened."""
        self.cut = len(data) - good
        """How many bytes of a torn tail were cut off."""
        if not existed:
            _sync_folder(path.parent)

    def append(self, *bodies: bytes) -> None:
        """Write records and make them durable, all of them at once. After an error nothing of them remains.

        Raises:
            OSError: the disk is full or failing (`errno` tells).
        """
        line = b"".join(map(seal, bodies))
        try:
            self._file.seek(self._end)
            written = 0
            while written < len(line):
                written += self._file.write(line[written:]) or 0
            os.fsync(self._file.fileno())
        except OSError:
            self._file.truncate(self._end)
            raise
        self._end += len(line)

    def is_at_its_path(self) -> bool:
        """Whether the file at the path is the one that is written to.

        Raises:
            OSError: there is none, or the file system does not answer.
        """
        return os.path.samestat(self.path.stat(), os.fstat(self._file.fileno()))

    def links(self) -> int:
        """How many folders hold the file; 0 when it was deleted."""
        return os.fstat(self._file.fileno()).st_nlink

    def close(self) -> None:
        self._file.close()


class JournalReader:
    """Follows a journal that another process writes."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._offset = 0

    def poll(self) -> Iterator[bytes]:
        """The bodies added since the last call; stops before a record that is not whole yet.

        Raises:
            JournalDamagedError: a damaged record is followed by a whole one.
        """
        try:
            with self.path.open("rb") as file:
                size = os.fstat(file.fileno()).st_size
                if size <= self._offset:
                    return
                file.seek(self._offset)
                data = file.read()
        except FileNotFoundError:
            return
        bodies, good = scan(data, self.path)
        self._offset += good
        yield from bodies

    def shrunk(self) -> bool:
        """Whether records that were read are gone: they could be written and then not made durable, on a full disk."""
        try:
            return self.path.stat().st_size < self._offset
        except OSError:
            return False


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
