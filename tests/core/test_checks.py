"""What can be wrong with a profile: metrics that no trial logs, entries of the space."""

import pytest

from core.logged import EVERY_STAGE_LOGS, STAGE_LOGS
from core.profile import ProfileError, loads
from core.search.metric import METRICS, STAGE_METRICS

BARE = '[model]\nmodel_name_or_path = "demo"\n[data]\ndataset = "demo"\n'


def test_the_metrics_that_are_allowed_are_those_that_the_search_can_read() -> None:
    assert set(EVERY_STAGE_LOGS) == set(METRICS)
    stages = set(STAGE_LOGS) | set(STAGE_METRICS)
    for stage in stages:
        named = {metric.name for metric in STAGE_METRICS.get(stage, ())}
        assert set(STAGE_LOGS.get(stage, ())) == named


@pytest.mark.parametrize("name", ["auto", *EVERY_STAGE_LOGS])
def test_what_trials_log_may_rank_them(name: str) -> None:
    assert loads(BARE + f'[search]\nrank_by = "{name}"\n').search.rank_by == name


def test_a_metric_that_no_trial_logs_is_told_with_those_that_there_are() -> None:
    with pytest.raises(ProfileError) as error:
        loads(BARE + '[search]\nrank_by = "los"\n')
    (problem,) = error.value.problems
    assert (problem.key, problem.line) == ("search.rank_by", 6)
    assert problem.wrong == "no trial of stage sft logs los"
    assert problem.right.startswith("did you mean loss?")
    assert "loss_fall" in problem.right


def test_a_metric_of_evaluations_needs_something_to_evaluate() -> None:
    with pytest.raises(ProfileError, match="eval_loss needs validation data"):
        loads(BARE + 'val_size = 0\n[search]\nrank_by = "eval_loss"\n')


def test_an_unknown_metric_is_not_asked_to_have_validation_data() -> None:
    with pytest.raises(ProfileError) as error:
        loads(BARE + 'val_size = 0\n[search]\nrank_by = "eval_bleu"\n')
    (problem,) = error.value.problems
    assert problem.wrong == "no trial of stage sft logs eval_bleu"


@pytest.mark.parametrize(
    ("entry", "wrong", "right"),
    [
        ("{ min = 1e-5, max = 1e-3 }", "min is not known in a range", "it has low, high"),
        ("{ low = 1e-5 }", "high is missing", "low = 1e-5, high = 1e-3"),
        ("{ low = nan, high = 1e-3 }", "low = nan is not allowed", "a finite number"),
        ("{ low = 1e-5, high = inf }", "high = inf is not allowed", "a finite number"),
        ('{ low = 1e-5, high = 1, scale = "ln" }', 'scale = "ln" is not allowed', '"log"'),
        ("{ low = 1e-5, high = 1, step = -1 }", "step = -1 is not allowed", "above 0"),
        ("[1e-4, nan]", "the list holds nan", "numbers"),
        ("[[1e-4]]", "the list holds [1e-4]", "numbers"),
        ("1e-4", "is neither a list of values nor a range", "write [1e-4, 3e-4]"),
    ],
)
def test_an_entry_of_the_space_that_is_none_is_told_by_what_is_wrong_in_it(
    entry: str, wrong: str, right: str
) -> None:
    with pytest.raises(ProfileError) as error:
        loads(BARE + f"[search.space]\nlearning_rate = {entry}\n")
    (problem,) = error.value.problems
    assert (problem.key, problem.line) == ("search.space.learning_rate", 6)
    assert problem.wrong == wrong
    assert right in problem.right


def test_a_parameter_that_is_searched_under_both_its_names_is_told() -> None:
    space = '[search.space]\nlearning_rate = [1e-4]\n"train.learning_rate" = [2e-4]\n'
    with pytest.raises(ProfileError, match="is the same parameter as learning_rate"):
        loads(BARE + space)


def test_a_grid_of_more_whole_numbers_than_there_may_be_trials_is_told() -> None:
    wide = "max_steps = { low = 1, high = 100_001 }"
    with pytest.raises(ProfileError, match="a grid needs a list of values"):
        loads(BARE + f'[search]\nstrategy = "grid"\n[search.space]\n{wide}\n')
    loads(BARE + f'[search]\nstrategy = "random"\n[search.space]\n{wide}\n')
