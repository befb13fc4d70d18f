"""Recipes: how steps are made of shared tables and their own, and what is refused before anything runs."""

import re
import tomllib
from pathlib import Path

import pytest

from core.profile import ProfileError, from_document
from core.recipe import Recipe, dumps, is_recipe, load, loads, missing_in, steps_told

SHARED = """\
[profile]
name = "shop"
notes = "what is shared"
[model]
model_name_or_path = "demo"
template = "chatml"
[data]
dataset = "demo"
cutoff_len = 128
[train]
learning_rate = 3e-5
num_train_epochs = 2
"""
THREE = f"""{SHARED}
[[step]]
name = "general"

[[step]]
name = "domain"
notes = "closer"
[step.data]
cutoff_len = 256
[step.train]
learning_rate = 1e-5

[[step]]
name = "task"
train.num_train_epochs = 0.5
[step.search]
trials = 4
[step.search.space]
learning_rate = [1e-6, 5e-6]
"""
ALIGNED = f"""{SHARED}
[[step]]
name = "text"
[step.method]
stage = "pt"
[[step]]
name = "chat"
[[step]]
name = "judge"
[step.method]
stage = "rm"
[[step]]
name = "align"
[step.method]
stage = "ppo"
[step.alignment]
reward_model = "step:judge"
"""


def step(recipe: Recipe, name: str):
    return recipe.step(name)


def problems(text: str, **changes) -> list[str]:
    with pytest.raises(ProfileError) as raised:
        loads(text, changes=changes or None)
    return [str(p) for p in raised.value.problems]


def test_a_step_is_the_shared_tables_with_its_own_laid_over_them_key_by_key():
    general, domain, task = loads(THREE).steps
    assert (general.profile.data.cutoff_len, general.profile.train.learning_rate) == (128, 3e-5)
    assert (domain.profile.data.cutoff_len, domain.profile.train.learning_rate) == (256, 1e-5)
    assert domain.profile.data.dataset == "demo" and domain.profile.train.num_train_epochs == 2
    assert (task.profile.train.num_train_epochs, task.profile.train.learning_rate) == (0.5, 3e-5)
    assert (domain.notes, domain.number, domain.folder) == ("closer", 2, "02-domain")


def test_a_step_names_its_study_after_the_recipe_and_itself():
    assert [s.profile.profile.name for s in loads(THREE).steps] == [
        "shop-general",
        "shop-domain",
        "shop-task",
    ]


def test_a_shared_search_space_is_replaced_as_a_whole():
    shared = SHARED + "[search.space]\nlearning_rate = [1e-5, 2e-5]\nseed = [1, 2]\n"
    text = (
        shared
        + '[[step]]\nname = "a"\n[[step]]\nname = "b"\n[step.search.space]\nwarmup_ratio = [0.0, 0.1]\n'
    )
    text += '[[step]]\nname = "c"\n[step.search]\nspace = {}\n'
    a, b, c = loads(text).steps
    assert list(a.profile.search.space) == ["learning_rate", "seed"]
    assert list(b.profile.search.space) == ["warmup_ratio"]
    assert [s.searches for s in (a, b, c)] == [True, True, False]


def test_a_step_starts_from_the_last_one_that_made_a_model_unless_it_says_otherwise():
    recipe = loads(ALIGNED)
    assert [s.source for s in recipe.steps] == [None, "text", "chat", "chat"]
    assert [s.reward for s in recipe.steps] == [None, None, None, "judge"]
    assert [s.makes_reward_model for s in recipe.steps] == [False, False, True, False]
    again = loads(THREE.replace('name = "task"', 'name = "task"\nfrom = "general"'))
    assert step(again, "task").source == "general"
    apart = loads(THREE.replace('name = "task"', 'name = "task"\nfrom = "base"'))
    assert step(apart, "task").source is None


def test_what_a_step_runs_with_names_what_the_steps_before_it_made(tmp_path: Path):
    recipe = loads(ALIGNED.replace('"demo"\ntemplate', '"demo"\nmodel_revision = "v1"\ntemplate'))
    align = step(recipe, "align")
    assert align.profile.alignment.reward_model == "step:judge"
    started = align.starting_from(tmp_path / "model", tmp_path / "output")
    assert started.model.model_name_or_path == str(tmp_path / "model")
    assert started.model.model_revision is None and started.model.template == "chatml"
    assert started.alignment.reward_model == str(tmp_path / "output")
    assert step(recipe, "text").starting_from(None, None).model.model_revision == "v1"


def test_without_its_searches_every_step_is_one_training():
    assert not any(s.searches for s in loads(THREE).as_training().steps)


@pytest.mark.parametrize("text", [THREE, ALIGNED], ids=["three", "aligned"])
def test_a_recipe_that_was_written_says_the_same_again(text):
    recipe = loads(text)
    written = dumps(recipe, comment="two\nlines")
    assert written.startswith("# two\n# lines\n")
    assert loads(written) == recipe
    tomllib.loads(written)


