"""The daemon with real processes: a fake worker under real shims."""

import json
import os
import signal
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import pytest

from core.engine.client import daemon_alive
from core.engine.prepare import creation
from core.engine.standing import best_trial
from core.profile import load
from core.study.events import encode
from core.study.files import RunInfo, read_record
from core.study.journal import seal
from core.study.metrics import read_points
from core.study.store import StudyFolder

RATES = {"learning_rate": [1e-4, 1e-3, 1e-2]}


def points(served, number=1):
    return read_points(StudyFolder(served.folder).trial(number).metrics)


def kill(daemon):
    daemon.kill()
    daemon.wait()


def test_a_grid_runs_to_its_end_and_names_the_best_trial(study):
    served = study({"steps": 8}, RATES, resources={"parallel": 2})
    daemon = served.start()
    state = served.wait_status("finished")
    assert [t.status for t in state.trials.values()] == ["completed"] * 3
    assert state.reason == "best: trial 2, eval_loss 1.75"
    assert best_trial(state).settings == {"learning_rate": 1e-3}
    assert [t.step for t in state.trials.values()] == [8, 8, 8]
    assert daemon.wait() == 0
    assert not daemon_alive(served.folder)


def test_no_more_trials_than_allowed_run_at_once(study):
    served = study(
        {"steps": 5, "delay": 0.05},
        {"learning_rate": [1e-4, 2e-4, 3e-4, 4e-4, 5e-4]},
        resources={"parallel": 2},
    )
    served.start()
    state = served.wait_status("finished")
    spans = [(t.attempt.started, t.attempt.ended) for t in state.trials.values()]
    for started, _ in spans:
        assert sum(a <= started < b for a, b in spans) <= 2


def test_a_trial_that_runs_out_of_memory_is_fixed_and_completes(study):
    served = study({"oom_above": 2}, {}, train={"per_device_train_batch_size": 8})
    served.start()
    trial = next(iter(served.wait_status("finished").trials.values()))
    assert trial.status == "completed"
    assert [a.ending for a in trial.attempts] == ["oom", "oom", "completed"]
    assert trial.overrides == {"per_device_train_batch_size": 2, "gradient_accumulation_steps": 4}
    assert len(trial.fixes) == 2


def test_asking_about_memory_waits_for_the_user_and_does_not_keep_the_study_open(study):
    served = study(
        {"oom_above": 2},
        {},
        options={"linger": 300},
        train={"per_device_train_batch_size": 4},
        memory={"on_oom": "ask"},
    )
    served.start()
    served.wait_status("finished")
    trial = served.trial()
    assert trial.status == "oom"
    assert trial.suggestion.changes == {
        "per_device_train_batch_size": 2,
        "gradient_accumulation_steps": 2,
    }
    reply = served.ask("retry", 1)
    assert reply.ok, reply.text
    assert served.wait_status("completed", 1).fixes == (trial.suggestion.text,)


def test_a_diverging_trial_is_stopped_and_the_reason_kept(study):
    served = study({"steps": 4000, "delay": 0.02, "diverge_above": 1e-3}, {"learning_rate": [1e-2]})
    served.start()
    trial = served.wait_status("diverged", 1)
    assert "not a number" in trial.reason
    assert trial.asked_by == "guard"
    assert trial.step < 4000


def test_without_the_guard_a_run_that_ends_without_a_number_is_diverged_all_the_same(study):
    served = study(
        {"steps": 8, "diverge_above": 1e-3}, {"learning_rate": [1e-2]}, search={"guard": False}
    )
    served.start()
    trial = served.wait_status("diverged", 1)
    assert (trial.asked, trial.loss) == (None, trial.loss)
    assert trial.reason == "its loss is not a number (NaN) at step 8"


