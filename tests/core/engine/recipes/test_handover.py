"""Carrying a recipe on, with studies that somebody else runs."""

import errno
import os
from pathlib import Path

import pytest

from core.devices.lock import try_lock
from core.engine import client
from core.engine.client import EngineError, delete_study
from core.engine.detach import READY
from core.engine.messages import Reply
from core.engine.recipes import handover
from core.engine.recipes import wishes as recipe_wishes
from core.engine.recipes.exporting import HandoverError
from core.engine.recipes.handover import Hands, carry, create_recipe, hold, release, stands
from core.engine.recipes.plan import Rest, trouble_of
from core.engine.recipes.wishes import steer
from core.profile import load
from core.recipe import loads
from core.study import journal
from core.study.events import StudyChanged
from core.study.journal import JournalWriter
from core.study.recipes import RecipeFolder, RecipeReader
from core.study.store import StudyError, StudyReader, recipe_steps
from tests.core.recipe_fake import ALIGNED, THREE, Fake, ends, runs, tell


@pytest.fixture
def recipe(tmp_path: Path):
    return lambda text=THREE: create_recipe(loads(text), tmp_path / "shop")


def carried(folder: Path, fake: Fake) -> tuple[int, list[str]]:
    said: list[str] = []
    return carry(folder, fake.hands, said.append), said


def test_each_step_starts_from_what_the_one_before_it_made(recipe):
    folder, fake = recipe(), Fake()
    code, said = carried(folder, fake)
    assert code == 0 and set(said) == {READY}
    assert fake.served == ["01-general", "02-domain", "03-task"]
    assert [name for name, _ in fake.exported] == ["01-general/0001", "02-domain/0001", "03-task/0001"]  # fmt: skip
    models = [load(folder / name / "profile.toml").model.model_name_or_path for name in fake.served]
    assert models == ["demo", str(folder / "01-general/model"), str(folder / "02-domain/model")]
    state = RecipeReader(folder).state
    assert state.done and [s.bytes for s in state.steps] == [7, 7, 7]
    assert fake.wanted == [True] * 3
    assert fake.bases == [None, folder / "01-general/model", folder / "02-domain/model"]


def test_ppo_gets_the_model_of_its_own_start_and_the_reward_model_as_it_was_saved(recipe):
    folder, fake = recipe(ALIGNED), Fake()
    carried(folder, fake)
    assert [name for name, _ in fake.exported] == ["01-chat/0001", "03-align/0001"]
    align = load(folder / "03-align" / "profile.toml")
    assert align.model.model_name_or_path == str(folder / "01-chat/model")
    assert align.alignment.reward_model == str(folder / "02-judge/trials/0001/output")


def test_a_recipe_may_be_moved_between_two_steps(recipe, tmp_path: Path):
    folder, fake = recipe(ALIGNED), Fake()
    carried(folder, fake)
    texts = [(folder / name / "profile.toml").read_text() for name in fake.served[1:]]
    assert str(tmp_path) not in "".join(texts), "each finds the others from where it lies"
    moved = folder.rename(tmp_path / "moved")
    align = load(moved / "03-align" / "profile.toml")
    assert align.model.model_name_or_path == str(moved / "01-chat/model")
    assert align.alignment.reward_model == str(moved / "02-judge/trials/0001/output")


def test_a_step_is_not_deleted_before_its_recipe_is_done(recipe):
    folder, fake = recipe(), Fake(trouble="the disk is full")
    carried(folder, fake)
    with pytest.raises(EngineError, match="a step of a recipe that is not done"):
        delete_study(folder / "01-general")
    assert (folder / "01-general" / "profile.toml").exists()
    fake.trouble = ""
    carried(folder, fake)
    delete_study(folder / "01-general")
    assert not (folder / "01-general").exists() and RecipeReader(folder).state.done


def test_a_trouble_that_is_over_is_not_told_any_more(recipe, monkeypatch, asked):
    folder, fake = recipe(), Fake()

    def slow(study: Path) -> None:
        runs(study)
        raise EngineError("the daemon did not answer within 15 s")

    carry(folder, Hands(fake.export, slow), lambda word: None)
    reader = RecipeReader(folder)
    assert trouble_of(reader.state, stands(reader)) == "the daemon did not answer within 15 s"
    assert not steer(folder, "resume").ok
    monkeypatch.setattr("core.engine.recipes.handover.daemon_alive", lambda study: True)
    assert trouble_of(reader.state, stands(reader)) == ""


