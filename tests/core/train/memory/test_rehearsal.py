"""The widest batch runs first, once, and leaves no trace."""

import random
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from core.train.data.examples import Example
from core.train.memory.rehearsal import longest_rows, widest_batch, without_trace

Run = Callable[..., Any]


def row(length: int) -> Example:
    return Example(np.arange(length, dtype=np.int32), np.arange(length, dtype=np.int32))


def lengths(rows: list[Example]) -> list[int]:
    return [len(r.ids) for r in rows]


def test_the_longest_rows_are_the_widest_batch_of_training() -> None:
    rows = [row(n) for n in (3, 9, 4, 9, 7)]
    assert lengths(longest_rows(rows, 3)) == [9, 9, 7]
    assert lengths(longest_rows(rows, 8)) == [9, 9, 7, 4, 3]


def test_the_widest_batch_of_an_evaluation_is_one_that_it_really_makes() -> None:
    rows = [row(n) for n in (3, 4, 5, 5, 9)]
    # Two rows of 5 hold more than one of 9.
    assert lengths(widest_batch(rows, 2)) == [5, 5]
    assert lengths(widest_batch(rows, 3)) == [5, 9]


def test_nothing_is_left_of_what_runs_without_trace() -> None:
    class Positions(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("inv_freq", torch.ones(4))
            self.max_seq_len_cached = 16
            self.full_attention_max_seq_len_cached = 32

    model = torch.nn.Sequential(Positions())
    torch.manual_seed(0)
    expected = torch.rand(3), np.random.default_rng(0).random(), None
    random.seed(0)
    np.random.seed(0)
    plain = random.random(), np.random.rand()
    torch.manual_seed(0)
    random.seed(0)
    np.random.seed(0)
    buffer = model[0].inv_freq
    with pytest.raises(ValueError, match="out"), without_trace(model):
        torch.rand(7), random.random(), np.random.rand()
        model[0].inv_freq = torch.zeros(4)
        model[0].max_seq_len_cached = 999
        model[0].full_attention_max_seq_len_cached = 999
        model[0].sliding_attention_max_seq_len_cached = 999
        raise ValueError("out")
    assert torch.equal(torch.rand(3), expected[0])
    assert (random.random(), np.random.rand()) == plain
    assert model[0].inv_freq is buffer and model[0].max_seq_len_cached == 16
    assert model[0].full_attention_max_seq_len_cached == 32
    assert not hasattr(model[0], "sliding_attention_max_seq_len_cached")


@pytest.fixture
def batches(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, int, int]]:
    """What the model was given: (training or evaluation, update, tokens with padding)."""
    from core.train.stages.base import StageTrainer

    seen: list[tuple[str, int, int]] = []
    train, rehearse = StageTrainer._train_on, StageTrainer._rehearse_evaluation

    def note(self: Any, model: Any, inputs: Any, count: Any) -> Any:
        seen.append(("train", self.state.global_step, inputs["input_ids"].numel()))
        return train(self, model, inputs, count)

    def note_too(self: Any, batch: Any) -> None:
        seen.append(("eval", self.state.global_step, batch["input_ids"].numel()))
        rehearse(self, batch)

    monkeypatch.setattr(StageTrainer, "_train_on", note)
    monkeypatch.setattr(StageTrainer, "_rehearse_evaluation", note_too)
    return seen


def test_the_widest_batch_runs_first_as_soon_as_the_optimizer_has_its_states(
    run_trial: Run, batches: list[Any], capsys: pytest.CaptureFixture[str]
) -> None:
    ran = run_trial(eval_steps=99, val_size=6)
    longest = ran.run.longest_row
    assert batches[:2] == [("train", 0, n) for _, _, n in batches[:2]]
    # Two of them: the second runs beside the first one's gradients.
    assert batches[2:4] == [("train", 1, 2 * longest)] * 2
    assert batches[4] == ("eval", 1, 2 * ran.run.longest_eval_row)
    assert len(batches) == 4 * 2 + 3
    assert max(n for name, _, n in batches if name == "train") == 2 * longest
    out = capsys.readouterr().out
    assert f"rehearsed the longest batch: 2 rows of {longest} tokens, peak" in out
    assert (
        f"rehearsed the longest evaluation batch: 2 rows of {ran.run.longest_eval_row} tokens"
        in out
    )


def test_the_widest_batch_finds_no_segments_of_narrower_ones(
    run_trial: Run, batches: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    emptied_before: list[int] = []
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: emptied_before.append(len(batches)))
    run_trial(eval_steps=99, val_size=6)
    first_update = 2
    assert first_update in emptied_before


