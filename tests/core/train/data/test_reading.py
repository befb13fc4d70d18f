"""What tells the cache which rows a trial has."""

import json
import os
from pathlib import Path
from typing import Any

import pytest

from core.params import DataTable
from core.train.data.reading import files_key

ROW = '{"q": "a", "a": "b"}\n'


def key(name: str, **table: Any) -> str | None:
    settings = DataTable(**{"dataset": name, "val_size": 0.0, **table})
    return files_key(settings, "sft", [name], [], 0, wanted=10)


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.jsonl").write_text(ROW)
    (tmp_path / "dataset_info.json").write_text(
        json.dumps(
            {
                "one": {"file_name": "a.jsonl", "columns": {"prompt": "q", "response": "a"}},
                "same": {"file_name": "b.jsonl", "columns": {"prompt": "q", "response": "a"}},
                "turned": {"file_name": "a.jsonl", "columns": {"prompt": "a", "response": "q"}},
            }
        )
    )
    (tmp_path / "b.jsonl").write_text(ROW)
    return tmp_path


def test_the_content_counts_and_not_the_place(place: Path) -> None:
    assert key("a.jsonl") == key("b.jsonl") != key("one") == key("same")
    (place / "b.jsonl").write_text(ROW * 2)
    assert key("a.jsonl") != key("b.jsonl") and key("one") != key("same")


def test_what_the_columns_mean_counts(place: Path) -> None:
    assert key("one") != key("turned")


def test_folders_have_a_key_and_what_is_not_there_has_none(place: Path) -> None:
    assert key(str(place)) is not None
    assert key("none.jsonl") is None


def test_files_of_a_stream_are_not_read_for_it(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from core.train.data import reading

    def never(file: Path) -> str:
        raise AssertionError(f"{file} is read")

    monkeypatch.setattr(reading, "_digest", never)
    before = key("a.jsonl", streaming=True)
    assert before == key("a.jsonl", streaming=True) != key("b.jsonl", streaming=True)
    os.utime(place / "a.jsonl", ns=(1, 1))
    assert key("a.jsonl", streaming=True) != before
