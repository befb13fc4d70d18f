"""What a daemon does about memory, with real processes: a fake worker, and a fake adviser instead of dry runs."""

import json
import os
from pathlib import Path

from core.engine.memory.jobs import Result
from core.study.events import AdviceAsked, encode
from core.study.files import TrialForecast, read_record
from core.study.journal import seal
from core.study.store import StudyFolder

BATCH_4 = {"per_device_train_batch_size": 4, "gradient_accumulation_steps": 2}
BATCH_2 = {"per_device_train_batch_size": 2, "gradient_accumulation_steps": 4}
BATCH_1 = {"per_device_train_batch_size": 1, "gradient_accumulation_steps": 8}
ON_GPU = {"devices": "auto"}


def asked(served):
    """What advisers were asked, as (about, trial)."""
    file = served.folder / "asked.jsonl"
    lines = file.read_text().splitlines() if file.exists() else []
    return [tuple(json.loads(line)[:2]) for line in lines]


def forecast(served, number=1):
    return read_record(StudyFolder(served.folder).trial(number).forecast, TrialForecast)


class TestAfterACrash:
    def test_the_first_fix_that_fits_is_applied_and_the_trial_completes(self, study):
        served = study(
            {"oom_above": 3, "advice": {"gib_a_row": 2.0}},
            {},
            options={"gpus": 1},
            train={"per_device_train_batch_size": 8},
            resources=ON_GPU,
        )
        served.start()
        served.wait_status("finished")
        trial = served.trial()
        # 7.5 GiB hold three rows: eight were proven not to fit, and two do.
        assert (trial.status, trial.overrides) == ("completed", BATCH_2)

    def test_a_fix_is_looked_for_when_a_trial_dies_of_memory(self, study):
        served = study(
            {"oom_above": 4, "advice": {"gib_a_row": 0.01}},
            {},
            train={"per_device_train_batch_size": 8},
            options={"linger": 300},
        )
        served.start()
        trial = served.wait_status("completed", 1)
        assert asked(served) == [("fix", 1)]
        assert [a.ending for a in trial.attempts] == ["oom", "completed"]
        assert trial.overrides == BATCH_4
        assert trial.fixes == ("batch 8 → 4",)
        assert trial.advice == "activations hold the most"
        assert served.wait_status("finished").reason.startswith("best: trial 1")

    def test_asking_offers_three_and_a_person_takes_one(self, study):
        served = study(
            {"oom_above": 4, "advice": {"gib_a_row": 0.01}},
            {},
            train={"per_device_train_batch_size": 8},
            memory={"on_oom": "ask"},
            options={"linger": 300},
        )
        served.start()
        served.wait_status("finished")
        suggestion = served.trial().suggestion
        assert [o.changes for o in suggestion.fixes] == [BATCH_4, BATCH_2, BATCH_1]
        assert suggestion.changes == BATCH_4
        reply = served.ask("retry", 1, fix=3)
        assert reply.ok, reply.text
        assert served.wait_status("completed", 1).overrides == BATCH_1

    def test_an_adviser_that_falls_over_leaves_the_ladder(self, study):
        served = study(
            {"oom_above": 4, "advice": {"gib_a_row": 1, "crash": True}},
            {},
            train={"per_device_train_batch_size": 8},
        )
        served.start()
        served.wait_status("finished")
        trial = served.trial()
        assert (trial.status, trial.overrides) == ("completed", BATCH_4)
        assert trial.advice == "cannot prove: the dry run ended with code 3: It fell over"
        assert "the effective batch stays 8" in trial.fixes[0]

    def test_one_that_takes_too_long_leaves_the_ladder(self, study):
        served = study(
            {"oom_above": 4, "advice": {"gib_a_row": 1, "delay": 60}},
            {},
            train={"per_device_train_batch_size": 8},
            options={"advice_patience": 0.5},
        )
        served.start()
        assert served.wait_status("completed", 1).overrides == BATCH_4
        assert "took longer than 0 s" in served.trial().advice

    def test_another_run_than_the_one_asked_for_is_only_offered(self, study):
        served = study(
            {"oom_above": 4, "advice": {"gib_a_row": 0.01, "different": True}},
            {},
            train={"per_device_train_batch_size": 8},
        )
        served.start()
        served.wait_status("finished")
        assert served.trial().status == "oom"
        assert len(served.trial().suggestion.fixes) == 3

    def test_a_killed_daemon_takes_its_adviser_along_and_the_next_one_asks_again(
        self, study, waits
    ):
        served = study(
            {"oom_above": 4, "advice": {"gib_a_row": 0.01, "hold": True}},
            {},
            train={"per_device_train_batch_size": 8},
        )
        hold = served.folder / "hold"
        hold.touch()
        daemon = served.start()
        waits(lambda: asked(served) == [("fix", 1)])
        assert served.trial().advising == "fix"
        daemon.kill()
        daemon.wait()
        assert served.state.unfinished()
        hold.unlink()
        served.start()
        assert served.wait_status("completed", 1).overrides == BATCH_4
        assert asked(served) == [("fix", 1)] * 2

    def test_a_person_who_does_not_wait_for_the_answer_gets_the_trial_back_at_once(
        self, study, waits
    ):
        served = study(
            {"oom_above": 4, "advice": {"gib_a_row": 0.01, "delay": 60}},
            {},
            train={"per_device_train_batch_size": 8},
        )
        served.start()
        waits(lambda: asked(served))
        reply = served.ask("retry", 1, BATCH_1)
        assert reply.ok, reply.text
        assert served.wait_status("completed", 1).overrides == BATCH_1
        served.wait_gone()


