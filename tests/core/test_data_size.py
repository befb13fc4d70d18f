"""Counting rows without loading them."""

import json
import os
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import core.data_size as data_size
from core.data_size import (
    CountStoppedError,
    DataSizeError,
    RowCounter,
    measure,
    probe_steps,
    steps_per_epoch,
    training_steps,
    validation_rows,
)

ROWS = [{"instruction": f"do {i}", "output": 'say "[{" \\ and\nmore' * i} for i in range(7)]


def test_json_lines_are_counted_without_blank_ones(tmp_path: Path) -> None:
    file = tmp_path / "a.jsonl"
    file.write_text("\n".join(json.dumps(r) for r in ROWS) + "\n\n  \n")
    size = measure(file)
    assert size.rows == 7
    assert size.longest == max(len(json.dumps(r)) for r in ROWS) + 1


def test_rows_are_counted_in_the_form_that_the_file_has(tmp_path: Path) -> None:
    lines = "\n".join(json.dumps(r) for r in ROWS)
    for name in ("a.json", "a.jsonl"):
        for text in (lines, f"\ufeff{lines}\n", json.dumps(ROWS), json.dumps(ROWS, indent=1)):
            (tmp_path / name).write_text(text)
            assert measure(tmp_path / name).rows == 7


def test_a_last_line_without_its_end_counts(tmp_path: Path) -> None:
    file = tmp_path / "a.jsonl"
    file.write_text('{"a": 1}\n{"a": 2}')
    assert measure(file).rows == 2


def test_text_is_counted_by_its_lines(tmp_path: Path) -> None:
    file = tmp_path / "a.txt"
    file.write_text("one\n\n  \nthe longest\nlast")
    assert measure(file) == data_size.FileSize(3, len("the longest\n"))


def test_a_json_list_is_counted(tmp_path: Path) -> None:
    file = tmp_path / "a.json"
    file.write_text(json.dumps(ROWS))
    assert measure(file).rows == 7


def test_an_object_with_one_list_is_counted_as_that_list(tmp_path: Path) -> None:
    file = tmp_path / "a.json"
    file.write_text(json.dumps({"version": 2, "data": ROWS}))
    assert measure(file).rows == 7


@given(
    st.lists(
        st.dictionaries(
            st.text(max_size=4),
            st.recursive(st.text(max_size=6) | st.integers(), lambda c: st.lists(c, max_size=3)),
            max_size=3,
        ),
        min_size=1,
        max_size=12,
    ),
    st.integers(1, 40),
)
def test_a_large_json_list_is_scanned_to_the_same_count(
    rows: list[dict[str, object]], chunk: int
) -> None:
    import tempfile

    before = data_size._WHOLE_JSON, data_size._CHUNK
    data_size._WHOLE_JSON, data_size._CHUNK = 0, chunk
    try:
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "a.json"
            file.write_text(json.dumps(rows))
            assert measure(file).rows == len(rows)
    finally:
        data_size._WHOLE_JSON, data_size._CHUNK = before


def test_a_long_text_in_a_json_list_is_not_gone_over_again_and_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file, brackets, seen = tmp_path / "a.json", data_size._BRACKET, list[int]()

    class Watched:
        def finditer(self, text: bytes) -> Iterator[re.Match[bytes]]:
            seen.append(len(text))
            return brackets.finditer(text)

    monkeypatch.setattr(data_size, "_WHOLE_JSON", 0)
    monkeypatch.setattr(data_size, "_CHUNK", 8)
    monkeypatch.setattr(data_size, "_BRACKET", Watched())
    file.write_text(json.dumps([{"a": "line\n" * 2000}, {"a": "b"}]))
    assert measure(file).rows == 2
    assert sum(seen) < 4 * file.stat().st_size


def test_a_large_json_list_that_is_cut_off_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(data_size, "_WHOLE_JSON", 0)
    file = tmp_path / "a.json"
    file.write_text(json.dumps(ROWS)[:-30])
    with pytest.raises(DataSizeError, match="ends in the middle"):
        measure(file)


def test_csv_rows_may_hold_line_breaks_and_quotes(tmp_path: Path) -> None:
    file = tmp_path / "a.csv"
    file.write_text('instruction,output\n"one ""two""\nthree",x\nplain,y\n\n')
    assert measure(file).rows == 2


def test_the_longest_row_of_csv_is_told_in_bytes(tmp_path: Path) -> None:
    file = tmp_path / "a.csv"
    file.write_bytes('text\n"é\n\nx"\n\nplain\n'.encode())
    assert measure(file) == data_size.FileSize(2, len('"é\n\nx"\n'.encode()))


def test_a_number_of_thousands_of_digits_is_counted_over(tmp_path: Path) -> None:
    file = tmp_path / "a.json"
    file.write_text(f'[{{"a": {"1" * 5000}}}, {{"a": 1}}]')
    assert measure(file).rows == 2


