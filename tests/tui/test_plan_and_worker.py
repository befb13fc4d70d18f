"""The updates that a plan promises are those that the worker takes, however the data comes together."""

import json
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoTokenizer

from core.data_size import RowCounter
from core.profile import Profile, dataset_files, eval_files, loads, model_path
from core.study.files import TrialTask
from core.train import plan as worker
from core.train.data.batches import build_examples
from core.train.data.chat import make_encoder
from core.train.data.rows import read_split
from tui.draft import from_profile, review
from tui.plan import Plan, plan
from tui.row_count import look, names_of

SETS = {"few": 31, "some": 50, "many": 90}
PROFILE = """
[model]
model_name_or_path = "demo"
[method]
stage = "{stage}"
[alignment]
{alignment}
[data]
dataset = {dataset}
cutoff_len = 512
{data}
[train]
num_train_epochs = 1.5
per_device_train_batch_size = 4
gradient_accumulation_steps = 2
{train}
[search]
budget = 0.25
"""


@pytest.fixture
def place(tmp_path: Path) -> Path:
    for name, count in SETS.items():
        rows = [{"instruction": f"Say {n}", "output": f"{name} {n}"} for n in range(count)]
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    entries = {
        "cut": {"file_name": "many.jsonl", "num_samples": 20},
        "repeated": {"file_name": "few.jsonl", "num_samples": 77},
    }
    (tmp_path / "judge").mkdir()
    (tmp_path / "dataset_info.json").write_text(json.dumps(entries))
    return tmp_path


def profile_of(
    folder: Path, dataset: Any, *, stage: str = "sft", data: str = "", train: str = ""
) -> Profile:
    alignment = 'reward_model = "judge"\nppo_epochs = 3' if stage == "ppo" else ""
    text = PROFILE.format(
        stage=stage, dataset=json.dumps(dataset), data=data, train=train, alignment=alignment
    )
    return loads(text, folder=folder)


def promised(profile: Profile, folder: Path) -> Plan:
    seen = review(from_profile(profile, folder))
    assert not seen.problems
    data = look(names_of(seen, folder), RowCounter(), lambda _: True)
    assert data.problems == ()
    return plan(seen, data)


def taken(profile: Profile) -> tuple[worker.Plan, worker.Plan]:
    """The worker's own plans: of the full training, and of a probe."""
    steps, train = profile.train.max_steps, profile.train
    rows = profile.effective_batch() * steps if steps is not None else None
    split = read_split(
        profile.data, profile.method.stage, dataset_files(profile), eval_files(profile), train.data_seed, rows,
    )  # fmt: skip
    tokenizer = AutoTokenizer.from_pretrained(model_path(profile))
    examples = build_examples(
        split, make_encoder(tokenizer, profile), profile.data, profile.method.stage, lambda: None
    )

    def made(kind: Any, budget: float) -> worker.Plan:
        task = TrialTask(1, 1, kind, budget, "cpu", full_rows=rows, own_batch=profile.effective_batch())  # fmt: skip
        counts = len(examples.train) * profile.passes(), len(examples.evaluation)
        return worker.make_plan(train, task, *counts, examples.train.tokens)

    return made("full", 1.0), made("probe", profile.search.budget)


ALL = ["few.jsonl", "some.jsonl", "many.jsonl"]
WEIGHTS = "interleave_probs = [3, 1, 2]\n"


@pytest.mark.parametrize(
    ("dataset", "more"),
    [
        ("some.jsonl", {"data": "val_size = 0.1"}),
        ("some.jsonl", {"data": "val_size = 7\nmax_samples = 33"}),
        ("some.jsonl", {"data": 'eval_dataset = "few.jsonl"'}),
        (ALL, {"data": "val_size = 0.1"}),
        (["cut", "repeated", "some.jsonl"], {"data": "val_size = 0.1\ndataset_dir = '.'"}),
        (ALL, {"data": f'val_size = 0.1\nmix_strategy = "interleave_under"\n{WEIGHTS}'}),
        (ALL, {"data": f'val_size = 5\nmix_strategy = "interleave_over"\n{WEIGHTS}max_samples = 40'}),
        (["repeated", "many.jsonl"], {"data": 'mix_strategy = "interleave_over"\ndataset_dir = "."'}),
        (ALL, {"data": "val_size = 9", "train": "max_steps = 13"}),
        (ALL, {"data": "streaming = true\nval_size = 9", "train": "max_steps = 30"}),
        (ALL, {"data": "streaming = true\nval_size = 0\npacking = true", "train": "max_steps = 7"}),
        ("demo-pairs", {"stage": "dpo"}), ("demo-pairs", {"stage": "rm"}), ("demo-tags", {"stage": "kto"}),
        ("demo", {"stage": "ppo"}),
    ],
)  # fmt: skip
def test_the_updates_are_those_of_the_plan(place: Path, dataset: Any, more: dict[str, str]) -> None:
    profile = profile_of(place, dataset, **more)
    told, (full, probe) = promised(profile, place), taken(profile)
    assert (told.full and told.full.low, told.full and told.full.high) == (full.full_steps,) * 2
    assert (told.probe and told.probe.low) == probe.total_steps
    if not profile.data.streaming:
        assert (told.epoch and told.epoch.low) == full.steps_per_epoch


@pytest.mark.parametrize(
    ("dataset", "more"),
    [
        ("demo", {"data": "packing = true"}),
        (ALL, {"data": "packing = true\nval_size = 0"}),
        ("demo-text", {"stage": "pt"}),
    ],
)
def test_the_updates_of_rows_that_are_joined_are_told_about(
    place: Path, dataset: Any, more: dict[str, str]
) -> None:
    profile = profile_of(place, dataset, **more)
    told, (full, _) = promised(profile, place), taken(profile)
    assert told.full is not None and told.full.about
    assert full.full_steps == pytest.approx(told.full.low, rel=1 / 3, abs=2)