def test_a_paused_trial_lets_others_run_and_continues_from_its_checkpoint(study):
    served = study({"steps": 30, "hang_at": 5}, {"learning_rate": [1e-4, 1e-3]})
    served.start()
    served.wait_step(1, 3)
    assert served.ask("pause", 1).ok
    paused = served.wait_status("paused", 1)
    assert paused.resume_from == f"checkpoints/checkpoint-{paused.step}"
    served.wait_status("running", 2)
    assert served.ask("resume", 1).ok
    served.go(2)
    state = served.wait_status("finished")
    assert state.trials[1].status == state.trials[2].status == "completed"
    assert [p.step for p in points(served) if p.loss is not None] == list(range(1, 31))


def test_a_paused_study_ends_its_daemon_and_continues_with_the_next(study):
    served = study({"steps": 30, "hang_at": 5, "hang": [1]}, {"learning_rate": [1e-4, 1e-3]})
    daemon = served.start()
    served.wait_step(1, 3)
    assert served.ask("pause").ok
    served.wait_status("paused", 1)
    assert daemon.wait() == 0
    assert served.trial(2).status == "queued"
    served.options["linger"] = 300.0
    served.start()
    assert served.ask("resume").ok
    assert served.wait_status("completed", 1).step == 30
    served.wait_status("finished")


def test_a_trial_that_is_the_last_thing_left_and_paused_pauses_the_study(study):
    served = study({"steps": 4000, "delay": 0.02}, {}, options={"linger": 300})
    served.start()
    served.wait_step(1, 3)
    served.ask("pause", 1)
    assert "trial 1 is paused" in served.wait_status("paused").reason
    assert served.ask("resume", 1).ok
    served.wait_status("running", 1)
    assert served.state.status == "running"


def test_a_stopped_study_starts_nothing_more(study):
    served = study({"steps": 4000, "delay": 0.02}, RATES)
    daemon = served.start()
    served.wait_step(1, 3)
    assert served.ask("stop").ok
    daemon.wait()
    state = served.state
    assert state.status == "stopped"
    assert [t.status for t in state.trials.values()] == ["stopped"] * 3
    assert len(state.trials[2].attempts) == 0


def test_a_promoted_trial_runs_as_a_full_training(study):
    served = study({"steps": 5}, {"learning_rate": [1e-4, 1e-3]}, options={"linger": 300})
    served.start()
    served.wait_status("finished")
    reply = served.ask("promote", 2)
    assert (reply.ok, reply.trial) == (True, 3)
    trial = served.wait_status("completed", 3)
    assert (trial.kind, trial.parent, trial.settings) == ("full", 2, {"learning_rate": 1e-3})
    task = json.loads((served.folder / "trials/0003/task.json").read_text())
    assert (task["kind"], task["budget"], task["save_model"]) == ("full", 1.0, True)


def test_a_profile_without_a_search_is_one_full_training(study):
    served = study({"steps": 5}, {})
    served.start()
    state = served.wait_status("finished")
    assert [t.kind for t in state.trials.values()] == ["full"]
    assert state.reason.startswith("best: trial 1")


def test_two_trials_that_fail_alike_at_their_start_pause_the_study(study):
    served = study(
        {"fail": "the model x does not exist"}, {"learning_rate": [1e-4, 2e-4, 3e-4, 4e-4]}
    )
    served.start()
    state = served.wait_status("paused")
    assert "the model x does not exist" in state.reason
    assert [t.status for t in state.trials.values()] == ["failed", "failed", "queued", "queued"]
    assert state.trials[1].usage_error


def test_the_last_words_of_a_worker_that_reports_nothing_are_its_reason(study):
    served = study({"silent": True}, {})
    served.start()
    assert served.wait_status("failed", 1).reason == "the worker ended with code 3: the last words"


def test_a_worker_that_is_killed_has_failed_and_others_go_on(study):
    served = study({"steps": 10, "kill_self": 9}, {"learning_rate": [1e-4, 1e-3]})
    served.start()
    state = served.wait_status("finished")
    assert "killed from outside" in state.trials[1].reason
    assert state.trials[1].step == 5
    assert state.reason.startswith(
        "no trial completed: 2 failed (the worker was killed from outside"
    )


