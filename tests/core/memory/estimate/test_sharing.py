"""What each of several GPUs is forecast to hold of a run that they share."""

from typing import Any

import pytest

from core.memory.closed_form import estimate
from core.memory.estimate.sharing import NCCL
from core.memory.forecast import Forecast
from tests.core.memory.fake_memory import LENGTHS, SHAPE, gpu, profile

NUMBERS = SHAPE.size()
FULL = {"finetuning_type": "full"}


def forecast(gpus: int, sharding: str = "ddp", **tables: Any) -> Forecast:
    shared = {"gpus_per_trial": gpus, "sharding": sharding}
    train = {"per_device_train_batch_size": 1, "gradient_accumulation_steps": 1}
    asked = profile(
        **{"method": FULL, "resources": shared, **tables, "train": train | tables.get("train", {})}
    )
    return estimate(asked, SHAPE, gpu(400), LENGTHS)


def test_one_gpu_holds_as_much_whatever_the_sharding() -> None:
    assert forecast(1, "fsdp") == forecast(1)


def test_replicas_hold_everything_and_their_gradients_all_the_time() -> None:
    alone, shared = forecast(1), forecast(2)
    assert shared.parts["optimizer"] == alone.parts["optimizer"]
    assert shared.moments["load"] == alone.moments["load"]
    assert shared.moments["eval"] - alone.moments["eval"] == pytest.approx(4 * NUMBERS, rel=0.01)
    assert shared.moments["forward"] > alone.moments["forward"] + 3.9 * NUMBERS


def test_zero1_shares_the_states_alone() -> None:
    replicas, shared = forecast(4), forecast(4, "zero1")
    assert shared.parts["optimizer"] == replicas.parts["optimizer"] // 4
    assert shared.parts["weights"] == replicas.parts["weights"]
    assert shared.allocated < replicas.allocated


def test_fsdp_shares_all_that_stays_and_gathers_what_computes() -> None:
    alone = forecast(1)
    shared = forecast(8, "fsdp")
    assert shared.moments["load"] < alone.moments["load"] / 4
    # An update works on shares alone.
    assert shared.moments["optimizer"] < alone.moments["optimizer"] / 7
    # The embeddings and the head are whole while the layers compute, and two layers.
    outside, layer = 4 * SHAPE.outside_size(), 4 * SHAPE.layer_size()
    held = 4 * NUMBERS / 8 + outside + 2 * layer
    assert shared.moments["forward"] > held
    assert shared.moments["forward"] < alone.moments["forward"] / 2


def reference(gpus: int, sharding: str, **method: Any) -> int:
    """What the reference of a policy takes between two updates, when nothing else of it is there."""
    with_one, without = (
        forecast(
            gpus, sharding, method=method | {"stage": "dpo"}, alignment={"pref_loss": loss}
        ).moments["optimizer"]
        for loss in ("sigmoid", "orpo")
    )
    return with_one - without


@pytest.mark.parametrize("kind", ["full", "freeze"])
def test_fsdp_shares_a_reference_too_and_parts_it_from_the_policy(kind: str) -> None:
    """Only a whole policy has frozen weights that a reference can lie on."""
    whole = reference(1, "ddp", finetuning_type="full")
    assert reference(4, "ddp", finetuning_type="full") == whole
    assert reference(4, "ddp", finetuning_type="freeze") < whole
    assert reference(4, "fsdp", finetuning_type=kind) == pytest.approx(whole / 4, rel=0.01)


@pytest.mark.parametrize("sharding", ["zero1", "fsdp"])
def test_more_gpus_hold_less_each(sharding: str) -> None:
    sizes = [forecast(count, sharding).needed for count in (2, 4, 8)]
    assert sizes == sorted(sizes, reverse=True)


def test_adapters_are_shared_as_weights_are() -> None:
    lora = {"finetuning_type": "lora"}
    alone, shared = forecast(1, method=lora), forecast(2, "fsdp", method=lora)
    assert shared.parts["adapters"] == alone.parts["adapters"] // 2
    assert shared.parts["optimizer"] == alone.parts["optimizer"] // 2
    assert shared.needed < alone.needed


def test_a_shared_run_is_an_estimate_that_says_so() -> None:
    made = forecast(2, "fsdp")
    assert made.tier == "estimate"
    assert any("2 GPUs (fsdp)" in note and "not simulated" in note for note in made.notes)
    assert made.context == NCCL