def test_models_between_the_steps_stay_unless_the_recipe_says_otherwise():
    assert loads(THREE).keep_models
    assert not loads(THREE + "[recipe]\nkeep_models = false\n").keep_models


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ('name = "domain"', 'name = "general"', "line 17: step.general: there are two steps named general (give one another name)"),
        ('name = "domain"', 'name = "GENERAL"', "step.GENERAL: there are two steps named GENERAL"),
        ('name = "domain"', 'name = "a b"', "line 17: step 2: 'a b' is no name of a step"),
        ('name = "domain"', 'name = "base"', 'step 2: cannot be named "base"'),
        ('name = "domain"', "", "line 17: step 2: has no name"),
        ('name = "domain"', 'name = "domain"\nfrom = "genral"', "line 19: step.domain.from: genral is no step before this one (did you mean general?)"),
        ('name = "domain"', 'name = "domain"\nfrom = "task"', "step.domain.from: task is a step after this one (start from one before it: base, general)"),
        ('name = "domain"', 'name = "domain"\nfrom = "domain"', "step.domain.from: domain is the step itself (start from one before it"),
        ('name = "domain"', 'name = "domain"\nfrom = 3', "step.domain.from: 3 is not allowed (a text)"),
        ('name = "domain"', 'name = "domain"\nform = "general"', "step.domain.form: is not known (did you mean from?)"),
        ('name = "domain"', 'name = "domain"\nlearning_rate = 1', "line 19: step.domain.learning_rate: is not known (write it below [step.train])"),
        ("[step.data]\ncutoff_len = 256", "[step.data]\ncutof_len = 256", "line 21: step.domain.data.cutof_len: is not known (did you mean data.cutoff_len?)"),
        ("[step.data]\ncutoff_len = 256", "[step.dat]\ncutoff_len = 256", "step.domain.dat: is not known (did you mean data?)"),
        ("[step.data]\ncutoff_len = 256", "[step.profile]\nname = 'x'", "step.domain.profile: belongs to the whole recipe, not to one step"),
        ("[step.data]\ncutoff_len = 256", '[step.model]\nmodel_name_or_path = "other"', "line 21: step.domain.model.model_name_or_path: is given, and yet the step starts from the one before it"),
        ("train.num_train_epochs = 0.5", 'train.optim = "nothing"', "line 27: step.task.train.optim: "),
        ("[step.search.space]\nlearning_rate", "[step.search.space]\nlerning_rate", "line 31: step.task.search.space.lerning_rate: is not known (did you mean train.learning_rate?)"),
        ("learning_rate = [1e-6, 5e-6]", 'model_name_or_path = ["demo", "demo2"]', "search.space.model_name_or_path: cannot be searched by a step that starts from another one"),
        ("cutoff_len = 128", "cutoff_len = 1", "line 9: data.cutoff_len: 1 is not allowed"),
        ("[train]", "[recipe]\nkeep_model = true\n[train]", "recipe.keep_model: is not known (did you mean keep_models?)"),
        ("[train]", "[recipe]\nkeep_models = 1\n[train]", "recipe.keep_models: 1 is not allowed (true or false)"),
        ("[train]", "[tuned]\ntrial = 1\n[train]", "tuned: does not belong into a recipe"),
        ("[train]", "[training]", "line 10: training: is not a table of a profile (did you mean train?)"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_told_with_the_step_the_line_and_the_nearest_name(old, new, told):
    assert old in THREE
    found = problems(THREE.replace(old, new, 1))
    assert any(told in one for one in found), found


def test_a_mistake_among_the_shared_values_is_told_once():
    (found,) = problems(THREE.replace('template = "chatml"', 'template = "chatlm"'))
    assert found.startswith("line 6: model.template: ")
    # The second step has a value of its own for it.
    found = problems(THREE.replace("cutoff_len = 128", "cutoff_len = 1"))
    assert len(found) == 1 and found[0].startswith("line 9: data.cutoff_len: 1 ")


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ("step:judge", "step:chat", "line 29: step.align.alignment.reward_model: chat is of stage sft and makes no reward model (reward models come from judge)"),
        ("step:judge", "step:nobody", "step.align.alignment.reward_model: nobody is no step before this one"),
        ('name = "align"', 'name = "align"\nfrom = "judge"', "step.align.from: judge makes a reward model, which scores answers and writes none"),
        ('reward_model = "step:judge"', 'reward_model = "step:judge"\nref_model = "step:chat"', "step.align.alignment.ref_model: cannot name a step"),
    ],
)  # fmt: skip
def test_steps_that_do_not_fit_together_are_refused(old, new, told):
    assert any(told in one for one in problems(ALIGNED.replace(old, new, 1)))


@pytest.mark.parametrize(
    "text",
    ["", "[recipe]\n", "step = 3\n", 'step = ["a"]\n', "[step]\nname = 'a'\n", "step = []\n"],
)
def test_a_recipe_without_proper_steps_says_how_one_is_written(text):
    (told,) = problems(text)
    assert "one table [[step]] for each step" in told