def test_settings_that_do_not_go_together_fail_their_trial_only(study):
    space = {"finetuning_type": ["full", "lora"], "lora_rank": [4, 8]}
    served = study({"steps": 5}, space)
    profile = served.folder / "profile.toml"
    # Planned as if all of them could run, as a study of an earlier version is.
    records = creation(load(profile), 1.0)
    (served.folder / "journal.jsonl").write_bytes(b"".join(seal(encode(r)) for r in records))
    profile.write_text(
        profile.read_text().replace("[model]\n", "[model]\nquantization_bit = 4\n", 1)
    )
    served.start()
    state = served.wait_status("finished")
    statuses = [t.status for t in state.trials.values()]
    assert statuses == ["failed", "completed", "completed"]
    assert "quantised weights" in state.trials[1].reason


def test_a_place_that_no_trial_can_use_pauses_the_study_instead_of_failing_all(study):
    served = study({"steps": 5}, {"learning_rate": [1e-4, 2e-4, 3e-4, 4e-4]})
    (served.folder / "trials").write_text("in the way")
    served.start()
    state = served.wait_status("paused")
    assert "its folder cannot be written: Not a directory" in state.reason
    assert [t.status for t in state.trials.values()] == ["failed", "failed", "queued", "queued"]


class TestSurvival:
    def test_a_killed_daemon_leaves_its_trials_and_the_next_adopts_them(self, study):
        served = study({"steps": 60, "delay": 0.03}, {"learning_rate": [1e-4, 1e-3]})
        kill_me = served.start()
        served.wait_step(1, 3)
        shim = served.trial().attempt.shim
        kill(kill_me)
        served.wait_step(1, 6)
        served.start()
        state = served.wait_status("finished")
        assert [len(t.attempts) for t in state.trials.values()] == [1, 1]
        assert state.trials[1].attempt.shim == shim
        assert [p.step for p in points(served) if p.loss is not None] == list(range(1, 61))

    def test_a_trial_that_ended_while_no_daemon_lived_is_classed_by_the_next(self, study, waits):
        served = study({"steps": 10, "hang_at": 3}, {})
        daemon = served.start()
        served.wait_step(1, 3)
        kill(daemon)
        served.go()
        waits((served.folder / "trials/0001/exit.json").exists)
        assert served.trial().status == "running"
        served.start()
        assert served.wait_status("completed", 1).step == 10

    def test_the_guard_of_the_next_daemon_stops_what_diverged_meanwhile(self, study):
        served = study(
            {"steps": 2000, "delay": 0.2, "diverge_above": 1e-3}, {"learning_rate": [1e-2]}
        )
        daemon = served.start()
        served.wait_status("running", 1)
        kill(daemon)
        served.wait_step(1, 8)
        served.start()
        assert "at step 5" in served.wait_status("diverged", 1).reason

    @pytest.mark.parametrize("number", [1, 2, 3, 4, 8])
    @pytest.mark.parametrize("when", ["before", "after"])
    def test_a_daemon_may_die_around_any_record(self, study, when, number):
        """Records of this study: creation, then start, started and end of each trial, then the study's end."""
        served = study({"steps": 6, "delay": 0.02}, {"learning_rate": [1e-4, 1e-3]})
        served.options["die_at"] = [when, number]
        assert served.launch().wait() == 9
        del served.options["die_at"]
        served.start()
        state = served.wait_status("finished")
        for trial in state.trials.values():
            assert [(a.number, a.ending) for a in trial.attempts] == [(1, "completed")]
            steps = [p.step for p in points(served, trial.number) if p.loss is not None]
            assert steps == list(range(1, 7))

    def test_a_lost_trial_is_tried_once_more_and_then_left(self, study, waits):
        served = study({"steps": 4000, "delay": 0.02, "child": True}, {})
        served.start()
        for attempt in (1, 2):
            waits(
                lambda n=attempt: (
                    served.trial().status == "running" and served.trial().attempt.number == n
                )
            )
            served.wait_step(1, 3)
            os.kill(served.trial().attempt.shim.pid, signal.SIGKILL)
            waits(
                lambda n=attempt: (
                    served.trial().attempt.ending == "lost" or served.trial().attempt.number > n
                )
            )
        state = served.wait_status("finished")
        assert [a.ending for a in state.trials[1].attempts] == ["lost", "lost"]
        assert state.trials[1].status == "lost"

    def test_a_request_written_down_before_the_daemon_died_is_made_by_the_next(self, study):
        served = study({"steps": 4000, "delay": 0.02}, {})
        daemon = served.start()
        served.wait_step(1, 3)
        kill(daemon)
        from core.study.events import TrialAsked

        asked = TrialAsked(
            t=1.0, trial=1, attempt=1, ask="stop", by="user", reason="stopped by you"
        )
        with (served.folder / "journal.jsonl").open("ab") as journal:
            journal.write(seal(encode(asked)))
        served.start()
        assert served.wait_status("stopped", 1).reason == "stopped by you"

    def test_an_attempt_that_was_announced_and_never_made_is_queued_again(self, study):
        served = study({"steps": 5}, {}, options={"linger": 0})
        from core.study.events import TrialStarting

        records = [*creation(load(served.folder / "profile.toml"), 1.0)]
        records.append(TrialStarting(t=1.0, trial=1, attempt=1, device="cpu"))
        (served.folder / "journal.jsonl").write_bytes(b"".join(seal(encode(r)) for r in records))
        served.start()
        trial = served.wait_status("completed", 1)
        assert [a.number for a in trial.attempts] == [1]

    def test_nothing_of_the_study_is_lost_when_the_journal_is_torn(self, study):
        script = {"steps": 40, "hang_at": 3, "hang": [1]}
        served = study(script, {"learning_rate": [1e-4, 1e-3]})
        daemon = served.start()
        served.wait_step(1, 3)
        kill(daemon)
        with (served.folder / "journal.jsonl").open("ab") as journal:
            journal.write(b'["0123abcd",99,{"event":"war')
        served.go()
        served.start()
        assert "torn record" in served.log()
        assert [t.status for t in served.wait_status("finished").trials.values()] == [
            "completed"
        ] * 2

    def test_a_daemon_that_is_told_to_end_leaves_its_trials_running(self, study):
        served = study({"steps": 4000, "delay": 0.02}, {})
        daemon = served.start()
        served.wait_step(1, 2)
        daemon.terminate()
        assert daemon.wait() == 0
        before = points(served)[-1].step
        served.wait_step(1, before + 5)

    def test_deleting_the_folder_ends_the_daemon_and_its_trials(self, study, waits):
        import shutil

        served = study({"steps": 4000, "delay": 0.02}, {})
        daemon = served.start()
        served.wait_step(1, 2)
        shim = served.trial().attempt.shim
        shutil.rmtree(served.folder)
        assert daemon.wait() == 0
        waits(
            lambda: (
                not Path(f"/proc/{shim.pid}").exists()
                or "Z" in Path(f"/proc/{shim.pid}/stat").read_text()
            )
        )
        assert not served.folder.exists()