def test_models_whose_removal_was_begun_are_removed_by_whoever_goes_on(recipe, monkeypatch):
    folder, fake = recipe(THREE + "[recipe]\nkeep_models = false\n"), Fake()

    def dies(path, ignore_errors):
        raise DeadError

    with monkeypatch.context() as patch, pytest.raises(DeadError):
        patch.setattr("core.engine.recipes.handover.shutil.rmtree", dies)
        carried(folder, fake)
    assert (folder / "01-general" / "model").exists()
    carried(folder, fake)
    assert [(folder / s / "model").exists() for s in fake.served] == [False, False, True]
    assert RecipeReader(folder).state.done


def test_a_step_that_runs_is_left_to_its_daemon(recipe, monkeypatch):
    folder, fake = recipe(), Fake()
    monkeypatch.setattr("core.engine.recipes.handover.daemon_alive", lambda study: True)
    fake.serve = lambda study: (fake.served.append(study.name), runs(study))
    assert carried(folder, fake)[0] == 0
    assert stands(RecipeReader(folder)) == Rest("running", 1, "step 1 of 3 (general) runs")
    carried(folder, fake)
    assert fake.served == ["01-general"], "it is not started twice"


def test_a_step_may_take_as_long_to_begin_as_its_engine(recipe, monkeypatch):
    waited = []

    def run(*_, timeout: float, **__):
        waited.append(timeout)
        raise OSError(errno.EAGAIN, "busy")

    monkeypatch.setattr(handover.subprocess, "run", run)
    with pytest.raises(EngineError, match="cannot be taken up: busy"):
        handover.take_up(recipe())
    assert waited[0] > client.PATIENCE


def test_an_engine_that_died_is_started_again(recipe):
    folder, fake = recipe(), Fake()
    runs(_made(folder, "01-general"))
    carried(folder, fake)
    assert fake.served[0] == "01-general" and RecipeReader(folder).state.done


def test_an_engine_that_dies_as_soon_as_it_is_started_is_not_started_again_and_again(recipe):
    folder, served = recipe(), []
    hands = Hands(Fake().export, lambda study: (served.append(study.name), runs(study)))
    assert carry(folder, hands, lambda word: None) == 0
    assert served == ["01-general"]
    assert carry(folder, hands, lambda word: None) == 0
    assert served == ["01-general"] * 2


def _made(folder: Path, step: str) -> Path:
    (folder / step).mkdir()
    return folder / step


class DeadError(BaseException):
    """What a killed process does not come back from."""


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("at", range(1, 11))
def test_killed_at_any_record_it_goes_on_where_it_was(recipe, monkeypatch, when, at):
    folder, fake = recipe(), Fake()
    real, count = JournalWriter.append, [0]

    def append(self, *bodies):
        own = self.path == RecipeFolder(folder).journal
        count[0] += own
        if own and (when, count[0]) == ("before", at):
            raise DeadError
        real(self, *bodies)
        if own and (when, count[0]) == ("after", at):
            raise DeadError

    monkeypatch.setattr(journal.JournalWriter, "append", append)
    with pytest.raises(DeadError):
        carried(folder, fake)
    assert carried(folder, fake)[0] == 0
    assert RecipeReader(folder).state.done
    assert sorted(p.name for p in folder.glob("0*")) == ["01-general", "02-domain", "03-task"]
    for step in folder.glob("0*"):
        assert (step / "model" / "model.safetensors").exists()
        assert len(StudyReader(step).state.trials) == 1


def test_an_export_that_was_killed_in_the_middle_is_done_again(recipe):
    folder, fake = recipe(), Fake()

    def dies(trial, base, output, wanted):
        output.with_name("model.partial").mkdir()
        raise DeadError

    with pytest.raises(DeadError):
        carry(folder, Hands(dies, fake.serve), lambda word: None)
    assert RecipeReader(folder).state.steps[0].exporting == 1
    carried(folder, fake)
    assert RecipeReader(folder).state.done and fake.served == ["01-general", "02-domain", "03-task"]