def test_what_ran_already_is_not_rehearsed(run_trial: Run, batches: list[Any]) -> None:
    """One batch is the whole data, and the first update is evaluated."""
    run_trial(per_device_train_batch_size=24, gradient_accumulation_steps=1, eval_steps=1)
    assert [name for name, _, _ in batches] == ["train"] * 4


def test_a_single_update_needs_no_rehearsal(run_trial: Run, batches: list[Any]) -> None:
    run_trial(max_steps=1)
    assert len(batches) == 2


def test_a_resumed_trial_rehearses_before_its_first_update(
    run_trial: Run, batches: list[Any]
) -> None:
    settings = {"max_steps": 6, "val_size": 0.0}
    paused = run_trial(ask=("paused", 3), **settings)
    batches.clear()
    ran = run_trial(task={"attempt": 2, "resume_from": paused.report.checkpoint}, **settings)
    assert batches[:2] == [("train", 3, 2 * ran.run.longest_row)] * 2
    assert len(batches) == 2 + 3 * 2


def test_a_trial_resumed_with_another_optimizer_makes_its_states_before_it_rehearses(
    run_trial: Run, batches: list[Any]
) -> None:
    settings = {"max_steps": 6, "val_size": 0.0}
    paused = run_trial("other", ask=("paused", 3), **settings)
    batches.clear()
    ran = run_trial(
        "other",
        task={"attempt": 2, "resume_from": paused.report.checkpoint},
        optim="adafactor",
        **settings,
    )
    assert [step for _, step, _ in batches] == [3, 3, 4, 4, 4, 4, 5, 5]
    assert batches[2:4] == [("train", 4, 2 * ran.run.longest_row)] * 2


@pytest.mark.parametrize(
    "settings",
    [
        {"lora_dropout": 0.3},
        {"lora_dropout": 0.3, "gradient_checkpointing": True, "loss_chunk_tokens": 16},
        {"finetuning_type": "full", "neftune_noise_alpha": 5.0, "learning_rate": 1e-3},
        {"quantization_bit": 4, "lora_dropout": 0.1},
        {"precision": "bf16", "gradient_accumulation_steps": 1, "offload_optimizer": True},
    ],
)
def test_a_run_with_a_rehearsal_is_the_run_without_it_bit_by_bit(
    run_trial: Run, monkeypatch: pytest.MonkeyPatch, batches: list[Any], settings: dict[str, Any]
) -> None:
    from core.train.stages.base import StageTrainer

    settings = {"max_steps": 6, "eval_steps": 3, "task": {"save_model": True}} | settings
    ours = run_trial("rehearsed", **settings)
    rehearsed = len(batches)
    monkeypatch.setattr(StageTrainer, "_rehearse", lambda *_: None)
    plain = run_trial("plain", **settings)
    assert rehearsed > len(batches) - rehearsed
    for one, two in zip(ours.points, plain.points, strict=True):
        assert (one.step, one.loss, one.grad_norm, one.lr, one.tokens, one.eval_loss) == (
            two.step, two.loss, two.grad_norm, two.lr, two.tokens, two.eval_loss,
        )  # fmt: skip
    saved = [
        next((ran.folder / "output").glob("*model.safetensors")).read_bytes()
        for ran in (ours, plain)
    ]
    assert saved[0] == saved[1]


@pytest.mark.parametrize(
    ("which", "moment", "phase"), [("train", "forward", "train"), ("eval", "eval", "eval")]
)
def test_memory_that_is_not_enough_for_it_shows_in_the_second_update(
    run_trial: Run, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], which: str, moment: str,
    phase: str,
) -> None:  # fmt: skip
    from transformers import LlamaForCausalLM

    forward = LlamaForCausalLM.forward
    wide = 2 * run_trial("first", max_steps=1).run.longest_row
    begun = {"updates": 0}

    def fail(self: Any, *args: Any, **inputs: Any) -> Any:
        training = self.training
        if (
            (which == "train") == training
            and begun["updates"] >= 2
            and (not training or inputs["input_ids"].numel() >= wide)
        ):
            raise RuntimeError(
                "DefaultCPUAllocator: can't allocate memory: you tried to allocate 1 bytes."
            )
        begun["updates"] += training
        return forward(self, *args, **inputs)

    monkeypatch.setattr(LlamaForCausalLM, "forward", fail)
    report = run_trial(max_steps=50, eval_steps=40).report
    assert (report.outcome, report.step, report.phase, report.moment) == (
        "failed",
        1,
        phase,
        moment,
    )
    assert "batch does not fit: " in capsys.readouterr().out
