"""Files that a profile names and that are not there."""

import json
from pathlib import Path

import pytest

from core.missing import missing_files, unusable_files
from core.profile import loads


def test_what_is_named_and_there_is_no_problem() -> None:
    assert (
        missing_files(loads('[model]\nmodel_name_or_path = "demo"\n[data]\ndataset = "demo"\n'))
        == []
    )


def test_absent_data_and_models_are_told_those_of_the_space_too(tmp_path: Path) -> None:
    absent = tmp_path / "nope"
    profile = loads(
        f'[model]\nmodel_name_or_path = "{absent}"\n[data]\ndataset = "{absent}.jsonl"\n'
        f'[search.space]\nmodel_name_or_path = ["owner/name", "demo", "{absent}-2"]\n'
    )
    assert [(p.key, p.wrong) for p in missing_files(profile)] == [
        ("data.dataset", f"{absent}.jsonl does not exist"),
        ("model.model_name_or_path", f"{absent} does not exist"),
        ("search.space.model_name_or_path", f"{absent}-2 does not exist"),
    ]


def test_a_name_of_files_that_cannot_be_used_is_told(tmp_path: Path) -> None:
    for name in ("a.txt", "b.doc"):
        (tmp_path / name).write_text("x")
    (tmp_path / "dataset_info.json").write_text(
        '{"plain": {"file_name": "a.txt"}, "other": {"file_name": "b.doc"}}'
    )
    text = '[model]\nmodel_name_or_path = "demo"\n[data]\ndataset = {}\n[method]\nstage = "{}"\n'
    assert missing_files(loads(text.format('"plain"', "pt"), folder=tmp_path)) == []
    plain, other = missing_files(loads(text.format('["plain", "other"]', "sft"), folder=tmp_path))
    assert "a.txt is plain text" in plain.wrong and 'method.stage = "pt"' in plain.right
    assert "b.doc: is no data file" in other.wrong and ".jsonl" in other.right


