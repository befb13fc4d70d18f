"""The command line with a recipe: what it says before, while and after its steps run."""

import json
from pathlib import Path

import pytest

from core.engine.client import EngineError
from core.engine.recipes.handover import Hands, carry, create_recipe, hold
from core.profile import ProfileError
from core.recipe import loads
from core.study.recipes import RecipeReader
from tests.core.recipe_fake import ALIGNED, SHARED, THREE, Fake, runs
from tui import follow_recipe as following
from tui.cli import main
from tui.commands import recipe as commands
from tui.draft import open_file

SEARCHED = THREE.replace(
    '[[step]]\nname = "task"',
    '[[step]]\nname = "task"\n[step.search.space]\nlearning_rate = [1e-5, 3e-5]',
)


@pytest.fixture(autouse=True)
def own_places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setenv("TUNEDECK_STUDIES", str(tmp_path / "studies"))
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def recipe(tmp_path: Path):
    return lambda text=THREE: create_recipe(loads(text), tmp_path / "studies" / "shop")


def carried(folder: Path, fake: Fake) -> Path:
    carry(folder, fake.hands, lambda word: None)
    return folder


def printed(capsys, *arguments: str) -> str:
    assert main(arguments) == 0
    return capsys.readouterr().out


def told(capsys, *arguments: str):
    return json.loads(printed(capsys, *arguments, "--json"))


def test_check_lists_what_will_run(tmp_path: Path, capsys):
    (tmp_path / "r.toml").write_text(SEARCHED)
    out = printed(capsys, "check", "r.toml")
    assert "r.toml: fine. A recipe of 3 steps" in out
    assert "learning_rate: 2 trials" in out and "3 MiB for each of 3 steps" in out
    content = told(capsys, "check", "r.toml")
    assert [s["from"] for s in content["steps"]] == ["base", "general", "domain"]
    assert [s["trials"] for s in content["steps"]] == [1, 1, 2]
    assert content["steps"][0]["rows"] == 880 and content["disk"]["kept"] == 3


def test_check_says_all_that_is_wrong(tmp_path: Path, capsys):
    (tmp_path / "r.toml").write_text(THREE.replace('name = "task"', 'name = "task"\nform = "x"'))
    assert main(["check", "r.toml"]) == 1
    assert "step.task.form: is not known (did you mean from?)" in capsys.readouterr().err
    assert main(["check", "r.toml", "--json"]) == 1
    (problem,) = json.loads(capsys.readouterr().out)["problems"]
    assert (problem["key"], problem["line"]) == ("step.task.form", 16)


def test_what_the_models_take_is_said_with_what_stays(tmp_path: Path):
    assert "all stay" in commands.disk_text(loads(ALIGNED))
    assert "2 steps" in commands.disk_text(loads(ALIGNED)), "a reward model is no model in between"
    text = THREE + "[recipe]\nkeep_models = false\n"
    assert "those in between are removed" in commands.disk_text(loads(text))
    unknown = (
        SHARED.replace('"demo"\n[data]', '"someone/nameless"\n[data]') + '[[step]]\nname = "a"\n'
    )
    assert "as much as the model itself" in commands.disk_text(loads(unknown))


def test_values_are_set_for_a_step_or_for_all(tmp_path: Path):
    (tmp_path / "r.toml").write_text(THREE)
    texts = ["train.max_steps=5", "step.task.train.learning_rate=1e-6", "step.task.search.space.seed=[1,2]"]  # fmt: skip
    made = commands.loaded(tmp_path / "r.toml", texts)
    assert [s.profile.train.max_steps for s in made.steps] == [5, 5, 5]
    assert made.step("task").profile.train.learning_rate == 1e-6 and made.step("task").searches


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("step.task", "write step.NAME.TABLE.KEY=VALUE"),
        ("step.task=3", "write step.NAME.TABLE.KEY=VALUE"),
        ("step.task.train.lr=3", "there is no parameter"),
        ("step.task.train.max_steps=x", "max_steps"),
        ("train.max_steps", "write TABLE.KEY=VALUE"),
    ],
)
def test_a_value_that_cannot_be_set_is_refused_with_the_reason(tmp_path: Path, capsys, text, why):
    (tmp_path / "r.toml").write_text(THREE)
    assert main(["run", "r.toml", "--headless", "--study", "s", "--set", text]) == 2
    assert why in capsys.readouterr().err and not (tmp_path / "s").exists()


