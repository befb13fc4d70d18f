"""What the names of data sets mean."""

import json
from pathlib import Path
from typing import Any

import pytest

from core.data_size import FileSize, measure
from core.dataset_info import (
    DEMO_SETS,
    Columns,
    DataSetError,
    Tags,
    find_sets,
    size_of,
    split_names,
)


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder, the current one."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def write(place: Path, **entries: Any) -> None:
    (place / "data").mkdir(exist_ok=True, parents=True)
    (place / "data" / "dataset_info.json").write_text(json.dumps(entries))
    (place / "data" / "rows.jsonl").write_text('{"instruction": "a", "output": "b"}\n')


def refused(names: Any, dataset_dir: str | None = None) -> str:
    with pytest.raises(DataSetError) as caught:
        find_sets(names, dataset_dir)
    return str(caught.value)


def test_the_demo_sets_are_there_by_name() -> None:
    found = find_sets(list(DEMO_SETS), None)
    assert [s.name for s in found] == ["demo", "demo-text", "demo-pairs", "demo-tags"]
    assert all(file.is_file() for s in found for file in s.files)


def test_an_entry_says_where_the_rows_lie_and_what_their_columns_mean(place: Path) -> None:
    columns = {"messages": "dialogue", "system": "persona"}
    tags = {"role_tag": "who", "content_tag": "what", "user_tag": "me"}
    write(
        place,
        mine={
            "file_name": "rows.jsonl", "formatting": "sharegpt", "ranking": True, "num_samples": 5,
            "columns": columns, "tags": tags,
        },
    )  # fmt: skip
    (found,) = find_sets("mine", None)
    assert found.files == (place / "data" / "rows.jsonl",)
    assert (found.formatting, found.num_samples) == ("sharegpt", 5)
    assert found.columns == Columns(messages="dialogue", system="persona")
    assert found.tags == Tags(role_tag="who", content_tag="what", user_tag="me")


def test_the_folder_is_the_one_that_is_named_else_data_beside_the_profile(place: Path) -> None:
    write(place, mine={"file_name": "rows.jsonl"})
    other = place / "elsewhere"
    write(other, mine={"file_name": "rows.jsonl"}, more={"file_name": "rows.jsonl"})
    assert find_sets("mine", None)[0].files[0].parent == place / "data"
    assert find_sets("mine", None, other)[0].files[0].parent == other / "data"
    assert find_sets("more", "elsewhere/data")[0].files[0].parent == other / "data"


def test_several_names_may_stand_in_one_text(place: Path) -> None:
    write(place, one={"file_name": "rows.jsonl"}, two={"file_name": "rows.jsonl"})
    assert [s.name for s in find_sets("one, two,demo", None)] == ["one", "two", "demo"]
    (place / "a,b.jsonl").write_text("{}")
    assert split_names("a,b.jsonl") == ["a,b.jsonl"]
    assert split_names(["one,two", "x"]) == ["one", "two", "x"]
    assert split_names(None) == []


def test_a_folder_is_all_of_its_data_files_by_name(place: Path) -> None:
    for name in ("b.jsonl", "a.jsonl", ".hidden.jsonl", "dataset_info.json", "notes.md"):
        (place / name).write_text('{"a": 1}\n')
    (place / "deeper").mkdir()
    (place / "deeper" / "c.csv").write_text("a\n1\n")
    (found,) = find_sets(str(place), None)
    assert [file.name for file in found.files] == ["a.jsonl", "b.jsonl", "c.csv"]
    assert size_of(found, measure) == FileSize(3, 9)


def test_a_folder_with_splits_is_its_training_split_or_the_one_that_is_named(place: Path) -> None:
    write(
        place,
        plain={"file_name": "hub"},
        tested={"file_name": "hub", "split": "test"},
        german={"file_name": "hub", "subset": "de"},
        none={"file_name": "hub", "split": "dev"},
        own={"file_name": "chats", "split": "train_sft"},
        whole={"file_name": "loose", "split": "train"},
    )
    for name in ("train-00000-of-00002", "train-00001-of-00002", "test-00000-of-00001"):
        (place / "data" / "hub").mkdir(exist_ok=True)
        (place / "data" / "hub" / f"{name}.jsonl").write_text("{}\n")
    (place / "data" / "hub" / "de" / "train").mkdir(parents=True)
    (place / "data" / "hub" / "de" / "train" / "0.jsonl").write_text("{}\n")

    for name in ("chats/train_sft-00000-of-00001", "chats/train_gen-00000-of-00001", "loose/rows"):
        (place / "data" / name).parent.mkdir(exist_ok=True)
        (place / "data" / f"{name}.jsonl").write_text("{}\n")

    def files(name: str) -> list[str]:
        return [file.name for file in find_sets(name, None)[0].files]

    assert files("tested") == ["test-00000-of-00001.jsonl"]
    assert files("german") == ["0.jsonl"]
    assert files("own") == ["train_sft-00000-of-00001.jsonl"] and files("whole") == ["rows.jsonl"]
    assert "test-00000-of-00001.jsonl" not in files("plain") and len(files("plain")) == 3
    assert "no files of split dev" in refused("none") and "test, train" in refused("none")


