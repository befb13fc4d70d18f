"""What the doctor says of the stages that learn from rewards, and what it keeps to itself."""

from __future__ import annotations

import math
import random
from collections.abc import Mapping, Sequence

import pytest

from core.doctor import Finding, RunFacts, diagnose
from core.study.metrics import Point


def points(
    losses: Sequence[float],
    *,
    every: Mapping[str, Sequence[float]] | None = None,
    evals: Sequence[Mapping[str, float]] = (),
    norm: float = 1.0,
) -> list[Point]:
    """A run that logs every update; `every` are its measures, `evals` evaluations spread evenly over it."""
    made = []
    between = len(losses) // len(evals) if evals else 0
    for n, loss in enumerate(losses, 1):
        more = {name: values[n - 1] for name, values in (every or {}).items()}
        made.append(Point(t=float(n), step=n, loss=loss, grad_norm=norm, more=more or None))
        if between and n % between == 0 and n // between <= len(evals):
            found = dict(evals[n // between - 1])
            made.append(Point(t=float(n), step=n, eval_loss=found.pop("loss"), more=found))
    return made


def run(stage: str, **more: object) -> RunFacts:
    given = {"total_steps": 100, "warmup_steps": 0, "learning_rate": 5e-6, "ended": True}
    return RunFacts(stage=stage, **(given | more))  # type: ignore[arg-type]


def sure(finding: Finding | None, kind: str) -> Finding:
    assert finding is not None and finding.kind == kind, finding
    return finding


def fitted(seed: int = 0, count: int = 100) -> list[float]:
    """The losses of pairs that are soon known: ln 2 down to almost nothing, shaking over orders of magnitude."""
    source = random.Random(seed)
    return [0.69 * math.exp(-n / 8 + source.gauss(0, 0.8)) + 1e-4 for n in range(count)]


def accuracy(low: float, high: float, count: int = 100, seed: int = 0) -> list[float]:
    source = random.Random(seed)
    rise = [low + (high - low) * min(1, n / 30) for n in range(count)]
    return [min(1.0, max(0.0, v + source.gauss(0, 0.1))) for v in rise]


PAIRED = ["rm", "dpo", "kto"]


@pytest.mark.parametrize("stage", PAIRED)
@pytest.mark.parametrize("seed", range(3))
def test_pairs_that_are_soon_known_are_healthy(stage: str, seed: int) -> None:
    logged = points(fitted(seed), every={"reward_accuracy": accuracy(0.5, 1.0, seed=seed)})
    assert diagnose(logged, run(stage)) is None
    # As sft it would be said to shake, or worse.
    assert diagnose(points([*fitted(seed)[:50], *([0.0] * 50)], norm=0.0), run(stage)) is None


@pytest.mark.parametrize("stage", PAIRED)
def test_new_rows_after_known_ones_are_no_divergence(stage: str) -> None:
    losses = [0.69 - 0.013 * n for n in range(50)] + [0.3 + 0.004 * n for n in range(50)]
    assert diagnose(points(losses), run(stage)) is None
    assert sure(diagnose(points(losses), run("sft")), "diverging")


@pytest.mark.parametrize("stage", PAIRED)
def test_a_loss_beyond_its_start_diverges(stage: str) -> None:
    losses = [0.69 - 0.006 * n for n in range(40)] + [0.5 + 0.04 * n for n in range(60)]
    assert "rose from" in sure(diagnose(points(losses), run(stage)), "diverging").text


@pytest.mark.parametrize("stage", ["rm", "dpo"])
def test_a_rising_evaluation_loss_is_overfitting_where_the_accuracy_falls_too(stage: str) -> None:
    rising = [0.6, 0.5, 0.45, 0.5, 0.6, 0.7, 0.8, 0.9]
    kept = [{"loss": v, "eval_reward_accuracy": 0.71} for v in rising]
    steady = points(fitted(), evals=kept)
    assert diagnose(steady, run(stage)) is None
    falls = [0.6, 0.7, 0.72, 0.7, 0.66, 0.62, 0.6, 0.58]
    lost = [{"loss": v, "eval_reward_accuracy": a} for v, a in zip(rising, falls, strict=True)]
    found = sure(diagnose(points(fitted(), evals=lost), run(stage)), "overfitting")
    assert "evaluation loss rose" in found.text


@pytest.mark.parametrize("stage", PAIRED)
def test_an_accuracy_of_a_half_is_chance(stage: str) -> None:
    source = random.Random(1)
    losses = [0.693 + source.gauss(0, 0.01) for _ in range(100)]
    logged = points(losses, every={"reward_accuracy": accuracy(0.5, 0.5)})
    found = sure(diagnose(logged, run(stage, learning_rate=1e-4)), "chance")
    assert "0.48" in found.text and "which is chance" in found.text
    assert "same or mixed up" in found.advice and not found.changes
    timid = sure(diagnose(logged, run(stage, learning_rate=1e-8)), "chance")
    assert timid.changes["learning_rate"] == 3e-8 and "usual" in timid.advice


def test_an_accuracy_that_is_better_on_validation_data_is_not_chance() -> None:
    logged = points(
        [0.69] * 50 + [0.66] * 50, every={"reward_accuracy": accuracy(0.5, 0.5)},
        evals=[{"loss": 0.66, "eval_reward_accuracy": 0.7}] * 5,
    )  # fmt: skip
    found = diagnose(logged, run("rm"))
    assert found is None or found.kind != "chance"


def test_few_noisy_logs_do_not_tell_chance() -> None:
    noisy = [1.0 if n % 2 else 0.0 for n in range(20)]
    losses = [0.69 - 0.02 * n for n in range(20)]
    logged = points(losses, every={"reward_accuracy": noisy})
    assert diagnose(logged, run("rm", total_steps=20)) is None


def falling_rewards(chosen: float, rejected: float) -> dict[str, list[float]]:
    return {
        "reward_chosen": [chosen * n / 99 for n in range(100)],
        "reward_rejected": [rejected * n / 99 for n in range(100)],
        "reward_accuracy": accuracy(0.6, 0.9),
    }


def test_rewards_of_both_that_fall_are_told_of_dpo() -> None:
    logged = points(fitted(), every=falling_rewards(-2.0, -6.0))
    found = sure(diagnose(logged, run("dpo")), "displaced")
    assert "chosen answers become less likely too" in found.text
    assert "pref_ftx" in found.advice and found.changes["pref_ftx"] == 0.1
    assert diagnose(logged, run("dpo", pref_loss="simpo")) is None
    assert diagnose(logged, run("rm")) is None


def test_a_chosen_reward_that_stays_is_healthy() -> None:
    for chosen in (1.5, 0.0, -0.3):
        assert diagnose(points(fitted(), every=falling_rewards(chosen, -6.0)), run("dpo")) is None


# PPO ----------------------------------------------------------------------------------------------------------------


def ppo(
    rewards: Sequence[float], kl: float | Sequence[float] = 4.0, entropy: Sequence[float] = ()
) -> list[Point]:
    """A run of a round an update, whose loss means nothing."""
    source = random.Random(5)
    count = len(rewards)
    kls = [kl * min(1, n / 20) for n in range(count)] if isinstance(kl, float) else list(kl)
    every = {"reward": list(rewards), "kl": kls, "entropy": list(entropy) or [2.0] * count}
    return points([source.gauss(0.0, 0.1) for _ in range(count)], every=every)


def rising(start: float, end: float, noise: float = 0.1, count: int = 100) -> list[float]:
    source = random.Random(3)
    return [start + (end - start) * n / count + source.gauss(0, noise) for n in range(count)]


def test_a_policy_that_earns_more_is_healthy_whatever_its_loss() -> None:
    losses = points([5 + 0.1 * n for n in range(100)], every={"reward": rising(0.0, 2.0)})
    facts = run("ppo", kl_target=6.0)
    assert diagnose(losses, facts) is None
    assert diagnose(ppo(rising(0.0, 2.0)), facts) is None
    assert diagnose(ppo(rising(1.0, 1.0)), facts) is None


def test_answers_that_go_far_from_the_reference_are_told() -> None:
    found = sure(diagnose(ppo(rising(0, 2), 40.0), run("ppo", kl_target=6.0)), "far_off")
    assert "36 nats" in found.text and "6.0 times what ppo_target wants (6)" in found.text
    assert "raise ppo_kl_coef" in found.advice and "learning_rate" in found.changes
    assert diagnose(ppo(rising(0, 2), 12.0), run("ppo", kl_target=6.0)) is None
    assert diagnose(ppo(rising(0, 2), 40.0), run("ppo", kl_target=None)) is None


def test_a_divergence_below_zero_blames_how_answers_are_drawn() -> None:
    found = sure(
        diagnose(ppo(rising(0, 2), [-3.0 - n / 100 for n in range(100)]), run("ppo")), "far_off"
    )
    assert "none can be below 0" in found.text and found.changes == {"top_p": 1.0, "top_k": 0}
    assert diagnose(ppo(rising(0, 2), [-0.1 - n / 1000 for n in range(100)]), run("ppo")) is None


def test_a_reward_below_its_start_is_told() -> None:
    found = sure(
        diagnose(ppo([*rising(1, 2, count=50), *rising(2, -2, count=50)]), run("ppo")), "losing"
    )
    assert "the mean reward fell from 1.83" in found.text and "below its start" in found.text


def test_answers_that_are_all_alike_are_told() -> None:
    entropy = [2.0 * math.exp(-n / 15) for n in range(100)]
    found = sure(
        diagnose(ppo(rising(0, 2), entropy=entropy), run("ppo", kl_target=6.0)), "one_answer"
    )
    assert "nothing is left to try out" in found.text
    fair = [2.0 * math.exp(-n / 60) for n in range(100)]
    assert diagnose(ppo(rising(0, 2), entropy=fair), run("ppo", kl_target=6.0)) is None


def test_a_reward_that_is_always_the_same_leaves_nothing_to_learn() -> None:
    logged = points([0.0] * 20, every={"reward": [0.25] * 20, "kl": [0.0] * 20}, norm=0.0)
    found = sure(diagnose(logged, run("ppo")), "not_learning")
    assert "every answer earns the same (0.250)" in found.text
    assert "reward model" in found.advice


def test_what_the_updates_of_a_round_log_counts_once() -> None:
    """Two rounds are too few to judge a reward, however many updates they have."""
    rewards = [2.0] * 50 + [0.0] * 50
    assert diagnose(ppo(rewards), run("ppo")) is None


def test_a_loss_that_is_no_number_is_told_of_every_stage() -> None:
    for stage in ("rm", "dpo", "kto", "ppo"):
        logged = points([*fitted()[:40], math.nan, math.nan])
        assert "not a number" in sure(diagnose(logged, run(stage)), "diverging").text
