"""Whether two models say the same: their logits on a few prompts, compared.

The error is the root mean square of the differences over that of the reference, the mean of each position taken off
first, as adding one number to all logits changes no probability. Of reward models the scores are compared so.

What is allowed was measured: merging the adapters of SmolLM2-135M (30 layers, LoRA of rank 8 after six updates that
moved the logits by 0.19) makes an error of 2.5e-6 in fp32, 0.0041 in fp16 and 0.036 in bf16; the demo model (bf16,
moved by 0.72) 0.008, random models of two layers up to 3.5e-7 in fp32. That is what rounding each merged weight once to
its type does. In fp16 and bf16 three times the largest is allowed, as deeper models round more often; in fp32, where
nothing is near, more. Leaving an adapter out makes the error as large as what training moved.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from core.study.after import Check
from core.train.after.origin import Kind

TOLERANCES = {"fp32": 1e-4, "fp16": 1.5e-2, "bf16": 1e-1}
LONGEST = 64
"""Tokens of a prompt that are compared: with six prompts, the logits of a vocabulary of 256k take 0.4 GiB."""

CONVERSATIONS: tuple[tuple[str, str], ...] = (
    ("What is the capital of France?", "The capital of France is Paris, on the river Seine."),
    (
        "Write a function that adds two numbers.",
        "def add(a: int, b: int) -> int:\n    return a + b",
    ),
    ("Warum ist der Himmel blau?", "Kurzes, blaues Licht wird an Luft stärker gestreut als rotes."),
    ("请用一句话介绍你自己。", "我是一个语言模型，可以回答问题和写文章。"),
    ("Сколько будет 12 × 12?", "12 × 12 = 144."),
    ("ما هي عاصمة مصر؟", "عاصمة مصر هي القاهرة."),
)
"""Questions and answers in several scripts, with code and numbers: most tokens of a vocabulary's kinds occur."""


@dataclass(frozen=True, slots=True)
class Logits:
    """What a model says of the prompts: one row a position (fp32, on the CPU), positions × vocabulary; of a reward
    model one row of all scores."""

    rows: Any
    kind: Kind


def prompts(tokenizer: Any) -> list[list[int]]:
    """The token ids of each conversation, rendered by the tokenizer's template where that takes it."""
    return [_ids(tokenizer, question, answer)[:LONGEST] for question, answer in CONVERSATIONS]


def logits_of(model: Any, rows: Sequence[Sequence[int]], kind: Kind) -> Logits:
    """Ask the model."""
    import torch

    known = model.get_input_embeddings().weight.shape[0]
    device = next(model.parameters()).device
    said = []
    with torch.inference_mode():
        for ids in rows:
            # One at a time: padding is nothing that these are to agree about.
            row = torch.tensor([[i for i in ids if i < known]], device=device)
            said.append(model(input_ids=row, use_cache=False).logits[0].float().cpu())
    if kind == "reward model":
        return Logits(torch.cat([each.reshape(1, -1) for each in said], dim=1), kind)
    return Logits(torch.cat(said), kind)


def compare(
    what: Literal["merged", "written"], reference: Logits, other: Logits, dtype: str
) -> Check:
    """How far `other` is from `reference`; `dtype` (as "bf16") is that of the weights."""
    error, largest = difference(reference, other)
    agreement = None
    if reference.kind == "model":
        same = reference.rows.shape == other.rows.shape
        found = (reference.rows.argmax(-1), other.rows.argmax(-1))
        agreement = float((found[0] == found[1]).float().mean()) if same else 0.0
    return Check(
        what,
        error,
        largest,
        TOLERANCES.get(dtype, TOLERANCES["bf16"]),
        agreement,
        reference.rows.shape[1 if reference.kind == "reward model" else 0],
    )


def difference(reference: Logits, other: Logits) -> tuple[float, float]:
    """The relative root mean square of the differences, and the largest one over the same; NaN where they cannot be
    compared."""
    nothing = float("nan")
    one, two = reference.rows, other.rows
    if one.shape != two.shape:
        return nothing, nothing
    if reference.kind == "model":
        one, two = one - one.mean(-1, keepdim=True), two - two.mean(-1, keepdim=True)
    scale = float(one.square().mean().sqrt())
    apart = one - two
    if scale == 0:
        return (0.0, 0.0) if not bool(apart.any()) else (nothing, nothing)
    return float(apart.square().mean().sqrt()) / scale, float(apart.abs().max()) / scale


def _ids(tokenizer: Any, question: str, answer: str) -> list[int]:
    messages = [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
    render: Callable[..., Any] = tokenizer.apply_chat_template
    try:
        text = render(messages, tokenize=False)
    except Exception:
        # No template, or one that wants something else: then it is the plain text.
        text = f"{question}\n{answer}"
    return list(tokenizer(text, add_special_tokens=False)["input_ids"])
