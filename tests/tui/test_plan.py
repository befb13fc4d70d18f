"""What a draft costs."""

import pytest

from core.data_size import FileSize
from core.problems import Problem
from tui.draft import Draft, review
from tui.plan import DataCount, PastTime, Span, all_problems, plan

BASE = (
    Draft()
    .with_text("model.model_name_or_path", "demo")
    .with_text("data.dataset", "demo")
    .with_text("data.val_size", "0.1")
    .with_text("train.num_train_epochs", "2")
    .with_text("search.budget", "0.25")
)
RATE = "train.learning_rate"
BATCH = "train.per_device_train_batch_size"
DATA = DataCount((FileSize(1000, 300),), known=True)


def test_one_training_is_counted() -> None:
    numbers = plan(review(BASE), DATA)
    assert str(numbers.batch) == "16"
    assert numbers.batch_parts == "4 × 4"
    assert (str(numbers.train_rows), str(numbers.eval_rows)) == ("900", "100")
    assert (str(numbers.epoch), str(numbers.full), str(numbers.probe)) == ("57", "114", "29")
    assert (numbers.trials, numbers.cost) == (0, None)


def test_ppo_goes_over_the_answer_to_each_prompt_several_times() -> None:
    draft = (
        BASE.with_text("method.stage", "ppo")
        .with_text("alignment.reward_model", "judge")
        .with_text("alignment.ppo_epochs", "3")
    )
    numbers = plan(review(draft), DATA)
    assert (str(numbers.epoch), str(numbers.full), str(numbers.probe)) == ("169", "338", "85")


def test_a_searched_batch_makes_spans() -> None:
    numbers = plan(review(BASE.with_space(BATCH, "2, 4, 8")), DATA)
    assert str(numbers.batch) == "8–32"
    assert numbers.batch_parts == "2–8 × 4"
    assert str(numbers.epoch) == "29–113"
    assert str(numbers.full) == "58–226"


def test_more_gpus_make_a_larger_batch() -> None:
    numbers = plan(review(BASE), DATA, gpus=2)
    assert (str(numbers.batch), numbers.batch_parts) == ("32", "4 × 4 × 2 GPUs")


@pytest.mark.parametrize(
    ("entry", "trials", "possible"),
    [
        ("1e-5, 1e-4, 1e-3", 3, 3),
        ("1e-5 .. 1e-3 log", 12, None),
        ("1e-5 .. 4e-4 step 1e-5", 12, 40),
    ],
)
def test_trials_are_the_combinations_as_far_as_they_are_wanted(
    entry: str, trials: int, possible: int | None
) -> None:
    numbers = plan(review(BASE.with_space(RATE, entry)), DATA)
    assert (numbers.trials, numbers.possible) == (trials, possible)
    assert numbers.cost == trials * 0.25


def test_trials_are_counted_while_other_fields_are_wrong() -> None:
    draft = (
        BASE.with_space(RATE, "1e-5, 1e-4")
        .with_text("model.model_name_or_path", "")
        .with_text(BATCH, "none")
    )
    numbers = plan(review(draft), DATA)
    assert numbers.trials == 2
    assert numbers.batch is None
    assert numbers.batch_parts == "? × 4"
    assert numbers.epoch is None


def test_a_wrong_entry_leaves_the_trials_open() -> None:
    assert plan(review(BASE.with_space(RATE, "fast")), DATA).trials is None


def test_the_search_is_chosen_by_trials_and_gpus() -> None:
    draft = BASE.with_space(RATE, "1e-5 .. 1e-3 log").with_space("method.lora_dropout", "0 .. 0.1")
    draft = draft.with_text("search.trials", "40")
    alone = plan(review(draft), DATA).choice
    many = plan(review(draft), DATA, at_hand=10).choice
    assert alone is not None and many is not None
    assert (alone.strategy, alone.stopping) == ("bayesian", "halving")
    assert many.stopping == "asha"
    assert "40 trials" in alone.why


