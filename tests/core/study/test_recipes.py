"""A recipe's folder and its journal."""

from pathlib import Path

import pytest

from core.study import store
from core.study.events import StudyCreated, encode
from core.study.journal import JournalWriter, seal
from core.study.recipes import (
    HandoverFailed,
    ModelsRemoved,
    PlannedStep,
    RecipeCreated,
    RecipeDone,
    RecipeFolder,
    RecipeReader,
    StepExported,
    StepExporting,
    StepStarting,
    find_recipe,
    recipe_of,
    unbegun_recipes,
    unbegun_step,
)
from core.study.recipes import encode as told
from core.study.store import StudyError, all_studies, find_study, recipe_steps, remember

STEPS = (
    PlannedStep("general", "01-general", "sft", True),
    PlannedStep("domain", "02-domain", "sft", False, source="general"),
)
CREATED = RecipeCreated(t=1.0, version=1, name="shop", tunedeck="0", steps=STEPS, keep_models=True)


def recipe(path: Path, *events) -> RecipeFolder:
    path.mkdir(parents=True, exist_ok=True)
    writer = JournalWriter(path / store.RECIPE_JOURNAL)
    writer.append(*(told(event) for event in events))
    writer.close()
    return RecipeFolder(path)


def study(path: Path) -> Path:
    path.mkdir(parents=True)
    created = StudyCreated(
        t=1.0, version=1, name=path.name, tunedeck="0", rank_by="loss", planned=1
    )
    (path / store.JOURNAL_FILE).write_bytes(seal(encode(created)))
    return path


@pytest.fixture(autouse=True)
def own_places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setenv("TUNEDECK_STUDIES", str(tmp_path / "studies"))


def test_the_journal_folds_to_what_was_handed_over(tmp_path: Path):
    folder = recipe(tmp_path / "r", CREATED, StepStarting(t=2.0, step=1))
    reader = RecipeReader(folder.path)
    assert (reader.state.name, reader.state.current, reader.state.keep_models) == ("shop", 1, True)
    assert [s.started for s in reader.state.steps] == [2.0, None]

    recipe(folder.path, StepExporting(t=3.0, step=1, trial=4))
    assert [type(event) for event in reader.poll()] == [StepExporting]
    recipe(folder.path, HandoverFailed(t=4.0, step=1, reason="the disk is full"))
    reader.poll()
    assert reader.state.steps[0].trouble == "the disk is full"

    recipe(
        folder.path,
        StepExporting(t=5.0, step=1, trial=4),
        StepExported(t=6.0, step=1, trial=4, bytes=100),
        StepStarting(t=7.0, step=2),
    )
    reader.poll()
    first, second = reader.state.steps
    assert (first.exporting, first.exported, first.bytes, first.trouble) == (4, 4, 100, "")
    assert (second.started, reader.state.current, reader.state.done) == (7.0, 2, False)

    recipe(folder.path, ModelsRemoved(t=8.0, steps=(1,)), RecipeDone(t=9.0))
    reader.poll()
    assert reader.state.steps[0].removed and reader.state.done and reader.state.updated == 9.0


def test_a_torn_record_is_not_read_and_cut_off_by_the_next_writer(tmp_path: Path):
    folder = recipe(tmp_path / "r", CREATED, StepStarting(t=2.0, step=1))
    with folder.journal.open("ab") as file:
        file.write(seal(told(RecipeDone(t=3.0)))[:-5])
    assert not RecipeReader(folder.path).state.done
    recipe(folder.path, StepExporting(t=4.0, step=1, trial=1))
    assert RecipeReader(folder.path).state.steps[0].exporting == 1


def test_what_is_no_recipe_or_a_damaged_one_is_told(tmp_path: Path):
    with pytest.raises(StudyError, match="holds no recipe"):
        RecipeReader(tmp_path)
    (tmp_path / store.RECIPE_JOURNAL).write_bytes(b"")
    with pytest.raises(StudyError, match="not made to its end"):
        RecipeReader(tmp_path)
    (tmp_path / store.RECIPE_JOURNAL).write_bytes(seal(b'{"event":"of-tomorrow","t":1}'))
    with pytest.raises(StudyError, match="newer version"):
        RecipeReader(tmp_path)
    good = seal(told(CREATED))
    (tmp_path / store.RECIPE_JOURNAL).write_bytes(b"x" + good + good)
    with pytest.raises(StudyError, match="damaged"):
        RecipeReader(tmp_path)


