"""Whole trials with each setting that saves memory, beside the trial without it."""

from collections.abc import Callable
from typing import Any

import pytest
import torch

from core.train.memory import offload

Run = Callable[..., Any]

METHODS: dict[str, dict[str, Any]] = {
    "lora": {"lora_dropout": 0.0},
    "dora on the head": {"use_dora": True, "lora_target": "lm_head, q_proj"},
    "full": {"finetuning_type": "full", "learning_rate": 1e-3},
    "freeze": {"finetuning_type": "freeze", "freeze_trainable_layers": 1, "learning_rate": 1e-3},
    "qlora": {"quantization_bit": 4},
}


def curve(ran: Any) -> list[tuple[float | None, ...]]:
    assert ran.report.outcome == "completed", ran.report.error
    return [(p.loss, p.grad_norm, p.eval_loss) for p in ran.points]


def assert_close(ours: Any, plain: Any, rel: float) -> None:
    for one, two in zip(curve(ours), curve(plain), strict=True):
        for a, b in zip(one, two, strict=True):
            assert (a is None) == (b is None)
            assert a is None or a == pytest.approx(b, rel=rel)


@pytest.mark.parametrize("method", METHODS)
def test_the_loss_in_chunks_trains_the_same(run_trial: Run, method: str) -> None:
    settings = {"eval_steps": 2, "max_steps": 6} | METHODS[method]
    plain = run_trial("plain", **settings)
    ours = run_trial("ours", loss_chunk_tokens=16, **settings)
    assert ours.losses[0][1] == pytest.approx(plain.losses[0][1], rel=1e-6)
    assert_close(ours, plain, 2e-5)


@pytest.mark.parametrize(
    "settings",
    [
        {"precision": "bf16"},
        {"precision": "bf16", "finetuning_type": "full", "learning_rate": 1e-3},
        {"precision": "pure_bf16", "learning_rate": 1e-3},
    ],
)
def test_the_loss_in_chunks_trains_the_same_in_bf16(
    run_trial: Run, settings: dict[str, Any]
) -> None:
    plain = run_trial("plain", **settings)
    ours = run_trial("ours", loss_chunk_tokens=16, **settings)
    # Gradients of the chunks are rounded to bf16 before they are added up.
    for (_, a), (_, b) in zip(ours.losses, plain.losses, strict=True):
        assert a == pytest.approx(b, rel=2e-3)


@pytest.mark.parametrize(
    "settings",
    [
        {"neftune_noise_alpha": 5.0},
        {"gradient_checkpointing": True},
        {"packing": True, "cutoff_len": 128},
    ],
)
def test_the_loss_in_chunks_goes_with_other_settings(
    run_trial: Run, settings: dict[str, Any]
) -> None:
    assert_close(
        run_trial("ours", loss_chunk_tokens=16, **settings), run_trial("plain", **settings), 2e-5
    )


def test_a_model_that_was_trained_in_chunks_is_saved_whole(run_trial: Run) -> None:
    from transformers import AutoModelForCausalLM

    ran = run_trial(
        task={"save_model": True}, finetuning_type="full", loss_chunk_tokens=16, max_steps=2
    )
    model = AutoModelForCausalLM.from_pretrained(ran.folder / "output")
    assert model(torch.arange(4)[None]).logits.shape[1] == 4


@pytest.mark.parametrize("kind", ["lora", "full"])
def test_checkpointing_every_second_layer_trains_the_same(run_trial: Run, kind: str) -> None:
    settings = {"finetuning_type": kind, "learning_rate": 1e-3}
    plain = run_trial("plain", **settings)
    ours = run_trial(
        "ours", gradient_checkpointing=True, gradient_checkpointing_every=2, **settings
    )
    assert_close(ours, plain, 1e-5)


@pytest.mark.parametrize("method", ["lora", "full", "qlora"])
def test_an_offloaded_optimizer_trains_exactly_the_same(run_trial: Run, method: str) -> None:
    settings = {"max_grad_norm": 0.1, "max_steps": 6} | METHODS[method]
    assert curve(run_trial("ours", offload_optimizer=True, **settings)) == curve(
        run_trial("plain", **settings)
    )


