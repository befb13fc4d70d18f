"""The model card, and how a model is served."""

from dataclasses import replace
from typing import Any

import pytest

from core.profile import loads
from core.study.metrics import Point
from core.train.after import curve
from core.train.after.card import Facts, model_card, shortened
from core.train.after.serving import serve_adapter_lines, serve_lines

PROFILE = loads(
    '[model]\nmodel_name_or_path = "/home/ada/models/base-7b"\n[data]\n'
    'dataset = ["/home/ada/data/rows.jsonl", "demo"]\n[profile]\nname = "p"\nnotes = "for the farm"\n'
)
FACTS = Facts(
    name="tuned", base="org/base-7b", kind="model", dtype="bf16", parameters=7_000_000_000, profile=PROFILE,
    points=(), versions={"tunedeck": "0.1"}, checks=(), effect=None, serve=("vllm serve tuned",),
)  # fmt: skip


def test_metadata_names_a_base_that_is_on_the_hub_and_none_that_is_not() -> None:
    card = model_card(FACTS)
    assert 'base_model: "org/base-7b"' in card and "base_model_relation: finetune" in card
    assert "datasets:" not in card and "on `rows.jsonl`, `demo`" in card
    local = model_card(replace(FACTS, base="/home/ada/models/base-7b"))
    assert "base_model" not in local.split("---")[1] and "tuned from `base-7b`" in local
    adapter = model_card(replace(FACTS, kind="adapter"))
    assert "library_name: peft" in adapter and "base_model_relation: adapter" in adapter


def test_no_path_of_a_home_stands_in_a_card() -> None:
    card = model_card(FACTS)
    assert "/home/ada" not in card and "for the farm" in card
    assert shortened(PROFILE).data.dataset == ["rows.jsonl", "demo"]


def test_a_long_run_is_told_by_its_curve_and_its_last_numbers() -> None:
    points = [
        Point(t=0.0, step=n, loss=5 / n, eval_loss=4 / n if n % 50 == 0 else None, lr=1e-4)
        for n in range(1, 201)
    ]
    points.append(Point(t=0.0, step=200, more={"eval_accuracy": 0.75}))
    card = model_card(replace(FACTS, points=points))
    assert "](curve.svg)" in card and curve.table(points) in card
    assert "| eval_accuracy | 0.75 |" in card and "| eval_loss | 0.02 |" in card
    assert "update 1 to 200: 5 to 0.025" in card


def test_a_card_of_weights_that_nobody_knows_tells_what_is_known() -> None:
    card = model_card(replace(FACTS, profile=None, base=""))
    assert "## Profile" not in card and "see the base model's" in card


@pytest.mark.parametrize(
    ("kind", "options", "line"),
    [
        ("model", {}, "vllm serve '/models/my model'"),
        ("model", {"trusted": True}, "vllm serve '/models/my model' --trust-remote-code"),
        ("reward model", {}, "vllm serve '/models/my model' --runner pooling"),
    ],
)
def test_command_lines_are_such_as_a_shell_takes(
    kind: Any, options: dict[str, Any], line: str
) -> None:
    assert serve_lines("/models/my model", kind, **options)[0] == line


def test_an_adapter_is_served_beside_its_base_where_vllm_takes_it() -> None:
    (line,) = serve_adapter_lines("/a", "org/base", 20, True)
    assert line == ("vllm serve org/base --enable-lora --max-lora-rank 32 --lora-modules tuned=/a")
    assert serve_adapter_lines("/a", "org/base", 1000, True) == ()
    assert serve_adapter_lines("/a", "org/base", 8, False) == ()
    assert serve_adapter_lines("/a", "", 8, True) == ()
