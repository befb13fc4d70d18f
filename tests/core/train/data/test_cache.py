"""Tokenised data is made once for all trials of a study, whatever happens to who makes it."""

import errno
import json
import os
import shutil
import threading
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from core.devices.lock import try_lock
from core.params import DataTable
from core.train.data import cache as caching
from core.train.data.batches import Examples
from core.train.data.chat import ChatEncoder
from core.train.data.examples import AnyExample, Example, Pair, Prompt, Tagged
from core.train.data.reading import Reading
from core.train.data.stored import Rows, stored
from core.train.errors import DataError


class Counting(ChatEncoder):
    """Counts the rows that it tokenises."""

    rows = 0

    def encode(self, rows: Any) -> list[AnyExample]:
        self.rows += len(rows)
        return super().encode(rows)


class StoppedError(Exception):
    pass


def nothing() -> None:
    pass


@pytest.fixture(scope="module")
def tokenizer(model_dir: Path) -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(model_dir)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "rows.jsonl"
    rows = [{"instruction": f"Say {n}", "output": "hello " * (1 + n % 5)} for n in range(30)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture
def read(tmp_path: Path, file: Path, tokenizer: Any) -> Callable[..., tuple[Examples, int]]:
    """The examples of a trial, and how many rows it has tokenised."""

    def read(
        stage: str = "sft",
        check: Callable[[], None] = nothing,
        template: str = "auto",
        **settings: Any,
    ) -> tuple[Examples, int]:
        table = DataTable(dataset=str(file), cutoff_len=64, val_size=5, **settings)
        encoder = Counting(tokenizer, template, table.cutoff_len, table.train_on_prompt)
        reading = Reading(table, stage, [str(file)], [], 1, tmp_path / "cache")
        reading.begin()
        return reading.examples(encoder, check), encoder.rows

    return read


def entries(tmp_path: Path) -> list[str]:
    return sorted(p.name for p in (tmp_path / "cache").iterdir() if p.is_dir())


def same(one: Rows, other: Rows) -> bool:
    return len(one) == len(other) and all(
        np.array_equal(a.ids, b.ids) and np.array_equal(a.labels, b.labels) and a.starts == b.starts
        for a, b in zip(one, other, strict=True)
        if isinstance(a, Example) and isinstance(b, Example)
    )


@pytest.mark.parametrize("settings", [{}, {"packing": True}, {"group_by_length": True}])
def test_the_second_trial_on_the_same_data_tokenises_nothing(
    read: Any, settings: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    first, made = read(**settings)
    assert made == 30 and "from the cache" not in capsys.readouterr().out
    second, again = read(**settings)
    assert again == 0 and "tokenised data from the cache: 30 rows" in capsys.readouterr().out
    assert same(first.train, second.train) and same(first.evaluation, second.evaluation)
    counts = [(e.train_rows, e.eval_rows, e.dropped, e.longest, e.largest) for e in (first, second)]
    assert counts[0] == counts[1] and counts[0][:3] == (25, 5, 0)
    assert first.train.grouped == second.train.grouped == bool(settings.get("group_by_length"))
    assert not second.evaluation.grouped


def test_the_second_trial_does_not_even_read_the_rows(read: Any, monkeypatch: Any) -> None:
    read()

    def refuse(*_: Any) -> None:
        raise AssertionError("the rows were read")

    monkeypatch.setattr("core.train.data.reading.read_split", refuse)
    assert read()[1] == 0


def test_rows_are_mapped_and_not_copied_into_each_trial(read: Any) -> None:
    for examples in (read()[0], read()[0]):
        values = examples.train._values
        while values.base is not None and not isinstance(values, np.memmap):
            values = values.base
        assert isinstance(values, np.memmap)
        assert not examples.train[0].ids.flags.writeable


@pytest.mark.parametrize(
    "changed",
    [{"val_size": 4}, {"cutoff_len": 32}, {"packing": True}, {"train_on_prompt": True}, {"max_samples": 20}],
)  # fmt: skip
def test_settings_that_matter_have_an_entry_of_their_own(
    tmp_path: Path, file: Path, tokenizer: Any, changed: dict[str, Any]
) -> None:
    made = []
    for settings in ({}, changed):
        table = DataTable(dataset=str(file), **{"cutoff_len": 64, "val_size": 5} | settings)
        encoder = Counting(tokenizer, "auto", table.cutoff_len, table.train_on_prompt)
        reading = Reading(table, "sft", [str(file)], [], 1, tmp_path / "cache")
        reading.begin()
        reading.examples(encoder, nothing)
        made.append(encoder.rows)
    assert all(made) and len(entries(tmp_path)) == 2


def test_a_file_that_changed_and_a_template_that_changed_are_tokenised_again(
    read: Any, file: Path, tmp_path: Path
) -> None:
    assert read()[1] == 30 and read(template="default")[1] == 30
    file.write_text(file.read_text().replace("Say 7", "Say 8"))
    assert read()[1] == 30 and len(entries(tmp_path)) == 3
    copy = tmp_path / "elsewhere.jsonl"
    shutil.copy(file, copy)
    file.unlink()
    copy.rename(file)
    assert read()[1] == 0, "a copy has the same content"


def test_another_tokenizer_has_an_entry_of_its_own(
    read: Any, tokenizer: Any, model_dir: Path
) -> None:
    from transformers import AutoTokenizer

    from core.train.data.reading import tokenizer_key

    other = AutoTokenizer.from_pretrained(model_dir)
    assert tokenizer_key(other) == tokenizer_key(tokenizer)
    other.add_tokens(["hello"])
    assert tokenizer_key(other) != tokenizer_key(tokenizer)


def test_a_torn_entry_is_made_again(read: Any, tmp_path: Path) -> None:
    read()
    values = next((tmp_path / "cache").glob("*/train/values.npy"))
    values.write_bytes(values.read_bytes()[:-8])
    assert read()[1] == 30 and read()[1] == 0


def test_a_maker_that_was_killed_leaves_nothing_that_could_be_taken_for_an_entry(
    read: Any, tmp_path: Path
) -> None:
    def killed() -> None:
        raise StoppedError

    with pytest.raises(StoppedError):
        read(check=killed)
    cache = tmp_path / "cache"
    assert entries(tmp_path) == []
    left = cache / "x-y.partial"
    (left / "train").mkdir(parents=True)
    assert read()[1] == 30 and not left.exists() and read()[1] == 0


def test_several_trials_at_once_tokenise_once(read: Any) -> None:
    made: list[int] = []
    threads = [threading.Thread(target=lambda: made.append(read()[1])) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(made) == [0, 0, 0, 30]


def test_who_waits_for_another_trial_answers_a_stop(
    read: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    read()
    (name,) = entries(tmp_path)
    shutil.rmtree(tmp_path / "cache" / name)
    held = try_lock(tmp_path / "cache" / f"{name}.lock")
    assert held is not None
    asked = []

    def stop() -> None:
        asked.append(1)
        if len(asked) > 1:
            raise StoppedError

    with pytest.raises(StoppedError):
        read(check=stop)
    assert "waits for the data that another trial tokenises" in capsys.readouterr().out
    os.close(held)
    assert read()[1] == 30


@pytest.mark.parametrize("trouble", ["full", "nearly full", "read-only"])
def test_a_disk_that_takes_nothing_does_not_stop_the_trial(
    read: Any, tmp_path: Path, trouble: str, monkeypatch: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    if trouble == "full":
        monkeypatch.setattr("core.train.data.stored.os.fsync", full)
    elif trouble == "nearly full":
        monkeypatch.setattr(caching, "_SPARE", 1 << 62)
    else:
        (tmp_path / "cache").write_text("a file in the way")
    examples, made = read()
    # What was made before the disk was full is made again, in memory.
    assert made == (55 if trouble == "full" else 30) and examples.train_rows == 25
    assert len(list(examples.train)) == 25
    assert "tokenised data is not kept" in capsys.readouterr().out
    if trouble != "read-only":
        assert entries(tmp_path) == []


def test_old_entries_are_removed_and_the_ones_in_use_kept(read: Any, tmp_path: Path) -> None:
    for length in range(caching.KEPT + 2):
        read(max_samples=10 + length)
        read(max_samples=10)
    assert len(entries(tmp_path)) == caching.KEPT
    assert read(max_samples=10)[1] == 0, "the one that was used last stays"


def test_data_that_cannot_be_used_says_so_with_a_cache_too(read: Any, file: Path) -> None:
    row = {"instruction": "long " * 300, "output": "x"}
    file.write_text(f"{json.dumps(row)}\n" * 10)
    with pytest.raises(DataError, match="none of the 5 rows to train on"):
        read()


def ids(*numbers: int) -> np.ndarray:
    return np.array(numbers, dtype=np.int32)


@pytest.mark.parametrize(
    ("kind", "rows"),
    [
        ("example", [Example(ids(1, 2, 3), ids(-100, 2, 3)), Example(ids(4, 5, 6, 7), ids(-100, 5, -100, 7), (0, 2))]),
        ("pair", [Pair(ids(1, 2), ids(3), ids(4, 5)), Pair(ids(9), ids(8, 7), ids(6))]),
        ("tagged", [Tagged(ids(1, 2), ids(3), True), Tagged(ids(5), ids(6, 7), False)]),
        ("prompt", [Prompt(ids(1, 2)), Prompt(ids(3))]),
    ],
)  # fmt: skip
def test_rows_of_every_kind_come_back_as_they_were(tmp_path: Path, kind: Any, rows: Any) -> None:
    folder = tmp_path / "rows"
    for found in (stored(kind, rows), stored(kind, rows, folder), Rows.load(kind, folder)):
        assert len(found) == len(rows) and found[-1].size == rows[-1].size
        for one, other in zip([*found[:1], *found[1:]], rows, strict=True):
            assert repr(one) == repr(other)
        assert found.sizes.tolist() == [row.size for row in rows]
        assert found.tokens.tolist() == [row.tokens for row in rows]
        assert found.largest == max(row.largest for row in rows)
        assert found.longest == max(row.size for row in rows)
        with pytest.raises(IndexError):
            found[2]


def test_no_rows_are_rows_too(tmp_path: Path) -> None:
    for found in (stored("example", []), stored("example", [], tmp_path / "rows")):
        assert len(found) == found.longest == found.largest == 0 and list(found) == []


def test_rows_go_into_their_files_as_they_come(tmp_path: Path) -> None:
    """What is held of them is where each lies, and not its tokens: a stream may have more than memory takes."""
    count, size = 400, 4096
    peaks = []

    def given() -> Iterator[AnyExample]:
        for n in range(count):
            yield Example(np.full(size, n, dtype=np.int32), np.full(size, n, dtype=np.int32))
            peaks.append(tracemalloc.get_traced_memory()[1])

    tracemalloc.start()
    try:
        kept = stored("example", given(), tmp_path / "rows")
    finally:
        tracemalloc.stop()
    assert max(peaks) < count * size * 4 / 10
    assert len(kept) == count and [int(row.ids[-1]) for row in kept[::100]] == [0, 100, 200, 300]  # type: ignore[union-attr]