@pytest.mark.parametrize(
    ("entry", "words"),
    [
        ({"hf_hub_url": "a/b"}, ["on the Hugging Face Hub (a/b)", "fetches no data", "download it"]),
        ({"ms_hub_url": "a/b"}, ["on ModelScope"]),
        ({"script_url": "make"}, ["made by a script", "save its rows as .jsonl"]),
        ({"cloud_file_name": "s3://x"}, ["in cloud storage"]),
        ({}, ["file_name is missing"]),
        ({"file_name": ""}, ["file_name is missing"]),
        ({"file_name": "none.jsonl"}, ["there is no", "none.jsonl"]),
        ({"file_name": 3}, ["file_name must be text"]),
        ({"file_name": "rows.jsonl", "formatting": "chat"}, ["formatting 'chat' is not known"]),
        ({"file_name": "rows.jsonl", "num_samples": 0}, ["num_samples is 0"]),
        ({"file_name": "rows.jsonl", "num_samples": True}, ["num_samples must be a whole number"]),
        ({"file_name": "rows.jsonl", "columms": {}}, ["columms is not known", "columns"]),
        ({"file_name": "rows.jsonl", "columns": {"promt": "a"}}, ["columns.promt", "prompt"]),
        ({"file_name": "rows.jsonl", "columns": {"images": "a"}}, ["only text can be learnt"]),
        ({"file_name": "rows.jsonl", "tags": {"role_tag": 1}}, ["tags.role_tag must be text"]),
        ("rows.jsonl", ["is no object"]),
    ],
)  # fmt: skip
def test_an_entry_that_cannot_be_used_says_why_and_where(
    place: Path, entry: Any, words: list[str]
) -> None:
    write(place, mine=entry)
    told = refused("mine")
    assert "mine in" in told and "dataset_info.json" in told
    for word in words:
        assert word in told


def test_what_is_downloaded_already_may_still_name_its_hub(place: Path) -> None:
    write(place, mine={"hf_hub_url": "a/b", "file_name": "rows.jsonl"})
    assert find_sets("mine", None)[0].files[0].name == "rows.jsonl"


def test_an_unknown_name_is_told_its_nearest(place: Path) -> None:
    write(place, alpaca_en={"file_name": "rows.jsonl"})
    told = refused("alpaca_eng")
    assert "did you mean alpaca_en?" in told and f"looked in {place}" in told
    (place / "train.jsonl").write_text("{}")
    assert "did you mean train.jsonl?" in refused("trian.jsonl")
    assert "did you mean demo-pairs" in refused("demo-pair")


def test_without_a_dataset_info_a_plain_name_is_told_what_would_be_needed(place: Path) -> None:
    told = refused("alpaca_en")
    assert "no dataset_info.json" in told and "data.dataset_dir" in told


def test_a_damaged_dataset_info_matters_only_to_those_who_need_it(place: Path) -> None:
    write(place)
    (place / "data" / "dataset_info.json").write_text("{")
    assert find_sets("data/rows.jsonl", None)[0].files[0].name == "rows.jsonl"
    assert "is not valid JSON" in refused("mine")
    (place / "data" / "dataset_info.json").write_text("[]")
    assert "holds no object" in refused("mine")


def test_a_folder_without_data_or_without_dataset_info_says_so(place: Path) -> None:
    (place / "empty").mkdir()
    assert "there is no data file in" in refused("empty")
    assert "there is no dataset_info.json in it" in refused("mine", "empty")


def test_a_name_of_the_hub_is_told_how_to_get_it(place: Path) -> None:
    told = refused("tatsu-lab/alpaca")
    assert "fetches no data by itself" in told
    assert "hf download --repo-type dataset tatsu-lab/alpaca" in told
