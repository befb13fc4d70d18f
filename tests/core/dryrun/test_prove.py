"""Proofs: what a run needs follows what the run is."""

import functools
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import pytest

from core.dryrun import prove as module
from core.dryrun.errors import CannotProve
from core.dryrun.steps import run
from core.memory.forecast import CATEGORIES, Lengths

from .conftest import GPU, HOST, MakeModel, MakeProfile, ProveRun

FULL = {"method__finetuning_type": "full"}


def test_parts_sum_to_the_peak_and_moments_reach_it(prove_run: ProveRun) -> None:
    forecast = prove_run(lengths=Lengths(128, 64))
    assert forecast.tier == "proof"
    assert sum(forecast.parts.values()) == forecast.allocated
    assert forecast.moments[forecast.peak] == max(forecast.moments.values()) == forecast.allocated
    assert set(forecast.moments) == {"load", "forward", "backward", "optimizer", "eval"}
    assert set(forecast.parts) == set(CATEGORIES)
    assert forecast.allocated <= forecast.needed <= forecast.reserved


def test_the_same_run_is_proven_the_same_twice(prove_run: ProveRun) -> None:
    assert prove_run() == prove_run()


@pytest.mark.parametrize(
    "settings",
    [
        {},
        FULL,
        {**FULL, "train__gradient_accumulation_steps": 1},
        {"model__quantization_bit": 4},
        {"train__precision": "fp16", "model__attn": "eager"},
    ],
)
def test_the_second_update_is_written_as_it_would_run(
    prove_run: ProveRun, monkeypatch: pytest.MonkeyPatch, settings: dict[str, Any]
) -> None:
    written = prove_run(**settings)
    monkeypatch.setattr(module, "run", functools.partial(run, in_full=True))
    ran = prove_run(**settings)
    # Batches of the first update are freed while those of the second come, which is a few blocks of 512 bytes.
    assert abs(written.allocated - ran.allocated) <= 64 * 512
    assert written.peak == ran.peak and written.peak_step == ran.peak_step
    for moment, size in ran.moments.items():
        assert written.moments[moment] == pytest.approx(size, abs=64 * 512)


def test_weights_are_held_in_their_types(prove_run: ProveRun) -> None:
    bf16 = prove_run().parts["weights"]
    fp32 = prove_run(train__precision="fp32").parts["weights"]
    assert fp32 == pytest.approx(2 * bf16, rel=0.02)


def test_quantised_weights_are_held_in_fewer_bytes(prove_run: ProveRun) -> None:
    wide = {"hidden_size": 512, "intermediate_size": 1024, "num_hidden_layers": 4}
    whole = prove_run(config=wide).parts["weights"]
    eight = prove_run(config=wide, model__quantization_bit=8).parts["weights"]
    four = prove_run(config=wide, model__quantization_bit=4).parts["weights"]
    assert four < eight < whole
    linear = 4 * (2 * 512 * 512 + 2 * 512 * 256 + 3 * 512 * 1024)
    assert whole - four == pytest.approx(linear * 1.5, rel=0.05)


def test_eight_bits_are_an_estimate_as_outliers_are_not_seen(prove_run: ProveRun) -> None:
    forecast = prove_run(model__quantization_bit=8)
    assert forecast.tier == "estimate"
    assert "outliers" in forecast.notes[0]


def test_adam_holds_two_numbers_for_each_weight_that_trains(prove_run: ProveRun) -> None:
    forecast = prove_run(**FULL)
    assert forecast.parts["weights"] == pytest.approx(forecast.parts["optimizer"] / 2, rel=0.02)
    assert prove_run(**FULL, train__optim="adafactor").parts["optimizer"] < 1e5


def test_eight_bit_states_take_a_quarter(prove_run: ProveRun) -> None:
    wide = {"hidden_size": 256, "intermediate_size": 512}
    frozen = {"config": wide, "method__finetuning_type": "freeze"}
    exact = prove_run(**frozen).parts["optimizer"]
    small = prove_run(**frozen, train__optim="adamw_8bit").parts["optimizer"]
    # Scales add 4 bytes for each 256 numbers; norms keep 32 bits.
    assert small == pytest.approx(exact / 4, rel=0.05)


def test_offloaded_and_paged_states_are_not_on_the_device(prove_run: ProveRun) -> None:
    offloaded = prove_run(**FULL, train__offload_optimizer=True)
    assert offloaded.parts["optimizer"] == 0
    assert offloaded.tier == "estimate"
    paged = prove_run(**FULL, train__optim="paged_adamw_32bit")
    assert paged.parts["optimizer"] < prove_run(**FULL).parts["optimizer"]
    assert paged.tier == "estimate"


def test_checkpointing_lowers_activations(prove_run: ProveRun) -> None:
    none = prove_run()
    all_layers = prove_run(train__gradient_checkpointing=True)
    half = prove_run(train__gradient_checkpointing=True, train__gradient_checkpointing_every=2)
    assert all_layers.allocated < half.allocated < none.allocated


