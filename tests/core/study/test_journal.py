import errno
import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core.study import journal
from core.study.journal import JournalDamagedError, JournalReader, JournalWriter, scan, seal, unseal

BODIES = [b'{"a":1}', b'{"text":"\xc3\xa4\\n, [1] \\"]"}', b"{}", b'{"long":"' + b"x" * 500 + b'"}']
bodies = st.lists(
    st.binary(max_size=60).map(lambda b: b'"' + b.replace(b"\n", b"") + b'"'), max_size=8
)


def written(path: Path) -> bytes:
    writer = JournalWriter(path)
    for body in BODIES:
        writer.append(body)
    writer.close()
    return path.read_bytes()


@given(st.binary(max_size=200).filter(lambda b: b"\n" not in b))
def test_what_is_sealed_can_be_unsealed(body: bytes) -> None:
    assert unseal(seal(body)) == body


@given(st.binary(max_size=80).filter(lambda b: b"\n" not in b), st.integers(0), st.integers(1, 255))
def test_a_changed_byte_is_noticed(body: bytes, at: int, change: int) -> None:
    line = bytearray(seal(body))
    line[at % len(line)] ^= change
    assert unseal(bytes(line)) != body or bytes(line) == seal(body)


def test_a_journal_cut_at_every_byte_opens_and_loses_nothing_before_the_cut(tmp_path: Path) -> None:
    whole = written(tmp_path / "whole")
    ends = [0]
    for body in BODIES:
        ends.append(ends[-1] + len(seal(body)))
    for cut in range(len(whole) + 1):
        path = tmp_path / "cut"
        path.write_bytes(whole[:cut])
        kept = sum(end <= cut for end in ends) - 1
        assert list(JournalReader(path).poll()) == BODIES[:kept]
        writer = JournalWriter(path)
        assert writer.recovered == BODIES[:kept]
        assert writer.cut == cut - ends[kept]
        writer.append(b'"after"')
        writer.close()
        assert list(JournalReader(path).poll()) == [*BODIES[:kept], b'"after"']


@settings(deadline=None)
@given(kept=bodies, torn=st.binary(max_size=40))
def test_any_torn_tail_is_cut_off(
    tmp_path_factory: pytest.TempPathFactory, kept: list[bytes], torn: bytes
) -> None:
    path = tmp_path_factory.mktemp("journal") / "j"
    path.write_bytes(b"".join(map(seal, kept)) + torn)
    writer = JournalWriter(path)
    writer.close()
    assert writer.recovered == kept
    assert path.read_bytes() == b"".join(map(seal, kept))


def test_a_damaged_record_among_others_is_no_torn_tail(tmp_path: Path) -> None:
    path = tmp_path / "j"
    whole = written(path)
    path.write_bytes(whole.replace(b'{"a":1}', b'{"a":2}'))
    with pytest.raises(JournalDamagedError, match="line 1 is damaged"):
        JournalWriter(path)
    with pytest.raises(JournalDamagedError):
        list(JournalReader(path).poll())
    assert path.read_bytes() == whole.replace(b'{"a":1}', b'{"a":2}')


def test_several_records_are_written_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    syncs = []
    monkeypatch.setattr(journal.os, "fsync", syncs.append)
    writer = JournalWriter(tmp_path / "j")
    before = len(syncs)
    writer.append(*BODIES)
    writer.close()
    assert len(syncs) == before + 1
    assert list(JournalReader(tmp_path / "j").poll()) == BODIES


def test_a_reader_follows_the_writer(tmp_path: Path) -> None:
    writer, reader = JournalWriter(tmp_path / "j"), JournalReader(tmp_path / "j")
    seen: list[bytes] = []
    for body in BODIES:
        writer.append(body)
        seen += reader.poll()
    assert seen == BODIES
    assert list(reader.poll()) == []
    writer.close()


def test_a_reader_waits_for_the_rest_of_a_record(tmp_path: Path) -> None:
    path, line = tmp_path / "j", seal(b'{"a":1}')
    path.write_bytes(line[:9])
    reader = JournalReader(path)
    assert list(reader.poll()) == []
    with path.open("ab") as file:
        file.write(line[9:])
    assert list(reader.poll()) == [b'{"a":1}']


def test_a_reader_of_a_journal_that_is_not_there_reads_nothing(tmp_path: Path) -> None:
    reader = JournalReader(tmp_path / "j")
    assert list(reader.poll()) == []
    assert not reader.shrunk()


@pytest.mark.parametrize("fails_at", ["write", "fsync"])
def test_after_a_full_disk_nothing_remains_of_the_record_and_all_before_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fails_at: str
) -> None:
    path = tmp_path / "j"
    writer = JournalWriter(path)
    writer.append(BODIES[0])
    before = path.read_bytes()

    def full(fd: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    if fails_at == "fsync":
        monkeypatch.setattr(journal.os, "fsync", full)
    else:
        real = writer._file

        class Full:
            def write(self, data: bytes) -> int:
                if len(data) < 10:
                    raise OSError(errno.ENOSPC, "No space left on device")
                return real.write(data[:5])

            def __getattr__(self, name: str) -> object:
                return getattr(real, name)

        monkeypatch.setattr(writer, "_file", Full())
    with pytest.raises(OSError, match="No space"):
        writer.append(BODIES[1])
    assert path.read_bytes() == before
    monkeypatch.undo()
    writer.append(BODIES[2])
    writer.close()
    assert list(JournalReader(path).poll()) == [BODIES[0], BODIES[2]]


def test_a_reader_notices_that_a_record_was_taken_back(tmp_path: Path) -> None:
    path = tmp_path / "j"
    path.write_bytes(seal(BODIES[0]) + seal(BODIES[1]))
    reader = JournalReader(path)
    assert len(list(reader.poll())) == 2
    assert not reader.shrunk()
    os.truncate(path, len(seal(BODIES[0])))
    assert list(reader.poll()) == []
    assert reader.shrunk()


def test_a_deleted_journal_has_no_links(tmp_path: Path) -> None:
    writer = JournalWriter(tmp_path / "j")
    assert writer.links() == 1
    (tmp_path / "j").unlink()
    assert writer.links() == 0
    writer.close()


def test_scan_counts_the_bytes_of_whole_records(tmp_path: Path) -> None:
    data = seal(b'"x"') + b"torn"
    assert scan(data, tmp_path) == ([b'"x"'], len(data) - 4)
