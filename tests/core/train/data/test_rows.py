"""From data sets to the rows that a stage learns from: what is taken, mixed, set aside and left out."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from core.data_size import measure
from core.dataset_info import DEMO_SETS, find_sets, size_of
from core.mixture import set_size, totals
from core.params import DataTable
from core.rows import Compared, Conversation, Judged, Question, Text
from core.train.data.rows import Split, read_split
from core.train.errors import DataError


def write(file: Path, count: int, start: int = 0) -> str:
    rows = [{"instruction": f"Say {n}", "output": f"{n}"} for n in range(start, start + count)]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(file)


def split(names: list[str], seed: int = 0, stage: str = "sft", **table: Any) -> Split:
    settings = DataTable(**{"dataset": names, "val_size": 0.0, **table})
    return read_split(settings, stage, names, [], seed)


def answers(rows: Any) -> list[str]:
    return [row.turns[-1].text for row in rows]


@pytest.mark.parametrize(
    ("stage", "name", "kind"),
    [
        ("pt", "demo-text", Text),
        ("sft", "demo", Conversation),
        ("rm", "demo-pairs", Compared),
        ("dpo", "demo-pairs", Compared),
        ("kto", "demo-tags", Judged),
        ("ppo", "demo", Question),
        ("ppo", "demo-pairs", Question),
        ("ppo", "demo-tags", Question),
    ],
)
def test_every_stage_has_demo_data(stage: str, name: str, kind: type) -> None:
    read = split([name], stage=stage, val_size=0.1)
    assert len(read.train) > 400 and read.evaluation
    assert all(isinstance(row, kind) for row in (*read.train, *read.evaluation))


def test_data_sets_are_interleaved_in_proportion_and_the_rest_is_left(tmp_path: Path) -> None:
    files = [write(tmp_path / "a.jsonl", 40), write(tmp_path / "b.jsonl", 40, 100)]
    read = split(files, mix_strategy="interleave_under", interleave_probs=[0.8, 0.2])
    drawn = [int(a) >= 100 for a in answers(read.train)]
    assert (drawn.count(False), drawn.count(True)) == (40, 10)
    assert all(drawn[i : i + 5].count(True) == 1 for i in range(0, 50, 5))
    # The rows of the larger set are drawn, not its first ones.
    few = {a for a in answers(read.train) if int(a) >= 100}
    assert few != {str(n) for n in range(100, 110)}
    again = split(files, mix_strategy="interleave_under", interleave_probs=[0.8, 0.2])
    other = split(files, seed=1, mix_strategy="interleave_under", interleave_probs=[0.8, 0.2])
    assert answers(again.train) == answers(read.train) != answers(other.train)


def test_smaller_sets_begin_again_and_no_row_is_both_learnt_and_evaluated_on(
    tmp_path: Path,
) -> None:
    files = [write(tmp_path / "a.jsonl", 60), write(tmp_path / "b.jsonl", 10, 100)]
    read = split(files, mix_strategy="interleave_over", val_size=0.2)
    learnt, held = Counter(answers(read.train)), answers(read.evaluation)
    assert not learnt.keys() & set(held)
    assert sum(int(a) >= 100 for a in held) == 2 == sum(int(a) < 100 for a in held)
    few = {a: n for a, n in learnt.items() if int(a) >= 100}
    assert len(few) == 8 and sum(few.values()) == 58 and max(few.values()) - min(few.values()) <= 1


def test_an_entry_may_ask_for_more_rows_than_there_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "a.jsonl", 10)
    (tmp_path / "dataset_info.json").write_text(
        json.dumps({"mine": {"file_name": "a.jsonl", "num_samples": 25}})
    )
    read = split(["mine"], val_size=2)
    assert len(read.train) == 23 and len(read.evaluation) == 2
    counts = Counter(answers(read.train))
    assert len(counts) == 8 and set(counts.values()) == {2, 3}
    assert len(split(["mine"], max_samples=4).train) == 4


def test_named_columns_and_roles_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    said = [{"who": "me", "what": "hi"}, {"who": "it", "what": "ho"}]
    (tmp_path / "chat.jsonl").write_text(json.dumps({"dialogue": said, "persona": "be brief"}))
    (tmp_path / "qa.csv").write_text("q,a\nwhy,because\n")
    (tmp_path / "dataset_info.json").write_text(
        json.dumps(
            {
                "chat": {
                    "file_name": "chat.jsonl",
                    "formatting": "sharegpt",
                    "columns": {"messages": "dialogue", "system": "persona"},
                    "tags": {
                        "role_tag": "who", "content_tag": "what", "user_tag": "me", "assistant_tag": "it",
                    },
                },
                "qa": {"file_name": "qa.csv", "columns": {"prompt": "q", "response": "a"}},
                "raw": {"file_name": "qa.csv", "columns": {"prompt": "q"}},
            }
        )
    )  # fmt: skip
    rows = split(["chat", "qa"]).train
    turns = [[(turn.role, turn.text) for turn in row.turns] for row in rows]  # type: ignore[union-attr]
    assert turns == [
        [("system", "be brief"), ("user", "hi"), ("assistant", "ho")],
        [("user", "why"), ("assistant", "because")],
    ]
    assert [row.text for row in split(["raw"], stage="pt").train] == ["why"]  # type: ignore[union-attr]


def test_rows_without_a_system_text_get_the_default_one(tmp_path: Path) -> None:
    file = tmp_path / "a.jsonl"
    rows = [
        {"instruction": "a", "output": "b"},
        {"instruction": "a", "output": "b", "system": "own"},
    ]
    file.write_text("\n".join(map(json.dumps, rows)))
    read = split([str(file)], default_system="given")
    assert [row.turns[0].text for row in read.train] == ["given", "own"]  # type: ignore[union-attr]


def test_a_folder_of_files_is_one_data_set(tmp_path: Path) -> None:
    write(tmp_path / "b.jsonl", 3, 100)
    write(tmp_path / "a.jsonl", 2)
    assert answers(split([str(tmp_path)]).train) == ["0", "1", "100", "101", "102"]
    assert len(split([str(tmp_path)], max_samples=4).train) == 4


def test_a_name_that_means_nothing_is_told_its_nearest(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="did you mean demo-text"):
        split(["demo-texts"], stage="pt")


@pytest.mark.parametrize(
    "table",
    [
        {},
        {"val_size": 0.1},
        {"val_size": 7},
        {"max_samples": 12, "val_size": 0.25},
        {"mix_strategy": "interleave_under", "val_size": 0.1},
        {"mix_strategy": "interleave_over", "interleave_probs": [3.0, 1.0, 2.0], "val_size": 0.1},
        {"mix_strategy": "interleave_under", "interleave_probs": [0.2, 0.5, 0.3], "val_size": 5},
        {"mix_strategy": "interleave_over", "max_samples": 9},
    ],
)
def test_what_was_counted_before_is_what_the_worker_reads(
    tmp_path: Path, table: dict[str, Any]
) -> None:
    names = [
        write(tmp_path / "a.jsonl", 31),
        write(tmp_path / "b.jsonl", 50, 100),
        write(tmp_path / "c.jsonl", 17, 200),
    ]
    read = split(names, **table)
    settings = DataTable(**{"dataset": names, "val_size": 0.0, **table})
    sizes = [size_of(dataset, measure) for dataset in find_sets(names, None)]
    counted = totals(
        [set_size(s.rows, s.wanted, settings.max_samples) for s in sizes],
        settings.val_size,
        settings.mix_strategy,
        settings.interleave_probs,
    )
    assert (len(read.train), len(read.evaluation)) == counted


def test_the_demo_sets_are_counted_as_they_are_read() -> None:
    stages = {"demo": "sft", "demo-text": "pt", "demo-pairs": "rm", "demo-tags": "kto"}
    for name, file in DEMO_SETS.items():
        assert measure(file).rows == len(split([name], stage=stages[name]).train)
