"""What can be wrong with a profile: metrics that no trial logs."""

import pytest

from core.checks import EVERY_STAGE_LOGS, STAGE_LOGS
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
