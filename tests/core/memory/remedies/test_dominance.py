"""What dominates a run's memory, in a sentence."""

from typing import Any

import pytest

from core.memory.forecast import GIB, Category, Forecast
from core.memory.remedies.dominance import explain
from core.profile import Profile
from tests.core.memory.fake_memory import profile


def forecast(**gib: float) -> Forecast:
    parts: dict[Category, int] = {name: int(size * GIB) for name, size in gib.items()}  # type: ignore[misc]
    total = sum(parts.values())
    return Forecast(
        tier="estimate", allocated=total, reserved=total, needed=total, context=0, parts=parts, moments={},
        peak="backward",
    )  # fmt: skip


def full(**train: Any) -> Profile:
    return profile(method={"finetuning_type": "full"}, train=train)


@pytest.mark.parametrize(
    ("gib", "asked", "expected"),
    [
        (
            {"weights": 0.8, "activations": 11.2, "logits": 5.4},
            profile(),
            "Activations dominate (11.2 of 17.4 GiB): a smaller micro-batch or checkpointing helps; "
            "quantising the weights (0.8 GiB) barely would.",
        ),
        (
            {"weights": 4.0, "logits": 9.0},
            profile(model={"quantization_bit": 4}),
            "Logits (the scores over the vocabulary) dominate (9.0 of 13.0 GiB): a smaller micro-batch or the loss in "
            "chunks helps; another optimizer (states of 0 MiB) barely would.",
        ),
        (
            {"weights": 14.0, "activations": 1.0},
            profile(),
            "Weights dominate (14.0 of 15.0 GiB): quantising them helps; a smaller micro-batch (activations and logits of "
            "1.0 GiB) barely would.",
        ),
        (
            {"weights": 14.0, "optimizer": 28.0, "gradients": 14.0},
            full(gradient_accumulation_steps=1),
            "The optimizer's states dominate (28.0 of 56.0 GiB): 8-bit or offloaded states or LoRA helps; a smaller "
            "micro-batch with accumulation would keep gradients alive (14.0 GiB).",
        ),
        (
            {"weights": 4.0, "activations": 3.0},
            profile(model={"quantization_bit": 4}, train={"per_device_train_batch_size": 1}),
            "Weights dominate (4.0 of 7.0 GiB).",
        ),
        (
            {"weights": 1.0, "activations": 9.0},
            profile(
                train={"per_device_train_batch_size": 1, "gradient_checkpointing": True},
                model={"attn": "eager"},
            ),
            "Activations dominate (9.0 of 10.0 GiB): sdpa attention helps; quantising the weights (1.0 GiB) barely would.",
        ),
        (
            {"weights": 4.0, "activations": 6.0},
            profile(train={"per_device_train_batch_size": 1, "gradient_checkpointing": True}),
            "Activations dominate (6.0 of 10.0 GiB): shorter rows help; another optimizer (states of 0 MiB) barely would.",
        ),
    ],
)  # fmt: skip
def test_it_names_what_helps_and_what_barely_would(
    gib: dict[str, float], asked: Profile, expected: str
) -> None:
    assert explain(forecast(**gib), asked) == expected


@pytest.mark.parametrize("name", ["adapters", "gradients", "workspace"])
def test_every_category_has_a_sentence(name: str) -> None:
    text = explain(forecast(**{name: 3.0, "weights": 1.0}), full())
    assert "(3.0 of 4.0 GiB)" in text
    assert text.endswith(".")