class TestSecondDaemon:
    def test_it_ends_with_a_sentence_and_changes_nothing(self, study):
        served = study({"steps": 4000, "delay": 0.02}, {})
        served.start()
        journal = (served.folder / "journal.jsonl").read_bytes()
        second = served.launch()
        assert second.wait() == 1
        assert second.stdout.read() == f"a daemon serves the study {served.folder} already\n"
        assert served.ask("ping").ok
        assert (served.folder / "journal.jsonl").read_bytes().startswith(journal)

    def test_the_real_one_says_so_on_standard_error(self, study):
        served = study({"steps": 4000, "delay": 0.02}, {})
        served.start()
        program = Path(__file__).resolve().parents[3] / "tunedeck.py"
        done = subprocess.run(
            [sys.executable, "-P", str(program), "_daemon", str(served.folder)],
            capture_output=True,
            text=True,
            timeout=240,
        )
        assert done.returncode == 1
        assert done.stderr == f"a daemon serves the study {served.folder} already\n"


def test_a_study_of_a_newer_version_is_not_touched(study):
    served = study({}, {})
    record = seal(
        b'{"event":"study-created","t":1.0,"version":99,"name":"x","tunedeck":"9","rank_by":"loss","planned":1}'
    )
    journal = served.folder / "journal.jsonl"
    journal.write_bytes(record + b'["torn')
    before = sorted(os.listdir(served.folder))
    daemon = served.launch()
    assert daemon.wait() == 1
    assert "newer version" in daemon.stdout.read()
    assert journal.read_bytes() == record + b'["torn'
    assert sorted(os.listdir(served.folder)) == before


