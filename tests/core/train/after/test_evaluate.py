"""What an evaluation measures is what training logged, for every stage; answers are compared with references."""

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from core.study.after import EvaluateReply, EvaluateRequest, Sampling, Weights
from core.train.after.evaluate import evaluate
from core.train.errors import DataError, ModelError, SettingsError
from tests.core.train.after.conftest import FakeLine
from tests.core.train.conftest import Ran

Train = Callable[..., Ran]
Measure = Callable[..., EvaluateReply]


@pytest.fixture
def measured(line: FakeLine) -> Measure:
    def run(ran: Ran, **options: Any) -> EvaluateReply:
        weights = options.pop("weights", Weights(str(ran.folder / "output"), str(ran.folder)))
        return evaluate(EvaluateRequest(weights=weights, **options), line)  # type: ignore[arg-type]

    return run


@pytest.fixture
def pairs(tmp_path: Path) -> Path:
    file = tmp_path / "pairs.jsonl"
    rows = [
        {"instruction": f"Say {n}", "input": "", "chosen": f"hello {n}", "rejected": f"eight {n}"}
        for n in range(24)
    ]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return file


@pytest.fixture
def tags(tmp_path: Path) -> Path:
    file = tmp_path / "tags.jsonl"
    rows = [
        {"instruction": f"Say {n}", "output": f"hello {n}", "kto_tag": n % 2 == 0}
        for n in range(24)
    ]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return file


def _logged(ran: Ran) -> dict[str, float]:
    """What the last evaluation of training logged, by the names of its evaluations."""
    last = [p for p in ran.points if p.eval_loss is not None][-1]
    assert last.eval_loss is not None
    more = {k: v for k, v in (last.more or {}).items() if k.startswith("eval_")}
    return {"eval_loss": last.eval_loss, **more}


METHODS: dict[str, dict[str, Any]] = {
    "lora": {"method__lora_rank": 4},
    "full": {"method__finetuning_type": "full", "train__learning_rate": 0.005},
    "pissa": {"method__lora_rank": 4, "method__pissa_init": True},
    "4 bits": {"method__lora_rank": 4, "model__quantization_bit": 4},
    "pure bf16": {"method__lora_rank": 4, "train__precision": "pure_bf16"},
}


@pytest.mark.parametrize("method", METHODS)
def test_the_loss_is_the_one_that_training_logged(
    method: str, trained: Train, measured: Measure
) -> None:
    ran = trained(data__val_size=6.0, **METHODS[method])
    before = sorted(p.name for p in ran.folder.iterdir())
    reply = measured(ran)
    assert sorted(p.name for p in ran.folder.iterdir()) == before, "a run is left as it is"
    found = reply.results[0].metrics
    assert reply.rows == 6 and reply.tokens > 6
    for name, value in _logged(ran).items():
        assert found[name] == pytest.approx(value, rel=1e-6), name
    loss = found["eval_loss"]
    assert loss is not None and found["eval_perplexity"] == pytest.approx(math.exp(loss))


@pytest.mark.parametrize("stage", ["rm", "dpo", "kto"])
@pytest.mark.parametrize("method", ["lora", "full"])
def test_stages_of_preferences_are_measured_as_in_training(
    stage: str, method: str, trained: Train, measured: Measure, pairs: Path, tags: Path
) -> None:
    ran = trained(
        method__stage=stage, method__finetuning_type=method, train__learning_rate=0.002,
        data__dataset=str(tags if stage == "kto" else pairs), data__val_size=6.0,
    )  # fmt: skip
    reply = measured(ran, base=True)
    logged = _logged(ran)
    assert "eval_reward_margin" in logged
    tuned, base = (result.metrics for result in reply.results)
    for name, value in logged.items():
        assert tuned[name] == pytest.approx(value, rel=1e-5, abs=1e-6), name
    assert base["eval_loss"] != tuned["eval_loss"]
    if stage == "dpo":
        assert base["eval_reward_margin"] == pytest.approx(0.0, abs=1e-6)


def test_ppo_is_measured_by_its_reward_model(
    trained: Train, measured: Measure, pairs: Path, model_dir: Path, tmp_path: Path
) -> None:
    reward = tmp_path / "reward"
    torch.manual_seed(0)
    scorer = AutoModelForSequenceClassification.from_pretrained(model_dir, num_labels=1)
    scorer.config.pad_token_id = 0
    scorer.save_pretrained(reward)
    AutoTokenizer.from_pretrained(model_dir).save_pretrained(reward)
    ran = trained(
        method__stage="ppo", alignment__reward_model=str(reward), alignment__ppo_epochs=1,
        data__dataset=str(pairs), data__val_size=4.0, generation__max_new_tokens=4, train__max_steps=2,
        train__learning_rate=0.001,
    )  # fmt: skip
    assert "eval_reward" in measured(ran).results[0].metrics


