"""Profiles: loading, what is told of mistakes, changing, saving."""

import os
import tomllib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, reject
from hypothesis import strategies as st

from core import profile as profiles
from core.catalogue import Parameter, parameters, searchable
from core.params import Range, SearchTable
from core.problems import Problem, line_of
from core.profile import (
    DEMO_DATA,
    DEMO_MODEL,
    Profile,
    ProfileError,
    dataset_files,
    dumps,
    eval_files,
    load,
    loads,
    model_path,
    ready_made,
    resolve,
    save,
)

BARE = '[model]\nmodel_name_or_path = "demo"\n[data]\ndataset = "demo"\n'


def problems(text: str) -> list[Problem]:
    with pytest.raises(ProfileError) as error:
        loads(text, source="mine.toml")
    return error.value.problems


def the_problem(text: str) -> Problem:
    found = problems(text)
    assert len(found) == 1, found
    return found[0]


# -- loading ------------------------------------------------------------------------------------


def test_a_model_and_data_are_enough() -> None:
    profile = loads(BARE)
    assert profile.train.learning_rate == 2e-4
    assert profile.value("learning_rate") == profile.value("train.learning_rate") == 2e-4
    assert profile.tuned is None
    assert profile.values()["method.lora_rank"] == 8


@pytest.mark.parametrize("path", ready_made(), ids=lambda p: p.stem)
def test_ready_made_profiles_load(path: Path) -> None:
    profile = load(path)
    assert profile.profile.name == path.stem
    assert profile.profile.notes


def test_there_are_ready_made_profiles_of_each_method() -> None:
    loaded = [load(p) for p in ready_made()]
    assert len(loaded) >= 8
    assert {p.method.finetuning_type for p in loaded} == {"lora", "full", "freeze"}
    assert {p.model.quantization_bit for p in loaded} >= {None, 4}


def test_a_profile_that_says_no_name_has_its_files(tmp_path: Path) -> None:
    file = tmp_path / "my run.toml"
    file.write_text(BARE)
    assert load(file).profile.name == "my run"
    assert load(file, {"profile.name": "night"}).profile.name == "night"
    file.write_text(BARE + '[profile]\nname = "untitled"\n')
    assert load(file).profile.name == "untitled"
    long = tmp_path / f"{'x' * 100}.toml"
    long.write_text(BARE)
    assert load(long).profile.name == "untitled"


def test_paths_become_absolute_where_they_lead_somewhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "here").mkdir()
    (tmp_path / "rows.jsonl").write_text("")
    (tmp_path / "here" / "other.jsonl").write_text("")
    file = tmp_path / "mine.toml"
    file.write_text(
        '[model]\nmodel_name_or_path = "org/name"\n[data]\ndataset = ["rows.jsonl", "other.jsonl", "none.jsonl"]\n'
    )
    monkeypatch.chdir(tmp_path / "here")
    profile = load(file)
    assert profile.data.dataset == [
        str(tmp_path / "rows.jsonl"),
        str(tmp_path / "here" / "other.jsonl"),
        "none.jsonl",
    ]
    assert profile.model.model_name_or_path == "org/name"


