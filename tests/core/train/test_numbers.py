"""What a trial logs is what a training loop written out by hand computes."""

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn.functional import cross_entropy
from transformers import AutoModelForCausalLM, AutoTokenizer

Run = Callable[..., Any]
Row = tuple[list[int], list[int]]

RATE, DECAY, CLIP, SEED = 1e-3, 0.1, 0.5, 42


def encode(tokenizer: Any, row: dict[str, str]) -> Row:
    """Ids and labels of a row in ChatML, every token of the answer and its end marker learnt."""
    prompt = f"<|im_start|>user\n{row['instruction']}<|im_end|>\n<|im_start|>assistant\n"
    parts = [prompt, f"{row['output']}<|im_end|>", "\n"]
    ids = [tokenizer(part, add_special_tokens=False).input_ids for part in parts]
    hidden = [-100]
    labels = hidden * len(ids[0]) + ids[1] + hidden * len(ids[2])
    return [token for piece in ids for token in piece], labels


def summed(model: Any, row: Row) -> torch.Tensor:
    """The loss of a row, summed over its learnt tokens, in nats."""
    ids, labels = row
    logits = model(torch.tensor([ids])).logits[0]
    return cross_entropy(logits[:-1], torch.tensor(labels[1:]), reduction="sum")


def learnt(rows: list[Row]) -> int:
    return sum(label != -100 for _, labels in rows for label in labels[1:])


def mean(model: Any, rows: list[Row]) -> float:
    model.eval()
    with torch.no_grad():
        total = sum(float(summed(model, row)) for row in rows)
    model.train()
    return total / learnt(rows)


@pytest.mark.parametrize(
    ("batch", "accumulation", "aside", "epochs"), [(2, 2, 5, 2), (3, 3, 5, 2), (1, 4, 1, 2)]
)
def test_losses_norms_rates_and_evaluations_are_those_of_a_loop_by_hand(
    run_trial: Run, model_dir: Path, dataset: Path, batch: int, accumulation: int, aside: int, epochs: int
) -> None:  # fmt: skip
    """With rows of different lengths, and with an accumulation that the end of the epoch cuts short."""
    ran = run_trial(
        finetuning_type="full", learning_rate=RATE, max_steps=None, num_train_epochs=float(epochs), val_size=aside,
        per_device_train_batch_size=batch, gradient_accumulation_steps=accumulation, lr_scheduler_type="linear",
        warmup_ratio=0.1, weight_decay=DECAY, max_grad_norm=CLIP, eval_steps=2,
    )  # fmt: skip
    tokenizer = AutoTokenizer.from_pretrained(model_dir)
    rows = [encode(tokenizer, json.loads(line)) for line in dataset.read_text().splitlines()]
    drawn = np.random.Generator(np.random.PCG64(SEED)).permutation(len(rows))[:aside].tolist()
    evaluation = [row for i, row in enumerate(rows) if i in drawn]
    train = [row for i, row in enumerate(rows) if i not in drawn]

    model = AutoModelForCausalLM.from_pretrained(model_dir, dtype=torch.float32).train()
    weights = [p for p in model.parameters() if p.ndim > 1]
    norms = [p for p in model.parameters() if p.ndim == 1]
    optimizer = torch.optim.AdamW(
        [
            {"params": weights, "weight_decay": DECAY},
            {"params": norms, "weight_decay": 0.0},
        ],
        lr=RATE,
    )
    per_epoch = math.ceil(len(train) / (batch * accumulation))
    total = per_epoch * epochs
    warm = math.ceil(0.1 * total)
    expected: list[tuple[float, float, float]] = []
    evaluated: list[float] = []
    for step in range(total):
        epoch, place = divmod(step, per_epoch)
        order = np.random.Generator(np.random.PCG64([SEED, epoch])).permutation(len(train))
        chosen = order[place * batch * accumulation : (place + 1) * batch * accumulation]
        part = [train[i] for i in chosen]
        rate = RATE * (step / warm if step < warm else (total - step) / (total - warm))
        for group in optimizer.param_groups:
            group["lr"] = rate
        optimizer.zero_grad()
        loss = sum(summed(model, row) for row in part) / learnt(part)
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(model.parameters(), CLIP)
        optimizer.step()
        expected.append((float(loss), float(norm), rate))
        if (step + 1) % 2 == 0 or step + 1 == total:
            evaluated.append(mean(model, evaluation))

    points = [p for p in ran.points if p.loss is not None]
    assert [p.loss for p in points] == pytest.approx([e[0] for e in expected], rel=2e-4)
    assert [p.grad_norm for p in points] == pytest.approx([e[1] for e in expected], rel=2e-3)
    assert [p.lr for p in points] == pytest.approx([e[2] for e in expected], rel=1e-6)
    assert points[-1].tokens == epochs * sum(len(ids) for ids, _ in train)
    assert [p.eval_loss for p in ran.points if p.eval_loss is not None] == pytest.approx(
        evaluated, rel=2e-4
    )


def test_a_point_of_several_updates_is_their_mean(run_trial: Run) -> None:
    each = [loss for _, loss in run_trial("each", max_steps=7).losses]
    some = run_trial("some", max_steps=7, logging_steps=3).losses
    assert [step for step, _ in some] == [3, 6, 7]
    means = [sum(each[:3]) / 3, sum(each[3:6]) / 3, each[6]]
    assert [loss for _, loss in some] == pytest.approx(means, rel=1e-5)
