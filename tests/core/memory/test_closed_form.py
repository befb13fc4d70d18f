"""The forecast that is there at once: its parts against arithmetic, its peaks against the dry run."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core.memory.architecture import Architecture, read_config
from core.memory.closed_form import estimate
from core.memory.estimate.passes import Batch, Kind, layer_cost
from core.memory.estimate.regime import decide
from core.memory.estimate.states import Group, optimizer_states
from core.memory.forecast import GIB, MIB, Forecast, Lengths, Target
from core.params import TrainTable
from core.profile import Profile, ProfileError, from_document

A100 = Target(kind="cuda", total=80 * GIB, free=80 * GIB, capability=(8, 0))
H100 = Target(kind="cuda", total=80 * GIB, free=80 * GIB, capability=(9, 0))
T4 = Target(kind="cuda", total=16 * GIB, free=16 * GIB, capability=(7, 5))
CPU = Target(kind="cpu", total=64 * GIB, free=64 * GIB)
TARGETS = {"A100": A100, "H100": H100, "T4": T4, "CPU": CPU}

LLAMA_7B: dict[str, Any] = {
    "model_type": "llama", "hidden_size": 4096, "num_hidden_layers": 32, "num_attention_heads": 32,
    "num_key_value_heads": 32, "intermediate_size": 11008, "vocab_size": 32000, "tie_word_embeddings": False,
}  # fmt: skip
LLAMA = read_config(LLAMA_7B)
NUMBERS = 6_738_415_616
LINEAR = 32 * (4 * 4096 * 4096 + 3 * 4096 * 11008)


def profile(length: int = 1024, **changes: Any) -> Profile:
    """LoRA on all linear layers, one row a batch, one batch an update; changes by full key with __ for the point."""
    document: dict[str, dict[str, Any]] = {
        "model": {"model_name_or_path": "somewhere"},
        "data": {"dataset": "demo", "cutoff_len": length},
        "method": {},
        "train": {"per_device_train_batch_size": 1, "gradient_accumulation_steps": 1},
    }
    for key, value in changes.items():
        table, _, name = key.partition("__")
        document[table][name] = value
    return from_document(document).as_training()


def forecast(target: Target = A100, shape: Architecture = LLAMA, **changes: Any) -> Forecast:
    return estimate(profile(**changes), shape, target)


# What stays -----------------------------------------------------------------------------------------------------


def test_frozen_weights_take_two_bytes_a_number_and_trained_ones_four() -> None:
    lora = forecast(train__optim="adamw_torch_fused")
    assert lora.moments["load"] >= 2 * NUMBERS
    assert lora.parts["weights"] == pytest.approx(2 * NUMBERS, rel=0.01)
    full = forecast(method__finetuning_type="full")
    assert full.parts["weights"] == pytest.approx(4 * NUMBERS, rel=0.01)
    pure = forecast(method__finetuning_type="full", train__precision="pure_bf16")
    assert pure.parts["weights"] == pytest.approx(2 * NUMBERS, rel=0.01)


@pytest.mark.parametrize(
    ("bits", "nested", "each"),
    [(4, True, 0.5 + (1 + 4 / 256) / 64), (4, False, 0.5 + 4 / 64), (8, True, 1.0)],
)
def test_quantised_linear_layers_take_their_bits_and_scales_and_the_rest_two_bytes(
    bits: int, nested: bool, each: float
) -> None:
    made = forecast(
        model__quantization_bit=bits,
        model__double_quantization=nested,
        train__gradient_checkpointing=True,
        train__loss_chunk_tokens=64,
    )
    assert made.parts["weights"] == pytest.approx(each * LINEAR + 2 * (NUMBERS - LINEAR), rel=0.005)


def test_adapters_on_all_linear_layers_are_counted_with_their_states_and_gradients() -> None:
    rank = 16
    numbers = 32 * rank * (4 * (4096 + 4096) + 3 * (4096 + 11008))
    made = forecast(method__lora_rank=rank)
    assert made.parts["adapters"] == 4 * numbers
    # Two states, and a count of updates on the device for each matrix: AdamW is fused on CUDA.
    assert made.parts["optimizer"] == 8 * numbers + 512 * 2 * 7 * 32
    half = forecast(method__lora_rank=rank, method__adapter_precision="bf16")
    assert half.parts["adapters"] == 2 * numbers
    some = forecast(method__lora_rank=rank, method__lora_target="q_proj,v_proj")
    assert some.parts["adapters"] == 4 * 32 * rank * 2 * (4096 + 4096)
    dora = forecast(method__lora_rank=rank, method__use_dora=True)
    assert dora.parts["adapters"] - 4 * numbers == 4 * 32 * (4 * 4096 + 2 * 11008 + 4096)


def test_a_projected_optimizer_holds_states_of_its_rank() -> None:
    groups = (Group(4096, 11008, 32), Group(32000, 4096, 1, embedding=True))
    train = TrainTable(optim="galore_adamw", optim_args="rank=64, scale=0.5")
    embedding = 8 * 32000 * 4096
    projected = 32 * 4 * 64 * (2 * 11008 + 4096)
    assert optimizer_states(groups, train, 4, cuda=True) == embedding + projected
    # adafactor holds a number for each row and each column, also of a projection.
    rows = train.model_copy(update={"optim": "galore_adafactor"})
    sides = 4 * (32000 + 4096) + 32 * 4 * (64 + 11008 + 64 * 4096)
    assert optimizer_states(groups, rows, 4, cuda=True) == pytest.approx(sides, rel=1e-3)
    made = forecast(method__finetuning_type="full", train__optim="apollo_adamw")
    plain = forecast(method__finetuning_type="full", train__optim="adamw_torch")
    assert made.parts["optimizer"] < 0.1 * plain.parts["optimizer"]
    assert any("apollo_adamw takes to find its projections is an estimate" in n for n in made.notes)


@pytest.mark.parametrize(
    ("optim", "each"),
    [
        ("adamw_torch", 8.0),
        ("adamw_torch_fused", 8.0),
        ("paged_adamw_32bit", 0.0),
        ("paged_adamw_8bit", 8 / 256),
        ("adafactor", 0.0),
        ("sgd", 0.0),
        ("lion_32bit", 4.0),
        ("paged_lion_32bit", 0.0),
    ],
)
def test_each_optimizer_holds_its_states(optim: str, each: float) -> None:
    made = forecast(method__finetuning_type="full", train__optim=optim)
    states = made.parts.get("optimizer", 0)
    # Embeddings keep exact states in an 8-bit optimizer; unless they are paged, those are on the device.
    assert states == pytest.approx(each * NUMBERS, rel=0.02, abs=0.05 * GIB)


def test_eight_bit_states_take_two_bytes_a_number_but_for_the_embeddings() -> None:
    made = forecast(method__finetuning_type="full", train__optim="adamw_8bit")
    embedding = 32000 * 4096
    wanted = (2 + 8 / 256) * (NUMBERS - embedding) + 8 * embedding
    assert made.parts["optimizer"] == pytest.approx(wanted, rel=0.001)


def test_states_that_are_offloaded_take_nothing() -> None:
    made = forecast(method__finetuning_type="full", train__offload_optimizer=True)
    assert made.parts.get("optimizer", 0) == 0


# What a layer keeps ---------------------------------------------------------------------------------------------


def kept(hidden: int, inner: int, kv_heads: int, **changes: Any) -> float:
    """Bytes that a layer keeps of a token, without mask and padding."""
    shape = read_config(
        {
            **LLAMA_7B, "hidden_size": hidden, "intermediate_size": inner, "head_dim": 128,
            "num_attention_heads": hidden // 128, "num_key_value_heads": kv_heads,
        }
    )  # fmt: skip
    made = profile(**changes)
    regime = decide(made, shape, A100, padded=False)
    forgets = made.train.gradient_checkpointing
    cost = layer_cost(shape, regime, Batch(1, 4096), Kind(True, True, forgets), regime.weight)
    return cost.kept[0] / 4096


SIZES = [(4096, 11008, 32), (8192, 28672, 8), (2048, 8192, 16), (3072, 8192, 8)]


@pytest.mark.parametrize(("hidden", "inner", "kv_heads"), SIZES)
def test_a_layer_in_bf16_keeps_20h_8f_and_4kv_bytes_a_token(
    hidden: int, inner: int, kv_heads: int
) -> None:
    found = kept(
        hidden, inner, kv_heads, method__finetuning_type="full", train__precision="pure_bf16"
    )
    assert found == pytest.approx(20 * hidden + 8 * inner + 4 * 128 * kv_heads, rel=0.003)


@pytest.mark.parametrize(("hidden", "inner", "kv_heads"), SIZES)
def test_lora_on_all_linear_layers_under_autocast_keeps_24h_8f_and_4kv_bytes_a_token(
    hidden: int, inner: int, kv_heads: int
) -> None:
    found = kept(hidden, inner, kv_heads)
    assert found == pytest.approx(24.3 * hidden + 8.1 * inner + 4.1 * 128 * kv_heads, rel=0.015)


def test_a_checkpointed_layer_keeps_its_input_alone() -> None:
    assert kept(4096, 11008, 32, train__gradient_checkpointing=True) == 2 * 4096


def test_a_padded_row_of_grouped_heads_keeps_the_heads_repeated_and_a_mask_a_layer() -> None:
    shape = read_config({**LLAMA_7B, "num_key_value_heads": 8})
    tokens = 4096
    costs = []
    for padded in (True, False):
        regime = decide(profile(), shape, A100, padded=padded)
        costs.append(
            layer_cost(shape, regime, Batch(1, tokens), Kind(True, True, False), 2).kept[0]
        )
    repeated = 2 * 2 * tokens * (32 - 8) * 128
    assert costs[0] - costs[1] == repeated + 2 * tokens * tokens


# What helps, and what does not ----------------------------------------------------------------------------------


def test_the_loss_takes_twelve_bytes_a_token_and_entry_of_the_vocabulary() -> None:
    shape = read_config({**LLAMA_7B, "vocab_size": 256000})
    made = forecast(
        shape=shape, length=4096, train__gradient_checkpointing=True, train__precision="pure_bf16"
    )
    assert made.parts["logits"] == pytest.approx(12 * 4096 * 256000)
    assert made.dominant == "weights"
    assert made.peak == "backward"


def test_a_loss_in_chunks_takes_a_chunk_of_logits() -> None:
    shape = read_config({**LLAMA_7B, "vocab_size": 256000})
    whole = forecast(shape=shape, length=4096, train__gradient_checkpointing=True)
    parts = forecast(
        shape=shape, length=4096, train__gradient_checkpointing=True, train__loss_chunk_tokens=256
    )
    assert whole.parts["logits"] - parts.parts.get("logits", 0) >= 0.9 * 12 * 3840 * 256000
    assert parts.allocated < whole.allocated


def test_halving_the_batch_with_doubled_accumulation_can_raise_the_memory_of_full_fine_tuning() -> (
    None
):
    alone = forecast(
        method__finetuning_type="full",
        length=512,
        train__optim="adafactor",
        train__gradient_checkpointing=True,
        train__per_device_train_batch_size=2,
    )
    accumulated = forecast(
        method__finetuning_type="full",
        length=512,
        train__optim="adafactor",
        train__gradient_checkpointing=True,
        train__gradient_accumulation_steps=2,
    )
    assert accumulated.moments["forward"] > alone.moments["forward"] + 4 * NUMBERS * 0.9


def test_checkpointing_every_second_layer_lies_between_all_and_none() -> None:
    sizes = [
        forecast(length=4096, train__gradient_checkpointing=True).allocated,
        forecast(
            length=4096, train__gradient_checkpointing=True, train__gradient_checkpointing_every=2
        ).allocated,
        forecast(length=4096).allocated,
    ]
    assert sizes == sorted(sizes)
    assert sizes[1] == pytest.approx((sizes[0] + sizes[2]) / 2, rel=0.1)


def test_eager_attention_grows_with_the_square_of_the_length() -> None:
    lengths = (1024, 2048, 4096)
    eager = [forecast(length=n, model__attn="eager").allocated for n in lengths]
    fused = [forecast(length=n).allocated for n in lengths]
    assert (eager[2] - eager[1]) > 3 * (eager[1] - eager[0])
    assert (fused[2] - fused[1]) < 2.5 * (fused[1] - fused[0])


def test_offloaded_activations_leave_the_device_and_are_noted() -> None:
    made = forecast(length=4096, train__offload_activations=True)
    assert made.allocated < 0.7 * forecast(length=4096).allocated
    assert any("offloaded activations" in note for note in made.notes)


def test_the_last_layers_alone_keep_activations_where_the_others_are_frozen() -> None:
    def activations(layers: int) -> int:
        made = forecast(
            method__finetuning_type="freeze",
            method__freeze_trainable_layers=layers,
            length=4096,
            train__offload_optimizer=True,
        )
        return made.parts["activations"]

    assert 3 < activations(8) / activations(2) < 4.5
    # All layers behind the first ones pass the gradient on.
    assert activations(-2) > 5 * activations(2)


def test_a_gpu_before_ampere_computes_in_fp16_and_a_cpu_in_fp32() -> None:
    assert forecast(T4).parts["weights"] == pytest.approx(2 * NUMBERS, rel=0.01)
    assert forecast(CPU).parts["weights"] == pytest.approx(4 * NUMBERS, rel=0.01)


def test_hopper_has_larger_workspaces_and_contexts() -> None:
    made, larger = forecast(A100), forecast(H100)
    assert larger.parts["workspace"] - made.parts["workspace"] == pytest.approx(48 * MIB, rel=0.02)
    assert larger.context > made.context


def test_a_context_that_was_measured_is_taken() -> None:
    target = Target(kind="cuda", total=GIB, free=GIB, context=123)
    assert forecast(target).context == 123


def test_evaluation_counts_where_there_is_some() -> None:
    assert "eval" not in forecast(data__val_size=0).moments
    larger = forecast(train__per_device_eval_batch_size=64)
    assert larger.peak == "eval"


def test_lengths_that_were_measured_take_the_place_of_the_cut_off() -> None:
    made = profile(length=4096)
    short = estimate(made, LLAMA, A100, Lengths(256, 128, measured=True))
    assert short.allocated < estimate(made, LLAMA, A100).allocated - 4 * GIB


def test_notes_of_the_architecture_reach_the_forecast() -> None:
    shape = read_config({**LLAMA_7B, "model_type": "hyena"})
    assert any("hyena" in note for note in forecast(shape=shape).notes)


def test_files_that_are_quantised_already_are_counted_so_with_a_note() -> None:
    shape = read_config({**LLAMA_7B, "quantization_config": {"quant_method": "gptq", "bits": 4}})
    made = forecast(shape=shape, train__gradient_checkpointing=True)
    assert made.moments["load"] < 5 * GIB
    assert any("quantised by gptq" in note for note in made.notes)


# For any profile ------------------------------------------------------------------------------------------------

CHANGES = st.fixed_dictionaries(
    {
        "length": st.sampled_from([16, 100, 512, 2048]),
        "method__finetuning_type": st.sampled_from(["lora", "full", "freeze"]),
        "method__use_dora": st.booleans(),
        "method__lora_dropout": st.sampled_from([0.0, 0.1]),
        "model__attn": st.sampled_from(["auto", "eager", "flash_attention_2"]),
        "train__precision": st.sampled_from(["auto", "fp32", "bf16", "pure_bf16"]),
        "train__per_device_train_batch_size": st.sampled_from([1, 3]),
        "train__gradient_accumulation_steps": st.sampled_from([1, 4]),
        "train__gradient_checkpointing": st.booleans(),
        "train__gradient_checkpointing_every": st.sampled_from([1, 3]),
        "train__loss_chunk_tokens": st.sampled_from([None, 32]),
        "train__optim": st.sampled_from(
            ["adamw_torch", "adamw_8bit", "paged_adamw_32bit", "adafactor"]
        ),
        "train__offload_activations": st.booleans(),
    }
)
SHAPES = [
    LLAMA_7B,
    {"model_type": "gpt2", "n_embd": 768, "n_layer": 12, "n_head": 12, "vocab_size": 50257, "n_positions": 4096},
    {**LLAMA_7B, "model_type": "gemma2", "head_dim": 256, "num_attention_heads": 16, "num_key_value_heads": 8},
    {**LLAMA_7B, "model_type": "falcon", "new_decoder_architecture": True, "num_kv_heads": 8},
    {**LLAMA_7B, "model_type": "olmo2"},
    {**LLAMA_7B, "model_type": "mixtral", "num_local_experts": 8},
]  # fmt: skip


@settings(max_examples=60)
@given(
    changes=CHANGES,
    config=st.sampled_from(SHAPES),
    target=st.sampled_from(sorted(TARGETS)),
    bits=st.sampled_from([None, None, 4, 8]),
)
def test_a_forecast_is_consistent_and_grows_with_the_batch(
    changes: dict[str, Any], config: dict[str, Any], target: str, bits: int | None
) -> None:
    shape = read_config(config)
    given_ = {key: value for key, value in changes.items() if value is not None}
    if changes["method__finetuning_type"] == "lora" and bits:
        given_["model__quantization_bit"] = bits
    try:
        made = forecast(TARGETS[target], shape, **given_)
    except ProfileError:
        return
    assert made.tier == "estimate"
    assert sum(made.parts.values()) == made.allocated == max(made.moments.values())
    assert made.moments[made.peak] == made.allocated
    assert made.allocated <= made.needed <= made.reserved
    assert all(size > 0 for size in made.parts.values())
    if changes["train__offload_activations"]:
        return  # what is larger goes to the host sooner
    given_["train__per_device_train_batch_size"] *= 2
    larger = forecast(TARGETS[target], shape, **given_)
    for moment in ("forward", "backward", "eval"):
        assert larger.moments[moment] > made.moments[moment]


# Against the dry run --------------------------------------------------------------------------------------------

TINY: dict[str, dict[str, Any]] = {
    "llama": {
        **LLAMA_7B, "hidden_size": 512, "num_hidden_layers": 6, "num_attention_heads": 8, "num_key_value_heads": 2,
        "intermediate_size": 1536, "vocab_size": 20000, "tie_word_embeddings": True, "max_position_embeddings": 4096,
    },
    "gpt2": {
        "model_type": "gpt2", "n_embd": 512, "n_layer": 6, "n_head": 8, "vocab_size": 20000, "n_positions": 2048,
    },
    "gpt_neox": {
        "model_type": "gpt_neox", "hidden_size": 512, "num_hidden_layers": 6, "num_attention_heads": 8,
        "intermediate_size": 2048, "vocab_size": 20000, "max_position_embeddings": 2048, "hidden_act": "gelu",
    },
    "gptj": {
        "model_type": "gptj", "n_embd": 512, "n_layer": 6, "n_head": 8, "vocab_size": 20000, "rotary_dim": 32,
        "n_positions": 2048,
    },
    "bloom": {"model_type": "bloom", "hidden_size": 512, "n_layer": 6, "n_head": 8, "vocab_size": 20000},
    "olmo2": {
        **LLAMA_7B, "model_type": "olmo2", "hidden_size": 512, "num_hidden_layers": 6, "num_attention_heads": 8,
        "num_key_value_heads": 8, "intermediate_size": 1536, "vocab_size": 20000, "pad_token_id": 0,
    },
}  # fmt: skip
CASES: dict[str, tuple[str, Target, dict[str, Any]]] = {
    "lora": ("llama", A100, {}),
    "lora, checkpoints, chunks": (
        "llama", H100, {"train__gradient_checkpointing": True, "train__loss_chunk_tokens": 128},
    ),
    "full": ("llama", A100, {"method__finetuning_type": "full", "train__optim": "adamw_torch_fused"}),
    "full, accumulated": (
        "llama", A100, {"method__finetuning_type": "full", "train__gradient_accumulation_steps": 3},
    ),
    "freeze": ("llama", H100, {"method__finetuning_type": "freeze"}),
    "freeze, feed-forward alone": (
        "llama",
        A100,
        {"method__finetuning_type": "freeze", "method__freeze_trainable_modules": "mlp"},
    ),
    "padded to eights": ("llama", A100, {"length": 509}),
    "fp16, eager": ("llama", T4, {"model__attn": "eager", "train__precision": "fp16"}),
    "on the CPU": ("llama", CPU, {"method__lora_dropout": 0.1}),
    "gpt2": ("gpt2", A100, {"train__precision": "pure_bf16"}),
    "gpt_neox": ("gpt_neox", A100, {"method__finetuning_type": "full", "train__optim": "adafactor"}),
    "gptj": ("gptj", A100, {"method__finetuning_type": "full"}),
    "bloom": ("bloom", A100, {}),
    "4 bits, DoRA": ("llama", A100, {"model__quantization_bit": 4, "method__use_dora": True}),
    "evaluated in chunks": (
        "llama",
        A100,
        {
            "train__per_device_eval_batch_size": 32, "train__loss_chunk_tokens": 128,
            "method__finetuning_type": "full",
        },
    ),
    "sgd, decaying": (
        "llama", A100,
        {"method__finetuning_type": "full", "train__optim": "sgd", "train__optim_args": "momentum=0.9"},
    ),
    "lion": ("llama", A100, {"method__finetuning_type": "full", "train__optim": "lion_8bit"}),
    "embeddings whole": (
        "llama", A100, {"method__additional_target": "embed_tokens", "method__loraplus_lr_ratio": 8.0},
    ),
    "head whole": ("gpt_neox", A100, {"method__additional_target": "lm_head"}),
    "olmo2": ("olmo2", A100, {"train__gradient_checkpointing": True, "train__gradient_checkpointing_every": 2}),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_the_estimate_is_within_five_percent_of_the_dry_run(name: str, tmp_path: Path) -> None:
    from core.dryrun.prove import prove

    kind, target, changes = CASES[name]
    (tmp_path / "config.json").write_text(json.dumps(TINY[kind]))
    made = profile(**{"length": 512, **changes}, model__model_name_or_path=str(tmp_path))
    made = made.with_changes({"train.per_device_train_batch_size": 4})
    lengths = Lengths.bound(made)
    estimated = estimate(made, read_config(TINY[kind]), target, lengths)
    simulated = prove(made, target, lengths)
    assert estimated.allocated == pytest.approx(simulated.allocated, rel=0.05)
    for moment in ("forward", "backward", "optimizer", "eval"):
        assert estimated.moments[moment] == pytest.approx(simulated.moments[moment], rel=0.05)


def test_nothing_heavy_is_imported_for_it() -> None:
    program = "import sys, core.memory.closed_form, core.memory.architecture; print(*sys.modules)"
    ran = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    loaded = set(ran.stdout.split())
    assert not loaded & {"torch", "transformers", "huggingface_hub", "numpy", "peft", "gguf"}