def test_searched_models_become_absolute_where_they_lead_somewhere(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    file = tmp_path / "mine.toml"
    file.write_text(
        BARE + '[search.space]\nmodel_name_or_path = ["model", "org/name", "demo"]\nseed = [1]\n'
    )
    assert load(file).search.space == {
        "model_name_or_path": [str(tmp_path / "model"), "org/name", "demo"],
        "seed": [1],
    }


def test_the_demo_is_spelled_out_only_when_it_is_used() -> None:
    profile = loads(BARE + 'eval_dataset = ["demo", "x.json"]\n')
    assert profile.model.model_name_or_path == "demo"
    assert model_path(profile) == str(DEMO_MODEL)
    assert dataset_files(profile) == [str(DEMO_DATA)]
    assert eval_files(profile) == [str(DEMO_DATA), "x.json"]
    assert eval_files(loads(BARE)) == []


def test_a_whole_float_is_taken_where_a_whole_number_is_wanted() -> None:
    rank = loads(BARE + "[method]\nlora_rank = 16.0\n").method.lora_rank
    assert rank == 16
    assert isinstance(rank, int)


def test_a_whole_number_is_taken_where_a_float_is_wanted() -> None:
    assert loads(BARE + "[train]\nlearning_rate = 1\n").train.learning_rate == 1.0


def test_the_space_may_name_parameters_in_full_and_gets_their_types() -> None:
    profile = loads(BARE + '[search.space]\n"method.lora_rank" = [8, 16]\nlearning_rate = [1, 2]\n')
    assert profile.search.space == {"lora_rank": [8, 16], "learning_rate": [1.0, 2.0]}


def test_a_whole_float_is_taken_in_a_list_of_whole_numbers() -> None:
    space = loads(BARE + "[search.space]\nlora_rank = [8.0, 16]\nlearning_rate = [1.0, 2]\n")
    assert space.search.space == {"lora_rank": [8, 16], "learning_rate": [1.0, 2.0]}
    assert type(space.search.space["lora_rank"][0]) is int  # type: ignore[index]


# -- mistakes -----------------------------------------------------------------------------------


def test_all_mistakes_are_told_at_once_with_their_lines() -> None:
    text = """[model]
model_name_or_path = "demo"
quantisation_bit = 4
[data]
dataset = "demo"
val_size = -1
[train]
learning_rate = "fast"
lora_rank = 8

[search.space]
lerning_rate = [1e-4]
warmup_ratio = [0.1, 2.0]
[trian]
"""
    found = {p.key: p for p in problems(text)}
    assert {key: p.line for key, p in found.items()} == {
        "trian": 14,
        "model.quantisation_bit": 3,
        "data.val_size": 6,
        "train.learning_rate": 8,
        "train.lora_rank": 9,
        "search.space.lerning_rate": 12,
        "search.space.warmup_ratio": 13,
    }
    assert found["trian"].right == "did you mean train?"
    assert found["model.quantisation_bit"].right.startswith("did you mean model.quantization_bit")
    assert found["train.lora_rank"].right == "did you mean method.lora_rank?"
    assert found["search.space.lerning_rate"].right == "did you mean train.learning_rate?"
    assert found["train.learning_rate"].right == "a number above 0, at most 100"
    assert "2 is not allowed" in found["search.space.warmup_ratio"].wrong


def test_the_message_names_the_file_and_counts_the_mistakes() -> None:
    with pytest.raises(ProfileError) as error:
        loads(BARE + "[train]\nlearning_rate = 0\nmax_steps = 0\n", source="mine.toml")
    text = str(error.value)
    assert text.startswith("mine.toml: 2 problems\n")
    assert "line 6: train.learning_rate: 0 is not allowed (a number above 0, at most 100)" in text


def test_an_empty_model_is_missing_and_not_one_of_the_wrong_kind() -> None:
    found = the_problem(BARE.replace('"demo"', '""', 1))
    assert (found.key, found.wrong) == ("model.model_name_or_path", "is missing")
    assert found.right == "a folder, a .gguf file, or a name on the Hugging Face hub"


def test_what_is_missing_is_asked_for() -> None:
    found = {p.key: p for p in problems("[train]\n")}
    assert set(found) == {"model.model_name_or_path", "data.dataset"}
    assert all(p.wrong == "is missing" and p.right for p in found.values())


@pytest.mark.parametrize(
    ("text", "key", "wrong"),
    [
        (
            '[model]\nmodel_name_or_path = "demo"\nquantization_bit = 4\n[method]\nfinetuning_type = "full"\n[data]\ndataset = "demo"\n',
            "model.quantization_bit",
            "cannot be trained",
        ),
        (
            BARE + '[method]\nfinetuning_type = "freeze"\nfreeze_trainable_layers = 0\n',
            "method.freeze_trainable_layers",
            "0 would train nothing",
        ),
        (
            BARE + "val_size = 0\n[train]\nearly_stopping_patience = 3\n",
            "train.early_stopping_patience",
            "needs validation data",
        ),
        (
            BARE + 'val_size = 0\n[train]\nlr_scheduler_type = "reduce_lr_on_plateau"\n',
            "train.lr_scheduler_type",
            "needs validation data",
        ),
        (
            BARE + 'val_size = 0\n[search]\nrank_by = "eval_loss"\n',
            "search.rank_by",
            "needs validation data",
        ),
        (
            BARE + '[train]\noffload_optimizer = true\noptim = "adamw_8bit"\n',
            "train.offload_optimizer",
            'does not go with optim = "adamw_8bit"',
        ),
        (
            BARE + '[method]\nadapter_precision = "bf16"\n[train]\nprecision = "fp16"\n',
            "method.adapter_precision",
            "loss scaling works on fp32 gradients",
        ),
        (BARE + "val_size = 1.5\n", "data.val_size", "neither a share nor a number of rows"),
        (
            BARE
            + '[search]\nstrategy = "grid"\n[search.space]\nlearning_rate = { low = 1e-5, high = 1e-3 }\n',
            "search.space.learning_rate",
            "a grid needs a list",
        ),
        (
            BARE + '[search.space]\nlora_rank = "8"\n',
            "search.space.lora_rank",
            "neither a list of values nor a range",
        ),
        (
            BARE + "[search.space]\nlearning_rate = { low = 1e-5 }\n",
            "search.space.learning_rate",
            "high is missing",
        ),
        (
            BARE + '[search.space]\ndataset = ["a", "b"]\n',
            "search.space.dataset",
            "cannot be searched",
        ),
        (BARE + "[train]\nlearning_rate = nan\n", "train.learning_rate", "not allowed"),
    ],
)
def test_each_mistake_is_told_at_its_key(text: str, key: str, wrong: str) -> None:
    problem = the_problem(text)
    assert problem.key == key
    assert wrong in problem.wrong
    assert problem.line is not None


@pytest.mark.parametrize(
    ("key", "where"),
    [
        ("learning_rate", "write it below [train]"),
        ("lora_rank_list", "write it below [search]"),
        ("trian", "did you mean train?"),
        ("zzz", ""),
    ],
)
def test_a_key_outside_of_all_tables_is_told_with_where_it_belongs(key: str, where: str) -> None:
    problem = the_problem(f"{key} = [1]\n" + BARE)
    assert (problem.key, problem.wrong) == (key, "is not a table of a profile")
    assert problem.right == where


def test_a_value_in_place_of_a_table_is_a_mistake() -> None:
    assert the_problem("train = 3\n" + BARE).wrong == "must be a table"


def test_unknown_names_in_the_space_are_told_beside_other_mistakes_of_the_search() -> None:
    keys = {
        p.key for p in problems(BARE + "[search]\ntrials = 0\n[search.space]\nlora_rnk = [8]\n")
    }
    assert keys == {"search.trials", "search.space.lora_rnk"}


def test_text_that_is_no_toml_says_where() -> None:
    assert "line 1" in the_problem("learning_rate = = 3").wrong


def test_a_file_that_cannot_be_read_says_why(tmp_path: Path) -> None:
    binary = tmp_path / "b.toml"
    binary.write_bytes(b"\xff\xfe\x00")
    for path, wrong in (
        (tmp_path, "is a folder"),
        (binary, "is not UTF-8"),
        (tmp_path / "lora-smal.toml", "did you mean the ready-made profile lora-small"),
    ):
        with pytest.raises(ProfileError) as error:
            load(path)
        assert wrong in str(error.value)
        assert str(path) in str(error.value)


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
        lambda c: (
            st.lists(c, max_size=2)
            | st.dictionaries(
                st.sampled_from(
                    ["model", "train", "search", "space", "dataset", "learning_rate", "low", "x"]
                ),
                c,
                max_size=3,
            )
        ),
        max_leaves=8,
    )
)
def test_no_document_brings_it_down(document: Any) -> None:
    try:
        profiles.from_document(
            {
                "model": {"model_name_or_path": "demo"},
                "data": document,
                "search": document,
                "train": document,
            }
        )
    except ProfileError as error:
        assert str(error)


