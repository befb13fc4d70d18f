"""What fixes cost in time: bounded by what is published, and in the right order."""

from typing import Any

import pytest

from core.memory.forecast import Lengths, Target
from core.memory.remedies.costs import CHEAP, SOURCES, slowdown, time_per_token, trainable
from core.memory.remedies.lattice import tightening
from core.profile import Profile
from tests.core.memory.fake_memory import LENGTHS, SHAPE, gpu, profile

A100 = gpu(80, capability=(8, 0))


def cost(
    changes: dict[str, Any], before: Profile | None = None, lengths: Lengths = LENGTHS
) -> tuple[float, float]:
    base = before or profile()
    return slowdown(base, base.with_changes(changes), SHAPE, A100, lengths)


def full(**train: Any) -> Profile:
    return profile(method={"finetuning_type": "full"}, train=train)


def test_no_change_costs_nothing() -> None:
    assert cost({}) == (1.0, 1.0)


def test_checkpointing_costs_what_is_published_and_most_with_lora() -> None:
    low, high = cost({"gradient_checkpointing": True})
    assert 1.2 < low < high < 1.5
    full_low, full_high = cost({"gradient_checkpointing": True}, full())
    assert 1.15 < full_low < low
    assert full_high < high


def test_every_second_layer_costs_half() -> None:
    _, whole = cost({"gradient_checkpointing": True})
    _, half = cost({"gradient_checkpointing": True, "gradient_checkpointing_every": 2})
    assert half - 1 == pytest.approx((whole - 1) / 2, rel=0.01)


def test_taking_checkpointing_back_is_the_inverse() -> None:
    there = cost({"gradient_checkpointing": True})
    checkpointed = profile().with_changes({"gradient_checkpointing": True})
    back = cost({"gradient_checkpointing": False}, checkpointed)
    assert back == pytest.approx((1 / there[1], 1 / there[0]))


def test_small_batches_cost_more_the_smaller_they_get() -> None:
    half = cost({"per_device_train_batch_size": 4, "gradient_accumulation_steps": 4})
    one = cost({"per_device_train_batch_size": 1, "gradient_accumulation_steps": 16})
    assert 1.0 < half[0] < half[1] < 1.2
    assert one[1] > half[1]
    short = Lengths(128, 0)
    starved = cost(
        {"per_device_train_batch_size": 1, "gradient_accumulation_steps": 16}, None, short
    )
    assert starved[1] > 2


def test_four_bits_cost_little_at_large_batches_and_up_to_double_at_small_ones() -> None:
    """1.05 at batch 4 of packed rows and 1.4 to 2 at a single short row are published."""
    low, _ = cost({"quantization_bit": 4})
    assert low < 1.05
    single = profile(train={"per_device_train_batch_size": 1, "gradient_accumulation_steps": 16})
    short = cost({"quantization_bit": 4}, single, Lengths(300, 0))
    assert 1.15 < short[0] < 1.5 < short[1] < 2.2


def test_a_chunked_loss_costs_the_head_once_more() -> None:
    low, high = cost({"loss_chunk_tokens": 1024})
    assert 1.0 < low < high < 1.05


def test_offloading_depends_on_how_often_bytes_cross_the_bus() -> None:
    rare = cost({"offload_optimizer": True}, full(gradient_accumulation_steps=32))
    often = cost(
        {"offload_optimizer": True},
        full(per_device_train_batch_size=1, gradient_accumulation_steps=1),
    )
    assert 1.0 < rare[0] < rare[1] < often[1]
    assert cost({"offload_optimizer": True})[1] < 1.02, "adapters are few"
    kept = cost({"offload_activations": True})
    with_checkpoints = cost(
        {"offload_activations": True}, profile(train={"gradient_checkpointing": True})
    )
    assert with_checkpoints[1] < kept[1]


def test_a_fused_or_8_bit_optimizer_is_not_slower() -> None:
    for name in ("adamw_torch_fused", "adamw_8bit"):
        low, high = cost({"optim": name}, full())
        assert 0.9 < low <= high <= 1.0


def test_lora_is_faster_than_full_fine_tuning() -> None:
    low, high = cost({"finetuning_type": "lora"}, full())
    assert 0.6 < low < high < 1.0


def test_eager_attention_is_slower() -> None:
    low, high = cost({"attn": "sdpa"}, profile(model={"attn": "eager"}))
    assert high < 1.0
    assert low > 0.5


def test_weights_that_train_are_counted() -> None:
    assert trainable(full(), SHAPE) == SHAPE.size()
    lora = trainable(profile(), SHAPE)
    assert trainable(profile(method={"lora_rank": 16}), SHAPE) == 2 * lora
    few = trainable(profile(method={"lora_target": "q_proj,v_proj"}), SHAPE)
    assert few == 8 * 32 * (4096 + 4096 + 4096 + 1024)
    frozen = profile(method={"finetuning_type": "freeze", "freeze_trainable_layers": 8})
    assert trainable(frozen, SHAPE) == SHAPE.size() / 4


@pytest.mark.parametrize("kind", ["lora", "full", "freeze"])
@pytest.mark.parametrize(
    "target",
    [A100, gpu(15, capability=(7, 5), gpus=4), Target(kind="cpu", total=1, free=1)],
)
def test_every_move_has_a_finite_cost_and_a_source(kind: str, target: Target) -> None:
    base = profile(method={"finetuning_type": kind}, model={"attn": "eager"})
    for axis in tightening(base, SHAPE, target, LENGTHS):
        for move in axis:
            assert SOURCES[move.axis]
            if move.axis == "quantization" and kind != "lora":
                continue
            low, high = slowdown(base, base.with_changes(move.changes), SHAPE, target, LENGTHS)
            assert 0.3 < low <= high < 30, move


def test_several_gpus_cost_what_they_send_to_each_other() -> None:
    two = {"gpus_per_trial": 2, "per_device_train_batch_size": 1, "gradient_accumulation_steps": 8}
    base = full(per_device_train_batch_size=1, gradient_accumulation_steps=16)
    zero = cost(two | {"sharding": "zero1"}, base)
    sharded = cost(two | {"sharding": "fsdp"}, base)
    assert 1.0 < zero[0] <= zero[1] < sharded[1]
    assert sharded[0] > zero[0]
    adapters = cost(two | {"sharding": "zero1"}, profile())
    assert adapters[1] < zero[1]


def test_times_are_positive() -> None:
    assert time_per_token(profile(), SHAPE, A100, LENGTHS, CHEAP) > 2 * SHAPE.size()
