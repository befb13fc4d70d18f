"""What trials of a study have in common, whatever their settings: order, evaluation rows, initial weights, tokens."""

from collections.abc import Callable
from typing import Any

import pytest
import torch

Run = Callable[..., Any]


class Seen:
    """The rows that were trained on and evaluated on, in order, and the weights at the start."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        from core.train.data.batches import Collator
        from core.train.stages.base import StageTrainer

        self.trained: list[bytes] = []
        self.evaluated: list[bytes] = []
        self.weights: dict[str, torch.Tensor] = {}
        collate, init, measure = Collator.__call__, StageTrainer.__init__, StageTrainer._measure
        rehearse = StageTrainer._rehearse
        into = [self.trained]

        def collating(collator: Any, rows: Any) -> Any:
            into[-1].extend(row.ids.tobytes() for row in rows)
            return collate(collator, rows)

        def beginning(trainer: Any, **arguments: Any) -> None:
            init(trainer, **arguments)
            named = trainer.model.named_parameters()
            self.weights = {name: p.detach().clone() for name, p in named if p.requires_grad}

        def aside(method: Any, rows: list[bytes]) -> Any:
            def call(*arguments: Any) -> Any:
                into.append(rows)
                made = method(*arguments)
                into.pop()
                return made

            return call

        monkeypatch.setattr(Collator, "__call__", collating)
        monkeypatch.setattr(StageTrainer, "__init__", beginning)
        monkeypatch.setattr(StageTrainer, "_measure", aside(measure, self.evaluated))
        monkeypatch.setattr(StageTrainer, "_rehearse", aside(rehearse, []))


@pytest.fixture
def watch(run_trial: Run, monkeypatch: pytest.MonkeyPatch) -> Callable[..., tuple[Seen, Any]]:
    def run(name: str, **more: Any) -> tuple[Seen, Any]:
        with monkeypatch.context() as patch:
            seen = Seen(patch)
            ran = run_trial(name, **more)
        assert ran.report.outcome == "completed", ran.report
        return seen, ran

    return run


TASK = {"kind": "probe", "budget": 0.5, "full_rows": 4 * 12}


@pytest.mark.parametrize("packing", [False, True])
def test_all_trials_see_the_same_rows_in_the_same_order_whatever_their_batch(
    watch: Any, packing: bool
) -> None:
    settings = {"max_steps": 12, "val_size": 4, "eval_steps": 100, "packing": packing}
    runs = [
        watch(f"{batch}x{steps}", task=TASK, per_device_train_batch_size=batch, gradient_accumulation_steps=steps,
              per_device_eval_batch_size=2, learning_rate=1e-3 * batch, **settings)
        for batch, steps in ((2, 2), (1, 4), (4, 2), (3, 1))
    ]  # fmt: skip
    own, ran = runs[0]
    assert ran.report.step == 6 and ran.run.full_steps == 12
    for seen, _ in runs[1:]:
        shared = min(len(own.trained), len(seen.trained))
        assert seen.trained[:shared] == own.trained[:shared]
        assert shared >= len(own.trained) - 1
        assert len(seen.trained) - shared < 8, "no probe goes on for more than an update"
        assert seen.evaluated == own.evaluated != []


def test_the_initial_adapter_depends_on_the_seed_alone(watch: Any) -> None:
    own, _ = watch("own", max_steps=1)
    other, _ = watch(
        "other", max_steps=2, learning_rate=1e-5, per_device_train_batch_size=1, lora_dropout=0.5, lora_alpha=64,
        val_size=5, order_seed=9,
    )  # fmt: skip
    assert own.weights.keys() == other.weights.keys()
    assert all(torch.equal(own.weights[name], other.weights[name]) for name in own.weights)
    reseeded, _ = watch("reseeded", max_steps=1, seed=1)
    assert not all(torch.equal(own.weights[name], reseeded.weights[name]) for name in own.weights)


def test_the_order_s_seed_changes_the_order_and_nothing_else(watch: Any) -> None:
    settings = {"max_steps": 5, "val_size": 4, "eval_steps": 5}
    own, ran = watch("own", **settings)
    other, ran_too = watch("other", order_seed=7, **settings)
    same, _ = watch("same", order_seed=42, **settings)
    assert other.trained != own.trained == same.trained
    assert sorted(other.trained) == sorted(own.trained)
    assert other.evaluated == own.evaluated
    assert ran.run.epoch_tokens == ran_too.run.epoch_tokens == ran.points[-1].tokens


def test_a_budget_in_tokens_makes_batches_alike(watch: Any) -> None:
    task = {"kind": "probe", "budget_tokens": 400}
    for batch in (1, 2, 5):
        _, ran = watch(f"{batch}", task=task, num_train_epochs=2.0, max_steps=None,
                       per_device_train_batch_size=batch, gradient_accumulation_steps=1)  # fmt: skip
        tokens = [p.tokens for p in ran.points if p.loss is not None]
        assert tokens[-1] >= 400 and all(t < 400 for t in tokens[:-1])
        assert len(tokens) == ran.run.total_steps < ran.run.full_steps


@pytest.mark.parametrize("settings", [{}, {"loss_chunk_tokens": 16}])
def test_evaluations_say_how_many_tokens_the_model_had_right(
    run_trial: Run, settings: dict[str, Any]
) -> None:
    ran = run_trial(max_steps=30, val_size=4, eval_steps=10, **settings)
    found = [p for p in ran.points if p.eval_loss is not None]
    right = [(p.more or {})["eval_accuracy"] for p in found]
    assert 0 <= right[0] < right[-1] <= 1 and right[-1] > 0.5
    trained = {p.step: p.tokens for p in ran.points if p.loss is not None}
    assert all(p.tokens == trained[p.step] for p in found)


def test_chunks_do_not_change_how_many_tokens_were_right(run_trial: Run) -> None:
    settings = {"max_steps": 5, "val_size": 6, "eval_steps": 1, "per_device_eval_batch_size": 3}
    plain = run_trial("plain", **settings)
    chunked = run_trial("chunked", loss_chunk_tokens=16, **settings)
    assert [p.more for p in plain.points] == [p.more for p in chunked.points]
    assert any(p.more for p in plain.points)
