"""The daemon's hand on the journal: the state, and every record that is written to it.

When the disk is full, records wait in memory, in their order, until they can be written; nothing that was written
before is touched.
"""

import errno

from core.study.events import AnyEvent, decode, encode
from core.study.journal import JournalWriter
from core.study.state import StudyState, apply
from core.study.store import StudyFolder

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
"""A full disk, a full quota, a file as large as the user's limits allow."""


class Recorder:
    """A study's state and its journal, for the one process that may write it."""

    def __init__(self, folder: StudyFolder) -> None:
        """Open or create the journal and fold it.

        Raises:
            OSError: it cannot be opened.
            JournalDamagedError: a record before the last one is damaged.
            StudyTooNewError: a newer version wrote it.
        """
        self.state = StudyState()
        self._journal = JournalWriter(folder.journal)
        for body in self._journal.recovered:
            apply(self.state, decode(body))
        self.cut = self._journal.cut
        """Bytes of a torn record that a crash had left and that were cut off."""
        self._journal.recovered = []
        self._waiting: list[bytes] = []
        self.trouble: str | None = None
        """Why records cannot be written now, as a sentence; None while they can."""

    def record(self, *events: AnyEvent) -> bool:
        """Apply `events` and write them; False when they wait for the disk."""
        self.stage(*events)
        return self.flush()

    def stage(self, *events: AnyEvent) -> None:
        """Apply `events`; they are written together with the next ones, so that no crash comes between."""
        for event in events:
            apply(self.state, event)
        self._waiting.extend(encode(event) for event in events)

    def flush(self) -> bool:
        """Write what waits; False when that is still not possible."""
        if not self._waiting:
            return True
        try:
            self._journal.append(*self._waiting)
        except OSError as error:
            self.trouble = disk_trouble(error)
            return False
        self._waiting.clear()
        self.trouble = None
        return True

    @property
    def waiting(self) -> int:
        """How many records wait for the disk."""
        return len(self._waiting)

    def removed(self) -> bool:
        """Whether the journal is no longer where it was, or another file is in its place."""
        try:
            return not self._journal.is_at_its_path()
        except FileNotFoundError:
            return True
        except OSError:
            # A network file system that does not answer now is no deleted study.
            return False

    def deleted(self) -> bool:
        """Whether no folder holds the journal any more, and nothing is in its place."""
        return self._journal.links() == 0 and not self._journal.path.exists()

    def close(self) -> None:
        self._journal.close()


def disk_trouble(error: OSError) -> str:
    """What is wrong with the disk, as a sentence with what to do."""
    if error.errno == errno.EDQUOT:
        return "your disk quota is used up: delete something, then resume the study"
    if error.errno in FULL:
        return "the disk is full: make room, then resume the study"
    return f"the study's folder cannot be written ({error.strerror}): resume the study when it can"
