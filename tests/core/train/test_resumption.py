"""Runs that go on from a checkpoint: to the last bit with the same settings, and never silently with others."""

import json
from collections.abc import Callable
from typing import Any

import pytest

from core.profile import loads
from core.train.meaning import comes_to
from core.train.resumption import FILE, changes, read_settings, refusal, settings_of

Run = Callable[..., Any]

RUNS: dict[str, dict[str, Any]] = {
    "full": {"finetuning_type": "full", "learning_rate": 1e-3},
    "freeze": {"finetuning_type": "freeze", "freeze_trainable_layers": 1, "learning_rate": 1e-3},
    "qlora": {"quantization_bit": 4},
    "dora": {"use_dora": True, "use_rslora": True},
    "lora+": {"loraplus_lr_ratio": 8.0, "learning_rate": 1e-3},
    "sgd": {"optim": "sgd", "optim_args": "momentum=0.9", "learning_rate": 0.05},
    "lion": {"optim": "lion_32bit", "learning_rate": 1e-3},
    "8-bit lion": {"optim": "lion_8bit", "learning_rate": 1e-3, "finetuning_type": "full"},
    "adafactor": {"optim": "adafactor", "learning_rate": 1e-3},
    "plateau": {
        "lr_scheduler_type": "reduce_lr_on_plateau", "lr_scheduler_kwargs": {"patience": 0, "factor": 0.3},
        "eval_steps": 1, "learning_rate": 0.3,
    },
    "best": {"save_best": 2, "eval_steps": 2},
    "early": {"early_stopping_patience": 2, "eval_steps": 1, "learning_rate": 0.3, "max_grad_norm": 0.0},
    "pure bf16": {"precision": "pure_bf16"},
}  # fmt: skip


@pytest.mark.parametrize("name", RUNS)
def test_a_paused_run_goes_on_to_the_last_bit(run_trial: Run, name: str) -> None:
    settings = {"max_steps": 6, "val_size": 4, "lora_dropout": 0.1, **RUNS[name]}
    task = {"save_model": True}
    straight = run_trial("straight", task=task, **settings)
    assert straight.report.outcome == "completed", straight.report.error
    paused = run_trial("paused", task=task, ask=("paused", 3), **settings)
    assert paused.report.outcome == "paused", paused.report.error
    again = run_trial(
        "paused", task=task | {"attempt": 2, "resume_from": paused.report.checkpoint}, **settings
    )

    def figures(ran: Any) -> list[Any]:
        return [(p.step, p.loss, p.grad_norm, p.lr, p.eval_loss) for p in ran.points]

    assert figures(again) == figures(straight)
    one, two = (
        next((ran.folder / "output").glob("*model.safetensors")).read_bytes()
        for ran in (straight, again)
    )
    assert one == two