def test_an_export_that_fails_is_told_and_tried_again_by_whoever_takes_the_recipe_up(recipe):
    folder, fake = recipe(), Fake(trouble="the disk is full")
    assert carried(folder, fake)[0] == 0
    state = RecipeReader(folder).state
    assert state.steps[0].trouble == "the disk is full" and not (folder / "02-domain").exists()
    fake.trouble = ""
    carried(folder, fake)
    assert RecipeReader(folder).state.done


def test_a_recipe_whose_file_was_changed_goes_on_with_what_it_says_now(recipe):
    folder, fake = recipe(), Fake(trouble="no")
    carried(folder, fake)
    file = RecipeFolder(folder).recipe
    text = file.read_text()
    file.write_text(
        text.replace('name = "domain"', 'name = "field"').replace('"domain"', '"field"')
    )
    fake.trouble = ""
    carried(folder, fake)
    trouble = RecipeReader(folder).state.steps[1].trouble
    assert trouble == f"{file} has no step domain any more"
    general, domain, task = text.split("[[step]]")[1:]
    changed = domain.replace("cutoff_len = 2048", "cutoff_len = 99")
    assert changed != domain
    file.write_text("[[step]]".join([text.split("[[step]]")[0], general, changed, task]))
    carried(folder, fake)
    cutoffs = [load(folder / name / "profile.toml").data.cutoff_len for name in fake.served]
    assert cutoffs == [2048, 99, 2048] and RecipeReader(folder).state.done


def test_a_disk_that_is_full_is_told_to_whoever_takes_the_recipe_up(recipe, monkeypatch):
    folder, fake = recipe(), Fake(trouble="no")
    carried(folder, fake)
    real = JournalWriter.append

    def full(self, *bodies):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self.path))

    monkeypatch.setattr(JournalWriter, "append", full)
    code, said = carried(folder, fake)
    assert code == 1 and "No space left on device" in said[0]
    monkeypatch.setattr(JournalWriter, "append", real)
    fake.trouble = ""
    carried(folder, fake)
    assert RecipeReader(folder).state.done


def test_a_daemon_that_cannot_be_started_is_told(recipe):
    def refuses(study: Path) -> None:
        raise EngineError("no room for a socket")

    folder, fake = recipe(), Fake()
    assert carry(folder, Hands(fake.export, refuses), lambda word: None) == 0
    assert RecipeReader(folder).state.steps[0].trouble == "no room for a socket"
    carried(folder, fake)
    assert RecipeReader(folder).state.done


def test_a_step_that_failed_ends_the_recipe_and_the_ones_after_it_do_not_begin(recipe):
    folder, fake = recipe(), Fake(ending="diverged")
    carried(folder, fake)
    rest = stands(RecipeReader(folder))
    assert rest.kind == "failed" and "trial 1, diverged: so it is" in rest.text
    assert fake.served == ["01-general"] and not fake.exported


def test_where_another_process_carries_on_nothing_is_done(recipe):
    folder, fake = recipe(), Fake()
    lock = try_lock(RecipeFolder(folder).lock)
    with open(lock, "rb"):
        assert carried(folder, fake) == (0, [READY])
    assert not fake.served


def test_a_recipe_that_is_held_rests_until_it_is_released(recipe):
    folder, fake = recipe(), Fake()
    hold(folder, "stopped")
    carried(folder, fake)
    assert not fake.served and stands(RecipeReader(folder)).kind == "stopped"
    release(folder)
    carried(folder, fake)
    assert RecipeReader(folder).state.done


def test_an_export_is_told_when_the_recipe_is_to_rest(recipe):
    folder, fake = recipe(), Fake()

    def export(trial, base, output, wanted):
        assert wanted()
        hold(folder, "paused")
        assert not wanted()
        raise HandoverError("it is to rest", wanted=True)

    carry(folder, Hands(export, fake.serve), lambda word: None)
    state = RecipeReader(folder).state
    assert state.steps[0].trouble == "" and stands(RecipeReader(folder)).kind == "paused"


def test_models_in_between_are_removed_where_the_recipe_says_so(recipe):
    folder, fake = recipe(THREE + "[recipe]\nkeep_models = false\n"), Fake()
    carried(folder, fake)
    assert [(folder / s / "model").exists() for s in fake.served] == [False, False, True]
    state = RecipeReader(folder).state
    assert [s.removed for s in state.steps] == [True, True, False] and state.done
    carried(folder, fake)
    assert fake.served == ["01-general", "02-domain", "03-task"], "nothing is made again"


