import pytest
from msgspec.structs import replace

from core.engine.judgement import examination, run_facts
from core.study.files import RunInfo
from core.study.state import RungResult, Trial

SPACE = {"learning_rate": {"low": 1e-5, "high": 1e-3, "scale": "log"}}


def probe(
    number: int, rate: float, value: float | None, status: str = "completed", **more: object
) -> Trial:
    return Trial(number, {"learning_rate": rate}, status=status, value=value, **more)  # type: ignore[arg-type]


def test_a_study_is_examined_by_its_ranking() -> None:
    trials = [
        probe(1, 1e-4, 2.1), probe(2, 9e-4, 2.0), probe(3, 3e-4, 2.05),
        probe(4, 5e-4, None, "pruned", rungs=(RungResult(0.1, 3, 2.6),)),
        probe(5, 9e-4, 2.01, source="confirm", parent=2), probe(6, 1e-4, 0.1, kind="full"),
    ]  # fmt: skip
    found = examination(trials, SPACE, "eval_loss")
    (edge,) = found.edges
    assert (edge.trial, edge.side) == (2, "high")
    assert [i.trials for i in found.importances] == [4]


def test_a_value_that_does_not_count_is_not_compared_with_the_best() -> None:
    """The lowest loss is of a setting that diverged with another seed: it has no place, and no value."""
    trials = [
        probe(1, 1e-4, 1.5), probe(2, 1.2e-5, 2.0), probe(3, 3e-5, 2.2),
        probe(4, 1e-4, None, "diverged", source="confirm", parent=1),
    ]  # fmt: skip
    found = examination(trials, SPACE, "eval_loss")
    (edge,) = found.edges
    assert edge.trial == 2 and "with 3e-5, is 0.2 worse" in edge.text
    assert found.band is not None and (found.band.diverged, found.band.high) == (1e-4, 5e-5)


def test_what_the_data_broke_says_nothing_of_the_rates() -> None:
    zero = "loss is exactly 0 at step 1: either every label is masked, or …"
    trials = [
        probe(n, rate, None, "diverged", reason=reason)
        for n, (rate, reason) in enumerate(
            [(1e-5, zero), (1e-4, zero), (1e-3, "loss is not a number (NaN) at step 1")], 1
        )
    ]
    found = examination(trials, SPACE, "eval_loss")
    assert found.band is None and not found.next_steps and not found.remarks


def test_the_space_is_judged_by_drawn_rates_and_safety_by_those_trained_at() -> None:
    """The rate is scaled with the batch: 9e-4 as drawn was twice or half of it in training."""
    trials = [
        Trial(n, {"learning_rate": ran}, sampled={"learning_rate": drawn}, status=status, value=value)
        for n, (drawn, ran, status, value) in enumerate(
            [
                (1.2e-5, 2.4e-5, "completed", 2.0),
                (1e-4, 2e-4, "completed", 2.3),
                (9e-4, 1.8e-3, "diverged", None),
            ],
            1,
        )
    ]  # fmt: skip
    found = examination(trials, SPACE, "eval_loss")
    assert found.edges[0].value == 1.2e-5
    assert found.band is not None and found.band.diverged == 1.8e-3


def test_ties_that_are_being_confirmed_are_left_to_it() -> None:
    trials = [probe(1, 1e-4, 2.0), probe(2, 3e-4, 2.001), probe(3, 2e-4, 2.5)]
    again = probe(4, 1e-4, None, "running", source="confirm", parent=1)
    assert any(s.search for s in examination(trials, SPACE, "eval_loss").next_steps)
    assert not any(s.search for s in examination([*trials, again], SPACE, "eval_loss").next_steps)


def test_settings_of_the_profile_count_where_they_are_not_searched() -> None:
    trials = [
        Trial(1, {"lora_rank": 8}, status="diverged"),
        Trial(2, {"lora_rank": 16, "learning_rate": 1e-4}, status="completed", value=2.0),
    ]
    found = examination(
        trials, {"lora_rank": [8, 16]}, "eval_loss", profile={"learning_rate": 1e-2}
    )
    assert found.band is not None and found.band.diverged == 1e-2


@pytest.mark.parametrize(
    ("status", "ended", "reason"),
    [
        ("running", False, ""),
        ("completed", True, ""),
        ("rung", True, ""),
        ("diverged", True, "NaN"),
    ],
)
def test_a_run_is_told_by_its_settings_and_what_its_worker_found(
    status: str, ended: bool, reason: str
) -> None:
    trial = probe(1, 1e-4, None, status, reason=reason, total_steps=7)
    settings = {
        "learning_rate": 1e-4, "finetuning_type": "full", "weight_decay": 0.01, "max_grad_norm": 1.0,
        "per_device_train_batch_size": 4, "gradient_accumulation_steps": 2,
    }  # fmt: skip
    run = RunInfo(1, 20, 100, 50.0, 400, 80, 5, 1, 1, "fp32", "CPU", {}, 0.1)
    facts = run_facts(trial, settings, run)
    assert (facts.total_steps, facts.effective_batch, facts.dropped_rows) == (20, 8, 5)
    assert (facts.ended, facts.diverged, facts.finetuning_type) == (ended, reason, "full")
    assert run_facts(trial, {**settings, "gpus_per_trial": 2}).effective_batch == 16
    assert run_facts(trial, settings, replace(run, warmup_steps=3)).warmup_steps == 3
    assert (facts.stage, facts.kl_target) == ("sft", None)
    ppo = run_facts(trial, {"stage": "ppo"})
    assert (ppo.stage, ppo.kl_target) == ("ppo", 6.0)
    assert run_facts(trial, {"stage": "ppo", "ppo_target": 3.0}).kl_target == 3.0
    assert run_facts(trial, {"stage": "ppo", "ppo_kl_coef": 0.0}).kl_target is None
    unknown = run_facts(trial, {})
    assert (unknown.total_steps, unknown.effective_batch, unknown.learning_rate) == (7, None, None)


def test_a_parameter_that_a_trial_did_not_draw_does_not_count_for_it() -> None:
    space = {"finetuning_type": ["lora", "full"], "lora_rank": [8, 16]}
    trials = [
        Trial(
            n,
            dict(sampled),
            sampled=sampled,
            status="completed",
            value=2.0 + n / 10,
        )
        for n, sampled in enumerate(
            [{"finetuning_type": "full"}] * 6
            + [{"finetuning_type": "lora", "lora_rank": rank} for rank in (8, 16) * 3]
        )
    ]
    found = examination(trials, space, "eval_loss", profile={"lora_rank": 8})
    assert {i.name: i.trials for i in found.importances} == {"finetuning_type": 12, "lora_rank": 6}


@pytest.mark.parametrize(
    ("settings", "steps"),
    [
        ({}, None), ({"warmup_ratio": 0.1}, None), ({"warmup_ratio": 0}, 0),
        ({"warmup_steps": 0, "warmup_ratio": 0.1}, 0), ({"warmup_steps": 5, "warmup_ratio": 0}, None),
    ],
)  # fmt: skip
def test_that_there_is_no_warm_up_is_told_where_the_settings_say_so(
    settings: dict[str, float], steps: int | None
) -> None:
    assert run_facts(probe(1, 1e-4, None), settings).warmup_steps == steps
