"""The Python interface: what a script or a notebook calls, over an engine that writes its journal at once."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from core import SearchError, Study, api
from core.engine import client
from core.engine.messages import Reply, Request
from core.profile import ProfileError
from core.study.events import (
    JOURNAL_VERSION,
    AnyEvent,
    StudyChanged,
    StudyCreated,
    TrialAdded,
    TrialEnded,
    TrialStarting,
    encode,
)
from core.study.journal import seal
from core.study.store import StudyError

ROOT = Path(__file__).resolve().parents[2]
PROFILE: dict[str, Any] = {
    "profile": {"name": "small"},
    "model": {"model_name_or_path": "demo"},
    "data": {"dataset": "demo"},
    "search": {"space": {"learning_rate": [1e-4, 1e-3]}},
}
CREATED = StudyCreated(
    t=1.0, version=JOURNAL_VERSION, name="small", tunedeck="0", rank_by="eval_loss", planned=2
)
ADDED = [
    TrialAdded(t=2.0, trial=1, settings={"learning_rate": 1e-4}),
    TrialAdded(t=2.0, trial=2, settings={"learning_rate": 1e-3}),
]


def ended(trial: int, ending: str, value: float | None = None, reason: str = "") -> list[AnyEvent]:
    return [
        TrialStarting(t=3.0, trial=trial, attempt=1, device="cpu"),
        TrialEnded(
            t=9.0, trial=trial, attempt=1, ending=ending, step=10, total_steps=10, loss=value,  # type: ignore[arg-type]
            eval_loss=value, value=value, reason=reason,
        ),
    ]  # fmt: skip


WON: list[AnyEvent] = [
    CREATED,
    *ADDED,
    *ended(1, "completed", 1.6),
    *ended(2, "diverged", reason="the loss became NaN at step 7"),
    StudyChanged(t=10.0, status="finished"),
]


class Engine:
    """Stands for the daemon: when it is started it writes what it is given, a part at each look."""

    def __init__(self) -> None:
        self.parts: list[list[AnyEvent]] = [WON]
        self.started: list[Path] = []
        self.asked: list[Request] = []
        self.interrupt = False

    def start(self, folder: Path, timeout: float = 15.0) -> None:
        self.started.append(folder)
        self.write(folder)

    def write(self, folder: Path) -> None:
        if self.parts:
            with (folder / "journal.jsonl").open("ab") as out:
                for event in self.parts.pop(0):
                    out.write(seal(encode(event)))

    def sleep(self, seconds: float) -> None:
        if self.interrupt:
            raise KeyboardInterrupt
        self.write(self.started[-1])

    def send(self, folder: Path, request: Request, **_: Any) -> Reply:
        self.asked.append(request)
        return Reply(True, "the study stops")


@pytest.fixture
def engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Engine:
    made = Engine()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.delenv("TUNEDECK_STUDIES", raising=False)
    monkeypatch.setattr(client, "start_daemon", made.start)
    monkeypatch.setattr(client, "daemon_alive", lambda folder: bool(made.started))
    monkeypatch.setattr(client, "send", made.send)
    monkeypatch.setattr(api.time, "sleep", made.sleep)
    return made


def test_the_best_settings_come_back_as_a_plain_dict(engine: Engine) -> None:
    study = Study.from_profile(PROFILE)
    best = study.run()
    assert type(best) is dict and best == {"learning_rate": 1e-4}
    assert study.folder.name == "small" and study.folder.parent.name == "studies"
    assert (study.folder / "profile.toml").is_file()


def test_a_profile_is_a_file_a_dict_or_either_with_changes(engine: Engine, tmp_path: Path) -> None:
    file = tmp_path / "own.toml"
    file.write_text('[model]\nmodel_name_or_path = "demo"\n[data]\ndataset = "demo"\n')
    changes = {"search.space.learning_rate": (1e-4, 1e-3), "train.max_steps": 40}
    study = Study.from_profile(file, folder=tmp_path / "one", changes=changes)
    study.run()
    text = (tmp_path / "one" / "profile.toml").read_text()
    assert "max_steps = 40" in text and "learning_rate = [1e-4, 1e-3]" in text
    engine.parts = [WON]
    Study.from_profile(PROFILE, folder=tmp_path / "two", changes={"search.trials": 5}).run()
    assert "trials = 5" in (tmp_path / "two" / "profile.toml").read_text()
    assert "trials" not in PROFILE["search"]


def test_paths_and_tuples_are_taken_as_python_has_them(engine: Engine, tmp_path: Path) -> None:
    rows = tmp_path / "rows.jsonl"
    rows.write_text('{"instruction": "a", "output": "b"}\n')
    profile = {**PROFILE, "data": {"dataset": rows}}
    Study.from_profile(profile, folder=tmp_path / "s").start()
    assert str(rows) in (tmp_path / "s" / "profile.toml").read_text()


def test_progress_is_told_when_something_has_happened(engine: Engine) -> None:
    engine.parts = [[CREATED, *ADDED], ended(1, "completed", 1.6), [], WON[-3:]]
    seen: list[api.Progress] = []
    Study.from_profile(PROFILE).run(progress=seen.append)
    assert [(p.done, p.status) for p in seen] == [(0, "running"), (1, "running"), (2, "finished")]
    assert (
        str(seen[1]) == "running: 1 of 2 trials ended, 0 running, best 1.6000: learning_rate 1e-4"
    )


def test_results_list_every_trial_best_first_with_reasons(engine: Engine) -> None:
    study = Study.from_profile(PROFILE)
    study.run()
    first, second = study.results()
    assert (first.trial, first.place, first.value) == (1, 1, 1.6)
    assert (second.trial, second.place, second.status) == (2, None, "diverged")
    assert second.reason == "the loss became NaN at step 7"
    assert study.best() == first.settings


def test_without_a_winner_the_reasons_are_raised_together(engine: Engine) -> None:
    why = "the loss became NaN"
    lost = [*ended(1, "diverged", reason=why), *ended(2, "diverged", reason=why)]
    engine.parts = [[CREATED, *ADDED, *lost, StudyChanged(t=10.0, status="finished")]]
    study = Study.from_profile(PROFILE)
    with pytest.raises(
        SearchError, match=r"no trial completed: 2 diverged at learning rates ≥ 0\.0001"
    ):
        study.run()
    assert [r.place for r in study.results()] == [None, None]


def test_a_study_that_pauses_says_how_to_go_on(engine: Engine) -> None:
    paused = StudyChanged(t=10.0, status="paused", reason="the disk is full")
    engine.parts = [[CREATED, *ADDED, *ended(1, "completed", 1.6), paused]]
    with pytest.raises(SearchError, match=r"paused \(the disk is full\).*tunedeck resume"):
        Study.from_profile(PROFILE).run()


def test_an_interrupt_leaves_the_engine_running_and_says_how_to_wait_again(engine: Engine) -> None:
    engine.parts, engine.interrupt = [[CREATED, *ADDED]], True
    study = Study.from_profile(PROFILE)
    with pytest.raises(KeyboardInterrupt) as caught:
        study.run()
    assert engine.asked == [] and "Study.open(" in caught.value.__notes__[0]
    engine.parts, engine.interrupt = [WON[3:]], False
    assert Study.open(study.folder).run() == {"learning_rate": 1e-4}


@pytest.mark.parametrize(
    ("status", "asked"), [("paused", [Request("stop")]), ("finished", []), ("stopped", [])]
)
def test_what_could_go_on_is_stopped_though_no_engine_runs(
    engine: Engine, status: Any, asked: list[Request], monkeypatch: pytest.MonkeyPatch
) -> None:
    engine.parts = [[CREATED, *ADDED, StudyChanged(t=3.0, status=status)]]
    study = Study.from_profile(PROFILE)
    study.stop()
    assert engine.asked == [], "there is nothing yet"
    study.start()
    monkeypatch.setattr(client, "daemon_alive", lambda folder: False)
    study.stop()
    assert engine.asked == asked


def test_an_interrupt_stops_the_study_where_that_is_wanted(engine: Engine) -> None:
    engine.parts, engine.interrupt = [[CREATED, *ADDED]], True
    with pytest.raises(KeyboardInterrupt) as caught:
        Study.from_profile(PROFILE).run(stop_on_interrupt=True)
    assert engine.asked == [Request("stop")] and "was stopped" in caught.value.__notes__[0]


def test_a_wrong_profile_lists_all_that_is_wrong(engine: Engine) -> None:
    wrong = {**PROFILE, "train": {"learning_rat": 1e-4, "max_steps": -1}}
    with pytest.raises(ProfileError) as caught:
        Study.from_profile(wrong)
    assert "learning_rat" in str(caught.value) and "max_steps" in str(caught.value)
    with pytest.raises(ProfileError, match=r"missing\.jsonl: there is no such file"):
        Study.from_profile({**PROFILE, "data": {"dataset": "missing.jsonl"}})
    with pytest.raises(ProfileError):
        Study.from_profile("no-such-profile.toml")
    assert engine.started == []


def test_a_study_that_has_not_been_started_has_no_results(engine: Engine, tmp_path: Path) -> None:
    study = Study.from_profile(PROFILE)
    with pytest.raises(StudyError, match="has not been started"):
        study.results()
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "x").write_text("")
    with pytest.raises(StudyError, match="not empty"):
        Study.from_profile(PROFILE, folder=tmp_path / "full").run()
    with pytest.raises(StudyError, match="is no study"):
        Study.open(tmp_path / "nowhere")


def test_the_winner_is_saved_as_a_profile_that_trains(engine: Engine, tmp_path: Path) -> None:
    study = Study.from_profile(PROFILE)
    study.run()
    study.save_best(tmp_path / "best.toml")
    text = (tmp_path / "best.toml").read_text()
    assert "learning_rate = 0.0001" in text and "[tuned]" in text


Ran = Callable[[str, Path, dict[str, str]], "subprocess.CompletedProcess[str]"]


def python(code: str, folder: Path, environment: dict[str, str]) -> str:
    """What a script in another folder prints."""
    ran = subprocess.run(
        [sys.executable, "-c", code], cwd=folder, env=environment, capture_output=True, text=True, timeout=240
    )  # fmt: skip
    assert ran.returncode == 0, ran.stderr
    return ran.stdout.strip()


def test_importing_core_is_cheap_and_study_brings_neither_textual_nor_torch() -> None:
    code = (
        "import sys, core; few = 'core.api' not in sys.modules; from core import Study\n"
        "Study.from_profile; heavy = {'textual', 'torch', 'numpy', 'optuna', 'tui'} & set(sys.modules)\n"
        "print(few, sorted(heavy))"
    )
    assert python(code, ROOT, dict(os.environ)) == "True []"


def test_a_project_with_a_core_of_its_own_binds_ours_by_name(tmp_path: Path) -> None:
    (tmp_path / "core").mkdir()
    (tmp_path / "core" / "__init__.py").write_text("own = True\n")
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    shadowed = "import core; print(hasattr(core, 'own'))"
    assert python(shadowed, tmp_path, environment) == "True"
    bound = (
        "import tunedeck; tunedeck.bind_packages(); from core import Study; print(Study.__module__)"
    )
    assert python(bound, tmp_path, environment) == "core.api"


def test_an_unknown_name_of_the_package_is_an_attribute_error() -> None:
    import core

    with pytest.raises(AttributeError, match="has no attribute 'Studie'"):
        _ = core.Studie
