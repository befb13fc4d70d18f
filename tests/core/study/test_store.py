import json
import os
from pathlib import Path

import pytest

from core.study.events import StudyCreated, TrialAdded, Warned, encode
from core.study.journal import seal
from core.study.store import (
    StudyError,
    StudyReader,
    all_studies,
    describe,
    find_study,
    new_folder,
    recent,
    recent_file,
    remember,
)

CREATED = seal(
    encode(StudyCreated(t=1.0, version=1, name="s", tunedeck="0", rank_by="loss", planned=1))
)
ADDED = seal(encode(TrialAdded(t=2.0, trial=1, settings={"lora_rank": 8})))
WARNED = seal(encode(Warned(t=3.0, text="look")))


@pytest.fixture(autouse=True)
def own_lists(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setenv("TUNEDECK_STUDIES", str(tmp_path / "studies"))


def make(path: Path, data: bytes = CREATED) -> Path:
    path.mkdir(parents=True)
    (path / "journal.jsonl").write_bytes(data)
    return path


def test_a_reader_follows_a_study(tmp_path: Path) -> None:
    folder = make(tmp_path / "s")
    reader = StudyReader(folder)
    assert (reader.state.name, len(reader.state.trials)) == ("s", 0)
    assert not reader.poll()
    with (folder / "journal.jsonl").open("ab") as journal:
        journal.write(ADDED)
    assert reader.poll()
    assert reader.state.trials[1].settings == {"lora_rank": 8}
    assert len(reader.news) == 1


def test_a_record_that_is_taken_back_is_taken_back_in_the_same_state(tmp_path: Path) -> None:
    folder = make(tmp_path / "s", CREATED + ADDED + WARNED)
    reader = StudyReader(folder)
    state = reader.state
    os.truncate(folder / "journal.jsonl", len(CREATED + ADDED))
    assert reader.poll()
    assert reader.state is state
    assert state.warnings == []
    assert list(state.trials) == [1]
    assert reader.news == []
    assert not reader.poll()


def test_a_folder_without_a_journal_is_no_study(tmp_path: Path) -> None:
    with pytest.raises(StudyError, match="holds no study"):
        StudyReader(tmp_path)


def test_a_damaged_study_says_which_line(tmp_path: Path) -> None:
    folder = make(tmp_path / "s", CREATED + ADDED.replace(b"8", b"9") + WARNED)
    with pytest.raises(StudyError, match="line 2 is damaged"):
        StudyReader(folder)


def test_a_study_of_a_newer_version_says_so(tmp_path: Path) -> None:
    folder = make(tmp_path / "s", seal(b'{"event":"trial-cloned","t":1.0}'))
    with pytest.raises(StudyError, match="newer version"):
        StudyReader(folder)


def test_a_new_folder_never_exists_yet(tmp_path: Path) -> None:
    first = new_folder("my study/№1", tmp_path)
    assert first.parent == tmp_path
    first.mkdir()
    second = new_folder("my study/№1", tmp_path)
    assert second.name == f"{first.name}-2"


def test_a_name_of_signs_alone_still_gives_a_folder(tmp_path: Path) -> None:
    assert new_folder("///", tmp_path).name == "study"


def test_a_study_is_found_by_path_by_name_and_among_the_recent_ones(tmp_path: Path) -> None:
    here, far = make(tmp_path / "studies" / "near"), make(tmp_path / "elsewhere" / "far")
    remember(far)
    assert find_study(str(here)) == here
    assert find_study("near") == here
    assert find_study("far") == far
    with pytest.raises(StudyError, match="studies here: "):
        find_study("nowhere")


def test_all_studies_are_the_near_and_the_recent_ones_once_and_newest_first(tmp_path: Path) -> None:
    old, new = make(tmp_path / "studies" / "old"), make(tmp_path / "elsewhere" / "new")
    os.utime(old / "journal.jsonl", (1, 1))
    remember(old)
    remember(new)
    remember(tmp_path / "gone")
    assert all_studies() == [new, old]


def test_the_last_remembered_study_comes_first_and_once(tmp_path: Path) -> None:
    for name in ("a", "b", "a"):
        remember(tmp_path / name)
    assert [p.name for p in recent()] == ["a", "b"]


@pytest.mark.parametrize("content", ["", "{", "3", '[1, {"a": 2}]'])
def test_a_list_of_recent_studies_that_is_damaged_counts_as_empty(content: str) -> None:
    recent_file().parent.mkdir(parents=True)
    recent_file().write_text(content)
    assert recent() == []


def test_a_home_that_cannot_be_written_is_no_reason_to_fail(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "file"))
    remember(tmp_path)
    assert recent() == []


def test_remembering_keeps_valid_json(tmp_path: Path) -> None:
    remember(tmp_path / "a")
    assert json.loads(recent_file().read_text()) == [str(tmp_path / "a")]


def test_settings_are_described_as_people_write_them() -> None:
    settings = {"learning_rate": 3e-4, "lora_rank": 16, "use_dora": True, "optim": "adamw_torch"}
    expected = "learning_rate 3e-4, lora_rank 16, use_dora true, optim adamw_torch"
    assert describe(settings) == expected  # type: ignore[arg-type]
