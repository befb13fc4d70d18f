"""Learning from pairs of answers."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    GPT2Config,
    GPT2LMHeadModel,
    MixtralConfig,
    MixtralForCausalLM,
)

from core.train.stages.dpo import DpoTrainer
from core.train.stages.reference import AdaptersOff, Frozen

Run = Callable[..., Any]

METHODS: dict[str, dict[str, Any]] = {
    "full": {"finetuning_type": "full"},
    "freeze": {"finetuning_type": "freeze", "freeze_trainable_layers": 1},
    "lora": {"finetuning_type": "lora"},
    "qlora": {"finetuning_type": "lora", "quantization_bit": 4},
}
BETAS = {"sigmoid": 0.3, "ipo": 0.5, "hinge": 0.5, "orpo": 1.0, "simpo": 2.0}


@pytest.fixture
def dpo(run_trial: Run, pairs: Path) -> Run:
    """Run a trial of stage dpo on the easy pairs."""

    def run(name: str = "trial", **settings: Any) -> Any:
        usual = {"val_size": 4, "learning_rate": 2e-3, "max_steps": 10}
        return run_trial(name, **{"stage": "dpo", "dataset": str(pairs)} | usual | settings)

    return run


@pytest.fixture
def trainers(monkeypatch: pytest.MonkeyPatch) -> list[DpoTrainer]:
    """The trainers that trials have made, in order."""
    made: list[DpoTrainer] = []
    init = DpoTrainer.__init__

    def noting(trainer: Any, **arguments: Any) -> None:
        init(trainer, **arguments)
        made.append(trainer)

    monkeypatch.setattr(DpoTrainer, "__init__", noting)
    return made


def measured(ran: Any, name: str) -> list[float]:
    assert ran.report.outcome == "completed", ran.report
    return [p.more[name] for p in ran.points if p.more and name in p.more]


def reloaded(folder: Path, model_dir: Path) -> Any:
    if (folder / "adapter_config.json").is_file():
        return PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(model_dir), folder)
    return AutoModelForCausalLM.from_pretrained(folder)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("loss", BETAS)
def test_every_loss_learns_an_easy_preference_with_every_method(
    dpo: Run, model_dir: Path, loss: str, method: str
) -> None:
    ran = dpo(
        task={"save_model": True}, pref_loss=loss, pref_beta=BETAS[loss], eval_steps=5, **METHODS[method]
    )  # fmt: skip
    margins = measured(ran, "reward_margin")
    assert margins[-1] > margins[0] + 0.02
    assert measured(ran, "reward_accuracy")[-1] == 1.0
    assert measured(ran, "eval_reward_accuracy") == [1.0, 1.0]
    assert ran.losses[-1][1] < ran.losses[0][1]
    better, worse = measured(ran, "reward_chosen"), measured(ran, "reward_rejected")
    assert margins == pytest.approx([b - w for b, w in zip(better, worse, strict=True)], abs=1e-6)
    model = reloaded(ran.folder / "output", model_dir)
    assert model.generate(torch.tensor([[5, 6, 7]]), max_new_tokens=4, do_sample=False).shape[1] > 3


def log_probs(model: Any, prompt: Any, answer: Any) -> torch.Tensor:
    """Of each token of an answer, by the logits of the whole vocabulary."""
    ids = torch.tensor([[*prompt.tolist(), *answer.tolist()]])
    scores = model(input_ids=ids).logits[0, :-1].log_softmax(-1)
    every = scores.gather(-1, ids[0, 1:, None])[:, 0]
    return every[len(prompt) - 1 :]


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        (
            {"pref_loss": "orpo", "pref_beta": 0.3},
            lambda c, r: -c - 0.3 * torch.log(torch.sigmoid(
                torch.log(c.exp() / (1 - c.exp())) - torch.log(r.exp() / (1 - r.exp()))
            )),
        ),
        (
            {"pref_loss": "simpo", "pref_beta": 2.5, "simpo_gamma": 1.2},
            lambda c, r: -torch.log(torch.sigmoid(2.5 * c - 2.5 * r - 1.2)),
        ),
        (
            {"pref_loss": "simpo", "pref_beta": 2.5, "simpo_gamma": 1.2, "pref_ftx": 0.7},
            lambda c, r: -torch.log(torch.sigmoid(2.5 * c - 2.5 * r - 1.2)) - 0.7 * c,
        ),
    ],
)  # fmt: skip
def test_losses_without_a_reference_are_their_papers(
    dpo: Run, trainers: list[DpoTrainer], model_dir: Path, settings: Any, expected: Any
) -> None:
    ran = dpo(
        max_steps=1, val_size=5, eval_steps=1, learning_rate=1e-12, finetuning_type="full", **settings
    )  # fmt: skip
    model = AutoModelForCausalLM.from_pretrained(model_dir)
    rows = list(trainers[0].eval_dataset)
    with torch.no_grad():
        both = [
            [log_probs(model, row.prompt, answer).mean() for answer in (row.chosen, row.rejected)]
            for row in rows
        ]
    losses = [float(expected(chosen, rejected)) for chosen, rejected in both]
    margins = [settings["pref_beta"] * float(chosen - rejected) for chosen, rejected in both]
    assert len(losses) == 5
    assert ran.report.eval_loss == pytest.approx(sum(losses) / 5, rel=1e-5)
    assert measured(ran, "eval_reward_margin")[-1] == pytest.approx(sum(margins) / 5, rel=1e-4)
    right = sum(margin > 0 for margin in margins)
    assert measured(ran, "eval_reward_accuracy")[-1] == right / 5
    assert trainers[0]._reference is None


def test_label_smoothing_and_the_supervised_share_add_what_they_say(
    dpo: Run, trainers: list[DpoTrainer], model_dir: Path
) -> None:
    settings = {"pref_beta": 0.4, "dpo_label_smoothing": 0.2, "pref_ftx": 0.5, "finetuning_type": "full"}  # fmt: skip
    ran = dpo(task={"save_model": True}, max_steps=3, val_size=5, eval_steps=3, **settings)
    before = AutoModelForCausalLM.from_pretrained(model_dir)
    after = AutoModelForCausalLM.from_pretrained(ran.folder / "output")
    losses = []
    with torch.no_grad():
        for row in trainers[0].eval_dataset:
            new, old = (
                [log_probs(model, row.prompt, answer) for answer in (row.chosen, row.rejected)]
                for model in (after, before)
            )
            margin = 0.4 * float(new[0].sum() - old[0].sum() - new[1].sum() + old[1].sum())
            sigmoid = torch.nn.functional.logsigmoid(torch.tensor([margin, -margin]))
            losses.append(float(-0.8 * sigmoid[0] - 0.2 * sigmoid[1] - 0.5 * new[0].mean()))
    assert ran.report.eval_loss == pytest.approx(sum(losses) / len(losses), rel=1e-4)


@pytest.mark.parametrize("loss", ["sigmoid", "orpo"])
def test_neither_accumulation_nor_the_batch_changes_a_run(dpo: Run, loss: str) -> None:
    # 20 rows and 6 an update: the last update of an epoch has 2, in batches of 2, of 1 and 1, and so on.
    settings = {"pref_loss": loss, "max_steps": 6, "finetuning_type": "full", "learning_rate": 5e-4}
    runs = [
        dpo(
            f"{batch}x{steps}", per_device_train_batch_size=batch, gradient_accumulation_steps=steps,
            eval_steps=2, per_device_eval_batch_size=evaluated, **settings,
        )
        for batch, steps, evaluated in ((6, 1, 1), (4, 2, 3), (2, 3, 4), (1, 6, 2))
    ]  # fmt: skip
    # A batch of 4 makes updates of 8 rows: it shares the evaluations alone.
    one, _, third, single = runs
    for other in (third, single):
        assert [loss for _, loss in other.losses] == pytest.approx([loss for _, loss in one.losses], rel=1e-4)  # fmt: skip
        for name in ("reward_margin", "eval_reward_margin"):
            assert measured(other, name) == pytest.approx(measured(one, name), rel=1e-2, abs=1e-4)
        assert [p.grad_norm for p in other.points if p.grad_norm] == pytest.approx(
            [p.grad_norm for p in one.points if p.grad_norm], rel=1e-3
        )
        assert [p.tokens for p in other.points] == [p.tokens for p in one.points]
        assert other.report.eval_loss == pytest.approx(one.report.eval_loss, rel=1e-4)


@pytest.mark.parametrize("method", ["lora", "full"])
@pytest.mark.parametrize("stop_at", [3, 5])
def test_a_paused_trial_goes_on_exactly_as_if_it_had_not_been_paused(
    dpo: Run, method: str, stop_at: int
) -> None:
    settings = {
        "finetuning_type": method, "lora_dropout": 0.3, "max_steps": 9, "eval_steps": 4, "logging_steps": 2,
        "pref_ftx": 0.1,
    }  # fmt: skip
    straight = dpo("straight", **settings)
    paused = dpo("paused", ask=("paused", stop_at), **settings)
    assert paused.report.outcome == "paused", paused.report
    resumed = dpo("paused", task={"attempt": 2, "resume_from": paused.report.checkpoint}, **settings)  # fmt: skip
    assert resumed.report.outcome == "completed", resumed.report
    step = int(paused.report.checkpoint.rpartition("-")[2])

    def figures(ran: Any) -> list[Any]:
        points = (p for p in ran.points if p.step > step)
        return [(p.step, p.loss, p.eval_loss, p.grad_norm, p.tokens, p.more) for p in points]

    assert figures(resumed) == figures(straight)
    assert any(p.more and "reward_margin" in p.more for p in resumed.points if p.step > step)


def test_a_trial_at_its_rung_goes_on_exactly_too(dpo: Run) -> None:
    settings = {"max_steps": 10, "logging_steps": 3, "lora_dropout": 0.2}
    task = {"kind": "probe", "budget": 1.0}
    straight = dpo("straight", task=task, **settings)
    waited = dpo("waited", task=task | {"until": 0.5}, **settings)
    assert waited.report.outcome == "rung"
    on = task | {"attempt": 2, "resume_from": waited.report.checkpoint}
    resumed = dpo("waited", task=on, **settings)
    late = [(p.step, p.loss, p.more) for p in straight.points if p.step > 5]
    assert [(p.step, p.loss, p.more) for p in resumed.points if p.step > 5] == late


def test_the_reference_is_the_model_before_training_also_after_a_pause(
    dpo: Run, trainers: list[DpoTrainer], model_dir: Path
) -> None:
    settings = {"finetuning_type": "full", "max_steps": 4}
    paused = dpo("paused", ask=("paused", 2), **settings)
    dpo("paused", task={"attempt": 2, "resume_from": paused.report.checkpoint}, **settings)
    before = AutoModelForCausalLM.from_pretrained(model_dir).state_dict()
    for trainer in trainers:
        reference = trainer._reference
        assert isinstance(reference, Frozen)
        held = reference.model.state_dict()
        assert all(torch.equal(held[name], before[name]) for name in before)
        assert not any(p.requires_grad for p in reference.model.parameters())
    moved = trainers[1].model.state_dict()
    assert not all(torch.equal(moved[name], before[name]) for name in before)


def test_adapters_need_no_second_model(dpo: Run, trainers: list[DpoTrainer]) -> None:
    ran = dpo(max_steps=2, quantization_bit=4)
    (trainer,) = trainers
    assert isinstance(trainer._reference, AdaptersOff)
    assert list(trainer.model.peft_config) == ["default"]
    assert ran.run.trainable_parameters == sum(
        p.numel() for p in trainer.model.parameters() if p.requires_grad
    )
    assert {p.dtype for p in trainer.model.parameters() if p.requires_grad} == {torch.float32}


def test_a_model_of_one_s_own_may_be_the_reference(
    dpo: Run, trainers: list[DpoTrainer], model_dir: Path, tmp_path: Path
) -> None:
    other = AutoModelForCausalLM.from_pretrained(model_dir)
    with torch.no_grad():
        other.lm_head.weight.add_(0.05 * torch.randn(other.lm_head.weight.shape))
    folder = tmp_path / "reference"
    other.save_pretrained(folder)
    own = dpo("own", max_steps=1)
    held = dpo("held", max_steps=1, ref_model=str(folder))
    # The policy begins as its own reference, and not as another one.
    assert measured(own, "reward_margin")[0] == 0.0 != measured(held, "reward_margin")[0]
    assert own.losses[0][1] != held.losses[0][1]
    assert isinstance(trainers[1]._reference, Frozen)


def test_a_reference_of_other_tokens_is_refused(dpo: Run, model_dir: Path, tmp_path: Path) -> None:
    small = AutoModelForCausalLM.from_pretrained(model_dir)
    small.resize_token_embeddings(90)
    small.save_pretrained(tmp_path / "small")
    ran = dpo(ref_model=str(tmp_path / "small"))
    assert ran.report.usage_error and "alignment.ref_model" in ran.report.error
    assert "90 tokens" in ran.report.error
    adapter = dpo("adapter", task={"save_model": True}, max_steps=1).folder / "output"
    refused = dpo("refused", ref_model=str(adapter))
    assert refused.report.usage_error
    assert "alignment.ref_model" in refused.report.error
    assert "LoRA adapter" in refused.report.error
    missing = dpo("missing", ref_model=str(tmp_path / "nowhere"))
    assert missing.report.usage_error
    assert "alignment.ref_model: there is no" in missing.report.error


@pytest.mark.parametrize(
    "settings",
    [
        {"precision": "bf16"},
        {"precision": "pure_bf16", "finetuning_type": "full"},
        {"gradient_checkpointing": True, "gradient_checkpointing_every": 2},
        {"gradient_checkpointing": True, "finetuning_type": "full"},
        {"additional_target": "lm_head"},
        {"use_dora": True},
        {"offload_activations": True},
        {"group_by_length": True},
    ],
)
def test_it_learns_with_what_saves_memory_and_in_every_precision(dpo: Run, settings: Any) -> None:
    ran = dpo(**{"max_steps": 8} | settings)
    margins = measured(ran, "reward_margin")
    assert margins[-1] > margins[0] and abs(margins[0]) < 0.05


def test_checkpointing_changes_no_number(dpo: Run) -> None:
    settings = {"max_steps": 4, "lora_dropout": 0.2}
    plain = dpo("plain", **settings)
    again = dpo("again", gradient_checkpointing=True, **settings)
    assert [x for _, x in again.losses] == pytest.approx([x for _, x in plain.losses], rel=1e-5)


def test_a_run_that_diverges_says_so(dpo: Run) -> None:
    ran = dpo(finetuning_type="full", learning_rate=100.0, max_steps=6, warmup_ratio=0.0)
    worst = [loss for _, loss in ran.losses]
    assert any(loss != loss or loss > 20 for loss in worst)
    unknown = [p for p in ran.points if p.loss is not None and p.loss != p.loss]
    assert all(p.more["reward_accuracy"] != p.more["reward_accuracy"] for p in unknown)


def test_the_widest_batch_is_rehearsed_and_leaves_no_trace(
    dpo: Run, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = {"max_steps": 5, "lora_dropout": 0.3, "logging_steps": 3, "learning_rate": 1e-3}
    rehearsed = dpo("rehearsed", **settings)
    assert "rehearsed the longest batch: 2 rows of" in capsys.readouterr().out
    monkeypatch.setattr(DpoTrainer, "_rehearse", lambda *_: None)
    never = dpo("never", **settings)
    kept = [(p.step, p.loss, p.more) for p in never.points]
    assert [(p.step, p.loss, p.more) for p in rehearsed.points] == kept


def test_what_dpo_measures_is_in_tensorboard_and_in_the_log(
    dpo: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    ran = dpo(max_steps=2, eval_steps=2)
    out = capsys.readouterr().out
    assert "reward margin" in out and "eval reward accuracy" in out
    (events,) = (ran.folder / "tb").iterdir()
    written = events.read_bytes()
    for tag in (b"train/reward_margin", b"train/utilisation", b"eval/reward_accuracy"):
        assert tag in written


def test_checkpoints_hold_what_goes_on_and_no_card_of_trl(dpo: Run) -> None:
    ran = dpo(task={"save_model": True}, max_steps=4, save_steps=2, finetuning_type="full")
    assert sorted(p.name for p in (ran.folder / "checkpoints").iterdir()) == ["checkpoint-2", "checkpoint-4"]  # fmt: skip
    assert not list((ran.folder / "checkpoints").rglob("README.md"))


def test_a_full_training_stops_early_and_keeps_its_best(dpo: Run) -> None:
    ran = dpo(
        task={"save_model": True}, finetuning_type="full", learning_rate=0.3, warmup_ratio=0.0, max_steps=40,
        eval_steps=2, early_stopping_patience=2,
    )  # fmt: skip
    assert ran.report.outcome == "completed" and ran.report.step < 40
    assert json.loads((ran.folder / "output" / "config.json").read_text())


def test_a_quantised_model_may_be_held_to_another_quantised_one(
    dpo: Run, model_dir: Path, tmp_path: Path, trainers: list[DpoTrainer]
) -> None:
    AutoModelForCausalLM.from_pretrained(model_dir).save_pretrained(tmp_path / "same")
    settings = {"quantization_bit": 4, "max_steps": 3, "eval_steps": 3}
    own = dpo("own", **settings)
    other = dpo("other", ref_model=str(tmp_path / "same"), **settings)
    assert isinstance(trainers[1]._reference, Frozen)
    assert trainers[1]._reference.model.is_loaded_in_4bit
    # The same weights, rounded the same way: as the policy without its adapters.
    assert [x for _, x in other.losses] == pytest.approx([x for _, x in own.losses], rel=1e-5)


def test_a_full_training_continues_a_probe_and_is_held_to_what_that_was_held_to(dpo: Run) -> None:
    settings = {"max_steps": 10, "finetuning_type": "full", "val_size": 4, "logging_steps": 2}
    straight = dpo("straight", **settings)
    task = {"kind": "probe", "budget": 0.5, "schedule": "full", "keep_checkpoint": True}
    probe = dpo("probe", task=task, **settings)
    on = {"continues": f"../probe/{probe.report.checkpoint}", "schedule": "full"}
    full = dpo("full", task=on, **settings)
    late = [(p.step, p.loss, p.eval_loss, p.more) for p in straight.points if p.step > 5]
    assert [(p.step, p.loss, p.eval_loss, p.more) for p in full.points] == late


def test_a_model_s_own_dropout_does_not_make_it_differ_from_its_reference(
    dpo: Run, model_dir: Path, tmp_path: Path
) -> None:
    words = AutoTokenizer.from_pretrained(model_dir)
    config = GPT2Config(vocab_size=len(words), n_positions=128, n_embd=32, n_layer=2, n_head=2)
    assert config.resid_pdrop == config.attn_pdrop == 0.1
    GPT2LMHeadModel(config).save_pretrained(tmp_path / "gpt2")
    words.save_pretrained(tmp_path / "gpt2")
    settings = {"model_name_or_path": str(tmp_path / "gpt2"), "max_steps": 2, "eval_steps": 2}
    adapted = dpo("adapted", **settings)
    whole = dpo("whole", finetuning_type="full", **settings)
    for ran in (adapted, whole):
        assert measured(ran, "reward_margin")[0] == pytest.approx(0.0, abs=1e-5)
        assert ran.losses[0][1] == pytest.approx(0.6931, abs=1e-4)


@pytest.mark.parametrize("loss", ["sigmoid", "orpo"])
def test_a_mixture_of_experts_is_kept_balanced_by_every_loss(
    dpo: Run, model_dir: Path, tmp_path: Path, loss: str
) -> None:
    words = AutoTokenizer.from_pretrained(model_dir)
    config = MixtralConfig(
        vocab_size=len(words), hidden_size=32, intermediate_size=32, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, num_local_experts=4, max_position_embeddings=128, output_router_logits=True,
    )  # fmt: skip
    first = []
    for coefficient in (0.0, 0.5):
        torch.manual_seed(0)
        config.router_aux_loss_coef = coefficient
        folder = tmp_path / str(coefficient)
        MixtralForCausalLM(config).save_pretrained(folder)
        words.save_pretrained(folder)
        settings = {"model_name_or_path": str(folder), "finetuning_type": "full", "max_steps": 1}
        first.append(dpo(str(coefficient), pref_loss=loss, val_size=0.0, **settings).losses[0][1])
    # Two experts of a token are as good as evenly used: the loss of Mixtral is 2 then.
    assert first[1] - first[0] == pytest.approx(0.5 * 2, abs=0.1)


def test_a_range_test_runs(dpo: Run) -> None:
    ran = dpo(task={"kind": "range", "range_steps": 12, "range_high": 0.1}, val_size=0.0)
    assert ran.report.outcome in ("completed", "stopped"), ran.report
    assert len(ran.losses) >= 8 and all("reward_margin" in p.more for p in ran.points)


@pytest.mark.parametrize("settings", [{}, {"use_dora": True}, {"additional_target": "lm_head,embed_tokens"}])  # fmt: skip
def test_with_its_adapters_off_a_trained_policy_is_the_model_before(
    dpo: Run, trainers: list[DpoTrainer], model_dir: Path, settings: Any
) -> None:
    dpo(max_steps=4, val_size=0.0, lora_dropout=0.5, **settings)
    (trainer,) = trainers
    batch = trainer.data_collator(list(trainer.train_dataset)[:3])
    before = AutoModelForCausalLM.from_pretrained(model_dir).eval()
    with torch.no_grad():
        scores = before(batch["input_ids"]).logits[:, :-1].log_softmax(-1)
    each = scores.gather(-1, batch["input_ids"][:, 1:, None])[..., 0]
    expected = (each * batch["completion_mask"][:, 1:]).sum(-1)
    trainer.model.train()
    assert torch.allclose(trainer.log_probs(trainer._reference, batch), expected, atol=1e-4)
    assert trainer.model.training, "it goes on training"
    trained = [p for p in trainer.model.parameters() if p.requires_grad]
    moved = trainer.log_probs(trainer.model, batch)
    assert not torch.allclose(moved, expected, atol=1e-3)
    moved.sum().backward()
    assert all(p.grad is not None for p in trained) and trained