def test_changed_settings_take_effect_and_are_said(
    run_trial: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = {"max_steps": 6, "lr_scheduler_type": "constant"}
    paused = run_trial("paused", ask=("paused", 3), **settings)
    capsys.readouterr()
    task = {"attempt": 2, "resume_from": paused.report.checkpoint}
    changed = settings | {
        "learning_rate": 0.001,
        "weight_decay": 0.5,
        "gradient_checkpointing": True,
    }
    again = run_trial("paused", task=task, **changed)
    assert again.report.outcome == "completed", again.report.error
    rates = {p.step: p.lr for p in again.points if p.lr is not None}
    assert rates[3] == pytest.approx(0.01) and rates[4] == rates[6] == pytest.approx(0.001)
    log = capsys.readouterr().out
    assert "train.learning_rate 0.01 → 1e-3" in log and "train.weight_decay 0.01 → 0.5" in log
    assert "train.gradient_checkpointing false → true" in log
    assert set(again.run.changed) == {
        "train.learning_rate", "train.weight_decay", "train.gradient_checkpointing",
    }  # fmt: skip


def test_the_same_settings_are_not_talked_about(
    run_trial: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    paused = run_trial(ask=("paused", 2))
    run_trial(task={"attempt": 2, "resume_from": paused.report.checkpoint})
    assert "other than" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({"lora_rank": 4}, r"method.lora_rank 8 → 4"),
        ({"lora_target": "q_proj"}, 'method.lora_target "all" → "q_proj"'),
        ({"use_dora": True}, "method.use_dora false → true"),
        ({"pissa_init": True}, "method.pissa_init false → true"),
        ({"loraplus_lr_ratio": 4.0}, "method.loraplus_lr_ratio not set → 4"),
        ({"optim": "sgd"}, 'train.optim "adamw_torch" → "sgd"'),
        ({"cutoff_len": 100}, "data.cutoff_len 64 → 100"),
        ({"packing": True}, "data.packing false → true"),
        ({"template": "chatml"}, 'model.template "auto" → "chatml"'),
        ({"data_seed": 7}, "another order of the data"),
        ({"per_device_train_batch_size": 4}, "another effective batch (8, not 4)"),
        ({"lr_scheduler_type": "reduce_lr_on_plateau"}, "another learning rate or schedule"),
        ({"finetuning_type": "full"}, "holds adapters"),
    ],
)
def test_what_changes_the_meaning_of_a_checkpoint_is_refused(
    run_trial: Run, changed: dict[str, Any], told: str
) -> None:
    paused = run_trial(ask=("paused", 2))
    report = run_trial(
        task={"attempt": 2, "resume_from": paused.report.checkpoint}, **changed
    ).report
    assert report.usage_error and told in report.error and "start" in report.error


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({"lr_scheduler_kwargs": {"patience": 3}}, "train.lr_scheduler_kwargs { patience = 0 } → { patience = 3 }"),
        ({"loraplus_lr_ratio": 4.0}, "method.loraplus_lr_ratio 2 → 4"),
        ({"search__rank_by": "eval_accuracy"}, '"eval_loss (min)" → "eval_accuracy (max)"'),
    ],
)  # fmt: skip
def test_what_a_schedule_keeps_in_its_state_is_not_changed_without_effect(
    run_trial: Run, changed: dict[str, Any], told: str
) -> None:
    settings = {
        "lr_scheduler_type": "reduce_lr_on_plateau", "lr_scheduler_kwargs": {"patience": 0}, "val_size": 4,
        "eval_steps": 1, "loraplus_lr_ratio": 2.0,
    }  # fmt: skip
    paused = run_trial(ask=("paused", 2), **settings)
    task = {"attempt": 2, "resume_from": paused.report.checkpoint}
    report = run_trial(task=task, **settings | changed).report
    assert report.usage_error and told in report.error