def test_a_name_of_a_file_that_cannot_be_streamed_is_told(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    row = {"instruction": "a", "output": "b"}
    (tmp_path / "data" / "a.json").write_text(json.dumps({"version": 1, "rows": [row]}))
    (tmp_path / "data" / "dataset_info.json").write_text('{"here": {"file_name": "a.json"}}')
    text = (
        '[model]\nmodel_name_or_path = "demo"\n[train]\nmax_steps = 9\n'
        '[data]\ndataset = "here"\nval_size = 0\nstreaming = '
    )
    assert unusable_files(loads(text + "false", folder=tmp_path)) == []
    (whole,) = unusable_files(loads(text + "true", folder=tmp_path))
    assert (
        whole.key == "data.dataset" and "a.json: is one object that holds its rows" in whole.wrong
    )
    assert "or set data.streaming = false" in whole.wrong
    for text_of_rows in (json.dumps([row]), json.dumps(row) + "\n" + json.dumps(row)):
        (tmp_path / "data" / "a.json").write_text(text_of_rows)
        assert unusable_files(loads(text + "true", folder=tmp_path)) == []


def test_names_of_data_sets_are_looked_up(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "a.jsonl").write_text("{}")
    (tmp_path / "data" / "dataset_info.json").write_text(
        '{"here": {"file_name": "a.jsonl"}, "hub": {"hf_hub_url": "a/b"}}'
    )
    text = '[model]\nmodel_name_or_path = "demo"\n[data]\ndataset = "{}"\n'
    assert missing_files(loads(text.format("here, demo-pairs"), folder=tmp_path)) == []
    (hub,) = missing_files(loads(text.format("hub, here"), folder=tmp_path))
    assert hub.key == "data.dataset" and "on the Hugging Face Hub" in hub.wrong
    assert "download it first" in hub.right
    (near,) = missing_files(loads(text.format("heer, here"), folder=tmp_path))
    assert "heer: there is no such file, nor such a name" in near.wrong
    assert "did you mean here" in near.right


@pytest.mark.parametrize(
    ("name", "wrong"),
    [
        ("reward-model", "there is no folder"),
        ("./runs/reward", "there is no folder"),
        ("step:reward", "names a step of a recipe"),
        ("owner/name", ""),
        ("here", ""),
    ],
)
def test_a_reward_model_that_cannot_be_there_is_told(
    name: str, wrong: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "here").mkdir()
    text = (
        '[model]\nmodel_name_or_path = "demo"\n[data]\ndataset = "demo"\n'
        f'[method]\nstage = "ppo"\n[alignment]\nreward_model = "{name}"\n'
    )
    problems = missing_files(loads(text, folder=tmp_path))
    assert [(p.key, wrong in p.wrong) for p in problems] == (
        [("alignment.reward_model", True)] if wrong else []
    )


@pytest.mark.parametrize(
    ("key", "text"),
    [
        ("train.optim", '[train]\noptim = "galore_adamw"\n'),
        ("search.space.optim", '[search.space]\noptim = ["adamw_torch", "galore_adamw"]\n'),
    ],
)
def test_the_package_of_an_optimizer_that_is_not_installed_is_told(
    key: str, text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("core.optimizer_settings.find_spec", lambda name: None)
    profile = loads(
        '[model]\nmodel_name_or_path = "demo"\n[method]\nfinetuning_type = "full"\n[data]\ndataset = "demo"\n'
        + text
    )
    (problem,) = missing_files(profile)
    assert problem.key == key and "galore-torch" in problem.wrong
    assert problem.right == "pip install galore-torch"
    monkeypatch.setattr("core.optimizer_settings.find_spec", lambda name: name)
    assert missing_files(profile) == []


@pytest.mark.parametrize(("key", "stage"), [("dataset", "dpo"), ("eval_dataset", "rm")])
def test_data_of_another_stage_is_told_with_its_row_and_the_fix(
    key: str, stage: str, tmp_path: Path
) -> None:
    (tmp_path / "rows.json").write_text('{"instruction": "a", "output": "b"}\n' * 2)
    named = {"dataset": "demo-pairs", key: "rows.json"}
    data = "".join(f'{name} = "{value}"\n' for name, value in named.items())
    text = f'[model]\nmodel_name_or_path = "demo"\n[method]\nstage = "{stage}"\n[data]\n{data}'
    profile = loads(text, folder=tmp_path)
    assert missing_files(profile) == []
    (problem,) = unusable_files(profile)
    assert problem.key == f"data.{key}"
    assert f"{tmp_path / 'rows.json'}, row 1: chosen and rejected are missing" in problem.wrong
    assert 'set method.stage = "sft"' in problem.wrong


@pytest.mark.parametrize(
    ("space", "told"),
    [
        ('stage = ["rm", "dpo"]', False),
        ('format = ["auto", "alpaca"]', False),
        ("max_samples = [1, 2]", False),
        ("learning_rate = [1e-4, 2e-4]", True),
    ],
)
def test_rows_that_some_trial_may_use_are_let_through(
    space: str, told: bool, tmp_path: Path
) -> None:
    # The first row is of another stage, the second one of none but sft.
    rows = [{"instruction": "a", "chosen": "b", "rejected": "c"}, {"instruction": "a", "output": "b"}]  # fmt: skip
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    text = '[model]\nmodel_name_or_path = "demo"\n[data]\ndataset = "rows.jsonl"\n[search.space]\n'
    assert bool(unusable_files(loads(text + space, folder=tmp_path))) is told


def test_what_is_not_there_is_told_before_what_does_not_fit(tmp_path: Path) -> None:
    text = '[model]\nmodel_name_or_path = "demo"\n[method]\nstage = "kto"\n[data]\ndataset = ["demo", "no.jsonl"]\n'
    profile = loads(text, folder=tmp_path)
    (problem,) = unusable_files(profile)
    assert problem.wrong.startswith("no.jsonl")
    fits = loads(text.replace('"demo", "no.jsonl"', '"demo-tags"'), folder=tmp_path)
    assert unusable_files(fits) == []