# -- lines --------------------------------------------------------------------------------------


def test_the_line_of_a_key_is_found_in_its_own_table() -> None:
    text = '[a]\nseed = 1\n\n [b] # table\n"seed" = 2\n[search.space]\nseed=[1]\n'
    assert line_of(text, "a.seed") == 2
    assert line_of(text, "b.seed") == 5
    assert line_of(text, "search.space.seed") == 7
    assert line_of(text, "b") == 4
    assert line_of(text, "c.seed") is None
    assert line_of("", "a.seed") is None


def test_a_longer_name_is_not_taken_for_a_shorter_one() -> None:
    assert line_of("[train]\nseed_x = 1\nseed = 2\n", "train.seed") == 3


# -- changing -----------------------------------------------------------------------------------


def test_changes_make_another_profile() -> None:
    profile = loads(BARE + "[train]\nmax_steps = 5\n")
    changed = profile.with_changes(
        {"learning_rate": 1e-3, "method.lora_rank": 4, "max_steps": None}
    )
    assert (changed.train.learning_rate, changed.method.lora_rank, changed.train.max_steps) == (
        1e-3,
        4,
        None,
    )
    assert profile.train.learning_rate == 2e-4


def test_a_wrong_change_is_told_like_a_mistake_in_a_file() -> None:
    profile = loads(BARE)
    for changes, wrong in (
        ({"lerning_rate": 1}, "is not known"),
        ({"lora_rank": 0}, "0 is not allowed"),
        ({"model.model_name_or_path": None}, "is missing"),
    ):
        with pytest.raises(ProfileError, match=wrong):
            profile.with_changes(changes)


