"""The search carried on by real daemons: proposals, confirmations, range tests, what is continued."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from core.engine.client import create_study
from core.engine.proposing import ProposalError, Proposer
from core.engine.scheduler import Supply
from core.engine.searching import SAMPLER_FAILED, wanted
from core.search.proposals import ProposeRequest
from core.study.files import RangeTest
from core.study.state import StudyState, Trial
from core.study.store import StudyError

WIDE = {"learning_rate": {"low": 1e-5, "high": 1e-3, "scale": "log"}}
BAYESIAN = {"strategy": "bayesian", "stopping": "none", "trials": 8}


def statuses(state):
    return [t.status for t in state.trials.values()]


class TestProposals:
    def test_trials_are_proposed_as_places_become_free(self, study, tmp_path):
        log = tmp_path / "asked.jsonl"
        served = study(
            {"steps": 5},
            WIDE,
            options={"proposer": {"log": str(log)}},
            search=BAYESIAN,
            resources={"parallel": 2},
        )
        served.start()
        state = served.wait_status("finished")
        assert (state.strategy, state.planned, len(state.trials)) == ("bayesian", 8, 8)
        assert all(t.sampled == t.settings for t in state.trials.values())
        asked = [json.loads(line) for line in log.read_text().splitlines()]
        assert sum(a["count"] for a in asked) == 4
        # Each was asked for with all but those that still ran known.
        for ask in asked:
            running = [s for s in ask["trials"] if s.get("state", "running") == "running"]
            assert len(running) <= 2 - ask["count"]
        assert len(asked[-1]["trials"]) == 8 - asked[-1]["count"]

    def test_under_halving_all_are_proposed_before_any_is_dropped(self, study):
        served = study(
            {"steps": 20},
            WIDE,
            search={**BAYESIAN, "stopping": "halving", "first_rung": 0.1},
            resources={"parallel": 2},
        )
        served.start()
        state = served.wait_status("finished")
        assert len(state.trials) == 8
        assert statuses(state).count("completed") >= 2
        assert statuses(state).count("pruned") >= 4
        assert all(t.rungs[0].step == 2 for t in state.trials.values())

    @pytest.mark.parametrize("how", [{"crash": True}, {"delay": 60}])
    def test_a_sampler_that_fails_is_told_of_once_and_the_rest_drawn(self, study, how):
        served = study(
            {"steps": 5},
            WIDE,
            options={"proposer": how, "proposal_patience": 0.3},
            search=BAYESIAN,
        )
        served.start()
        state = served.wait_status("finished")
        assert statuses(state) == ["completed"] * 8
        (told,) = [w.text for w in state.warnings if w.text.startswith(SAMPLER_FAILED)]
        assert ("no sampler here" in told) or ("took longer" in told)
        rates = [t.settings["learning_rate"] for t in state.trials.values()]
        assert len(set(rates)) == 8
        assert all(1e-5 <= rate <= 1e-3 for rate in rates)

    def test_a_space_without_anything_new_ends_the_search(self, study):
        served = study({"steps": 5}, WIDE, options={"proposer": {"empty": True}}, search=BAYESIAN)
        served.start()
        state = served.wait_status("finished")
        assert (state.planned, len(state.trials)) == (4, 4)
        assert "holds nothing else to try" in served.log()

    def test_a_pause_ends_what_is_asked_and_a_resume_asks_again(self, study, waits, tmp_path):
        log, hold = tmp_path / "asked.jsonl", tmp_path / "hold"
        hold.touch()
        served = study(
            {"steps": 5},
            WIDE,
            options={"proposer": {"hold": str(hold), "log": str(log)}, "linger": 300},
            search={**BAYESIAN, "trials": 5},
        )
        served.start()
        waits(log.exists)
        assert served.ask("pause").ok
        waits(lambda: not served.state.live())
        assert len(served.state.trials) == 4
        hold.unlink()
        assert served.ask("resume").text == "the study goes on with 1 trial"
        state = served.wait_status("finished")
        assert len(state.trials) == 5
        assert len(log.read_text().splitlines()) == 2

    def test_a_stopped_study_asks_for_nothing_when_it_gets_other_work(self, study, waits, tmp_path):
        log, hold = tmp_path / "asked.jsonl", tmp_path / "hold"
        hold.touch()
        served = study(
            {"steps": 5},
            WIDE,
            options={"proposer": {"hold": str(hold), "log": str(log)}, "linger": 300},
            search=BAYESIAN,
        )
        served.start()
        waits(log.exists)
        assert served.ask("stop").ok
        waits(lambda: served.state.status == "stopped")
        assert served.ask("promote", 1).ok
        state = served.wait_status("finished")
        assert len(state.trials) == 5
        assert len(log.read_text().splitlines()) == 1

    def test_a_daemon_that_dies_while_it_waits_for_a_proposal_is_followed_by_one_that_asks_again(
        self, study, waits, tmp_path
    ):
        log, hold = tmp_path / "asked.jsonl", tmp_path / "hold"
        hold.touch()
        served = study(
            {"steps": 5},
            WIDE,
            options={"proposer": {"hold": str(hold), "log": str(log)}},
            search={**BAYESIAN, "trials": 5},
        )
        daemon = served.start()
        waits(log.exists)
        daemon.kill()
        daemon.wait()
        hold.unlink()
        served.options["proposer"] = {}
        served.start()
        state = served.wait_status("finished")
        assert statuses(state) == ["completed"] * 5


@pytest.mark.parametrize(("free", "count"), [("a", 0), ("ab", 1), ("abc", 1), ("abcd", 2)])
def test_a_trial_of_two_gpus_is_proposed_when_both_are_free(free: str, count: int) -> None:
    running = StudyState(trials={1: Trial(1, {}, status="running")})
    supply = Supply("cuda", most=3, free=tuple(free), each=2, total=6)
    assert wanted(running, supply) == count


def test_a_proposer_that_cannot_be_started_says_so() -> None:
    proposer = Proposer(lambda: ["/does/not/exist"])
    with pytest.raises(ProposalError, match="No such file"):
        proposer.start(ProposeRequest(profile="", trials=[]))
    assert not proposer.busy


class TestConfirmation:
    SPACE: dict = {"learning_rate": [1e-3, 2e-3, 3e-3]}  # noqa: RUF012

    def test_the_best_run_again_with_another_seed_before_a_winner_is_named(self, study):
        served = study({"steps": 5}, self.SPACE, search={"confirm": 2})
        served.start()
        state = served.wait_status("finished")
        again = [t for t in state.trials.values() if t.source == "confirm"]
        assert [(t.parent, t.status) for t in again] == [(1, "completed"), (2, "completed")]
        assert len({(t.settings["seed"], t.settings["order_seed"]) for t in again}) == 1
        assert again[0].settings["learning_rate"] == 1e-3
        assert again[0].settings["seed"] != 42
        assert state.reason.startswith("best: trial 1, eval_loss 1.9 (mean of 2 seeds)")

    @pytest.mark.parametrize("when", ["before", "after"])
    @pytest.mark.parametrize("number", [10, 11, 12, 13])
    def test_a_daemon_that_dies_then_does_not_confirm_twice(self, study, when, number):
        served = study({"steps": 5}, self.SPACE, search={"confirm": 2})
        served.options["die_at"] = [when, number]
        assert served.launch().wait() == 9
        del served.options["die_at"]
        served.start()
        state = served.wait_status("finished")
        assert statuses(state) == ["completed"] * 5

    def test_confirmations_run_whole_where_others_wait_at_rungs(self, study):
        space = {"learning_rate": [1e-3, 2e-3, 3e-3, 4e-3]}
        served = study({"steps": 10}, space, search={"stopping": "halving", "confirm": 1})
        served.start()
        state = served.wait_status("finished")
        assert statuses(state) == ["completed"] * 2 + ["pruned"] * 2 + ["completed"]
        assert state.trials[5].rungs == ()
        assert len(state.trials[5].attempts) == 1


class TestContinuing:
    def test_a_full_training_continues_from_what_its_probe_kept(self, study):
        served = study(
            {"steps": 10},
            {"learning_rate": [1e-3]},
            options={"linger": 300},
            search={"keep_checkpoints": True},
        )
        served.start()
        served.wait_status("finished")
        assert served.trial(1).resume_from == "checkpoints/checkpoint-10"
        assert [p.name for p in served.folder.glob("trials/0001/checkpoints/*")] == [
            "checkpoint-10"
        ]
        from core.engine.client import send
        from core.engine.messages import Request

        reply = send(served.folder, Request("promote", 1, continues=True), start=False)
        assert reply.ok, reply.text
        assert "from update 10 of its probe on" in reply.text
        assert "0.0005 may end better" in reply.text
        served.wait_status("completed", 2)
        folder = served.folder / "trials/0002"
        task = json.loads((folder / "task.json").read_text())
        assert (folder / task["continues"]).resolve() == (
            served.folder / "trials/0001/checkpoints/checkpoint-10"
        )

    def test_a_checkpoint_that_is_gone_fails_the_training_in_words(self, study):
        import shutil

        from core.engine.client import send
        from core.engine.messages import Request

        served = study(
            {"steps": 10},
            {"learning_rate": [1e-3]},
            options={"linger": 300},
            search={"keep_checkpoints": True},
        )
        served.start()
        served.wait_status("finished")
        shutil.rmtree(served.folder / "trials/0001/checkpoints")
        assert send(served.folder, Request("promote", 1, continues=True), start=False).ok
        assert "is gone" in served.wait_status("failed", 2).reason


class TestRangeTest:
    @pytest.fixture
    def made(self, study, profile_of: Callable, tmp_path: Path):
        script = {"steps": 30, "delay": 0.01, "diverge_above": 1e-4}
        served = study(script, {})
        folder = create_study(
            profile_of(script, {}),
            tmp_path / "range",
            range_test=RangeTest(1e-6, 0.5, 30),
        )
        served.folder = folder
        return served

    def test_it_is_one_trial_that_the_guard_leaves_alone(self, made):
        made.start()
        state = made.wait_status("finished")
        (trial,) = state.trials.values()
        assert (trial.kind, trial.status, trial.step) == ("range", "completed", 30)
        assert state.reason == "the range test ended at update 30"
        task = json.loads((made.folder / "trials/0001/task.json").read_text())
        assert (task["kind"], task["range_low"], task["range_high"], task["range_steps"]) == (
            "range",
            1e-6,
            0.5,
            30,
        )
        assert not (made.folder / "tuned.toml").exists()

    def test_the_daemon_that_takes_it_over_knows_what_it_is(self, made):
        daemon = made.start()
        made.wait_step(1, 2)
        daemon.kill()
        daemon.wait()
        made.start()
        assert made.wait_status("finished").trials[1].status == "completed"

    @pytest.mark.parametrize(
        "test", [RangeTest(1e-3, 1e-3), RangeTest(0.0, 1.0), RangeTest(steps=2)]
    )
    def test_one_that_makes_no_sense_is_refused(self, profile_of, tmp_path, test):
        with pytest.raises(StudyError, match="a range test"):
            create_study(profile_of({}, {}), tmp_path / "range", range_test=test)
        assert not (tmp_path / "range").exists()


def test_when_all_fail_the_reasons_are_told_together_and_nobody_wins(study):
    served = study(
        {"steps": 8, "diverge_above": 2e-3, "oom_above": 0},
        {"learning_rate": [1e-3, 3e-3]},
        memory={"on_oom": "skip"},
    )
    served.start()
    state = served.wait_status("finished")
    assert state.reason == "no trial completed: all ran out of memory"