def test_a_step_that_is_not_there_cannot_be_changed(tmp_path: Path, capsys):
    (tmp_path / "r.toml").write_text(THREE)
    assert main(["run", "r.toml", "--study", "s", "--set", "step.tsk.train.max_steps=3"]) == 1
    assert "there is no step tsk" in capsys.readouterr().err and not (tmp_path / "s").exists()


def test_what_is_missing_is_told_before_anything_starts(tmp_path: Path, capsys):
    (tmp_path / "r.toml").write_text(THREE + '[step.data]\ndataset = "no.jsonl"\n')
    assert main(["run", "r.toml", "--study", "s"]) == 1
    assert "no.jsonl" in capsys.readouterr().err and not (tmp_path / "s").exists()


def test_status_says_where_each_step_is(recipe, capsys, monkeypatch):
    folder = recipe(SEARCHED)
    carry(folder, Hands(Fake().export, runs), lambda word: None)
    monkeypatch.setattr("core.engine.recipes.handover.daemon_alive", lambda study: True)
    out = printed(capsys, "status", "shop")
    assert "shop: running, step 1 of 3" in out and "0 of 1 trial ended" in out
    content = told(capsys, "status", "shop")
    assert [s["status"] for s in content["steps"]] == ["running", "waits", "waits"]
    assert content["steps"][0]["study"]["trials"] == 1


def test_status_says_where_the_result_is_when_all_is_done(recipe, capsys):
    folder = carried(recipe(), Fake())
    out = printed(capsys, "status", "shop")
    assert "All steps are done." in out and str(folder / "03-task" / "model") in out
    content = told(capsys, "status", str(folder))
    assert content["status"] == "done"
    assert [s["model"] for s in content["steps"]] == [
        str(folder / name / "model") for name in ("01-general", "02-domain", "03-task")
    ]


def test_status_says_why_a_recipe_does_not_go_on(recipe, capsys):
    folder = carried(recipe(), Fake(ending="diverged"))
    out = printed(capsys, "status", "shop")
    assert "shop: failed, step 1 of 3" in out and "tunedeck retry" in out
    assert told(capsys, "status", "shop")["steps"][0]["status"] == "failed"
    assert following.follow_recipe(folder) == 1
    assert "Step 1 of 3 (general) has no result" in capsys.readouterr().out


def test_status_tells_of_an_export_that_failed_and_of_a_recipe_that_is_held(recipe, capsys):
    folder = carried(recipe(), Fake(trouble="the disk is full"))
    out = printed(capsys, "status", "shop")
    assert "The disk is full." in out and "try again:  tunedeck resume studies/shop" in out
    hold(folder, "paused")
    out = printed(capsys, "status", "shop")
    assert "shop: paused" in out and "tunedeck resume" in out


def test_commands_that_are_proposed_are_such_as_a_shell_takes(tmp_path: Path, capsys):
    folder = create_recipe(loads(THREE), tmp_path / "studies" / "my shop")
    carried(folder, Fake(ending="diverged"))
    assert "`tunedeck retry 'studies/my shop/01-general' 1`" in printed(capsys, "status", "my shop")
    other = create_recipe(loads(THREE), tmp_path / "studies" / "your shop")
    hold(other, "paused")
    assert "tunedeck resume 'studies/your shop'" in printed(capsys, "status", "your shop")


def test_attaching_to_a_recipe_that_rests_before_its_first_step_says_how_it_stands(
    recipe, capsys, monkeypatch
):
    folder = recipe()
    hold(folder, "stopped")
    monkeypatch.setattr("sys.stdin.isatty", lambda: True)
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    monkeypatch.setattr(commands, "take_up", lambda folder: None)
    assert main(["attach", "shop"]) == 0
    assert "Stopped before step 1 of 3 (general)." in capsys.readouterr().out


