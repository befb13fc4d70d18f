"""Which weights a person means."""

from pathlib import Path
from typing import Any

import pytest

from core.engine.client import EngineError
from core.engine.runs import find_run
from core.study.events import AnyEvent, StudyCreated, TrialAdded, TrialEnded, encode
from core.study.journal import seal
from core.study.store import StudyError


@pytest.fixture(autouse=True)
def own_lists(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setenv("TUNEDECK_STUDIES", str(tmp_path / "studies"))


def _study(tmp_path: Path, *events: AnyEvent) -> Path:
    folder = tmp_path / "studies" / "mine"
    folder.mkdir(parents=True)
    created = StudyCreated(
        t=1.0, version=1, name="mine", tunedeck="0", rank_by="eval_loss", planned=1
    )
    journal = b"".join(seal(encode(event)) for event in (created, *events))
    (folder / "journal.jsonl").write_bytes(journal)
    return folder


def _weights(folder: Path, number: int) -> Path:
    trial = folder / "trials" / f"{number:04d}"
    (trial / "output").mkdir(parents=True)
    (trial / "trial.toml").touch()
    (trial / "output" / "adapter_config.json").write_text("{}")
    return trial


def _added(number: int, kind: Any = "full") -> TrialAdded:
    return TrialAdded(t=2.0, trial=number, settings={}, kind=kind)


def _ended(number: int, value: float | None = None, ending: Any = "completed") -> TrialEnded:
    return TrialEnded(t=3.0, trial=number, attempt=1, ending=ending, value=value)


def test_a_study_means_its_full_training(tmp_path: Path) -> None:
    folder = _study(tmp_path, _added(1, "probe"), _ended(1, 1.0), _added(2), _ended(2, 2.0))
    trial = _weights(folder, 2)
    found = find_run("mine")
    assert found.weights.folder == str(trial / "output")
    assert found.weights.trial == str(trial)
    assert found.text == "trial 2 of mine, its full training (eval_loss 2)"


def test_of_several_full_trainings_the_best_is_meant_and_named(tmp_path: Path) -> None:
    folder = _study(
        tmp_path, _added(1), _ended(1, 2.0), _added(2), _ended(2, 1.5), _added(3), _ended(3, 1.7)
    )
    for number in (1, 2, 3):
        _weights(folder, number)
    assert find_run("mine").text == "trial 2 of mine, the best of 3 full trainings (eval_loss 1.5)"


def test_where_none_has_a_value_the_last_is_meant(tmp_path: Path) -> None:
    folder = _study(tmp_path, _added(1), _ended(1), _added(2), _ended(2))
    _weights(folder, 1)
    _weights(folder, 2)
    assert find_run("mine").text == "trial 2 of mine, the last of 2 full trainings"


def test_a_trial_may_be_named_by_number_or_folder(tmp_path: Path) -> None:
    folder = _study(tmp_path, _added(1), _ended(1, 2.0), _added(2), _ended(2, 1.5))
    first = _weights(folder, 1)
    _weights(folder, 2)
    assert find_run("mine", 1).weights.trial == str(first)
    assert find_run(str(first)).weights.trial == str(first)
    assert find_run(str(first / "output")).weights.trial == str(first)


def test_a_checkpoint_and_a_folder_of_weights_may_be_named(tmp_path: Path) -> None:
    folder = _study(tmp_path, _added(1), _ended(1))
    trial = _weights(folder, 1)
    checkpoint = trial / "checkpoints" / "checkpoint-20"
    checkpoint.mkdir(parents=True)
    (checkpoint / "adapter_config.json").write_text("{}")
    with pytest.raises(EngineError, match="not whole"):
        find_run(str(checkpoint))
    (checkpoint / "trainer_state.json").write_text("{}")
    found = find_run(str(checkpoint))
    assert (found.weights.folder, found.weights.trial) == (str(checkpoint), str(trial))
    plain = tmp_path / "plain"
    plain.mkdir()
    (plain / "config.json").write_text("{}")
    assert find_run(str(plain)).weights.trial is None


def test_a_recipe_means_the_step_that_was_begun_last(tmp_path: Path) -> None:
    folder = _study(tmp_path, _added(1), _ended(1))
    trial = _weights(folder, 1)
    recipe = tmp_path / "recipe"
    recipe.mkdir()
    (recipe / "recipe.jsonl").touch()
    folder.rename(recipe / "01-general")
    assert find_run(str(recipe)).weights.trial == str(recipe / "01-general" / "trials" / trial.name)


@pytest.mark.parametrize(
    ("events", "number", "message"),
    [
        ((_added(1, "probe"), _ended(1, 1.0)), None, "tunedeck promote mine"),
        ((_added(1, "probe"), _ended(1, 1.0)), 1, "tunedeck promote mine 1"),
        ((_added(1),), None, "is queued"),
        ((_added(1), _ended(1, ending="failed")), None, "trial 1 is failed"),
        ((_added(1), _ended(1, ending="oom")), 1, "trial 1 is oom"),
        ((_added(1, "range"), _ended(1)), 1, "range test"),
        ((_added(1),), 7, "no trial 7"),
    ],
)
def test_where_there_are_no_weights_it_is_said_what_would_make_some(
    events: tuple[AnyEvent, ...], number: int | None, message: str, tmp_path: Path
) -> None:
    _study(tmp_path, *events)
    with pytest.raises(EngineError, match=message):
        find_run("mine", number)


def test_what_is_nothing_is_said_to_be_nothing(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(EngineError, match="no study, no trial and no weights"):
        find_run(str(tmp_path / "empty"))
    with pytest.raises(StudyError, match="is no study"):
        find_run("nothing")
