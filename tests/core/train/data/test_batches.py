"""What is set aside, what is dropped, how rows are joined, in which order they come."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from core.params import DataTable
from core.train.data.batches import (
    Collator,
    Examples,
    build_examples,
    epoch_order,
    pack,
    read_split,
)
from core.train.data.chat import ChatEncoder
from core.train.data.examples import IGNORED, Example
from core.train.errors import DataError


def write(file: Path, count: int, start: int = 0) -> str:
    rows = [{"instruction": f"Say {n}", "output": f"{n}"} for n in range(start, start + count)]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(file)


def answers(rows: Any) -> list[str]:
    return [row.turns[-1].text for row in rows]


def nothing() -> None:
    pass


def test_the_split_depends_on_the_seed_alone(tmp_path: Path) -> None:
    file = write(tmp_path / "a.jsonl", 40)
    table = DataTable(dataset=file, val_size=0.25)
    one, two, other = (read_split(table, "sft", [file], [], seed) for seed in (1, 1, 2))
    assert answers(one.evaluation) == answers(two.evaluation) != answers(other.evaluation)
    assert len(one.evaluation) == 10 and len(one.train) == 30
    assert sorted(answers(one.train) + answers(one.evaluation)) == sorted(str(n) for n in range(40))


def test_evaluation_files_leave_the_training_data_whole(tmp_path: Path) -> None:
    train, other = write(tmp_path / "a.jsonl", 4), write(tmp_path / "b.jsonl", 3, 100)
    split = read_split(DataTable(dataset=train, eval_dataset=other), "sft", [train], [other], 0)
    assert len(split.train) == 4 and answers(split.evaluation) == ["100", "101", "102"]


def test_max_samples_are_drawn_from_each_file_with_the_seed(tmp_path: Path) -> None:
    files = [write(tmp_path / "a.jsonl", 30), write(tmp_path / "b.jsonl", 30, 100)]
    table = DataTable(dataset=files, val_size=0, max_samples=5)
    rows = answers(read_split(table, "sft", files, [], 3).train)
    assert (
        rows
        == answers(read_split(table, "sft", files, [], 3).train)
        != answers(read_split(table, "sft", files, [], 4).train)
    )
    assert [int(r) >= 100 for r in rows] == [False] * 5 + [True] * 5


@pytest.mark.parametrize(
    ("rows", "size", "count"), [(100, 0, 0), (100, 0.05, 5), (10, 0.01, 1), (10, 3, 3), (10, 1, 1)]
)
def test_validation_is_a_share_or_a_number(
    tmp_path: Path, rows: int, size: float, count: int
) -> None:
    file = write(tmp_path / "a.jsonl", rows)
    split = read_split(DataTable(dataset=file, val_size=size), "sft", [file], [], 0)
    assert (len(split.train), len(split.evaluation)) == (rows - count, count)


@pytest.mark.parametrize(
    ("rows", "size", "words"), [(10, 10, "10 of 10"), (10, 30, "30 of 10"), (1, 0.1, "1 of 1")]
)
def test_setting_everything_aside_is_refused(
    tmp_path: Path, rows: int, size: float, words: str
) -> None:
    file = write(tmp_path / "a.jsonl", rows)
    with pytest.raises(DataError, match=f"sets {words} rows aside"):
        read_split(DataTable(dataset=file, val_size=size), "sft", [file], [], 0)


def test_rows_with_nothing_to_learn_are_dropped_and_counted(
    tmp_path: Path, model_dir: Path
) -> None:
    from transformers import AutoTokenizer

    file = tmp_path / "a.jsonl"
    rows = [
        {"instruction": "hi", "output": "yes"},
        {"instruction": "long " * 50, "output": "never seen"},
    ]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    table = DataTable(dataset=str(file), val_size=0, cutoff_len=24)
    encoder = ChatEncoder(AutoTokenizer.from_pretrained(model_dir), "auto", 24, False)
    built = build_examples(
        read_split(table, "sft", [str(file)], [], 0), encoder, table, "sft", nothing
    )
    assert (len(built.train), built.train_rows, built.dropped) == (1, 1, 1)
    tight = DataTable(dataset=str(file), val_size=0, cutoff_len=8)
    encoder = ChatEncoder(AutoTokenizer.from_pretrained(model_dir), "auto", 8, False)
    with pytest.raises(DataError, match=r"none of the 2 rows to train on .* first 8 tokens"):
        build_examples(read_split(tight, "sft", [str(file)], [], 0), encoder, tight, "sft", nothing)


@pytest.mark.parametrize("streaming", [False, True])
def test_pairs_of_one_answer_are_dropped_and_counted(
    tmp_path: Path, model_dir: Path, streaming: bool
) -> None:
    from transformers import AutoTokenizer

    file = tmp_path / "a.jsonl"
    rows = [
        {"instruction": f"{n}", "chosen": "a", "rejected": "a" if n % 2 else "b"} for n in range(6)
    ]
    file.write_text("\n".join(map(json.dumps, rows)))
    table = DataTable(dataset=str(file), val_size=0, streaming=streaming, buffer_size=1)
    encoder = ChatEncoder(AutoTokenizer.from_pretrained(model_dir), "auto", 64, False)

    def build() -> Examples:
        split = read_split(table, "dpo", [str(file)], [], 0, wanted=3 if streaming else None)
        return build_examples(split, encoder, table, "dpo", nothing)

    built = build()
    assert (len(built.train), built.train_rows) == (3, 3) and built.dropped == (3 - streaming)
    file.write_text(json.dumps(rows[1]))
    with pytest.raises(
        DataError, match=r"two different answers.*; give pairs of different answers"
    ):
        build()


def test_a_stream_goes_on_until_it_has_as_many_examples_as_were_wanted(
    tmp_path: Path, model_dir: Path
) -> None:
    from transformers import AutoTokenizer

    file = tmp_path / "a.jsonl"
    rows = [
        {"instruction": "long " * 50 if n % 3 else f"Say {n}", "output": f"{n}"} for n in range(30)
    ]
    # A row too many would be one that is broken.
    file.write_text("\n".join([*map(json.dumps, rows), "broken"]))
    table = DataTable(dataset=str(file), val_size=0, streaming=True, buffer_size=1, cutoff_len=24)
    tokenizer = AutoTokenizer.from_pretrained(model_dir)
    encoder = ChatEncoder(tokenizer, "auto", 24, False)
    split = read_split(table, "sft", [str(file)], [], 0, wanted=9)
    built = build_examples(split, encoder, table, "sft", nothing)
    said = [tokenizer.decode(e.ids) for e in built.train if isinstance(e, Example)]
    assert len(said) == 9 and built.dropped == 16
    assert all(f"Say {3 * n}" in text for n, text in enumerate(said))


def example(*ids: int) -> Example:
    tokens = np.array(ids, dtype=np.int32)
    return Example(tokens, np.array([IGNORED, *ids[1:]], dtype=np.int32))


def test_packing_joins_whole_rows_in_their_order() -> None:
    packed = list(pack([example(1, 2, 3), example(4, 5), example(6, 7, 8), example(9)], 5))
    assert [p.ids.tolist() for p in packed] == [[1, 2, 3, 4, 5], [6, 7, 8, 9]]
    assert packed[0].labels.tolist() == [IGNORED, 2, 3, IGNORED, 5]


def test_each_epoch_has_its_own_order_and_the_same_one_again() -> None:
    assert epoch_order(20, 7, 0) == epoch_order(20, 7, 0)
    assert epoch_order(20, 7, 0) != epoch_order(20, 7, 1) != epoch_order(20, 8, 1)
    assert sorted(epoch_order(20, 7, 3)) == list(range(20))


def test_a_batch_is_padded_to_its_longest_row_or_a_multiple() -> None:
    batch = [example(1, 2, 3), example(4)]
    tight, wide = Collator(0)(batch), Collator(0, 8)(batch)
    assert tight["input_ids"].tolist() == [[1, 2, 3], [4, 0, 0]]
    assert tight["labels"].tolist() == [[IGNORED, 2, 3], [IGNORED] * 3]
    assert tight["attention_mask"].tolist() == [[1, 1, 1], [1, 0, 0]]
    assert wide["input_ids"].shape == (2, 8) and wide["attention_mask"].sum() == 4


def test_a_stop_is_answered_between_chunks(tmp_path: Path, model_dir: Path) -> None:
    from transformers import AutoTokenizer

    class EnoughError(Exception):
        pass

    def stop() -> None:
        raise EnoughError

    file = write(tmp_path / "a.jsonl", 3)
    table = DataTable(dataset=file, val_size=0)
    encoder = ChatEncoder(AutoTokenizer.from_pretrained(model_dir), "auto", 64, False)
    with pytest.raises(EnoughError):
        build_examples(read_split(table, "sft", [file], [], 0), encoder, table, "sft", stop)
