"""The moves that a search for memory fixes may make."""

from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.memory.forecast import Lengths, Target
from core.memory.remedies.lattice import (
    SAME,
    Move,
    apply,
    batch_move,
    changes_of,
    combined,
    divisors,
    quickening,
    searched,
    tightening,
)
from core.profile import Profile
from tests.core.memory.fake_memory import LENGTHS, SHAPE, gpu, profile

CPU = Target(kind="cpu", total=1, free=1)


def moves(asked: Profile, target: Target = CPU, lengths: Lengths = LENGTHS) -> list[Move]:
    return [move for axis in tightening(asked, SHAPE, target, lengths) for move in axis]


def offered(asked: Profile, target: Target = CPU) -> set[tuple[str, Any]]:
    return {change for move in moves(asked, target) for change in move.changes.items()}


@given(st.integers(1, 64), st.integers(1, 64))
def test_every_batch_that_is_offered_keeps_the_effective_batch(
    batch: int, accumulation: int
) -> None:
    asked = profile(
        train={"per_device_train_batch_size": batch, "gradient_accumulation_steps": accumulation}
    )
    found = [m for m in moves(asked) if m.axis == "batch"]
    sizes = [int(m.changes["per_device_train_batch_size"]) for m in found]
    assert all(larger > smaller for larger, smaller in pairwise(sizes))
    assert len(sizes) <= 8
    assert not sizes or sizes[-1] == 1
    for move in found:
        changed = apply(asked, (move,))
        assert changed is not None
        assert changed.effective_batch() == batch * accumulation
        assert changed.train.per_device_train_batch_size < batch


@pytest.mark.parametrize(
    ("batch", "sizes"),
    [(256, [128, 64, 32, 16, 8, 4, 2, 1]), (4096, [2048, 1024, 512, 256, 128, 64, 32, 1])],
)
def test_of_many_batches_the_largest_are_kept_as_the_least_change_is_the_best(
    batch: int, sizes: list[int]
) -> None:
    asked = profile(train={"per_device_train_batch_size": batch, "gradient_accumulation_steps": 1})
    found = [m for m in moves(asked) if m.axis == "batch"]
    assert [m.changes["per_device_train_batch_size"] for m in found] == sizes


@given(st.integers(1, 5000))
def test_divisors_come_from_the_largest(number: int) -> None:
    assert divisors(number) == [n for n in range(number, 0, -1) if number % n == 0]


def test_a_batch_says_its_numbers() -> None:
    assert batch_move(profile(), 2).text == (
        "per-device batch 8 → 2, accumulation 2 → 8; the effective batch stays 16"
    )


def test_every_move_can_be_made_and_changes_something() -> None:
    asked = profile(model={"attn": "eager"})
    target = gpu(24, flash_attention=True, capability=(8, 6))
    for move in moves(asked, target):
        changed = apply(asked, (move,))
        assert changed is not None, move
        assert changed != asked, move


def test_what_changes_the_result_says_how() -> None:
    for kind in ("lora", "full"):
        for move in moves(profile(method={"finetuning_type": kind}), gpu(24)):
            assert (move.effect == SAME) == (move.numerics == "equivalent"), move
            assert (move.burden >= 0.1) == (move.numerics == "different"), move


def test_a_full_fine_tuning_can_only_be_quantised_as_lora() -> None:
    asked = profile(method={"finetuning_type": "full"})
    by_axis = {axis[0].axis: axis for axis in tightening(asked, SHAPE, gpu(24), LENGTHS)}
    quantise, lora = by_axis["quantization"][-1], by_axis["method"][0]
    assert apply(asked, (quantise,)) is None
    changed = apply(asked, (lora, quantise))
    assert changed is not None
    assert changed.model.quantization_bit == 4
    assert "adapters" not in by_axis


def test_what_needs_a_gpu_is_not_offered_on_the_cpu() -> None:
    here, there = offered(profile(), CPU), offered(profile(), gpu(24))
    only_gpu = {
        ("optim", "paged_adamw_32bit"),
        ("optim", "paged_adamw_8bit"),
        ("offload_optimizer", True),
        ("offload_activations", True),
        ("quantization_bit", 8),
    }
    assert not only_gpu & here
    assert only_gpu <= there


@pytest.mark.parametrize(
    ("target", "precision", "expected"),
    [
        (gpu(24, flash_attention=True, capability=(8, 0)), "bf16", True),
        (gpu(24, flash_attention=True, capability=(7, 5)), "fp16", False),
        (gpu(24, flash_attention=True, capability=(8, 0)), "fp32", False),
        (gpu(24, flash_attention=True), "bf16", False),
        (gpu(24, capability=(8, 0)), "bf16", False),
    ],
)
def test_flash_attention_needs_its_package_ampere_and_16_bits(
    target: Target, precision: str, expected: bool
) -> None:
    found = offered(profile(train={"precision": precision}), target)
    assert (("attn", "flash_attention_2") in found) is expected


def test_sdpa_is_offered_in_place_of_eager_only() -> None:
    assert ("attn", "sdpa") in offered(profile(model={"attn": "eager"}))
    assert ("attn", "sdpa") not in offered(profile())


def test_what_is_done_already_is_not_offered_again() -> None:
    done = profile(
        model={"quantization_bit": 4},
        method={"adapter_precision": "bf16"},
        train={
            "gradient_checkpointing": True,
            "offload_activations": True,
            "loss_chunk_tokens": 256,
            "optim": "adafactor",
            "per_device_train_batch_size": 1,
        },
        data={"cutoff_len": 128, "val_size": 0},
    )
    assert moves(done, gpu(24)) == []


