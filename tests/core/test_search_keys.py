"""The search as articles write it."""

from pathlib import Path
from typing import Any

import pytest

from core.params import Range
from core.problems import Problem
from core.profile import Profile, ProfileError, loads
from core.search_keys import spell

BARE = '[model]\nmodel_name_or_path = "demo"\n[data]\ndataset = "demo"\n'


def problems(text: str) -> list[Problem]:
    with pytest.raises(ProfileError) as error:
        loads(BARE + text, source="mine.toml")
    return error.value.problems


def the_problem(text: str) -> Problem:
    (problem,) = problems(text)
    return problem


@pytest.mark.parametrize(
    "text",
    [
        "[search]\nlearning_rate_list = [1e-4, 3e-4]\n",
        "[search.space]\nlearning_rate_list = [1e-4, 3e-4]\n",
        "[train]\nlearning_rate_list = [1e-4, 3e-4]\n",
        "[method]\nlearning_rate_list = [1e-4, 3e-4]\n",
        '[search.space]\n"train.learning_rate_list" = [1e-4, 3e-4]\n',
    ],
)
def test_a_list_key_means_the_space_wherever_it_stands(text: str) -> None:
    assert loads(BARE + text).search.space == {"learning_rate": [1e-4, 3e-4]}


def test_an_article_s_search_is_read_as_ours() -> None:
    profile = loads(
        BARE + "[search]\ndo_search = true\nsearch_algorithm = 'random'\nmax_search_trials = 20\n"
        "learning_rate_list = [1e-5, 5e-5, 1e-4]\nper_device_train_batch_size_list = [2, 4, 8]\n"
        "lora_rank_list = [8, 16, 32]\n"
    )
    assert profile.search.strategy == "random"
    assert profile.search.trials == 20
    assert profile.search.space == {
        "learning_rate": [1e-5, 5e-5, 1e-4],
        "per_device_train_batch_size": [2, 4, 8],
        "lora_rank": [8, 16, 32],
    }


def test_a_list_key_may_say_a_range_and_joins_the_space() -> None:
    profile = loads(
        BARE + "[train]\nlearning_rate_list = { low = 1e-5, high = 1e-3, scale = 'log' }\n"
        "[search.space]\nlora_rank = [8]\n"
    )
    assert profile.search.space == {
        "learning_rate": Range(low=1e-5, high=1e-3, scale="log"),
        "lora_rank": [8],
    }


@pytest.mark.parametrize(
    ("name", "ours"), [("bayes", "bayesian"), ("tpe", "bayesian"), ("grid", "grid")]
)
def test_other_names_of_algorithms_are_known(name: str, ours: str) -> None:
    text = f'[search]\nsearch_algorithm = "{name}"\nlora_rank_list = [8, 16]\n'
    assert loads(BARE + text).search.strategy == ours


def test_do_search_false_searches_nothing() -> None:
    assert (
        loads(BARE + "[search]\ndo_search = false\nlora_rank_list = [8, 16]\n").search.space == {}
    )


def test_do_search_without_a_space_is_told() -> None:
    problem = the_problem("[search]\ndo_search = true\n")
    assert (problem.key, problem.line) == ("search.do_search", 6)
    assert problem.wrong == "is true, and nothing is searched"


def test_the_same_said_twice_is_no_contradiction() -> None:
    text = "[train]\nlearning_rate_list = [1e-4]\n[search.space]\nlearning_rate = [1e-4]\n"
    assert loads(BARE + text).search.space == {"learning_rate": [1e-4]}


@pytest.mark.parametrize(
    ("text", "key", "other"),
    [
        (
            "[train]\nlearning_rate_list = [1e-4]\n[search.space]\nlearning_rate = [2e-4]\n",
            "train.learning_rate_list",
            "search.space.learning_rate = [2e-4]",
        ),
        (
            "[search]\nlora_rank_list = [8]\n[method]\nlora_rank_list = [16]\n",
            "method.lora_rank_list",
            "search.lora_rank_list = [8]",
        ),
        (
            '[search]\nstrategy = "grid"\nsearch_algorithm = "random"\n[search.space]\nlora_rank = [8]\n',
            "search.search_algorithm",
            'search.strategy = "grid"',
        ),
        (
            "[search]\ntrials = 3\nmax_search_trials = 4\n",
            "search.max_search_trials",
            "search.trials = 3",
        ),
    ],
)
def test_a_contradiction_is_told_with_both_sides(text: str, key: str, other: str) -> None:
    problem = the_problem(text)
    assert problem.key == key
    assert f"contradicts {other}" in problem.wrong
    assert problem.line is not None


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("[search]\nmax_search_trials = 0\n", "search.max_search_trials"),
        ("[search]\nsearch_algorithm = 'annealing'\n", "search.search_algorithm"),
        ("[search]\nlora_rank_list = [0]\n", "search.lora_rank_list"),
        ("[method]\nlora_rank_list = 8\n", "method.lora_rank_list"),
        ("[search.space]\n'method.lora_rank_list' = []\n", "search.space.method.lora_rank_list"),
    ],
)
def test_a_wrong_value_is_told_at_the_key_that_was_written(text: str, key: str) -> None:
    problem = the_problem(text)
    assert problem.key == key
    assert problem.line == 6


def test_a_list_of_no_parameter_stays_unknown() -> None:
    assert the_problem("[search]\nlerning_rate_list = [1]\n").wrong == "is not known"
    assert the_problem("[train]\ndataset_list = ['a']\n").wrong == "is not known"


def test_the_document_that_was_given_stays_as_it_was() -> None:
    document: dict[str, Any] = {
        "search": {"lora_rank_list": [8], "space": {"seed": [1]}},
        "train": {"learning_rate_list": [1e-4]},
    }
    spelled = spell(document)
    assert spelled.document == {
        "search": {"space": {"seed": [1], "lora_rank": [8], "learning_rate": [1e-4]}},
        "train": {},
    }
    assert document["search"] == {"lora_rank_list": [8], "space": {"seed": [1]}}
    assert document["train"] == {"learning_rate_list": [1e-4]}


@pytest.mark.parametrize(
    "document",
    [
        {"search": 3, "train": {"learning_rate_list": [1e-4]}},
        {"search": {"space": 3, "lora_rank_list": [8]}},
        {"search": {"do_search": "yes"}},
        {"train": [], "model": None},
    ],
)
def test_tables_that_are_none_are_left_to_the_checks(document: dict[str, Any]) -> None:
    with pytest.raises(ProfileError):
        _ = loaded(document)


def loaded(document: dict[str, Any]) -> Profile:
    from core.profile import from_document

    return from_document(
        {"model": {"model_name_or_path": "m"}, "data": {"dataset": "d"}, **document}
    )


def test_a_saved_profile_has_our_own_keys(tmp_path: Path) -> None:
    from core.profile import load, save

    file = tmp_path / "mine.toml"
    save(loads(BARE + "[search]\nmax_search_trials = 5\nlora_rank_list = [8, 16]\n"), file)
    assert "_list" not in file.read_text()
    assert load(file).search.trials == 5
