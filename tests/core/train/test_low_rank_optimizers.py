"""galore and apollo with their own packages, galore-torch and apollo-torch."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM

from core.params import TrainTable
from core.train.errors import SettingsError
from core.train.optimizers import build_optimizer

Run = Callable[..., Any]

EVERY: dict[str, tuple[str, str | None]] = {
    "galore_adamw": ("galore_adamw", "rank=4, update_proj_gap=2"),
    "galore_adamw reversed": ("galore_adamw", "rank=4, proj_type=reverse_std, scale=0.5"),
    "galore_adamw full": ("galore_adamw", "rank=4, proj_type=full, update_proj_gap=3"),
    "galore_adafactor": ("galore_adafactor", "rank=4, update_proj_gap=2"),
    "apollo_adamw": ("apollo_adamw", "rank=4, update_proj_gap=2"),
    "apollo_adamw plain": ("apollo_adamw", None),
    "apollo_adamw mini": ("apollo_adamw", "rank=1, scale=128, scale_type=tensor"),
    "apollo_adamw svd": ("apollo_adamw", "proj=svd, proj_type=left, rank=4, scale_type=tensor"),
}  # fmt: skip


@pytest.mark.parametrize(
    ("name", "precision"),
    [
        *((name, "fp32") for name in EVERY),
        *((name, "pure_bf16") for name in ("galore_adamw", "galore_adafactor", "apollo_adamw")),
    ],
)
def test_it_learns_goes_on_exactly_and_leaves_a_model(
    run_trial: Run, name: str, precision: str
) -> None:
    optim, given = EVERY[name]
    settings = {
        "finetuning_type": "full", "optim": optim, "optim_args": given, "learning_rate": 1e-2, "max_steps": 7,
        "precision": precision, "val_size": 0.0,
    }  # fmt: skip
    straight = run_trial("straight", task={"save_model": True}, **settings)
    assert straight.report.outcome == "completed", straight.report.error
    assert straight.losses[-1][1] < 0.75 * straight.losses[0][1]
    paused = run_trial("paused", ask=("paused", 3), **settings)
    task = {"attempt": 2, "resume_from": paused.report.checkpoint}
    again = run_trial("paused", task=task, **settings)
    assert again.report.outcome == "completed", again.report.error
    assert again.losses == straight.losses
    model = AutoModelForCausalLM.from_pretrained(straight.folder / "output")
    assert model.generate(torch.tensor([[5, 6, 7]]), max_new_tokens=3, do_sample=False).shape[1] > 3


def make() -> Any:
    torch.manual_seed(0)
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=100, hidden_size=64, intermediate_size=128, num_hidden_layers=1, num_attention_heads=2,
            num_key_value_heads=1, tie_word_embeddings=False,
        )
    )  # fmt: skip


def step(model: Any, optimizer: Any) -> None:
    for weight in model.parameters():
        weight.grad = torch.randn_like(weight)
    optimizer.step()
    optimizer.zero_grad()


def held(optimizer: Any, weight: Any) -> int:
    """Numbers that an optimizer holds of a weight, the projection's too."""
    state = optimizer.state[weight]
    tensors = [*state.values(), *vars(state["projector"]).values()]
    return sum(t.numel() for t in tensors if torch.is_tensor(t))


@pytest.mark.parametrize(
    ("optim", "numbers"),
    [
        # Of a weight of 128 × 64 the projection on 4 directions, twice, and the directions.
        ("galore_adamw", 2 * 4 * 128 + 4 * 64),
        # The projection's rows and columns; and how large the weight is.
        ("galore_adafactor", 128 + 4 + 4 * 64 + 1),
        # And how long the last update was.
        ("apollo_adamw", 2 * 4 * 128 + 4 * 64 + 1),
    ],
)
def test_states_are_as_large_as_the_projection(optim: Any, numbers: int) -> None:
    model = make()
    built = build_optimizer(model, TrainTable(optim=optim, optim_args="rank=4"), "cpu")
    step(model, built)
    weight = model.model.layers[0].mlp.up_proj.weight
    assert held(built, weight) == numbers
    words = model.get_input_embeddings().weight
    assert "projector" not in built.state[words]


def test_a_rank_that_galore_cannot_project_back_is_refused_before_training() -> None:
    """The second side of q_proj is as long as the first; k_proj has half as many rows as columns."""
    given = "proj_type=reverse_std, rank={}"
    with pytest.raises(SettingsError, match=r"a rank below 32.*it is 32.*take proj_type = std"):
        build_optimizer(
            make(), TrainTable(optim="galore_adamw", optim_args=given.format(32)), "cpu"
        )
    model = make()
    built = build_optimizer(
        model, TrainTable(optim="galore_adamw", optim_args=given.format(31)), "cpu"
    )
    step(model, built)


def test_the_packages_advice_against_themselves_is_not_in_the_log(
    run_trial: Run, recwarn: pytest.WarningsRecorder
) -> None:
    run_trial(finetuning_type="full", optim="galore_adamw", max_steps=1)
    assert not [w for w in recwarn if "deprecated" in str(w.message) and "AdamW" in str(w.message)]