def test_what_is_saved_by_stopping_early_is_told_and_second_runs_are_counted() -> None:
    draft = BASE.with_space(RATE, "1e-5 .. 1e-3 log")
    stopped = plan(review(draft), DATA)
    assert stopped.cost == 12 * 0.25 and stopped.expected is not None
    assert 0.25 < stopped.expected < stopped.cost
    whole = plan(review(draft.with_text("search.stopping", "none")), DATA)
    assert whole.expected == whole.cost == 3.0
    again = plan(review(draft.with_text("search.confirm", "2")), DATA)
    assert again.cost == 3.5 and again.expected == stopped.expected + 0.5


def test_a_budget_in_tokens_has_no_cost_in_trainings() -> None:
    draft = BASE.with_space(RATE, "1e-5 .. 1e-3 log").with_text("search.budget_tokens", "100000")
    numbers = plan(review(draft), DATA)
    assert (numbers.trials, numbers.cost, numbers.expected) == (12, None, None)


def test_time_follows_from_what_a_training_took() -> None:
    draft = BASE.with_space(RATE, "1e-5 .. 1e-3 log").with_text("search.stopping", "none")
    numbers = plan(review(draft), DATA, past=PastTime(600.0, "night"))
    assert numbers.seconds == 1800.0 and numbers.timed == PastTime(600.0, "night")
    assert plan(review(BASE), DATA, past=PastTime(600.0, "night")).seconds is None


@pytest.mark.parametrize("key", ["search.trials", "search.budget"])
def test_a_search_that_is_wrong_has_no_numbers(key: str) -> None:
    draft = BASE.with_space(RATE, "1e-5 .. 1e-3 log").with_text(key, "many")
    numbers = plan(review(draft), DATA)
    assert numbers.trials is None and numbers.choice is None and numbers.cost is None


def test_most_steps_decide_without_knowing_the_rows() -> None:
    numbers = plan(review(BASE.with_text("train.max_steps", "40")), DataCount())
    assert (str(numbers.full), str(numbers.probe)) == ("40", "10")
    assert numbers.train_rows is None


def test_most_samples_hold_for_each_file() -> None:
    data = DataCount((FileSize(1000, 300), FileSize(50, 300)), known=True)
    numbers = plan(review(BASE.with_text("data.max_samples", "100")), data)
    assert (str(numbers.train_rows), str(numbers.eval_rows)) == ("135", "15")


def test_files_to_evaluate_on_leave_the_training_data_whole() -> None:
    data = DataCount((FileSize(1000, 300),), (FileSize(70, 300),), known=True)
    numbers = plan(review(BASE.with_text("data.eval_dataset", "demo")), data)
    assert (str(numbers.train_rows), str(numbers.eval_rows)) == ("1,000", "70")


@pytest.mark.parametrize(
    ("draft", "data"),
    [
        (BASE.with_text("data.packing", "true"), DATA),
        (BASE, DataCount((FileSize(1000, None),), known=True)),
        (BASE, DataCount((FileSize(1000, 9000),), known=True)),
        (BASE, DataCount((FileSize(1000, 10),), share=0.5, known=True)),
    ],
)
def test_numbers_that_may_change_say_so(draft: Draft, data: DataCount) -> None:
    numbers = plan(review(draft), data)
    assert str(numbers.train_rows).startswith("~")
    assert str(numbers.full).startswith("~")
    assert not str(numbers.batch).startswith("~")


def test_all_rows_aside_are_a_problem() -> None:
    checked = review(BASE.with_text("data.val_size", "1000"))
    assert "none is left to train on" in all_problems(checked, DATA)["data.val_size"].wrong
    assert all_problems(review(BASE), DATA) == {}


def test_problems_come_in_the_order_of_the_form() -> None:
    data = DataCount(problems=(Problem("data.dataset", "x: there is no such file"),))
    checked = review(BASE.with_text("train.learning_rate", "0").with_text("profile.name", ""))
    assert list(all_problems(checked, data)) == [
        "profile.name",
        "data.dataset",
        "train.learning_rate",
    ]


def test_spans_are_written_as_people_read_them() -> None:
    assert str(Span(1234, 1234)) == "1,234"
    assert str(Span(8, 32, about=True)) == "~8–32"
