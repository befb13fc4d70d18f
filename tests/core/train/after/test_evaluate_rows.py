"""Which rows an evaluation takes, by the names that it is given, and references in whichever form a file has them."""

import json
from pathlib import Path

import pytest

from core.dataset_info import DEMO_SETS
from core.profile import Profile, loads
from core.study.after import EvaluateRequest, Weights
from core.train.after.evaluate import read_rows
from core.train.after.references import read_references
from core.train.errors import DataError

DEMO = len(DEMO_SETS["demo"].read_bytes().splitlines())


def profile(folder: Path, more: str = "") -> Profile:
    text = f'[model]\nmodel_name_or_path = "demo"\n[data]\ndataset = "demo"\ndataset_dir = "{folder}"\n'
    return loads(text + more)


def named(names: tuple[str, ...], of: Profile) -> tuple[list[str], str]:
    rows, what = read_rows(of, EvaluateRequest(weights=Weights("unused"), data=names))
    return [row.place for row in rows], what


def write(file: Path, count: int) -> Path:
    rows = [{"question": f"Say {n}", "answer": f"{n}"} for n in range(count)]
    file.write_text(json.dumps(rows))
    return file


def test_names_mean_what_they_mean_in_training(tmp_path: Path) -> None:
    file = write(tmp_path / "rows.json", 3)
    entry = {
        "file_name": "rows.json",
        "columns": {"prompt": "question", "response": "answer"},
        # More than there are: training repeats them, and an evaluation does not.
        "num_samples": 5,
    }
    (tmp_path / "dataset_info.json").write_text(json.dumps({"mine": entry}))
    places, what = named(("mine",), profile(tmp_path))
    assert places == [f"{file}, row {n}" for n in (1, 2, 3)] and what == "mine"
    places, what = named(("mine, demo",), profile(tmp_path, "max_samples = 2\n"))
    assert len(places) == 3 + DEMO and what == "mine, demo"


def test_files_and_names_may_be_mixed_and_a_folder_is_its_files(tmp_path: Path) -> None:
    (tmp_path / "dataset_info.json").write_text("{}")
    row = {"instruction": "a", "output": "b"}
    inside = tmp_path / "rows"
    inside.mkdir()
    (inside / "a.jsonl").write_text(json.dumps(row))
    (inside / "b.json").write_text(f"{json.dumps(row)}\n{json.dumps(row)}\n")
    places, what = named((str(inside), "demo"), profile(tmp_path))
    assert len(places) == 3 + DEMO and what == "rows, demo"


def test_a_name_that_means_nothing_says_what_there_is(tmp_path: Path) -> None:
    (tmp_path / "dataset_info.json").write_text('{"mine": {"file_name": "rows.json"}}')
    with pytest.raises(DataError, match=r"--data: mien: there is no such file.*did you mean mine"):
        named(("mien",), profile(tmp_path))


@pytest.mark.parametrize("name", ["a.json", "a.jsonl"])
@pytest.mark.parametrize(
    "text", ['["one", {"reference": "two"}]', '"one"\n{"reference": "two"}\n', '\n[\n"one",\n"two"\n]']
)  # fmt: skip
def test_references_are_a_list_or_lines_whatever_the_file_is_called(
    tmp_path: Path, name: str, text: str
) -> None:
    (tmp_path / name).write_text(text)
    assert read_references(tmp_path / name) == ["one", "two"]


def test_a_reference_that_is_none_is_named(tmp_path: Path) -> None:
    file = tmp_path / "a.json"
    file.write_text('"one"\n{"wrong": 1}\n')
    with pytest.raises(DataError, match=r"a\.json line 2 holds no reference"):
        read_references(file)
    file.write_text('["one", 2]')
    with pytest.raises(DataError, match=r"a\.json entry 2 holds no reference"):
        read_references(file)
    file.write_text("[" * 99999)
    with pytest.raises(DataError, match=r"a\.json is no JSON"):
        read_references(file)