class TestFullDisk:
    def test_the_study_pauses_keeps_every_record_and_can_go_on(self, study, tmp_path, waits):
        flag = tmp_path / "full"
        served = study(
            {"steps": 15, "hang_at": 3, "hang": [1]},
            {"learning_rate": [1e-4, 1e-3]},
            options={"full_flag": str(flag), "linger": 300},
        )
        served.start()
        served.wait_step(1, 3)
        flag.touch()
        before = (served.folder / "journal.jsonl").read_bytes()
        served.go()
        waits(lambda: "disk is full" in served.ask("ping").text)
        assert (served.folder / "journal.jsonl").read_bytes().startswith(before)
        assert "disk is full" in served.log()
        refused = served.ask("add", changes={"learning_rate": 2e-3})
        assert not refused.ok
        assert "disk is full" in refused.text
        flag.unlink()
        state = served.wait_status("paused")
        assert "disk is full" in state.reason
        assert state.trials[1].status == "completed"
        assert state.trials[2].status == "queued"
        assert (served.folder / "journal.jsonl").read_bytes().startswith(before)
        assert served.ask("resume").ok
        assert served.wait_status("finished").trials[2].status == "completed"

    def test_a_worker_that_could_not_write_pauses_the_study_and_runs_again(self, study):
        served = study({"disk_full": True}, {"learning_rate": [1e-4, 1e-3]})
        served.start()
        state = served.wait_status("paused")
        assert "disk is full" in state.reason
        assert state.trials[1].status == "queued"
        assert state.trials[1].attempt.ending == "failed"

    def test_a_study_cannot_begin_on_a_full_disk(self, study, tmp_path):
        flag = tmp_path / "full"
        flag.touch()
        served = study({"steps": 5}, {}, options={"full_flag": str(flag)})
        daemon = served.launch()
        assert daemon.wait() == 1
        assert "disk is full" in daemon.stdout.read()
        flag.unlink()
        served.start()
        served.wait_status("finished")


