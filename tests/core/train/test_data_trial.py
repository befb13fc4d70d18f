"""What the data's settings do to a trial as a whole: packing, grouping, the study's cache, the template."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from transformers import MambaConfig

from core.train.data.chat import ChatEncoder

Run = Callable[..., Any]
ONCE = {
    "max_steps": 1,
    "val_size": 0,
    "gradient_accumulation_steps": 1,
    "per_device_train_batch_size": 24,
}


@pytest.mark.parametrize("settings", [{}, {"loss_chunk_tokens": 16}, {"attn": "eager"}])
def test_an_update_of_packed_rows_has_the_loss_of_the_same_rows_apart(
    run_trial: Run, settings: dict[str, Any]
) -> None:
    apart = run_trial("apart", **ONCE, **settings)
    packed = run_trial("packed", packing=True, **ONCE, **settings)
    assert apart.report.outcome == packed.report.outcome == "completed", packed.report
    one, other = apart.points[0], packed.points[0]
    assert one.loss == pytest.approx(other.loss, rel=1e-5)
    assert one.grad_norm == pytest.approx(other.grad_norm, rel=1e-4)
    assert one.tokens == other.tokens == apart.run.epoch_tokens == packed.run.epoch_tokens
    assert packed.run.steps_per_epoch == 1 and packed.run.train_rows == 24
    assert packed.run.longest_row <= 64 < 2 * packed.run.longest_row


def test_grouped_rows_come_in_one_order_for_every_batch(
    run_trial: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    from core.train.data.batches import Collator
    from core.train.stages.base import StageTrainer

    seen: list[tuple[bytes, ...]] = []
    collate = Collator.__call__
    monkeypatch.setattr(StageTrainer, "_rehearse", lambda *_: None)

    def collating(collator: Any, rows: Any) -> Any:
        seen.append(tuple(row.ids.tobytes() for row in rows))
        return collate(collator, rows)

    monkeypatch.setattr(Collator, "__call__", collating)

    def order(name: str, batch: int, steps: int) -> list[bytes]:
        seen.clear()
        settings = ONCE | {"max_steps": 12 // batch, "per_device_train_batch_size": batch}
        ran = run_trial(name, group_by_length=True, **settings)
        assert ran.report.outcome == "completed", ran.report
        return [row for batch in seen for row in batch][:12]

    two, four = order("two", 2, 6), order("four", 4, 3)
    assert two == four and len(set(two)) == 12
    lengths = [len(row) for row in two]
    assert lengths == sorted(lengths, reverse=True), "24 rows are less than one block"


def test_the_second_trial_of_a_study_tokenises_nothing(
    run_trial: Run, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    calls: list[int] = []
    encode = ChatEncoder.encode

    def counting(encoder: ChatEncoder, rows: Any) -> Any:
        calls.append(len(rows))
        return encode(encoder, rows)

    monkeypatch.setattr(ChatEncoder, "encode", counting)
    task = {"cache": "../cache"}
    first = run_trial("first", task=task, max_steps=2, val_size=4)
    assert sum(calls) == 24 and "from the cache" not in capsys.readouterr().out
    second = run_trial("second", task=task, max_steps=2, val_size=4, learning_rate=0.01)
    assert sum(calls) == 24
    assert "tokenised data from the cache: 24 rows" in capsys.readouterr().out
    assert first.losses == second.losses
    assert (first.run.epoch_tokens, first.run.longest_row) == (
        second.run.epoch_tokens, second.run.longest_row,
    )  # fmt: skip


def test_a_template_that_does_not_fit_is_refused_before_the_model_is_loaded(
    run_trial: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("the model was loaded")

    monkeypatch.setattr("transformers.AutoModelForCausalLM.from_pretrained", refuse)
    ran = run_trial(template="gemma")
    assert ran.report.outcome == "failed" and ran.report.usage_error
    assert 'model.template = "gemma" does not fit' in ran.report.error
    assert '"auto"' in ran.report.error and '"chatml"' in ran.report.error


def test_a_model_that_cannot_keep_packed_rows_apart_is_refused_before_it_is_loaded(
    run_trial: Run, model_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("the model was loaded")

    folder = shutil.copytree(
        model_dir, tmp_path / "mamba", ignore=shutil.ignore_patterns("*.safetensors")
    )
    MambaConfig(vocab_size=400, hidden_size=16, num_hidden_layers=1).save_pretrained(folder)
    monkeypatch.setattr("transformers.AutoModelForCausalLM.from_pretrained", refuse)
    ran = run_trial(packing=True, model_name_or_path=str(folder), **ONCE)
    assert ran.report.outcome == "failed" and ran.report.usage_error, ran.report
    assert "packed rows of" in ran.report.error and "takes no positions" in ran.report.error


@pytest.mark.parametrize("settings", [{"group_by_length": True}, {"packing": True}])
def test_a_paused_trial_goes_on_exactly_with_grouped_and_with_packed_rows(
    run_trial: Run, settings: dict[str, Any]
) -> None:
    settings = settings | {"max_steps": 8, "val_size": 4, "gradient_accumulation_steps": 1}
    task = {"cache": "../cache"}
    straight = run_trial("straight", task=task, **settings)
    paused = run_trial("paused", task=task, ask=("paused", 5), **settings)
    again = task | {"attempt": 2, "resume_from": paused.report.checkpoint}
    resumed = run_trial("paused", task=again, **settings)
    assert paused.report.outcome == "paused" and resumed.report.outcome == "completed"
    assert resumed.losses == straight.losses and len(straight.losses) == 8
    assert [p.tokens for p in resumed.points] == [p.tokens for p in straight.points]


def test_a_budget_in_tokens_counts_them_in_the_grouped_order(run_trial: Run) -> None:
    task = {"kind": "probe", "budget_tokens": 500}
    settings = {
        "max_steps": None,
        "num_train_epochs": 2.0,
        "val_size": 0,
        "gradient_accumulation_steps": 1,
    }
    ran = run_trial(task=task, group_by_length=True, **settings)
    tokens = [p.tokens for p in ran.points if p.loss is not None]
    assert tokens[-1] >= 500 and all(t < 500 for t in tokens[:-1])


def test_the_log_and_the_run_tell_of_pairs_of_one_answer(
    run_trial: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "pairs.jsonl"
    rows = [
        {"instruction": f"Say {n}", "chosen": "Hello", "rejected": "Hello" if n % 4 == 0 else "1"}
        for n in range(8)
    ]
    file.write_text("\n".join(map(json.dumps, rows)))
    settings = {"max_steps": 1, "val_size": 0, "gradient_accumulation_steps": 1}
    ran = run_trial(stage="dpo", dataset=str(file), **settings)
    assert ran.report.outcome == "completed"
    assert (ran.run.train_rows, ran.run.dropped_rows) == (6, 2)
    assert (
        "2 dropped (nothing to learn within cutoff_len, or equal answers)"
        in capsys.readouterr().out
    )
