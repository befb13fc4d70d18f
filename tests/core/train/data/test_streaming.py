"""Rows that are read as they are needed: the same ones in the same order, and no more of them than that."""

import json
from collections import Counter
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
from transformers import AutoTokenizer

from core.dataset_info import find_sets
from core.params import DataTable
from core.train.data import batches, streaming
from core.train.data.chat import ChatEncoder
from core.train.data.rows import read_split
from core.train.data.streaming import Stream, StreamedRows, shuffled
from core.train.errors import DataError, SettingsError


def write(file: Path, count: int, start: int = 0) -> str:
    rows = [{"instruction": f"Say {n}", "output": f"{n}"} for n in range(start, start + count)]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(file)


def table(names: list[str], **more: Any) -> DataTable:
    given = {"dataset": names, "streaming": True, "val_size": 0.0, "buffer_size": 8, **more}
    return DataTable(**given)


def stream(names: list[str], seed: int = 0, stage: str = "sft", **more: Any) -> Stream:
    return Stream(tuple(find_sets(names, None)), table(names, **more), stage, seed)


def answers(rows: Any) -> list[int]:
    return [int(row.turns[-1].text) for row in rows]


def first(count: int, *args: Any, **kwargs: Any) -> list[int]:
    return answers(islice(stream(*args, **kwargs).rows(), count))


def test_a_buffer_gives_every_item_once_and_shuffles_as_far_as_it_reaches() -> None:
    drawn = list(shuffled(iter(range(1000)), 50, np.random.default_rng(0)))
    assert sorted(drawn) == list(range(1000)) != drawn
    # An item can come early by no more than the buffer holds.
    assert all(item - place < 50 for place, item in enumerate(drawn))
    assert list(shuffled(iter(range(5)), 1, np.random.default_rng(0))) == list(range(5))


def test_every_pass_has_all_rows_in_another_order(tmp_path: Path) -> None:
    file = write(tmp_path / "a.jsonl", 20)
    drawn = first(60, [file])
    passes = [drawn[i : i + 20] for i in (0, 20, 40)]
    assert [sorted(p) for p in passes] == [list(range(20))] * 3
    assert passes[0] != passes[1] != passes[2]
    assert drawn == first(60, [file]) != first(60, [file], seed=1)


def test_a_stream_goes_on_exactly_where_it_stopped(tmp_path: Path) -> None:
    file = write(tmp_path / "a.jsonl", 20)
    whole = answers(islice(stream([file]).rows(aside=3), 50))
    for skip in (0, 1, 7, 20, 33):
        assert answers(islice(stream([file]).rows(skip, aside=3), 50 - skip)) == whole[skip:]


def test_rows_set_aside_are_the_first_and_never_come_again(tmp_path: Path) -> None:
    file = write(tmp_path / "a.jsonl", 20)
    read = read_split(table([file], val_size=4), "sft", [file], [], 0, wanted=40)
    held = answers(read.evaluation)
    assert len(held) == 4 and len(read.train) == 40
    learnt = Counter(answers(read.train))
    assert not learnt.keys() & set(held) and len(learnt) == 16
    assert max(learnt.values()) == 3 and min(learnt.values()) == 2


def test_evaluation_files_are_read_whole_and_leave_the_stream_alone(tmp_path: Path) -> None:
    file, other = write(tmp_path / "a.jsonl", 10), write(tmp_path / "b.jsonl", 3, 100)
    read = read_split(table([file], eval_dataset=other), "sft", [file], [other], 0, wanted=10)
    assert answers(read.evaluation) == [100, 101, 102]
    assert sorted(answers(read.train)) == list(range(10))


def test_no_more_is_read_than_the_training_needs_and_the_buffer_holds(tmp_path: Path) -> None:
    file = tmp_path / "a.jsonl"
    write(file, 30)
    with file.open("a") as out:
        out.write("broken\n" * 10)
    read = read_split(table([str(file)], buffer_size=5), "sft", [str(file)], [], 0, wanted=20)
    assert len(answers(read.train)) == 20
    with pytest.raises(DataError, match=r"line 3\d: is not valid JSON"):
        list(read_split(table([str(file)]), "sft", [str(file)], [], 0, wanted=40).train)


def test_rows_may_be_asked_for_in_any_order(tmp_path: Path) -> None:
    rows = StreamedRows(stream([write(tmp_path / "a.jsonl", 20)]), 0, 30)
    whole = answers(rows)
    assert answers(rows[5:12]) == whole[5:12] and answers(rows[12:14]) == whole[12:14]
    assert answers([rows[3]]) == whole[3:4] and answers([rows[-1]]) == whole[-1:]
    assert len(rows) == 30 and answers(rows) == whole
    with pytest.raises(IndexError):
        rows[30]


def test_going_forward_opens_the_files_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[Path] = []
    whole = streaming.records

    def records(path: Path, *, streamed: bool) -> Any:
        opened.append(path)
        return whole(path, streamed=streamed)

    monkeypatch.setattr(streaming, "records", records)
    rows = StreamedRows(stream([write(tmp_path / "a.jsonl", 2000)]), 0, 1500)
    for start in range(0, 1500, 100):
        assert len(rows[start : start + 100]) == 100
    # Once for the rows, once for the first of them, which says how they are laid out.
    assert len(opened) == 2


