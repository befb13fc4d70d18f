"""Learning from single answers that are good or bad."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM

from core.params import AlignmentTable
from core.train.stages.kto import KtoTrainer, Verdicts, imbalance, shifted

Run = Callable[..., Any]


@pytest.fixture
def kto(run_trial: Run, tags: Path) -> Run:
    """Run a trial of stage kto on the easy tags."""

    def run(name: str = "trial", **settings: Any) -> Any:
        usual = {"val_size": 4, "learning_rate": 2e-3, "max_steps": 10, "pref_beta": 0.5}
        return run_trial(name, **{"stage": "kto", "dataset": str(tags)} | usual | settings)

    return run


@pytest.fixture
def trainers(monkeypatch: pytest.MonkeyPatch) -> list[KtoTrainer]:
    """The trainers that trials have made, in order."""
    made: list[KtoTrainer] = []
    init = KtoTrainer.__init__

    def noting(trainer: Any, **arguments: Any) -> None:
        init(trainer, **arguments)
        made.append(trainer)

    monkeypatch.setattr(KtoTrainer, "__init__", noting)
    return made


def measured(ran: Any, name: str) -> list[float]:
    assert ran.report.outcome == "completed", ran.report
    return [p.more[name] for p in ran.points if p.more and name in p.more]


@pytest.mark.parametrize(
    "settings",
    [
        {"finetuning_type": "full"},
        {"finetuning_type": "freeze", "freeze_trainable_layers": 1},
        {"finetuning_type": "lora"},
        {"finetuning_type": "lora", "quantization_bit": 4},
        {"precision": "bf16"},
        {"gradient_checkpointing": True},
    ],
)
def test_good_answers_gain_on_bad_ones_with_every_method(
    kto: Run, model_dir: Path, settings: Any
) -> None:
    ran = kto(task={"save_model": True}, eval_steps=5, **settings)
    assert measured(ran, "eval_reward_margin")[-1] > max(0.02, measured(ran, "eval_reward_margin")[0])  # fmt: skip
    assert measured(ran, "eval_reward_accuracy")[-1] == 1.0
    assert measured(ran, "reward_chosen")[-1] > 0 and len(measured(ran, "kl")) == 10
    assert ran.report.eval_loss < 0.5
    model = reloaded(ran.folder / "output", model_dir)
    assert model.generate(torch.tensor([[5, 6, 7]]), max_new_tokens=4, do_sample=False).shape[1] > 3


def reloaded(output: Path, model_dir: Path) -> Any:
    """What was saved, with transformers and peft alone."""
    if (output / "adapter_config.json").is_file():
        return PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(model_dir), output)
    return AutoModelForCausalLM.from_pretrained(output)


def test_neither_accumulation_nor_the_batch_changes_a_run(kto: Run) -> None:
    # 20 rows and 6 an update: the last update of an epoch has 2.
    settings = {"max_steps": 6, "finetuning_type": "full", "learning_rate": 5e-4, "eval_steps": 2}
    one, *others = (
        kto(
            f"{batch}x{steps}", per_device_train_batch_size=batch, gradient_accumulation_steps=steps,
            per_device_eval_batch_size=evaluated, **settings,
        )
        for batch, steps, evaluated in ((6, 1, 1), (2, 3, 4), (3, 2, 3), (1, 6, 2))
    )  # fmt: skip
    assert max(measured(one, "kl")) > 0 and max(measured(one, "eval_kl")) > 0
    for other in others:
        assert [x for _, x in other.losses] == pytest.approx([x for _, x in one.losses], rel=1e-4)
        for name in ("kl", "reward_chosen", "eval_kl", "eval_reward_margin", "reward_accuracy"):
            assert measured(other, name) == pytest.approx(measured(one, name), rel=1e-2, abs=1e-4)
        assert other.report.eval_loss == pytest.approx(one.report.eval_loss, rel=1e-4)
        assert [p.tokens for p in other.points] == [p.tokens for p in one.points]


def test_a_paused_trial_goes_on_exactly_as_if_it_had_not_been_paused(kto: Run) -> None:
    settings = {"lora_dropout": 0.3, "max_steps": 9, "eval_steps": 4, "logging_steps": 2}
    straight = kto("straight", **settings)
    for stop_at in (3, 5):
        paused = kto(f"paused{stop_at}", ask=("paused", stop_at), **settings)
        assert paused.report.outcome == "paused", paused.report
        task = {"attempt": 2, "resume_from": paused.report.checkpoint}
        resumed = kto(f"paused{stop_at}", task=task, **settings)
        step = paused.report.step

        def figures(ran: Any, step: int = step) -> list[Any]:
            points = (p for p in ran.points if p.step > step)
            return [(p.step, p.loss, p.eval_loss, p.grad_norm, p.tokens, p.more) for p in points]

        assert figures(resumed) == figures(straight)
        assert any(p.more and "kl" in p.more for p in resumed.points if p.step > step)


def answer_log_prob(model: Any, prompt: Any, answer: Any) -> float:
    ids = torch.tensor([[*prompt.tolist(), *answer.tolist()]])
    with torch.no_grad():
        scores = model(input_ids=ids).logits[0, :-1].log_softmax(-1)
    return float(scores.gather(-1, ids[0, 1:, None])[len(prompt) - 1 :].sum())


def test_the_evaluation_is_the_paper_s_over_all_rows(
    kto: Run, trainers: list[KtoTrainer], model_dir: Path
) -> None:
    weights = {"kto_chosen_weight": 1.3, "kto_rejected_weight": 0.6}
    ran = kto(
        task={"save_model": True}, finetuning_type="full", max_steps=4, val_size=6, eval_steps=4,
        per_device_eval_batch_size=4, **weights,
    )  # fmt: skip
    before = AutoModelForCausalLM.from_pretrained(model_dir)
    after = AutoModelForCausalLM.from_pretrained(ran.folder / "output")
    rows = list(trainers[0].eval_dataset)
    most = max(row.size for row in [*trainers[0].train_dataset, *rows])

    def moved(prompt: Any, answer: Any) -> float:
        cut = answer[: most - len(prompt)]
        return answer_log_prob(after, prompt, cut) - answer_log_prob(before, prompt, cut)

    others = [moved(row.prompt, rows[i - 1].answer) for i, row in enumerate(rows)]
    point = max(0.0, sum(others) / len(others))
    losses = []
    for row in rows:
        above = 0.5 * (moved(row.prompt, row.answer) - point) * (1 if row.good else -1)
        weight = 1.3 if row.good else 0.6
        losses.append(weight * (1 - float(torch.sigmoid(torch.tensor(above)))))
    assert ran.report.eval_loss == pytest.approx(sum(losses) / 6, rel=1e-4)
    assert measured(ran, "eval_kl")[-1] == pytest.approx(point, rel=1e-3, abs=1e-5)


def test_a_prompt_gets_another_row_s_answer_and_never_more_tokens_than_a_row_has(
    kto: Run, trainers: list[KtoTrainer]
) -> None:
    kto(max_steps=1)
    (trainer,) = trainers
    rows = sorted(trainer.train_dataset, key=lambda row: len(row.prompt))[-4:]
    (batch,) = trainer._mismatched([rows], [shifted(rows, rows[-1].answer)])
    longest = max(row.size for row in [*trainer.train_dataset, *trainer.eval_dataset])
    assert batch["input_ids"].shape[1] <= longest
    for i, row in enumerate(rows):
        answer = batch["completion_mask"][i].bool()
        prompt = batch["attention_mask"][i].bool() & ~answer
        assert batch["input_ids"][i][prompt].tolist() == row.prompt.tolist()
        other = rows[i - 1].answer.tolist()
        seen = batch["input_ids"][i][answer].tolist()
        assert seen == other[: longest - len(row.prompt)] and seen


def test_an_update_of_one_row_has_no_divergence(kto: Run) -> None:
    # 5 rows and 2 an update: the third has one, and nobody else's answer.
    ran = kto(
        val_size=0.0, max_samples=5, max_steps=9, per_device_train_batch_size=2,
        gradient_accumulation_steps=1, finetuning_type="full", learning_rate=1e-2,
    )  # fmt: skip
    divergence = measured(ran, "kl")
    assert divergence[2::3] == [0.0, 0.0, 0.0] and max(divergence) > 0


def test_rows_come_in_the_order_that_every_stage_has(
    kto: Run, tags: Path, monkeypatch: Any
) -> None:
    from core.train.stages.collators import TaggedCollator

    seen: list[bytes] = []
    collate = TaggedCollator.__call__

    def collating(self: Any, rows: Any) -> Any:
        seen.extend(row.answer.tobytes() for row in rows)
        return collate(self, rows)

    monkeypatch.setattr(TaggedCollator, "__call__", collating)
    monkeypatch.setattr(KtoTrainer, "_rehearse", lambda *_: None)
    trained = []
    for batch in (2, 6):
        kto(f"{batch}", val_size=0.0, max_steps=12 // batch, per_device_train_batch_size=batch, gradient_accumulation_steps=1)  # fmt: skip
        trained.append(list(seen))
        seen.clear()
    assert trained[0][:12] == trained[1][:12] and len(set(trained[0][:12])) > 6


def test_a_margin_that_evaluations_cannot_tell_is_refused_before_training(
    kto: Run, tmp_path: Path
) -> None:
    bad = tmp_path / "bad.jsonl"
    row = {"instruction": "Say it", "input": "", "output": "spider", "kto_tag": False}
    bad.write_text(json.dumps(row) + "\n")
    settings = {"val_size": 0.0, "eval_dataset": str(bad), "eval_steps": 2}
    refused = kto("refused", rank_by="eval_reward_margin", **settings)
    assert refused.report.usage_error and refused.report.step == 0
    assert "all bad" in refused.report.error and "eval_reward_accuracy" in refused.report.error
    assert kto("told", max_steps=2, **settings).report.outcome == "completed"


def test_rewards_are_right_on_their_side_of_the_reference_point() -> None:
    scores = Verdicts(1.0, (1.0, 1.0), torch.zeros(1).numpy())
    moved, good = torch.tensor([3.0, 1.0, -1.0, 2.5]), torch.tensor([True, True, False, False])
    scores.add(moved, good, torch.tensor([2.0, 2.0, 1.0, 3.0]), torch.zeros(1).numpy())
    found = scores.metrics()
    # The point is 2: a good answer at 1 and a bad one at 2.5 are on the wrong side.
    assert found["eval_kl"] == 2.0 and found["eval_reward_accuracy"] == 0.5
    assert found["eval_reward_margin"] == pytest.approx(2.0 - 0.75)


def test_an_evaluation_keeps_what_is_no_number() -> None:
    scores = Verdicts(1.0, (1.0, 1.0), torch.zeros(1).numpy())
    scores.add(torch.tensor([1.0, float("nan")]), torch.tensor([True, False]), torch.tensor([0.0, 0.0]), torch.zeros(1).numpy())  # fmt: skip
    found = scores.metrics()
    assert found["eval_loss"] != found["eval_loss"]
    assert found["eval_reward_accuracy"] != found["eval_reward_accuracy"]


def test_one_row_that_is_no_number_makes_the_loss_none(kto: Run, monkeypatch: Any) -> None:
    from core.train.stages import preference as module

    call = module.Heard.__call__

    def broken(self: Any, **inputs: Any) -> Any:
        made = call(self, **inputs)
        spoilt = made.log_probs * torch.ones_like(made.log_probs)
        spoilt[0] = float("nan")
        made.log_probs, self.log_probs = spoilt, spoilt.sum(-1)
        return made

    monkeypatch.setattr(module.Heard, "__call__", broken)
    ran = kto(max_steps=2, val_size=0.0)
    assert all(loss != loss for _, loss in ran.losses) and len(ran.losses) == 2


@pytest.mark.parametrize(
    ("good", "bad", "weights", "key"),
    [
        (14, 7, (1.0, 1.0), "kto_rejected_weight = 2 "),
        (14, 7, (1.0, 1.6), None),
        (7, 14, (1.0, 1.0), "kto_chosen_weight = 2 "),
        (10, 10, (1.0, 1.0), None),
        (10, 0, (1.0, 1.0), None),
        (4, 3, (1.0, 1.0), None),
    ],
)
def test_the_log_says_where_good_and_bad_answers_do_not_balance(
    good: int, bad: int, weights: tuple[float, float], key: str | None
) -> None:
    table = AlignmentTable(kto_chosen_weight=weights[0], kto_rejected_weight=weights[1])
    said = imbalance(good, bad, table)
    assert (said is None) if key is None else (said is not None and key in said)


def test_an_imbalance_stands_in_the_log(kto: Run, capsys: pytest.CaptureFixture[str]) -> None:
    kto(max_steps=1)
    assert "good ones weigh" in capsys.readouterr().out
