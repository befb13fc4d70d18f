"""Several GPUs for one trial, as a profile says it."""

import pytest

from core.profile import ProfileError, loads

TWO = '[model]\nmodel_name_or_path = "demo"\n[data]\ndataset = "demo"\n[resources]\ngpus_per_trial = 2\n'


def problems(text: str) -> str:
    with pytest.raises(ProfileError) as raised:
        loads(text)
    return str(raised.value)


@pytest.mark.parametrize("sharding", ["ddp", "zero1", "fsdp"])
def test_a_trial_may_have_several_gpus(sharding: str) -> None:
    profile = loads(TWO + f'sharding = "{sharding}"\n')
    assert profile.resources.gpus_per_trial == 2
    assert profile.effective_batch() == 2 * profile.batch_per_gpu() == 32


@pytest.mark.parametrize(
    ("sharding", "rest", "key"),
    [
        ("fsdp", "[model]\nquantization_bit = 4\n", "model.quantization_bit"),
        ("fsdp", "[train]\nearly_stopping_patience = 3\n", "train.early_stopping_patience"),
        ("fsdp", "[train]\noffload_activations = true\n", "train.offload_activations"),
        ("fsdp", '[train]\nprecision = "fp16"\n', "train.precision"),
        ("zero1", '[train]\nprecision = "fp16"\n', "train.precision"),
        ("zero1", '[train]\noptim = "adamw_8bit"\n', "train.optim"),
        ("fsdp", '[train]\noptim = "adafactor"\n', "train.optim"),
        ("fsdp", '[train]\noptim = "paged_adamw_32bit"\n', "train.optim"),
        ("ddp", "[train]\noffload_optimizer = true\n", "train.offload_optimizer"),
    ],
)
def test_what_does_not_work_shared_is_refused_with_the_reason(
    sharding: str, rest: str, key: str
) -> None:
    head, tail = rest.split("\n", 1)
    text = TWO + f'sharding = "{sharding}"\n'
    text = text.replace(head, f"{head}\n{tail}") if head in text else text + rest
    said = problems(text)
    assert f"{key}:" in said
    assert loads(text.replace("gpus_per_trial = 2", "gpus_per_trial = 1"))