def test_sets_are_interleaved_or_come_one_after_the_other(tmp_path: Path) -> None:
    names = [write(tmp_path / "a.jsonl", 40), write(tmp_path / "b.jsonl", 10, 100)]
    one = {"buffer_size": 1}
    assert first(50, names, **one) == [*range(40), *range(100, 110)]
    probs = {"interleave_probs": [0.75, 0.25], **one}
    under = first(40, names, mix_strategy="interleave_under", **probs)
    assert sum(n >= 100 for n in under) == 10
    over = first(53, names, mix_strategy="interleave_over", interleave_probs=[0.5, 0.5], **one)
    assert sum(n >= 100 for n in over) in (26, 27) and max(Counter(over).values()) == 3


@pytest.mark.parametrize("kind", ["csv", "parquet", "txt", "json"])
def test_other_kinds_of_files_are_streamed_too(tmp_path: Path, kind: str) -> None:
    file = tmp_path / f"a.{kind}"
    texts = [f"text {n}" for n in range(2500)]
    if kind == "parquet":
        pyarrow.parquet.write_table(pyarrow.table({"text": texts}), file)
    elif kind == "json":
        file.write_text(json.dumps([{"text": text} for text in texts]))
    else:
        file.write_text("\n".join((["text"] if kind == "csv" else []) + texts))
    read = list(islice(stream([str(file)], stage="pt", buffer_size=100).rows(), 2500))
    assert sorted(row.text for row in read) == sorted(texts)  # type: ignore[union-attr]


def test_only_the_first_rows_are_taken_where_so_many_are_wanted(tmp_path: Path) -> None:
    assert sorted(first(5, [write(tmp_path / "a.jsonl", 20)], max_samples=5)) == list(range(5))


def test_what_cannot_be_streamed_is_told(tmp_path: Path) -> None:
    file = tmp_path / "a.json"
    file.write_text('{"version": 1, "rows": [{"instruction": "a", "output": "b"}]}')
    with pytest.raises(DataError, match=r"can only be read whole.*write one object a line"):
        first(1, [str(file)])
    lines = write(tmp_path / "a.jsonl", 3)
    with pytest.raises(SettingsError, match=r"data\.streaming needs train\.max_steps"):
        read_split(table([lines]), "sft", [lines], [], 0)
    with pytest.raises(DataError, match="no row is left to train on after the 3"):
        list(read_split(table([lines], val_size=3), "sft", [lines], [], 0, wanted=1).train)
    (tmp_path / "empty.jsonl").write_text("\n")
    with pytest.raises(DataError, match="has no rows"):
        first(1, [str(tmp_path / "empty.jsonl")])


def _encoder(model_dir: Path, given: DataTable) -> ChatEncoder:
    return ChatEncoder.of(AutoTokenizer.from_pretrained(model_dir), "auto", given)


@pytest.mark.parametrize("packing", [False, True])
def test_no_more_is_tokenised_than_the_updates_take(
    tmp_path: Path, model_dir: Path, packing: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What stands behind the rows that are needed and the buffer could not be read."""
    monkeypatch.setattr(batches, "_CHUNK", 4)
    file = tmp_path / "a.jsonl"
    write(file, 40)
    with file.open("a") as out:
        out.write("broken\n" * 40)
    # A row has some 15 tokens: one of them fills a sequence that has no room for two.
    given = table([str(file)], buffer_size=4, packing=packing, cutoff_len=20)
    split = read_split(given, "sft", [str(file)], [], 0, wanted=12)
    made = batches.tokenise(split, _encoder(model_dir, given), given, "sft", lambda: None)
    assert len(made.train) == 12
    whole = table([str(file)], buffer_size=4, cutoff_len=20)
    more = read_split(whole, "sft", [str(file)], [], 0, wanted=60)
    with pytest.raises(DataError, match=r"line 4\d: is not valid JSON"):
        batches.tokenise(more, _encoder(model_dir, whole), whole, "sft", lambda: None)


def test_the_log_says_what_is_read_of_a_stream_and_how_far_it_is(
    tmp_path: Path,
    model_dir: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(batches, "_CHUNK", 4)
    monkeypatch.setattr(batches, "_TELL_EVERY_S", 0.0)
    given = table([write(tmp_path / "a.jsonl", 20)])
    split = read_split(given, "sft", list(given.dataset), [], 0, wanted=12)
    encoder = _encoder(model_dir, given)
    batches.tokenise(split, encoder, given, "sft", lambda: None)
    said = capsys.readouterr().out.splitlines()
    assert "12 rows (max_steps × effective batch) are tokenised before the first update" in said[0]
    assert said[1:] == [
        "tokenised 4 rows of 12 (33%)", "tokenised 8 rows of 12 (67%)", "tokenised 12 rows of 12 (100%)"
    ]  # fmt: skip
    packed = given.model_copy(update={"packing": True})
    batches.tokenise(split, encoder, packed, "sft", lambda: None)
    first, second, *_ = capsys.readouterr().out.splitlines()
    assert "12 sequences (max_steps × effective batch)" in first and second == "tokenised 4 rows"
