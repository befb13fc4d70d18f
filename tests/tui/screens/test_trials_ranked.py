"""The Trials screen of a study that ranks by what has no column of its own: the reward accuracy, of which more is better."""

import pytest

from core.study.events import StudyCreated, TrialAdded, TrialEnded
from core.study.metrics import Point
from core.study.state import StudyState
from tests.tui.fake import NOW, FakeSource, _start
from tests.tui.screens.conftest import Opened, screen_text, settle
from tui import words
from tui.filtering import Order, arrange
from tui.screens.trial_rows import RowLook, columns, sort_keys, trial_row
from tui.screens.trials import TrialsScreen
from tui.snapshot import StudyView, study_view
from tui.source import Wanted

ACCURACY = "eval_reward_accuracy"


@pytest.fixture
def source() -> FakeSource:
    """Trial 1 ended, 2 runs, 3 is at its rung and 4 waits."""
    made = FakeSource()
    made.feed.state = StudyState()
    made.feed.tell(
        StudyCreated(t=NOW, version=3, name="s", tunedeck="0", rank_by=ACCURACY, direction="max", planned=4)
    )  # fmt: skip
    made.feed.tell(
        *(
            TrialAdded(t=NOW, trial=n, settings={"pref_beta": n / 10}, until=0.1)
            for n in range(1, 5)
        )
    )
    made.feed.tell(*_start(1), *_start(2), *_start(3))
    made.feed.tell(
        TrialEnded(t=NOW, trial=1, attempt=1, ending="completed", loss=0.6, eval_loss=0.61, value=0.71),
        TrialEnded(t=NOW, trial=3, attempt=1, ending="rung", step=3, value=0.9, checkpoint="c"),
    )  # fmt: skip
    logged = Point(t=NOW, step=4, loss=0.55, eval_loss=0.5, more={ACCURACY: 0.8125})
    made.feed.metrics = {2: [logged]}
    return made


@pytest.fixture
def view(source: FakeSource) -> StudyView:
    return study_view(source.feed.read(Wanted()), NOW)


def test_a_row_tells_it_of_what_ran_what_runs_and_what_waits(view: StudyView) -> None:
    assert [row.value for row in view.rows] == [0.71, 0.8125, 0.9, None]


def test_it_has_a_column_that_losses_do_not_need_twice(view: StudyView) -> None:
    (column,) = (c for c in columns(view, 80) if c.key == "value")
    assert column.title == "accuracy"
    look = RowLook((), ACCURACY, best=False, roomy=False, ascii=False)
    assert str(trial_row(view.by_number[2], look, marked=False).cells["value"]) == "0.8125"
    usual = study_view(FakeSource().feed.read(Wanted()), NOW)
    assert "value" not in [c.key for c in columns(usual, 160)]
    assert "value" in sort_keys(view) and "value" not in sort_keys(usual)


def test_trials_are_sorted_and_filtered_by_it(view: StudyView) -> None:
    best_first = arrange(view.rows, "", Order("value", descending=True))
    assert [row.number for row in best_first] == [3, 2, 1, 4]
    assert [row.number for row in arrange(view.rows, "value>0.8", Order())] == [2, 3]


async def test_s_comes_to_the_best_first(opened: Opened) -> None:
    async with opened() as (app, pilot):
        screen = app.screen
        assert isinstance(screen, TrialsScreen)
        for key in "ss":
            await pilot.press(key)
            await settle(app, pilot)
        assert "Sorted by eval_reward_accuracy, largest first." in screen_text(app)
        assert [row.key for row in screen.table.rows] == ["3", "2", "1", "4"]


@pytest.mark.parametrize(
    ("name", "title"),
    [
        ("eval_loss", "eval loss"),
        ("eval_reward_margin", "margin"),
        ("eval_reward", "reward"),
        ("eval_perplexity", "perpl."),
        ("kl", "kl"),
    ],
)
def test_a_column_has_a_short_title(name: str, title: str) -> None:
    assert words.metric_column(name) == title