def test_offloaded_activations_are_not_on_the_device(prove_run: ProveRun) -> None:
    wide = {"hidden_size": 512, "intermediate_size": 2048, "vocab_size": 64}
    there = prove_run(config=wide, train__per_device_train_batch_size=8)
    away = prove_run(
        config=wide, train__per_device_train_batch_size=8, train__offload_activations=True
    )
    assert away.allocated < 0.7 * there.allocated
    assert away.tier == "estimate"


def test_accumulation_keeps_gradients_through_the_next_forward(prove_run: ProveRun) -> None:
    once = prove_run(**FULL, train__gradient_accumulation_steps=1)
    twice = prove_run(**FULL, train__gradient_accumulation_steps=2)
    gradients = prove_run(**FULL).parts["optimizer"] / 2
    assert twice.moments["forward"] - once.moments["forward"] == pytest.approx(gradients, rel=0.1)
    many = prove_run(**FULL, train__gradient_accumulation_steps=64)
    assert many.moments["forward"] == pytest.approx(twice.moments["forward"], rel=0.05)


def test_a_loss_in_chunks_has_no_logits_of_the_whole_batch(prove_run: ProveRun) -> None:
    wide = {"vocab_size": 32000}
    whole = prove_run(config=wide)
    chunked = prove_run(config=wide, train__loss_chunk_tokens=32)
    logits = 4 * 128 * 32000 * 4
    assert whole.parts["logits"] >= 2 * logits
    assert chunked.parts["logits"] < whole.parts["logits"] / 8
    assert chunked.allocated < whole.allocated - logits


def test_longer_rows_and_larger_batches_take_more(prove_run: ProveRun) -> None:
    small = prove_run()
    assert prove_run(lengths=Lengths(256, 0)).allocated > small.allocated
    assert prove_run(train__per_device_train_batch_size=8).allocated > small.allocated


def test_rows_are_no_longer_than_the_cut_off(prove_run: ProveRun) -> None:
    cut = prove_run(data__cutoff_len=64)
    assert cut.allocated == prove_run(lengths=Lengths(64, 0)).allocated


def test_batches_are_padded_on_a_gpu(prove_run: ProveRun) -> None:
    assert prove_run(lengths=Lengths(121, 0)).allocated == prove_run().allocated
    odd = prove_run(target=HOST, lengths=Lengths(121, 0))
    assert odd.allocated < prove_run(target=HOST).allocated


def test_padding_needs_masks_and_repeated_keys(prove_run: ProveRun) -> None:
    padded = prove_run(lengths=Lengths(256, 0, padded=True))
    even = prove_run(lengths=Lengths(256, 0, padded=False))
    assert even.allocated < padded.allocated


def test_an_evaluation_with_larger_batches_can_be_the_peak(prove_run: ProveRun) -> None:
    forecast = prove_run(
        lengths=Lengths(64, 256), train__per_device_eval_batch_size=64,
        train__per_device_train_batch_size=1, train__gradient_accumulation_steps=1,
    )  # fmt: skip
    assert forecast.peak == "eval"
    assert forecast.moments["eval"] == forecast.allocated


def test_an_older_gpu_takes_fp16_and_no_flash_attention(prove_run: ProveRun) -> None:
    even = Lengths(256, 0, padded=False)
    turing = msgspec.structs.replace(GPU, capability=(7, 5))
    old = prove_run(target=turing, lengths=even)
    new = prove_run(lengths=even)
    # Its attention holds the scores of all pairs of tokens.
    assert old.allocated > new.allocated


def test_hopper_has_larger_workspaces(prove_run: ProveRun) -> None:
    hopper = msgspec.structs.replace(GPU, capability=(9, 0))
    assert prove_run(target=hopper).parts["workspace"] >= 64 * 2**20


def test_the_cpu_is_an_estimate_without_an_allocator(prove_run: ProveRun) -> None:
    forecast = prove_run(target=HOST)
    assert forecast.tier == "estimate"
    assert forecast.needed == forecast.reserved == forecast.allocated
    assert forecast.parts["workspace"] < 2**20


def test_a_context_that_was_measured_is_taken(prove_run: ProveRun) -> None:
    measured = msgspec.structs.replace(GPU, context=123)
    typical = msgspec.structs.replace(GPU, context=None)
    assert prove_run(target=measured).context == 123
    assert prove_run(target=typical).context > 100 * 2**20


def test_experts_are_an_estimate(prove_run: ProveRun) -> None:
    forecast = prove_run(
        config={"model_type": "mixtral", "num_local_experts": 4}, method__lora_target="q_proj"
    )
    assert forecast.tier == "estimate"
    assert "experts" in forecast.notes[0]


def test_kernels_of_other_packages_are_not_seen(prove_run: ProveRun) -> None:
    forecast = prove_run(
        config={"model_type": "lfm2", "layer_types": ["conv", "full_attention"]},
        lengths=Lengths(32, 0),
    )
    assert forecast.tier == "estimate"
    assert "kernels of other packages" in forecast.notes[0]


