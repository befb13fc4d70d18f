"""Pretraining of the demo's small Llama on one CPU thread: a plain PyTorch loop."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM


@dataclass(frozen=True)
class Shape:
    """The size of the model; ``vocab`` and ``context`` in tokens."""

    vocab: int = 3072
    context: int = 1024
    hidden: int = 160
    layers: int = 4
    heads: int = 4
    key_value_heads: int = 2
    mlp: int = 432


@dataclass(frozen=True)
class Schedule:
    """How it is trained; ``block`` is the length of a row in tokens."""

    steps: int = 1800
    rows: int = 8
    block: int = 512
    learning_rate: float = 4e-3
    warmup: int = 100
    weight_decay: float = 0.1
    clip: float = 1.0
    seed: int = 11


@dataclass(frozen=True)
class Outcome:
    """Mean loss in nats a token: of the last 100 training steps, and of the held-out text."""

    train_loss: float
    held_out_loss: float
    uniform_loss: float
    tokens: int


def build(shape: Shape, pad: int, start: int, end: int, seed: int) -> LlamaForCausalLM:
    """A freshly initialised model in fp32."""
    torch.manual_seed(seed)
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=shape.vocab,
            hidden_size=shape.hidden,
            intermediate_size=shape.mlp,
            num_hidden_layers=shape.layers,
            num_attention_heads=shape.heads,
            num_key_value_heads=shape.key_value_heads,
            max_position_embeddings=shape.context,
            tie_word_embeddings=True,
            pad_token_id=pad,
            bos_token_id=start,
            eos_token_id=end,
        )
    )


def pretrain(
    model: LlamaForCausalLM, train: Tensor, held_out: Tensor, schedule: Schedule
) -> Outcome:
    """Trains ``model`` in place on the token stream ``train`` (1-D, int64) and measures it."""
    optimizer = torch.optim.AdamW(
        _groups(model, schedule.weight_decay), lr=schedule.learning_rate, betas=(0.9, 0.95)
    )
    batches = _batches(train, schedule)
    recent: list[float] = []
    began = time.monotonic()
    model.train()
    for step in range(schedule.steps):
        for group in optimizer.param_groups:
            group["lr"] = _rate(step, schedule)
        loss = _loss(model, next(batches))
        torch.autograd.backward(loss)
        torch.nn.utils.clip_grad_norm_(model.parameters(), schedule.clip)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        recent = [*recent[-99:], loss.item()]
        if (step + 1) % 50 == 0:
            mean, spent = sum(recent[-50:]) / 50, time.monotonic() - began
            print(f"step {step + 1}/{schedule.steps}  loss {mean:.4f}  {spent:.0f} s", flush=True)
    tokens = schedule.steps * schedule.rows * schedule.block
    vocab = model.config.vocab_size
    return Outcome(
        sum(recent) / len(recent), evaluate(model, held_out, schedule), math.log(vocab), tokens
    )


def evaluate(model: LlamaForCausalLM, stream: Tensor, schedule: Schedule) -> float:
    """Mean loss over ``stream``, in nats a token; needs at least one block of it."""
    model.eval()
    rows = stream[: len(stream) // schedule.block * schedule.block].view(-1, schedule.block)
    total = 0.0
    with torch.inference_mode():
        for batch in rows.split(schedule.rows):
            total += _loss(model, batch).item() * len(batch)
    return total / len(rows)


def _loss(model: LlamaForCausalLM, rows: Tensor) -> Tensor:
    # bf16 halves the time on CPUs that know it; the weights themselves stay in fp32.
    with torch.autocast("cpu", torch.bfloat16):
        loss = model(input_ids=rows, labels=rows).loss
    assert isinstance(loss, Tensor)
    return loss


def _batches(stream: Tensor, schedule: Schedule) -> Iterator[Tensor]:
    """Endless batches (rows x block); every pass cuts the stream at another place."""
    generator = torch.Generator().manual_seed(schedule.seed)
    while True:
        first = int(torch.randint(schedule.block, (1,), generator=generator))
        count = (len(stream) - first) // schedule.block
        blocks = stream[first : first + count * schedule.block].view(count, schedule.block)
        order = torch.randperm(count, generator=generator)
        for picked in order[: count // schedule.rows * schedule.rows].view(-1, schedule.rows):
            yield blocks[picked]


def _rate(step: int, schedule: Schedule) -> float:
    """Linear warm-up, then a cosine down to a tenth."""
    if step < schedule.warmup:
        return schedule.learning_rate * (step + 1) / schedule.warmup
    done = (step - schedule.warmup) / max(1, schedule.steps - schedule.warmup)
    return schedule.learning_rate * (0.1 + 0.45 * (1 + math.cos(math.pi * done)))


def _groups(model: LlamaForCausalLM, weight_decay: float) -> list[dict[str, object]]:
    """Norms' weights are not decayed."""
    matrices = [p for p in model.parameters() if p.dim() > 1]
    vectors = [p for p in model.parameters() if p.dim() < 2]
    return [
        {"params": matrices, "weight_decay": weight_decay},
        {"params": vectors, "weight_decay": 0.0},
    ]
