"""The recipes that tunedeck ships: figures of the field, and steps that each train on the demo's model and data."""

from pathlib import Path

import bitsandbytes  # noqa: F401  (before any trial: those that need it not hide it, and `datasets`, from the others)
import datasets  # noqa: F401
import pytest

from core.profile import ready_made, ready_made_recipes, save
from core.recipe import Recipe, Step, load, missing_in
from core.study.files import OUTPUT, TRIAL_FILE, TrialTask
from core.train.signals import Requests
from core.train.startup import Stopwatch
from core.train.worker import train

RECIPES = {path.stem: load(path) for path in ready_made_recipes()}
SMALL = {
    "model.model_name_or_path": "demo",
    "data.cutoff_len": 64,
    "data.max_samples": 16,
    "data.val_size": 4,
    "train.max_steps": 1,
    "train.gradient_accumulation_steps": 1,
    "generation.max_new_tokens": 4,
}


def test_recipes_are_no_profiles_of_one_run():
    assert set(RECIPES) == {"recipe-align", "recipe-domain"}
    assert not {path.stem for path in ready_made()} & set(RECIPES)


@pytest.mark.parametrize("recipe", RECIPES.values(), ids=RECIPES)
def test_all_that_a_shipped_recipe_names_is_there(recipe: Recipe):
    assert missing_in(recipe) == []


def test_the_three_steps_to_a_domain_model_go_by_the_fields_figures():
    general, domain, task = RECIPES["recipe-domain"].steps
    rates = [s.profile.train.learning_rate for s in (general, domain, task)]
    assert rates == [3e-5, 1e-5, 5e-6]
    assert 1 <= general.profile.train.num_train_epochs <= 2
    assert domain.profile.train.num_train_epochs == 1
    assert 0.5 <= task.profile.train.num_train_epochs <= 1
    assert {s.profile.method.finetuning_type for s in (general, domain, task)} == {"full"}
    assert min(task.profile.search.space["learning_rate"]) < 5e-6 < max(task.profile.search.space["learning_rate"])  # fmt: skip


def test_alignment_goes_from_text_over_answers_and_scores_to_a_policy():
    steps = RECIPES["recipe-align"].steps
    assert [(s.profile.method.stage, s.source) for s in steps] == [
        ("pt", None),
        ("sft", "text"),
        ("rm", "chat"),
        ("ppo", "chat"),
    ]
    assert steps[3].reward == "reward"


def run_here(step: Step, folder: Path, reward: Path | None) -> Path:
    profile = step.starting_from(None, reward).with_changes(SMALL).as_training()
    save(profile, folder / TRIAL_FILE)
    task = TrialTask(1, 1, "full", 1.0, "cpu", threads=1, save_model=step.makes_reward_model)
    report = train(folder, task, Requests(), Stopwatch())
    assert report.outcome == "completed", report.error
    return folder / OUTPUT


@pytest.mark.parametrize("name", RECIPES)
def test_every_step_of_a_shipped_recipe_trains(name: str, tmp_path: Path):
    made: dict[str, Path] = {}
    for step in RECIPES[name].steps:
        folder = tmp_path / step.folder
        folder.mkdir()
        made[step.name] = run_here(step, folder, made[step.reward] if step.reward else None)
