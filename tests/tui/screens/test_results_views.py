"""The pictures of the Results screen: keys, clicks, what is read for them, and every kind of study."""

import math
from pathlib import Path
from typing import Any

import pytest

from core.doctor import NextStep
from core.study.events import AnyEvent, StudyChanged, StudyCreated, TrialAdded, TrialEnded
from core.study.store import PROFILE_FILE
from tests.tui.fake import FOLDER, NOW, FakeSource, points
from tests.tui.screens.conftest import screen_text, settle
from tests.tui.search_fake import searched, source_of
from tui.app import TunedeckApp
from tui.screens.configure import ConfigureScreen
from tui.screens.confirm import ConfirmDialog
from tui.screens.results import NOTHING_YET, VIEWS, ResultsScreen
from tui.widgets.bars import Heading


async def press(app: Any, pilot: Any, *keys: str) -> None:
    for key in keys:
        await pilot.press(key)
        await settle(app, pilot)


def results(app: TunedeckApp) -> ResultsScreen:
    assert isinstance(app.screen, ResultsScreen)
    return app.screen


def ended(*values: float | None, status: str = "completed", planned: int = 0) -> list[AnyEvent]:
    """A study whose trials came to these values, a rate each."""
    log: list[AnyEvent] = [
        StudyCreated(
            t=NOW - 900, version=3, name="s", tunedeck="0", rank_by="eval_loss", planned=planned or len(values)
        )
    ]  # fmt: skip
    for n, value in enumerate(values, 1):
        log.append(TrialAdded(t=NOW - 800, trial=n, settings={"learning_rate": 1e-5 * n}))
        log.append(
            TrialEnded(
                t=NOW - 700, trial=n, attempt=1, ending=status if value is None else "completed",  # type: ignore[arg-type]
                step=10, total_steps=10, value=value, eval_loss=value, loss=value, seconds=5,
            )
        )  # fmt: skip
    return log


