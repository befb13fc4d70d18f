"""Which model belongs to a trial, and what can be done with it."""

from typing import Any

from core.study.state import Trial
from tui.model_use import model_of, use_command, without_model


def _trial(
    number: int, kind: Any = "probe", status: Any = "completed", parent: int | None = None
) -> Trial:
    return Trial(number=number, settings={}, kind=kind, status=status, parent=parent)


def test_the_model_of_a_probe_is_that_of_its_full_training() -> None:
    trials = [_trial(1), _trial(2, "full", parent=1), _trial(3, "full", parent=1), _trial(4)]
    found = model_of(trials, 1)
    assert found is not None and found.number == 3
    own = model_of(trials, 2)
    assert own is not None and own.number == 2
    assert model_of(trials, 4) is None


def test_a_training_that_is_not_over_has_no_model_yet() -> None:
    trials = [_trial(1), _trial(2, "full", "running", parent=1)]
    assert model_of(trials, 1) is None
    assert "running" in without_model(trials[1])
    assert "P trains" in without_model(trials[0])


def test_commands_name_study_and_trial() -> None:
    assert use_command("chat", "studies/mine", 3) == "tunedeck chat studies/mine --trial 3"
    assert use_command("export", "s", 3) == "tunedeck export s --trial 3 -o model-3"
