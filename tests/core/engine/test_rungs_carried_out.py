"""Early stopping, end to end: real daemons, shims and processes, a fake worker."""

import json
from itertools import pairwise
from pathlib import Path

import pytest

from core.search.halving import HalvingSettings, rungs
from core.study.metrics import read_points
from core.study.store import StudyFolder

RATES = {"learning_rate": [1e-3, 2e-3, 3e-3, 4e-3, 5e-3, 6e-3]}
"""The fake worker's loss grows with the distance from 1e-3."""
HALVING = {"stopping": "halving", "trials": 6, "first_rung": 0.1}


def kill(daemon):
    daemon.kill()
    daemon.wait()


def let_go(served, number):
    (served.folder / f"trials/{number:04d}/go").touch()


def steps(served, number):
    points = read_points(StudyFolder(served.folder).trial(number).metrics)
    return [p.step for p in points if p.loss is not None]


def statuses(state):
    return [t.status for t in state.trials.values()]


def test_the_best_of_each_rung_go_on_from_their_checkpoints_and_the_rest_are_dropped(study):
    rates = {"learning_rate": [n * 1e-3 for n in range(1, 10)]}
    served = study({"steps": 20}, rates, search={**HALVING, "trials": 9}, resources={"parallel": 2})
    served.start()
    state = served.wait_status("finished")
    assert (state.stopping, state.planned) == ("halving", 9)
    assert statuses(state) == ["completed"] * 2 + ["pruned"] * 7
    assert state.reason.startswith("best: trial 1")
    places = [round(20 * share) for share in rungs(HalvingSettings(first_rung=0.1))]
    third = state.trials[3].step
    assert third in places[1:]
    assert [t.step for t in state.trials.values()] == [20, 20, third, *[2] * 6]
    winner = state.trials[1]
    assert [r.step for r in winner.rungs] == places[: places.index(third) + 1]
    assert [a.ending for a in winner.attempts] == ["rung"] * len(winner.rungs) + ["completed"]
    # Nothing was trained twice.
    assert steps(served, 1) == list(range(1, 21))
    assert all("%" in t.reason for t in state.trials.values() if t.status == "pruned")
    assert sorted(state.decisions[0].kept) == [1, 2, 3]
    assert sorted(state.decisions[-1].kept) == [1, 2]


def test_checkpoints_are_kept_while_they_may_be_needed_and_no_longer(study, waits):
    script = {"steps": 20, "hang_at": 3, "hang": [1]}
    served = study(script, RATES, search=HALVING, resources={"parallel": 2})
    served.start()
    waits(lambda: served.trial(6).status == "pruned", served.log())
    assert (served.folder / "trials/0006/checkpoints/checkpoint-2").is_dir()
    let_go(served, 1)
    served.wait_status("finished")
    assert not list(served.folder.glob("trials/*/checkpoints/*"))


def test_trials_that_wait_at_a_rung_hold_no_gpu(study):
    served = study(
        {"steps": 20},
        RATES,
        options={"gpus": 1},
        search=HALVING,
        resources={"devices": "auto"},
    )
    served.start()
    state = served.wait_status("finished")
    assert {a.gpus for t in state.trials.values() for a in t.attempts} == {("GPU-0",)}
    first = [t.attempts[0] for t in state.trials.values()]
    assert all(a.ended <= b.started for a, b in pairwise(first))


def test_a_finalist_that_diverges_late_is_replaced_by_one_that_was_dropped(study):
    served = study({"steps": 20, "late": 1.5e-3}, RATES, search=HALVING, resources={"parallel": 2})
    served.start()
    state = served.wait_status("finished")
    assert state.trials[1].status == "completed"
    assert state.trials[2].status == "diverged"
    assert "diverged" in statuses(state)[2:]
    assert state.reason == "best: trial 1, eval_loss 1.6"


def test_a_trial_that_a_person_adds_is_compared_at_the_rungs_like_others(study):
    script = {"steps": 20, "hang_at": 1, "hang": [1]}
    served = study(script, RATES, search=HALVING, resources={"parallel": 2})
    served.start()
    served.wait_step(1, 1)
    assert served.ask("add", changes={"learning_rate": 9e-3}).ok
    let_go(served, 1)
    state = served.wait_status("finished")
    assert (state.trials[7].source, state.trials[7].status, state.trials[7].step) == (
        "user",
        "pruned",
        2,
    )