def test_dora_takes_its_norms_of_unpacked_4_bit_weights(prove_run: ProveRun) -> None:
    plain = prove_run(model__quantization_bit=4)
    dora = prove_run(model__quantization_bit=4, method__use_dora=True)
    assert dora.tier == "proof"
    assert dora.parts["adapters"] > plain.parts["adapters"]
    assert dora.allocated > plain.allocated


def test_dora_over_8_bits_is_not_simulated_on_a_gpu(prove_run: ProveRun) -> None:
    with pytest.raises(CannotProve, match="use_dora takes on weights of 8 bits"):
        prove_run(model__quantization_bit=8, method__use_dora=True)


def test_more_layers_than_a_model_has_are_not_built(prove_run: ProveRun) -> None:
    with pytest.raises(CannotProve, match="1000000000 layers"):
        prove_run(config={"num_hidden_layers": 10**9})


def test_flash_attn_need_not_be_installed_here(prove_run: ProveRun) -> None:
    forecast = prove_run(model__attn="flash_attention_2", lengths=Lengths(256, 0))
    assert forecast.allocated < prove_run(model__attn="eager", lengths=Lengths(256, 0)).allocated


def test_a_model_without_a_config_is_told(make_profile: MakeProfile, tmp_path: Path) -> None:
    profile = make_profile()
    (tmp_path / "config.json").unlink()
    with pytest.raises(CannotProve, match=r"holds no config\.json"):
        module.prove(profile, GPU, Lengths(64, 0))


def test_a_folder_that_is_not_there_is_told(make_profile: MakeProfile) -> None:
    profile = make_profile()
    model = profile.model.model_copy(update={"model_name_or_path": "/no/such/model"})
    with pytest.raises(CannotProve, match="there is no /no/such/model"):
        module.prove(replace(profile, model=model), GPU, Lengths(64, 0))


def test_an_unknown_architecture_is_told(make_profile: MakeProfile) -> None:
    profile = make_profile({"model_type": "never_heard_of"})
    with pytest.raises(CannotProve, match="no model of the type never_heard_of"):
        module.prove(profile, GPU, Lengths(64, 0))


@pytest.mark.parametrize("trusted", [False, True])
def test_code_that_comes_with_a_model_is_not_run(
    make_profile: MakeProfile, make_model: MakeModel, tmp_path: Path, trusted: bool
) -> None:
    remote = {"AutoConfig": "configuration.Config", "AutoModelForCausalLM": "modeling.Model"}
    profile = make_profile(
        {"model_type": "theirs", "auto_map": remote}, model__trust_remote_code=trusted
    )
    for name in ("configuration.py", "modeling.py"):
        (tmp_path / name).write_text("raise SystemExit('it ran')")
    with pytest.raises(CannotProve, match="code of its own, which is not run"):
        module.prove(profile, GPU, Lengths(64, 0))


def test_a_damaged_config_is_told(make_profile: MakeProfile, tmp_path: Path) -> None:
    profile = make_profile()
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(CannotProve, match="cannot be read"):
        module.prove(profile, GPU, Lengths(64, 0))


def test_other_quantisations_are_told(make_profile: MakeProfile) -> None:
    profile = make_profile({"quantization_config": {"quant_method": "gptq", "bits": 4}})
    with pytest.raises(CannotProve, match="quantised with gptq"):
        module.prove(profile, GPU, Lengths(64, 0))


def test_what_the_worker_would_refuse_is_told_in_its_words(prove_run: ProveRun) -> None:
    with pytest.raises(CannotProve, match="has no layer q_projj"):
        prove_run(method__lora_target="q_projj")
    with pytest.raises(CannotProve, match=r"set data\.cutoff_len = 512"):
        prove_run(
            config={"model_type": "gpt2", "n_embd": 64, "n_layer": 2, "n_head": 4, "n_positions": 512},
            lengths=Lengths(1024, 0),
        )  # fmt: skip


def test_packed_rows_are_proven_with_the_mask_that_keeps_them_apart(prove_run: ProveRun) -> None:
    alone, padded = Lengths(1024, 0, padded=False), Lengths(1024, 0, padded=True)
    packed = {"data__packing": True}
    mixed = prove_run(lengths=alone, data__neat_packing=False, **packed)
    apart = prove_run(lengths=alone, **packed)
    assert apart.tier == mixed.tier == "proof"
    # At least a byte for each pair of tokens of both rows.
    assert apart.allocated - mixed.allocated > 2 * 1024 * 1024
    # What is made on the way to it is more than of a mask for padding.
    assert apart.needed > prove_run(lengths=padded).needed


def test_a_packed_run_of_a_model_without_positions_cannot_be_proven(prove_run: ProveRun) -> None:
    with pytest.raises(CannotProve, match="would see each other"):
        prove_run(config={"model_type": "mamba"}, data__packing=True, **FULL)