def test_changes_are_made_to_a_step_or_to_what_is_shared():
    changes = {"step.domain.train.learning_rate": 2e-5, "data.val_size": 0.2, "step.task.search.space.learning_rate": [1e-7]}  # fmt: skip
    general, domain, task = loads(THREE, changes=changes).steps
    assert [s.profile.data.val_size for s in (general, domain, task)] == [0.2] * 3
    assert (general.profile.train.learning_rate, domain.profile.train.learning_rate) == (3e-5, 2e-5)
    assert task.profile.search.space["learning_rate"] == [1e-7]


def test_a_step_may_be_changed_together_with_what_the_others_share():
    changes = {"step.general.data.val_size": 0.3, "data.val_size": 0.2}
    assert [s.profile.data.val_size for s in loads(THREE, changes=changes).steps] == [0.3, 0.2, 0.2]


def test_a_change_of_a_shared_value_that_a_step_sets_for_itself_is_refused():
    (told,) = problems(THREE, **{"train.learning_rate": 1e-4})
    assert "step domain has a value of its own (change step.domain.train.learning_rate)" in told
    (told,) = problems(THREE, **{"step.nobody.train.learning_rate": 1e-4})
    assert "there is no step nobody (there are general, domain, task)" in told


def test_a_recipe_is_known_from_the_profile_of_one_run(tmp_path: Path):
    recipe, profile = tmp_path / "r.toml", tmp_path / "p.toml"
    recipe.write_text(THREE)
    profile.write_text(SHARED)
    assert is_recipe(recipe) and not is_recipe(profile)
    assert not is_recipe(tmp_path) and not is_recipe(tmp_path / "nothing")
    assert "3 steps (general, domain, task)" in steps_told(recipe)


def test_where_the_profile_of_one_run_is_wanted_a_recipe_is_told_as_one():
    with pytest.raises(ProfileError, match="recipe of several steps"):
        from_document(tomllib.loads(THREE))


def test_paths_are_looked_up_from_the_recipes_folder(tmp_path: Path):
    (tmp_path / "rows.jsonl").write_text("{}")
    (tmp_path / "r.toml").write_text(THREE.replace('dataset = "demo"', 'dataset = "rows.jsonl"'))
    for each in load(tmp_path / "r.toml").steps:
        assert each.profile.data.dataset == str(tmp_path / "rows.jsonl")


def test_what_is_missing_is_told_once(tmp_path: Path):
    (tmp_path / "r.toml").write_text(THREE.replace('dataset = "demo"', 'dataset = "no.jsonl"'))
    (told,) = missing_in(load(tmp_path / "r.toml"))
    assert str(told).startswith("step.general.data.dataset: no.jsonl")
    fitting = {"step.text.data.dataset": "demo-text", "step.judge.data.dataset": "demo-pairs"}
    assert missing_in(loads(ALIGNED, changes=fitting)) == []


def test_data_of_another_stage_is_told_with_its_step():
    text, judge = missing_in(loads(ALIGNED))
    assert str(text).startswith("step.text.data.dataset: ") and "row 1: stage pt reads" in str(text)
    assert str(judge).startswith("step.judge.data.dataset: ")
    assert "row 1: chosen and rejected are missing" in str(judge)


def test_a_file_that_cannot_be_read_is_told_as_for_a_profile(tmp_path: Path):
    with pytest.raises(ProfileError, match="does not exist"):
        load(tmp_path / "nothing.toml")
    with pytest.raises(ProfileError, match=re.escape("is not valid TOML")):
        loads("[[step]\n")


@pytest.mark.parametrize(
    ("profile", "wrong"),
    [
        ('name = "' + "x" * 81 + '"', "profile.name"),
        ("name = 5", "profile.name: 5 is not allowed"),
        ('name = ""', "profile.name"),
        ('name = "a/b"', "profile.name"),
    ],
)
def test_a_name_that_is_none_is_told_as_that_of_a_profile_is(profile, wrong):
    found = problems(THREE.replace('name = "shop"', profile))
    assert len(found) == 1 and wrong in found[0] and "line 2" in found[0]


def test_a_profile_that_is_no_table_is_told():
    text = "profile = 3\n" + THREE.replace(
        '[profile]\nname = "shop"\nnotes = "what is shared"\n', ""
    )
    assert [p for p in problems(text) if "profile: must be a table" in p]


def test_a_long_name_leaves_room_for_that_of_the_step():
    recipe = loads(THREE.replace('"shop"', f'"{"x" * 80}"'))
    names = [s.profile.profile.name for s in recipe.steps]
    assert all(len(n) == 80 for n in names) and names[1].endswith("x-domain")


def test_an_adapter_of_one_step_is_not_that_of_others_when_it_is_written_and_read_again():
    text = THREE.replace(
        'name = "general"\n', 'name = "general"\n[step.model]\nadapter_name_or_path = "a"\n'
    )
    recipe = loads(text.replace('name = "task"', 'name = "task"\nfrom = "base"'))
    assert [s.profile.model.adapter_name_or_path for s in loads(dumps(recipe)).steps] == [
        "a",
        None,
        None,
    ]