def test_a_training_is_the_same_run_without_the_search() -> None:
    profile = loads(BARE + "[train]\nmax_steps = 5\n[search.space]\nlora_rank = [8, 16]\n")
    assert profile.as_training().search == SearchTable()
    assert profile.as_training().train == profile.train


def test_the_effective_batch_and_what_ranks() -> None:
    profile = loads(
        BARE + "[train]\nper_device_train_batch_size = 2\ngradient_accumulation_steps = 8\n"
    )
    assert profile.effective_batch() == 16
    two = profile.with_changes({"gpus_per_trial": 2})
    assert two.effective_batch() == 32 and two.batch_per_gpu() == 16
    assert profile.rank_by() == "eval_loss"
    assert loads(BARE + "val_size = 0\n").rank_by() == "loss"
    assert loads(BARE + '[search]\nrank_by = "loss"\n').rank_by() == "loss"
    assert loads(BARE + 'val_size = 0\neval_dataset = "demo"\n').has_validation()


# -- saving -------------------------------------------------------------------------------------


def _value(parameter: Parameter) -> st.SearchStrategy[Any]:
    """Values that the parameter allows."""
    if parameter.choices:
        values: st.SearchStrategy[Any] = st.sampled_from(parameter.choices)
    elif parameter.kind == "bool":
        values = st.booleans()
    elif parameter.kind == "int":
        high = 10**9 if parameter.high is None else int(parameter.high)
        values = st.integers(int(parameter.low or 0), high)
    elif parameter.kind == "float":
        values = st.floats(
            parameter.low,
            parameter.high,
            exclude_min=parameter.low_open,
            exclude_max=parameter.high_open,
            allow_nan=False,
            allow_infinity=False,
        )
    elif parameter.key == "profile.name":
        values = st.text(
            st.characters(codec="utf-8", exclude_categories=["Cc"], exclude_characters="/"),
            min_size=1,
            max_size=80,
        )
    else:
        values = st.text(
            st.characters(codec="utf-8", exclude_characters="\r"), min_size=1, max_size=12
        )
    return values | st.none() if parameter.optional else values


PLAIN = [p for p in parameters() if p.table != "tuned" and p.kind not in ("list", "mapping")]
RANGES = st.builds(
    lambda low, width, scale: Range(low=low, high=low + width, scale=scale),
    st.floats(1e-7, 1),
    st.floats(1e-3, 9),
    st.sampled_from(["linear", "log"]),
)
SPACES = st.fixed_dictionaries(
    {},
    optional={
        "learning_rate": RANGES,
        **{
            p.name: st.lists(
                _value(p).filter(lambda v: v is not None), min_size=1, max_size=3, unique_by=repr
            )
            for p in searchable()
            if p.name not in ("learning_rate", "val_size", "freeze_trainable_layers")
        },
    },
)


@st.composite
def valid_profiles(draw: st.DrawFn) -> Profile:
    """Profiles with any values that are allowed."""
    document: dict[str, dict[str, Any]] = {
        "model": {"model_name_or_path": "demo"},
        "data": {"dataset": draw(st.sampled_from(["demo", ["a.json", "b ü.json"]]))},
    }
    for parameter in draw(st.lists(st.sampled_from(PLAIN), unique=True, max_size=12)):
        value = draw(_value(parameter))
        if value is not None:
            document.setdefault(parameter.table, {})[parameter.name] = value
    document["train"] = {
        "lr_scheduler_kwargs": draw(st.sampled_from([{}, {"num_cycles": 2, "power": 0.5}])),
        **document.get("train", {}),
    }
    document.setdefault("search", {})["space"] = {
        k: v.model_dump(exclude_none=True) if isinstance(v, Range) else v
        for k, v in draw(SPACES).items()
    }
    if draw(st.booleans()):
        document["tuned"] = {
            "study": "/s",
            "trial": 3,
            "value": 1.25,
            "versions": {"torch": "2.13.0"},
        }
    try:
        return profiles.from_document(document)
    except ProfileError:  # The values do not go together: others are drawn.
        reject()