@pytest.mark.parametrize("change", [{}, {"offload_optimizer": False}])
def test_an_offloaded_optimizer_goes_on_exactly_after_a_pause(
    run_trial: Run, change: dict[str, Any]
) -> None:
    """Also without the offload: a fix may come or go between two attempts."""
    settings = {"finetuning_type": "full", "learning_rate": 1e-3, "max_steps": 6, "val_size": 0.0}
    straight = run_trial("straight", **settings)
    paused = run_trial("paused", ask=("paused", 3), offload_optimizer=True, **settings)
    assert paused.report.outcome == "paused"
    resumed = run_trial(
        "paused",
        task={"attempt": 2, "resume_from": paused.report.checkpoint},
        **({"offload_optimizer": True} | settings | change),
    )
    assert resumed.losses == straight.losses


@pytest.mark.parametrize("checkpointing", [False, True])
def test_activations_in_the_host_s_memory_train_exactly_the_same(
    run_trial: Run, monkeypatch: pytest.MonkeyPatch, checkpointing: bool
) -> None:
    settings = {"gradient_checkpointing": checkpointing, "lora_dropout": 0.2}
    plain = run_trial("plain", **settings)
    moved: list[Any] = []
    landing = offload._landing
    monkeypatch.setattr(offload, "LEAST", 1024)
    monkeypatch.setattr(offload, "_landing", lambda t: moved.append(t.shape) or landing(t))
    install = offload.offload_activations
    monkeypatch.setattr(
        offload, "offload_activations", lambda model: install(model, from_host=True)
    )
    ours = run_trial("ours", offload_activations=True, **settings)
    assert curve(ours) == curve(plain)
    assert moved


@pytest.mark.parametrize("optim", ["adamw_8bit", "adafactor"])
@pytest.mark.parametrize("kind", ["lora", "full"])
def test_optimizers_that_hold_less_learn_as_well(run_trial: Run, optim: str, kind: str) -> None:
    settings = {"finetuning_type": kind, "learning_rate": 5e-3, "max_steps": 12}
    plain = run_trial("plain", **settings)
    ours = run_trial("ours", optim=optim, **settings)
    fall = [ran.losses[0][1] - ran.losses[-1][1] for ran in (plain, ours)]
    assert fall[0] > 0.3 and fall[1] == pytest.approx(fall[0], rel=0.3)


