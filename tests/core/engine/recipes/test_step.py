"""A study that is a step of a recipe, with a real daemon and the fake worker."""

from pathlib import Path

import pytest

from core.engine.recipes.handover import create_recipe
from core.engine.recipes.step import full_training
from core.profile import save
from core.recipe import loads
from core.study.state import StudyState, Trial
from tests.core.engine.conftest import Served, make_profile

RATES = {"learning_rate": [1e-4, 1e-3]}
RECIPE = """
[profile]
name = "shop"
[model]
model_name_or_path = "demo"
[data]
dataset = "demo"
[[step]]
name = "general"
[[step]]
name = "task"
"""


@pytest.fixture
def step(tmp_path: Path, nursery):
    """Makes the study of a recipe's first step as the fake worker runs it; what is handed over stands in a file."""
    made = []

    def make(script, space, **tables) -> tuple[Served, Path]:
        recipe = create_recipe(loads(RECIPE), tmp_path / "shop")
        folder = recipe / "01-general"
        folder.mkdir()
        save(make_profile(script, space, **tables), folder / "profile.toml")
        handed = tmp_path / "handed"
        made.append(Served(folder, {"handed": str(handed)}, nursery))
        return made[-1], handed

    yield make
    for served in made:
        served.close()


def test_the_winner_of_a_steps_search_is_trained_fully_by_itself_and_then_handed_over(step):
    served, handed = step({"steps": 6}, RATES)
    served.start()
    state = served.wait_status("finished")
    assert [(t.kind, t.source, t.parent, t.status) for t in state.trials.values()] == [
        ("probe", "search", None, "completed"),
        ("probe", "search", None, "completed"),
        ("full", "promote", 2, "completed"),
    ]
    assert state.trials[3].settings == {"learning_rate": 1e-3}
    served.wait_gone()
    assert handed.read_text() == f"{served.folder}\n", "once"
    assert (served.folder / "tuned.toml").exists()


def test_a_step_without_a_search_is_one_training(step):
    served, handed = step({"steps": 6}, {})
    served.start()
    assert [t.kind for t in served.wait_status("finished").trials.values()] == ["full"]
    served.wait_gone()
    assert handed.exists()


def test_a_step_without_a_winner_is_handed_over_all_the_same_to_be_told_of(step):
    served, handed = step({"steps": 6, "fail": "no such column"}, {"learning_rate": [1e-4]})
    served.start()
    state = served.wait_status("finished")
    assert [t.status for t in state.trials.values()] == ["failed"]
    served.wait_gone()
    assert handed.exists()


def test_a_step_that_was_retried_after_its_end_is_handed_over_again(step, tmp_path: Path):
    served, handed = step({"steps": 6, "fail": "no such column"}, {})
    served.start()
    served.wait_status("finished")
    served.wait_gone()
    save(make_profile({"steps": 6}, {}), served.folder / "profile.toml")
    served.start()
    assert served.ask("retry", 1).ok
    served.wait_status("completed", 1)
    served.wait_gone()
    assert handed.read_text().count("01-general") == 2


def test_a_study_of_its_own_is_neither_trained_fully_nor_handed_over(study, tmp_path: Path):
    handed = tmp_path / "handed"
    served = study({"steps": 6}, RATES, options={"handed": str(handed)})
    served.start()
    assert [t.kind for t in served.wait_status("finished").trials.values()] == ["probe", "probe"]
    served.wait_gone()
    assert not handed.exists()


def test_a_winner_is_trained_fully_once_and_nothing_is_without_one():
    profile, state = make_profile({}, RATES), StudyState(created=1.0, status="running")
    assert full_training(state, profile, 1.0) == ()
    probe = Trial(number=1, settings={}, kind="probe", status="completed", value=1.0, loss=1.0)
    state.trials = {1: probe}
    (added,) = full_training(state, profile, 1.0)
    assert (added.kind, added.parent) == ("full", 1)
    state.trials[2] = Trial(number=2, settings={}, kind="full", status="failed")
    assert full_training(state, profile, 1.0) == ()
    assert full_training(state, make_profile({}, {}), 1.0) == ()