class TestGpus:
    def test_each_trial_has_a_gpu_of_its_own_by_uuid(self, study):
        served = study(
            {"steps": 20, "delay": 0.03},
            {"learning_rate": [1e-4, 1e-3, 1e-2]},
            options={"gpus": 2},
            resources={"devices": "auto"},
        )
        served.start()
        state = served.wait_status("finished")
        used = [t.attempt.gpus for t in state.trials.values()]
        assert set(used) == {("GPU-0",), ("GPU-1",)}
        for one in state.trials.values():
            for two in state.trials.values():
                if one.number < two.number and one.attempt.gpus == two.attempt.gpus:
                    assert one.attempt.ended <= two.attempt.started

    def test_a_trial_of_two_gpus_starts_when_both_are_free(self, study):
        served = study(
            {"steps": 20, "delay": 0.03},
            {"learning_rate": [1e-4, 1e-3, 1e-2]},
            options={"gpus": 3},
            resources={"devices": "auto", "gpus_per_trial": 2},
        )
        served.start()
        state = served.wait_status("finished")
        attempts = [t.attempt for t in state.trials.values()]
        assert [a.gpus for a in attempts] == [("GPU-0", "GPU-1")] * 3
        assert all(a.ended <= b.started for a, b in pairwise(attempts))

    def test_trials_that_are_to_have_more_gpus_than_there_are_say_so(self, study, waits):
        options = {"gpus": 1, "linger": 300}
        served = study({}, {}, options=options, resources={"devices": "auto", "gpus_per_trial": 2})
        served.start()
        waits(lambda: "is to have 2 GPUs" in (served.state.reason or ""), "the reason")
        assert served.trial().status == "queued"
        served.ask("stop")
        served.wait_status("stopped")

    def test_two_studies_never_share_a_gpu(self, study, waits):
        options = {"gpus": 1, "linger": 300}
        first = study(
            {"steps": 4000, "delay": 0.05}, {}, options=options, resources={"devices": "auto"}
        )
        second = study({"steps": 5}, {}, options=options, resources={"devices": "auto"})
        first.start()
        first.wait_status("running", 1)
        second.start()
        second.wait_status("running")
        waits(lambda: "another study uses it" in second.log() + (second.state.reason or ""))
        assert second.trial().status == "queued"
        first.ask("stop")
        second.wait_status("finished")
        assert first.trial().status == "stopped"

    def test_a_user_who_may_see_one_gpu_only_gets_that_one(self, study, monkeypatch):
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1")
        served = study({"steps": 5}, RATES, options={"gpus": 3}, resources={"devices": "auto"})
        served.start()
        state = served.wait_status("finished")
        assert {t.attempt.gpus for t in state.trials.values()} == {("GPU-1",)}


def test_a_worker_that_does_not_stop_is_killed(study):
    served = study({"steps": 4000, "delay": 0.02, "deaf": True}, {}, options={"stop_grace": 0.5})
    served.start()
    served.wait_step(1, 3)
    served.ask("stop", 1)
    trial = served.wait_status("stopped", 1)
    assert "was killed" in trial.reason


def test_a_pause_that_takes_long_is_told_of(study, waits):
    served = study({"steps": 4000, "delay": 0.02}, {}, options={"pause_patience": 0.2})
    served.start()
    served.wait_step(1, 2)
    # The worker is held still, so that it cannot save.
    worker = int(
        Path(
            f"/proc/{served.trial().attempt.shim.pid}/task/{served.trial().attempt.shim.pid}/children"
        ).read_text()
    )
    os.kill(worker, signal.SIGSTOP)
    served.ask("pause", 1)
    waits(lambda: any("not saved its checkpoint" in w.text for w in served.state.warnings))
    os.kill(worker, signal.SIGCONT)
    assert served.wait_status("paused", 1).resume_from is not None


def test_a_trial_that_logs_nothing_is_shown_as_stalled_until_it_logs_again(study, waits):
    served = study({"steps": 20, "delay": 0.02, "hang_at": 5}, {}, options={"stall_patience": 0.5})
    served.start()
    stalled = waits(lambda: served.trial().stalled)
    assert "nothing logged" in stalled
    assert served.trial().status == "running"
    (served.folder / "trials/0001/go").touch()
    waits(lambda: not served.trial().stalled)
    waits(lambda: "trial 1: it logs again" in served.log() or served.trial().ended)
    served.wait_status("finished")


def test_the_run_record_of_the_last_attempt_stays(study):
    served = study({"steps": 5}, {})
    served.start()
    served.wait_status("finished")
    run = read_record(StudyFolder(served.folder).trial(1).run, RunInfo)
    assert run is not None
    assert run.total_steps == 5


@pytest.mark.parametrize("command", ["stop", "pause", "resume", "retry", "promote"])
def test_a_request_about_a_trial_that_does_not_exist_is_refused(study, command):
    served = study({"steps": 4000, "delay": 0.02}, {})
    served.start()
    reply = served.ask(command, 7)
    assert (reply.ok, reply.text) == (False, "there is no trial 7: they are numbered 1 to 1")