def test_a_study_knows_whether_it_is_a_step(tmp_path: Path):
    folder = recipe(tmp_path / "r", CREATED)
    step = study(folder.study(STEPS[0]).path)
    stranger, alone = study(folder.path / "99-own"), study(tmp_path / "alone")
    assert recipe_of(step) == folder.path
    assert recipe_of(stranger) is None and recipe_of(alone) is None


def test_a_recipe_by_name_is_the_study_of_the_step_that_was_begun_last(tmp_path: Path):
    folder = recipe(tmp_path / "studies" / "r", CREATED)
    with pytest.raises(StudyError, match="no step of the recipe r has begun: `tunedeck resume r`"):
        find_study("r")
    first = study(folder.study(STEPS[0]).path)
    assert find_study("r") == first == find_study("r/01-general")
    second = study(folder.study(STEPS[1]).path)
    assert find_study("r") == find_study(str(folder.path)) == second
    assert find_recipe("r") == find_recipe(str(folder.path)) == folder.path
    assert find_recipe("r/01-general") is None and find_recipe("nobody") is None


def test_a_recipe_that_lies_elsewhere_is_found_among_the_recent_ones(tmp_path: Path):
    folder = recipe(tmp_path / "elsewhere", CREATED)
    step = study(folder.study(STEPS[0]).path)
    remember(folder.path)
    assert find_recipe("elsewhere") == folder.path and find_study("elsewhere") == step
    assert all_studies() == [step]


def test_the_steps_of_a_recipe_are_listed_as_studies_in_their_order(tmp_path: Path):
    root = tmp_path / "studies"
    many = tuple(PlannedStep(f"s{n}", f"{n:02d}-s{n}", "sft", False) for n in (1, 2, 100))
    created = RecipeCreated(t=1.0, version=1, name="m", tunedeck="0", steps=many, keep_models=True)
    folder = recipe(root / "many", created)
    steps = [study(folder.study(s).path) for s in (many[2], many[0], many[1])]
    alone = study(root / "alone")
    assert recipe_steps(folder.path) == [steps[1], steps[2], steps[0]]
    assert recipe_steps(alone) == []
    assert set(all_studies()) == {alone, *steps}


def test_a_person_may_hold_a_recipe(tmp_path: Path):
    folder = recipe(tmp_path / "r", CREATED)
    assert folder.held() == ""
    folder.hold.write_text("stopped\n")
    assert folder.held() == "stopped"
    folder.hold.write_text("")
    assert folder.held() == "paused"


def test_a_recipe_without_a_study_for_its_step_is_one_that_waits(tmp_path: Path):
    folder = recipe(tmp_path / "studies" / "r", CREATED)
    reader = RecipeReader(folder.path)
    assert unbegun_step(reader) == 1 and unbegun_recipes() == [folder.path]
    study(folder.study(STEPS[0]).path)
    assert unbegun_step(reader) is None and unbegun_recipes() == []


@pytest.mark.parametrize(
    "event", [StepStarting(t=5.0, step=2), HandoverFailed(t=5.0, step=2, reason="no such step")]
)
def test_so_is_one_whose_later_step_did_not_come(tmp_path: Path, event):
    folder = recipe(tmp_path / "elsewhere", CREATED)
    study(folder.study(STEPS[0]).path)
    remember(folder.path)
    assert unbegun_recipes() == []
    recipe(folder.path, event)
    assert unbegun_step(RecipeReader(folder.path)) == 2 and unbegun_recipes() == [folder.path]
    study(folder.study(STEPS[1]).path)
    assert unbegun_recipes() == []


def test_one_that_is_done_waits_for_nothing_whatever_was_deleted(tmp_path: Path):
    folder = recipe(tmp_path / "studies" / "r", CREATED, RecipeDone(t=9.0))
    assert unbegun_step(RecipeReader(folder.path)) is None


def test_one_that_cannot_be_read_is_not_forgotten(tmp_path: Path):
    folder = tmp_path / "studies" / "r"
    folder.mkdir(parents=True)
    (folder / store.RECIPE_JOURNAL).write_bytes(b"")
    assert unbegun_recipes() == [folder]
    study(folder / "01-general")
    assert unbegun_recipes() == []
