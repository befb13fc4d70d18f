"""The folder of an export: written beside where it is asked for, renamed at the end, never half there."""

import errno
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from core.study.after import UNFINISHED, partial_of
from core.train.after.origin import Origin
from core.train.errors import SettingsError

_SPARE_BYTES = 64 << 20
"""What has to stay free on the disk besides the weights: tokenizer, card, and air."""
_SIZE = re.compile(r"\d+(\.\d+)?\s*[KMGT]B", re.IGNORECASE)


class UnlikeError(Exception):
    """The exported model does not say what the trained one says. `kept` is where it lies."""

    def __init__(self, message: str, kept: str) -> None:
        super().__init__(message)
        self.kept = kept


def check_place(origin: Origin, output: Path, overwrite: bool) -> None:
    """Refuse a folder that holds something, or from which the export itself reads.

    Raises:
        SettingsError: it does.
    """
    resolved = output.resolve()
    read = [origin.folder.resolve(), *([origin.trial.resolve()] if origin.trial else [])]
    base = Path(origin.base)
    if origin.base and base.is_dir():
        read.append(base.resolve())
    for folder in read:
        if folder == resolved or resolved in folder.parents:
            raise SettingsError(f"-o {output}: the export reads from there; name another folder")
    if output.exists() and not output.is_dir():
        raise SettingsError(f"-o {output} is a file; name a folder")
    if output.is_mount():
        raise SettingsError(
            f"-o {output} is where a disk is mounted, which nothing can be renamed to; name a folder in it"
        )
    if output.is_dir() and any(output.iterdir()) and not overwrite:
        raise SettingsError(f"-o {output} is not empty; name another folder, or add --overwrite")
    partial = partial_of(output)
    if partial.exists() and any(partial.iterdir()) and not (partial / UNFINISHED).exists():
        raise SettingsError(
            f"{partial} is in the way: the export is written there first; move it, or name another folder"
        )


def check_size(text: str) -> None:
    """Refuse a size of shards that is none.

    Raises:
        SettingsError: it is not.
    """
    if not _SIZE.fullmatch(text.strip()) or float(re.sub(r"[^\d.]", "", text)) == 0:
        raise SettingsError(f"--max-shard-size {text}: write it as 5GB or 500MB")


@contextmanager
def partial_folder(output: Path, overwrite: bool) -> Iterator[Path]:
    """A folder to write in, which becomes `output` once all is well. What went wrong leaves nothing, but for a model
    that is to be looked at."""
    partial = partial_of(output)
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    (partial / UNFINISHED).touch()
    try:
        yield partial
        (partial / UNFINISHED).unlink()
        _open_to_readers(partial)
        _put(partial, output, overwrite)
    except UnlikeError:
        # Without the mark nobody clears it away.
        (partial / UNFINISHED).unlink()
        raise
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise


def _put(partial: Path, output: Path, overwrite: bool) -> None:
    """Rename, with what was there before out of the way until it is done."""
    before = output.with_name(f"{output.name}.before-{os.getpid()}")
    moved = overwrite and output.exists()
    if moved:
        output.rename(before)
    try:
        partial.replace(output)
    except BaseException:
        if moved:
            before.rename(output)
        raise
    if moved:
        shutil.rmtree(before, ignore_errors=True)


def _open_to_readers(folder: Path) -> None:
    """Give files the rights that new files have here: safetensors leaves weights to their owner alone, and what serves
    a model is often another user."""
    mask = os.umask(0)
    os.umask(mask)
    for file in folder.iterdir():
        if file.is_file():
            file.chmod(0o666 & ~mask)


def check_room(folder: Path, needed: int) -> None:
    """Refuse to begin where the disk has no room for `needed` bytes.

    Raises:
        OSError: it has none.
    """
    free = shutil.disk_usage(folder).free
    needed += _SPARE_BYTES
    if free < needed:
        raise OSError(
            errno.ENOSPC,
            f"it takes {_size(needed)}, and {_size(free)} are free; make room, or choose another disk",
            str(folder.parent),
        )


def _size(count: int) -> str:
    return f"{count / 2**30:.1f} GiB" if count >= 2**30 else f"{count / 2**20:,.0f} MiB"


def files_of(folder: Path) -> tuple[str, ...]:
    """The names of what lies in it."""
    return tuple(sorted(p.name for p in folder.iterdir() if p.name != UNFINISHED))


def size_of(folder: Path) -> int:
    """Bytes of what lies in it."""
    return sum(p.stat().st_size for p in folder.iterdir() if p.is_file())