def test_a_trouble_that_is_over_does_not_keep_the_dashboard_shut(recipe, capsys, monkeypatch):
    folder, shown = recipe(), []

    def slow(study: Path) -> None:
        runs(study)
        raise EngineError("the daemon did not answer within 15 s")

    carry(folder, Hands(Fake().export, slow), lambda word: None)
    monkeypatch.setattr("core.engine.recipes.handover.daemon_alive", lambda study: True)
    monkeypatch.setattr("sys.stdin.isatty", lambda: True)
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    monkeypatch.setattr(commands, "take_up", lambda folder: None)
    monkeypatch.setattr(commands, "dashboard", lambda arguments, study: shown.append(study) or 0)
    assert main(["attach", "shop"]) == 0
    assert shown == [folder / "01-general"]


def test_trials_and_winners_are_listed_step_by_step(recipe, capsys):
    carried(recipe(), Fake())
    out = printed(capsys, "trials", "shop")
    assert [line for line in out.splitlines() if line.startswith("step")] == [
        "step 1, general", "step 2, domain", "step 3, task",
    ]  # fmt: skip
    assert [len(s["trials"]) for s in told(capsys, "trials", "shop")] == [1, 1, 1]
    assert "trial 1: the profile as it is" in printed(capsys, "best", "shop")
    assert [s["best"]["number"] for s in told(capsys, "best", "shop")] == [1, 1, 1]


def test_a_recipes_steps_are_listed_among_the_studies_under_its_name(recipe, capsys):
    carried(recipe(), Fake())
    names = {s["name"] for s in told(capsys, "studies")}
    assert names == {"shop/01-general", "shop/02-domain", "shop/03-task"}
    assert told(capsys, "status", "shop/02-domain")["name"] == "shop/02-domain"


def test_a_recipe_whose_first_step_never_began_is_listed_with_what_to_do(recipe, capsys):
    recipe()
    out = printed(capsys, "studies")
    assert "not begun" in out and "`tunedeck resume studies/shop` tries it again" in out
    listed = told(capsys, "studies")
    assert [(s["name"], s["status"], s["engine"]) for s in listed] == [("shop", "not begun", False)]
    assert "step 1 of 3 (general) has not begun" in listed[0]["reason"]


def test_stop_and_pause_are_for_the_whole_recipe_and_for_a_trial_of_its_step(recipe, capsys):
    folder = carried(recipe(), Fake(trouble="no"))
    assert "no further step starts" in printed(capsys, "pause", "shop")
    assert told(capsys, "stop", "shop")["ok"] and (folder / "hold").read_text() == "stopped"
    carried(folder, Fake())
    (folder / "hold").unlink()
    carried(folder, Fake())
    assert RecipeReader(folder).state.done and main(["resume", "shop"]) == 1
    assert "done already" in capsys.readouterr().err


def test_following_a_recipe_tells_what_is_handed_over_and_where_the_result_is(
    recipe, capsys, monkeypatch
):
    folder, fake = recipe(), Fake()
    monkeypatch.setattr(following, "take_up", lambda path: carried(path, fake))
    monkeypatch.setattr(following, "TICK", 0.01)
    assert following.follow_recipe(folder) == 0
    out = capsys.readouterr().out
    for said in ("step 1 of 3 (general) starts", "step 2 of 3 (domain): making a model", "step 3 of 3 (task) is done"):  # fmt: skip
        assert said in out
    assert "The model is in studies/shop/03-task/model" in out


def test_the_form_does_not_open_a_recipe_and_says_how_it_is_run(tmp_path: Path):
    (tmp_path / "r.toml").write_text(THREE)
    with pytest.raises(ProfileError) as raised:
        open_file(tmp_path / "r.toml")
    assert "is a recipe of 3 steps (general, domain, task)" in str(raised.value)
    assert "tunedeck run" in str(raised.value)