def test_rows_are_cut_below_the_longest_that_there_is() -> None:
    asked = profile(data={"cutoff_len": 8192})
    cut = [m for m in moves(asked, lengths=Lengths(1000, 0, measured=True)) if m.axis == "length"]
    assert [m.changes["cutoff_len"] for m in cut] == [704, 448, 192]
    assert "the longest has 1000" in cut[0].text


def test_a_search_keeps_what_it_varies_but_for_the_batch() -> None:
    asked = profile(
        search={"space": {"cutoff_len": [1024, 2048], "per_device_train_batch_size": [4, 8]}}
    )
    kept = {move.axis for move in moves(asked) if searched(asked, move)}
    assert kept == {"length"}


def test_combinations_take_one_move_an_axis() -> None:
    axes = tightening(profile(), SHAPE, gpu(24), LENGTHS)
    found = list(combined(axes, 2))
    singles = sum(len(axis) for axis in axes)
    assert sum(len(c) == 1 for c in found) == singles
    assert all(len({m.axis for m in c}) == len(c) for c in found)
    assert len(set(found)) == len(found)
    one = found[-1]
    assert changes_of(one) == {k: v for move in one for k, v in move.changes.items()}


def test_quicker_ways_leave_the_result_as_it_is() -> None:
    asked = profile(
        train={"gradient_checkpointing": True, "offload_activations": True, "optim": "adamw_torch"}
    )
    found = [m for axis in quickening(asked, gpu(80)) for m in axis]
    assert {m.axis for m in found} == {"batch", "checkpointing", "offload"}
    assert all(m.numerics == "equivalent" for m in found)
    assert 16 in [m.changes.get("per_device_train_batch_size") for m in found]
    assert {"gradient_checkpointing": False} in [dict(m.changes) for m in found]


def test_a_smaller_batch_says_that_dropout_draws_otherwise() -> None:
    plain = profile(method={"finetuning_type": "lora"})
    assert batch_move(plain, 1).effect == SAME
    dropped = plain.with_changes({"lora_dropout": 0.1})
    assert "dropout" in batch_move(dropped, 1).effect
    assert batch_move(dropped, 1).numerics == "equivalent"


def shared(asked: Profile, target: Target) -> list[Move]:
    return [move for move in moves(asked, target) if move.axis == "gpus"]


def test_more_gpus_are_offered_where_there_are_some() -> None:
    assert shared(profile(), gpu(24)) == []
    found = shared(profile(), gpu(24, gpus=5))
    assert [(m.changes["gpus_per_trial"], m.changes["sharding"]) for m in found] == [
        (2, "zero1"), (2, "fsdp"), (4, "zero1"), (4, "fsdp"),
    ]  # fmt: skip


@given(st.integers(1, 48), st.integers(1, 48))
def test_more_gpus_keep_the_effective_batch(batch: int, accumulation: int) -> None:
    asked = profile(
        train={"per_device_train_batch_size": batch, "gradient_accumulation_steps": accumulation}
    )
    for move in shared(asked, gpu(24, gpus=8)):
        changed = apply(asked, (move,))
        assert changed is not None
        assert changed.effective_batch() == asked.effective_batch()
        assert changed.train.per_device_train_batch_size <= batch


def test_more_gpus_do_not_go_together_with_another_batch() -> None:
    axes = tightening(profile(), SHAPE, gpu(24, gpus=2), LENGTHS)
    ideas = [{move.axis for move in made} for made in combined(axes, 2)]
    assert {"gpus"} in ideas and {"gpus", "checkpointing"} in ideas
    assert {"gpus", "batch"} not in ideas


def test_what_cannot_be_shared_is_left_out_with_what_shares_it() -> None:
    quantized = profile(model={"quantization_bit": 4})
    made = [apply(quantized, (move,)) for move in shared(quantized, gpu(24, gpus=2))]
    assert [p.resources.sharding for p in made if p is not None] == ["zero1"]


def test_gpus_that_a_trial_has_may_share_more() -> None:
    two = profile(resources={"gpus_per_trial": 2, "sharding": "zero1"})
    (move,) = shared(two, gpu(24, gpus=2))
    assert move.changes == {"sharding": "fsdp"}
    assert "2 GPUs share weights, gradients and states" in move.text
    copies = profile(resources={"gpus_per_trial": 2})
    assert [m.changes["sharding"] for m in shared(copies, gpu(24, gpus=2))] == ["zero1", "fsdp"]


def test_answers_that_ppo_draws_are_drawn_in_smaller_batches_also_without_an_evaluation() -> None:
    tables = {"method": {"stage": "ppo"}, "alignment": {"reward_model": "scores"}}
    train = {"per_device_train_batch_size": 4, "gradient_accumulation_steps": 2}
    asked = profile(
        **tables, train=train | {"per_device_eval_batch_size": 16}, data={"val_size": 0}
    )
    found = {m.axis: m for m in moves(asked)}
    drawn = found["eval_batch"]
    assert drawn.changes["per_device_eval_batch_size"] < 16
    assert "which answers are drawn" in drawn.effect and found["batch"].effect == SAME
    both = {m.axis: m for m in moves(profile(**tables, train=train, data={"val_size": 0}))}
    assert "which answers are drawn" in both["batch"].effect
    # What the stage refuses is tried by nobody.
    assert apply(asked, (found["loss"],)) is None