@given(valid_profiles(), st.text(max_size=20))
def test_a_saved_profile_loads_as_the_same(profile: Profile, comment: str) -> None:
    assert loads(dumps(profile, comment=comment if comment.isprintable() else "")) == profile


@given(valid_profiles())
def test_no_change_makes_the_same_profile(profile: Profile) -> None:
    assert profile.with_changes({}) == profile
    assert (
        profile.with_changes({k: v for k, v in profile.values().items() if v is not None})
        == profile
    )


def test_saved_text_is_good_to_read() -> None:
    profile = loads(
        BARE
        + '[search.space]\nlearning_rate = { low = 1e-5, high = 1e-3, scale = "log" }\nlora_rank = [8, 16]\n[tuned]\ntrial = 2\n'
    )
    text = dumps(profile, comment="from a study\nof today")
    assert text.startswith("# from a study\n# of today\n[profile]\n")
    assert (
        '\n[search.space]\nlearning_rate = { low = 1e-5, high = 1e-3, scale = "log" }\nlora_rank = [8, 16]\n'
        in text
    )
    assert text.index("[search.space]") < text.index("[tuned]")
    assert "[search]" not in dumps(loads(BARE))
    assert "lr_scheduler_kwargs" not in text
    assert tomllib.loads(text)["tuned"]["trial"] == 2


def test_saving_replaces_a_file_whole_or_not_at_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "mine.toml"
    save(loads(BARE), file)
    before = file.read_text()

    def full(_descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        save(loads(BARE).with_changes({"seed": 1}), file)
    assert file.read_text() == before
    assert [p.name for p in tmp_path.iterdir()] == ["mine.toml"]


# -- names --------------------------------------------------------------------------------------


def test_a_ready_made_profile_is_meant_by_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert (
        resolve("lora-small")
        == resolve("lora-small.toml")
        == profiles.READY_MADE / "lora-small.toml"
    )
    assert resolve("mine.toml") == Path("mine.toml")
    (tmp_path / "lora-small.toml").write_text(BARE)
    assert resolve("lora-small.toml") == Path("lora-small.toml")


@pytest.mark.parametrize(
    ("data", "key"),
    [
        ("dataset = []", "data.dataset"),
        ('dataset = ""', "data.dataset"),
        ('dataset = " , "', "data.dataset"),
        ('dataset = "demo"\neval_dataset = ["demo", " "]', "data.eval_dataset"),
    ],
)
def test_data_without_a_file_is_refused(data: str, key: str) -> None:
    with pytest.raises(ProfileError) as caught:
        loads(f'[model]\nmodel_name_or_path = "demo"\n[data]\n{data}\n')
    assert [(p.key, p.wrong) for p in caught.value.problems] == [(key, "names no file")]


@pytest.mark.parametrize("schedule", ["reduce_lr_on_plateau", "greedy"])
def test_schedules_that_go_by_the_evaluation_loss_need_one(schedule: str) -> None:
    with pytest.raises(ProfileError, match=f"{schedule} needs validation data"):
        loads(
            '[model]\nmodel_name_or_path = "demo"\n[data]\ndataset = "demo"\nval_size = 0\n'
            f'[train]\nlr_scheduler_type = "{schedule}"\n'
        )


def test_names_in_dataset_info_stay_and_their_folder_is_kept(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    folder.mkdir()
    (folder / "dataset_info.json").write_text('{"mine": {"file_name": "a.jsonl"}}')
    (tmp_path / "mine").mkdir()
    (tmp_path / "b.jsonl").write_text("{}")
    text = '[model]\nmodel_name_or_path = "demo"\n[data]\ndataset = {}\n'
    profile = loads(text.format('"mine, b.jsonl,demo-text"'), folder=tmp_path)
    assert profile.data.dataset == ["mine", str(tmp_path / "b.jsonl"), "demo-text"]
    assert profile.data.dataset_dir == str(folder)
    assert dataset_files(profile)[0] == "mine" and dataset_files(profile)[2].endswith("text.txt")
    # Loaded again, from anywhere, it means the same.
    again = loads(dumps(profile), folder=Path("/"))
    assert again.data == profile.data
    plain = loads(text.format('"b.jsonl"'), folder=tmp_path)
    assert (plain.data.dataset, plain.data.dataset_dir) == (str(tmp_path / "b.jsonl"), None)
    given = loads(text.format('"mine"\ndataset_dir = "data"'), folder=tmp_path)
    assert given.data.dataset_dir == str(folder)
