"""What train.optim means: the optimizer that transformers would build, and what each of them holds."""

import sys
from copy import deepcopy
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM, Trainer, TrainingArguments

from core.catalogue import find
from core.params import TrainTable
from core.profile import ProfileError, loads
from core.train.errors import SettingsError
from core.train.model.source import needs_bitsandbytes
from core.train.optimizers import (
    Rates,
    build_optimizer,
    check_optimizer,
    find_optimizer,
    same_states,
)


def make() -> Any:
    torch.manual_seed(0)
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=100, hidden_size=64, intermediate_size=128, num_hidden_layers=1, num_attention_heads=2,
            num_key_value_heads=2, tie_word_embeddings=False,
        )
    )  # fmt: skip
    model.model.layers[0].mlp.up_proj.weight.requires_grad_(False)
    return model


def step(model: Any, optimizer: Any, steps: int = 3) -> list[Any]:
    """A few updates on fixed gradients; the weights after."""
    torch.manual_seed(1)
    for _ in range(steps):
        for weight in model.parameters():
            if weight.requires_grad:
                weight.grad = torch.randn_like(weight)
        optimizer.step()
        optimizer.zero_grad()
    return [w.detach().clone() for w in model.parameters()]


def states(optimizer: Any, weight: Any) -> int:
    """The bytes that an optimizer holds for a weight, its tables left out."""
    return sum(
        t.numel() * t.element_size()
        for name, t in optimizer.state[weight].items()
        if torch.is_tensor(t) and t.numel() > 1 and "qmap" not in name and "absmax" not in name
    )


@pytest.mark.parametrize("optim", ["adamw_torch", "adamw_torch_fused", "adafactor", "adamw_8bit"])
def test_it_is_the_optimizer_that_transformers_builds(optim: Any, tmp_path: Path) -> None:
    table = TrainTable(
        optim=optim, learning_rate=1e-2, weight_decay=0.1, adam_beta1=0.8, adam_epsilon=1e-6
    )
    theirs = make()
    trainer = Trainer(
        model=theirs,
        args=TrainingArguments(
            output_dir=str(tmp_path), optim=optim, learning_rate=1e-2, weight_decay=0.1, adam_beta1=0.8,
            adam_epsilon=1e-6, use_cpu=True, report_to="none",
        ),
    )  # fmt: skip
    expected = trainer.create_optimizer()
    ours = make()
    built = build_optimizer(ours, table, "cpu")
    assert type(built) is type(expected)
    assert [
        {k: v for k, v in g.items() if k != "params"} | {"shapes": [p.shape for p in g["params"]]}
        for g in built.param_groups
    ] == [
        {k: v for k, v in g.items() if k != "params"} | {"shapes": [p.shape for p in g["params"]]}
        for g in expected.param_groups
    ]
    for one, two in zip(step(ours, built), step(theirs, expected), strict=True):
        assert torch.equal(one, two)


def test_each_optimizer_holds_what_its_explanation_says() -> None:
    held = {}
    for optim in ("adamw_torch", "adamw_8bit", "adafactor"):
        model = make()
        optimizer = build_optimizer(model, TrainTable(optim=optim), "cpu")
        step(model, optimizer)
        weight = model.model.layers[0].mlp.down_proj.weight
        held[optim] = states(optimizer, weight) / weight.numel()
        words = model.get_input_embeddings().weight
        if optim == "adamw_8bit":
            assert states(optimizer, words) == 8 * words.numel()
    assert held["adamw_torch"] == 8 and held["adamw_8bit"] == 2
    assert held["adafactor"] < 0.1


def test_weights_decay_and_norms_do_not() -> None:
    model = make()
    groups = build_optimizer(model, TrainTable(weight_decay=0.3), "cpu").param_groups
    assert [g["weight_decay"] for g in groups] == [0.3, 0.0]
    assert all(p.ndim == 2 for p in groups[0]["params"])
    assert groups[1]["params"] and all(p.ndim == 1 for p in groups[1]["params"])


@pytest.mark.parametrize(("optim", "bits"), [("paged_adamw_32bit", 32), ("paged_adamw_8bit", 8)])
def test_paging_needs_a_gpu(optim: Any, bits: int) -> None:
    with pytest.raises(SettingsError, match=rf'"{optim}" needs a GPU'):
        find_optimizer(TrainTable(optim=optim), "cpu")
    arguments = find_optimizer(TrainTable(optim=optim), "cuda").arguments
    assert arguments["is_paged"] and arguments["optim_bits"] == bits