@pytest.mark.parametrize("optim", ["adamw_8bit", "adafactor"])
def test_optimizers_that_hold_less_go_on_exactly_after_a_pause(run_trial: Run, optim: str) -> None:
    settings = {"finetuning_type": "full", "optim": optim, "max_steps": 6, "learning_rate": 1e-3}
    straight = run_trial("straight", **settings)
    paused = run_trial("paused", ask=("paused", 3), **settings)
    resumed = run_trial(
        "paused", task={"attempt": 2, "resume_from": paused.report.checkpoint}, **settings
    )
    assert resumed.losses == straight.losses


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("adamw_torch", "adamw_8bit"),
        ("adamw_8bit", "adafactor"),
        ("adafactor", "adamw_torch_fused"),
    ],
)
def test_a_trial_goes_on_with_another_optimizer_than_its_checkpoint_s(
    run_trial: Run, before: str, after: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """A fix for memory may change it: the weights and the rate go on, the states begin anew."""
    settings = {"finetuning_type": "full", "max_steps": 6, "val_size": 0.0, "learning_rate": 1e-3}
    straight = run_trial("straight", optim=after, **settings)
    paused = run_trial("paused", ask=("paused", 3), optim=before, **settings)
    resumed = run_trial(
        "paused",
        task={"attempt": 2, "resume_from": paused.report.checkpoint},
        optim=after,
        **settings,
    )
    assert resumed.report.outcome == "completed", resumed.report.error
    assert (
        f"the checkpoint is of {before}: {after} begins without its states"
        in capsys.readouterr().out
    )
    assert [p.lr for p in resumed.points] == [p.lr for p in straight.points]
    for (_, ours), (_, theirs) in zip(resumed.losses, straight.losses, strict=True):
        assert ours == pytest.approx(theirs, rel=0.03)


def test_a_checkpoint_of_adamw_is_taken_up_by_the_fused_one(run_trial: Run) -> None:
    settings = {"finetuning_type": "full", "max_steps": 6, "val_size": 0.0, "learning_rate": 1e-3}
    straight = run_trial("straight", **settings)
    paused = run_trial("paused", ask=("paused", 3), **settings)
    resumed = run_trial(
        "paused",
        task={"attempt": 2, "resume_from": paused.report.checkpoint},
        optim="adamw_torch_fused",
        **settings,
    )
    for (_, ours), (_, theirs) in zip(resumed.losses, straight.losses, strict=True):
        assert ours == pytest.approx(theirs, rel=1e-5)


@pytest.mark.parametrize(("before", "after"), [("full", "lora"), ("lora", "full")])
def test_a_checkpoint_of_another_method_is_refused(run_trial: Run, before: str, after: str) -> None:
    settings = {"max_steps": 4, "val_size": 0.0}
    paused = run_trial("paused", ask=("paused", 2), finetuning_type=before, **settings)
    report = run_trial(
        "paused",
        task={"attempt": 2, "resume_from": paused.report.checkpoint},
        finetuning_type=after,
        **settings,
    ).report
    assert report.usage_error and f'finetuning_type = "{after}" cannot go on from' in report.error


def test_a_paged_optimizer_on_the_cpu_is_refused_before_the_model_is_loaded(run_trial: Run) -> None:
    report = run_trial(optim="paged_adamw_8bit").report
    assert report.usage_error and "needs a GPU" in report.error and report.phase == "start"


@pytest.mark.parametrize(
    ("precision", "asked", "held"),
    [
        ("bf16", "auto", torch.float32),
        ("bf16", "bf16", torch.bfloat16),
        ("pure_bf16", "fp32", torch.float32),
        ("fp32", "bf16", torch.bfloat16),
    ],
)
def test_adapters_are_held_in_the_numbers_that_are_asked_for(
    run_trial: Run, monkeypatch: pytest.MonkeyPatch, precision: str, asked: str, held: Any
) -> None:
    from core.train.stages.base import StageTrainer

    kept: list[Any] = []
    step = StageTrainer.training_step

    def keep(self: Any, *arguments: Any) -> Any:
        kept[:] = [self]
        return step(self, *arguments)

    monkeypatch.setattr(StageTrainer, "training_step", keep)
    ran = run_trial(precision=precision, adapter_precision=asked, max_steps=8)
    trained = [p for p in kept[0].model.parameters() if p.requires_grad]
    assert {p.dtype for p in trained} == {held}
    assert ran.losses[-1][1] < ran.losses[0][1]
    states = {s["exp_avg"].dtype for s in kept[0].optimizer.state.values()}
    assert states == {held}


def test_bf16_adapters_do_not_go_with_loss_scaling(monkeypatch: pytest.MonkeyPatch) -> None:
    from core.params import MethodTable, TrainTable
    from core.train.errors import SettingsError
    from core.train.precision import decide

    fp16, bf16 = TrainTable(precision="fp16"), MethodTable(adapter_precision="bf16")
    with pytest.raises(SettingsError, match=r"adapter_precision.*fp16"):
        decide(fp16, bf16, "cuda", bf16=True)
    assert decide(fp16, MethodTable(), "cuda", bf16=False).trained == torch.float32
    full = MethodTable(adapter_precision="bf16", finetuning_type="full")
    assert decide(fp16, full, "cuda", bf16=False).trained == torch.float32


def test_all_of_them_together_train_the_same(run_trial: Run) -> None:
    settings = {"finetuning_type": "full", "learning_rate": 1e-3, "max_steps": 5, "eval_steps": 2}
    ours = run_trial(
        "ours", loss_chunk_tokens=16, gradient_checkpointing=True, gradient_checkpointing_every=2,
        offload_optimizer=True, offload_activations=True, **settings,
    )  # fmt: skip
    assert_close(ours, run_trial("plain", **settings), 2e-5)


def test_the_report_says_what_the_data_and_the_process_measured(run_trial: Run) -> None:
    ran = run_trial(val_size=4)
    assert 0 < ran.run.longest_row <= 64 and 0 < ran.run.longest_eval_row <= 64
    assert ran.report.context_bytes > 50 * 2**20
    assert ran.report.moment is None and ran.report.moments is None
    assert run_trial("alone", val_size=0.0).run.longest_eval_row is None
