"""Mixed precision: models that are compared compute alike, and updates that overflow are left out."""

import json
import math
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import Accelerator
from transformers import AutoModelForCausalLM, Trainer

Run = Callable[..., Any]


@pytest.fixture(scope="session")
def halved(tmp_path_factory: pytest.TempPathFactory, model_dir: Path) -> Path:
    """The model with its weights saved in bf16, as most are."""
    folder = tmp_path_factory.mktemp("halved") / "model"
    shutil.copytree(model_dir, folder)
    AutoModelForCausalLM.from_pretrained(model_dir, dtype=torch.bfloat16).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def judged(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Rows for stages dpo and kto."""
    folder = tmp_path_factory.mktemp("judged")
    files = {}
    for stage in ("dpo", "kto"):
        rows = []
        for n in range(16):
            more: dict[str, Any] = {"output": "hello " * (1 + n % 5), "kto_tag": n % 2 == 0}
            if stage == "dpo":
                more = {"chosen": "hello " * (1 + n % 5), "rejected": "spider " * (2 + n % 4)}
            rows.append(json.dumps({"instruction": f"Say {n}", "input": "", **more}))
        files[stage] = folder / f"{stage}.jsonl"
        files[stage].write_text("\n".join(rows))
    return files


@pytest.fixture
def products(monkeypatch: pytest.MonkeyPatch) -> dict[bool, set[Any]]:
    """The numbers of the products of linear layers, with gradients and without."""
    seen: dict[bool, set[Any]] = {True: set(), False: set()}
    linear = torch.nn.functional.linear

    def noting(*inputs: Any, **settings: Any) -> Any:
        made = linear(*inputs, **settings)
        seen[torch.is_grad_enabled()].add(made.dtype)
        return made

    monkeypatch.setattr(torch.nn.functional, "linear", noting)
    return seen


WAYS: dict[str, dict[str, Any]] = {
    "full": {"finetuning_type": "full"},
    "freeze": {"finetuning_type": "freeze", "freeze_trainable_layers": 1},
    "freeze and words": {
        "finetuning_type": "freeze", "freeze_trainable_layers": 1, "freeze_extra_modules": "embed_tokens,norm",
    },
    "lora": {"finetuning_type": "lora"},
    "lora and words": {"finetuning_type": "lora", "additional_target": "embed_tokens,norm"},
}  # fmt: skip


@pytest.mark.parametrize("precision", ["bf16", "pure_bf16"])
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("stage", ["dpo", "kto"])
def test_a_policy_that_has_learnt_nothing_is_its_reference_in_mixed_precision_too(
    run_trial: Run, halved: Path, judged: Any, products: Any, stage: str, way: str, precision: str
) -> None:
    """To the last bit, in training, in an evaluation, and in kto's reference point."""
    ran = run_trial(
        model_name_or_path=str(halved), stage=stage, dataset=str(judged[stage]), precision=precision,
        warmup_steps=2, max_steps=1, learning_rate=1e-30, val_size=4, weight_decay=0.0, **WAYS[way],
    )  # fmt: skip
    assert ran.report.outcome == "completed", ran.report
    # Policy and reference, the one with gradients, the other without.
    assert products == {True: {torch.bfloat16}, False: {torch.bfloat16}}
    told = [p.more for p in ran.points if p.more]
    assert len(told) == 2, "a log and an evaluation"
    for more in told:
        rewards = [v for name, v in more.items() if "reward" in name and "accuracy" not in name]
        assert set(rewards) == {0.0}
    if stage == "kto":
        assert [more.get("kl", more.get("eval_kl")) for more in told] == [0.0, 0.0]


@pytest.fixture
def scaled(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Have losses scaled as with fp16 on a GPU, so that the first update overflows and no later one. The scale is a power
    of two: what does not overflow is the same as without."""
    made: list[Any] = []
    create = Trainer.create_accelerator_and_postprocess

    def with_scaler(trainer: Any) -> None:
        create(trainer)
        trainer.accelerator.native_amp = True
        trainer.accelerator.scaler = torch.amp.GradScaler(
            "cpu", init_scale=2.0**126, backoff_factor=2.0**-110
        )
        made.append(trainer)

    monkeypatch.setattr(Trainer, "create_accelerator_and_postprocess", with_scaler)
    monkeypatch.setattr(Accelerator, "mixed_precision", property(lambda self: "fp16"))
    return made


@pytest.mark.parametrize("optim", ["adamw_torch", "adafactor", "galore_adamw"])
def test_an_update_that_overflows_is_counted_and_changes_nothing(
    run_trial: Run, scaled: list[Any], optim: str
) -> None:
    """As transformers counts: the rows are gone, and the rate waits."""
    settings = {
        "finetuning_type": "full", "optim": optim, "max_steps": 6, "lr_scheduler_type": "linear", "warmup_ratio": 0.0,
        "learning_rate": 1e-3, "val_size": 4, "eval_steps": 1,
    }  # fmt: skip
    straight = run_trial("straight", **settings)
    assert straight.report.outcome == "completed" and straight.report.step == 6
    logs = [p for p in straight.points if p.loss is not None]
    norms = [p.grad_norm for p in logs]
    assert not math.isfinite(norms[0]) and all(math.isfinite(norm) for norm in norms[1:])
    assert all(math.isfinite(p.loss) for p in logs)
    rates = [1e-3 * (6 - step) / 6 for step in (0, 0, 1, 2, 3, 4)]
    assert [p.lr for p in logs] == pytest.approx(rates)
    seen = [p.eval_loss for p in straight.points if p.eval_loss is not None]
    assert len(seen) == 6
    untrained = run_trial("untrained", **settings | {"learning_rate": 1e-30, "max_steps": 2})
    assert seen[0] == next(p.eval_loss for p in untrained.points if p.eval_loss is not None)
    assert seen[1] != seen[0]
    # The scale is in a checkpoint: one that began anew would overflow again.
    paused = run_trial("paused", ask=("paused", 3), **settings)
    task = {"attempt": 2, "resume_from": paused.report.checkpoint}
    again = run_trial("paused", task=task, **settings)
    assert again.losses == straight.losses
    assert [p.eval_loss for p in again.points if p.eval_loss is not None] == seen
    assert scaled[-1].accelerator.scaler.get_scale() == 2.0**16


def test_rehearsals_wait_for_the_first_update_that_does_not_overflow(
    run_trial: Run, scaled: list[Any], capsys: pytest.CaptureFixture[str]
) -> None:
    """Before it the optimizer has no states, whose memory a rehearsal is to see; it leaves the scale as it is."""
    ran = run_trial(finetuning_type="full", max_steps=4, per_device_train_batch_size=1)
    assert ran.report.outcome == "completed"
    said = capsys.readouterr().out
    first, second = said.index("step 2/4"), said.index("step 3/4")
    assert first < said.index("rehearsed the longest batch") < second
    assert scaled[-1].accelerator.scaler.get_scale() == 2.0**16