class TestBeforeAStart:
    def test_what_does_not_fit_is_queued_with_a_fix_before_it_costs_a_minute(self, study):
        served = study(
            {"advice": {"gib_a_row": 2.0}},
            {"per_device_train_batch_size": [1, 8]},
            options={"gpus": 1},
            train={"gradient_accumulation_steps": 2},
            resources=ON_GPU,
        )
        served.start()
        state = served.wait_status("finished")
        assert [len(t.attempts) for t in state.trials.values()] == [1, 1]
        assert [t.status for t in state.trials.values()] == ["completed"] * 2
        mended = state.trials[2]
        assert mended.overrides == {
            "per_device_train_batch_size": 2,
            "gradient_accumulation_steps": 8,
        }
        made = forecast(served, 2)
        assert (made.tier, made.needed, made.capacity) == ("proof", 4 << 30, int(7.5 * (1 << 30)))
        assert mended.forecast == 4 << 30

    def test_asking_leaves_it_skipped_with_the_numbers_until_a_person_decides(self, study):
        served = study(
            {"advice": {"gib_a_row": 2.0}},
            {},
            options={"gpus": 1, "linger": 300},
            train={"per_device_train_batch_size": 8},
            resources=ON_GPU,
            memory={"on_oom": "ask"},
        )
        served.start()
        state = served.wait_status("finished")
        trial = state.trials[1]
        assert state.reason == "no trial completed: none fits its GPU"
        assert (trial.status, trial.attempts) == ("skipped", ())
        assert trial.reason == "proven not to fit: needs 16.5 GiB, GPU 0 has 8.0 GiB free"
        assert [o.changes for o in trial.suggestion.fixes] == [BATCH_2, BATCH_1]
        assert served.ask("retry", 1, fix=0).ok
        assert served.wait_status("completed", 1).overrides == {}
        assert asked(served) == [("start", 1)]

    def test_skipping_starts_neither_it_nor_a_fix(self, study):
        served = study(
            {"advice": {"gib_a_row": 2.0}},
            {"per_device_train_batch_size": [1, 8]},
            options={"gpus": 1},
            resources=ON_GPU,
            memory={"on_oom": "skip"},
        )
        served.start()
        state = served.wait_status("finished")
        assert [t.status for t in state.trials.values()] == ["completed", "skipped"]
        assert state.trials[2].suggestion is None

    def test_trials_of_the_same_shape_are_proven_once(self, study):
        served = study(
            {"advice": {"gib_a_row": 0.5}},
            {"learning_rate": [1e-4, 1e-3, 1e-2]},
            options={"gpus": 2},
            train={"per_device_train_batch_size": 8},
            resources=ON_GPU,
        )
        served.start()
        state = served.wait_status("finished")
        assert [t.status for t in state.trials.values()] == ["completed"] * 3
        assert asked(served) == [("start", 1)]
        assert {forecast(served, n).tier for n in (1, 2, 3)} == {"proof"}

    def test_what_cannot_be_proven_starts(self, study):
        served = study(
            {"advice": {"problem": "experts are routed by the data"}},
            {},
            options={"gpus": 1},
            train={"per_device_train_batch_size": 8},
            resources=ON_GPU,
        )
        served.start()
        served.wait_status("finished")
        assert served.trial().status == "completed"
        assert served.trial().advice == "cannot prove that it fits: experts are routed by the data"

    def test_what_surely_fits_starts_without_a_dry_run(self, study):
        served = study({"advice": {"gib_a_row": 1.0}}, {}, options={"gpus": 1}, resources=ON_GPU)
        served.start()
        served.wait_status("finished")
        assert asked(served) == []
        assert forecast(served).tier == "estimate"

    def test_on_the_cpu_nothing_is_proven_and_an_estimate_is_left(self, study):
        served = study({"advice": {"gib_a_row": 99.0}}, {})
        served.start()
        served.wait_status("finished")
        assert asked(served) == []
        assert forecast(served).device == "the CPU"
        assert served.trial().forecast is None

    def test_the_next_trials_are_proven_while_one_trains(self, study, waits):
        served = study(
            {"steps": 4000, "delay": 0.05, "advice": {"gib_a_row": 0.5}},
            {"per_device_train_batch_size": [8, 7]},
            options={"gpus": 1},
            resources=ON_GPU,
        )
        served.start()
        served.wait_step(1, 2)
        waits(lambda: asked(served) == [("start", 1), ("start", 2)])
        waits(lambda: served.trial(2).advice == "proven to need 4.0 GiB")
        assert served.trial(2).status == "queued"

    def test_a_stopped_trial_ends_the_look_into_its_memory(self, study, waits):
        served = study(
            {"advice": {"gib_a_row": 2.0, "delay": 60}},
            {},
            options={"gpus": 1},
            train={"per_device_train_batch_size": 8},
            resources=ON_GPU,
        )
        daemon = served.start()
        waits(lambda: served.trial().advising == "start")
        assert served.ask("stop", 1).ok
        assert daemon.wait() == 0
        assert served.trial().status == "stopped"

    def test_a_restarted_daemon_knows_what_was_proven(self, study, waits):
        script = {"steps": 4000, "delay": 0.02, "advice": {"gib_a_row": 0.5}}
        served = study(
            script,
            {"learning_rate": [1e-4, 1e-3]},
            options={"gpus": 1},
            train={"per_device_train_batch_size": 8},
            resources=ON_GPU,
        )
        daemon = served.start()
        served.wait_step(1, 2)
        daemon.kill()
        daemon.wait()
        served.options["gpus"] = 2
        served.start()
        served.wait_step(2, 2)
        assert asked(served) == [("start", 1)]

    def test_what_an_earlier_daemon_had_asked_and_knew_is_said(self, study, waits):
        served = study(
            {"steps": 4000, "delay": 0.02, "advice": {"gib_a_row": 0.5}},
            {"learning_rate": [1e-4, 1e-3]},
            options={"gpus": 1},
            train={"per_device_train_batch_size": 8},
            resources=ON_GPU,
        )
        daemon = served.start()
        served.wait_step(1, 2)
        daemon.kill()
        daemon.wait()
        question = AdviceAsked(t=1.0, trial=2, attempt=1, about="start")
        with (served.folder / "journal.jsonl").open("ab") as journal:
            journal.write(seal(encode(question)))
        served.start()
        waits(lambda: served.trial(2).advice == "proven to need 4.5 GiB")
        assert served.trial(2).advising is None
        assert asked(served) == [("start", 1)]


