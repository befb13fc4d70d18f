"""Which study tells how long a training takes."""

from pathlib import Path

from core.profile import Profile, from_document, save
from core.study.events import (
    JOURNAL_VERSION,
    StudyCreated,
    TrialAdded,
    TrialEnded,
    TrialStarting,
    encode,
)
from core.study.files import write_record
from core.study.journal import seal
from core.study.store import StudyFolder
from tests.tui.fake import run_info
from tui.past_times import past_time


def profile(**tables: dict[str, object]) -> Profile:
    document: dict[str, dict[str, object]] = {
        "model": {"model_name_or_path": "demo"},
        "data": {"dataset": "demo"},
    }
    for name, table in tables.items():
        document.setdefault(name, {}).update(table)
    return from_document(document)


def study(
    folder: Path, made_of: Profile, *, seconds: float = 60.0, gpus: tuple[str, ...] = ()
) -> Path:
    """A study of which one trial ran 120 of the full training's 1200 steps."""
    folder.mkdir()
    save(made_of, folder / "profile.toml")
    events = (
        StudyCreated(
            t=1.0,
            version=JOURNAL_VERSION,
            name=folder.name,
            tunedeck="0",
            rank_by="loss",
            planned=1,
        ),
        TrialAdded(t=2.0, trial=1, settings={}),
        TrialStarting(t=3.0, trial=1, attempt=1, device="cuda" if gpus else "cpu", gpus=gpus),
        TrialEnded(t=9.0, trial=1, attempt=1, ending="completed", step=120, seconds=seconds),
    )
    (folder / "journal.jsonl").write_bytes(b"".join(seal(encode(e)) for e in events))
    trial = StudyFolder(folder).trial(1)
    trial.path.mkdir(parents=True)
    write_record(trial.run, run_info())
    return folder


def test_the_newest_study_of_the_same_training_tells(tmp_path: Path) -> None:
    new = study(tmp_path / "new", profile())
    old = study(tmp_path / "old", profile(), seconds=999.0)
    found = past_time(profile(), [new, old])
    assert found is not None
    assert (found.full, found.study, found.on_gpu) == (600.0, "new", False)


def test_what_either_searches_may_differ(tmp_path: Path) -> None:
    other = profile(search={"space": {"lora_rank": [4, 8]}}, method={"lora_rank": 4})
    assert past_time(profile(), [study(tmp_path / "s", other)]) is not None


def test_the_rate_and_the_search_do_not_matter_but_model_and_length_do(tmp_path: Path) -> None:
    known = [study(tmp_path / "s", profile())]
    assert past_time(profile(train={"learning_rate": 3e-3}, search={"trials": 40}), known)
    assert past_time(profile(train={"max_steps": 7}), known) is None
    assert past_time(profile(data={"cutoff_len": 64}), known) is None
    assert past_time(profile(model={"template": "chatml"}), known) is None


def test_time_on_several_gpus_counts_for_each(tmp_path: Path) -> None:
    found = past_time(profile(), [study(tmp_path / "s", profile(), gpus=("a", "b"))])
    assert found is not None and found.full == 1200.0 and found.on_gpu


def test_a_study_in_which_nothing_has_run_or_that_is_broken_tells_nothing(tmp_path: Path) -> None:
    idle = study(tmp_path / "idle", profile(), seconds=0.0)
    broken = study(tmp_path / "broken", profile())
    (broken / "journal.jsonl").write_text("no journal")
    (tmp_path / "empty").mkdir()
    assert past_time(profile(), [idle, broken, tmp_path / "empty"]) is None