class TestPeople:
    def test_a_study_that_is_paused_and_resumed_goes_on_from_its_rungs(self, study, waits):
        script = {"steps": 20, "hang_at": 1, "hang": [3]}
        served = study(script, RATES, options={"linger": 300}, search=HALVING)
        served.start()
        served.wait_status("rung", 2)
        served.wait_step(3, 1)
        assert served.ask("pause").ok
        served.wait_status("paused")
        waits(lambda: not served.state.live())
        before = served.state.decisions
        assert served.trial(2).status == "rung"
        assert served.ask("resume").ok
        state = served.wait_status("finished")
        assert before == []
        assert statuses(state) == ["completed"] * 2 + ["pruned"] * 4
        assert steps(served, 1) == list(range(1, 21))

    def test_a_stopped_study_decides_nothing_until_it_is_resumed(self, study, waits):
        script = {"steps": 20, "hang_at": 1, "hang": [3]}
        served = study(script, RATES, options={"linger": 300}, search=HALVING)
        served.start()
        served.wait_status("rung", 2)
        assert served.ask("stop").ok
        waits(lambda: not served.state.live())
        assert set(statuses(served.state)) == {"stopped"}
        reply = served.ask("promote", 1)
        assert reply.ok, reply.text
        served.wait_status("completed", 7)
        state = served.wait_status("finished")
        assert state.decisions == []
        let_go(served, 3)
        assert served.ask("resume").ok
        state = served.wait_status("finished")
        assert statuses(state) == ["completed"] * 2 + ["pruned"] * 4 + ["completed"]

    def test_a_trial_that_is_taken_out_at_its_rung_keeps_nobody_waiting(self, study):
        script = {"steps": 20, "hang_at": 1, "hang": [2]}
        served = study(script, RATES, options={"linger": 300}, search=HALVING)
        served.start()
        served.wait_status("rung", 1)
        assert served.ask("pause", 1).ok
        let_go(served, 2)
        state = served.wait_status("paused")
        assert "trial 1 is paused and nothing else" in state.reason
        assert statuses(state) == ["paused"] + ["completed"] * 2 + ["pruned"] * 3
        assert served.ask("resume", 1).text == "trial 1 waits at its rung again"
        state = served.wait_status("finished")
        assert state.trials[1].status == "completed"
        assert steps(served, 1) == list(range(1, 21))

    def test_a_dropped_trial_can_be_run_to_its_end(self, study):
        served = study({"steps": 20}, RATES, options={"linger": 300}, search=HALVING)
        served.start()
        served.wait_status("finished")
        assert served.ask("retry", 6).ok
        state = served.wait_status("completed", 6) and served.wait_status("finished")
        assert state.trials[6].status == "completed"
        # Its checkpoint was removed with the end of the study: it began again.
        assert steps(served, 6) == list(range(1, 21))
        task = json.loads((served.folder / "trials/0006/task.json").read_text())
        assert (task["resume_from"], task["until"]) == (None, 1.0)
        assert [w.text for w in state.warnings if w.trial == 6] == [
            "its checkpoint checkpoints/checkpoint-2 is gone: it begins again"
        ]

    def test_a_dropped_trial_can_be_promoted(self, study):
        served = study({"steps": 20}, RATES, options={"linger": 300}, search=HALVING)
        served.start()
        served.wait_status("finished")
        assert served.ask("promote", 6).ok
        assert served.wait_status("completed", 7).kind == "full"


class TestSurvival:
    @pytest.mark.parametrize("when", ["before", "after"])
    @pytest.mark.parametrize("number", [5, 9, 12, 15, 17])
    def test_a_daemon_may_die_around_any_record(self, study, when, number):
        served = study({"steps": 10}, {"learning_rate": [1e-3, 2e-3, 3e-3, 4e-3]}, search=HALVING)
        served.options["die_at"] = [when, number]
        assert served.launch().wait() == 9
        del served.options["die_at"]
        served.start()
        state = served.wait_status("finished")
        assert statuses(state) == ["completed"] * 2 + ["pruned"] * 2
        assert [t.step for t in state.trials.values()] == [10, 10, 1, 1]
        assert steps(served, 1) == list(range(1, 11))
        assert len(state.decisions) == len({(d.rung, d.at) for d in state.decisions})

    def test_a_checkpoint_that_finds_no_room_at_the_rung_is_made_up_for(self, study, tmp_path):
        flag = tmp_path / "full"
        flag.touch()
        served = study(
            {"steps": 20, "no_room": str(flag)}, RATES, options={"linger": 300}, search=HALVING
        )
        served.start()
        state = served.wait_status("paused")
        assert "disk is full" in state.reason
        assert (state.trials[1].status, state.trials[1].until) == ("queued", 0.1)
        flag.unlink()
        assert served.ask("resume").ok
        state = served.wait_status("finished")
        assert statuses(state) == ["completed"] * 2 + ["pruned"] * 4

    def test_a_full_disk_loses_no_decision(self, study, tmp_path, waits):
        flag = tmp_path / "full"
        served = study(
            {"steps": 20, "hang_at": 1, "hang": [3]},
            RATES,
            options={"full_flag": str(flag), "linger": 300},
            search=HALVING,
            resources={"parallel": 2},
        )
        served.start()
        served.wait_status("rung", 1)
        served.wait_step(3, 1)
        flag.touch()
        let_go(served, 3)
        waits(lambda: "disk is full" in served.ask("ping").text)
        flag.unlink()
        served.wait_status("paused")
        waits(lambda: not served.state.live())
        assert served.ask("resume").ok
        state = served.wait_status("finished")
        assert statuses(state) == ["completed"] * 2 + ["pruned"] * 4
        assert steps(served, 1) == list(range(1, 21))


@pytest.mark.parametrize("version", [1, 2])
def test_a_study_of_an_earlier_version_is_taken_up_where_it_was(study, version):
    recorded = Path(__file__).parents[2] / "data" / f"journal-v{version}.jsonl"
    records = recorded.read_bytes().splitlines(keepends=True)
    # As it stood when the third trial had just begun.
    third = next(i for i, r in enumerate(records) if b"trial-started" in r and b'"trial":3' in r)
    served = study(
        {"steps": 12, "diverge_above": 2e-3},
        {"learning_rate": [1e-3, 1e-2], "per_device_train_batch_size": [1, 4]},
    )
    (served.folder / "journal.jsonl").write_bytes(b"".join(records[: third + 1]))
    served.start()
    state = served.wait_status("finished")
    assert statuses(state) == ["completed", "completed", "diverged", "diverged"]
    assert [a.ending for a in state.trials[3].attempts] == ["lost", "diverged"]
    assert state.stopping == "none"
    assert state.reason.startswith("best: trial 1")
