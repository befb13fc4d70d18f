"""A step of a recipe in the dashboard's words."""

import os
from pathlib import Path

import pytest

from core.devices.lock import try_lock
from core.engine.client import EngineError
from core.engine.recipes.handover import Hands, carry, create_recipe, hold
from core.recipe import loads
from core.study import store
from core.study.events import StudyChanged
from core.study.recipes import RecipeFolder
from tests.core.recipe_fake import ALIGNED, THREE, Fake, ends, runs, tell
from tui import recipe_view
from tui.farewell import farewell
from tui.feed import DiskFeed
from tui.recipe_view import RecipePlace, after_step, carry_on, place_in_recipe
from tui.snapshot import study_view, summarise
from tui.source import DiskSource, SourceError, Wanted
from tui.status_line import banner, study_line


@pytest.fixture(autouse=True)
def own_places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setenv("TUNEDECK_STUDIES", str(tmp_path))


@pytest.fixture
def recipe(tmp_path: Path):
    return lambda text=THREE: create_recipe(loads(text), tmp_path / "shop")


def carried(folder: Path, fake: Fake) -> Path:
    carry(folder, fake.hands, lambda word: None)
    return folder


def texts(pieces) -> str:
    return "".join(text for text, _ in pieces)


def after(study: Path) -> RecipePlace:
    place = place_in_recipe(study)
    assert place is not None
    return after_step(place, study)


def banner_of(study: Path) -> str:
    return texts(banner(study_view(DiskFeed(study).read(Wanted()), 10.0), ascii=True))


def test_a_step_is_named_after_its_recipe_and_its_place(recipe):
    folder = carried(recipe(), Fake())
    reading = DiskFeed(folder / "02-domain").read(Wanted())
    assert reading.name == "2/3 domain of shop" == summarise(reading).name
    assert texts(study_line(study_view(reading, 10.0), 100, ascii=True)).count("step 2 of 3") == 1


def test_an_ordinary_study_says_nothing_of_recipes(tmp_path: Path):
    runs(_folder(tmp_path / "alone"))
    reading = DiskFeed(tmp_path / "alone").read(Wanted())
    assert (reading.name, reading.recipe) == ("alone", None)
    assert place_in_recipe(tmp_path / "alone") is None


def _folder(path: Path) -> Path:
    path.mkdir(parents=True)
    return path


def test_a_step_that_is_over_says_what_comes_of_the_recipe(recipe, monkeypatch):
    folder = recipe()
    first = _folder(folder / "01-general")
    ends(first)
    assert "the next step is being prepared" in banner_of(first)
    fake = Fake(trouble="the disk is full")
    carried(folder, fake)
    assert f"the disk is full: `tunedeck resume {folder}` tries it again" in banner_of(first)
    carry(folder, Hands(Fake().export, runs), lambda word: None)
    monkeypatch.setattr(
        "core.engine.recipes.handover.daemon_alive", lambda study: study.name == "02-domain"
    )
    assert "the recipe goes on: step 2 of 3 (domain) runs. 1 lists the studies" in banner_of(first)


def test_a_step_that_failed_says_what_to_do_about_it(recipe):
    folder = carried(recipe(), Fake(ending="diverged"))
    over = after(folder / "01-general")
    assert over.waits and "tunedeck retry" in over.after
    assert over.after in banner_of(folder / "01-general")


@pytest.mark.parametrize(
    ("text", "last", "result"),
    [(THREE, "03-task", "the model is in {}/03-task/model"), (ALIGNED.partition('[[step]]\nname = "align"')[0], "02-judge", "the reward model is in {}/02-judge/trials/0001/output")],
)  # fmt: skip
def test_the_last_step_says_where_the_result_is(recipe, text, last, result):
    folder = carried(recipe(text), Fake())
    assert result.format(folder) in banner_of(folder / last)


def test_on_leaving_the_recipe_is_what_goes_on_or_is_done(recipe):
    folder = recipe()
    runs(_folder(folder / "01-general"))

    def said(step: str) -> str:
        return " ".join(farewell(study_view(DiskFeed(folder / step).read(Wanted()), 10.0)))

    assert f"tunedeck stop {folder} ends it" in said("01-general")
    tell(folder / "01-general", StudyChanged(t=1.5, status="paused", reason="paused by you"))
    assert said("01-general") == f"The recipe is paused. tunedeck resume {folder} lets it go on."
    ends(folder / "01-general")
    carried(folder, Fake())
    assert f"the model is in {folder}/03-task/model" in said("03-task")
    assert "the recipe is done" in said("01-general")


def test_a_next_step_without_its_engine_is_not_said_to_be_prepared(recipe):
    folder = recipe()
    ends(_folder(folder / "01-general"))
    carry(folder, Hands(Fake().export, runs), lambda word: None)
    over = after(folder / "01-general")
    assert over.waits and over.after.startswith("the engine of step 2 (domain) is gone")
    assert f"tunedeck attach {folder}" in over.after