PROFILE = """
[profile]
name = "night"
[model]
model_name_or_path = "demo"
[data]
dataset = "rows.jsonl"
[search.space]
learning_rate = { low = 1e-5, high = 4e-5 }
"""
RATES: dict[str, Any] = {"learning_rate": {"low": 1e-5, "high": 1e-3, "scale": "log"}}
STUDIES: dict[str, tuple[list[AnyEvent], dict[str, Any] | None]] = {
    "none yet": (ended(planned=8), RATES),
    "one": (ended(2.0), RATES),
    "all equal": (ended(*[2.0] * 9), RATES),
    "all diverged": (ended(*[None] * 9, status="diverged"), RATES),
    "all out of memory": (ended(*[None] * 9, status="oom"), RATES),
    "not finite": (ended(2.0, math.nan, math.inf, 2.1, -math.inf), RATES),
    "huge": (ended(2.0, 1e300, 2.1, -1e300, 2.2, 5e-324), RATES),
    "nothing searched": (ended(2.0, 2.1), {}),
    "one value on an axis": (ended(2.0, 2.1), {"lora_rank": [8]}),
    "a search": (searched(), None),
    "high is good": (searched(direction="max"), None),
    "long names": (
        [
            *ended(2.0, 2.1),
            TrialAdded(t=NOW, trial=9, settings={"a_parameter_of_a_very_long_name" * 3: "value" * 40}),
            TrialEnded(t=NOW, trial=9, attempt=1, ending="completed", value=1.9, eval_loss=1.9),
        ],
        {"a_parameter_of_a_very_long_name" * 3: ["value" * 40, "値" * 40], **RATES},
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", STUDIES)
@pytest.mark.parametrize(
    ("size", "ascii"), [((60, 15), True), ((160, 45), False)], ids=["60x15-ascii", "160x45"]
)
async def test_every_picture_of_every_study_fits(
    name: str, size: tuple[int, int], ascii: bool
) -> None:
    log, space = STUDIES[name]
    app = TunedeckApp(source_of(log, space), FOLDER, ascii=ascii)
    async with app.run_test(size=size) as pilot:
        await settle(app, pilot)
        await press(app, pilot, "5")
        for key in (*["tab"] * len(VIEWS), "v", "x", "l", "down", "right"):
            await press(app, pilot, key)
            lines = screen_text(app).splitlines()
            assert len(lines) == size[1]
            assert not ascii or name == "long names" or all(line.isascii() for line in lines)


async def test_tab_goes_through_the_pictures_and_back() -> None:
    app = TunedeckApp(source_of(searched()), FOLDER)
    async with app.run_test(size=(80, 24)) as pilot:
        await settle(app, pilot)
        await press(app, pilot, "5")
        seen = []
        for _ in VIEWS:
            seen.append(results(app).shown)
            await press(app, pilot, "tab")
        assert tuple(seen) == VIEWS and results(app).shown == VIEWS[0]
        await press(app, pilot, "shift+tab")
        assert results(app).shown == VIEWS[-1]
        assert "Rates up to 1.1e-3 are safe" in screen_text(app)


async def test_the_name_of_a_picture_can_be_clicked() -> None:
    app = TunedeckApp(source_of(searched()), FOLDER)
    async with app.run_test(size=(80, 24)) as pilot:
        await settle(app, pilot)
        await press(app, pilot, "5")
        y = results(app).query_one("#view-heading", Heading).region.y
        x = screen_text(app).splitlines()[y].index("scatter") + 2
        await pilot.click(offset=(x, y))
        await settle(app, pilot)
        assert results(app).shown == "scatter" and "eval loss over lr, log" in screen_text(app)


async def test_in_the_smallest_terminal_the_ranking_is_one_of_the_pictures() -> None:
    app = TunedeckApp(source_of(searched()), FOLDER)
    async with app.run_test(size=(60, 15)) as pilot:
        await settle(app, pilot)
        await press(app, pilot, "5")
        # What was chosen stays when the terminal changes; a fresh one begins with the ranking.
        assert results(app).shown == "ranking" and results(app).table.display
        await press(app, pilot, "tab", "tab")
        assert results(app).shown == "scatter" and not results(app).table.display
        assert "★" in screen_text(app)
        await press(app, pilot, "v")
        assert "no room" in screen_text(app)
        await pilot.resize_terminal(80, 24)
        await settle(app, pilot)
        assert results(app).shown == "scatter" and results(app).table.display


async def test_the_dropped_and_the_lost_say_how_they_ended() -> None:
    app = TunedeckApp(source_of(searched()), FOLDER)
    async with app.run_test(size=(120, 45)) as pilot:
        await settle(app, pilot)
        await press(app, pilot, "5")
        text = screen_text(app)
    for words in (
        "±0.0021, 2 seeds",
        "dropped at 30 %",
        "21 dropped, 2 diverged, 2 OOM",
    ):
        assert words in text
    assert (
        "Took 27 % of running all, 28m 24s of GPU" in text and "2 confirmations counted in" in text
    )


async def test_the_cursor_is_the_same_in_table_and_picture() -> None:
    app = TunedeckApp(source_of(searched()), FOLDER)
    async with app.run_test(size=(80, 24)) as pilot:
        await settle(app, pilot)
        await press(app, pilot, "5", "tab", "down")
        assert "trial 6: 1.8199" in screen_text(app)
        await press(app, pilot, "left")
        screen = results(app)
        assert screen.selected is not None and screen.selected.number == 27
        await press(app, pilot, "right", "right")
        assert screen.selected is not None and screen.selected.number == 19
        assert screen.table.cursor_key == "19"


async def test_a_click_on_a_dot_chooses_the_trial() -> None:
    app = TunedeckApp(source_of(searched()), FOLDER)
    async with app.run_test(size=(80, 24)) as pilot:
        await settle(app, pilot)
        await press(app, pilot, "5", "tab", "end")
        lines = screen_text(app).splitlines()
        y = max(y for y, line in enumerate(lines) if "★" in line)
        await pilot.click(offset=(lines[y].index("★"), y))
        await settle(app, pilot)
        assert results(app).table.cursor_key == "14"


async def test_x_goes_through_the_parameters() -> None:
    app = TunedeckApp(source_of(searched()), FOLDER)
    async with app.run_test(size=(80, 24)) as pilot:
        await settle(app, pilot)
        await press(app, pilot, "5", "x")
        assert "Tab goes there" in screen_text(app)
        await press(app, pilot, "tab")
        for title in ("rank", "dropout", "schedule", "decay", "batch", "lr, log"):
            await press(app, pilot, "x")
            assert f"eval loss over {title} " in screen_text(app)
        await press(app, pilot, "tab")
        first = results(app).parallel.shown
        assert "5 of 6 parameters" in screen_text(app) and first[0] == "lr"
        await press(app, pilot, "x")
        assert set(first) | set(results(app).parallel.shown) == {
            "lr", "rank", "dropout", "schedule", "decay", "batch", "eval loss",
        }  # fmt: skip


async def test_v_gives_the_picture_the_tables_room_and_keeps_its_row() -> None:
    app = TunedeckApp(source_of(searched()), FOLDER)
    async with app.run_test(size=(80, 24)) as pilot:
        await settle(app, pilot)
        await press(app, pilot, "5", "tab")
        before = results(app).scatter.size.height
        await press(app, pilot, "v", "down")
        assert results(app).scatter.size.height > before and results(app).table.size.height == 2
        assert results(app).table.cursor_key == "6" and results(app).table.has_focus
        await press(app, pilot, "v")
        assert results(app).scatter.size.height == before


async def test_curves_are_read_only_while_they_are_drawn() -> None:
    source = FakeSource()
    app = TunedeckApp(source, FOLDER)
    async with app.run_test(size=(80, 24)) as pilot:
        await settle(app, pilot)
        await press(app, pilot, "5")
        assert results(app).wanted().whole == {1, 2}
        await press(app, pilot, "tab")
        assert results(app).wanted().whole == set() and results(app).wanted().results
        await press(app, pilot, "1")
        assert not source.feed.wanted[-1].whole


async def test_another_study_takes_the_place_of_the_one_before() -> None:
    source = FakeSource()
    app = TunedeckApp(source, FOLDER)
    async with app.run_test(size=(80, 24)) as pilot:
        await settle(app, pilot)
        await press(app, pilot, "5", "tab")
        assert "Best: trial 2" in screen_text(app)
        app.open_study(next(folder for folder in source.feeds if folder != FOLDER))
        await settle(app, pilot)
        screen = app._screen_stacks["results"][-1]
        assert isinstance(screen, ResultsScreen)
        screen.show_view(app.view)
        assert screen.table.row_count == 0 and screen.selected is None
        await press(app, pilot, "5")
        assert "Best: trial 1" in screen_text(app) and "Best: trial 2" not in screen_text(app)


async def test_a_trial_that_ends_moves_into_the_ranking_and_the_picture() -> None:
    source = FakeSource()
    app = TunedeckApp(source, FOLDER)
    async with app.run_test(size=(80, 24)) as pilot:
        await settle(app, pilot)
        await press(app, pilot, "5", "tab")
        assert "Best: trial 2" in screen_text(app)
        source.feed.tell(
            TrialEnded(
                t=NOW, trial=5, attempt=1, ending="completed", loss=1.5, eval_loss=1.5, value=1.5
            )
        )
        app.poll_soon()
        await settle(app, pilot)
        assert "Best: trial 5" in screen_text(app)
        assert next(d.key for d in results(app).scatter._dots if d.shape == "best") == 5


async def test_nothing_is_sent_while_nothing_happens(monkeypatch: pytest.MonkeyPatch) -> None:
    source = FakeSource()
    app = TunedeckApp(source, FOLDER)
    async with app.run_test(size=(160, 45)) as pilot:
        await settle(app, pilot)
        asked: list[Any] = []
        for _ in VIEWS:
            await press(app, pilot, "5", "tab")
            for widget in results(app).query("*"):
                monkeypatch.setattr(widget, "refresh", lambda *r, **_: asked.append(r))
            source.feed.train(6, points(2.0, 120, until=45)[-1:])
            app.poll_soon()
            await settle(app, pilot)
            monkeypatch.undo()
            assert asked == []


async def test_the_edge_of_the_space_is_warned_of_where_the_winner_is_named() -> None:
    log = ended(2.3, 2.2, 2.1, 2.0)
    space = {"learning_rate": {"low": 1e-5, "high": 4e-5}}
    app = TunedeckApp(source_of(log, space), FOLDER)
    async with app.run_test(size=(80, 24)) as pilot:
        await settle(app, pilot)
        await press(app, pilot, "5")
        text = screen_text(app)
        assert "! the best has the highest learning rate tried, 4e-5: widen to 5.5e-5?" in text
        await press(app, pilot, "shift+tab")
        assert "! The best, trial 4, has the highest learning_rate tried" in screen_text(app)
        await press(app, pilot, "shift+tab")
        assert "too few" in screen_text(app)


async def test_all_lost_is_said_plainly() -> None:
    app = TunedeckApp(source_of(*STUDIES["all diverged"]), FOLDER)
    async with app.run_test(size=(80, 24)) as pilot:
        await settle(app, pilot)
        await press(app, pilot, "5")
        text = screen_text(app)
        assert "All trials diverged: there is no winner." in text and "9 diverged" in text
        await press(app, pilot, "tab")
        assert "no value│" in screen_text(app) and "↑" in screen_text(app)


@pytest.mark.parametrize("size", [(80, 24), (160, 45)], ids=lambda s: f"{s[0]}x{s[1]}")
@pytest.mark.parametrize(
    "keys",
    [("tab",), ("tab", "tab"), ("tab", "tab", "tab"), ("shift+tab",)],
    ids=["scatter", "parallel", "importance", "last"],
)
def test_picture(snap_compare: Any, keys: tuple[str, ...], size: tuple[int, int]) -> None:
    app = TunedeckApp(source_of(searched()), FOLDER)

    async def type_keys(pilot: Any) -> None:
        await settle(app, pilot)
        await press(app, pilot, "5", *keys, "down")

    assert snap_compare(app, terminal_size=size, run_before=type_keys)


async def test_in_a_large_terminal_the_advice_has_a_place_of_its_own() -> None:
    app = TunedeckApp(source_of(searched()), FOLDER)
    async with app.run_test(size=(160, 45)) as pilot:
        await settle(app, pilot)
        await press(app, pilot, "5", "tab")
        screen = results(app)
        assert "advice" not in screen.views and screen.has_class("-many")
        assert "Rates up to 1.1e-3 are safe" in screen_text(app) and "★" in screen_text(app)
        await pilot.resize_terminal(100, 30)
        await settle(app, pilot)
        assert "advice" in screen.views and not screen.has_class("-many")
        assert "Rates up to" not in screen_text(app) and "★" in screen_text(app)


async def test_the_field_holds_those_that_a_rung_dropped_but_not_the_lost() -> None:
    source = source_of(searched())
    source.feed.metrics = {n: points(1.8, 40) for n in (14, 6, 22, 8)}
    app = TunedeckApp(source, FOLDER)
    async with app.run_test(size=(120, 40)) as pilot:
        await settle(app, pilot)
        await press(app, pilot, "5")
        assert {14, 6, 22} <= results(app).wanted().whole and 8 not in results(app).wanted().whole
        drawn = [(p.source.label, p.source.dim) for p in results(app).chart._series]
        assert drawn[0] == ("best (14)", False) and ("22", True) in drawn


async def test_left_and_right_pass_over_a_trial_that_waits_at_a_rung() -> None:
    log = searched()
    first = next(i for i, e in enumerate(log) if type(e).__name__ == "RungDecided")
    log = log[: first + 1]
    app = TunedeckApp(source_of(log), FOLDER)
    async with app.run_test(size=(80, 24)) as pilot:
        await settle(app, pilot)
        await press(app, pilot, "5", "tab", "home")
        found = results(app)._found
        assert found is not None and found.open and len(found.standings) > 2
        listed = {str(s.trial) for s in found.standings}
        await press(app, pilot, *["left"] * 30)
        seen = {results(app).table.cursor_key}
        for _ in listed:
            await press(app, pilot, "right")
            seen.add(results(app).table.cursor_key)
        drawn = {str(d.key) for d in results(app).scatter._dots}
        assert seen == listed & drawn


async def test_a_click_on_a_trial_that_goes_on_says_so() -> None:
    log = searched()
    first = next(i for i, e in enumerate(log) if type(e).__name__ == "RungDecided")
    app = TunedeckApp(source_of(log[:first]), FOLDER)
    async with app.run_test(size=(80, 24)) as pilot:
        await settle(app, pilot)
        await press(app, pilot, "5", "tab")
        lines = screen_text(app).splitlines()
        y = max(y for y, line in enumerate(lines) if "◇" in line)
        await pilot.click(offset=(lines[y].index("◇"), y))
        await settle(app, pilot)
        assert "it goes on, and has no place yet" in screen_text(app)
        await press(app, pilot, "tab")
        assert "eval loss" in screen_text(app) and NOTHING_YET not in screen_text(app)


async def test_curves_of_trials_that_wait_are_drawn_before_any_has_a_place() -> None:
    log = searched()
    first = next(i for i, e in enumerate(log) if type(e).__name__ == "RungDecided")
    log = [e for e in log[:first] if getattr(e, "ending", "") not in ("diverged", "oom")]
    source = source_of(log)
    app = TunedeckApp(source, FOLDER)
    async with app.run_test(size=(80, 24)) as pilot:
        await settle(app, pilot)
        await press(app, pilot, "5")
        found = results(app)._found
        assert found is not None and not found.standings
        values = [s.value for s in found.open]
        assert values == sorted(values, key=lambda v: v or 0) and found.open[0].rank == 0
        assert {s.trial for s in found.open[:8]} <= results(app).wanted().whole


async def test_another_best_is_bright_though_the_same_curves_are_drawn() -> None:
    source = source_of(ended(2.0, 2.3, 2.1), RATES)
    source.feed.metrics = {n: points(2.0, 40) for n in (1, 2, 3)}
    app = TunedeckApp(source, FOLDER)
    async with app.run_test(size=(80, 24)) as pilot:
        await settle(app, pilot)
        await press(app, pilot, "5")
        assert results(app).chart._series[0].source.label == "best (1)"
        confirmed = TrialAdded(
            t=NOW, trial=4, settings={"learning_rate": 1e-5}, source="confirm", parent=1
        )
        again = TrialEnded(t=NOW, trial=4, attempt=1, ending="diverged")
        source.feed.tell(confirmed, again)
        app.poll_soon()
        await settle(app, pilot)
        assert "Best: trial 3" in screen_text(app)
        assert results(app).chart._series[0].source.label == "best (3)"


@pytest.mark.parametrize(("kind", "word"), [("full", "a training"), ("range", "range test")])
async def test_what_is_no_search_is_called_what_it_is(kind: Any, word: str) -> None:
    log: list[AnyEvent] = [
        StudyCreated(t=1, version=3, name="s", tunedeck="0", rank_by="eval_loss", planned=1),
        TrialAdded(t=1, trial=1, settings={}, kind=kind),
        TrialEnded(t=2, trial=1, attempt=1, ending="completed", value=2.0, eval_loss=2.0),
        StudyChanged(t=3, status="finished"),
    ]
    app = TunedeckApp(source_of(log, {}), FOLDER)
    async with app.run_test(size=(80, 24)) as pilot:
        await settle(app, pilot)
        await press(app, pilot, "5")
        assert f"{word}, no search: 3 shows it" in screen_text(app)


async def test_the_training_of_the_winner_is_no_trial_to_go() -> None:
    log = [*ended(2.0, 2.1), TrialAdded(t=NOW, trial=3, settings={}, kind="full")]
    app = TunedeckApp(source_of(log, RATES), FOLDER)
    async with app.run_test(size=(120, 24)) as pilot:
        await settle(app, pilot)
        await press(app, pilot, "5")
        assert "Best: trial 1" in screen_text(app) and "to go" not in screen_text(app)


@pytest.mark.parametrize("ascii", [False, True])
async def test_without_a_winner_the_reasons_are_told(ascii: bool) -> None:
    why = "no trial completed: 9 failed (the “data” is gone)"
    log = [
        *ended(*[None] * 9, status="failed"),
        StudyChanged(t=NOW, status="finished", reason=why),
    ]
    app = TunedeckApp(source_of(log, RATES), FOLDER, ascii=ascii)
    async with app.run_test(size=(80, 24)) as pilot:
        await settle(app, pilot)
        await press(app, pilot, "5")
        text = screen_text(app)
        assert "there is no winner" in text and "! no trial completed: 9 failed" in text
        assert not ascii or text.isascii()


async def test_scale_and_smoothing_are_of_the_picture_that_is_shown() -> None:
    app = TunedeckApp(source_of(searched()), FOLDER)
    async with app.run_test(size=(80, 24)) as pilot:
        await settle(app, pilot)
        await press(app, pilot, "5", "tab", "tab", "l")
        assert "have a scale" in screen_text(app)
        await press(app, pilot, "m")
        assert "Only curves" in screen_text(app)
        await press(app, pilot, "shift+tab", "shift+tab")
        assert "[log]" not in screen_text(app) and "[smooth]" not in screen_text(app)


EDGE = {"learning_rate": {"low": 1e-5, "high": 4e-5}}


def source_in(folder: Path, log: list[AnyEvent]) -> FakeSource:
    """A study in a folder that is there, with its profile."""
    (folder / PROFILE_FILE).write_text(PROFILE, encoding="utf-8")
    source = source_of(log, EDGE)
    source.feed.folder = folder
    source.feeds[folder] = source.feed
    return source


async def test_what_the_doctor_proposes_begins_a_new_draft(tmp_path: Path) -> None:
    app = TunedeckApp(source_in(tmp_path, ended(2.3, 2.2, 2.1, 2.0)), tmp_path)
    async with app.run_test(size=(100, 30)) as pilot:
        await settle(app, pilot)
        await press(app, pilot, "5", "t")
        await app.workers.wait_for_complete()
        await settle(app, pilot)
        form = app.screen
        assert isinstance(form, ConfigureScreen)
        assert form.draft.space == {"train.learning_rate": "1e-5 .. 5.5e-5"}
        assert form.draft.text("data.dataset") == "rows.jsonl" and form._path is None
        assert form.form.current == "train.learning_rate" and form.unsaved
        assert "not saved" in screen_text(app) and "As the doctor proposes" in screen_text(app)
        await press(app, pilot, "u")
        assert form.draft.space == {"train.learning_rate": "1e-5 .. 4e-5"}


async def test_changes_in_the_form_are_not_lost_without_a_question(tmp_path: Path) -> None:
    app = TunedeckApp(source_in(tmp_path, ended(2.3, 2.2, 2.1, 2.0)), tmp_path)
    async with app.run_test(size=(100, 30)) as pilot:
        await settle(app, pilot)
        await press(app, pilot, "2")
        form = app.screen
        assert isinstance(form, ConfigureScreen)
        mine = form.draft.with_text("train.learning_rate", "7e-4")
        form._change(mine)
        for answer, kept in (("n", True), ("y", False)):
            await press(app, pilot, "5", "t")
            assert isinstance(app.screen, ConfirmDialog)
            await press(app, pilot, answer)
            await app.workers.wait_for_complete()
            await settle(app, pilot)
            assert (form.draft == mine) is kept


async def test_of_several_proposals_one_or_all_are_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    log, taken = ended(2.3, 2.2, 2.0, 2.0), []
    app = TunedeckApp(source_of(log, {"learning_rate": {"low": 1e-5, "high": 4e-5}}), FOLDER)
    monkeypatch.setattr(app, "search_on", lambda folder, steps: taken.append(steps))
    steps = (
        NextStep("Widen it.", space={"learning_rate": {"low": 1e-5, "high": 1e-4, "scale": "log"}}),
        NextStep("Run two again.", search={"confirm": 2}),
    )
    async with app.run_test(size=(100, 30)) as pilot:
        await settle(app, pilot)
        await press(app, pilot, "5")
        screen = results(app)
        for keys, expected in ((("enter",), steps), (("down", "down", "enter"), steps[1:])):
            screen.run_worker(screen._take_over(FOLDER, steps))
            await settle(app, pilot)
            assert "lr 1e-5 .. 1e-4 log" in screen_text(app) and "confirm 2" in screen_text(app)
            await press(app, pilot, *keys)
            assert taken[-1] == expected
        screen.run_worker(screen._take_over(FOLDER, steps))
        await settle(app, pilot)
        await press(app, pilot, "escape")
        assert len(taken) == 2


async def test_where_nothing_is_proposed_it_is_said() -> None:
    app = TunedeckApp(source_of(ended(2.0), RATES), FOLDER)
    async with app.run_test(size=(80, 24)) as pilot:
        await settle(app, pilot)
        await press(app, pilot, "5", "t")
        assert "proposes no other search" in screen_text(app) and results(app)


async def test_that_others_are_as_good_is_seen_in_a_narrow_terminal_too() -> None:
    settings = {f"parameter_{i}": "value" for i in range(9)}
    log: list[AnyEvent] = [
        StudyCreated(t=1, version=3, name="s", tunedeck="0", rank_by="eval_loss", planned=2)
    ]
    for n, value in ((1, 2.0), (2, 2.0)):
        log += [
            TrialAdded(t=1, trial=n, settings={**settings, "learning_rate": 1e-4 * n}),
            TrialEnded(t=2, trial=n, attempt=1, ending="completed", value=value, eval_loss=value),
        ]
    app = TunedeckApp(source_of(log, RATES), FOLDER)
    async with app.run_test(size=(80, 24)) as pilot:
        await settle(app, pilot)
        await press(app, pilot, "5")
        assert "1 other as good: tie, one run each" in screen_text(app)
