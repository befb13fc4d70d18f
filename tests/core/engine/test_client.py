import os
from pathlib import Path

import pytest

from core.devices.lock import try_lock
from core.engine.client import (
    EngineError,
    create_study,
    daemon_alive,
    delete_study,
    needs_daemon,
    send,
    start_daemon,
)
from core.engine.messages import Request
from core.profile import load
from core.study.files import RangeTest
from core.study.state import StudyState, Trial
from core.study.store import StudyError, recent

LONG = {"steps": 4000, "delay": 0.02}


class TestCreate:
    def test_a_study_is_a_folder_with_its_profile_and_is_remembered(
        self, tmp_path: Path, profile_of
    ) -> None:
        made = profile_of({}, {"lora_rank": [8, 16]})
        folder = create_study(made, tmp_path / "deep" / "study")
        assert load(folder / "profile.toml").search == made.search
        assert recent() == [folder]
        assert not daemon_alive(folder)

    def test_an_existing_folder_is_not_overwritten(self, tmp_path: Path, profile_of) -> None:
        (tmp_path / "thesis.tex").write_text("years of work")
        with pytest.raises(StudyError, match="not empty"):
            create_study(profile_of({}, {}), tmp_path)
        assert sorted(p.name for p in tmp_path.iterdir()) == ["thesis.tex"]

    def test_an_empty_folder_will_do(self, tmp_path: Path, profile_of) -> None:
        (tmp_path / "s").mkdir()
        assert create_study(profile_of({}, {}), tmp_path / "s").exists()

    def test_a_place_that_cannot_be_written_is_named(self, tmp_path: Path, profile_of) -> None:
        (tmp_path / "file").write_text("")
        with pytest.raises(StudyError, match="cannot be made"):
            create_study(profile_of({}, {}), tmp_path / "file" / "study")

    def test_a_range_test_of_ppo_is_refused(self, tmp_path: Path, profile_of) -> None:
        made = profile_of({}, {})
        ppo = made.with_changes(
            {
                "method.stage": "ppo",
                "alignment.reward_model": "judge",
                "train.gradient_accumulation_steps": 4,
            }
        )
        with pytest.raises(StudyError, match="does not fall as its policy gets better"):
            create_study(ppo, tmp_path / "study", RangeTest())
        assert not (tmp_path / "study").exists()

    def test_a_name_that_is_no_text_is_refused(self, tmp_path: Path, profile_of) -> None:
        name = os.fsdecode(os.fsencode(tmp_path) + b"/\xe9tude")
        with pytest.raises(StudyError, match=r"dce9tude: .* must be UTF-8"):
            create_study(profile_of({}, {}), Path(name))


class TestStart:
    def test_the_daemons_own_reason_is_given(self, tmp_path: Path) -> None:
        (tmp_path / "profile.toml").write_text("[model]\n[data]\n")
        with pytest.raises(EngineError) as caught:
            start_daemon(tmp_path)
        assert "model.model_name_or_path: is missing" in str(caught.value)
        assert "data.dataset: is missing" in str(caught.value)

    def test_one_that_lives_is_left_alone(self, study) -> None:
        served = study(LONG, {})
        daemon = served.start()
        start_daemon(served.folder)
        assert served.ask("ping").ok
        assert daemon.poll() is None

    def test_a_daemon_outlives_whoever_started_it_and_is_reached_by_the_next(
        self, study, waits
    ) -> None:
        served = study({}, {})
        profile = served.folder / "profile.toml"
        profile.write_text(
            profile.read_text().replace('dataset = "demo"', 'dataset = "/no/such/file.jsonl"')
        )
        reply = send(served.folder, Request("pause"))
        assert reply.ok, reply.text
        assert "paused" in reply.text or "pauses" in reply.text
        process = served.state.daemon
        assert process is not None
        assert os.getsid(process.pid) != os.getsid(0)
        served.ask("stop")
        waits(lambda: not served.state.live())
        os.kill(process.pid, 15)
        served.wait_gone()


class TestSend:
    def test_without_a_daemon_it_says_so(self, study) -> None:
        with pytest.raises(EngineError, match="no daemon serves"):
            send(study({}, {}).folder, Request("ping"), start=False)

    def test_a_daemon_that_does_not_answer_is_told_within_the_time(self, study) -> None:
        folder = study({}, {}).folder
        held = try_lock(folder / "daemon.lock")
        assert held is not None
        with pytest.raises(EngineError, match="cannot be reached"):
            send(folder, Request("ping"), timeout=0.2)
        os.close(held)

    def test_a_daemon_that_cannot_be_reached_is_named(self, study) -> None:
        served = study(LONG, {})
        daemon = served.start()
        (served.folder / "socket").unlink()
        with pytest.raises(EngineError, match=rf"end it \(kill {daemon.pid}\)"):
            send(served.folder, Request("ping"), timeout=0.2)


class TestDelete:
    def test_a_study_at_rest_is_deleted_whole(self, study) -> None:
        served = study({"steps": 3}, {})
        served.start()
        served.wait_status("finished")
        served.wait_gone()
        delete_study(served.folder)
        assert not served.folder.exists()

    def test_a_study_is_deleted_through_a_link_to_it(self, study, tmp_path: Path) -> None:
        folder = study({}, {}).folder
        (tmp_path / "link").symlink_to(folder)
        delete_study(tmp_path / "link")
        assert not folder.exists()

    def test_a_study_with_a_daemon_is_kept(self, study) -> None:
        served = study(LONG, {})
        served.start()
        with pytest.raises(EngineError, match="in use by its daemon"):
            delete_study(served.folder)
        assert (served.folder / "journal.jsonl").exists()

    def test_a_study_with_a_trial_is_kept(self, study) -> None:
        served = study(LONG, {})
        daemon = served.start()
        served.wait_step(1, 1)
        daemon.kill()
        daemon.wait()
        with pytest.raises(EngineError, match="trial 0001 of"):
            delete_study(served.folder)
        assert (served.folder / "journal.jsonl").exists()

    def test_a_folder_that_is_no_study_is_not_deleted(self, tmp_path: Path) -> None:
        (tmp_path / "thesis.tex").write_text("years of work")
        with pytest.raises(EngineError, match="holds no study"):
            delete_study(tmp_path)
        assert (tmp_path / "thesis.tex").exists()


def test_a_study_needs_a_daemon_while_work_waits_and_none_lives() -> None:
    waiting = StudyState(created=1.0, trials={1: Trial(1, {})})
    assert needs_daemon(waiting, alive=False)
    assert not needs_daemon(waiting, alive=True)
    waiting.status = "paused"
    assert not needs_daemon(waiting, alive=False)


def test_a_study_that_was_not_told_its_end_yet_needs_one_too() -> None:
    done = StudyState(created=1.0, trials={1: Trial(1, {}, status="completed")})
    assert needs_daemon(done, alive=False)
    done.status = "finished"
    assert not needs_daemon(done, alive=False)
    assert not needs_daemon(StudyState(), alive=False)