def test_a_handover_that_nobody_does_is_told(recipe):
    folder = recipe()
    ends(_folder(folder / "01-general"))
    assert not after(folder / "01-general").waits, "it has only just ended"
    for file in (RecipeFolder(folder).journal, folder / "01-general/journal.jsonl"):
        os.utime(file, (1.0, 1.0))
    over = after(folder / "01-general")
    assert (
        over.waits
        and f"nobody hands over to the next step: `tunedeck resume {folder}`" in over.after
    )
    lock = try_lock(RecipeFolder(folder).lock)
    with open(lock, "rb"):
        assert not after(folder / "01-general").waits


def test_a_recipe_that_is_held_says_so(recipe):
    folder = recipe()
    ends(_folder(folder / "01-general"))
    hold(folder, "paused")
    over = after(folder / "01-general")
    assert (over.after, over.waits) == ("paused when step 1 of 3 (general) was trained", True)


def test_opening_a_step_takes_the_recipe_up_where_nobody_does(recipe, monkeypatch):
    folder = recipe()
    ends(_folder(folder / "01-general"))
    started = []
    monkeypatch.setattr("core.engine.recipes.step.hand_over", started.append)
    DiskSource().open(folder / "01-general")
    assert started == [folder / "01-general"]
    assert store.recent() == [folder], "the recipe is remembered, not its step"

    lock = try_lock(RecipeFolder(folder).lock)
    with open(lock, "rb"):
        carry_on(folder / "01-general")
    assert len(started) == 1
    tell(folder / "01-general", StudyChanged(t=3.0, status="stopped"))
    DiskSource().open(folder / "01-general")
    assert len(started) == 1, "what a person stopped stays so"


def test_a_damaged_recipe_is_told(recipe):
    folder = carried(recipe(), Fake())
    file = RecipeFolder(folder).journal
    file.write_bytes(b"x" + file.read_bytes())
    assert recipe_view.place_in_recipe(folder / "01-general") is None
    DiskSource().open(folder / "01-general")
    with pytest.raises(SourceError):
        DiskSource().open(folder)


def test_a_recipe_that_is_damaged_while_its_step_is_shown_is_told(recipe):
    folder = carried(recipe(), Fake())
    feed = DiskFeed(folder / "01-general")
    file = RecipeFolder(folder).journal
    file.write_bytes(b"x" + file.read_bytes())
    reading = feed.read(Wanted())
    assert reading.recipe.waits and "damaged" in reading.recipe.after


# -- a step that did not come ------------------------------------------------------------------


def test_a_recipe_whose_first_step_never_began_is_listed_with_what_takes_it_up(recipe):
    folder = recipe()
    source = DiskSource()
    assert source.studies() == [folder]
    listed = source.summary(folder)
    assert (listed.name, listed.status) == ("1/3 general of shop", "not begun")
    assert f"is gone; `tunedeck resume {folder}` tries it again" in listed.problem
    assert listed.updated > 0
    carried(folder, Fake())
    assert folder not in source.studies() and len(source.studies()) == 3


class Refuses(Fake):
    def serve(self, study: Path) -> None:
        raise EngineError("no room:\n  the disk is full.")


def test_what_kept_it_from_beginning_is_told_in_one_line(recipe):
    folder = carried(recipe(), Refuses())
    listed = DiskSource().summary(folder)
    assert "has not begun: no room: the disk is full; `tunedeck resume" in listed.problem


def test_so_is_a_later_step_that_did_not_come_beside_those_that_did(recipe):
    folder = recipe()
    ends(_folder(folder / "01-general"))
    carried(folder, Refuses())
    source = DiskSource()
    assert source.studies() == [folder, folder / "01-general"]
    assert source.summary(folder).name == "2/3 domain of shop"
    with pytest.raises(SourceError, match="what they made would be lost"):
        source.delete(folder)
    assert (folder / "01-general").is_dir()


def test_one_that_is_held_or_begins_just_now_says_so(recipe):
    folder = recipe()
    hold(folder, "stopped")
    assert "the recipe is stopped" in DiskSource().summary(folder).problem
    lock = try_lock(RecipeFolder(folder).lock)
    with open(lock, "rb"):
        assert "begins just now" in DiskSource().summary(folder).problem
        with pytest.raises(SourceError, match="begins just now: stop it first"):
            DiskSource().delete(folder)


def test_opening_it_begins_its_step_or_says_why_not(recipe, monkeypatch):
    folder = recipe()

    def take_up(hands: Fake) -> None:
        monkeypatch.setattr(
            "core.engine.recipes.handover.take_up", lambda path: carried(path, hands)
        )

    take_up(Refuses())
    with pytest.raises(SourceError, match=r"1/3 general of shop.*no room"):
        DiskSource().open(folder)
    take_up(Fake())
    assert DiskSource().open(folder).folder == folder / "01-general"
    assert store.recent() == [folder]


def test_deleting_it_deletes_the_recipe(recipe):
    folder = recipe()
    DiskSource().delete(folder)
    assert not folder.exists()


def test_one_that_was_not_made_to_its_end_can_be_deleted(recipe):
    folder = recipe()
    RecipeFolder(folder).journal.write_bytes(b"")
    listed = DiskSource().summary(folder)
    assert listed.status == "cannot be read" and "remove it" in listed.problem
    DiskSource().delete(folder)
    assert not folder.exists()
