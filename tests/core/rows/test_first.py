"""The first rows of a data set, looked at for the stage that they are to fit."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest

from core.dataset_info import DEMO_SETS, Columns, DataSet, find_sets
from core.rows import first
from core.rows.first import ROWS, Wanted, unfit

ALPACA = {"instruction": "Say hello", "output": "hello"}
PAIR = {"instruction": "Say hello", "chosen": "hello", "rejected": "no"}
TAGGED = {**ALPACA, "kto_tag": True}
TEXT = {"text": "hello"}
ROWS_OF = {"sft": ALPACA, "dpo": PAIR, "rm": PAIR, "kto": TAGGED, "pt": TEXT, "ppo": ALPACA}


def data_set(file: Path, rows: Sequence[Any], **more: Any) -> DataSet:
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return DataSet("mine", (file,), **more)


@pytest.mark.parametrize("stage", ROWS_OF)
@pytest.mark.parametrize("kind", ["json", "jsonl", "csv", "parquet"])
def test_rows_of_the_stage_fit_in_every_kind_of_file(tmp_path: Path, stage: str, kind: str) -> None:
    row, file = ROWS_OF[stage], tmp_path / f"a.{kind}"
    if kind == "parquet":
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist([row] * 2), file)
    elif kind == "csv":
        file.write_text(",".join(row) + "\n" + ",".join(map(str, row.values())) + "\n")
    else:
        file.write_text(json.dumps([row, row]) if kind == "json" else json.dumps(row))
    assert unfit(DataSet("mine", (file,)), Wanted(stage)) is None


@pytest.mark.parametrize(
    ("stage", "row", "words"),
    [
        ("dpo", ALPACA, ["chosen and rejected are missing", 'method.stage = "sft"']),
        ("rm", {**PAIR, "rejected": None}, ["rejected is missing", "add it"]),
        ("sft", PAIR, ["stage sft does not compare", 'method.stage = "dpo"']),
        ("sft", TAGGED, ["kto_tag", 'method.stage = "kto"']),
        ("kto", ALPACA, ["kto_tag is missing", 'method.stage = "sft"']),
        ("pt", ALPACA, ["stage pt reads text alone", 'method.stage = "sft"']),
        ("sft", TEXT, ["is text alone", 'method.stage = "pt"']),
        ("ppo", TEXT, ["is text alone", 'method.stage = "pt"']),
        (
            "sft",
            {"instruction": "a", "output": 3},
            ["output must be text, and is a number; put it into quotes"],
        ),
        (
            "sft",
            {"instruction": "a", "output": None},
            ["output must be text, and is empty (null); write it, or take"],
        ),
        (
            "sft",
            {"messages": [{"role": "me", "content": "a"}]},
            ["message 1: role 'me' is not known", "tags in dataset_info"],
        ),
        ("sft", {"a": "b"}, ["no known format has its fields (a)", "dataset_info.json"]),
    ],
)
def test_rows_of_another_stage_are_told_by_file_row_field_and_fix(
    tmp_path: Path, stage: str, row: Any, words: list[str]
) -> None:
    file = tmp_path / "a.json"
    told = unfit(data_set(file, [row, row]), Wanted(stage))
    assert told is not None
    for word in (f"{file}, row 1", *words):
        assert word in told


def test_the_demo_sets_fit_their_stages_and_no_others() -> None:
    fits = {"demo": {"sft", "ppo"}, "demo-text": {"pt"}, "demo-pairs": {"rm", "dpo"}, "demo-tags": {"kto"}}  # fmt: skip
    for name in DEMO_SETS:
        (dataset,) = find_sets([name], None)
        found = {stage for stage in ROWS_OF if unfit(dataset, Wanted(stage)) is None}
        assert found >= fits[name] and not found - fits[name] - {"ppo"}


def test_a_column_that_does_not_exist_is_told_with_those_that_do(tmp_path: Path) -> None:
    rows = [{"question": "a", "reply": "b"}]
    columns = Columns(prompt="question", response="answer")
    told = unfit(data_set(tmp_path / "a.jsonl", rows, columns=columns), Wanted("sft"))
    assert told is not None and "row 1: answer is missing (the row has question, reply)" in told
    assert "the columns of its entry in dataset_info.json" in told


def test_every_file_is_looked_at_with_the_layout_of_the_first(tmp_path: Path) -> None:
    one, two = data_set(tmp_path / "a.jsonl", [ALPACA]), data_set(tmp_path / "b.jsonl", [TEXT])
    both = DataSet("both", one.files + two.files)
    told = unfit(both, Wanted("sft"))
    assert told is not None and f"{tmp_path / 'b.jsonl'}, row 1: instruction" in told


def test_only_the_first_rows_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "a.jsonl"
    dataset = data_set(file, [ALPACA] * ROWS)
    with file.open("a") as out:
        out.write("broken\n")
    assert unfit(dataset, Wanted("sft")) is None
    monkeypatch.setattr(first, "ROWS", ROWS + 1)
    told = unfit(dataset, Wanted("sft"))
    assert told is not None and f"line {ROWS + 1}: is not valid JSON" in told


def test_a_row_that_training_may_pass_by_is_let_through_unless_none_fits(tmp_path: Path) -> None:
    mixed = [{**ALPACA, "output": None}, ALPACA]
    for some in (Wanted("sft", sampled=True), Wanted("sft", streaming=True)):
        assert unfit(data_set(tmp_path / "a.jsonl", mixed), some) is None
        told = unfit(data_set(tmp_path / "a.jsonl", mixed[:1] * 3), some)
        assert told is not None and "row 1: output must be text, and is empty (null)" in told
    few = data_set(tmp_path / "a.jsonl", mixed, num_samples=1)
    assert unfit(few, Wanted("sft")) is None
    told = unfit(data_set(tmp_path / "a.jsonl", mixed), Wanted("sft"))
    assert told is not None and "row 1: output" in told


def test_a_stream_may_end_before_what_is_wrong_with_it(tmp_path: Path) -> None:
    files = [tmp_path / f"{n}.jsonl" for n in range(4)]
    good = json.dumps(ALPACA) + "\n"
    for file, text in zip(files, ("", good + "broken\n", "", "broken\n"), strict=True):
        file.write_text(text)
    dataset = DataSet("mine", tuple(files))
    assert unfit(dataset, Wanted("sft", streaming=True)) is None
    told = unfit(dataset, Wanted("sft"))
    assert told == f"{files[0]}: has no rows"
    # What decides the layout is read in any case, and so is a data set that is empty.
    told = unfit(DataSet("mine", (files[3], files[1])), Wanted("sft", streaming=True))
    assert told is not None and f"{files[3]}, line 1: is not valid JSON" in told
    told = unfit(DataSet("mine", (files[0], files[2])), Wanted("sft", streaming=True))
    assert told == f"{files[0]}: has no rows"


def test_rows_that_are_drawn_may_all_be_of_another_file(tmp_path: Path) -> None:
    good, bad = data_set(tmp_path / "a.jsonl", [ALPACA]), data_set(tmp_path / "b.jsonl", [TEXT])
    both = DataSet("both", good.files + bad.files)
    assert unfit(both, Wanted("sft", sampled=True)) is None
    # All rows are read before some are drawn, so that each must be one.
    bad.files[0].write_text("broken")
    told = unfit(both, Wanted("sft", sampled=True))
    assert told is not None and f"{bad.files[0]}, line 1: is not valid JSON" in told


def test_files_that_are_not_there_are_for_others_to_tell(tmp_path: Path) -> None:
    assert unfit(DataSet("mine", (tmp_path / "none.jsonl",)), Wanted("sft")) is None
    (tmp_path / "empty.jsonl").write_text("\n\n")
    told = unfit(DataSet("mine", (tmp_path / "empty.jsonl",)), Wanted("sft"))
    assert told == f"{tmp_path / 'empty.jsonl'}: has no rows"
