"""Stages rm, dpo and kto trained by two processes together: what one process would have made."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.core.train.conftest import Ran, RunTrial
from tests.core.train.distributed.conftest import TWO, weights
from tests.core.train.distributed.forked import run_forked

pytestmark = pytest.mark.xdist_group("forked ranks")

UNEVEN = {
    "data__val_size": 3, "data__max_samples": 20, "train__max_steps": 4, "train__eval_steps": 2,
    "train__per_device_eval_batch_size": 1, "train__logging_steps": 2, "train__learning_rate": 1e-3,
}  # fmt: skip
"""An epoch whose last batch has rows for one rank alone, evaluations that end so too, and logs of several updates."""
SAME = 1e-5

Settings = dict[str, Any]


@pytest.fixture
def settings(pairs: Path, tags: Path) -> Callable[..., Settings]:
    """What a profile says of a stage and its data."""

    def made(stage: str, method: str, **more: Any) -> Settings:
        data = tags if stage == "kto" else pairs
        own = {
            "method__stage": stage,
            "method__finetuning_type": method,
            "data__dataset": str(data),
        }
        return UNEVEN | own | more

    return made


@pytest.fixture
def run_two(prepare: Callable[..., Path]) -> Callable[..., Ran]:
    """Train a trial with two processes."""

    def run(name: str, sharding: str, task: Settings | None = None, **settings: Any) -> Ran:
        shared = {"resources__gpus_per_trial": 2, "resources__sharding": sharding}
        ran = run_forked(prepare(name, TWO | (task or {}), **shared, **settings))
        assert ran.report.outcome != "failed", (ran.folder / "log.txt").read_text()
        return ran

    return run


@pytest.fixture
def both(
    run_trial: RunTrial, run_two: Callable[..., Ran], settings: Callable[..., Settings]
) -> Callable[..., tuple[Ran, Ran]]:
    """Train with one process and with two: the same rows an update."""

    def run(stage: str, sharding: str, method: str, **more: Any) -> tuple[Ran, Ran]:
        every = settings(stage, method, **more)
        one = {"train__gradient_accumulation_steps": 4}
        alone = run_trial("alone", {"save_model": True}, **every | one)
        return alone, run_two("shared", sharding, **every)

    return run


def check_same(alone: Ran, shared: Ran) -> None:
    """Check that what was logged and what was saved is the same."""
    for one, two in zip(alone.points, shared.points, strict=True):
        assert (one.step, one.tokens) == (two.step, two.tokens)
        for name in ("loss", "eval_loss", "grad_norm", "lr"):
            assert getattr(two, name) == pytest.approx(getattr(one, name), rel=SAME), name
        expected, got = one.more or {}, two.more or {}
        assert expected.keys() == got.keys()
        for name, value in expected.items():
            # Small differences of log probabilities that are large.
            assert got[name] == pytest.approx(value, rel=SAME, abs=SAME), (name, one.step)
    measured = [point.more for point in alone.points if point.more]
    assert any("reward_margin" in more for more in measured)
    assert any("eval_reward_margin" in more for more in measured)
    trained, trained_shared = weights(alone), weights(shared)
    assert trained.keys() == trained_shared.keys()
    for name, weight in trained.items():
        assert (trained_shared[name] - weight).norm() <= SAME * weight.norm(), name


LOSSES: dict[tuple[str, str], Settings] = {
    ("ddp", "lora"): {"alignment__pref_loss": "sigmoid", "alignment__dpo_label_smoothing": 0.1},
    ("ddp", "full"): {"alignment__pref_loss": "ipo", "alignment__pref_ftx": 0.5},
    ("zero1", "lora"): {"alignment__pref_loss": "simpo", "method__use_dora": True},
    ("zero1", "full"): {"alignment__pref_loss": "sigmoid", "alignment__pref_ftx": 0.5},
    ("fsdp", "lora"): {"alignment__pref_loss": "hinge", "train__gradient_checkpointing": True},
    ("fsdp", "full"): {"alignment__pref_loss": "orpo"},
}
"""What dpo learns by, each loss once."""


@pytest.mark.parametrize("method", ["lora", "full"])
@pytest.mark.parametrize("sharding", ["ddp", "zero1", "fsdp"])
@pytest.mark.parametrize("stage", ["rm", "dpo", "kto"])
def test_two_ranks_train_as_one_process_does(
    both: Callable[..., tuple[Ran, Ran]], stage: str, sharding: str, method: str
) -> None:
    more = LOSSES[sharding, method] if stage == "dpo" else {}
    check_same(*both(stage, sharding, method, **more))


@pytest.mark.parametrize(
    ("method", "more"),
    [
        ("full", {}),
        ("freeze", {}),
        # Adapters outside of the layers, which the reference's pass leaves gathered.
        ("lora", {"method__lora_target": "embed_tokens,q_proj"}),
    ],
)
def test_shards_of_a_policy_are_held_to_their_reference(
    both: Callable[..., tuple[Ran, Ran]], method: str, more: Settings
) -> None:
    check_same(*both("dpo", "fsdp", method, **more))


@pytest.mark.parametrize(
    ("stage", "sharding", "more"),
    [
        ("dpo", "fsdp", {"method__lora_dropout": 0.2}),
        ("kto", "ddp", {"method__lora_dropout": 0.2}),
    ],
)
def test_a_probe_that_waited_between_two_logs_goes_on_as_if_it_had_not(
    run_two: Callable[..., Ran], settings: Callable[..., Settings],
    stage: str, sharding: str, more: Settings,
) -> None:  # fmt: skip
    every = settings(stage, "lora") | {"train__logging_steps": 3, "train__max_steps": 8} | more
    probe = {"kind": "probe", "budget": 0.5, "keep_checkpoint": True, "save_model": False, "schedule": "full"}  # fmt: skip
    whole = run_two("whole", sharding, probe, **every)
    waits = run_two("waits", sharding, probe | {"until": 0.25}, **every)
    assert (waits.report.outcome, waits.report.step) == ("rung", 2)
    later = {"attempt": 2, "resume_from": waits.report.checkpoint}
    ends = run_two("waits", sharding, probe | later, **every)
    assert (ends.report.outcome, ends.report.step) == ("completed", 4)
    expected = {(p.step, p.eval_loss): p for p in whole.points}
    for point in ends.points[-2:]:
        one = expected[point.step, point.eval_loss]
        assert (point.more, point.grad_norm, point.tokens) == (one.more, one.grad_norm, one.tokens)
        # The sum over the ranks of what was not logged is made in another order.
        assert point.loss == pytest.approx(one.loss)