class TestFit:
    def test_every_trial_gets_the_largest_batch_that_fits(self, study):
        served = study(
            {"advice": {"gib_a_row": 2.0}},
            {"learning_rate": [1e-4, 1e-3]},
            options={"gpus": 1},
            train={"per_device_train_batch_size": 8},
            resources=ON_GPU,
            search={"fit": True},
        )
        served.start()
        state = served.wait_status("finished")
        for trial in state.trials.values():
            assert (trial.status, trial.overrides) == ("completed", BATCH_2)
            assert trial.fitted == "batch 8 → 2 (needs 4.0 GiB, proven)"
            assert trial.fixes == ()
        assert asked(served) == [("fit", 1)]

    def test_an_estimate_does_where_nothing_can_be_proven(self, study):
        served = study(
            {"advice": {"gib_a_row": 0.001, "estimate": True}},
            {},
            train={"per_device_train_batch_size": 8},
            search={"fit": True},
        )
        served.start()
        served.wait_status("finished")
        assert served.trial().status == "completed"
        assert served.trial().fitted.endswith("an estimate)")
        assert asked(served) == [("fit", 1)]

    def test_without_an_answer_the_batch_of_the_profile_runs(self, study):
        served = study({}, {}, train={"per_device_train_batch_size": 8}, search={"fit": True})
        served.start()
        served.wait_status("finished")
        trial = served.trial()
        assert (trial.status, trial.overrides) == ("completed", {})
        assert trial.fitted == "the batch stays as it is: there is no dry run here"


def test_an_idle_daemon_leaves_no_adviser_behind(study, waits):
    served = study(
        {"oom_above": 4, "advice": {"gib_a_row": 0.01, "delay": 60}},
        {},
        train={"per_device_train_batch_size": 8},
    )
    daemon = served.start()
    waits(lambda: asked(served))
    daemon.terminate()
    assert daemon.wait() == 0
    mine = str(served.folder).encode()

    def gone():
        left = []
        for pid in filter(str.isdecimal, os.listdir("/proc")):
            try:
                line = Path(f"/proc/{pid}/cmdline").read_bytes()
            except OSError:
                continue
            left += [pid] if mine in line and b"fake_adviser" in line else []
        return not left

    waits(gone)
    assert read_record(served.folder / "trials/0001/advice.json", Result) is None
