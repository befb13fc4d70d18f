import json
from pathlib import Path
from typing import Any

import pytest

from core.engine.memory import row_bounds
from core.engine.memory.row_bounds import bound, bound_of_files
from core.memory.forecast import Lengths
from core.profile import Profile, from_document, loads


def profile(dataset: str = "d", **data: Any) -> Profile:
    return from_document(
        {
            "model": {"model_name_or_path": "m"},
            "data": {"dataset": dataset, "cutoff_len": 2048, "val_size": 0.1, **data},
        }
    )


def rows(file: Path, length: int) -> str:
    """A data file whose longest row has `length` bytes."""
    frame = len(json.dumps({"text": ""}))
    lines = [json.dumps({"text": "x" * (size - frame)}) for size in (length - 1, 20)]
    file.write_text("\n".join(lines) + "\n")
    return str(file)


def test_short_rows_are_known_to_be_short_before_anybody_counts_tokens(tmp_path: Path) -> None:
    found = bound_of_files(profile(rows(tmp_path / "short.jsonl", 200)))
    assert found == Lengths(264, 264)
    assert not found.measured


def test_rows_to_evaluate_on_have_a_file_of_their_own(tmp_path: Path) -> None:
    short, long = rows(tmp_path / "s.jsonl", 200), rows(tmp_path / "l.jsonl", 500)
    assert bound_of_files(profile(short, eval_dataset=long, val_size=0)) == Lengths(264, 564)


@pytest.mark.parametrize(
    ("sizes", "data"), [([9000], {}), ([200, None], {}), ([], {}), ([200], {"packing": True})]
)
def test_else_they_may_be_as_long_as_the_cut_off(sizes: list[int | None], data: Any) -> None:
    assert bound(profile(**data), sizes, []) == Lengths(2048, 2048)


def test_files_that_are_large_missing_or_malformed_tell_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wrong = tmp_path / "wrong.json"
    wrong.write_text("[{")
    files = [str(wrong), str(tmp_path / "none.jsonl"), rows(tmp_path / "large.jsonl", 200)]
    monkeypatch.setattr(row_bounds, "LARGEST", 100)
    assert [bound_of_files(profile(f)).train for f in files] == [2048, 2048, 2048]


def test_named_data_sets_and_folders_are_looked_into_and_streams_are_not(tmp_path: Path) -> None:
    rows(tmp_path / "short.jsonl", 200)
    (tmp_path / "dataset_info.json").write_text('{"mine": {"file_name": "short.jsonl"}}')
    named = profile("mine", dataset_dir=str(tmp_path))
    assert bound_of_files(named) == bound_of_files(profile(str(tmp_path))) == Lengths(264, 264)
    unknown = profile("other", dataset_dir=str(tmp_path))
    assert bound_of_files(unknown).train == 2048
    text = '[model]\nmodel_name_or_path = "m"\n[train]\nmax_steps = 5\n[data]\nstreaming = true\nval_size = 0\n'
    streamed = loads(f'{text}dataset = "{tmp_path / "short.jsonl"}"\n')
    assert bound_of_files(streamed) == Lengths.bound(streamed)