def test_the_base_stands_beside_the_run(trained: Train, measured: Measure) -> None:
    ran = trained(data__val_size=6.0, train__max_steps=8)
    reply = measured(ran, base=True)
    assert [result.who for result in reply.results] == ["tuned", "base"]
    tuned, base = (result.metrics["eval_loss"] for result in reply.results)
    assert tuned is not None and base is not None and tuned < base - 0.1


def test_other_rows_may_be_measured_on_and_fewer(
    trained: Train, measured: Measure, dataset: Path
) -> None:
    ran = trained(data__val_size=6.0)
    whole = measured(ran, data=(str(dataset),))
    assert whole.rows == 24 and whole.data == dataset.name
    assert measured(ran, data=(str(dataset),), max_samples=5).rows == 5


def test_weights_that_nobody_knows_are_measured_on_rows_that_are_named(
    trained: Train, measured: Measure, dataset: Path
) -> None:
    ran = trained(data__val_size=6.0)
    known = measured(ran, data=(str(dataset),), base=True)
    unknown = Weights(str(ran.folder / "output"))
    reply = measured(ran, weights=unknown, data=(str(dataset),), base=True)
    for ours, theirs in zip(reply.results, known.results, strict=True):
        assert ours.who == theirs.who
        assert ours.metrics["eval_loss"] == pytest.approx(theirs.metrics["eval_loss"], rel=1e-4)
    with pytest.raises(DataError, match="--data"):
        measured(ran, weights=unknown)


# Answers --------------------------------------------------------------------------------------------------------------


def test_answers_are_compared_with_the_data_and_written_out(
    trained: Train, measured: Measure, tmp_path: Path
) -> None:
    ran = trained(data__val_size=6.0)
    out = tmp_path / "answers.jsonl"
    sampling = Sampling(max_new_tokens=6)
    reply = measured(
        ran, generate=True, base=True, output=str(out), sampling=sampling, batch_size=4
    )
    for result in reply.results:
        for name in ("exact_match", "rouge1", "rouge2", "rougeL"):
            value = result.metrics[name]
            assert value is not None and 0 <= value <= 1
    lines = [json.loads(line) for line in out.read_text("utf-8").splitlines()]
    assert len(lines) == 6
    assert all(line["prompt"][-1]["role"] == "user" for line in lines)
    assert all("hello" in line["reference"] for line in lines)
    mean = sum(line["rouge1"] for line in lines) / 6
    assert reply.results[0].metrics["rouge1"] == pytest.approx(mean)
    again = measured(ran, generate=True, sampling=sampling, batch_size=1, output=str(out))
    assert [line["prediction"] for line in map(json.loads, out.read_text().splitlines())] == [
        line["prediction"] for line in lines
    ], "greedy answers do not depend on the batch"
    assert again.output == str(out)


def test_references_may_come_from_a_file(trained: Train, measured: Measure, tmp_path: Path) -> None:
    ran = trained(data__val_size=3.0)
    out = tmp_path / "answers.jsonl"
    sampling = Sampling(max_new_tokens=6)
    measured(ran, generate=True, output=str(out), sampling=sampling)
    said = [json.loads(line)["prediction"] for line in out.read_text("utf-8").splitlines()]
    right = tmp_path / "right.jsonl"
    right.write_text("".join(json.dumps({"reference": text}) + "\n" for text in said), "utf-8")
    found = measured(ran, references=str(right), sampling=sampling).results[0].metrics
    assert found["exact_match"] == 1.0
    short = tmp_path / "short.txt"
    short.write_text("one\ntwo\n")
    with pytest.raises(DataError, match="2 references, and there are 3 rows"):
        measured(ran, references=str(short))


# Refused --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "kind", "message"),
    [
        ({"data": ("nowhere.jsonl",)}, DataError, "nowhere.jsonl"),
        ({"output": "answers.jsonl"}, SettingsError, "--generate"),
        ({"output": "/no/such/folder/a.jsonl", "generate": True}, SettingsError, "no folder"),
        ({"references": "nowhere.txt"}, DataError, "cannot be read"),
        ({"weights": Weights("/no/such/run")}, ModelError, "no weights"),
    ],
)
def test_what_cannot_be_measured_is_refused_with_the_reason(
    options: dict[str, Any], kind: type[Exception], message: str, trained: Train, measured: Measure
) -> None:
    ran = trained(data__val_size=3.0, train__max_steps=1)
    with pytest.raises(kind, match=message):
        measured(ran, **options)


def test_a_run_that_set_no_rows_aside_wants_to_be_told_some(
    trained: Train, measured: Measure
) -> None:
    with pytest.raises(DataError, match="--data FILE"):
        measured(trained(data__val_size=0.0, train__max_steps=1))
