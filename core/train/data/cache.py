"""Tokenised data that all trials of a study share: made once, by whichever comes first, and mapped by the others.

An entry is a folder under the study's, named by what it was made of. It is put in its place whole, by a rename, so that
a maker that dies leaves nothing that could be taken for one. While one process makes an entry it holds a lock, which
ends with it; the others wait. Whatever goes wrong with the disk, the trial goes on with what it has made itself.
"""

import errno
import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import msgspec

from core.devices.lock import LockError, try_lock
from core.train.data.batches import Examples
from core.train.data.stored import Kind, Rows
from core.train.errors import first_line
from core.train.log import say

Check = Callable[[], None]
"""Called now and then; it may raise to end the work."""
Make = Callable[[Path | None, Check], Examples]
"""Makes examples: in the folder `train` and `evaluation` of a folder, or in memory."""
FORMAT = 2
"""Changes whenever the same rows would become other examples, or examples other files."""
KEPT = 4
"""Entries of a study that are kept, the last ones used: a search over data.cutoff_len needs one for each value."""
_SPARE = 1 << 30
"""Bytes that the disk has to have left after an entry: checkpoints matter more."""
_META = "meta.json"
_PAUSE_S = 0.1
_PARTS = ("train", "evaluation")


class _Meta(msgspec.Struct, frozen=True):
    """What an entry holds."""

    format: int
    kind: Kind
    train_rows: int
    eval_rows: int
    dropped: int
    sizes: dict[str, int]
    """The bytes of each of its files: one that is shorter was torn by the disk."""


def has_some(cache: Path, beginning: str) -> bool:
    """Whether there is an entry whose key begins so."""
    try:
        return any(folder.name.startswith(beginning) for folder in _entries(cache))
    except OSError:
        return False


def through_cache(cache: Path, key: str, *, grouped: bool, make: Make, check: Check) -> Examples:
    """The examples of the entry `key`; where there is none, `make` makes them, and they are kept.

    `check` is called while another process is waited for, and may raise to end that. `grouped`: as of Rows.
    """
    entry = cache / key
    try:
        found = _load(entry, grouped)
        if found is not None:
            return _told(found)
        cache.mkdir(parents=True, exist_ok=True)
        lock = _Lock(cache / f"{key}.lock", check)
    except (OSError, LockError) as error:
        say(f"tokenised data is not kept: {first_line(error)}")
        return make(None, check)
    with lock.held():
        # Another trial may have made it since, be it that this one had to wait for that or not.
        found = _load(entry, grouped)
        if found is not None:
            return _told(found)
        return _kept(entry, make, check)


class _Lock:
    """The right to make an entry, which one process has at a time."""

    def __init__(self, path: Path, check: Check) -> None:
        self._path = path
        self._check = check
        self.waited = False
        """Whether another process had it."""
        self._held = self._take()

    def _take(self) -> int:
        while (held := try_lock(self._path)) is None:
            if not self.waited:
                say("waits for the data that another trial tokenises")
                self.waited = True
            self._check()
            time.sleep(_PAUSE_S)
        return held

    @contextmanager
    def held(self) -> Iterator[None]:
        """Let go of it at the end."""
        try:
            yield
        finally:
            os.close(self._held)


def _told(found: Examples) -> Examples:
    say(f"tokenised data from the cache: {found.train_rows + found.eval_rows:,} rows")
    return found


def _load(entry: Path, grouped: bool) -> Examples | None:
    """What an entry holds; None where there is none, or a damaged one, which is removed."""
    try:
        meta = msgspec.json.decode((entry / _META).read_bytes(), type=_Meta)
        if meta.format != FORMAT or meta.sizes != _sizes(entry):
            raise ValueError("torn")
        train, evaluation = (
            Rows.load(meta.kind, entry / part, grouped=grouped and part == "train")
            for part in _PARTS
        )
        with suppress(OSError):
            # The last one used is the last one to be removed.
            os.utime(entry)
    except FileNotFoundError:
        return None
    except (ValueError, msgspec.MsgspecError):
        shutil.rmtree(entry, ignore_errors=True)
        return None
    return Examples(train, evaluation, meta.train_rows, meta.eval_rows, meta.dropped)


def _kept(entry: Path, make: Make, check: Check) -> Examples:
    """Make an entry and return what it holds, mapped; where it cannot be written, what is made in memory instead."""
    partial = entry.with_name(f"{entry.name}.partial")
    made: Examples | None = None
    try:
        made = _made(partial, make, check)
        shutil.rmtree(entry, ignore_errors=True)
        partial.rename(entry)
        _remove_old(entry)
    except OSError as error:
        say(f"tokenised data is not kept: {error.strerror or error}")
    finally:
        # What is mapped of it stays readable.
        shutil.rmtree(partial, ignore_errors=True)
    return make(None, check) if made is None else made


def _made(folder: Path, make: Make, check: Check) -> Examples:
    """The examples, in files of `folder`, as long as they leave room on the disk."""

    def go_on() -> None:
        check()
        if shutil.disk_usage(folder).free < _SPARE:
            raise OSError(errno.ENOSPC, "the disk is nearly full")

    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    made = make(folder, go_on)
    counts = made.train_rows, made.eval_rows, made.dropped
    meta = _Meta(FORMAT, made.train.kind, *counts, _sizes(folder))
    with (folder / _META).open("wb") as file:
        file.write(msgspec.json.encode(meta))
        file.flush()
        os.fsync(file.fileno())
    return made


def _sizes(folder: Path) -> dict[str, int]:
    return {
        f"{part}/{file.name}": file.stat().st_size
        for part in _PARTS
        for file in sorted((folder / part).iterdir())
    }


def _entries(cache: Path) -> list[Path]:
    """The whole entries of a cache, the last one used first."""
    found = [folder for folder in cache.iterdir() if (folder / _META).is_file()]
    return sorted(
        (folder for folder in found if not folder.name.endswith(".partial")),
        key=lambda folder: folder.stat().st_mtime_ns,
        reverse=True,
    )


def _remove_old(newest: Path) -> None:
    """Remove what is too much, and what makers that died have left. Who has an entry mapped keeps it."""
    cache = newest.parent
    for entry in _entries(cache)[KEPT:]:
        shutil.rmtree(entry, ignore_errors=True)
    for partial in cache.glob("*.partial"):
        held = try_lock(partial.with_suffix(".lock"))
        if held is not None:
            shutil.rmtree(partial, ignore_errors=True)
            os.close(held)