def test_a_checkpoint_that_does_not_tell_its_settings_is_said_to(
    run_trial: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    paused = run_trial(ask=("paused", 2))
    (paused.folder / paused.report.checkpoint / FILE).unlink()
    run_trial(task={"attempt": 2, "resume_from": paused.report.checkpoint})
    assert "does not tell which settings made it" in capsys.readouterr().out


def test_memory_fixes_go_on_from_a_checkpoint(run_trial: Run) -> None:
    # So that a training that is done leaves its checkpoints.
    kept = {"save_steps": 4, "save_total_limit": 9}
    paused = run_trial(ask=("paused", 2), **kept)
    task = {"attempt": 2, "resume_from": paused.report.checkpoint}
    for fix in (
        {"per_device_train_batch_size": 1, "gradient_accumulation_steps": 4},
        {"gradient_checkpointing": True, "loss_chunk_tokens": 16, "attn": "eager"},
        {"optim": "adamw_8bit"},
        {"adapter_precision": "bf16"},
        {"quantization_bit": 4},
        {"cutoff_len": 48},
    ):
        report = run_trial(task=task, **kept, **fix).report
        assert report.outcome == "completed", (fix, report.error)


def test_a_checkpoint_tells_the_settings_that_made_it(run_trial: Run) -> None:
    ran = run_trial(save_steps=2, lora_rank=4)
    checkpoint = ran.folder / "checkpoints" / "checkpoint-2"
    settings = read_settings(checkpoint)
    assert settings is not None and settings["method.lora_rank"] == 4
    assert settings["effective_batch"] == 4
    record = json.loads((checkpoint / FILE).read_text())
    record["settings"]["method.lora_rank"] = 16
    (checkpoint / FILE).write_text(json.dumps(record))
    assert read_settings(checkpoint) is None
    (checkpoint / FILE).write_text("{")
    assert read_settings(checkpoint) is None


def made(more: str = "", model: str = "a/model", data: str = 'dataset = "demo"') -> dict[str, Any]:
    profile = loads(f'[model]\nmodel_name_or_path = "{model}"\n[data]\n{data}\n{more}')
    return json.loads(json.dumps(settings_of(profile)))  # type: ignore[no-any-return]


def test_a_folder_may_move_and_its_model_may_not_be_another() -> None:
    assert refusal(made(model="/old/place/llama"), made(model="/new/llama")) is None
    refused = refusal(made(model="/old/place/llama"), made(model="/old/place/qwen"))
    assert refused is not None and "llama" in refused and "qwen" in refused


def test_settings_without_effect_are_no_change() -> None:
    full = '[method]\nfinetuning_type = "full"\n'
    assert changes(made(full), made(f"{full}lora_rank = 64\n")) == []
    assert refusal(made(full), made(f"{full}lora_rank = 64\n")) is None


def method(more: str) -> str:
    return f"[method]\n{more}\n"


def train(more: str) -> str:
    return f"[train]\n{more}\n"


GREEDY = 'lr_scheduler_type = "greedy"\nlearning_rate = 0.001\n'
FLOORED = 'lr_scheduler_type = "cosine_with_min_lr"\n'
PURE = train('precision = "pure_bf16"')


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (method("lora_rank = 4"), method("lora_rank = 4\nlora_alpha = 8")),
        ("", method('adapter_precision = "fp32"')),
        (PURE, PURE + method('adapter_precision = "bf16"')),
        (train("per_device_train_batch_size = 2"), train("per_device_train_batch_size = 2\nper_device_eval_batch_size = 2")),
        (train(GREEDY), train(GREEDY + "lr_scheduler_kwargs = { min_lr = 0.0001, max_lr = 0.01 }")),
        (train(FLOORED), train(FLOORED + "lr_scheduler_kwargs = { min_lr_rate = 0.1 }")),
        (train("max_steps = 9"), train("max_steps = 9\nnum_train_epochs = 1")),
        (train("warmup_steps = 2"), train("warmup_steps = 2\nwarmup_ratio = 0.5")),
        (train('lr_scheduler_type = "constant"'), train('lr_scheduler_type = "constant"\nwarmup_steps = 7')),
        (
            train('optim = "sgd"\noptim_args = "momentum=0.9, nesterov=true"'),
            train('optim = "sgd"\noptim_args = "nesterov = true,momentum=0.90"'),
        ),
        (method('lora_target = "q_proj,v_proj"'), method('lora_target = "v_proj, q_proj"')),
    ],
)  # fmt: skip
def test_what_comes_to_the_same_is_no_change(one: str, other: str) -> None:
    for was, now in ((one, other), (other, one)):
        assert changes(made(was), made(now)) == []
        assert refusal(made(was), made(now)) is None


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ('dataset = "demo"', 'dataset = ["demo"]'),
        ('dataset = "a.jsonl, b.jsonl"', 'dataset = ["a.jsonl", "b.jsonl"]'),
        ('dataset = "demo"\neval_dataset = "demo"', 'dataset = "demo"\neval_dataset = ["demo"]\nval_size = 4'),
        (
            'dataset = ["a.jsonl", "b.jsonl"]\nmix_strategy = "interleave_under"',
            'dataset = ["a.jsonl", "b.jsonl"]\nmix_strategy = "interleave_under"\ninterleave_probs = [0.5, 0.5]',
        ),
        (
            'dataset = ["a.jsonl", "b.jsonl"]\nmix_strategy = "interleave_over"\ninterleave_probs = [7, 3]',
            'dataset = ["a.jsonl", "b.jsonl"]\nmix_strategy = "interleave_over"\ninterleave_probs = [0.7, 0.3]',
        ),
    ],
)  # fmt: skip
def test_data_that_comes_to_the_same_is_no_change(one: str, other: str) -> None:
    for was, now in ((one, other), (other, one)):
        assert changes(made(data=was), made(data=now)) == []
        assert refusal(made(data=was), made(data=now)) is None