def test_a_recipe_needs_a_folder_of_its_own(recipe, tmp_path: Path):
    (tmp_path / "shop").mkdir()
    (tmp_path / "shop" / "own.txt").write_text("mine")
    with pytest.raises(StudyError, match="is not empty"):
        recipe()


def test_a_recipe_that_cannot_be_read_is_told(tmp_path: Path):
    code, said = carried(tmp_path, Fake())
    assert code == 1 and "holds no recipe" in said[0]


# -- wishes -----------------------------------------------------------------------------------


@pytest.fixture
def asked(monkeypatch):
    """What daemons and carriers are asked, who say yes to all of it."""
    said: list[str] = []

    def send(study, request):
        said.append(f"{request.command} {study.name}")
        return Reply(True, "as you wish")

    monkeypatch.setattr(recipe_wishes, "send", send)
    monkeypatch.setattr(recipe_wishes, "take_up", lambda folder: said.append("take up"))
    return said


def begun(recipe, monkeypatch, alive=True) -> Path:
    folder = recipe()
    monkeypatch.setattr("core.engine.recipes.handover.daemon_alive", lambda study: alive)
    carry(folder, Hands(Fake().export, runs), lambda word: None)
    return folder


@pytest.mark.parametrize("command", ["stop", "pause"])
def test_a_wish_goes_to_the_step_that_runs(recipe, monkeypatch, asked, command):
    folder = begun(recipe, monkeypatch)
    assert steer(folder, command) == Reply(True, "step 1 of 3 (general): as you wish")
    assert asked == [f"{command} 01-general"] and not RecipeFolder(folder).held()


def test_between_two_steps_the_recipe_itself_is_held_and_goes_on_when_resumed(recipe, asked):
    folder, fake = recipe(), Fake(trouble="no")
    carried(folder, fake)
    assert steer(folder, "pause").ok and RecipeFolder(folder).held() == "paused"
    assert asked == []
    assert not steer(folder, "resume").ok, "the trouble is told again where it is still there"
    assert asked == ["take up"] and not RecipeFolder(folder).held()


def test_a_step_that_was_paused_is_resumed_with_the_recipe(recipe, monkeypatch, asked):
    folder = begun(recipe, monkeypatch)
    tell(folder / "01-general", StudyChanged(t=3.0, status="paused", reason="paused by you"))
    assert "paused already" in steer(folder, "pause").text
    assert steer(folder, "resume") == Reply(True, "step 1 of 3 (general): as you wish")
    assert asked == ["resume 01-general", "take up"]


def test_a_step_that_begins_just_before_a_recipe_is_deleted_keeps_it(recipe, monkeypatch):
    folder, fake = recipe(), Fake()

    def begin_first(lock: Path):
        carry(folder, fake.hands, lambda word: None)
        return try_lock(lock)

    monkeypatch.setattr(recipe_wishes, "try_lock", begin_first)
    with pytest.raises(EngineError, match="have begun"):
        recipe_wishes.discard(folder)
    assert recipe_steps(folder)


def test_what_was_stopped_is_not_paused(recipe, monkeypatch, asked):
    folder = begun(recipe, monkeypatch)
    tell(folder / "01-general", StudyChanged(t=3.0, status="stopped", reason="stopped by you"))
    assert steer(folder, "pause") == Reply(True, "step 1 of 3 (general) is stopped already")
    assert not RecipeFolder(folder).held() and asked == []


def test_a_recipe_that_cannot_go_on_says_what_to_do(recipe, asked):
    folder, fake = recipe(), Fake(ending="oom")
    carried(folder, fake)
    reply = steer(folder, "resume")
    assert not reply.ok and "tunedeck retry" in reply.text and asked == []


def test_what_runs_or_is_done_is_not_resumed(recipe, monkeypatch, asked):
    folder = begun(recipe, monkeypatch)
    assert steer(folder, "resume") == Reply(True, "step 1 of 3 (general) runs already")
    ends(folder / "01-general")
    carried(folder, Fake())
    assert steer(folder, "resume") == Reply(False, "all steps of the recipe are done already")
    assert steer(folder, "stop").ok and asked == []