def test_an_open_quote_in_csv_is_an_error(tmp_path: Path) -> None:
    file = tmp_path / "a.csv"
    file.write_text('a,b\n"one,two\n')
    with pytest.raises(DataSizeError, match="never closed"):
        measure(file)


def test_parquet_rows_come_from_its_footer(tmp_path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    file = tmp_path / "a.parquet"
    parquet.write_table(pyarrow.table({"a": list(range(23))}), file)
    assert measure(file) == data_size.FileSize(23, None)


def test_what_only_looks_like_parquet_is_an_error(tmp_path: Path) -> None:
    file = tmp_path / "a.parquet"
    file.write_text("no")
    with pytest.raises(DataSizeError, match="not a parquet file"):
        measure(file)


@pytest.mark.parametrize(
    ("name", "content", "wrong"),
    [
        ("a.json", "[1, 2", "is not valid JSON: line 1"),
        ("a.csv", 'a,b\n"x"y,z\n', "is not valid CSV"),
        ("a.json", '{"a":\n1}', "or one object a line"),
        ("a.json", "3", "holds no list of rows"),
        ("a.json", "[]", "has no rows"),
        ("a.jsonl", "\n\n", "has no rows"),
        ("a.csv", "a,b\n", "has no rows"),
        ("a.doc", "x", "ends in .doc"),
        ("a", "x", "has no ending"),
    ],
)
def test_a_file_that_cannot_be_counted_says_why(
    tmp_path: Path, name: str, content: str, wrong: str
) -> None:
    file = tmp_path / name
    file.write_text(content)
    with pytest.raises(DataSizeError) as error:
        measure(file)
    assert wrong in str(error.value)


def test_a_missing_file_and_a_folder_say_so(tmp_path: Path) -> None:
    with pytest.raises(DataSizeError, match="there is no such file"):
        measure(tmp_path / "a.jsonl")
    with pytest.raises(DataSizeError, match="is a folder"):
        measure(tmp_path)


def test_a_count_is_remembered_until_the_file_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "a.jsonl"
    file.write_text('{"a": 1}\n')
    counter = RowCounter()
    counts = []
    monkeypatch.setattr(
        data_size, "measure", lambda path, report: counts.append(path) or measure(path, report)
    )
    assert counter.count(file).rows == counter.count(file).rows == 1
    assert len(counts) == 1
    file.write_text('{"a": 1}\n{"a": 2}\n')
    os.utime(file, ns=(1, 1))
    assert counter.count(file).rows == 2


def test_a_long_count_reports_and_can_be_stopped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(data_size, "_REPORT_EVERY", 20)
    file = tmp_path / "a.jsonl"
    file.write_text('{"a": 1}\n' * 10)
    heard: list[tuple[int, float]] = []

    def report(rows: int, share: float) -> bool:
        heard.append((rows, share))
        return True

    assert measure(file, report).rows == 10
    assert heard
    assert [rows for rows, _ in heard] == sorted({rows for rows, _ in heard})
    assert all(0 < share <= 1 for _, share in heard)
    with pytest.raises(CountStoppedError):
        measure(file, lambda rows, share: False)


def test_validation_rows_are_a_share_or_a_number() -> None:
    assert validation_rows(100, 0) == 0
    assert validation_rows(100, 0.05) == 5
    assert validation_rows(10, 0.001) == 1
    assert validation_rows(100, 30) == 30


def test_steps_round_up_but_not_for_what_floating_point_adds() -> None:
    assert steps_per_epoch(100, 16) == 7
    assert training_steps(30, 0.1, None) == 3
    assert training_steps(7, 3, None) == 21
    assert training_steps(7, 3, 5) == 5
    assert probe_steps(30, 0.1) == 3
    assert probe_steps(3, 0.001) == 1


@given(
    st.integers(1, 10**6),
    st.integers(1, 64),
    st.integers(1, 64),
    st.floats(0.1, 5),
    st.floats(0.01, 1),
)
def test_steps_are_those_of_the_worker(
    rows: int, batch: int, accumulation: int, epochs: float, budget: float
) -> None:
    from core.params import TrainTable
    from core.study.files import TrialTask
    from core.train.plan import make_plan

    train = TrainTable(
        per_device_train_batch_size=batch,
        gradient_accumulation_steps=accumulation,
        num_train_epochs=epochs,
    )
    task = TrialTask(trial=1, attempt=1, kind="probe", budget=budget, device="cpu")
    theirs = make_plan(train, task, rows, 0)
    per_epoch = steps_per_epoch(rows, batch * accumulation)
    full = training_steps(per_epoch, epochs, None)
    assert (theirs.steps_per_epoch, theirs.full_steps, theirs.total_steps) == (
        per_epoch,
        full,
        probe_steps(full, budget),
    )