@pytest.mark.parametrize(
    ("one", "other"),
    [
        # Without evaluation data of their own, rows are taken off those to train on.
        ('dataset = "demo"\neval_dataset = "demo"', 'dataset = "demo"'),
        ('dataset = "x/a.jsonl,x/b.jsonl"', 'dataset = "x/c.jsonl,x/b.jsonl"'),
    ],
)
def test_other_rows_to_train_on_are_refused(one: str, other: str) -> None:
    for was, now in ((one, other), (other, one)):
        refused = refusal(made(data=was), made(data=now))
        assert refused is not None and refused.startswith("other settings (data.")


def test_data_sets_may_move_and_evaluation_data_be_added_where_nothing_is_set_aside() -> None:
    assert refusal(made(data='dataset = "x/a,x/b"'), made(data='dataset = "y/a,y/b"')) is None
    alone = 'dataset = "demo"\nval_size = 0'
    assert refusal(made(data=alone), made(data=f'{alone}\neval_dataset = "demo"')) is None


@pytest.mark.parametrize(
    ("one", "other", "told"),
    [
        (method("lora_rank = 4"), method("lora_rank = 4\nlora_alpha = 16"), "method.lora_alpha not set → 16"),
        (method("lora_alpha = 8"), "", "method.lora_alpha 8 → not set"),
        ("", method('adapter_precision = "bf16"'), 'method.adapter_precision "auto" → "bf16"'),
        (train(GREEDY), train(GREEDY + "lr_scheduler_kwargs = { min_lr = 1e-6 }"), "train.lr_scheduler_kwargs"),
        (train("warmup_steps = 2"), train("warmup_ratio = 0.5"), "train.warmup_steps 2 → not set"),
        (method('lora_target = "q_proj"'), method('lora_target = "q_proj,v_proj"'), "method.lora_target"),
        (train("num_train_epochs = 1"), train("num_train_epochs = 2"), "train.num_train_epochs 1 → 2"),
    ],
)  # fmt: skip
def test_what_comes_to_something_else_is_a_change(one: str, other: str, told: str) -> None:
    assert told in "; ".join(str(change) for change in changes(made(one), made(other)))


def test_a_default_that_follows_another_setting_is_told_with_that_one() -> None:
    was, now = made(method("lora_rank = 4")), made(method("lora_rank = 8"))
    assert [change.key for change in changes(was, now)] == ["method.lora_rank"]
    larger = train("per_device_train_batch_size = 8\ngradient_accumulation_steps = 2")
    assert changes(made(train("gradient_accumulation_steps = 4")), made(larger)) == []


def test_settings_of_an_older_version_are_compared_as_far_as_they_go() -> None:
    was = made(method("lora_rank = 4"))
    for key in ("method.lora_rank", "train.learning_rate", "data.dataset", "train.optim"):
        del was[key]
    assert changes(was, made(method("lora_rank = 4"))) == []


def test_the_default_of_lora_alpha_is_what_an_adapter_gets(run_trial: Run) -> None:
    ran = run_trial(task={"save_model": True}, max_steps=1, lora_rank=4)
    config = json.loads((ran.folder / "output" / "adapter_config.json").read_text())
    assert comes_to("method.lora_alpha", {"method.lora_rank": 4}) == config["lora_alpha"] == 8
