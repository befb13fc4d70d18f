"""The live summary in two lines."""

from dataclasses import replace

from core.data_size import FileSize
from tui.draft import Draft, review
from tui.plan import DataCount, PastTime, plan
from tui.widgets.plan_bar import Part, choice_pieces, flow, run_parts, search_parts
from tui.words import duration, times

BASE = Draft().with_text("model.model_name_or_path", "demo").with_text("data.dataset", "demo")
DATA = DataCount((FileSize(1000, 300),), known=True)
SEARCHED = BASE.with_space("train.learning_rate", "1e-5 .. 4e-4 step 1e-5")


def _line(parts: list[Part], width: int = 200) -> str:
    return "".join(text for text, _ in flow(parts, width))


def test_a_run_and_a_search_are_summed_up() -> None:
    numbers = plan(review(SEARCHED), DATA)
    assert _line(run_parts(numbers)) == (
        "batch 16 = 4 × 4   rows 950 + 50 eval   steps/epoch 60   full run 180 steps"
    )
    assert numbers.expected is not None and numbers.expected < 2.4
    assert _line(search_parts(numbers, 0)) == (
        "trials 12 of 40 possible   each 36 steps   "
        f"≈ {times(numbers.expected)} full trainings instead of 2.4"
    )
    whole = plan(review(SEARCHED.with_text("search.stopping", "none")), DATA)
    assert _line(search_parts(whole, 0)) == (
        "trials 12 of 40 possible   each 36 steps   together 2.4 full runs"
    )


def test_the_choice_is_explained_only_where_something_is_searched() -> None:
    searched = plan(review(SEARCHED), DATA)
    told = "".join(text for text, _ in choice_pieces(searched))
    assert searched.choice is not None and told == f"search {searched.choice.why}"
    assert choice_pieces(plan(review(BASE), DATA)) == []


def test_time_is_told_with_the_study_that_tells_it() -> None:
    numbers = plan(review(SEARCHED), DATA, past=PastTime(3600.0, "night", on_gpu=False))
    assert numbers.expected is not None
    said = _line(search_parts(numbers, 0))
    assert said.endswith(f"time ≈ {duration(3600 * numbers.expected)} (by night)")
    assert "GPU" not in said


def test_what_is_not_known_is_a_question_mark_and_counting_is_said() -> None:
    assert "rows ?" in _line(run_parts(plan(review(BASE), DataCount())))
    counting = replace(DATA, share=0.25)
    assert "counting rows 25%" in _line(run_parts(plan(review(BASE), counting)))


def test_no_search_is_one_training_and_problems_are_counted() -> None:
    numbers = plan(review(BASE), DATA)
    assert _line(search_parts(numbers, 2)) == "one training, nothing is searched   2 problems (n)"


def test_parts_that_do_not_fit_are_left_out_whole() -> None:
    parts = [Part("a", "11"), Part("long", "2" * 30), Part("c", "3")]
    assert _line(parts, 12) == "a 11   c 3"


def test_a_part_that_has_no_room_is_said_shorter_where_it_can_be() -> None:
    parts = [
        Part("trials", "12"),
        Part("≈", "1.0 full trainings instead of 2.4", short="1.0 of 2.4 full runs"),
    ]
    assert _line(parts, 60).endswith("instead of 2.4")
    assert _line(parts, 40) == "trials 12   ≈ 1.0 of 2.4 full runs"
    assert _line(parts, 20) == "trials 12"