def test_a_paged_optimizer_takes_the_states_of_a_checkpoint_into_paged_memory(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As bitsandbytes loads them, they would stay in the GPU's own memory."""
    table = TrainTable(optim="paged_adamw_32bit")
    first, second = make(), make()
    optimizer = find_optimizer(table, "cuda").build(first, Rates.of(table))
    step(first, optimizer)
    again = find_optimizer(table, "cuda").build(second, Rates.of(table))
    pages: list[Any] = []

    def page(weight: Any, dtype: Any) -> Any:
        pages.append(torch.zeros_like(weight, dtype=dtype))
        return pages[-1]

    monkeypatch.setattr(again, "get_state_buffer", page)
    again.load_state_dict(optimizer.state_dict())
    held = [again.state[w][name] for w in again.state for name in ("state1", "state2")]
    assert {id(tensor) for tensor in held} == {id(tensor) for tensor in pages}
    for one, two in zip(optimizer.state.values(), again.state.values(), strict=True):
        assert torch.equal(one["state1"], two["state1"]) and one["step"] == two["step"] == 3
    assert len(held) == 2 * len(optimizer.state)


def test_a_bitsandbytes_without_8_bit_updates_for_the_cpu_says_so(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("core.train.optimizers._runs_on_cpu", lambda: False)
    with pytest.raises(SettingsError, match="does not run on the CPU with this version"):
        find_optimizer(TrainTable(optim="adamw_8bit"), "cpu")
    assert find_optimizer(TrainTable(optim="adamw_8bit"), "cuda").arguments["optim_bits"] == 8


def test_an_optimizer_of_bitsandbytes_has_it_imported(tmp_path: Path) -> None:
    """A worker that needs it not at all hides it, to start sooner."""
    (tmp_path / "config.json").write_text("{}")
    text = (
        f'[model]\nmodel_name_or_path = "{tmp_path}"\n[data]\ndataset = "demo"\n'
        '[method]\nfinetuning_type = "full"\n'
    )
    needs = {
        optim: needs_bitsandbytes(loads(f'{text}[train]\noptim = "{optim}"\n'))
        for optim in (
            "adamw_torch",
            "adafactor",
            "adamw_8bit",
            "paged_adamw_32bit",
            "galore_adamw",
            "apollo_adamw",
        )
    }
    # The packages of galore and apollo import it, whatever their optimizers hold.
    assert needs == {
        "adamw_torch": False, "adafactor": False, "adamw_8bit": True, "paged_adamw_32bit": True,
        "galore_adamw": True, "apollo_adamw": True,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("optim", "given", "away"),
    [
        *(("adamw_torch", None, away) for away in (False, True)),
        *(("adamw_torch_fused", None, away) for away in (False, True)),
        *(("adafactor", None, away) for away in (False, True)),
        *((optim, None, False) for optim in ("adamw_8bit", "lion_32bit", "lion_8bit")),
        ("sgd", "momentum=0.9", False),
    ],
)
@pytest.mark.parametrize("kind", [torch.float32, torch.bfloat16])
def test_an_optimizer_goes_on_from_its_states_as_if_it_had_never_ended(
    optim: Any, given: str | None, away: bool, kind: Any
) -> None:
    """In pure_bf16 too, where adafactor's states have more digits than the weights."""
    table = TrainTable(optim=optim, optim_args=given, learning_rate=1e-2, offload_optimizer=away)
    one, two = make().to(kind), make().to(kind)
    first = build_optimizer(one, table, "cpu")
    step(one, first)
    saved = deepcopy(first.state_dict())
    two.load_state_dict(one.state_dict())
    second = build_optimizer(two, table, "cpu")
    second.load_state_dict(saved)
    for a, b in zip(step(one, first), step(two, second), strict=True):
        assert torch.equal(a, b)


# Other optimizers -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("optim", "given"),
    [("sgd", "momentum=0.9"), ("sgd", "momentum=0.9,nesterov=true"), ("lion_32bit", None), ("lion_8bit", None)],
)  # fmt: skip
def test_further_optimizers_are_those_that_transformers_builds(
    optim: Any, given: str | None, tmp_path: Path
) -> None:
    table = TrainTable(optim=optim, optim_args=given, learning_rate=1e-2, weight_decay=0.1)
    theirs, ours = make(), make()
    arguments = TrainingArguments(
        output_dir=str(tmp_path), optim=optim, optim_args=given, learning_rate=1e-2, weight_decay=0.1, use_cpu=True,
        report_to="none",
    )  # fmt: skip
    expected = Trainer(model=theirs, args=arguments).create_optimizer()
    built = build_optimizer(ours, table, "cpu")
    assert type(built) is type(expected)
    for one, two in zip(step(ours, built), step(theirs, expected), strict=True):
        assert torch.equal(one, two)


def test_sgd_and_lion_hold_what_their_explanation_says() -> None:
    held = {}
    for optim, given in (
        ("sgd", None),
        ("sgd", "momentum=0.9"),
        ("lion_32bit", None),
        ("lion_8bit", None),
    ):
        model = make()
        optimizer = build_optimizer(model, TrainTable(optim=optim, optim_args=given), "cpu")  # type: ignore[arg-type]
        step(model, optimizer)
        weight = model.model.layers[0].mlp.down_proj.weight
        held[optim, given] = states(optimizer, weight) / weight.numel()
    assert list(held.values()) == [0, 4, 4, 1]


def test_adamw_is_fused_on_cuda_and_where_the_host_does_not_update() -> None:
    fused = [
        find_optimizer(TrainTable(optim=optim, offload_optimizer=away), device).arguments.get("fused", False)
        for optim in ("adamw_torch", "adamw_torch_fused")
        for away in (False, True)
        for device in ("cuda", "cpu")
    ]  # fmt: skip
    assert fused == [True, False, False, False, True, True, True, True]


def test_the_fused_update_is_the_plain_one_s() -> None:
    one, two = make(), make()
    plain = build_optimizer(one, TrainTable(learning_rate=1e-2), "cpu")
    fused = build_optimizer(two, TrainTable(learning_rate=1e-2, optim="adamw_torch_fused"), "cpu")
    for a, b in zip(step(one, plain), step(two, fused), strict=True):
        assert torch.allclose(a, b, rtol=1e-6, atol=1e-8)


def test_the_states_of_one_family_fit_and_no_others() -> None:
    assert same_states("adamw_torch", "adamw_torch_fused")
    assert same_states("lion_8bit", "paged_lion_8bit") and not same_states(
        "lion_8bit", "adamw_8bit"
    )
    assert not same_states("sgd", "adamw_torch")


# galore and apollo, whose packages are installed apart ------------------------------------------------------------


@pytest.mark.parametrize(
    "optim", ["galore_adamw", "galore_adamw_8bit", "galore_adafactor", "apollo_adamw"]
)
def test_a_package_that_is_not_installed_is_told_with_its_pip_line(
    optim: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("core.optimizer_settings.find_spec", lambda name: None)
    package = optim.split("_")[0] + "-torch"
    for run in (
        lambda: check_optimizer(TrainTable(optim=optim), "cpu"),
        lambda: build_optimizer(make(), TrainTable(optim=optim), "cpu"),
    ):
        with pytest.raises(SettingsError, match=f"pip install {package}") as caught:
            run()
        assert f'"{optim}"' in str(caught.value)


class Projector:
    """An object that stands in the states, as the package's GaLoreProjector does."""

    def __init__(self) -> None:
        self.seen = 0


class GaLoreAdamW(torch.optim.AdamW):  # type: ignore[misc]
    """The package's: settings of the projection stand in the groups."""

    def step(self, closure: Any = None) -> None:
        super().step(closure)
        for group in self.param_groups:
            for weight in group["params"] if "rank" in group else ():
                self.state[weight].setdefault("projector", Projector()).seen += 1


def fake_galore(monkeypatch: pytest.MonkeyPatch) -> None:
    fake = ModuleType("galore_torch")
    monkeypatch.setattr(Projector, "__module__", "galore_torch")
    fake.Projector = Projector  # type: ignore[attr-defined]
    for name in ("GaLoreAdamW", "GaLoreAdamW8bit", "GaLoreAdafactor"):
        setattr(fake, name, GaLoreAdamW)
    monkeypatch.setitem(sys.modules, "galore_torch", fake)
    monkeypatch.setattr("transformers.trainer_optimizer.is_galore_torch_available", lambda: True)
    monkeypatch.setattr("core.optimizer_settings.find_spec", lambda name: name)


def test_galore_trains_and_goes_on_from_a_checkpoint_whose_states_hold_its_objects(
    run_trial: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake_galore(monkeypatch)
    settings = {
        "finetuning_type": "full", "optim": "galore_adamw", "optim_args": "rank=4", "learning_rate": 1e-3,
        "max_steps": 6,
    }  # fmt: skip
    straight = run_trial("straight", **settings)
    assert straight.report.outcome == "completed", straight.report.error
    paused = run_trial("paused", ask=("paused", 3), **settings)
    task = {"attempt": 2, "resume_from": paused.report.checkpoint}
    again = run_trial("paused", task=task, **settings)
    assert again.report.outcome == "completed", again.report.error
    assert again.losses == straight.losses


def test_galore_s_8_bit_states_need_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    fake_galore(monkeypatch)
    table = TrainTable(optim="galore_adamw_8bit")
    with pytest.raises(SettingsError, match=r'8bit" needs a GPU\. Take "galore_adamw"'):
        check_optimizer(table, "cpu")
    check_optimizer(table, "cuda")


@pytest.mark.parametrize("modules", [None, "down_proj"])
def test_with_its_package_galore_is_made_by_transformers(
    modules: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake_galore(monkeypatch)
    model = make()
    table = TrainTable(
        optim="galore_adamw",
        optim_args="rank=4, scale=0.5",
        weight_decay=0.2,
        adam_beta1=0.8,
        optim_target_modules=modules,
    )
    check_optimizer(table, "cpu")
    built = build_optimizer(model, table, "cpu")
    projected = built.param_groups[-1]
    assert (projected["rank"], projected["scale"], projected["update_proj_gap"]) == (4, 0.5, 200)
    assert projected["betas"] == (0.8, 0.999)
    decays = {id(p): g["weight_decay"] for g in built.param_groups for p in g["params"]}
    trained = [p for p in model.parameters() if p.requires_grad]
    assert [decays[id(p)] for p in trained] == [0.2 if p.ndim > 1 else 0.0 for p in trained]
    names = {id(p): n for n, p in model.named_parameters()}
    found = {names[id(p)].split(".")[-2] for p in projected["params"]}
    linear = {"q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"}
    assert found == (linear if modules is None else {modules})


def test_wrong_further_settings_are_told_before_anything_is_loaded() -> None:
    with pytest.raises(SettingsError, match=r"train\.optim_args.*momentun.*momentum, dampening"):
        check_optimizer(TrainTable(optim="sgd", optim_args="momentun=0.9"), "cpu")


@pytest.mark.parametrize(
    ("optim", "state"),
    [("adamw_torch", torch.bfloat16), ("sgd", torch.bfloat16), ("lion_32bit", torch.float32)],
)
def test_pure_bf16_holds_states_as_the_optimizer_has_them(optim: Any, state: Any) -> None:
    model = make().to(torch.bfloat16)
    given = "momentum=0.9" if optim == "sgd" else None
    optimizer = build_optimizer(model, TrainTable(optim=optim, optim_args=given), "cpu")
    step(model, optimizer)
    weight = model.model.layers[0].mlp.down_proj.weight
    kinds = {t.dtype for t in optimizer.state[weight].values() if torch.is_tensor(t) and t.ndim}
    assert kinds == {state} and weight.dtype == torch.bfloat16


def test_every_optimizer_of_transformers_is_offered_or_refused_with_a_reason() -> None:
    from transformers.training_args import OptimizerNames

    known = {name.value for name in OptimizerNames}
    parameter = find("train.optim")
    refused = dict(parameter.doc.refused)
    assert known - set(parameter.choices) == refused.keys()
    for name in refused:
        with pytest.raises(ProfileError) as caught:
            loads(
                f'[model]\nmodel_name_or_path = "a"\n[data]\ndataset = "demo"\n[train]\noptim = "{name}"\n'
            )
        assert refused[name] in str(caught.value)
        with pytest.raises(ValueError, match="is not allowed: ") as told:
            parameter.validate(name)
        assert refused[name] in str(told.value)
        # What to take in its place is there.
        instead = [word for word in refused[name].split('"')[1::2] if word not in ("pure_bf16",)]
        assert all(word in parameter.choices for word in instead)


def test_galore_and_apollo_are_refused_where_they_are_not_installed_before_anything_is_loaded(
    run_trial: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("core.optimizer_settings.find_spec", lambda name: None)
    for optim, package in (("galore_adafactor", "galore-torch"), ("apollo_adamw", "apollo-torch")):
        ran = run_trial(optim, finetuning_type="full", optim=optim, model_name_or_path="nowhere")
        assert ran.report.outcome == "failed"
        assert f"pip install {package}" in ran.report.error
